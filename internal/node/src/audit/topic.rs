//! The topic that the audit is written into: made by whoever leads the catalog, once there is a policy.

use highwater_catalog::names::{AUDIT_TOPIC, SYSTEM_TENANT};
use highwater_catalog::{Catalog, Command};
use highwater_partition::log::GroupId;

use super::append::PARTITION;
use crate::catalog::CatalogHost;

/// How long records are kept unless operators want it otherwise, milliseconds: ninety days.
const RETENTION_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// And how many bytes of them, so that no flood of refusals, which is limited, can fill the disks in that time.
const RETENTION_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// As many replicas as a topic has whose creator does not say: three, or as many as there are nodes.
const REPLICATION_DEFAULT: u32 = 0;

/// What is to be decided next so that there is such a topic; None: nothing. `avoid`: nodes that are not there.
pub(crate) fn next_step(catalog: &Catalog, avoid: Vec<String>) -> Option<Command> {
    if !catalog.access().is_set_up() || catalog.topic(SYSTEM_TENANT, AUDIT_TOPIC).is_some() {
        return None;
    }
    if !catalog.access().tenants().contains_key(SYSTEM_TENANT) {
        return Some(Command::CreateTenant {
            tenant: SYSTEM_TENANT.to_owned(),
            clients_role: None,
        });
    }
    Some(Command::CreateTopic {
        tenant: SYSTEM_TENANT.to_owned(),
        name: AUDIT_TOPIC.to_owned(),
        partitions: PARTITION + 1,
        replication: REPLICATION_DEFAULT,
        retention_ms: Some(RETENTION_MS),
        retention_bytes: Some(RETENTION_BYTES),
        avoid,
    })
}

pub(super) fn exists(host: &CatalogHost) -> bool {
    group(host).is_some()
}

/// The group of its one partition.
pub(super) fn group(host: &CatalogHost) -> Option<GroupId> {
    host.read(|catalog| {
        let topic = catalog.topic(SYSTEM_TENANT, AUDIT_TOPIC)?;
        let partition = topic.partitions.get(PARTITION as usize)?;
        Some(GroupId(partition.group_id))
    })
}
