//! Forgets consumer groups that nobody has used for long.
//!
//! A partition keeps a bounded number of groups, and whoever tries things out leaves some behind. The leader of each partition
//! looks at its own, like at what is to be trimmed, and with the same care about clocks: a group is forgotten by the append
//! times of the log. What is proposed names the claim and the last use that were seen, so a group that comes back to life
//! meanwhile stays.
//!
//! Only what lags is forgotten. A group that has consumed everything makes no calls as long as nothing comes, and must find its
//! place when something does.
//!
//! How long is a setting of the cluster. Deliberately absent: a period of each topic's own.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use highwater_catalog::levels::GROUPS_LEVEL;
use highwater_partition::Role;
use highwater_partition::log::{GroupId, GroupState};
use tokio::time::timeout;

use crate::controller::{COMMAND_TIMEOUT, Controller};
use crate::replicas::{CATALOG_GROUP, Hosted};
use crate::retention::Agreement;

/// Partitions that are looked at at the same time.
const PARTITIONS_AT_ONCE: usize = 8;

impl Controller {
    /// Looks once at all partitions that are led here, for groups that at `now_ms` (since 1970) have not been used for as long as
    /// the cluster's settings keep them.
    pub(crate) async fn forget_unused_groups(&self, now_ms: u64) {
        let (level, kept_ms) = self
            .host
            .read(|catalog| (catalog.feature_level(), catalog.settings().groups_kept_ms));
        if level < GROUPS_LEVEL {
            return;
        }
        let oldest_ms = now_ms.saturating_sub(kept_ms);
        let led = self.registry.all().into_iter();
        let led = led.filter(|hosted| hosted.group_id != CATALOG_GROUP && hosted.status().role == Role::Leader);
        let unused = futures::stream::iter(led).map(|hosted| async move {
            let groups = hosted.unused_groups(oldest_ms).await.unwrap_or_default(); // what cannot be told is looked at again
            (hosted, groups)
        });
        let unused: Vec<_> = unused.buffer_unordered(PARTITIONS_AT_ONCE).collect().await;
        if unused.iter().all(|(_, groups)| groups.is_empty()) {
            return;
        }
        let clocks = &self.compare_clocks().await;
        let forgetting =
            futures::stream::iter(unused).for_each_concurrent(PARTITIONS_AT_ONCE, |(hosted, groups)| async move {
                self.forget_all(&hosted, groups, clocks).await;
            });
        forgetting.await;
    }

    /// Stops at the first that cannot be forgotten now: the others could not either.
    async fn forget_all(&self, hosted: &Arc<Hosted>, groups: Vec<(Bytes, GroupState)>, clocks: &Agreement) {
        for (name, seen) in groups {
            if !self.may_judge_age(hosted, clocks) || !forget(hosted, name, &seen).await {
                return;
            }
        }
    }
}

/// Whether it was decided.
async fn forget(hosted: &Hosted, name: Bytes, seen: &GroupState) -> bool {
    let GroupId(group) = hosted.group_id;
    let consumer_group = String::from_utf8_lossy(&name).into_owned();
    match timeout(COMMAND_TIMEOUT, hosted.forget_group(name, seen)).await {
        Ok(Ok(())) => tracing::info!(
            group,
            consumer_group,
            "a consumer group is forgotten that was not used for long"
        ),
        // It may have come back to life.
        Ok(Err(why)) => tracing::info!(group, consumer_group, why, "a consumer group is not forgotten now"),
        Err(_) => {
            tracing::info!(
                group,
                consumer_group,
                "a consumer group cannot be forgotten now: no majority answered"
            );
            return false;
        }
    }
    true
}
