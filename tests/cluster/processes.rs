//! Processes that stand still or end.

use std::time::Duration;

use highwater_tests::chaos::{Load, Scene, Set};
use highwater_tests::pauses;

#[test]
fn a_leader_that_stands_still_is_replaced_and_says_nothing_stale_when_it_goes_on() {
    let mut scene = Scene::open(Set::small(20));
    let paused = scene.leader();
    scene.with_paused(paused, |scene| {
        // Longer than any election, since another node leads now.
        scene.goes_on("while the leader stands still");
        scene.is_replaced(paused);
    });
    scene.end();
}

#[test]
fn a_rolling_restart_under_load_fails_no_produce() {
    let small = Set::small(21);
    let mut scene = Scene::open(Set {
        load: Load {
            partitions: 30,
            producers: 3,
            send_interval: Duration::from_millis(5),
            in_flight_max: 4_096,
            // That of a user who sets none.
            delivery_deadline: Some(Duration::from_secs(120)),
            ..small.load
        },
        ..small
    });
    let begin_ns = scene.now_ns();
    for node in 0..3 {
        scene.stop(node);
        scene.start(node);
        scene.ready(node);
    }
    scene.goes_on("after a rolling restart");
    let end_ns = scene.now_ns();
    let history = scene.end();
    let longest = pauses::longest(&pauses::pauses(&history, &(begin_ns..end_ns)));
    println!("longest pause of a partition, and its length: {longest:?}");
    assert_eq!(pauses::failed(&history), 0, "produces failed");
}
