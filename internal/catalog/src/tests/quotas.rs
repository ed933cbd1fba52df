//! Quotas: set and cleared limit by limit, and what the catalog itself counts.

use super::access::{first_policy, set_up};
use super::*;
use crate::limits::{CLIENT_QUOTAS_MAX, ID_MAX};
use crate::{EACH_CLIENT, Limit, Quota, QuotaChange};

pub(super) fn quota(limits: &[(Limit, u64)]) -> Quota {
    limits.iter().copied().collect()
}

pub(super) fn setting(limits: &[(Limit, u64)]) -> QuotaChange {
    QuotaChange {
        set: quota(limits),
        ..QuotaChange::default()
    }
}

fn clearing(limits: &[Limit]) -> QuotaChange {
    QuotaChange {
        clear: limits.iter().copied().collect(),
        ..QuotaChange::default()
    }
}

pub(super) fn change_quota(tenant: &str, client: Option<&str>, change: QuotaChange) -> Command {
    Command::ChangeQuota {
        tenant: tenant.to_string(),
        client: client.map(str::to_string),
        change,
    }
}

impl Fixture {
    fn client_quota(&self, client: &str) -> Quota {
        self.catalog.access().tenants()["acme"].client_quota(client)
    }
}

#[test]
fn limits_change_one_by_one_and_repeating_changes_nothing() {
    let mut fixture = Fixture::with_access();
    let both = setting(&[(Limit::Topics, 3), (Limit::ProduceBytesPerSecond, 1_000)]);
    let version = fixture.version(change_quota("acme", None, both.clone()));
    assert_eq!(fixture.version(change_quota("acme", None, both)), version);
    let clearing = clearing(&[Limit::Topics, Limit::Streams]);
    fixture.version(change_quota("acme", None, clearing));
    let access = fixture.catalog.access();
    assert_eq!(
        access.tenants()["acme"].quota,
        quota(&[(Limit::ProduceBytesPerSecond, 1_000)])
    );
    assert_eq!(access.tenant_limit("acme", Limit::Topics), None);
    assert_eq!(access.tenant_limit("nobody", Limit::ProduceBytesPerSecond), None);
}

#[test]
fn a_client_has_its_own_limits_and_else_those_of_each_client() {
    let mut fixture = Fixture::with_access();
    let each = setting(&[(Limit::Connections, 4), (Limit::Streams, 8)]);
    fixture.version(change_quota("acme", Some(EACH_CLIENT), each));
    fixture.version(change_quota("acme", Some("web"), setting(&[(Limit::Connections, 2)])));
    assert_eq!(
        fixture.client_quota("web"),
        quota(&[(Limit::Connections, 2), (Limit::Streams, 8)])
    );
    assert_eq!(
        fixture.client_quota("app"),
        quota(&[(Limit::Connections, 4), (Limit::Streams, 8)])
    );
    fixture.version(change_quota("acme", Some("web"), clearing(&[Limit::Connections])));
    assert_eq!(fixture.client_quota("web"), fixture.client_quota("app"));
    let tenant = &fixture.catalog.access().tenants()["acme"];
    assert_eq!(tenant.client_quotas.len(), 1, "an empty quota is none");
}

#[test]
fn a_quota_that_cannot_be_is_refused_with_the_name_of_the_limit() {
    let mut fixture = Fixture::with_access();
    let cases = [
        (None, Limit::RequestsPerSecond, 0),
        (None, Limit::StoredBytes, ID_MAX + 1),
        (Some("web"), Limit::Topics, 1),
    ];
    for (client, limit, value) in cases {
        match fixture.refused(change_quota("acme", client, setting(&[(limit, value)]))) {
            Refusal::InvalidValue { field, .. } => assert_eq!(field, limit.name()),
            other => panic!("{limit}: {other:?}"),
        }
    }
    let odd = fixture.refused(change_quota("acme", Some("We b"), setting(&[(Limit::Streams, 1)])));
    assert!(matches!(odd, Refusal::InvalidName { .. }), "{odd}");
    let nobody = fixture.refused(change_quota("nobody", None, setting(&[(Limit::Streams, 1)])));
    assert!(matches!(nobody, Refusal::TenantNotFound { .. }), "{nobody}");
    for client in 0..CLIENT_QUOTAS_MAX {
        let client = format!("c{client}");
        fixture.version(change_quota("acme", Some(&client), setting(&[(Limit::Streams, 1)])));
    }
    let full = fixture.refused(change_quota("acme", Some("one-more"), setting(&[(Limit::Streams, 1)])));
    assert!(matches!(full, Refusal::PolicyTooLarge { .. }), "{full}");
}

#[test]
fn quotas_need_access_and_its_level() {
    let change = || change_quota("acme", None, setting(&[(Limit::Topics, 1)]));
    let refusal = Fixture::level_2(&[""]).refused(change());
    assert!(matches!(refusal, Refusal::FeatureLevel { needed: 4, .. }), "{refusal}");
    assert_eq!(Fixture::level_4().refused(change()), Refusal::AccessNotSetUp);
}

#[test]
fn a_tenant_owns_no_more_topics_and_partitions_than_its_quota_says() {
    let mut fixture = Fixture::with_access();
    fixture.topic(create("first", 2, 1));
    let limits = setting(&[(Limit::Topics, 2), (Limit::Partitions, 5)]);
    fixture.version(change_quota("acme", None, limits));
    let over = |of, limit| Refusal::OverQuota {
        tenant: "acme".to_string(),
        of,
        limit,
    };
    assert_eq!(fixture.refused(create("second", 4, 1)), over(Limit::Partitions, 5));
    fixture.topic(create("second", 2, 1));
    assert_eq!(fixture.refused(create("third", 1, 1)), over(Limit::Topics, 2));
    let exists = fixture.refused(create("second", 1, 1));
    assert!(matches!(exists, Refusal::TopicExists { .. }), "{exists}");
    assert_eq!(fixture.catalog.owned("acme"), (2, 4));

    let grown = |partitions| Command::UpdateTopic {
        tenant: "acme".to_string(),
        name: "second".to_string(),
        topic_id: None,
        partitions: Some(partitions),
        replication: None,
        retention_ms: Some(1_000),
        retention_bytes: None,
        leader_rack: None,
        avoid: Vec::new(),
    };
    assert_eq!(fixture.refused(grown(4)), over(Limit::Partitions, 5));
    fixture.topic(grown(3));
    // Less than there is takes nothing away.
    fixture.version(change_quota("acme", None, setting(&[(Limit::Partitions, 1)])));
    fixture.topic(grown(3));
    assert_eq!(fixture.refused(grown(4)), over(Limit::Partitions, 1));
}

#[test]
fn suspending_a_tenant_keeps_its_quota_and_deleting_it_forgets_it() {
    let mut fixture = Fixture::level_4();
    fixture.version(set_up(&["ops", "acme", "shop"], first_policy()));
    fixture.version(change_quota("shop", None, setting(&[(Limit::Topics, 0)])));
    let suspended = true;
    let tenant = || "shop".to_string();
    fixture.version(Command::SuspendTenant {
        tenant: tenant(),
        suspended,
    });
    assert_eq!(fixture.catalog.access().tenant_limit("shop", Limit::Topics), Some(0));
    fixture.version(Command::DeleteTenant { tenant: tenant() });
    let clients_role = None;
    fixture.version(Command::CreateTenant {
        tenant: tenant(),
        clients_role,
    });
    assert_eq!(fixture.catalog.access().tenant_limit("shop", Limit::Topics), None);
}
