//! Leaders are moved away from a node on purpose: how long each partition pauses.

use std::time::Duration;

use highwater_tests::chaos::Scene;
use highwater_tests::pauses;
use serde_json::Value;

use crate::stand::{busiest, open};
use crate::{Failure, table};

/// Records sent so long before the move count too: they may have to wait for it.
const BEFORE: Duration = Duration::from_millis(500);

/// How an operator moves leaders away.
#[derive(Clone, Copy)]
enum Way {
    /// `cluster drain`, and its undoing afterwards.
    Drain,
    /// SIGTERM: the node hands its leaderships over, and then ends.
    Stop,
}

pub(crate) fn measure(runs: usize) -> Result<(), Failure> {
    measure_way(runs, Way::Drain, "by `cluster drain`")?;
    measure_way(runs, Way::Stop, "by SIGTERM")
}

fn measure_way(runs: usize, way: Way, name: &str) -> Result<(), Failure> {
    let mut scene = open(2);
    let mut moves = Vec::new();
    for _ in 0..runs {
        scene.complete("before leaders are moved");
        let (node, led) = busiest(&scene);
        let begin_ns = scene.now_ns().saturating_sub(BEFORE.as_nanos() as u64);
        way.move_away(&mut scene, node);
        scene.goes_on("after leaders were moved");
        moves.push((begin_ns..scene.now_ns(), led));
        way.undo(&mut scene, node);
    }
    let history = scene.end();
    let mut times = Vec::new();
    for (window, led) in &moves {
        let pauses = pauses::pauses(&history, window);
        times.extend(led.iter().filter_map(|partition| pauses[*partition]));
    }
    println!("\nleaders moved away {name} (target: under 100 ms without a refused write)");
    table::times("pause of a partition whose leader moved", times);
    table::number("failed produces", pauses::failed(&history));
    Ok(())
}

impl Way {
    fn move_away(self, scene: &mut Scene, node: usize) {
        let name = scene.name(node);
        match self {
            Way::Drain => drop(scene.run(&["cluster", "drain", &name])),
            Way::Stop => scene.stop(node),
        }
    }

    fn undo(self, scene: &mut Scene, node: usize) {
        let name = scene.name(node);
        match self {
            Way::Drain => {
                scene.run(&["cluster", "drain", &name, "--undo"]);
                scene.described("the node leads again", |described| leads(described, &name));
            }
            Way::Stop => {
                scene.start(node);
                scene.ready(node);
            }
        }
    }
}

fn leads(described: &Value, name: &str) -> bool {
    let mut nodes = described["nodes"].as_array().into_iter().flatten();
    nodes.any(|node| node["name"] == name && node["leaders"].as_u64() > Some(0))
}
