//! Brings the members of each group to what the catalog wants, group by group.
//!
//! The catalog says which replicas a partition should have, the group's own membership says which it has. The group's
//! leader brings the one to the other: it alone can change the membership, and it sees at once what became of a step.
//! Each pass takes one step of each group, from what is committed then; so whoever leads next goes on where this one
//! ended. It makes no difference why a replica is to come or to go: because one is dead, its node is away or leaves, the
//! topic gets more replicas or fewer, or an operator or the balance moved it.
//!
//! The steps: a dead replica's place goes to a new id on the same node; who is wanted and no member becomes a learner; when
//! all of them have caught up, a leader that is to go hands over, and one change of voters swaps all at once; what is left
//! of the membership is cleared; who is gone is retired, and only now may its data be deleted.
//!
//! A dead replica is known by its node: it has another incarnation, or it has reported the replica.
//!
//! Deliberately absent: deciding which node gets a replica (`planner`), and who leads (`leadership`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use highwater_catalog::{Catalog, Command, Refusal, Replica, Reply};
use highwater_partition::log::{GroupId, ReplicaId};
use highwater_partition::{Member, Role, Status};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::catalog::member;
use crate::controller::{COMMAND_TIMEOUT, Controller, RETRY_PAUSE};
use crate::dead_replicas::Dead;
use crate::replicas::{CATALOG_GROUP, Hosted};

/// How often a learner is looked at: it catches up without a sign.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(500);
/// Groups in which a step is being taken at the same time.
const STEPS_AT_ONCE: usize = 8;

/// What the catalog wants of a group.
#[derive(Debug, Clone, Default)]
struct Target {
    replicas: Vec<Replica>,
    /// Those of them that can never run again, on nodes that are to keep a replica.
    dead: Vec<ReplicaId>,
    /// Former replicas, dead or not.
    replaced: Vec<ReplicaId>,
}

/// What brings a group nearer to its target.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Wait for a learner, or for the membership to be committed.
    Wait,
    ChangeVoters(Vec<ReplicaId>),
    Replace(ReplicaId),
    AddLearner(Member),
    /// The leader is to go: one of these leads on.
    HandOver(Vec<ReplicaId>),
    RemoveLearners(Vec<ReplicaId>),
    Retire(ReplicaId),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ids: &[ReplicaId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ");
        match self {
            Step::Wait => f.write_str("waiting"),
            Step::ChangeVoters(voters) => write!(f, "the voters become {}", list(voters)),
            Step::Replace(dead) => write!(f, "{} is dead and gives its place to a new one", dead.0),
            Step::AddLearner(member) => write!(f, "{} on {} begins to learn", member.replica_id.0, member.node),
            Step::HandOver(to) => write!(f, "the leader is to go, and hands over to one of {}", list(to)),
            Step::RemoveLearners(learners) => write!(f, "{} leave the group", list(learners)),
            Step::Retire(gone) => write!(f, "{} is retired", gone.0),
        }
    }
}

/// What a leader knows of its group.
struct Led<'a> {
    own: ReplicaId,
    status: &'a Status,
    is_caught_up: &'a dyn Fn(ReplicaId) -> bool,
}

fn has(members: &[Member], id: ReplicaId) -> bool {
    members.iter().any(|member| member.replica_id == id)
}

impl Target {
    fn of(catalog: &Catalog, group: GroupId) -> Option<Target> {
        let (_, partition) = catalog.partition_of_group(group.0)?;
        let is_to_stay = |replica: &&Replica| {
            let node = catalog.node(&replica.node);
            node.is_some_and(|node| !node.leaving && !node.removed)
        };
        let ids = |replica: &Replica| ReplicaId(replica.replica_id);
        let dead = partition.replicas.iter().filter(|it| catalog.is_dead(it));
        Some(Target {
            dead: dead.filter(is_to_stay).map(ids).collect(),
            replaced: partition.replaced.iter().map(ids).collect(),
            replicas: partition.replicas.clone(),
        })
    }

    fn ids(&self) -> Vec<ReplicaId> {
        self.replicas.iter().map(|it| ReplicaId(it.replica_id)).collect()
    }

    /// The next step of a group in this state; None if there is nothing to do.
    fn next_step(&self, led: &Led<'_>) -> Option<Step> {
        let status = led.status;
        if let Some(change) = &status.voter_change {
            return Some(Step::ChangeVoters(change.to.clone()));
        }
        if let Some(dead) = self.dead.first() {
            // Replacements that died before they ever voted would pile up until no more may be replaced.
            let replace = || Some(Step::Replace(*dead));
            return self.next_farewell(status).or_else(replace);
        }
        let is_member = |it: &Replica| {
            let id = ReplicaId(it.replica_id);
            has(&status.voters, id) || has(&status.learners, id)
        };
        if let Some(new) = self.replicas.iter().find(|it| !is_member(it)) {
            return Some(Step::AddLearner(member(new)));
        }
        self.next_change_of_voters(led).or_else(|| self.next_farewell(status))
    }

    /// Towards exactly the wanted voters.
    fn next_change_of_voters(&self, led: &Led<'_>) -> Option<Step> {
        let wanted = self.ids();
        let voters = &led.status.voters;
        let is_voter = |id: &ReplicaId| has(voters, *id);
        if voters.len() == wanted.len() && wanted.iter().all(is_voter) {
            return None;
        }
        let mut new_voters = wanted.iter().filter(|id| !is_voter(id));
        if !new_voters.all(|id| (led.is_caught_up)(*id)) {
            return Some(Step::Wait);
        }
        let staying: Vec<ReplicaId> = wanted.iter().copied().filter(is_voter).collect();
        if !wanted.contains(&led.own) && !staying.is_empty() {
            return Some(Step::HandOver(staying));
        }
        Some(Step::ChangeVoters(wanted))
    }

    /// Lets go of who has been replaced and does not vote.
    fn next_farewell(&self, status: &Status) -> Option<Step> {
        let mut replaced = self.replaced.iter();
        let first = replaced.find(|id| !has(&status.voters, **id))?;
        let learners = status.learners.iter().map(|learner| learner.replica_id);
        let left: Vec<ReplicaId> = learners.filter(|id| self.replaced.contains(id)).collect();
        if !left.is_empty() {
            return Some(Step::RemoveLearners(left));
        }
        // A membership that a later leader takes back would hold the former one again, and nobody would go on.
        if !status.is_membership_committed {
            return Some(Step::Wait);
        }
        Some(Step::Retire(*first))
    }
}

impl Controller {
    /// Brings the groups that are led here to what the catalog wants.
    pub(crate) async fn keep_groups(self: Arc<Self>) {
        let mut changes = self.registry.changes();
        let mut progress = self.host.progress();
        loop {
            changes.mark_unchanged();
            progress.mark_unchanged();
            let unfinished = self.step_groups().await;
            tokio::select! {
                biased;
                changed = progress.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(CATCH_UP_INTERVAL), if unfinished => {}
            }
        }
    }

    /// One step of each group that is led here; whether any has further to go.
    async fn step_groups(&self) -> bool {
        let led = self.registry.all().into_iter().filter_map(|hosted| {
            let status = hosted.status();
            let is_led = hosted.group_id != CATALOG_GROUP && status.role == Role::Leader;
            let target = self.host.read(|catalog| Target::of(catalog, hosted.group_id))?;
            let is_caught_up = |id| hosted.has_caught_up(id);
            let led = Led {
                own: hosted.replica_id,
                status: &status,
                is_caught_up: &is_caught_up,
            };
            let step = is_led.then(|| target.next_step(&led))??;
            // Who leads in vain can change nothing: what it proposed would wait, and be there if the others came back.
            let may_step = !hosted.leads_in_vain();
            Some((hosted, if may_step { step } else { Step::Wait }))
        });
        let steps: Vec<(Arc<Hosted>, Step)> = led.collect();
        let unfinished = !steps.is_empty();
        let taken = futures::stream::iter(steps).map(|(hosted, step)| async move {
            let group = hosted.group_id.0;
            // A change is answered when it is committed; what a lost majority leaves undone is gone on with later.
            let taken = timeout(COMMAND_TIMEOUT, self.take_step(&hosted, step)).await;
            match taken.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
                Ok(()) => true,
                Err(why) => {
                    tracing::info!(group, why, "a group's members are not as the catalog wants them yet");
                    false
                }
            }
        });
        let taken: Vec<bool> = taken.buffer_unordered(STEPS_AT_ONCE).collect().await;
        if taken.contains(&false) {
            sleep(RETRY_PAUSE).await;
        }
        unfinished
    }

    async fn take_step(&self, hosted: &Hosted, step: Step) -> Result<(), String> {
        let group_id = hosted.group_id.0;
        if !matches!(step, Step::Wait) {
            tracing::info!(group = group_id, "the members change: {step}");
        }
        match step {
            Step::Wait => Ok(()),
            Step::ChangeVoters(voters) => hosted.change_voters(voters).await,
            Step::AddLearner(member) => hosted.add_learner(member).await,
            Step::HandOver(to) => hosted.hand_over_to(|voter| to.contains(&voter.replica_id)).await,
            Step::RemoveLearners(learners) => hosted.remove_learners(&learners).await,
            Step::Replace(ReplicaId(replica_id)) => self.decide(Command::ReplaceReplica { group_id, replica_id }).await,
            Step::Retire(ReplicaId(replica_id)) => self.decide(Command::RetireReplica { group_id, replica_id }).await,
        }
    }

    /// Tells the catalog of each replica here that can never run again, until it has noted it.
    pub(crate) async fn keep_reported(self: Arc<Self>, mut dead: mpsc::UnboundedReceiver<Dead>) {
        while let Some((GroupId(group_id), ReplicaId(replica_id))) = dead.recv().await {
            let report = Command::ReportDeadReplica { group_id, replica_id };
            while let Err(why) = self.decide(report.clone()).await {
                tracing::debug!(group_id, why, "a dead replica is not reported yet");
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    pub(crate) async fn decide(&self, command: Command) -> Result<(), String> {
        match self.client.command(&command, Instant::now() + COMMAND_TIMEOUT).await {
            // Of a deleted group there is nothing left to do.
            Ok(Reply::Done | Reply::Refused(Refusal::ReplicaNotFound { .. })) => Ok(()),
            Ok(other) => Err(format!("the catalog answered {other:?}")),
            Err(problem) => Err(problem.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_partition::{VoterChange, Watermark};

    use super::*;

    fn members(ids: &[u64]) -> Vec<Member> {
        let member = |id: &u64| Member {
            replica_id: ReplicaId(*id),
            node: format!("node {id}"),
        };
        ids.iter().map(member).collect()
    }

    fn ids(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn status(voters: &[u64], learners: &[u64]) -> Status {
        Status {
            role: Role::Leader,
            term: 1,
            leader: None,
            voters: members(voters),
            is_membership_committed: true,
            voter_change: None,
            learners: members(learners),
            log_end: 0,
            watermark: Watermark::default(),
            committed_index: 1,
            damage: Vec::new(),
            damage_everywhere: Vec::new(),
        }
    }

    fn target(replicas: &[u64], dead: &[u64], replaced: &[u64]) -> Target {
        let replica = |id: &u64| Replica {
            replica_id: *id,
            node: format!("node {id}"),
            started: true,
            reported_dead: dead.contains(id),
            continues: None,
        };
        Target {
            replicas: replicas.iter().map(replica).collect(),
            dead: ids(dead),
            replaced: ids(replaced),
        }
    }

    /// What replica 1 does if it leads, and everybody has caught up.
    fn next(target: &Target, status: &Status) -> Option<Step> {
        next_of(1, target, status, &|_| true)
    }

    fn next_of(own: u64, target: &Target, status: &Status, is_caught_up: &dyn Fn(ReplicaId) -> bool) -> Option<Step> {
        target.next_step(&Led {
            own: ReplicaId(own),
            status,
            is_caught_up,
        })
    }

    #[test]
    fn a_dead_replica_is_replaced_learns_votes_and_is_retired() {
        let whole = target(&[1, 2, 3], &[], &[]);
        assert_eq!(next(&whole, &status(&[1, 2, 3], &[])), None);
        let lost = target(&[1, 2, 3], &[3], &[]);
        assert_eq!(next(&lost, &status(&[1, 2, 3], &[])), Some(Step::Replace(ReplicaId(3))));
        let replaced = target(&[1, 2, 9], &[], &[3]);
        let learner = members(&[9]).remove(0);
        assert_eq!(
            next(&replaced, &status(&[1, 2, 3], &[])),
            Some(Step::AddLearner(learner))
        );
        let learning = status(&[1, 2, 3], &[9]);
        assert_eq!(next_of(1, &replaced, &learning, &|_| false), Some(Step::Wait));
        assert_eq!(next(&replaced, &learning), Some(Step::ChangeVoters(ids(&[1, 2, 9]))));
        let mut swapped = status(&[1, 2, 9], &[]);
        swapped.is_membership_committed = false;
        assert_eq!(next(&replaced, &swapped), Some(Step::Wait));
        swapped.is_membership_committed = true;
        assert_eq!(next(&replaced, &swapped), Some(Step::Retire(ReplicaId(3))));
    }

    #[test]
    fn a_replacement_that_dies_before_it_votes_leaves_the_group_with_the_dead_one() {
        let again = target(&[1, 2, 10], &[], &[3, 9]);
        let step = next(&again, &status(&[1, 2, 3], &[9, 10]));
        assert_eq!(step, Some(Step::ChangeVoters(ids(&[1, 2, 10]))));
        let step = next(&again, &status(&[1, 2, 10], &[9]));
        assert_eq!(step, Some(Step::RemoveLearners(ids(&[9]))));
        assert_eq!(
            next(&again, &status(&[1, 2, 10], &[])),
            Some(Step::Retire(ReplicaId(3)))
        );
    }

    #[test]
    fn former_replicas_that_never_voted_are_retired_before_another_one_is_replaced() {
        let again = target(&[1, 2, 10], &[10], &[3, 9]);
        let step = next(&again, &status(&[1, 2, 3], &[9, 10]));
        assert_eq!(step, Some(Step::RemoveLearners(ids(&[9]))));
        let step = next(&again, &status(&[1, 2, 3], &[10]));
        assert_eq!(step, Some(Step::Retire(ReplicaId(9))));
        let rest = target(&[1, 2, 10], &[10], &[3]);
        let step = next(&rest, &status(&[1, 2, 3], &[10]));
        assert_eq!(
            step,
            Some(Step::Replace(ReplicaId(10))),
            "3 votes until another one does"
        );
    }

    #[test]
    fn a_half_done_change_is_finished_first() {
        let mut between = status(&[1, 2, 3, 9], &[]);
        between.voter_change = Some(VoterChange {
            from: ids(&[1, 2, 3]),
            to: ids(&[1, 2, 9]),
        });
        let step = next(&target(&[1, 2, 9], &[9], &[3]), &between);
        assert_eq!(step, Some(Step::ChangeVoters(ids(&[1, 2, 9]))));
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_to_one_that_stays_before_the_voters_change() {
        let moved = target(&[9, 2, 3], &[], &[1]);
        let learning = status(&[1, 2, 3], &[9]);
        let step = next_of(1, &moved, &learning, &|_| false);
        assert_eq!(step, Some(Step::Wait), "it leads until the new one has caught up");
        assert_eq!(next(&moved, &learning), Some(Step::HandOver(ids(&[2, 3]))));
        let step = next_of(2, &moved, &learning, &|_| true);
        assert_eq!(step, Some(Step::ChangeVoters(ids(&[9, 2, 3]))));
    }

    #[test]
    fn a_leader_of_which_nobody_stays_goes_with_the_change() {
        let moved = target(&[9], &[], &[1]);
        assert_eq!(next(&moved, &status(&[1], &[9])), Some(Step::ChangeVoters(ids(&[9]))));
    }

    #[test]
    fn more_replicas_vote_together_once_all_have_caught_up() {
        let grown = target(&[1, 8, 9], &[], &[]);
        let step = next(&grown, &status(&[1], &[8]));
        assert_eq!(step, Some(Step::AddLearner(members(&[9]).remove(0))));
        let learning = status(&[1], &[8, 9]);
        let step = next_of(1, &grown, &learning, &|id| id == ReplicaId(8));
        assert_eq!(step, Some(Step::Wait), "two voters are less safe from a loss than one");
        assert_eq!(next(&grown, &learning), Some(Step::ChangeVoters(ids(&[1, 8, 9]))));
        assert_eq!(next(&grown, &status(&[1, 8, 9], &[])), None);
    }

    #[test]
    fn fewer_replicas_vote_and_the_others_are_retired() {
        let shrunk = target(&[1], &[], &[2, 3]);
        assert_eq!(
            next(&shrunk, &status(&[1, 2, 3], &[])),
            Some(Step::ChangeVoters(ids(&[1])))
        );
        assert_eq!(next(&shrunk, &status(&[1], &[])), Some(Step::Retire(ReplicaId(2))));
    }
}
