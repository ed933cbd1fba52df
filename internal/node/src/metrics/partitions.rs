//! The replicas on this node: each by itself, as far as there are not too many, and all together.
//!
//! Which partitions are told of by themselves is the same on each node, whichever replicas it has: were each to cut its own list, a
//! partition could be told of by its followers and not by its leader, and look as if nobody led it.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_catalog::Topic;
use highwater_partition::log::Scrubbed;
use highwater_partition::{Role, Status};

use super::{Families, flag, lags, scrub};
use crate::catalog::CatalogHost;
use crate::replicas::{Hosted, Registry};

/// Partitions of the cluster that are told of by themselves: the first ones, by tenant, topic and number. Sums are of all.
pub(super) const TOLD_MAX: usize = 5_000;

/// A replica of a topic's partition.
pub(super) struct Told {
    tenant: String,
    topic: String,
    partition: String,
    pub(super) hosted: Arc<Hosted>,
    pub(super) status: Status,
}

type Value = fn(&Told) -> f64;

const FAMILIES: [(&str, &str, Value); 7] = [
    (
        "highwater_partition_leader",
        "Whether the replica here leads the partition, with a majority behind it: 1 or 0.",
        |told| flag(leads(&told.hosted, &told.status)),
    ),
    (
        "highwater_partition_log_start_offset",
        "The first offset that the replica here still has.",
        |told| told.status.watermark.log_start as f64,
    ),
    (
        "highwater_partition_high_watermark_offset",
        "The first offset that is not yet committed, as far as the replica here knows.",
        |told| told.status.watermark.high_watermark as f64,
    ),
    (
        "highwater_partition_log_end_offset",
        "The first offset that the replica here does not have.",
        |told| told.status.log_end as f64,
    ),
    (
        "highwater_partition_damaged_ranges",
        "Ranges of committed entries that are damaged here and wait for another replica's.",
        |told| told.status.damage.len() as f64,
    ),
    (
        "highwater_partition_appended_records_total",
        "Records that the replica here, as leader, has acknowledged since the node started.",
        |told| told.hosted.records_appended() as f64,
    ),
    (
        "highwater_partition_served_records_total",
        "Records that the replica here has given to consumers since the node started.",
        |told| told.hosted.records_served() as f64,
    ),
];

pub(super) fn tell(families: &mut Families, node: &str, registry: &Registry, catalog: &CatalogHost) {
    let here: Vec<(Arc<Hosted>, Status)> = registry
        .all()
        .into_iter()
        .map(|hosted| (hosted.clone(), hosted.status()))
        .collect();
    sums(families, &here);
    let logs: Vec<Scrubbed> = here.iter().map(|(hosted, _)| hosted.scrubbed()).collect();
    scrub::tell(families, &logs);
    families.tell(
        "highwater_leaderships_begun_total",
        "How often a replica here became a leader.",
        registry.leaderships_begun() as f64,
    );
    families.tell(
        "highwater_dead_replicas",
        "Replicas that died on this node and are not replaced yet, as the catalog knows.",
        dead(node, catalog) as f64,
    );
    led(families, &here, catalog);
    let (told, left_out) = told(here, catalog);
    families.tell(
        "highwater_untold_partitions",
        "Partitions of the cluster that no node tells of by themselves, because there are too many.",
        left_out as f64,
    );
    for (name, help, value) in FAMILIES {
        let mut family = families.begin(name, help);
        told.iter().for_each(|told| family.value(&told.labels(), value(told)));
    }
    let led = told.iter().filter(|told| told.status.role == Role::Leader);
    lags::tell(families, &led.collect::<Vec<_>>());
}

/// A leader that has lost its majority keeps the role, and can write nothing.
fn leads(hosted: &Hosted, status: &Status) -> bool {
    status.role == Role::Leader && !hosted.leads_in_vain()
}

/// How many partitions there are, and how many of them are led here. Whoever sums up sees how many nobody leads, also if no replica is
/// left that could tell of itself.
fn led(families: &mut Families, here: &[(Arc<Hosted>, Status)], catalog: &CatalogHost) {
    let leading: Vec<u64> = here
        .iter()
        .filter(|(hosted, status)| leads(hosted, status))
        .map(|(hosted, _)| hosted.group_id.0)
        .collect();
    let (all, led) = catalog.read(|catalog| {
        let all: usize = catalog.all_topics().map(|topic| topic.partitions.len()).sum();
        let is_partition = |group: &&u64| catalog.partition_of_group(**group).is_some();
        (all, leading.iter().filter(is_partition).count())
    });
    families.tell(
        "highwater_partitions",
        "Partitions of the cluster, as the catalog here knows.",
        all as f64,
    );
    families.tell(
        "highwater_partitions_led",
        "Partitions that replicas here lead, with a majority behind them.",
        led as f64,
    );
}

fn sums(families: &mut Families, here: &[(Arc<Hosted>, Status)]) {
    let mut replicas = families.begin(
        "highwater_replicas",
        "Replicas on this node, the catalog's among them, by role.",
    );
    for role in Role::ALL {
        let count = here.iter().filter(|(_, status)| status.role == role).count();
        replicas.value(&[("role", role.name())], count as f64);
    }
    let damaged: usize = here.iter().map(|(_, status)| status.damage.len()).sum();
    families.tell(
        "highwater_damaged_ranges",
        "Damaged ranges of all replicas on this node.",
        damaged as f64,
    );
}

fn dead(node: &str, catalog: &CatalogHost) -> usize {
    catalog.read(|catalog| {
        let partitions = catalog.all_topics().flat_map(|topic| &topic.partitions);
        let replicas = partitions.flat_map(|partition| &partition.replicas);
        let here = replicas.filter(|replica| replica.node == node);
        here.filter(|replica| catalog.is_dead(replica)).count()
    })
}

/// The replicas here of partitions that are told of by themselves, and how many partitions of the cluster are not.
fn told(here: Vec<(Arc<Hosted>, Status)>, catalog: &CatalogHost) -> (Vec<Told>, usize) {
    let (mut told, left_out): (Vec<(u32, Told)>, usize) = catalog.read(|catalog| {
        let (first, left_out) = first_groups(catalog.all_topics(), TOLD_MAX);
        let told = here.into_iter().filter_map(|(hosted, status)| {
            if !first.contains(&hosted.group_id.0) {
                return None;
            }
            let (topic, partition) = catalog.partition_of_group(hosted.group_id.0)?;
            let told = Told {
                tenant: topic.tenant.clone(),
                topic: topic.name.clone(),
                partition: partition.partition.to_string(),
                hosted,
                status,
            };
            Some((partition.partition, told))
        });
        (told.collect(), left_out)
    });
    told.sort_by(|(one, a), (other, b)| (&a.tenant, &a.topic, one).cmp(&(&b.tenant, &b.topic, other)));
    (told.into_iter().map(|(_, told)| told).collect(), left_out)
}

/// The Raft groups of the cluster's first partitions, by tenant, topic and number, and how many partitions there are beside.
fn first_groups<'a>(topics: impl Iterator<Item = &'a Topic>, most: usize) -> (HashSet<u64>, usize) {
    let mut topics: Vec<&Topic> = topics.collect();
    let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    let by_name = |one: &&Topic, other: &&Topic| (&one.tenant, &one.name).cmp(&(&other.tenant, &other.name));
    if topics.len() > most {
        // Each topic has a partition, so these are enough; to sort them all would take long while the catalog waits.
        topics.select_nth_unstable_by(most, by_name);
        topics.truncate(most);
    }
    topics.sort_unstable_by(by_name);
    let first = topics.into_iter().flat_map(|topic| &topic.partitions).take(most);
    let first: HashSet<u64> = first.map(|partition| partition.group_id).collect();
    let left_out = partitions - first.len();
    (first, left_out)
}

impl Told {
    fn labels(&self) -> [(&str, &str); 3] {
        [
            ("tenant", &self.tenant),
            ("topic", &self.topic),
            ("partition", &self.partition),
        ]
    }

    /// The labels of the partition, and one more.
    pub(super) fn labels_and<'a>(&'a self, name: &'a str, value: &'a str) -> [(&'a str, &'a str); 4] {
        let [tenant, topic, partition] = self.labels();
        [tenant, topic, partition, (name, value)]
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use highwater_catalog::Partition;

    use super::*;

    fn topic(tenant: &str, name: &str, groups: Range<u64>) -> Topic {
        let partition = |(number, group_id): (usize, u64)| Partition {
            partition: number as u32,
            group_id,
            replicas: Vec::new(),
            replaced: Vec::new(),
            changed: false,
        };
        Topic {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            topic_id: groups.start,
            replication: 3,
            retention_ms: 0,
            retention_bytes: 0,
            leader_rack: String::new(),
            partitions: groups.enumerate().map(partition).collect(),
        }
    }

    #[test]
    fn the_first_partitions_by_name_are_told_of_and_the_others_counted() {
        // In the order in which they were made.
        let topics = [
            topic("shop", "orders", 1..4),
            topic("shop", "bills", 4..6),
            topic("bank", "orders", 6..8),
        ];
        let first = |most| {
            let (groups, left_out) = first_groups(topics.iter(), most);
            let mut groups: Vec<u64> = groups.into_iter().collect();
            groups.sort_unstable();
            (groups, left_out)
        };
        assert_eq!(first(0), (vec![], 7));
        assert_eq!(first(1), (vec![6], 6));
        assert_eq!(first(2), (vec![6, 7], 5));
        assert_eq!(first(5), (vec![1, 4, 5, 6, 7], 2));
        assert_eq!(first(7), ((1..8).collect(), 0));
        assert_eq!(first(100), ((1..8).collect(), 0));
    }
}
