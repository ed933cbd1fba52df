//! Forgets consumer groups that nobody has used for long.
//!
//! A partition keeps a bounded number of groups, and whoever tries things out leaves some behind. The leader of each partition
//! looks at its own, like at what is to be trimmed, and with the same care about clocks: a group is forgotten by the append
//! times of the log. What is proposed names the claim and the last use that were seen, so a group that comes back to life
//! meanwhile stays.
//!
//! Deliberately absent: a period of each topic's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_catalog::Catalog;
use highwater_partition::Role;
use highwater_partition::log::{GroupId, GroupState};
use tokio::time::timeout;

use crate::clock::now_ms;
use crate::controller::{COMMAND_TIMEOUT, Controller};
use crate::replicas::{CATALOG_GROUP, Hosted};
use crate::services::GROUPS_LEVEL;

/// How long a group is kept that neither claims nor commits.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Controller {
    /// Looks once at all partitions that are led here.
    pub(crate) async fn forget_unused_groups(&self) {
        if self.host.read(Catalog::feature_level) < GROUPS_LEVEL {
            return;
        }
        let oldest_ms = now_ms().saturating_sub(KEPT.as_millis() as u64);
        let led = self
            .registry
            .all()
            .into_iter()
            .filter(|hosted| hosted.group_id != CATALOG_GROUP && hosted.status().role == Role::Leader);
        let unused = led.flat_map(|hosted| {
            let groups = hosted.unused_groups(oldest_ms).into_iter();
            groups.map(move |(name, seen)| (hosted.clone(), name, seen))
        });
        let unused: Vec<(Arc<Hosted>, Bytes, GroupState)> = unused.collect();
        if unused.is_empty() {
            return;
        }
        let clocks = self.compare_clocks().await;
        for (hosted, name, seen) in unused {
            if self.may_judge_age(&hosted, &clocks) {
                forget(&hosted, name, &seen).await;
            }
        }
    }
}

async fn forget(hosted: &Hosted, name: Bytes, seen: &GroupState) {
    let GroupId(group) = hosted.group_id;
    let consumer_group = String::from_utf8_lossy(&name).into_owned();
    match timeout(COMMAND_TIMEOUT, hosted.forget_group(name, seen)).await {
        Ok(Ok(())) => tracing::info!(
            group,
            consumer_group,
            "a consumer group is forgotten that was not used for long"
        ),
        Ok(Err(why)) => tracing::info!(group, consumer_group, why, "a consumer group cannot be forgotten now"),
        Err(_) => tracing::info!(
            group,
            consumer_group,
            "a consumer group cannot be forgotten now: no majority answered"
        ),
    }
}
