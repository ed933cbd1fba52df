//! Who is a member of the catalog's group, and who votes in it.
//!
//! Every node has a replica of the catalog; 1, 3 or 5 of them vote, the others learn. The catalog's leader sees to it: it
//! founds the catalog if it is not, adds every registered node as a learner, gives the vote of a lost incarnation to the
//! new one once it has caught up, lets the right nodes vote ([`highwater_catalog::Catalog::plan_catalog_voters`]), and lets
//! go of learners that are lost or whose node has left. One change at a time, each from what is committed then.
//!
//! Deliberately absent: the members of all other groups (`groups`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_catalog::{Catalog, Command, FoundingNode, Node, Reply};
use highwater_partition::log::ReplicaId;
use highwater_partition::{Member, Role, Status};
use tokio::time::{Instant, sleep, timeout};

use crate::controller::{COMMAND_TIMEOUT, Controller};
use crate::founding::Plan;
use crate::hex::Id;
use crate::peer_calls::{self, APPLIED};
use crate::replicas::{CATALOG_GROUP, Hosted};

/// How often the members are looked at even if nothing changed: a node catches up without a sign.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(2);
/// How long a node may take to say how far its catalog is.
const APPLIED_TIMEOUT: Duration = Duration::from_secs(1);

impl Controller {
    pub(crate) async fn keep_members(self: Arc<Self>) {
        let mut changes = self.registry.changes();
        let mut progress = self.host.progress();
        loop {
            // A change is answered when it is committed; what a lost majority leaves undone is gone on with later.
            let arranged = timeout(COMMAND_TIMEOUT, self.arrange_members()).await;
            if let Err(why) = arranged.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
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
        let Some(hosted) = self.registry.hosted(CATALOG_GROUP) else {
            return Ok(());
        };
        let status = hosted.status();
        if status.role != Role::Leader {
            return Ok(());
        }
        if self.host.read(|catalog| catalog.cluster_id().is_none()) {
            return self.propose_founding().await;
        }
        if let Some(change) = status.voter_change {
            tracing::info!(voters = ?change.to, "finishing a change of the catalog's voters");
            return hosted.change_voters(change.to).await;
        }
        let nodes: Vec<Node> = self.host.read(|catalog| catalog.nodes().cloned().collect());
        for node in nodes.iter().filter(|node| !node.removed) {
            let member = Member {
                replica_id: ReplicaId(node.catalog_replica_id),
                node: node.name.clone(),
            };
            hosted.ensure_learner(member).await?;
        }
        let Some(voters) = self.next_voters(&status, &nodes) else {
            return match lost_learners(&status, &nodes) {
                lost if lost.is_empty() => Ok(()),
                lost => hosted.remove_learners(&lost).await,
            };
        };
        self.change_catalog_voters(&hosted, &status, voters).await
    }

    /// Who should vote in the catalog next, if not those who do.
    fn next_voters(&self, status: &Status, nodes: &[Node]) -> Option<Vec<ReplicaId>> {
        if self.host.read(Catalog::feature_level) == 1 {
            // Older versions know only the first voters and those who stand in for them.
            return lost_vote(status, nodes);
        }
        let presence = self.presence();
        let voting: Vec<u64> = status.voters.iter().map(|voter| voter.replica_id.0).collect();
        let planned = self
            .host
            .read(|catalog| catalog.plan_catalog_voters(&voting, &presence.view()));
        planned.map(|planned| planned.into_iter().map(ReplicaId).collect())
    }

    /// New voters must have caught up, and a leader that is to go hands over first.
    async fn change_catalog_voters(
        &self,
        hosted: &Hosted,
        status: &Status,
        voters: Vec<ReplicaId>,
    ) -> Result<(), String> {
        let is_voter = |id: &ReplicaId| status.voters.iter().any(|voter| voter.replica_id == *id);
        for new in voters.iter().filter(|id| !is_voter(id)) {
            let learner = status.learners.iter().find(|learner| learner.replica_id == *new);
            let Some(learner) = learner else {
                return Err(format!("replica {} of the catalog is no member yet", new.0));
            };
            if !self.has_caught_up(&learner.node).await {
                return Err(format!("the catalog of {} has not caught up yet", learner.node));
            }
        }
        let staying: Vec<ReplicaId> = voters.iter().copied().filter(is_voter).collect();
        if !voters.contains(&hosted.replica_id) && !staying.is_empty() {
            tracing::info!("this node is to vote in the catalog no longer: another one leads it");
            return hosted.hand_over_to(|voter| staying.contains(&voter.replica_id)).await;
        }
        tracing::info!(?voters, "the catalog's voters change");
        hosted.change_voters(voters).await
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
        let asked = self.link.call_node(node, APPLIED, Vec::new(), APPLIED_TIMEOUT).await;
        let applied_there = asked.ok().and_then(|answer| peer_calls::decode_number(&answer));
        applied_there.is_some_and(|applied| applied >= applied_here)
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

/// Learners that never came to vote and never will: of lost directories, and of nodes that have left the cluster.
fn lost_learners(status: &Status, nodes: &[Node]) -> Vec<ReplicaId> {
    let past = nodes
        .iter()
        .flat_map(|node| &node.past_lives)
        .map(|life| life.catalog_replica_id);
    let removed = nodes
        .iter()
        .filter(|node| node.removed)
        .map(|node| node.catalog_replica_id);
    let lost: BTreeSet<u64> = past.chain(removed).collect();
    let is_lost = |learner: &ReplicaId| lost.contains(&learner.0);
    let learners = status.learners.iter().map(|member| member.replica_id);
    learners.filter(is_lost).collect()
}

/// Who should vote if some node's vote is still held by a lost catalog replica while the present one is a learner. Only one
/// that is registered as running may: before that it could be made anew, empty, from an old copy of the directory.
fn lost_vote(status: &Status, nodes: &[Node]) -> Option<Vec<ReplicaId>> {
    let is = |replica: u64| move |member: &&Member| member.replica_id.0 == replica;
    let mut running = nodes
        .iter()
        .filter(|node| node.catalog_replica_started && !node.removed);
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
        Some(keep.chain([ReplicaId(node.catalog_replica_id)]).collect())
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
            catalog_replica_id: replica_id,
            catalog_replica_started: true,
            past_lives: past.iter().map(past_life).collect(),
            feature_level: 1,
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
        assert_eq!(lost_vote(&status, &nodes), Some([1, 2, 9].map(ReplicaId).to_vec()));
    }

    #[test]
    fn learners_that_were_lost_before_they_voted_are_let_go_of() {
        let status = status(
            vec![member(1, "a")],
            vec![member(3, "c"), member(9, "c"), member(4, "d")],
        );
        let nodes = [node("a", 1, &[]), node("c", 9, &[3]), node("d", 4, &[])];
        assert_eq!(lost_learners(&status, &nodes), [ReplicaId(3)]);
        let mut gone = nodes;
        gone[2].removed = true;
        assert_eq!(
            lost_learners(&status, &gone),
            [3, 4].map(ReplicaId),
            "and of nodes that left"
        );
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
