//! The replicas on this node: each by itself, as far as there are not too many, and all together.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_partition::{Role, Status};

use super::family::Families;
use crate::catalog::CatalogHost;
use crate::replicas::{Hosted, Registry};

/// Partitions that are told of by themselves; those of the first topics, by name, so that they stay the same. Sums are of all.
pub(super) const TOLD_MAX: usize = 5_000;

/// A replica of a topic's partition.
struct Told {
    tenant: String,
    topic: String,
    partition: String,
    hosted: Arc<Hosted>,
    status: Status,
}

type Value = fn(&Told) -> f64;

const GAUGES: [(&str, &str, Value); 5] = [
    (
        "highwater_partition_leader",
        "Whether the replica here leads the partition: 1 or 0.",
        |told| f64::from(u8::from(told.status.role == Role::Leader)),
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
];

const COUNTERS: [(&str, &str, Value); 2] = [
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
    let hosted = registry.all();
    sums(families, &hosted, node, catalog);
    let told = told(hosted, catalog);
    for (name, help, value) in GAUGES {
        let mut family = families.gauge(name, help);
        told.iter().for_each(|told| family.value(&told.labels(), value(told)));
    }
    for (name, help, value) in COUNTERS {
        let mut family = families.counter(name, help);
        told.iter().for_each(|told| family.value(&told.labels(), value(told)));
    }
}

fn sums(families: &mut Families, hosted: &[Arc<Hosted>], node: &str, catalog: &CatalogHost) {
    let roles = ["leader", "follower", "candidate", "learner", "stopped"];
    let mut by_role: BTreeMap<&str, u64> = roles.into_iter().map(|role| (role, 0)).collect();
    let mut damaged = 0;
    for status in hosted.iter().map(|hosted| hosted.status()) {
        *by_role.entry(role(status.role)).or_default() += 1;
        damaged += status.damage.len();
    }
    let mut replicas = families.gauge(
        "highwater_replicas",
        "Replicas on this node, the catalog's among them, by role.",
    );
    for (role, count) in by_role {
        replicas.value(&[("role", role)], count as f64);
    }
    families
        .gauge(
            "highwater_damaged_ranges",
            "Damaged ranges of all replicas on this node.",
        )
        .value(&[], damaged as f64);
    families
        .gauge(
            "highwater_dead_replicas",
            "Replicas that died on this node and are not replaced yet, as the catalog knows.",
        )
        .value(&[], dead(node, catalog) as f64);
}

fn dead(node: &str, catalog: &CatalogHost) -> usize {
    catalog.read(|catalog| {
        let partitions = catalog.all_topics().flat_map(|topic| &topic.partitions);
        let replicas = partitions.flat_map(|partition| &partition.replicas);
        let here = replicas.filter(|replica| replica.node == node);
        here.filter(|replica| catalog.is_dead(replica)).count()
    })
}

fn told(hosted: Vec<Arc<Hosted>>, catalog: &CatalogHost) -> Vec<Told> {
    let mut placed: Vec<((String, String, u32), Arc<Hosted>)> = catalog.read(|catalog| {
        let placed = hosted.into_iter().filter_map(|hosted| {
            let (topic, partition) = catalog.partition_of_group(hosted.group_id.0)?;
            Some(((topic.tenant.clone(), topic.name.clone(), partition.partition), hosted))
        });
        placed.collect()
    });
    placed.sort_by(|one, other| one.0.cmp(&other.0));
    placed.truncate(TOLD_MAX);
    let told = placed.into_iter().map(|((tenant, topic, partition), hosted)| Told {
        tenant,
        topic,
        partition: partition.to_string(),
        status: hosted.status(),
        hosted,
    });
    told.collect()
}

impl Told {
    fn labels(&self) -> [(&str, &str); 3] {
        [
            ("tenant", &self.tenant),
            ("topic", &self.topic),
            ("partition", &self.partition),
        ]
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}
