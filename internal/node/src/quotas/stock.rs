//! What tenants own and keep, for Prometheus: topics, partitions, consumer groups, bytes.
//!
//! Which tenants are told of is the same on each node: each tells of the bytes of those partitions only that it leads, so only the nodes
//! together tell of all. Groups and bytes must be looked for in all logs. So they are counted behind a question, and told with the next one;
//! as long as nobody asks, nothing is counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_catalog::Catalog;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{Quotas, lock};
use crate::metrics::Families;

/// Tenants that are told of, those with the most partitions first.
const TENANTS_MAX: usize = 500;
/// From the end of one count to the begin of the next, at least.
const COUNT_PAUSE: Duration = Duration::from_secs(2);
/// The same, as a multiple of how long the count took.
const COUNT_PAUSE_FACTOR: u32 = 20;

/// What was counted last.
#[derive(Debug, Default)]
pub(super) struct Stock {
    wanted: Notify,
    counted: Mutex<HashMap<String, Counted>>,
}

/// Of one tenant, as this node sees it.
#[derive(Debug, Clone, Copy)]
struct Counted {
    groups: u64,
    stored_bytes: u64,
}

/// What a tenant owns in the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    tenant: String,
    topics: u64,
    partitions: u64,
}

type Value = fn(&(Owned, Option<Counted>)) -> Option<u64>;

const FAMILIES: [(&str, &str, Value); 4] = [
    (
        "highwater_tenant_topics",
        "Topics of the tenant, as the catalog here knows.",
        |(owned, _)| Some(owned.topics),
    ),
    (
        "highwater_tenant_partitions",
        "Partitions of the tenant's topics, as the catalog here knows.",
        |(owned, _)| Some(owned.partitions),
    ),
    (
        "highwater_tenant_groups",
        "Consumer groups that keep offsets in those of the tenant's partitions of which a replica is here.",
        |(_, counted)| Some((*counted)?.groups),
    ),
    (
        "highwater_tenant_stored_bytes",
        "Log files of those of the tenant's partitions that are led here.",
        |(_, counted)| Some((*counted)?.stored_bytes),
    ),
];

impl Quotas {
    /// Counts whenever somebody has asked, and not too often; never returns.
    pub(crate) async fn keep_counted(self: Arc<Self>) {
        loop {
            self.stock.wanted.notified().await;
            let began = Instant::now();
            let mut counted = HashMap::new();
            for Owned { tenant, .. } in self.host.read(most_of_all) {
                let stored_bytes = self.stored_here(&tenant).await;
                let groups = self.group_names(&tenant).len() as u64;
                counted.insert(tenant, Counted { groups, stored_bytes });
            }
            *lock(&self.stock.counted) = counted;
            sleep(COUNT_PAUSE.max(began.elapsed() * COUNT_PAUSE_FACTOR)).await;
        }
    }

    /// Tells what there is, as far as it was counted.
    pub(super) fn tell_stock(&self, families: &mut Families) {
        self.stock.wanted.notify_one();
        let owned = self.host.read(most_of_all);
        let counted = lock(&self.stock.counted);
        let rows = owned.into_iter().map(|owned| {
            let counted = counted.get(&owned.tenant).copied();
            (owned, counted)
        });
        tell(families, &rows.collect::<Vec<_>>());
    }
}

fn tell(families: &mut Families, rows: &[(Owned, Option<Counted>)]) {
    for (name, help, value) in FAMILIES {
        let mut family = families.begin(name, help);
        for row in rows {
            if let Some(value) = value(row) {
                family.value(&[("tenant", &row.0.tenant)], value as f64);
            }
        }
    }
}

/// The tenants that are told of, by name.
fn most_of_all(catalog: &Catalog) -> Vec<Owned> {
    let known = catalog
        .access()
        .tenants()
        .keys()
        .map(|tenant| (tenant.as_str(), (0, 0)));
    let mut all: BTreeMap<&str, (u64, u64)> = known.collect();
    for topic in catalog.all_topics() {
        let (topics, partitions) = all.entry(&topic.tenant).or_default();
        *topics += 1;
        *partitions += topic.partitions.len() as u64;
    }
    let all = all.into_iter().map(|(tenant, (topics, partitions))| Owned {
        tenant: tenant.to_owned(),
        topics,
        partitions,
    });
    most(all.collect(), TENANTS_MAX)
}

/// Those with the most partitions, by name.
fn most(mut all: Vec<Owned>, count: usize) -> Vec<Owned> {
    all.sort_by(|one, other| (other.partitions, &one.tenant).cmp(&(one.partitions, &other.tenant)));
    all.truncate(count);
    all.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(tenant: &str, topics: u64, partitions: u64) -> Owned {
        Owned {
            tenant: tenant.to_owned(),
            topics,
            partitions,
        }
    }

    #[test]
    fn those_with_the_most_partitions_are_told_of_and_of_equals_the_first_by_name() {
        let all = || vec![owned("a", 1, 2), owned("b", 0, 0), owned("c", 9, 9), owned("d", 2, 2)];
        let names = |count| {
            let told = most(all(), count).into_iter();
            told.map(|owned| owned.tenant).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["c"]);
        assert_eq!(names(2), ["a", "c"]);
        assert_eq!(names(3), ["a", "c", "d"]);
        assert_eq!(names(9), ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_was_not_counted_yet_is_not_told_as_nothing() {
        let counted = Counted {
            groups: 3,
            stored_bytes: 4_096,
        };
        let mut families = Families::default();
        tell(
            &mut families,
            &[(owned("new", 1, 6), None), (owned("shop", 2, 8), Some(counted))],
        );
        let text = families.into_text();
        for line in [
            "highwater_tenant_topics{tenant=\"new\"} 1",
            "highwater_tenant_partitions{tenant=\"new\"} 6",
            "highwater_tenant_topics{tenant=\"shop\"} 2",
            "highwater_tenant_groups{tenant=\"shop\"} 3",
            "highwater_tenant_stored_bytes{tenant=\"shop\"} 4096",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(text.matches("tenant=\"new\"").count(), 2, "{text}");
    }
}
