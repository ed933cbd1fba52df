//! A partition whose majority is gone, and the operator who goes on from the replica that is left.

use std::time::Duration;

use highwater_tests::chaos::{Load, Scene, Set};
use highwater_tests::eventually;

/// Longer than it takes until the others are seen to be away.
const PATIENCE: Duration = Duration::from_secs(60);

/// The catalog keeps its majority, three of five. The first node that ends leaves two that acknowledge only together, so the last
/// one has all that was acknowledged, and recovery loses nothing: the checker, which accepts no loss, can judge it.
#[test]
fn a_partition_goes_on_from_its_last_replica_and_those_that_return_do_not_disturb_it() {
    let small = Set::small(50);
    let mut scene = Scene::open(Set {
        founders: 5,
        load: Load {
            partitions: 1,
            ..small.load
        },
        ..small
    });
    let holders = scene.holders(0);
    assert_eq!(holders.len(), 3, "replicas of partition 0: {holders:?}");
    let first = holders[0];
    scene.kill(first);
    scene.goes_on("with two replicas");
    // The leader: the other one does not know yet that the last records are committed.
    let second = scene.leader();
    scene.kill(second);
    let Some(&last) = holders.iter().find(|node| ![first, second].contains(node)) else {
        panic!("{second} leads, and {first} is the first of {holders:?}");
    };
    let survivor = scene.name(last);
    let recover = ["cluster", "recover", &scene.topic(), "0", "--from", &survivor];
    let accepted = [&recover[..], &["--accept-loss"]].concat();
    // Refused until the node that is asked has seen the others go.
    let answer = |arguments: &[&str]| {
        eventually("the partition is seen to need it", PATIENCE, || {
            let answer = scene.attempt(arguments);
            (answer.code() == 0).then(|| answer.stdout())
        })
    };
    let looked = answer(&recover);
    assert!(
        looked.contains("can go on from") && looked.contains("--accept-loss"),
        "{looked}"
    );
    let done = answer(&accepted);
    assert!(done.contains("goes on from"), "{done}");
    scene.goes_on("from the replica that was left");
    scene.start(first);
    scene.start(second);
    // Before that they may know the partition only as it was.
    scene.ready(first);
    scene.ready(second);
    scene.complete("when the others are back");
    scene.kill(last);
    scene.goes_on("without the replica that was left");
    scene.start(last);
    scene.end();
}
