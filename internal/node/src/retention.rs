//! Lets go of records that are older, or more, than their topic keeps.
//!
//! The leader of each partition decides, every so often, from its own log: by append time, and by the size of its files.
//! It proposes a trim, which moves the log start on all replicas alike; the files follow on each (see the partition's
//! `trim`). So a follower that lags, or has more or fewer segments, never decides.
//!
//! **A wrong clock must not delete data.** A leader whose clock is years ahead would find everything too old. It trims by
//! time only while its clock agrees with those of a majority of the partition's voters, itself among them: the others
//! are asked each time. Trims by size need no clock.
//!
//! Deliberately absent: retention that is exact to the record. What is trimmed cannot be read at once; its room comes
//! back by segments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use highwater_partition::log::GroupId;
use highwater_partition::{Role, Status};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::clock::now_ms;
use crate::controller::{COMMAND_TIMEOUT, Controller};
use crate::peer_calls::{self, CLOCK};
use crate::replicas::{CATALOG_GROUP, Hosted};
use crate::tuning::Tuning;

/// How far clocks may be apart that are said to agree.
const CLOCKS_APART_MAX_MS: u64 = 2 * 60 * 1000;
/// How long another node is waited for.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// Partitions that are trimmed at the same time.
const TRIMS_AT_ONCE: usize = 8;

/// What a topic keeps; 0: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    milliseconds: u64,
    bytes: u64,
}

/// By node, whether its clock agrees with this one's.
pub(crate) type Agreement = BTreeMap<String, bool>;

impl Controller {
    /// Looks after all partitions that are led here, as often as `tuning` says.
    pub(crate) async fn keep_retention(self: Arc<Self>, mut tuning: watch::Receiver<Tuning>) {
        loop {
            let interval = tuning.borrow_and_update().retention_interval;
            tokio::select! {
                biased;
                changed = tuning.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return, // the node is gone
                },
                () = sleep(interval) => {}
            }
            let due: Vec<(Arc<Hosted>, Bounds)> =
                self.registry.all().into_iter().filter_map(|it| self.due(it)).collect();
            let clocks = match due.iter().any(|(_, bounds)| bounds.milliseconds > 0) {
                true => self.compare_clocks().await,
                false => Agreement::new(),
            };
            self.complain(&due, &clocks);
            let (this, clocks) = (&self, &clocks);
            let trims = futures::stream::iter(due).for_each_concurrent(TRIMS_AT_ONCE, |(hosted, bounds)| async move {
                this.trim(&hosted, bounds, clocks).await;
            });
            trims.await;
            self.forget_unused_groups(now_ms()).await;
        }
    }

    /// What the topic of a replica keeps, if this one has to look after it.
    fn due(&self, hosted: Arc<Hosted>) -> Option<(Arc<Hosted>, Bounds)> {
        if hosted.group_id == CATALOG_GROUP || hosted.status().role != Role::Leader {
            return None;
        }
        let bounds = self.host.read(|catalog| {
            let (topic, _) = catalog.partition_of_group(hosted.group_id.0)?;
            Some(Bounds {
                milliseconds: topic.retention_ms,
                bytes: topic.retention_bytes,
            })
        })?;
        (bounds.milliseconds > 0 || bounds.bytes > 0).then_some((hosted, bounds))
    }

    async fn trim(&self, hosted: &Hosted, bounds: Bounds, clocks: &Agreement) {
        let GroupId(group) = hosted.group_id;
        let by_time = bounds.milliseconds > 0 && self.may_judge_age(hosted, clocks);
        let oldest_ms = by_time.then(|| now_ms().saturating_sub(bounds.milliseconds));
        let bytes = (bounds.bytes > 0).then_some(bounds.bytes);
        match timeout(COMMAND_TIMEOUT, hosted.trim(oldest_ms, bytes)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(log_start))) => tracing::debug!(group, log_start, "records are trimmed"),
            Ok(Err(why)) => tracing::info!(group, why, "records cannot be trimmed now"),
            Err(_) => tracing::info!(group, "records cannot be trimmed now: no majority answered in time"),
        }
    }

    /// One line for all that is not trimmed.
    fn complain(&self, due: &[(Arc<Hosted>, Bounds)], clocks: &Agreement) {
        let by_time = due.iter().filter(|(_, bounds)| bounds.milliseconds > 0);
        let kept = by_time.filter(|(hosted, _)| !self.may_judge_age(hosted, clocks));
        let partitions = kept.count();
        if partitions > 0 {
            let agreeing: Vec<&String> = clocks
                .iter()
                .filter(|(_, agrees)| **agrees)
                .map(|(node, _)| node)
                .collect();
            tracing::warn!(
                partitions,
                ?agreeing,
                "nothing is trimmed by time: this node's clock does not agree with a majority's"
            );
        }
    }

    pub(crate) fn may_judge_age(&self, hosted: &Hosted, clocks: &Agreement) -> bool {
        majority_agrees(&hosted.status(), &self.own.name, clocks)
    }

    /// Asks every other node what time it is.
    pub(crate) async fn compare_clocks(&self) -> Agreement {
        let names: Vec<String> = self
            .host
            .read(|catalog| catalog.members().map(|node| node.name.clone()).collect());
        let others = names.into_iter().filter(|name| *name != self.own.name);
        let answers = others.map(|name| async {
            let asked = self.link.call_node(&name, CLOCK, Vec::new(), CLOCK_TIMEOUT).await;
            let theirs = asked.ok().and_then(|answer| peer_calls::decode_number(&answer));
            (name, theirs.is_some_and(|theirs| agree(theirs, now_ms())))
        });
        join_all(answers).await.into_iter().collect()
    }
}

/// Whether two clocks, in milliseconds, are close enough.
fn agree(theirs: u64, ours: u64) -> bool {
    theirs.abs_diff(ours) <= CLOCKS_APART_MAX_MS
}

fn majority_agrees(status: &Status, own: &str, clocks: &Agreement) -> bool {
    let agreeing = status
        .voters
        .iter()
        .filter(|voter| voter.node == own || clocks.get(&voter.node).copied().unwrap_or(false));
    agreeing.count() * 2 > status.voters.len()
}

#[cfg(test)]
mod tests {
    use highwater_partition::log::ReplicaId;
    use highwater_partition::{Member, Watermark};

    use super::*;

    fn led_with(voters: &[&str]) -> Status {
        let member = |(number, node): (usize, &&str)| Member {
            replica_id: ReplicaId(number as u64),
            node: (*node).to_owned(),
        };
        Status {
            role: Role::Leader,
            term: 1,
            leader: None,
            voters: voters.iter().enumerate().map(member).collect(),
            is_membership_committed: true,
            voter_change: None,
            learners: Vec::new(),
            log_end: 0,
            watermark: Watermark::default(),
            committed_index: 1,
            damage: Vec::new(),
            damage_everywhere: Vec::new(),
        }
    }

    #[test]
    fn a_clock_that_differs_from_a_majority_of_the_voters_trims_nothing() {
        let clocks = |nodes: &[(&str, bool)]| {
            nodes
                .iter()
                .map(|(node, agrees)| ((*node).to_owned(), *agrees))
                .collect()
        };
        let three = led_with(&["a", "b", "c"]);
        assert!(majority_agrees(&three, "a", &clocks(&[("b", true), ("c", false)])));
        assert!(!majority_agrees(&three, "a", &clocks(&[("b", false), ("c", false)])));
        assert!(
            !majority_agrees(&three, "a", &clocks(&[("d", true)])),
            "who is no voter does not count"
        );
        assert!(
            majority_agrees(&led_with(&["a"]), "a", &clocks(&[])),
            "alone it is the majority"
        );
        assert!(!majority_agrees(&led_with(&["a", "b"]), "a", &clocks(&[("b", false)])));
    }

    #[test]
    fn clocks_agree_within_minutes_in_either_direction() {
        let now = 1_800_000_000_000;
        assert!(agree(now, now) && agree(now + 60_000, now) && agree(now, now + 60_000));
        assert!(!agree(now + 10 * 60_000, now) && !agree(now, now + 10 * 60_000));
    }
}
