//! What is used of quotas on this node, for Prometheus; what tenants own and keep, `stock` tells.
//!
//! Only of tenants: there may be any number of clients, and each would be a time series. `highwater tenant describe` shows them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Account, Quotas};
use crate::metrics::Families;

/// Tenants that are told of, those that have used the most first.
const TENANTS_MAX: usize = 500;

/// Name, and what it is.
type Family = (&'static str, &'static str, fn(&Account) -> u64);

const FAMILIES: [Family; 6] = [
    (
        "highwater_tenant_produce_bytes_total",
        "Bytes of batches that clients of the tenant have sent to this node.",
        |account| account.produce.used(),
    ),
    (
        "highwater_tenant_consume_bytes_total",
        "Bytes of batches that this node has sent to clients of the tenant.",
        |account| account.consume.used(),
    ),
    (
        "highwater_tenant_requests_total",
        "Calls begun and batches sent on streams by clients of the tenant.",
        |account| account.requests.used(),
    ),
    (
        "highwater_tenant_quota_refusals_total",
        "What was refused on this node because a quota of the tenant was used up, but for topics and partitions.",
        |account| account.refused.load(Ordering::Relaxed),
    ),
    (
        "highwater_tenant_connections",
        "Connections of the tenant's clients with this node.",
        |account| account.connections.here(),
    ),
    (
        "highwater_tenant_streams",
        "Calls of the tenant's clients that go on.",
        |account| account.streams.here(),
    ),
];

impl Quotas {
    /// Tells of tenants.
    pub(crate) fn tell(&self, families: &mut Families) {
        let accounts = self.accounts();
        let tenants = accounts.values().filter(|account| account.owner.client.is_none());
        let mut tenants: Vec<Arc<Account>> = tenants.cloned().collect();
        drop(accounts);
        tenants.sort_by_key(|account| std::cmp::Reverse(account.requests.used()));
        tenants.truncate(TENANTS_MAX);
        tenants.sort_by(|one, other| one.owner.cmp(&other.owner));
        tell(families, &tenants);
        self.tell_stock(families);
    }
}

fn tell(families: &mut Families, tenants: &[Arc<Account>]) {
    for (name, help, value) in FAMILIES {
        let mut family = families.begin(name, help);
        for account in tenants {
            family.value(&[("tenant", &account.owner.tenant)], value(account) as f64);
        }
    }
    let mut quota = families.begin(
        "highwater_tenant_quota",
        "What the tenant may use in the whole cluster.",
    );
    for account in tenants {
        for (limit, most) in account.quota() {
            let labels = [("tenant", account.owner.tenant.as_str()), ("limit", &limit.to_string())];
            quota.value(&labels, most as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_catalog::{Limit, Quota};
    use tokio::time::Instant;

    use super::super::account::Elsewhere;
    use super::*;

    #[test]
    fn each_tenant_has_a_line_of_each_family_and_of_each_limit() {
        let (one, other) = (Account::of_tenant("one"), Account::of_tenant("other"));
        one.produce.charge(1_234, Instant::now());
        let quota = Quota::from([(Limit::Streams, 7)]);
        other.limit(&quota, &Elsewhere::default(), 1.0, 1.0, Instant::now());
        let mut families = Families::default();
        tell(&mut families, &[one, other]);
        let text = families.into_text();
        for line in [
            "# TYPE highwater_tenant_produce_bytes_total counter",
            "highwater_tenant_produce_bytes_total{tenant=\"one\"} 1234",
            "highwater_tenant_connections{tenant=\"other\"} 0",
            "highwater_tenant_quota{tenant=\"other\",limit=\"streams\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(text.matches("tenant=\"one\"").count(), FAMILIES.len());
    }
}
