//! The replicas on this node: each by itself, as far as there are not too many, and all together.

use std::sync::Arc;

use highwater_partition::{Role, Status};

use super::{Families, flag, lags};
use crate::catalog::CatalogHost;
use crate::replicas::{Hosted, Registry};

/// Partitions that are told of by themselves; those of the first topics, by name, so that they stay the same. Sums are of all.
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
        "Whether the replica here leads the partition: 1 or 0.",
        |told| flag(told.status.role == Role::Leader),
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
    let told = told(here, catalog);
    for (name, help, value) in FAMILIES {
        let mut family = families.begin(name, help);
        told.iter().for_each(|told| family.value(&told.labels(), value(told)));
    }
    let led = told.iter().filter(|told| told.status.role == Role::Leader);
    lags::tell(families, &led.collect::<Vec<_>>());
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

fn told(here: Vec<(Arc<Hosted>, Status)>, catalog: &CatalogHost) -> Vec<Told> {
    let mut told: Vec<(u32, Told)> = catalog.read(|catalog| {
        let told = here.into_iter().filter_map(|(hosted, status)| {
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
        told.collect()
    });
    told.sort_by(|(one, a), (other, b)| (&a.tenant, &a.topic, one).cmp(&(&b.tenant, &b.topic, other)));
    told.truncate(TOLD_MAX);
    told.into_iter().map(|(_, told)| told).collect()
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
