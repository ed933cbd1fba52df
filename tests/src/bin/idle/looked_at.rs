//! What it takes to look at nodes: their metrics with so many partitions, and how soon a new node answers at all.

use std::thread::sleep;
use std::time::{Duration, Instant};

use highwater_tests::{ReservedPort, TestCluster, http};

/// How often metrics are asked for.
const QUESTIONS: usize = 9;
/// How many nodes are started.
const STARTS: usize = 9;
/// How long a node may take to be ready.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a node takes to tell its metrics, one question after the other.
pub(crate) fn metrics(admin: &str) {
    let mut bytes = 0;
    let times = (0..QUESTIONS).map(|_| {
        let begin = Instant::now();
        bytes = http::get(admin, "/metrics").is(200).text.len();
        begin.elapsed()
    });
    let times = times.collect();
    println!("  /metrics, {} KiB: {}", bytes / 1024, told(times));
}

/// How long it takes from the start of a process with an empty directory until it answers, and until it has founded a cluster of one.
pub(crate) fn starts() {
    let (mut live, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let port = ReservedPort::take();
        let admin = format!("127.0.0.1:{}", port.number());
        let mut cluster = TestCluster::prepare(1);
        cluster.node(0).set("--admin-listen", &admin);
        let begin = Instant::now();
        cluster.node(0).start();
        live.push(until(&admin, "/livez", begin));
        ready.push(until(&admin, "/readyz", begin));
    }
    println!("\na node with an empty directory, from its start");
    println!("  until it answers: {}", told(live));
    println!("  until it is ready, a cluster of one: {}", told(ready));
}

/// Asks every millisecond: that is what is measured.
fn until(admin: &str, path: &str, begin: Instant) -> Duration {
    loop {
        if http::get(admin, path).status == 200 {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < DEADLINE, "{path} is not answered");
        sleep(Duration::from_millis(1));
    }
}

/// The median and the range.
fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let ms = |place: usize| times[place].as_secs_f64() * 1_000.0;
    let last = times.len() - 1;
    format!("median {:.1} ms, {:.1} to {:.1} ms", ms(last / 2), ms(0), ms(last))
}
