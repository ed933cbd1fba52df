//! Leaders are moved away from a node on purpose: how long each partition pauses.

use std::time::Duration;

use highwater_tests::chaos::Scene;
use highwater_tests::pauses;

use crate::stand::{busiest, open};
use crate::{Failure, table};

/// Records sent so long before the move count too: they may have to wait for it.
const BEFORE: Duration = Duration::from_millis(500);

pub(crate) fn measure(runs: usize) -> Result<(), Failure> {
    let mut scene = open(2);
    let mut moves = Vec::new();
    for _ in 0..runs {
        scene.complete("before leaders are moved");
        let (node, led) = busiest(&scene);
        let begin_ns = scene.now_ns().saturating_sub(BEFORE.as_nanos() as u64);
        move_leaders_away(&mut scene, node);
        scene.goes_on("after leaders were moved");
        moves.push((begin_ns..scene.now_ns(), led));
        scene.start(node);
        scene.ready(node);
    }
    let history = scene.end();
    let mut times = Vec::new();
    for (window, led) in &moves {
        let pauses = pauses::pauses(&history, window);
        times.extend(led.iter().filter_map(|partition| pauses[*partition]));
    }
    println!("\nleaders moved away by SIGTERM (target: under 100 ms without a refused write)");
    table::times("pause of a partition whose leader moved", times);
    table::number("failed produces", pauses::failed(&history));
    Ok(())
}

/// The orderly end of a node: it hands its leaderships over, and then ends.
fn move_leaders_away(scene: &mut Scene, node: usize) {
    scene.stop(node);
}
