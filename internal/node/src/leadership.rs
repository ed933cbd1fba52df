//! Moves leaderships to where they should be.
//!
//! The catalog's target has a preferred leader for each partition; who should lead now, with the nodes that are there,
//! is a pure function of the catalog and of who is ready ([`Catalog::wanted_leaders`]). Each node computes it for itself
//! and gives away what it leads and somebody else should. Two nodes that see different ones ready may pass a leadership
//! to and fro for a moment; nothing is lost by that, and it is slow enough not to matter.
//!
//! A node gets leaderships only when it has been ready for a while, so that one that comes and goes does not take them
//! along each time. One that is drained or leaves the cluster gives all away at once, also if nothing else is balanced.
//!
//! Deliberately absent: who leads after a failure (an election), and what a stopping node does (`node`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use highwater_catalog::Catalog;
use highwater_partition::Role;
use highwater_partition::log::{GroupId, ReplicaId};
use tokio::time::{Instant, sleep, timeout};

use crate::controller::Controller;
use crate::peer_calls::Transfer;
use crate::replicas::{CATALOG_GROUP, Hosted, Registry};

/// How often leaderships are looked at even if nothing changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a node has been ready before it gets leaderships.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// Leaderships that a node gives away at the same time.
pub(crate) const TRANSFERS_AT_ONCE: usize = 2;
/// How long one may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a group is left alone whose leadership did not move.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What a pass remembers for the next one.
#[derive(Default)]
struct Memory {
    ready_since: BTreeMap<String, Instant>,
    /// Groups that are left alone until then.
    not_before: BTreeMap<GroupId, Instant>,
}

impl Memory {
    /// Who may be given leaderships: ready for a while.
    fn steady(&mut self, ready: &BTreeSet<String>) -> BTreeSet<String> {
        let now = Instant::now();
        self.ready_since.retain(|node, _| ready.contains(node));
        for node in ready {
            self.ready_since.entry(node.clone()).or_insert(now);
        }
        let steady = self
            .ready_since
            .iter()
            .filter(|(_, since)| since.elapsed() >= STEADY_AFTER);
        steady.map(|(node, _)| node.clone()).collect()
    }
}

impl Controller {
    /// Gives away what this node leads and should not, until the node stops.
    pub(crate) async fn keep_leaderships(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut progress = self.host.progress();
        let mut nodes = self.leaders.nodes();
        loop {
            progress.mark_unchanged();
            nodes.mark_unchanged();
            self.give_away(&mut memory).await;
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    async fn give_away(&self, memory: &mut Memory) {
        let usable = self.leaders.usable_nodes();
        let mut steady = memory.steady(&usable);
        if !usable.contains(&self.own.name) {
            // It may be cut off from some, and know of them by hearsay; those can take nothing from here.
            steady.retain(|node| self.leaders.is_connected(node));
        }
        let due: Vec<(Arc<Hosted>, ReplicaId)> = self.due_transfers(&steady, &memory.not_before);
        let moves = futures::stream::iter(due).map(|(hosted, to)| async move {
            let moved = timeout(TRANSFER_TIMEOUT, transfer(&hosted, &[to])).await;
            let moved = moved.unwrap_or_else(|_| Err("nobody has taken it in time".to_owned()));
            if let Err(why) = &moved {
                tracing::debug!(
                    group = hosted.group_id.0,
                    to = to.0,
                    why,
                    "leadership stays here for now"
                );
            }
            (hosted.group_id, moved.is_ok())
        });
        let moved: Vec<(GroupId, bool)> = moves.buffer_unordered(TRANSFERS_AT_ONCE).collect().await;
        let count = moved.iter().filter(|(_, moved)| *moved).count();
        if count > 0 {
            tracing::info!(groups = count, "leaderships have moved to where they should be");
        }
        let again = Instant::now() + RETRY_AFTER;
        memory.not_before.retain(|_, until| *until > Instant::now());
        let stayed = moved.into_iter().filter(|(_, moved)| !moved);
        memory.not_before.extend(stayed.map(|(group, _)| (group, again)));
    }

    /// The groups led here that another replica should lead and can.
    fn due_transfers(
        &self,
        steady: &BTreeSet<String>,
        not_before: &BTreeMap<GroupId, Instant>,
    ) -> Vec<(Arc<Hosted>, ReplicaId)> {
        let all = self.registry.all().into_iter();
        let led: Vec<Arc<Hosted>> = all.filter(|hosted| hosted.status().role == Role::Leader).collect();
        let steady: BTreeSet<&str> = steady.iter().map(String::as_str).collect();
        let catalog_heir = self.catalog_heir(&led, &steady);
        if led.iter().all(|hosted| hosted.group_id == CATALOG_GROUP) && catalog_heir.is_none() {
            return Vec::new();
        }
        let mut wanted = self.host.read(|catalog| match self.may_move(catalog) {
            true => catalog.wanted_leaders(&steady),
            false => BTreeMap::new(),
        });
        wanted.extend(catalog_heir.map(|heir| (CATALOG_GROUP.0, heir.0)));
        let now = Instant::now();
        let due = led.into_iter().filter_map(|hosted| {
            let to = ReplicaId(*wanted.get(&hosted.group_id.0)?);
            let is_free = not_before.get(&hosted.group_id).is_none_or(|until| *until <= now);
            (is_free && to != hosted.replica_id && hosted.has_caught_up(to)).then_some((hosted, to))
        });
        due.collect()
    }

    /// Who leads the catalog instead of this node, if that leads it and should not: it is drained, or has no room for commands.
    /// Nobody cares where it is led otherwise.
    fn catalog_heir(&self, led: &[Arc<Hosted>], steady: &BTreeSet<&str>) -> Option<ReplicaId> {
        let hosted = led.iter().find(|hosted| hosted.group_id == CATALOG_GROUP)?;
        let is_drained =
            |catalog: &Catalog, node: &str| catalog.node(node).is_some_and(|node| node.drained || node.leaving);
        self.host.read(|catalog| {
            if !is_drained(catalog, &self.own.name) && self.leaders.has_room() {
                return None;
            }
            let mut heirs = hosted.successors().into_iter();
            let heir = heirs.find(|heir| steady.contains(heir.node.as_str()) && !is_drained(catalog, &heir.node));
            heir.map(|heir| heir.replica_id)
        })
    }

    /// Whether leaderships may move from here: for balance, or because this node is to lead nothing.
    fn may_move(&self, catalog: &Catalog) -> bool {
        let own = catalog.node(&self.own.name);
        catalog.settings().balance || own.is_some_and(|node| node.drained || node.leaving)
    }
}

/// What an operator asks of the leader.
pub(crate) async fn transfer_here(registry: &Registry, asked: Transfer) -> Result<(), String> {
    let hosted = registry.hosted(GroupId(asked.group));
    let Some(hosted) = hosted.filter(|hosted| hosted.status().role == Role::Leader) else {
        return Err(format!("group {} is not led here", asked.group));
    };
    let to = match asked.to {
        Some(replica_id) => vec![ReplicaId(replica_id)],
        None => hosted.successors().iter().map(|voter| voter.replica_id).collect(),
    };
    let moved = timeout(TRANSFER_TIMEOUT, transfer(&hosted, &to)).await;
    moved.unwrap_or_else(|_| Err("nobody has taken it in time".to_owned()))
}

/// Hands over to one of these, and waits until somebody else leads.
async fn transfer(hosted: &Hosted, to: &[ReplicaId]) -> Result<(), String> {
    hosted.hand_over_to(|voter| to.contains(&voter.replica_id)).await?;
    hosted.led_by_another().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_steady_when_it_has_been_ready_without_a_break() {
        let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        let mut memory = Memory::default();
        assert!(memory.steady(&names(&["a", "b"])).is_empty());
        tokio::time::advance(STEADY_AFTER / 2).await;
        assert!(memory.steady(&names(&["a"])).is_empty());
        tokio::time::advance(STEADY_AFTER / 2).await;
        assert_eq!(memory.steady(&names(&["a", "b"])), names(&["a"]));
        tokio::time::advance(STEADY_AFTER).await;
        assert_eq!(memory.steady(&names(&["a", "b"])), names(&["a", "b"]));
    }
}
