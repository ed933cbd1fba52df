//! What the policy allows, by role, rule and tenant; and that a change counts at once.

#![allow(clippy::unwrap_used)]

mod cost;
mod random;

use std::sync::Arc;

use highwater_catalog::{
    Access, CLUSTER_DOMAIN, Catalog, Command, Effect, FoundingNode, Grant, PolicyChange, Reply, Rule,
};

use super::*;

fn client(tenant: &str, name: &str) -> Principal {
    Principal::new(&Identity::Client {
        cluster: "prod".to_owned(),
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    })
}

fn node() -> Principal {
    Principal::new(&Identity::Node {
        cluster: "prod".to_owned(),
        name: "a".to_owned(),
    })
}

fn topic(tenant: &str, topic: &str) -> Resource {
    Resource::Topic(TopicName {
        tenant: tenant.to_owned(),
        topic: topic.to_owned(),
    })
}

fn group(tenant: &str, group: &str) -> Resource {
    Resource::Group {
        tenant: tenant.to_owned(),
        group: group.to_owned(),
    }
}

fn tenant(name: &str) -> Resource {
    Resource::Tenant(name.to_owned())
}

pub(super) fn rule(subject: &str, domain: &str, resource: &str, action: &str) -> Rule {
    Rule {
        subject: subject.to_owned(),
        domain: domain.to_owned(),
        resource: resource.to_owned(),
        action: action.to_owned(),
        effect: Effect::Allow,
    }
}

pub(super) fn grant(client: &str, role: &str, domain: &str) -> Grant {
    Grant {
        client: client.to_owned(),
        role: role.to_owned(),
        domain: domain.to_owned(),
    }
}

/// A catalog that is ready for a policy.
pub(super) struct Policy {
    catalog: Catalog,
    index: u64,
}

impl Policy {
    /// The first policy of tenants `ops`, whose `anna` is an operator, and `shop`, all of whose clients own it.
    pub(super) fn first() -> Policy {
        let mut policy = Policy {
            catalog: Catalog::new(),
            index: 0,
        };
        policy.apply(Command::Found {
            cluster_id: [1; 16],
            cluster_name: "prod".to_owned(),
            nodes: vec![FoundingNode {
                name: "a".to_owned(),
                incarnation: [1; 16],
                address: "a:1".to_owned(),
                rack: String::new(),
                replica_id: 1,
            }],
        });
        policy.apply(Command::RaiseFeatureLevel { level: 4 });
        let first = FirstPolicy {
            operators: vec!["ops/anna".to_owned()],
            tenants: vec!["shop".to_owned()],
        };
        policy.apply(first.command([]).unwrap());
        policy.apply(Command::CreateTenant {
            tenant: "next".to_owned(),
            clients_role: None,
        });
        let others = vec![grant("ops/*", "owner", "ops")];
        policy.change(PolicyChange {
            remove_grants: others,
            ..PolicyChange::default()
        });
        policy
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let reply = self.catalog.apply(self.index, &command);
        assert!(!matches!(reply, Reply::Refused(_)), "{command:?}: {reply:?}");
    }

    fn change(&mut self, change: PolicyChange) {
        self.apply(Command::ChangePolicy {
            expected_version: self.access().version(),
            change,
        });
    }

    pub(super) fn add(&mut self, rules: Vec<Rule>, grants: Vec<Grant>) {
        self.change(PolicyChange {
            add_rules: rules,
            add_grants: grants,
            ..PolicyChange::default()
        });
    }

    pub(super) fn access(&self) -> &Arc<Access> {
        self.catalog.access()
    }

    fn authority(&self) -> Authority {
        Authority::fixed(self.access(), &[])
    }
}

const ACTIONS: [Action; 5] = [
    Action::Produce,
    Action::Consume,
    Action::Describe,
    Action::Manage,
    Action::Admin,
];

fn allowed(authority: &Authority, principal: &Principal, resource: &Resource) -> Vec<&'static str> {
    let actions = ACTIONS.into_iter();
    let is_allowed = |action: &Action| authority.authorize(principal, *action, resource.clone()).is_ok();
    actions.filter(is_allowed).map(Action::name).collect()
}

const ALL: [&str; 5] = ["produce", "consume", "describe", "manage", "admin"];
const NONE: [&str; 0] = [];

#[test]
fn before_there_is_a_policy_each_client_may_do_everything_in_its_own_tenant() {
    let authority = Authority::fixed(&Arc::default(), &["ops/anna".to_owned()]);
    let web = client("shop", "web");
    for resource in [topic("shop", "orders"), tenant("shop"), group("shop", "billing")] {
        assert_eq!(allowed(&authority, &web, &resource), ALL, "{resource}");
    }
    for foreign in ["shopx", "sho", "other"] {
        for resource in [topic(foreign, "orders"), tenant(foreign), group(foreign, "billing")] {
            assert_eq!(allowed(&authority, &web, &resource), NONE, "{resource}");
        }
    }
    assert_eq!(allowed(&authority, &web, &Resource::Cluster), ["describe"]);
    assert_eq!(allowed(&authority, &client("ops", "anna"), &Resource::Cluster), ALL);
    for other in [client("ops", "bert"), client("shop", "anna")] {
        assert_eq!(allowed(&authority, &other, &Resource::Cluster), ["describe"]);
    }
}

#[test]
fn each_built_in_role_may_do_what_its_name_says() {
    let mut policy = Policy::first();
    let roles = ["owner", "producer", "consumer", "viewer"];
    let grants = roles.map(|role| grant(&format!("ops/{role}"), role, "next"));
    policy.add(Vec::new(), grants.to_vec());
    let authority = policy.authority();
    let of = |role: &str, resource: Resource| allowed(&authority, &client("ops", role), &resource);
    let (orders, billing) = (topic("next", "orders"), group("next", "billing"));
    for resource in [orders.clone(), billing.clone(), tenant("next")] {
        assert_eq!(of("owner", resource), ALL);
    }
    assert_eq!(of("producer", orders.clone()), ["produce", "describe"]);
    assert_eq!(of("producer", billing.clone()), NONE);
    assert_eq!(of("producer", tenant("next")), ["describe"]);
    assert_eq!(of("consumer", orders.clone()), ["consume", "describe"]);
    assert_eq!(of("consumer", billing.clone()), ["consume", "describe"]);
    assert_eq!(of("consumer", tenant("next")), ["describe"]);
    for resource in [orders.clone(), billing.clone(), tenant("next")] {
        assert_eq!(of("viewer", resource), ["describe"]);
    }
    for role in roles {
        assert_eq!(of(role, Resource::Cluster), ["describe"], "{role}");
        assert_eq!(
            of(role, topic("shop", "orders")),
            NONE,
            "a role counts where it is granted"
        );
        assert_eq!(of(role, topic("ops", "orders")), NONE);
    }
    assert_eq!(of("anna", Resource::Cluster), ALL, "the operator");
    assert_eq!(
        of("anna", orders),
        NONE,
        "an operator runs the cluster, and reads nobody's records"
    );
    assert_eq!(allowed(&authority, &client("shop", "anyone"), &topic("shop", "x")), ALL);
}

#[test]
fn who_denies_wins_and_prefixes_are_beginnings() {
    let mut policy = Policy::first();
    let mut denied = rule("shop/web", "shop", "topic:orders.secret*", "consume");
    denied.effect = Effect::Deny;
    let own = rule("ops/feed", "shop", "topic:orders.*", "produce");
    policy.add(vec![denied, own], Vec::new());
    let authority = policy.authority();
    let web = |name| allowed(&authority, &client("shop", "web"), &topic("shop", name));
    assert_eq!(web("orders.secret"), ["produce", "describe", "manage", "admin"]);
    assert_eq!(web("orders.secrets"), ["produce", "describe", "manage", "admin"]);
    assert_eq!(web("orders.secre"), ALL);
    let feed = |tenant, name| allowed(&authority, &client("ops", "feed"), &topic(tenant, name));
    assert_eq!(feed("shop", "orders.eu"), ["produce"]);
    assert_eq!(feed("shop", "orders"), NONE);
    assert_eq!(feed("shop", "xorders.eu"), NONE);
    assert_eq!(feed("next", "orders.eu"), NONE);
    assert_eq!(
        allowed(&authority, &client("ops", "feeds"), &topic("shop", "orders.eu")),
        NONE
    );
}

#[test]
fn what_may_not_be_looked_at_is_answered_like_what_is_not_there() {
    let mut policy = Policy::first();
    policy.add(Vec::new(), vec![grant("ops/viewer", "viewer", "shop")]);
    let authority = policy.authority();
    let denied = |who: &str, action, resource| authority.authorize(&client("ops", who), action, resource).unwrap_err();
    for action in ACTIONS {
        let hidden = denied("stranger", action, topic("shop", "orders"));
        assert!(matches!(hidden, Denied::Hidden(_)), "{hidden}");
        let forbidden = denied("stranger", action, tenant("shop"));
        assert!(matches!(forbidden, Denied::Forbidden { .. }), "{forbidden}");
    }
    let known = denied("viewer", Action::Produce, topic("shop", "orders"));
    let text = "spiffe://prod/tenant/ops/client/viewer may not produce topic `shop/orders`";
    assert_eq!(known.to_string(), text);
}

#[test]
fn a_node_certificate_is_not_a_client() {
    let mut policy = Policy::first();
    policy.add(Vec::new(), vec![grant("shop/a", "owner", "next")]);
    for authority in [
        policy.authority(),
        Authority::fixed(&Arc::default(), &["shop/a".to_owned()]),
    ] {
        for resource in [
            Resource::Cluster,
            tenant("shop"),
            topic("shop", "a"),
            group("shop", "a"),
        ] {
            assert_eq!(allowed(&authority, &node(), &resource), NONE);
        }
    }
}

#[test]
fn clients_of_unknown_and_suspended_tenants_may_do_nothing() {
    let mut policy = Policy::first();
    policy.add(Vec::new(), vec![grant("ops/feed", "producer", "shop")]);
    let (feed, web) = (client("ops", "feed"), client("shop", "web"));
    let authority = policy.authority();
    assert_eq!(allowed(&authority, &feed, &topic("shop", "a")), ["produce", "describe"]);
    assert_eq!(allowed(&authority, &client("gone", "web"), &Resource::Cluster), NONE);
    policy.apply(Command::SuspendTenant {
        tenant: "shop".to_owned(),
        suspended: true,
    });
    authority.replace(policy.access());
    for resource in [topic("shop", "a"), tenant("shop"), Resource::Cluster] {
        assert_eq!(allowed(&authority, &web, &resource), NONE);
    }
    assert_eq!(
        allowed(&authority, &feed, &topic("shop", "a")),
        NONE,
        "nobody else, either"
    );
    assert_eq!(allowed(&authority, &feed, &Resource::Cluster), ["describe"]);
    let break_glass = Authority::fixed(policy.access(), &["shop/web".to_owned()]);
    assert_eq!(
        allowed(&break_glass, &web, &Resource::Cluster),
        ALL,
        "the node's configuration"
    );
}

#[test]
fn that_another_tenant_is_suspended_is_told_to_those_who_may_do_something_there() {
    let mut policy = Policy::first();
    policy.add(Vec::new(), vec![grant("ops/feed", "producer", "shop")]);
    policy.apply(Command::SuspendTenant {
        tenant: "shop".to_owned(),
        suspended: true,
    });
    let authority = policy.authority();
    let explain = |tenant, name, action| {
        let (domain, resource) = (Domain::Tenant("shop"), catalog::Resource::Topic("orders"));
        authority.explain(policy.access(), Client { tenant, name }, domain, resource, action)
    };
    let suspended = (false, Reason::SuspendedTenant);
    assert_eq!(explain("ops", "feed", Action::Produce), suspended);
    assert_eq!(explain("shop", "web", Action::Produce), suspended);
    assert_eq!(explain("ops", "feed", Action::Consume), (false, Reason::NoRule));
    assert_eq!(explain("next", "web", Action::Produce), (false, Reason::NoRule));
}

#[test]
fn a_change_counts_at_once_also_for_what_was_decided_before() {
    let mut policy = Policy::first();
    let authority = policy.authority();
    let (feed, orders) = (client("ops", "feed"), topic("shop", "orders"));
    for _ in 0..2 {
        assert_eq!(allowed(&authority, &feed, &orders), NONE);
    }
    policy.add(Vec::new(), vec![grant("ops/feed", "producer", "shop")]);
    authority.replace(policy.access());
    for _ in 0..2 {
        assert_eq!(allowed(&authority, &feed, &orders), ["produce", "describe"]);
    }
    policy.change(PolicyChange {
        remove_grants: vec![grant("ops/feed", "producer", "shop")],
        ..PolicyChange::default()
    });
    authority.replace(policy.access());
    assert_eq!(allowed(&authority, &feed, &orders), NONE);
}

#[test]
fn an_explanation_names_the_rule_that_decides() {
    let mut policy = Policy::first();
    let mut denied = rule("shop/web", "shop", "topic:orders", "produce");
    denied.effect = Effect::Deny;
    policy.add(vec![denied.clone()], Vec::new());
    let authority = policy.authority();
    let explain = |name, topic, action| {
        let client = Client { tenant: "shop", name };
        authority.explain(
            policy.access(),
            client,
            Domain::Tenant("shop"),
            catalog::Resource::Topic(topic),
            action,
        )
    };
    let owner = rule("owner", "*", "*", "*");
    assert_eq!(explain("web", "orders", Action::Produce), (false, Reason::Rule(denied)));
    assert_eq!(
        explain("web", "orders", Action::Consume),
        (true, Reason::Rule(owner.clone()))
    );
    assert_eq!(explain("app", "orders", Action::Produce), (true, Reason::Rule(owner)));
    let stranger = Client {
        tenant: "next",
        name: "web",
    };
    let why = authority.explain(
        policy.access(),
        stranger,
        Domain::Tenant("shop"),
        catalog::Resource::Tenant,
        Action::Describe,
    );
    assert_eq!(why, (false, Reason::NoRule));
    let nobody = Client {
        tenant: "gone",
        name: "web",
    };
    let why = authority.explain(
        policy.access(),
        nobody,
        Domain::Cluster,
        catalog::Resource::Cluster,
        Action::Describe,
    );
    assert_eq!(why, (false, Reason::UnknownTenant));
    let operator = Client {
        tenant: "ops",
        name: "anna",
    };
    let why = authority.explain(
        policy.access(),
        operator,
        Domain::Cluster,
        catalog::Resource::Cluster,
        Action::Admin,
    );
    assert_eq!(
        why,
        (true, Reason::Rule(rule("operator", CLUSTER_DOMAIN, "cluster:", "*")))
    );
}

#[test]
fn whether_another_tenant_exists_or_is_suspended_is_no_part_of_what_its_rules_come_to_for_others() {
    let mut policy = Policy::first();
    policy.apply(Command::SuspendTenant {
        tenant: "next".to_owned(),
        suspended: true,
    });
    let granted = ["next/feed", "gone/feed", "ops/feed"].map(|client| grant(client, "producer", "shop"));
    policy.add(Vec::new(), granted.to_vec());
    let authority = policy.authority();
    let explain = |tenant, name| {
        let (domain, resource) = (Domain::Tenant("shop"), catalog::Resource::Topic("orders"));
        authority.explain_foreign(
            policy.access(),
            Client { tenant, name },
            domain,
            resource,
            Action::Produce,
        )
    };
    let producer = Reason::Rule(rule("producer", "*", "topic:*", "produce"));
    for tenant in ["next", "gone", "ops"] {
        assert_eq!(explain(tenant, "feed"), (true, producer.clone()), "{tenant}");
        assert_eq!(explain(tenant, "web"), (false, Reason::NoRule), "{tenant}");
    }
}

#[test]
fn a_topic_that_was_hidden_is_told_openly_with_what_may_no_longer_be_done() {
    let authority = Policy::first().authority();
    for action in [Action::Consume, Action::Produce] {
        let hidden = authority.check(&client("ops", "feed"), action, &topic("shop", "orders"));
        let told = hidden.unwrap_err().openly(action).to_string();
        assert_eq!(
            told,
            format!("this client may not {} topic `shop/orders`", action.name())
        );
    }
}

#[test]
fn a_permit_serves_for_its_own_action_only() {
    let authority = Policy::first().authority();
    let permit = authority.authorize(&client("shop", "web"), Action::Consume, topic("shop", "a"));
    let permit = permit.unwrap();
    assert!(permit.topic(Action::Consume).is_some());
    assert!(permit.topic(Action::Produce).is_none());
}

#[test]
fn topic_names_belong_to_the_own_tenant_unless_they_say_otherwise() {
    let name = TopicName::parse("orders", "shop").unwrap();
    assert_eq!(name.to_string(), "shop/orders");
    assert_eq!(TopicName::parse("other/orders", "shop").unwrap().tenant, "other");
    for wrong in ["", "/", "a/", "/a", "a/b/c", "Orders", "a..b", "../x", "a b"] {
        assert!(TopicName::parse(wrong, "shop").is_err(), "{wrong}");
    }
}

#[test]
fn principals_have_distinct_digests() {
    assert_eq!(client("shop", "web").digest, client("shop", "web").digest);
    assert_ne!(client("shop", "web").digest, client("shop", "app").digest);
    assert_ne!(client("shop", "a").digest, node().digest);
}
