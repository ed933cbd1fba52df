//! Every node is restarted, one after the other, each as soon as the one before is ready.

use std::time::Instant;

use highwater_tests::pauses;

use crate::stand::open;
use crate::{Failure, table};

const NODES: usize = 3;

pub(crate) fn measure() -> Result<(), Failure> {
    let mut scene = open(3);
    let (began, begin_ns) = (Instant::now(), scene.now_ns());
    for node in 0..NODES {
        scene.stop(node);
        scene.start(node);
        scene.ready(node);
    }
    let took = began.elapsed();
    scene.goes_on("after a rolling restart");
    let window = begin_ns..scene.now_ns();
    // Loss, duplicates and disorder end the run here.
    let history = scene.end();
    let all: Vec<_> = pauses::pauses(&history, &window).into_iter().flatten().collect();
    println!("\nrolling restart of all nodes under load (target: nothing fails, longest pause under 1 s)");
    table::number("failed produces", pauses::failed(&history));
    table::times("longest wait of a record, by partition", all);
    table::number("the whole restart", format!("{:.1} s", took.as_secs_f64()));
    Ok(())
}
