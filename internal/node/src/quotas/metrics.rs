//! What is used of quotas on this node, for Prometheus (text format 0.0.4).
//!
//! Only of tenants: there may be any number of clients, and each would be a time series. `highwater tenant describe` shows them.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Account, Quotas};

/// Tenants that are told of, those that have used the most first.
const TENANTS_MAX: usize = 500;

/// Name, kind, and what it is.
type Family = (&'static str, &'static str, &'static str, fn(&Account) -> u64);

const FAMILIES: [Family; 6] = [
    (
        "highwater_tenant_produce_bytes_total",
        "counter",
        "Bytes of batches that clients of the tenant have sent to this node.",
        |account| account.produce.used(),
    ),
    (
        "highwater_tenant_consume_bytes_total",
        "counter",
        "Bytes of batches that this node has sent to clients of the tenant.",
        |account| account.consume.used(),
    ),
    (
        "highwater_tenant_requests_total",
        "counter",
        "Calls begun and batches sent on streams by clients of the tenant.",
        |account| account.requests.used(),
    ),
    (
        "highwater_tenant_quota_refusals_total",
        "counter",
        "What was refused on this node because a quota of the tenant was used up, but for topics and partitions.",
        |account| account.refused.load(Ordering::Relaxed),
    ),
    (
        "highwater_tenant_connections",
        "gauge",
        "Connections of the tenant's clients with this node.",
        |account| account.connections.here(),
    ),
    (
        "highwater_tenant_streams",
        "gauge",
        "Calls of the tenant's clients that go on.",
        |account| account.streams.here(),
    ),
];

impl Quotas {
    /// All that there is to tell.
    pub(crate) fn metrics(&self) -> String {
        let accounts = self.accounts();
        let tenants = accounts.values().filter(|account| account.owner.client.is_none());
        let mut tenants: Vec<Arc<Account>> = tenants.cloned().collect();
        drop(accounts);
        tenants.sort_by_key(|account| std::cmp::Reverse(account.requests.used()));
        tenants.truncate(TENANTS_MAX);
        tenants.sort_by(|one, other| one.owner.cmp(&other.owner));
        text(&tenants)
    }
}

fn text(tenants: &[Arc<Account>]) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in FAMILIES {
        // Writing into a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for account in tenants {
            let _ = writeln!(text, "{name}{{tenant=\"{}\"}} {}", account.owner.tenant, value(account));
        }
    }
    let name = "highwater_tenant_quota";
    let _ = writeln!(
        text,
        "# HELP {name} What the tenant may use in the whole cluster.\n# TYPE {name} gauge"
    );
    for account in tenants {
        for (limit, value) in account.quota() {
            let tenant = &account.owner.tenant;
            let _ = writeln!(text, "{name}{{tenant=\"{tenant}\",limit=\"{limit}\"}} {value}");
        }
    }
    text
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
        let text = text(&[one, other]);
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
