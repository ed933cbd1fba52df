//! What a node that is not yet in a cluster does next, decided from what it has heard. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, PlannedMember, ProbeAnswer};
use crate::hex::Id;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is a cluster: ask its catalog leader.
    Join { cluster_id: Id },
    /// This node is the founder, and everybody is there. No id: draw one.
    Found { cluster_id: Option<Id>, plan: Plan },
    /// Not yet.
    Wait(Waiting),
}

/// Why a node waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Names of the nodes that have to do or change something; may be empty.
    pub(crate) on: Vec<String>,
    pub(crate) why: String,
}

fn wait(on: Vec<String>, why: impl Into<String>) -> Step {
    Step::Wait(Waiting { on, why: why.into() })
}

/// Decides from how the node sees itself, the configured list, and everything that others answered, by name.
pub(crate) fn decide(own: &ProbeAnswer, bootstrap: &[String], others: &BTreeMap<String, ProbeAnswer>) -> Step {
    let known = || std::iter::once(own).chain(others.values());
    let cluster_ids: BTreeSet<Id> = known().filter_map(|answer| answer.cluster_id).collect();
    if cluster_ids.len() > 1 {
        return wait_for_one_cluster(own, others);
    }
    let cluster_id = cluster_ids.first().copied();
    if let (Some(cluster_id), true) = (cluster_id, others.values().any(|other| other.established)) {
        return Step::Join { cluster_id };
    }
    let Some(founder) = bootstrap.first() else {
        return wait(
            Vec::new(),
            "no reachable node is in a cluster; is one of the seeds running?",
        );
    };
    if *founder != own.name {
        return wait(
            vec![founder.clone()],
            "it has to found the cluster, or a node in a cluster has to be reachable",
        );
    }
    let listed = |name: &String| if *name == own.name { Some(own) } else { others.get(name) };
    let missing: Vec<String> = bootstrap
        .iter()
        .filter(|name| listed(name).is_none())
        .cloned()
        .collect();
    if !missing.is_empty() {
        return wait(missing, "a cluster is founded only when every bootstrap node answers");
    }
    let members: Vec<&ProbeAnswer> = bootstrap.iter().filter_map(listed).collect();
    found_with(own, &members, cluster_id)
}

fn wait_for_one_cluster(own: &ProbeAnswer, others: &BTreeMap<String, ProbeAnswer>) -> Step {
    let mine = own.cluster_id;
    let differs = |other: &&ProbeAnswer| other.cluster_id.is_some() && other.cluster_id != mine;
    let on = others
        .values()
        .filter(differs)
        .map(|other| other.name.clone())
        .collect();
    wait(
        on,
        "reachable nodes belong to different clusters; correct the seeds or the cluster name",
    )
}

/// Every listed node has answered, and no cluster has history.
fn found_with(own: &ProbeAnswer, members: &[&ProbeAnswer], cluster_id: Option<Id>) -> Step {
    let in_the_way = |member: &&&ProbeAnswer| match member.cluster_id {
        None => !member.empty,
        Some(_) => member.plan.as_ref().is_none_or(|plan| plan.founder != own.name),
    };
    let on: Vec<String> = members
        .iter()
        .filter(in_the_way)
        .map(|member| member.name.clone())
        .collect();
    if !on.is_empty() {
        return wait(
            on,
            "a bootstrap node has data of its own and cannot take part in founding",
        );
    }
    let plan = make_plan(own, members);
    Step::Found { cluster_id, plan }
}

/// Keeps the replica ids of incarnations that were planned before; everyone else gets a fresh one.
fn make_plan(own: &ProbeAnswer, members: &[&ProbeAnswer]) -> Plan {
    let before: Vec<&PlannedMember> = members
        .iter()
        .filter_map(|member| member.plan.as_ref())
        .flat_map(|plan| &plan.members)
        .collect();
    let mut last_replica_id = before.iter().map(|member| member.replica_id).max().unwrap_or(0);
    let planned = members.iter().map(|member| {
        let same = |old: &&&PlannedMember| old.name == member.name && old.incarnation == member.incarnation;
        let replica_id = before.iter().find(same).map(|old| old.replica_id);
        PlannedMember {
            name: member.name.clone(),
            incarnation: member.incarnation,
            address: member.address.clone(),
            rack: member.rack.clone(),
            replica_id: replica_id.unwrap_or_else(|| {
                last_replica_id += 1;
                last_replica_id
            }),
        }
    });
    Plan {
        founder: own.name.clone(),
        members: planned.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{adopted, empty, id, plan_abc, planned};
    use super::*;

    fn abc() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    fn others<const N: usize>(answers: [ProbeAnswer; N]) -> BTreeMap<String, ProbeAnswer> {
        answers
            .into_iter()
            .map(|answer| (answer.name.clone(), answer))
            .collect()
    }

    fn running(name: &str, incarnation: u8) -> ProbeAnswer {
        ProbeAnswer {
            established: true,
            ..adopted(name, incarnation)
        }
    }

    fn waits_on(step: Step) -> Vec<String> {
        match step {
            Step::Wait(waiting) => waiting.on,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    #[test]
    fn the_first_listed_founds_when_every_listed_node_answers_empty() {
        let step = decide(&empty("a", 1), &abc(), &others([empty("b", 2), empty("c", 3)]));
        let plan = plan_abc();
        assert_eq!(step, Step::Found { cluster_id: None, plan });
    }

    #[test]
    fn one_missing_node_is_waited_for_by_name() {
        let step = decide(&empty("a", 1), &abc(), &others([empty("b", 2)]));
        assert_eq!(waits_on(step), ["c"]);
    }

    #[test]
    fn the_others_wait_for_the_founder() {
        let step = decide(&empty("b", 2), &abc(), &others([empty("a", 1), empty("c", 3)]));
        assert_eq!(waits_on(step), ["a"]);
    }

    #[test]
    fn without_a_list_a_node_only_joins() {
        let step = decide(&empty("d", 4), &[], &others([empty("a", 1)]));
        assert_eq!(waits_on(step), [""; 0]);
        let step = decide(&empty("d", 4), &[], &others([running("a", 1)]));
        assert_eq!(step, Step::Join { cluster_id: id(0xcc) });
    }

    #[test]
    fn a_wiped_founder_joins_whatever_runs_and_founds_nothing() {
        let step = decide(&empty("a", 9), &abc(), &others([running("b", 2), running("c", 3)]));
        assert_eq!(step, Step::Join { cluster_id: id(0xcc) });
        let step = decide(&empty("a", 9), &abc(), &others([running("b", 2), empty("c", 8)]));
        assert_eq!(step, Step::Join { cluster_id: id(0xcc) });
    }

    #[test]
    fn a_wiped_founder_that_misses_the_one_left_over_waits() {
        let step = decide(&empty("a", 9), &abc(), &others([empty("b", 8)]));
        assert_eq!(waits_on(step), ["c"]);
    }

    #[test]
    fn somebody_outside_the_list_who_knows_a_cluster_prevents_founding() {
        let step = decide(
            &empty("a", 1),
            &abc(),
            &others([empty("b", 2), empty("c", 3), running("z", 7)]),
        );
        assert_eq!(step, Step::Join { cluster_id: id(0xcc) });
    }

    #[test]
    fn a_restarted_founder_goes_on_with_its_own_id_and_plan() {
        let step = decide(&adopted("a", 1), &abc(), &others([adopted("b", 2), empty("c", 3)]));
        let plan = plan_abc();
        let cluster_id = Some(id(0xcc));
        assert_eq!(step, Step::Found { cluster_id, plan });
    }

    #[test]
    fn a_member_wiped_in_between_gets_a_fresh_replica_id_under_the_same_cluster_id() {
        let step = decide(&adopted("a", 1), &abc(), &others([adopted("b", 2), empty("c", 9)]));
        let mut plan = plan_abc();
        plan.members[2] = planned("c", 9, 4);
        let cluster_id = Some(id(0xcc));
        assert_eq!(step, Step::Found { cluster_id, plan });
    }

    #[test]
    fn a_founder_wiped_in_between_takes_the_id_over_only_if_all_answer_without_history() {
        let step = decide(&empty("a", 9), &abc(), &others([adopted("b", 2), empty("c", 3)]));
        let members = vec![planned("a", 9, 4), planned("b", 2, 2), planned("c", 3, 3)];
        let founder = "a".to_owned();
        let cluster_id = Some(id(0xcc));
        assert_eq!(
            step,
            Step::Found {
                cluster_id,
                plan: Plan { founder, members }
            }
        );
        let step = decide(&empty("a", 9), &abc(), &others([adopted("b", 2)]));
        assert_eq!(waits_on(step), ["c"]);
    }

    #[test]
    fn two_cluster_ids_in_sight_stop_everything() {
        let foreign = ProbeAnswer {
            cluster_id: Some(id(0xdd)),
            ..running("z", 7)
        };
        let step = decide(
            &adopted("a", 1),
            &abc(),
            &others([adopted("b", 2), adopted("c", 3), foreign]),
        );
        assert_eq!(waits_on(step), ["z"]);
    }

    #[test]
    fn a_listed_node_with_data_but_no_cluster_is_in_the_way() {
        let full = ProbeAnswer {
            empty: false,
            ..empty("c", 3)
        };
        let step = decide(&empty("a", 1), &abc(), &others([empty("b", 2), full]));
        assert_eq!(waits_on(step), ["c"]);
    }

    #[test]
    fn a_node_alone_on_its_list_founds_alone() {
        let step = decide(&empty("a", 1), &["a".to_owned()], &BTreeMap::new());
        assert!(matches!(step, Step::Found { cluster_id: None, plan } if plan.members.len() == 1));
    }
}
