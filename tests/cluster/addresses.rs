//! Nodes that come back at other addresses. Who a node is, is said by its certificate, never by its address.

use highwater_tests::chaos::{Scene, Set};

#[test]
fn two_nodes_that_swapped_addresses_just_go_on() {
    let mut scene = Scene::open(Set::small(10));
    let leader = scene.leader();
    let other = scene.others(leader)[0];
    scene.swap_addresses(leader, other);
    scene.goes_on("after two nodes have swapped their addresses");
    scene.end();
}

#[test]
fn a_node_that_comes_back_at_a_new_address_just_goes_on() {
    let mut scene = Scene::open(Set {
        spare: 1,
        ..Set::small(11)
    });
    let (leader, new_address) = (scene.leader(), 3);
    scene.swap_addresses(leader, new_address);
    scene.goes_on("after a node has come back at a new address");
    scene.end();
}
