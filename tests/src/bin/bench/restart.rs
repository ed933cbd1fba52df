//! One node restarted on a directory with data: to its first answer over gRPC, and until it is ready.

use std::time::{Duration, Instant};

use highwater_tests::{TestCluster, eventually};
use serde_json::{Value, json};

use crate::{median, table};

/// How long a restart may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Medians, ms.
#[derive(Debug)]
pub(crate) struct Restart {
    first_answer_ms: f64,
    ready_ms: f64,
}

pub(crate) fn measure(cluster: &mut TestCluster, runs: usize) -> Restart {
    let (mut answers, mut readies) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        cluster.node(0).stop();
        let started = Instant::now();
        cluster.node(0).start();
        answers.push(ms_until(cluster, started, |_, state| !state.contains("unreachable")));
        readies.push(ms_until(cluster, started, |serves, _| serves));
    }
    Restart {
        first_answer_ms: median(answers),
        ready_ms: median(readies),
    }
}

/// How long since `started` until what `health` says about the first node is what is waited for.
fn ms_until(cluster: &TestCluster, started: Instant, reached: impl Fn(bool, &str) -> bool) -> f64 {
    let address = cluster.nodes()[0].address();
    let took = eventually("the node answers", DEADLINE, || {
        let asked = cluster.command(&["health", "--address", &address]).output().ok()?;
        let state = String::from_utf8_lossy(&asked.stdout).into_owned();
        (!state.is_empty() && reached(asked.status.success(), &state)).then(|| started.elapsed())
    });
    took.as_secs_f64() * 1e3
}

impl Restart {
    pub(crate) fn document(&self) -> Value {
        json!({ "first_answer_ms": self.first_answer_ms, "ready_ms": self.ready_ms })
    }
}

pub(crate) fn print(restart: &Restart) {
    let row = [restart.first_answer_ms, restart.ready_ms].map(|ms| format!("{ms:.0} ms"));
    table::print(
        "One node restarted (asked every 20 ms)",
        ["FIRST ANSWER", "READY"],
        &[row],
    );
}
