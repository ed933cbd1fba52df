//! Links that are cut, one way or both, that come and go, that say nothing, or that are slow.

use highwater_tests::chaos::{Load, Rule, Scene, Set};
use highwater_verify::history::FaultKind;

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_follows_when_the_link_is_back() {
    let mut scene = Scene::open(Set::small(1));
    let cut_off = scene.leader();
    let mut rules = scene.rules();
    rules.isolate(cut_off, Rule::Hold);
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.goes_on("while the leader is cut off");
        scene.is_replaced(cut_off);
    });
    scene.end();
}

#[test]
fn a_leader_that_is_heard_but_hears_nothing_does_not_stop_its_group() {
    let mut scene = Scene::open(Set::small(2));
    let deaf = scene.leader();
    let mut rules = scene.rules();
    scene
        .others(deaf)
        .iter()
        .for_each(|other| rules.set(*other, deaf, Rule::Hold));
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.goes_on("while the leader hears nothing")
    });
    scene.end();
}

#[test]
fn a_leader_that_hears_but_is_not_heard_is_replaced() {
    let mut scene = Scene::open(Set::small(3));
    let mute = scene.leader();
    let mut rules = scene.rules();
    scene
        .others(mute)
        .iter()
        .for_each(|other| rules.set(mute, *other, Rule::Hold));
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.goes_on("while nobody hears the leader");
        scene.is_replaced(mute);
    });
    scene.end();
}

#[test]
fn a_link_that_is_dead_in_one_direction_between_two_nodes_is_gone_round() {
    let mut scene = Scene::open(Set::small(4));
    let leader = scene.leader();
    let follower = scene.others(leader)[0];
    let mut rules = scene.rules();
    rules.set(leader, follower, Rule::Hold);
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.goes_on("while one follower does not hear the leader");
    });
    scene.end();
}

/// Ends that depose each other at every election time would still take records now and then.
fn keeps_its_leader(scene: &mut Scene) {
    let before = scene.term(0);
    scene.pass(3_000, 4_000);
    let after = scene.term(0);
    // One by bad luck, on a busy machine; deposing each other would be seven or more.
    assert!(after <= before + 2, "from term {before} to term {after}");
}

#[test]
fn two_nodes_that_only_the_third_reaches_keep_one_leader() {
    let mut scene = Scene::open(Set::small(5));
    let leader = scene.leader();
    let other_end = scene.others(leader)[0];
    let mut rules = scene.rules();
    rules.set_both(leader, other_end, Rule::Hold);
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.goes_on("while two nodes do not reach each other");
        keeps_its_leader(scene);
        scene.goes_on("while two nodes still do not reach each other");
    });
    scene.end();
}

/// It hears nothing of the catalog, and serves no client after a while; its partitions have a quorum by way of the third node.
#[test]
fn a_node_that_does_not_reach_the_catalog_s_leader_leaves_its_partitions_to_one_that_does() {
    let small = Set::small(14);
    let mut scene = Scene::open(Set {
        load: Load {
            // Every node leads some.
            partitions: 6,
            ..small.load
        },
        ..small
    });
    let leader_of = |described: &serde_json::Value| described["catalog_leader"].as_str().map(str::to_owned);
    let is_led = |described: &serde_json::Value| leader_of(described).is_some_and(|name| !name.is_empty());
    let catalog_leader = leader_of(&scene.described("the catalog is led", is_led));
    let leader = (0..3).find(|node| Some(scene.name(*node)) == catalog_leader);
    let leader = leader.unwrap_or_else(|| panic!("{catalog_leader:?} is no node"));
    let mut rules = scene.rules();
    rules.set_both(leader, scene.others(leader)[0], Rule::Hold);
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.pass(12_000, 13_000);
        scene.goes_on("long after a node has lost its link to the catalog's leader");
    });
    scene.end();
}

#[test]
fn two_halves_of_five_that_share_one_node_keep_one_leader() {
    let small = Set::small(13);
    let mut scene = Scene::open(Set {
        founders: 5,
        replicas: 5,
        load: Load {
            partitions: 1,
            ..small.load
        },
        ..small
    });
    let leader = scene.leader();
    let others = scene.others(leader);
    let mut rules = scene.rules();
    // others[1] reaches all four.
    for one in [leader, others[0]] {
        rules.set_both(one, others[2], Rule::Hold);
        rules.set_both(one, others[3], Rule::Hold);
    }
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.goes_on("while two halves share one node");
        keeps_its_leader(scene);
        scene.goes_on("while two halves still share one node");
    });
    scene.end();
}

#[test]
fn a_link_that_flaps_wears_nothing_out() {
    let mut scene = Scene::open(Set::small(6));
    let node = scene.leader();
    let whole = scene.rules();
    scene.with_links(FaultKind::LinkCut, whole.clone(), |scene| {
        for flap in 0..10 {
            let mut rules = whole.clone();
            rules.isolate(node, if flap % 2 == 0 { Rule::Hold } else { Rule::Reset });
            scene.set_links(rules);
            scene.pass(50, 400);
            scene.set_links(whole.clone());
            scene.pass(50, 400);
        }
        scene.goes_on("after a link flapped");
    });
    scene.end();
}

#[test]
fn a_node_that_vanishes_without_a_word_holds_up_neither_peers_nor_clients() {
    let mut scene = Scene::open(Set::small(7));
    let gone = scene.leader();
    scene.vanish(gone, |scene| {
        scene.goes_on("while connections to a node that vanished are half open");
        scene.is_replaced(gone);
    });
    scene.end();
}

#[test]
fn a_connection_that_carries_nothing_any_more_is_given_up_and_made_anew() {
    let mut scene = Scene::open(Set::small(8));
    let (leader, vanish) = (scene.leader(), Rule::Vanish);
    let mut rules = scene.rules();
    // All connections of all nodes, once; what is dialled afterwards is whole.
    rules.isolate(leader, vanish);
    let others = scene.others(leader);
    rules.set_both(others[0], others[1], vanish);
    let whole = scene.rules();
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        scene.pass(200, 300);
        scene.set_links(whole);
    });
    scene.goes_on("after every connection between nodes has become half open");
    scene.end();
}

#[test]
fn a_slow_follower_slows_nobody_and_catches_up() {
    let small = Set::small(9);
    let mut scene = Scene::open(Set {
        load: Load {
            // One, so that the slow node leads nothing.
            partitions: 1,
            value_bytes_max: 2_000,
            ..small.load
        },
        ..small
    });
    let leader = scene.leader();
    let slow = scene.others(leader)[0];
    let mut rules = scene.rules();
    // Far less than the load, so that the follower falls behind.
    rules.isolate(slow, Rule::Narrow(100_000));
    scene.with_links(FaultKind::LinkLossy, rules, |scene| {
        scene.goes_on("while a follower is slow");
        scene.goes_on("while a follower is still slow");
    });
    scene.end();
}

#[test]
fn a_node_that_gossip_has_given_up_stays_a_member() {
    let mut scene = Scene::open(Set::small(12));
    let leader = scene.leader();
    let silent = scene.others(leader)[0];
    let (silent_name, leader_name) = (scene.name(silent), scene.name(leader));
    let mut rules = scene.rules();
    rules.isolate(silent, Rule::Hold);
    scene.with_links(FaultKind::LinkCut, rules, |scene| {
        let described = scene.described("the leader's node takes the silent one for dead", |described| {
            let is_dead = |node: &serde_json::Value| node["name"] == *silent_name && node["alive"] == false;
            described["answering_node"] == *leader_name && nodes(described).any(is_dead)
        });
        assert!(
            nodes(&described).all(|node| node["catalog_role"] == "voter"),
            "{described}"
        );
        scene.goes_on("while a node is taken for dead");
    });
    scene.complete("after the node is heard again");
    scene.end();
}

fn nodes(described: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    described["nodes"].as_array().into_iter().flatten()
}
