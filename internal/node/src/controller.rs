//! Makes what the catalog says come true.
//!
//! Three loops, each driven by changes and each able to begin again at any point:
//!
//! * [`Controller::keep_replicas`] on every node: makes and starts the replicas placed here, and deletes those that
//!   are retired or whose group has a committed tombstone.
//! * [`Controller::keep_registered`] on every node: tells the catalog this node's address, rack and version.
//! * [`Controller::keep_members`] acts on the catalog's leader only: founds the catalog if it is not, adds every
//!   registered node to the catalog group as a learner, and gives the vote of a lost incarnation to the new one once it
//!   has caught up, one change at a time.
//!
//! The catalog holds the target; the group's own membership is the truth, and is read anew before each step.
//!
//! Elsewhere: giving the places of dead replicas to new ones (`replacement`). Deliberately absent: replacing a node that is
//! merely away, moving partitions, and balancing leaders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use highwater_catalog::{Catalog, CatalogReplica, Command, FoundingNode, Node, Placement, Refusal, Reply};
use highwater_partition::log::{ClusterId, GroupId, ReplicaId};
use highwater_partition::{Member, Role, Status};
use tokio::time::{Instant, sleep};

use crate::catalog::{CatalogClient, CatalogHost, member};
use crate::data_dir::{DataDir, Stage};
use crate::error::Failure;
use crate::failures::Failures;
use crate::first_start::FirstStart;
use crate::founding::{OwnName, Plan, ensure_learner};
use crate::hex::Id;
use crate::link::Link;
use crate::peer_calls::{self, APPLIED};
use crate::replicas::{CATALOG_GROUP, Hosted, Keeper, Registry, ReplicaError};

/// How long to wait after something did not work.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the members are looked at even if nothing changed: a node catches up without a sign.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(2);
/// How long a command to the catalog may take.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a new group's members wait, each for those before it, for somebody to make the first membership.
const FIRST_MEMBERS_PATIENCE: Duration = Duration::from_secs(1);

/// The groups here without any membership, and since when they have been seen so.
type Pristine = BTreeMap<GroupId, Instant>;

/// What the controller works with.
pub(crate) struct Controller {
    pub(crate) own: OwnName,
    pub(crate) version: String,
    pub(crate) cluster: String,
    pub(crate) data: Arc<DataDir>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) client: CatalogClient,
    pub(crate) first_start: FirstStart,
    pub(crate) link: Link,
    pub(crate) failures: Failures,
}

impl Controller {
    // ----------------------------------------------------------------------------------------------- replicas here

    pub(crate) async fn keep_replicas(self: Arc<Self>) {
        let mut progress = self.host.progress();
        let mut pristine = Pristine::default();
        loop {
            progress.mark_unchanged();
            if let Err(error) = self.reconcile(&mut pristine).await {
                tracing::error!(%error, "a replica is not as the catalog wants it");
                sleep(RETRY_PAUSE).await;
                continue;
            }
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                () = sleep(FIRST_MEMBERS_PATIENCE), if !pristine.is_empty() => {}
            }
        }
    }

    async fn reconcile(&self, pristine: &mut Pristine) -> Result<(), ReplicaError> {
        let Some(cluster_id) = self.data.cluster_id() else {
            return Ok(());
        };
        self.check_cluster_id();
        // A replica that fails must not stand in the way of the others; the first failure is answered.
        let mut all = Ok(());
        for record in self.data.replicas() {
            let may_go = |catalog: &Catalog| catalog.may_be_removed(record.group, record.replica);
            if self.host.read(may_go) {
                let removed = self.keeper.remove(record.group_id(), record.replica_id()).await;
                all = all.and(removed);
            }
        }
        if !self.new_placements().is_empty() {
            self.first_start.be_certain().await;
            let made = self.make_placed(cluster_id).await;
            all = all.and(made);
        }
        self.note_pristine(pristine);
        for (group, since) in pristine.iter() {
            let initialized = self.initialize(*group, since.elapsed()).await;
            all = all.and(initialized);
        }
        all
    }

    /// Replicas placed on this very incarnation that are not recorded as started: unknown here, or not made to the end.
    fn new_placements(&self) -> Vec<Placement> {
        let records = self.data.replicas();
        let started = records.iter().filter(|record| record.stage != Stage::Preparing);
        let known: BTreeSet<(u64, u64)> = started.map(|record| (record.group, record.replica)).collect();
        let incarnation = self.data.incarnation();
        self.host.read(|catalog| {
            let is_this_life = catalog
                .node(&self.own.name)
                .is_some_and(|node| Id(node.incarnation) == incarnation);
            let wanted = catalog
                .groups_on(&self.own.name)
                .filter(|placement| is_this_life && !placement.dead);
            wanted
                .filter(|wanted| !known.contains(&(wanted.group_id, wanted.replica_id)))
                .collect()
        })
    }

    /// Makes what is placed here and new, by what is certain about the catalog.
    async fn make_placed(&self, cluster_id: ClusterId) -> Result<(), ReplicaError> {
        let mut all = Ok(());
        let mut new = Vec::new();
        for placed in self.new_placements() {
            match self.vacate(&placed).await {
                Ok(()) => new.push(placed),
                failed => all = all.and(failed),
            }
        }
        if new.is_empty() {
            return all;
        }
        tracing::info!(replicas = new.len(), "making replicas");
        let made = self.first_start.make(cluster_id, new).await;
        all.and(made)
    }

    /// Ends other replicas of the group here. The catalog gives a place on the same node to a new id only if the old one is
    /// dead; a directory that does not know that is an old copy.
    async fn vacate(&self, new: &Placement) -> Result<(), ReplicaError> {
        let group = GroupId(new.group_id);
        let records = self.data.replicas().into_iter();
        for other in records.filter(|record| record.group == new.group_id && record.replica != new.replica_id) {
            if other.stage == Stage::Started {
                let replica = other.replica;
                tracing::error!(
                    group = group.0,
                    replica,
                    "a replica was given up that is not dead here: an old copy"
                );
                self.first_start.dead.record(other.id()).await;
            }
            self.keeper.end(group, other.replica_id()).await?;
        }
        Ok(())
    }

    fn note_pristine(&self, pristine: &mut Pristine) {
        let hosted = self.registry.all();
        let is_new = |hosted: &&Arc<Hosted>| hosted.group_id != CATALOG_GROUP && hosted.status().voters.is_empty();
        let new: BTreeSet<GroupId> = hosted.iter().filter(is_new).map(|hosted| hosted.group_id).collect();
        pristine.retain(|group, _| new.contains(group));
        for group in new {
            pristine.entry(group).or_insert_with(Instant::now);
        }
    }

    /// Gives a group its first members. The preferred leader does it at once, the others in turn if nothing has been
    /// heard of the group for a while: the nodes before them are not there. All of them make the same first entry, from
    /// the placement that the topic was created with, so it does no harm if several do it.
    async fn initialize(&self, group: GroupId, pristine_for: Duration) -> Result<(), ReplicaError> {
        let members = self.host.read(|catalog| {
            let (_, partition) = catalog.partition_of_group(group.0)?;
            if partition.changed {
                return None; // Its members come from its leader: others than the first ones must never found it.
            }
            let mut living = partition.replicas.iter().filter(|replica| !catalog.is_dead(replica));
            let turn = living.position(|replica| replica.node == self.own.name)?;
            let is_due = pristine_for >= FIRST_MEMBERS_PATIENCE * u32::try_from(turn).unwrap_or(u32::MAX);
            is_due.then(|| partition.replicas.iter().map(member).collect::<Vec<_>>())
        });
        match members {
            Some(members) => self.keeper.initialize(group, members).await,
            None => Ok(()),
        }
    }

    fn check_cluster_id(&self) {
        let recorded = self.data.cluster_id().map(|id| Id(id.0));
        let committed = self.host.read(|catalog| catalog.cluster_id()).map(Id);
        if let (Some(recorded), Some(committed)) = (recorded, committed)
            && recorded != committed
        {
            let why = format!("the catalog is of cluster {committed}, the data directory of {recorded}");
            self.failures.report(Failure::Inconsistent(why));
        }
    }

    // --------------------------------------------------------------------------------------------- this node's entry

    pub(crate) async fn keep_registered(self: Arc<Self>) {
        let mut progress = self.host.progress();
        loop {
            progress.mark_unchanged();
            if self.wants_to_register() && !self.register().await {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Only once the catalog here is this cluster's and knows this node: it has joined before.
    fn wants_to_register(&self) -> bool {
        let Some(own) = self.registry.hosted(CATALOG_GROUP) else {
            return false;
        };
        self.host.read(|catalog| {
            catalog.node(&self.own.name).is_some_and(|known| {
                known.incarnation != self.data.incarnation().0
                    || known.catalog_replica_id != own.replica_id.0
                    || !known.catalog_replica_started
                    || known.address != self.own.address
                    || known.rack != self.own.rack
                    || known.version != self.version
            })
        })
    }

    async fn register(&self) -> bool {
        let Some(own) = self.registry.hosted(CATALOG_GROUP) else {
            return true;
        };
        let command = Command::RegisterNode {
            name: self.own.name.clone(),
            incarnation: self.data.incarnation().0,
            address: self.own.address.clone(),
            rack: self.own.rack.clone(),
            version: self.version.clone(),
            feature_level: 1,
            catalog_replica: Some(CatalogReplica::Runs(own.replica_id.0)),
        };
        // What is known here may be old: a newer entry of this node can be on its way.
        self.client.catch_up(Instant::now() + COMMAND_TIMEOUT).await;
        if !self.wants_to_register() {
            return true;
        }
        match self.client.command(&command, Instant::now() + COMMAND_TIMEOUT).await {
            Ok(Reply::Node { .. }) => true,
            Ok(Reply::Refused(refusal @ Refusal::IncarnationReplaced { .. })) => {
                self.failures.report(Failure::Inconsistent(refusal.to_string()));
                true
            }
            Ok(Reply::Refused(refusal @ Refusal::CatalogReplicaReplaced { .. })) => {
                self.first_start.dead.record((CATALOG_GROUP, own.replica_id)).await;
                self.failures.report(Failure::Inconsistent(refusal.to_string()));
                true
            }
            other => {
                tracing::debug!(?other, "this node is not registered yet");
                false
            }
        }
    }

    // ---------------------------------------------------------------------------------------- the catalog's members

    pub(crate) async fn keep_members(self: Arc<Self>) {
        let mut changes = self.registry.changes();
        let mut progress = self.host.progress();
        loop {
            if let Err(why) = self.arrange_members().await {
                tracing::debug!(why, "the catalog's members are not as they should be yet");
            }
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(MEMBERS_INTERVAL) => {}
            }
        }
    }

    /// One step at most, so that each begins from what is committed.
    async fn arrange_members(&self) -> Result<(), String> {
        let Some(catalog) = self.registry.catalog() else {
            return Ok(());
        };
        let status = catalog.status();
        if status.role != Role::Leader {
            return Ok(());
        }
        if self.host.read(|catalog| catalog.cluster_id().is_none()) {
            return self.propose_founding().await;
        }
        if let Some(change) = status.voter_change {
            tracing::info!(voters = ?change.to, "finishing a change of the catalog's voters");
            let finished = catalog.change_voters(change.to).await;
            return finished.map_err(|error| error.to_string());
        }
        let nodes: Vec<Node> = self.host.read(|catalog| catalog.nodes().cloned().collect());
        for node in &nodes {
            let member = Member {
                replica_id: ReplicaId(node.catalog_replica_id),
                node: node.name.clone(),
            };
            ensure_learner(&catalog, member).await?;
        }
        let Some((node, voters)) = lost_vote(&status, &nodes) else {
            let lost = lost_learners(&status, &nodes);
            if lost.is_empty() {
                return Ok(());
            }
            return catalog.remove_learners(&lost).await.map_err(|error| error.to_string());
        };
        if !self.has_caught_up(&node.name).await {
            return Ok(());
        }
        tracing::info!(node = %node.name, "its new incarnation takes over the vote of the lost one");
        catalog.change_voters(voters).await.map_err(|error| error.to_string())
    }

    async fn propose_founding(&self) -> Result<(), String> {
        let (Some(plan), Some(cluster_id)) = (self.data.plan(), self.data.cluster_id()) else {
            return Err("this node leads a catalog that was never founded".to_owned());
        };
        let command = Command::Found {
            cluster_id: cluster_id.0,
            cluster_name: self.cluster.clone(),
            nodes: founding_nodes(&plan),
        };
        match self.client.command(&command, Instant::now() + COMMAND_TIMEOUT).await {
            Ok(Reply::Founded { .. }) => {
                tracing::info!(cluster_id = %Id(cluster_id.0), nodes = plan.members.len(), "the cluster is founded");
                Ok(())
            }
            other => Err(format!("founding was answered with {other:?}")),
        }
    }

    async fn has_caught_up(&self, node: &str) -> bool {
        let applied_here = self.host.now().applied;
        let asked = self.link.call_node(node, APPLIED, Vec::new(), RETRY_PAUSE).await;
        let applied_there = asked.ok().and_then(|answer| peer_calls::decode_number(&answer));
        applied_there.is_some_and(|applied| applied >= applied_here)
    }

    /// Whether this node is a member of the committed catalog under this incarnation.
    pub(crate) fn is_member(&self) -> bool {
        let Some(hosted) = self.registry.hosted(CATALOG_GROUP) else {
            return false;
        };
        let status = hosted.status();
        let is_here = |member: &Member| member.replica_id == hosted.replica_id;
        let in_group = status.role != Role::Stopped && status.voters.iter().chain(&status.learners).any(is_here);
        let incarnation = self.data.incarnation().0;
        let known = |catalog: &highwater_catalog::Catalog| catalog.node(&self.own.name).map(|node| node.incarnation);
        in_group && self.host.read(known) == Some(incarnation)
    }
}

fn founding_nodes(plan: &Plan) -> Vec<FoundingNode> {
    let node = |member: &crate::founding::PlannedMember| FoundingNode {
        name: member.name.clone(),
        incarnation: member.incarnation.0,
        address: member.address.clone(),
        rack: member.rack.clone(),
        replica_id: member.replica_id,
    };
    plan.members.iter().map(node).collect()
}

/// Learners that never came to vote and never will.
fn lost_learners(status: &Status, nodes: &[Node]) -> Vec<ReplicaId> {
    let past_lives = || nodes.iter().flat_map(|node| &node.past_lives);
    let is_lost = |learner: &ReplicaId| past_lives().any(|life| life.catalog_replica_id == learner.0);
    let learners = status.learners.iter().map(|member| member.replica_id);
    learners.filter(is_lost).collect()
}

/// A node whose vote is still held by a lost catalog replica while the present one is a learner, and who should vote then.
/// Only one that is registered as running may: before that it could be made anew, empty, from an old copy of the directory.
fn lost_vote<'a>(status: &Status, nodes: &'a [Node]) -> Option<(&'a Node, Vec<ReplicaId>)> {
    let is = |replica: u64| move |member: &&Member| member.replica_id.0 == replica;
    let mut running = nodes.iter().filter(|node| node.catalog_replica_started);
    running.find_map(|node| {
        let lost = node.past_lives.iter().rev().map(|life| life.catalog_replica_id);
        let lost = lost
            .into_iter()
            .find(|replica| status.voters.iter().any(|voter| voter.replica_id.0 == *replica))?;
        status.learners.iter().find(is(node.catalog_replica_id))?;
        let keep = status
            .voters
            .iter()
            .map(|voter| voter.replica_id)
            .filter(|replica| replica.0 != lost);
        Some((node, keep.chain([ReplicaId(node.catalog_replica_id)]).collect()))
    })
}

#[cfg(test)]
mod tests {
    use highwater_catalog::PastLife;
    use highwater_partition::Watermark;

    use super::*;

    fn member(replica_id: u64, node: &str) -> Member {
        Member {
            replica_id: ReplicaId(replica_id),
            node: node.to_owned(),
        }
    }

    fn status(voters: Vec<Member>, learners: Vec<Member>) -> Status {
        Status {
            role: Role::Leader,
            term: 1,
            leader: None,
            voters,
            is_membership_committed: true,
            voter_change: None,
            learners,
            log_end: 0,
            watermark: Watermark::default(),
            committed_index: 1,
            damage: Vec::new(),
            damage_everywhere: Vec::new(),
        }
    }

    fn node(name: &str, replica_id: u64, past: &[u64]) -> Node {
        let past_life = |&catalog_replica_id: &u64| PastLife {
            incarnation: [0; 16],
            catalog_replica_id,
        };
        Node {
            name: name.to_owned(),
            incarnation: [1; 16],
            address: String::new(),
            rack: String::new(),
            version: String::new(),
            feature_level: 1,
            catalog_replica_id: replica_id,
            catalog_replica_started: true,
            past_lives: past.iter().map(past_life).collect(),
            leaving: false,
            drained: false,
            removed: false,
        }
    }

    #[test]
    fn the_vote_of_a_lost_incarnation_goes_to_the_present_one() {
        let status = status(
            vec![member(1, "a"), member(2, "b"), member(3, "c")],
            vec![member(9, "c")],
        );
        let nodes = [node("a", 1, &[]), node("b", 2, &[]), node("c", 9, &[3])];
        let (chosen, voters) = lost_vote(&status, &nodes).unwrap_or_else(|| panic!("nobody was chosen"));
        assert_eq!(chosen.name, "c");
        assert_eq!(voters, [1, 2, 9].map(ReplicaId));
    }

    #[test]
    fn learners_that_were_lost_before_they_voted_are_let_go_of() {
        let status = status(
            vec![member(1, "a")],
            vec![member(3, "c"), member(9, "c"), member(4, "d")],
        );
        let nodes = [node("a", 1, &[]), node("c", 9, &[3]), node("d", 4, &[])];
        assert_eq!(lost_learners(&status, &nodes), [ReplicaId(3)]);
    }

    #[test]
    fn a_mere_learner_and_a_node_that_is_not_back_get_no_vote() {
        let learner = status(vec![member(1, "a")], vec![member(9, "c"), member(4, "d")]);
        assert!(lost_vote(&learner, &[node("a", 1, &[]), node("c", 9, &[3]), node("d", 4, &[])]).is_none());
        let mut not_registered = node("c", 9, &[3]);
        not_registered.catalog_replica_started = false;
        let back = status(vec![member(1, "a"), member(3, "c")], vec![member(9, "c")]);
        assert!(lost_vote(&back, &[node("a", 1, &[]), not_registered]).is_none());
        let not_back = status(vec![member(1, "a"), member(3, "c")], vec![]);
        assert!(lost_vote(&not_back, &[node("a", 1, &[]), node("c", 9, &[3])]).is_none());
    }
}
