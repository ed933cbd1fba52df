//! The node that leads most partitions is killed: how long until each partition takes writes again.

use std::time::Duration;

use highwater_tests::pauses;

use crate::stand::{PARTITIONS, busiest, open};
use crate::{Failure, table};

pub(crate) fn measure(runs: usize) -> Result<(), Failure> {
    let mut scene = open(1);
    let mut kills = Vec::new();
    for _ in 0..runs {
        scene.complete("before a leader is killed");
        let (node, led) = busiest(&scene);
        let killed_ns = scene.kill(node);
        scene.goes_on("after a leader was killed");
        kills.push((killed_ns..scene.now_ns(), led));
        scene.start(node);
        scene.ready(node);
    }
    let history = scene.end();
    let (mut slowest, mut each) = (Vec::new(), Vec::new());
    for (window, led) in &kills {
        let served = pauses::served_after(&history, window);
        if served.iter().any(Option::is_none) {
            return Err("a partition took no write after a leader was killed".into());
        }
        slowest.extend(pauses::longest(&served).map(|(_, after)| after));
        each.extend(led.iter().filter_map(|partition| served[*partition]));
    }
    let led: Vec<usize> = kills.iter().map(|(_, led)| led.len()).collect();
    println!("\na leader killed with SIGKILL, {PARTITIONS} partitions, timer step 1 (target: slowest within 1.2 s)");
    table::times("until the slowest partition takes writes", slowest);
    table::times("until a partition of the killed node does", each);
    table::number("partitions that the killed node led", in_words(&led));
    table::number("failed produces", pauses::failed(&history));
    table::times(
        "longest wait of a record, by partition",
        longest_waits(&history, &kills),
    );
    Ok(())
}

fn in_words(led: &[usize]) -> String {
    let (least, most) = (led.iter().min().unwrap_or(&0), led.iter().max().unwrap_or(&0));
    format!("{least} to {most}")
}

fn longest_waits(history: &highwater_verify::History, kills: &[(pauses::Window, Vec<usize>)]) -> Vec<Duration> {
    let whole = kills.first().map_or(0, |(window, _)| window.start)..u64::MAX;
    pauses::pauses(history, &whole).into_iter().flatten().collect()
}
