//! Decides, on the catalog's leader, which nodes hold the replicas and which rules are in force.
//!
//! What to do is a pure function of the catalog and of who is there ([`Catalog::plan_moves`]); this loop looks who is
//! there, and has the commands decided, a few at a time. The members of the groups follow by themselves (`groups`). So it
//! keeps nothing that matters: whoever leads the catalog next goes on from what is committed.
//!
//! A node that is away for longer than the grace of the settings is gone: others get its replicas, if there are any. One
//! that leaves the cluster is removed from it as soon as nothing is left on it. The feature level is raised when every
//! node knows the newer rules.
//!
//! Deliberately absent: any decision that could lose data. Whose vote counts is each group's own business.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_catalog::planning::View;
use highwater_catalog::{Catalog, Command, FEATURE_LEVEL, LeftOn, Reply};
use highwater_partition::Role;
use highwater_partition::log::GroupId;
use tokio::time::{Instant, sleep};

use crate::absences::Absences;
use crate::audit;
use crate::controller::{COMMAND_TIMEOUT, Controller};

/// How often the planner looks.
const PLAN_INTERVAL: Duration = Duration::from_secs(1);
/// How many times it plans anew without the groups that could not carry a move out.
const PLANS_MAX: usize = 32;

/// Which nodes are there.
pub(crate) struct Presence {
    usable: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Presence {
    pub(crate) fn view(&self) -> View<'_> {
        View {
            usable: self.usable.iter().map(String::as_str).collect(),
            gone: self.gone.iter().map(String::as_str).collect(),
        }
    }
}

impl Controller {
    /// Plans while this node leads the catalog, until it stops.
    pub(crate) async fn keep_placement(self: Arc<Self>) {
        loop {
            sleep(PLAN_INTERVAL).await;
            if !self.leads_catalog() {
                self.absences().clear();
                continue;
            }
            if let Err(why) = self.plan().await {
                tracing::debug!(why, "what is planned is not decided yet");
            }
        }
    }

    fn leads_catalog(&self) -> bool {
        let catalog = self.registry.catalog();
        catalog.is_some_and(|catalog| catalog.status().role == Role::Leader)
    }

    pub(crate) fn absences(&self) -> MutexGuard<'_, Absences> {
        self.absences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn plan(&self) -> Result<(), String> {
        let members: Vec<String> = self
            .host
            .read(|catalog| catalog.members().map(|node| node.name.clone()).collect());
        self.absences()
            .note(&members, |node| node == self.own.name || self.leaders.is_alive(node));
        if self.host.read(Catalog::feature_level) < FEATURE_LEVEL {
            return self.raise_feature_level(&members).await;
        }
        self.set_up_access().await?;
        self.set_up_audit(&members).await;
        for command in self.plan_moves().await {
            tracing::info!(?command, "the cluster's balance changes");
            self.decide(command).await?;
        }
        self.remove_empty_nodes().await
    }

    /// Moves of groups whose leaders are followed; others could not carry them out, and would look whole afterwards.
    async fn plan_moves(&self) -> Vec<Command> {
        let presence = self.presence();
        let mut forsaken = BTreeSet::new();
        for _ in 0..PLANS_MAX {
            let led = |group: u64| self.leaders.leader(GroupId(group)).is_some() && !forsaken.contains(&group);
            let moves = self.host.read(|catalog| catalog.plan_moves(&presence.view(), led));
            let known = forsaken.len();
            for group in moves.iter().filter_map(moved_group) {
                if !self.leaders.is_led(GroupId(group)).await {
                    forsaken.insert(group);
                }
            }
            if forsaken.len() == known {
                return moves;
            }
        }
        Vec::new()
    }

    /// Who is there, for the planning functions.
    pub(crate) fn presence(&self) -> Presence {
        let patience = self.host.read(|catalog| catalog.settings().replace_after_ms);
        Presence {
            usable: self.leaders.usable_nodes(),
            gone: self.absences().longer_than(Duration::from_millis(patience)),
        }
    }

    /// Raises the level as far as every node knows it. A node that is not there may be of an older version.
    async fn raise_feature_level(&self, members: &[String]) -> Result<(), String> {
        let known = members.iter().map(|node| self.leaders.feature_level(node)).min();
        let level = known.unwrap_or(1).min(FEATURE_LEVEL);
        if level <= self.host.read(Catalog::feature_level) {
            return Ok(());
        }
        tracing::info!(level, "every node knows newer rules, which are in force from now on");
        self.decide(Command::RaiseFeatureLevel { level }).await
    }

    /// Gives the cluster its first policy, once somebody is named who may change it.
    async fn set_up_access(&self) -> Result<(), String> {
        let owners = self.host.read(|catalog| {
            let owners = catalog.all_topics().map(|topic| topic.tenant.clone());
            (!catalog.access().is_set_up()).then(|| owners.collect::<BTreeSet<String>>())
        });
        match owners.and_then(|owners| self.first_policy.command(owners)) {
            Some(command) => {
                tracing::info!("the cluster gets its first policy, which decides from now on who may do what");
                self.decide(command).await
            }
            None => Ok(()),
        }
    }

    /// Gives a cluster with a policy the topic for its audit. Nothing else waits for that.
    async fn set_up_audit(&self, members: &[String]) {
        let is_away = |node: &&String| **node != self.own.name && !self.leaders.is_alive(node);
        let avoid: Vec<String> = members.iter().filter(is_away).cloned().collect();
        while let Some(command) = self.host.read(|catalog| audit::next_step(catalog, avoid.clone())) {
            let decided = self.client.command(&command, Instant::now() + COMMAND_TIMEOUT).await;
            match decided {
                Ok(Reply::Policy { .. } | Reply::Topic(_)) => {}
                other => return tracing::warn!(?other, "the cluster has no topic for its audit yet"),
            }
        }
    }

    /// Nodes that leave, and hold nothing any more, are no members from now on.
    async fn remove_empty_nodes(&self) -> Result<(), String> {
        let voting: BTreeSet<u64> = self.catalog_voters().into_iter().collect();
        let empty: Vec<String> = self.host.read(|catalog| {
            let leaving = catalog.members().filter(|node| node.leaving);
            let empty = leaving.filter(|node| {
                catalog.left_on(&node.name) == LeftOn::default() && !voting.contains(&node.catalog_replica_id)
            });
            empty.map(|node| node.name.clone()).collect()
        });
        for node in empty {
            tracing::info!(node, "nothing is left on this node: it leaves the cluster");
            self.decide(Command::RemoveNode { node }).await?;
        }
        Ok(())
    }

    /// The catalog replicas that vote now.
    pub(crate) fn catalog_voters(&self) -> Vec<u64> {
        let status = self.registry.catalog().map(|catalog| catalog.status());
        let voters = status.into_iter().flat_map(|status| status.voters);
        voters.map(|voter| voter.replica_id.0).collect()
    }
}

/// The group whose members a planned command changes.
fn moved_group(command: &Command) -> Option<u64> {
    match command {
        Command::MoveReplica { group_id, .. } => Some(*group_id),
        _ => None,
    }
}
