//! Plans, one situation at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::planning::{MOVES_IN_FLIGHT_MAX, MOVES_TO_NODE_MAX, View};

/// All members are usable, except those that are gone.
fn view<'a>(catalog: &'a Catalog, gone: &[&'a str]) -> View<'a> {
    let gone: BTreeSet<&str> = gone.iter().copied().collect();
    let usable = catalog.members().map(|node| node.name.as_str());
    View {
        usable: usable.filter(|name| !gone.contains(name)).collect(),
        gone,
    }
}

fn plan(fixture: &Fixture, gone: &[&str]) -> Vec<Command> {
    fixture.catalog.plan_moves(&view(&fixture.catalog, gone), |_| true)
}

/// Carries plans out until there are no more.
fn carry_out(fixture: &mut Fixture, gone: &[&str]) {
    for _ in 0..200 {
        fixture.settle();
        let commands = plan(fixture, gone);
        if commands.is_empty() {
            return;
        }
        commands.into_iter().for_each(|command| fixture.done(command));
    }
    panic!("the plans do not come to an end");
}

fn loads(fixture: &Fixture, count: impl Fn(&Partition, &str) -> bool) -> Vec<usize> {
    let partitions = || fixture.catalog.all_topics().flat_map(|topic| &topic.partitions);
    let load = |name: &str| partitions().filter(|partition| count(partition, name)).count();
    fixture.catalog.members().map(|node| load(&node.name)).collect()
}

fn replica_counts(fixture: &Fixture) -> Vec<usize> {
    loads(fixture, |partition, node| nodes_of(partition).contains(&node))
}

fn leader_counts(fixture: &Fixture) -> Vec<usize> {
    loads(fixture, |partition, node| nodes_of(partition)[0] == node)
}

// ------------------------------------------------------------------------------------------------------------- moves

#[test]
fn a_cluster_that_is_as_it_should_be_has_no_plan() {
    let mut fixture = Fixture::level_2(&["r0", "r1", "r2"]);
    fixture.topic(create("orders", 9, 3));
    fixture.settle();
    assert_eq!(plan(&fixture, &[]), []);
}

#[test]
fn nothing_is_planned_before_every_node_supports_it() {
    let mut fixture = Fixture::founded(4);
    fixture.topic(create("orders", 8, 1));
    assert_eq!(plan(&fixture, &["n0"]), []);
}

#[test]
fn replicas_leave_gone_nodes_before_leaving_ones() {
    let mut fixture = Fixture::level_2(&["", "", "", ""]);
    let topic = fixture.topic(create("orders", 1, 3));
    fixture.settle();
    let replicas = &topic.partitions[0].replicas;
    let spare = "n3";
    fixture.done(decommission(&replicas[0].node, true));
    let expected = move_to(1, replicas[1].replica_id, spare);
    assert_eq!(plan(&fixture, &[&replicas[1].node]), [expected]);
    assert_eq!(plan(&fixture, &[]), [move_to(1, replicas[0].replica_id, spare)]);
}

#[test]
fn without_a_spare_node_nothing_is_removed() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 3, 3));
    fixture.settle();
    assert_eq!(plan(&fixture, &["n1"]), []);
}

#[test]
fn a_new_replica_whose_node_is_gone_moves_on() {
    let mut fixture = Fixture::level_2(&["", "", "", "", ""]);
    let topic = fixture.topic(create("orders", 1, 3));
    fixture.settle();
    fixture.done(move_to(1, topic.partitions[0].replicas[2].replica_id, "n3"));
    let moved = fixture.catalog.partition_of_group(1).unwrap().1.replicas[2].clone();
    assert_eq!(plan(&fixture, &["n3"]), [move_to(1, moved.replica_id, "n4")]);
    assert_eq!(plan(&fixture, &[]), [], "it is under way");
    fixture.done(decommission("n0", true));
    assert_eq!(plan(&fixture, &[]), [], "whoever only leaves waits for it");
    fixture.settle();
    assert_eq!(plan(&fixture, &[]).len(), 1);
}

#[test]
fn a_new_replica_that_died_on_a_leaving_node_moves_on() {
    let mut fixture = Fixture::level_2(&["", "", "", ""]);
    let topic = fixture.topic(create("orders", 1, 3));
    fixture.settle();
    let first = topic.partitions[0].replicas[0].clone();
    fixture.done(replicas::report(1, first.replica_id));
    fixture.done(replicas::replace(1, first.replica_id));
    fixture.done(decommission(&first.node, true));
    assert_eq!(plan(&fixture, &[]), [], "the new one may come to vote yet");
    let new = fixture.catalog.partition_of_group(1).unwrap().1.replicas[0].replica_id;
    fixture.done(replicas::report(1, new));
    assert_eq!(plan(&fixture, &[]), [move_to(1, new, "n3")]);
}

#[test]
fn groups_without_a_leader_are_left_alone() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 6, 1));
    fixture.settle();
    fixture.done(decommission("n0", true));
    let only_4 = |group| group == 4;
    let planned = fixture.catalog.plan_moves(&view(&fixture.catalog, &[]), only_4);
    let groups: Vec<u64> = fixture.catalog.groups_on("n0").map(|placed| placed.group_id).collect();
    assert_eq!((groups.as_slice(), planned.len()), ([1, 4].as_slice(), 1));
    assert!(matches!(planned[0], Command::MoveReplica { group_id: 4, .. }));
    assert_eq!(fixture.catalog.plan_moves(&view(&fixture.catalog, &[]), |_| false), []);
}

#[test]
fn nodes_that_are_away_or_not_ready_get_nothing() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 1, 1));
    fixture.settle();
    fixture.done(decommission("n0", true));
    let mut away = view(&fixture.catalog, &[]);
    away.usable.remove("n1");
    let planned = fixture.catalog.plan_moves(&away, |_| true);
    assert!(
        matches!(&planned[..], [Command::MoveReplica { node, .. }] if node == "n2"),
        "{planned:?}"
    );
}

#[test]
fn only_so_much_moves_at_a_time() {
    let mut fixture = Fixture::level_2(&[""; 3]);
    fixture.topic(create("orders", 60, 1));
    fixture.settle();
    fixture.join(3, "");
    assert_eq!(plan(&fixture, &[]).len(), MOVES_TO_NODE_MAX);
    (4..12).for_each(|number| fixture.join(number, ""));
    let moves = plan(&fixture, &[]);
    assert_eq!(moves.len(), MOVES_IN_FLIGHT_MAX);
    moves.into_iter().for_each(|command| fixture.done(command));
    fixture.done(decommission("n0", true));
    assert_eq!(plan(&fixture, &[]), [], "as much as may be is under way");
}

#[test]
fn partitions_spread_over_racks_that_came_later() {
    let mut fixture = Fixture::level_2(&["r0", "r0"]);
    fixture.topic(create("orders", 4, 2));
    fixture.join(2, "r1");
    carry_out(&mut fixture, &[]);
    for partition in &fixture.catalog.topic("acme", "orders").unwrap().partitions {
        assert!(nodes_of(partition).contains(&"n2"), "{partition:?}");
    }
}

#[test]
fn new_nodes_get_their_share_of_replicas_and_leaders() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 20, 3));
    fixture.join(3, "");
    fixture.join(4, "");
    carry_out(&mut fixture, &[]);
    assert_eq!(replica_counts(&fixture), [12; 5]);
    assert_eq!(leader_counts(&fixture), [4; 5]);
}

#[test]
fn balancing_can_be_switched_off_but_leaving_goes_on() {
    let mut fixture = Fixture::level_2(&["", ""]);
    fixture.topic(create("orders", 6, 1));
    fixture.settle();
    fixture.join(2, "");
    assert!(!plan(&fixture, &[]).is_empty());
    fixture.done(Command::UpdateSettings {
        timer_step: None,
        replace_after_ms: None,
        catch_up_bytes_per_second: None,
        balance: Some(false),
        groups_kept_ms: None,
    });
    assert_eq!(plan(&fixture, &[]), []);
    fixture.done(decommission("n0", true));
    assert_eq!(plan(&fixture, &[]).len(), 3);
}

#[test]
fn preferred_leaders_go_to_the_leader_rack() {
    let mut fixture = Fixture::level_2(&["r0", "r1", "r1"]);
    fixture.topic(create("orders", 6, 3));
    let rack = Change {
        leader_rack: Some("r1"),
        ..Change::default()
    };
    fixture.topic(update("orders", rack));
    carry_out(&mut fixture, &[]);
    assert_eq!(leader_counts(&fixture), [0, 3, 3]);
}

#[test]
fn a_drained_node_keeps_its_preferences_for_afterwards() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 6, 3));
    fixture.done(drain("n0", true));
    carry_out(&mut fixture, &[]);
    assert_eq!(leader_counts(&fixture), [2, 2, 2]);
}

// ----------------------------------------------------------------------------------------------------------- leaders

fn wanted(fixture: &Fixture, away: &[&str]) -> BTreeMap<u64, String> {
    let usable = view(&fixture.catalog, away).usable;
    let wanted = fixture.catalog.wanted_leaders(&usable);
    let node = |group_id: u64, replica_id: u64| {
        let partition = fixture.catalog.partition_of_group(group_id).unwrap().1;
        let replica = partition.replicas.iter().find(|it| it.replica_id == replica_id);
        replica.unwrap().node.clone()
    };
    wanted
        .into_iter()
        .map(|(group, replica)| (group, node(group, replica)))
        .collect()
}

fn led(wanted: &BTreeMap<u64, String>, node: &str) -> usize {
    wanted.values().filter(|leader| *leader == node).count()
}

#[test]
fn preferred_leaders_lead_and_others_share_what_cannot_be_led_by_them() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 12, 3));
    assert_eq!(wanted(&fixture, &[]), BTreeMap::new(), "no replica has run");
    fixture.settle();
    let all = wanted(&fixture, &[]);
    assert_eq!(["n0", "n1", "n2"].map(|node| led(&all, node)), [4, 4, 4]);
    let away = wanted(&fixture, &["n1"]);
    assert_eq!(["n0", "n1", "n2"].map(|node| led(&away, node)), [6, 0, 6]);
    let is_kept = |(group, leader): (&u64, &String)| leader == "n1" || away[group] == *leader;
    assert!(all.iter().all(is_kept), "whoever can lead goes on");
    fixture.done(drain("n1", true));
    assert_eq!(wanted(&fixture, &[]), away, "drained is like away");
    fixture.done(drain("n1", false));
    assert_eq!(wanted(&fixture, &[]), all);
}

#[test]
fn dead_replicas_and_those_on_leaving_nodes_do_not_lead() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    let topic = fixture.topic(create("orders", 1, 2));
    fixture.settle();
    let [first, second] = &topic.partitions[0].replicas[..] else {
        panic!("{topic:?}")
    };
    fixture.done(decommission(&first.node, true));
    assert_eq!(wanted(&fixture, &[])[&1], second.node);
    fixture.done(replicas::report(1, second.replica_id));
    assert_eq!(wanted(&fixture, &[]), BTreeMap::new());
}

#[test]
fn leaders_stand_in_the_leader_rack_while_one_can() {
    let mut fixture = Fixture::level_2(&["r0", "r1", "r2"]);
    fixture.topic(create("orders", 4, 3));
    fixture.settle();
    let rack = Change {
        leader_rack: Some("r1"),
        ..Change::default()
    };
    fixture.topic(update("orders", rack));
    assert_eq!(led(&wanted(&fixture, &[]), "n1"), 4);
    assert_eq!(wanted(&fixture, &["n1"]).len(), 4, "better elsewhere than nowhere");
}

#[test]
fn ten_thousand_groups_have_their_leaders_shared_by_those_who_can() {
    let mut fixture = Fixture::level_2(&[""; 9]);
    let mut catalog = fixture.catalog.clone();
    let mut index = fixture.index;
    let mut apply = |command: Command| {
        index += 1;
        catalog.apply(index, &command)
    };
    for number in 0..10 {
        let Reply::Topic(topic) = apply(create(&format!("t{number}"), 1_000, 3)) else {
            panic!("no topic")
        };
        let replicas = topic.partitions.iter().flat_map(|partition| {
            let id = |replica: &crate::Replica| (partition.group_id, replica.replica_id);
            partition.replicas.iter().map(id).collect::<Vec<_>>()
        });
        let replicas: Vec<(u64, u64)> = replicas.collect();
        for some in replicas.chunks(1_000) {
            assert_eq!(apply(replicas::started(some)), Reply::Done);
        }
    }
    fixture.catalog = catalog;
    let leaders = wanted(&fixture, &["n4"]);
    assert_eq!(leaders.len(), 10_000);
    let mut counts: Vec<usize> = (0..9).map(|number| led(&leaders, &format!("n{number}"))).collect();
    counts.sort_unstable();
    let whole = [1_111; 6]; // nodes that share no group with n4
    assert_eq!(
        (counts[0], &counts[1..7], counts[7]),
        (0, &whole[..], counts[8]),
        "{counts:?}"
    );
    assert_eq!(plan(&fixture, &[]), []);
}

// ------------------------------------------------------------------------------------------------------------ voters

/// Catalog replicas of founders are 1, 2, … in the order of their names.
fn voters(fixture: &Fixture, now: &[u64], gone: &[&str]) -> Option<Vec<u64>> {
    fixture.catalog.plan_catalog_voters(now, &view(&fixture.catalog, gone))
}

#[test]
fn one_three_or_five_nodes_vote() {
    for (nodes, size) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)] {
        let fixture = Fixture::level_2(&vec![""; nodes]);
        let expected: Vec<u64> = (1..=size).collect();
        assert_eq!(voters(&fixture, &expected, &[]), None, "{nodes} nodes");
        let first = voters(&fixture, &[1], &[]);
        assert_eq!(first.unwrap_or(vec![1]), expected, "{nodes} nodes");
    }
}

#[test]
fn votes_spread_over_racks_but_do_not_move_for_nothing() {
    let fixture = Fixture::level_2(&["r0", "r0", "r1", "r1", "r2"]);
    let mut two_racks = fixture;
    two_racks.done(decommission("n4", true));
    assert_eq!(voters(&two_racks, &[1, 2, 4], &[]), None);
    two_racks.done(decommission("n4", false));
    two_racks.done(decommission("n2", true));
    assert_eq!(voters(&two_racks, &[1, 2, 4], &[]), Some(vec![1, 4, 5]));
}

#[test]
fn a_gone_node_gives_its_vote_to_another_if_there_is_one() {
    let four = Fixture::level_2(&[""; 4]);
    assert_eq!(voters(&four, &[1, 2, 3], &["n1"]), Some(vec![1, 3, 4]));
    let mut away = view(&four.catalog, &[]);
    away.usable.remove("n1");
    assert_eq!(
        four.catalog.plan_catalog_voters(&[1, 2, 3], &away),
        None,
        "it is away for less than the grace"
    );
    away.usable.remove("n3");
    away.usable.remove("n1");
    away.gone.insert("n1");
    assert_eq!(
        four.catalog.plan_catalog_voters(&[1, 2, 3], &away),
        None,
        "the other one is away, too"
    );
    let three = Fixture::level_2(&[""; 3]);
    assert_eq!(voters(&three, &[1, 2, 3], &["n1"]), None, "there is no other");
}

#[test]
fn a_leaving_node_gives_its_vote_away() {
    let mut fixture = Fixture::level_2(&[""; 4]);
    fixture.done(decommission("n0", true));
    assert_eq!(voters(&fixture, &[1, 2, 3], &[]), Some(vec![2, 3, 4]));
    fixture.done(decommission("n1", true));
    assert_eq!(voters(&fixture, &[2, 3, 4], &[]), Some(vec![3]), "two nodes stay");
}

#[test]
fn a_new_voter_has_run() {
    let mut fixture = Fixture::level_2(&[""; 3]);
    let replica_id = fixture.replica_id(register_2("n3", 3, "", None));
    assert_eq!(voters(&fixture, &[1, 2, 3], &["n0"]), None);
    fixture.replica_id(register_2("n3", 3, "", Some(CatalogReplica::Runs(replica_id))));
    assert_eq!(voters(&fixture, &[1, 2, 3], &["n0"]), Some(vec![2, 3, replica_id]));
}

#[test]
fn a_lost_voter_is_replaced_once_the_new_one_has_run() {
    let mut fixture = Fixture::level_2(&[""; 3]);
    let new = fixture.replica_id(register_2("n2", 77, "", None));
    assert_eq!(voters(&fixture, &[1, 2, 3], &[]), None);
    fixture.replica_id(register_2("n2", 77, "", Some(CatalogReplica::Runs(new))));
    assert_eq!(voters(&fixture, &[1, 2, 3], &[]), Some(vec![1, 2, new]));
}

#[test]
fn one_of_the_present_voters_always_stays_for_the_change() {
    let mut fixture = Fixture::level_2(&[""; 2]);
    fixture.done(decommission("n0", true));
    assert_eq!(voters(&fixture, &[1], &[]), Some(vec![1, 2]));
    assert_eq!(voters(&fixture, &[1, 2], &[]), Some(vec![2]));
    assert_eq!(voters(&fixture, &[2], &[]), None);
    assert_eq!(voters(&fixture, &[], &[]), None, "nobody could make the change");
}
