//! What this node's replicas have missed while it was away.
//!
//! A node that has just started votes and takes records, but its replicas may lack what was appended meanwhile: gigabytes, that come at the
//! pace of `catch_up_bytes_per_second`. Until they have it, the loss of another node costs a partition its majority of replicas that are up to
//! date, and producers wait. So whoever restarts nodes one by one (Kubernetes does, by their readiness) must not go on before. That is what is
//! waited for here, once after each start: for every replica that was there, what its leader confirms as committed when it is asked.
//!
//! Nothing is waited for that may never come: not for a partition without a leader that confirms anything, and not while this node's disk is
//! full, since it takes no records then.
//!
//! Deliberately absent: replicas that are made later; who places them waits for them itself (`controller`).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use highwater_partition::CommandError;
use highwater_partition::log::GroupId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{CATALOG_GROUP, Hosted, Registry};

/// How many leaders are asked, or waited for, at the same time: each of them is one timer or one call.
const AT_ONCE: usize = 1024;
/// For how long a leader is looked for that confirms something. Longer than an election takes with the most patient timers.
const LEADER_PATIENCE: Duration = Duration::from_secs(15);
/// How often it is asked whether the end that is waited for is still there.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
/// How soon it is looked again for a leader, or for a replica that is being opened anew.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Counts the replicas that have not caught up since the node started.
pub(crate) struct CatchingUp {
    registry: Arc<Registry>,
    /// Whether this node's disk takes records.
    has_room: watch::Receiver<bool>,
    behind: watch::Sender<usize>,
}

impl CatchingUp {
    /// `replicas`: how many will be waited for.
    pub(crate) fn new(registry: Arc<Registry>, has_room: watch::Receiver<bool>, replicas: usize) -> CatchingUp {
        CatchingUp {
            registry,
            has_room,
            behind: watch::Sender::new(replicas),
        }
    }

    /// How many have not caught up yet.
    pub(crate) fn behind(&self) -> watch::Receiver<usize> {
        self.behind.subscribe()
    }

    /// Waits for the replicas of these groups, which have been opened, if they could be.
    pub(crate) async fn run(&self, groups: Vec<GroupId>) {
        let waiting = futures::stream::iter(groups).for_each_concurrent(AT_ONCE, |group| async move {
            let mut has_room = self.has_room.clone();
            tokio::select! {
                () = self.caught_up(group) => {}
                _ = has_room.wait_for(|has_room| !has_room) => {}
            }
            self.behind.send_modify(|behind| *behind = behind.saturating_sub(1));
        });
        waiting.await;
        self.behind.send_replace(0);
    }

    async fn caught_up(&self, group: GroupId) {
        debug_assert_ne!(group, CATALOG_GROUP, "the catalog has a currency of its own");
        loop {
            match self.registry.hosted(group) {
                Some(hosted) => tokio::select! {
                    biased;
                    () = hosted.ended() => {}
                    () = catch_up(&hosted) => return,
                },
                None if self.registry.unstarted(group).is_some() => sleep(RETRY_PAUSE).await,
                None => return,
            }
        }
    }
}

/// Returns when the replica has what its leader has confirmed, or when there is no leader that confirms anything; never if it ends before.
async fn catch_up(hosted: &Hosted) {
    let partition = hosted.partition();
    let mut watermark = partition.watermark();
    let mut end = u64::MAX;
    let mut patient_until = Instant::now() + LEADER_PATIENCE;
    loop {
        match partition.confirmed_high_watermark().await {
            // The first answer counts, or the log would run away from who is slow; unless a recovery has made it shorter since.
            Ok(now) => end = end.min(now),
            Err(CommandError::Stopped) => std::future::pending().await,
            Err(_) if Instant::now() >= patient_until => return,
            Err(_) => {
                sleep(RETRY_PAUSE).await;
                continue;
            }
        }
        let reached = timeout(ASK_INTERVAL, watermark.wait_for(|now| now.high_watermark >= end)).await;
        match reached.map(|reached| reached.map(drop)) {
            Ok(Ok(())) => return,
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => patient_until = Instant::now() + LEADER_PATIENCE,
        }
    }
}
