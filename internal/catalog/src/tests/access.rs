//! Tenants and the policy: set up once, changed by compare-and-set, and never without an operator.

use super::*;
use crate::limits::{POLICY_CHANGE_MAX, SUBJECT_RULES_MAX};
use crate::{CLUSTER_DOMAIN, Domain, Effect, Grant, PolicyChange, Resource, Rule, covers};

pub(super) fn rule(subject: &str, domain: &str, resource: &str, action: &str) -> Rule {
    Rule {
        subject: subject.to_string(),
        domain: domain.to_string(),
        resource: resource.to_string(),
        action: action.to_string(),
        effect: Effect::Allow,
    }
}

pub(super) fn grant(client: &str, role: &str, domain: &str) -> Grant {
    Grant {
        client: client.to_string(),
        role: role.to_string(),
        domain: domain.to_string(),
    }
}

/// One operator, and clients of `acme` that own what is there.
pub(super) fn first_policy() -> PolicyChange {
    PolicyChange {
        add_rules: vec![
            rule("operator", CLUSTER_DOMAIN, "cluster:", "*"),
            rule("owner", "*", "*", "*"),
        ],
        add_grants: vec![
            grant("ops/anna", "operator", CLUSTER_DOMAIN),
            grant("acme/*", "owner", "acme"),
        ],
        ..PolicyChange::default()
    }
}

pub(super) fn set_up(tenants: &[&str], policy: PolicyChange) -> Command {
    let tenants = tenants.iter().map(|tenant| tenant.to_string()).collect();
    Command::SetUpAccess { tenants, policy }
}

pub(super) fn create_tenant(tenant: &str, clients_role: Option<&str>) -> Command {
    Command::CreateTenant {
        tenant: tenant.to_string(),
        clients_role: clients_role.map(str::to_string),
    }
}

fn suspend(tenant: &str, suspended: bool) -> Command {
    let tenant = tenant.to_string();
    Command::SuspendTenant { tenant, suspended }
}

fn delete_tenant(tenant: &str) -> Command {
    let tenant = tenant.to_string();
    Command::DeleteTenant { tenant }
}

impl Fixture {
    pub(super) fn level_4() -> Fixture {
        let mut fixture = Fixture::level_2(&["", "", ""]);
        fixture.done(Command::RaiseFeatureLevel { level: 4 });
        fixture
    }

    /// With tenants `ops` and `acme`.
    pub(super) fn with_access() -> Fixture {
        let mut fixture = Fixture::level_4();
        fixture.version(set_up(&["ops", "acme"], first_policy()));
        fixture
    }

    /// The policy's version after a command that must succeed.
    pub(super) fn version(&mut self, command: Command) -> u64 {
        match self.apply(command) {
            Reply::Policy { version } => version,
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, change: PolicyChange) -> Command {
        let expected_version = self.catalog.access().version();
        Command::ChangePolicy {
            expected_version,
            change,
        }
    }

    pub(super) fn changed(&mut self, change: PolicyChange) -> u64 {
        let command = self.change(change);
        self.version(command)
    }

    fn change_refused(&mut self, change: PolicyChange) -> Refusal {
        let command = self.change(change);
        self.refused(command)
    }
}

pub(super) fn add_rule(rule: Rule) -> PolicyChange {
    PolicyChange {
        add_rules: vec![rule],
        ..PolicyChange::default()
    }
}

pub(super) fn add_grant(grant: Grant) -> PolicyChange {
    PolicyChange {
        add_grants: vec![grant],
        ..PolicyChange::default()
    }
}

#[test]
fn access_is_set_up_once_and_knows_the_tenants_that_own_topics() {
    let mut fixture = Fixture::level_4();
    fixture.topic(create_in("shop", "orders", 1, 1));
    assert!(!fixture.catalog.access().is_set_up());
    let version = fixture.version(set_up(&["ops", "acme"], first_policy()));
    let access = fixture.catalog.access().clone();
    assert_eq!(access.tenants().keys().collect::<Vec<_>>(), ["acme", "ops", "shop"]);
    assert_eq!((access.rules().count(), access.grants().count()), (2, 2));
    let again = fixture.version(set_up(&["other"], PolicyChange::default()));
    assert_eq!(
        (again, fixture.catalog.access()),
        (version, &access),
        "the second one is late"
    );
}

#[test]
fn nothing_of_access_is_accepted_before_the_level_is_raised_and_access_set_up() {
    let mut fixture = Fixture::level_2(&[""]);
    let commands = |fixture: &mut Fixture| {
        let change = fixture.change(PolicyChange::default());
        [change, create_tenant("a", None), suspend("a", true), delete_tenant("a")]
    };
    for command in commands(&mut fixture).into_iter().chain([set_up(&[], first_policy())]) {
        let refusal = fixture.refused(command);
        assert!(matches!(refusal, Refusal::FeatureLevel { needed: 4, .. }), "{refusal}");
    }
    let mut fixture = Fixture::level_4();
    for command in commands(&mut fixture) {
        assert_eq!(fixture.refused(command), Refusal::AccessNotSetUp);
    }
}

#[test]
fn a_change_is_for_the_version_that_was_seen() {
    let mut fixture = Fixture::with_access();
    let before = fixture.catalog.access().version();
    let reader = rule("reader", "*", "topic:*", "consume");
    let change = fixture.change(add_rule(reader.clone()));
    let version = fixture.version(change.clone());
    assert!(version > before);
    let expected = before;
    assert_eq!(fixture.refused(change), Refusal::PolicyChanged { expected, version });
    assert_eq!(
        fixture.changed(add_rule(reader.clone())),
        version,
        "it is there already"
    );
    let removal = PolicyChange {
        remove_rules: vec![reader.clone()],
        ..PolicyChange::default()
    };
    assert!(fixture.changed(removal.clone()) > version);
    assert!(!fixture.catalog.access().rules().any(|rule| *rule == reader));
    let version = fixture.catalog.access().version();
    assert_eq!(fixture.changed(removal), version, "it is gone already");
}

#[test]
fn there_is_always_an_operator() {
    let mut fixture = Fixture::level_4();
    let without = PolicyChange {
        add_grants: Vec::new(),
        ..first_policy()
    };
    assert_eq!(
        fixture.refused(set_up(&["ops", "acme"], without)),
        Refusal::LastOperator
    );
    let mut fixture = Fixture::with_access();
    let removal = PolicyChange {
        remove_grants: vec![grant("ops/anna", "operator", CLUSTER_DOMAIN)],
        ..PolicyChange::default()
    };
    assert_eq!(fixture.change_refused(removal.clone()), Refusal::LastOperator);
    assert_eq!(fixture.refused(delete_tenant("ops")), Refusal::LastOperator);
    let swap = PolicyChange {
        add_grants: vec![grant("acme/bert", "operator", CLUSTER_DOMAIN)],
        ..removal
    };
    fixture.changed(swap);
    fixture.version(delete_tenant("ops"));
}

#[test]
fn where_a_policy_counts_and_the_roles_of_it_must_be_there_but_not_the_tenants_of_clients() {
    let mut fixture = Fixture::with_access();
    for change in [
        add_rule(rule("acne/web", "acme", "topic:orders", "produce")),
        add_grant(grant("acne/*", "owner", "acme")),
    ] {
        fixture.changed(change);
    }
    let stored = fixture.catalog.encode();
    assert_eq!(Catalog::decode(&stored), Ok(fixture.catalog.clone()));
    let tenant = || "acne".to_string();
    for change in [
        add_rule(rule("acme/web", "acne", "topic:orders", "produce")),
        add_grant(grant("acme/web", "owner", "acne")),
    ] {
        assert_eq!(
            fixture.change_refused(change),
            Refusal::TenantNotFound { tenant: tenant() }
        );
    }
    let role = "ovner".to_string();
    let misspelled = add_grant(grant("acme/web", "ovner", "acme"));
    assert_eq!(fixture.change_refused(misspelled), Refusal::RoleNotFound { role });
    let removal = PolicyChange {
        remove_rules: vec![rule("owner", "*", "*", "*")],
        ..PolicyChange::default()
    };
    let role = "owner".to_string();
    assert_eq!(
        fixture.change_refused(removal),
        Refusal::RoleNotFound { role },
        "it is granted"
    );
}

#[test]
fn what_nobody_could_mean_is_refused_by_field() {
    let mut fixture = Fixture::with_access();
    let long = "a".repeat(129);
    let rules = [
        ("subject", rule("Owner", "*", "*", "*")),
        ("subject", rule("acme/*", "*", "*", "*")),
        ("subject", rule("acme/web/x", "*", "*", "*")),
        ("domain", rule("owner", "@Cluster", "*", "*")),
        ("domain", rule("owner", "ac*", "*", "*")),
        ("domain", rule("acme/web", "*", "*", "*")),
        ("resource", rule("owner", "*", "topic:", "*")),
        ("resource", rule("owner", "*", "topic:a*b", "*")),
        ("resource", rule("owner", "*", "topic:**", "*")),
        ("resource", rule("owner", "*", "topic:A*", "*")),
        ("resource", rule("owner", "*", "topic:a/b", "*")),
        ("resource", rule("owner", "*", "topic:é*", "*")),
        ("resource", rule("owner", "*", "topic:a..b", "*")),
        ("resource", rule("owner", "*", "topics:a", "*")),
        ("resource", rule("owner", "*", "orders", "*")),
        ("resource", rule("owner", "*", "tenant:acme", "*")),
        ("resource", rule("owner", "*", "", "*")),
        ("resource", rule("owner", "*", &format!("topic:{long}*"), "*")),
        ("action", rule("owner", "*", "*", "write")),
        ("action", rule("owner", "*", "*", "Produce")),
        ("action", rule("owner", "*", "*", "")),
    ];
    for (field, rule) in rules {
        let refusal = fixture.change_refused(add_rule(rule.clone()));
        let is_named = matches!(refusal, Refusal::InvalidName { .. }) || refusal.to_string().starts_with(field);
        assert!(is_named, "{rule}: {refusal}");
    }
    let grants = [
        grant("acme", "owner", "acme"),
        grant("*", "owner", "acme"),
        grant("acme/w*", "owner", "acme"),
        grant("*/web", "owner", "acme"),
        grant("acme/web", "owner", "*"),
        grant("acme/web", "Owner", "acme"),
        grant("acme/*", "operator", CLUSTER_DOMAIN),
    ];
    for grant in grants {
        let refusal = fixture.change_refused(add_grant(grant.clone()));
        let is_flaw = matches!(refusal, Refusal::InvalidName { .. } | Refusal::InvalidValue { .. });
        assert!(is_flaw, "{grant}: {refusal}");
    }
}

#[test]
fn rules_and_changes_are_bounded() {
    let mut fixture = Fixture::with_access();
    let numbered = |number: usize| rule("reader", "*", &format!("topic:t{number}"), "consume");
    let many = |count: usize| PolicyChange {
        add_rules: (0..count).map(numbered).collect(),
        ..PolicyChange::default()
    };
    fixture.changed(many(SUBJECT_RULES_MAX));
    let refusal = fixture.change_refused(many(SUBJECT_RULES_MAX + 1));
    assert_eq!(
        refusal.to_string(),
        format!("there would be more rules about reader in * than {SUBJECT_RULES_MAX}")
    );
    let refusal = fixture.change_refused(many(POLICY_CHANGE_MAX + 1));
    assert!(matches!(refusal, Refusal::InvalidValue { .. }), "{refusal}");
}

#[test]
fn tenants_are_made_suspended_and_deleted() {
    let mut fixture = Fixture::with_access();
    let unknown = |tenant: &str| Refusal::TenantNotFound {
        tenant: tenant.to_string(),
    };
    assert_eq!(fixture.refused(create_in("shop", "orders", 1, 1)), unknown("shop"));
    fixture.version(create_tenant("shop", Some("owner")));
    assert!(
        fixture
            .catalog
            .access()
            .grants()
            .any(|it| *it == grant("shop/*", "owner", "shop"))
    );
    let exists = fixture.refused(create_tenant("shop", None));
    assert!(matches!(exists, Refusal::TenantExists { .. }), "{exists}");
    let misspelled = fixture.refused(create_tenant("next", Some("ovner")));
    assert!(matches!(misspelled, Refusal::RoleNotFound { .. }), "{misspelled}");
    let invalid = fixture.refused(create_tenant("@cluster", None));
    assert!(matches!(invalid, Refusal::InvalidName { .. }), "{invalid}");

    fixture.topic(create_in("shop", "orders", 1, 1));
    let version = fixture.version(suspend("shop", true));
    assert_eq!(fixture.version(suspend("shop", true)), version, "it is so already");
    let suspended = fixture.refused(create_in("shop", "more", 1, 1));
    assert!(matches!(suspended, Refusal::TenantSuspended { .. }), "{suspended}");
    fixture.version(suspend("shop", false));
    fixture.topic(create_in("shop", "more", 1, 1));

    let in_use = fixture.refused(delete_tenant("shop"));
    assert!(matches!(in_use, Refusal::TenantInUse { topics: 2, .. }), "{in_use}");
    for name in ["orders", "more"] {
        fixture.done(Command::DeleteTopic {
            tenant: "shop".to_string(),
            name: name.to_string(),
            topic_id: None,
        });
    }
    fixture.changed(add_rule(rule("shop/web", "acme", "topic:orders", "produce")));
    fixture.changed(add_rule(rule("acme/web", "shop", "topic:orders", "produce")));
    fixture.changed(add_rule(rule("acme/web", "acme", "topic:shop", "produce")));
    fixture.version(delete_tenant("shop"));
    let access = fixture.catalog.access();
    assert!(
        !access
            .grants()
            .any(|it| it.client.starts_with("shop/") || it.domain == "shop")
    );
    let left: Vec<String> = access.rules().map(Rule::to_string).collect();
    assert!(
        left.contains(&"p, acme/web, acme, topic:shop, produce, allow".to_string()),
        "{left:?}"
    );
    assert!(
        !left
            .iter()
            .any(|line| line.contains("shop/web") || line.contains(", shop,")),
        "{left:?}"
    );
    for command in [suspend("shop", true), delete_tenant("shop")] {
        assert_eq!(fixture.refused(command), unknown("shop"));
    }
}

#[test]
fn patterns_are_exact_or_a_beginning() {
    let topic = |name| Resource::Topic(name).to_text();
    assert!(covers("topic:orders", &topic("orders")));
    assert!(!covers("topic:orders", &topic("orders.eu")));
    assert!(!covers("topic:orders.eu", &topic("orders")));
    assert!(covers("topic:orders*", &topic("orders")) && covers("topic:orders*", &topic("orders.eu")));
    assert!(!covers("topic:orders.*", &topic("orders")));
    assert!(covers("topic:*", &topic("a")) && !covers("topic:*", &Resource::Group("a").to_text()));
    for resource in [topic("a"), Resource::Tenant.to_text(), Resource::Cluster.to_text()] {
        assert!(covers("*", &resource));
    }
    assert!(!covers("tenant:", &Resource::Cluster.to_text()));
    assert_eq!(
        (Domain::Tenant("acme").as_str(), Domain::Cluster.as_str()),
        ("acme", CLUSTER_DOMAIN)
    );
}

#[test]
fn roles_and_rules_are_found_by_client_and_domain() {
    let mut fixture = Fixture::with_access();
    fixture.changed(add_rule(rule("owner.x", "*", "topic:a", "produce")));
    fixture.changed(add_rule(rule("owner", "ops", "topic:b", "produce")));
    fixture.changed(add_grant(grant("acme/web", "owner.x", "ops")));
    let access = fixture.catalog.access();
    let roles = |tenant, client, domain| access.roles_of(tenant, client, domain).collect::<Vec<_>>();
    let (acme, ops) = (Domain::Tenant("acme"), Domain::Tenant("ops"));
    assert_eq!(roles("acme", "web", acme), ["owner"]);
    assert_eq!(roles("acme", "web", ops), ["owner.x"]);
    assert_eq!(roles("acme", "we", ops), [""; 0]);
    assert_eq!(roles("ops", "anna", Domain::Cluster), ["operator"]);
    assert_eq!(roles("ops", "anna", ops), [""; 0]);
    let rules = |subject, domain| {
        access
            .rules_about(subject, domain)
            .map(Rule::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(rules("owner", acme), ["p, owner, *, *, *, allow"]);
    let in_ops = ["p, owner, *, *, *, allow", "p, owner, ops, topic:b, produce, allow"];
    assert_eq!(rules("owner", ops), in_ops);
    assert_eq!(rules("owner", Domain::Cluster), [""; 0], "`*` is for tenants");
    assert_eq!(
        rules("operator", Domain::Cluster),
        ["p, operator, @cluster, cluster:, *, allow"]
    );
}
