//! What is asked of a change of the policy before it is proposed: who may fill how much of it, and what nobody learns by a refusal.

use super::access::{add_grant, add_rule, create_tenant, grant, rule};
use super::*;
use crate::limits::{
    CLIENT_ROLES_MAX, OPERATORS_SHARE, POLICY_CHANGE_MAX, RULES_MAX, SUBJECT_RULES_MAX, TENANT_RULES_MAX,
};
use crate::{Access, PolicyChange, Proposer, Rule};

use Proposer::{Manager, Operator};

fn refusal(access: &Access, change: &PolicyChange, by: Proposer) -> Option<Refusal> {
    access.proposed(change, by).err()
}

/// So many rules of a tenant, numbered from `first`, each role as few as it may have.
fn rules(tenant: &str, first: usize, count: usize) -> Vec<Rule> {
    let rule = |number: usize| {
        let role = format!("role-{tenant}-{}", number / SUBJECT_RULES_MAX);
        rule(&role, tenant, &format!("topic:t{number}"), "consume")
    };
    (first..first + count).map(rule).collect()
}

fn adding(add_rules: Vec<Rule>) -> PolicyChange {
    PolicyChange {
        add_rules,
        ..PolicyChange::default()
    }
}

impl Fixture {
    /// Without asking what is asked before a change is proposed, as an older version did.
    fn fill(&mut self, tenant: &str, count: usize) {
        for first in (0..count).step_by(POLICY_CHANGE_MAX) {
            let some = rules(tenant, first, POLICY_CHANGE_MAX.min(count - first));
            self.changed(adding(some));
        }
    }
}

#[test]
fn a_client_of_a_tenant_that_is_not_there_is_answered_like_any_other() {
    let fixture = Fixture::with_access();
    for subject in ["ops/web", "acne/web"] {
        for change in [
            add_rule(rule(subject, "acme", "topic:orders", "produce")),
            add_grant(grant(subject, "owner", "acme")),
        ] {
            for by in [Manager, Operator] {
                assert_eq!(refusal(fixture.catalog.access(), &change, by), None, "{subject}");
            }
        }
    }
}

#[test]
fn a_role_of_another_tenant_is_refused_like_one_that_nobody_has() {
    let mut fixture = Fixture::with_access();
    fixture.changed(add_rule(rule("secret", "ops", "topic:a", "consume")));
    let access = fixture.catalog.access();
    for role in ["secret", "nothing"] {
        let change = add_grant(grant("acme/web", role, "acme"));
        let role = role.to_string();
        assert_eq!(refusal(access, &change, Manager), Some(Refusal::RoleNotFound { role }));
    }
    let with_role = PolicyChange {
        add_rules: vec![rule("secret", "acme", "topic:b", "consume")],
        ..add_grant(grant("acme/web", "secret", "acme"))
    };
    assert_eq!(refusal(access, &with_role, Manager), None, "it is its own then");
    // The last rule of a role that is granted stays, whether or not others have a role of that name.
    let access = access.changed(&with_role).unwrap();
    let removal = PolicyChange {
        remove_rules: with_role.add_rules,
        ..PolicyChange::default()
    };
    let role = "secret".to_string();
    assert_eq!(
        refusal(&access, &removal, Manager),
        Some(Refusal::RoleNotFound { role })
    );
}

#[test]
fn what_was_granted_before_stands_in_nobodys_way() {
    let mut fixture = Fixture::with_access();
    fixture.changed(add_rule(rule("secret", "ops", "topic:a", "consume")));
    fixture.changed(add_grant(grant("acme/web", "secret", "acme")));
    let other = add_grant(grant("acme/app", "owner", "acme"));
    assert_eq!(refusal(fixture.catalog.access(), &other, Manager), None);
}

#[test]
fn tenants_have_a_quarter_each_and_leave_the_last_tenth_to_operators() {
    let mut fixture = Fixture::with_access();
    let kept = RULES_MAX / OPERATORS_SHARE;
    for tenant in ["a", "b", "c", "d"] {
        fixture.version(create_tenant(tenant, None));
        fixture.fill(tenant, TENANT_RULES_MAX - kept / 4);
    }
    let first = TENANT_RULES_MAX - kept / 4;
    let access = fixture.catalog.access();
    assert!(access.rules().count() >= RULES_MAX - kept);
    for by in [Manager, Operator] {
        let change = adding(rules("a", first, 1));
        let found = refusal(access, &change, by);
        assert_eq!(found.is_some(), by == Manager, "{found:?}");
    }
    let message = refusal(access, &adding(rules("a", first, 1)), Manager)
        .unwrap()
        .to_string();
    assert!(message.contains("kept for operators"), "{message}");
    let swap = PolicyChange {
        remove_rules: rules("a", 0, 1),
        ..adding(rules("a", first, 1))
    };
    assert_eq!(refusal(access, &swap, Manager), None, "nothing becomes more");
    let more = adding(rules("a", first, kept / 4 + 1));
    assert_eq!(refusal(access, &more, Operator), None, "a backup may have them");
}

#[test]
fn a_tenant_is_filled_by_who_manages_it_up_to_its_quarter() {
    let mut fixture = Fixture::with_access();
    fixture.fill("acme", TENANT_RULES_MAX);
    let access = fixture.catalog.access();
    let more = adding(rules("acme", TENANT_RULES_MAX, 1));
    let message = refusal(access, &more, Manager).unwrap().to_string();
    assert_eq!(
        message,
        format!("there would be more rules in acme than {TENANT_RULES_MAX}")
    );
    assert_eq!(refusal(access, &more, Operator), None, "a backup may have them");
}

#[test]
fn a_client_has_so_many_roles_in_a_tenant_and_more_only_if_it_had_them_before() {
    let mut fixture = Fixture::with_access();
    let role = |number: usize| format!("role-{number}");
    let roles = (0..=CLIENT_ROLES_MAX + 1).map(|number| rule(&role(number), "acme", "topic:a", "consume"));
    fixture.changed(adding(roles.collect()));
    let granted = |count: usize| PolicyChange {
        add_grants: (0..count)
            .map(|number| grant("acme/web", &role(number), "acme"))
            .collect(),
        ..PolicyChange::default()
    };
    let access = fixture.catalog.access();
    assert_eq!(refusal(access, &granted(CLIENT_ROLES_MAX), Manager), None);
    let more = granted(CLIENT_ROLES_MAX + 1);
    let message = refusal(access, &more, Manager).unwrap().to_string();
    let expected = format!("there would be more roles of acme/web in acme than {CLIENT_ROLES_MAX}");
    assert_eq!(message, expected);
    assert_eq!(refusal(access, &more, Operator), None, "a backup may have them");
    // What an operator or an older version has stored is read again, and stays until it is taken away.
    fixture.changed(granted(CLIENT_ROLES_MAX + 1));
    let stored = fixture.catalog.encode();
    assert_eq!(Catalog::decode(&stored), Ok(fixture.catalog.clone()));
    let access = fixture.catalog.access();
    assert_eq!(
        refusal(access, &add_grant(grant("acme/app", "role-1", "acme")), Manager),
        None
    );
    assert!(refusal(access, &granted(CLIENT_ROLES_MAX + 2), Manager).is_some());
    let fewer = PolicyChange {
        remove_grants: granted(1).add_grants,
        ..PolicyChange::default()
    };
    assert_eq!(refusal(access, &fewer, Manager), None);
}
