//! Puts the cluster's settings into force on this node.
//!
//! What a running part can be told (the pace of catching up) it is told at once. Timers belong to a replica's core for as
//! long as that runs, so replicas are restarted with them, one at a time and in an order in which the members of a group take
//! turns: each node begins with the groups of which it holds the first replica, and goes on to those of which it holds the
//! second. A leader waits until its followers have had time for that, and hands over before its own restart; so leaders and
//! followers differ only for a while, in which a group at worst asks for votes that nobody gives.
//!
//! Deliberately absent: the timers of the catalog's own group, which stay as they are.

use std::sync::Arc;
use std::time::Duration;

use highwater_partition::log::GroupId;
use highwater_partition::{Role, Timers};
use tokio::time::{Instant, sleep};

use crate::controller::Controller;
use crate::replicas::{CATALOG_GROUP, Hosted};

/// How long leaders leave their followers for theirs.
const FOLLOWERS_FIRST: Duration = Duration::from_secs(10);
/// Between two restarts: a node has other things to do.
const RESTART_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks for what is still to be restarted.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl Controller {
    /// Follows the settings until the node stops.
    pub(crate) async fn keep_settings(self: Arc<Self>) {
        let mut progress = self.host.progress();
        let mut changed_at = Instant::now();
        let mut in_force = Timers::default();
        loop {
            progress.mark_unchanged();
            let settings = self.host.read(|catalog| catalog.settings().clone());
            self.keeper.set_catch_up(settings.catch_up_bytes_per_second);
            let timers = Timers::step(settings.timer_step).unwrap_or_default();
            if timers != in_force {
                (in_force, changed_at) = (timers, Instant::now());
                tracing::info!(step = settings.timer_step, "replicas get other timers");
            }
            self.keeper.set_timers(timers);
            let may_lead_no_more = changed_at.elapsed() >= FOLLOWERS_FIRST;
            let unfinished = self.restart_others(timers, may_lead_no_more).await;
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = sleep(LOOK_PAUSE), if unfinished => {}
            }
        }
    }

    /// Restarts what runs with other timers; whether some are left.
    async fn restart_others(&self, timers: Timers, leaders_too: bool) -> bool {
        let mut others: Vec<Arc<Hosted>> = self.registry.all();
        others.retain(|hosted| hosted.group_id != CATALOG_GROUP && hosted.timers() != timers);
        others.sort_by_cached_key(|hosted| (self.turn(hosted.group_id), hosted.group_id));
        let mut unfinished = false;
        for hosted in others {
            if hosted.leads_others() {
                unfinished = true;
                if leaders_too {
                    // If nobody takes it, it is tried again; as soon as somebody has, it is restarted as a follower.
                    let _ = hosted.hand_over_to(|_| true).await;
                }
                continue;
            }
            if hosted.status().role == Role::Candidate {
                unfinished = true; // its group has no leader: one thing after the other
                continue;
            }
            if let Err(error) = self.keeper.restart(hosted.group_id).await {
                tracing::error!(%error, "a replica did not come back with other timers");
                if error.is_dead {
                    self.first_start.dead.note((hosted.group_id, hosted.replica_id)).await;
                }
            }
            sleep(RESTART_PAUSE).await;
        }
        unfinished
    }

    /// Which of the group's replicas this node holds, in the order of the catalog.
    fn turn(&self, group: GroupId) -> usize {
        self.host.read(|catalog| {
            let partition = catalog.partition_of_group(group.0).map(|(_, partition)| partition);
            let mut replicas = partition.into_iter().flat_map(|partition| &partition.replicas);
            replicas
                .position(|replica| replica.node == self.own.name)
                .unwrap_or(usize::MAX)
        })
    }
}
