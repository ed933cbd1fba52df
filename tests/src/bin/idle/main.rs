//! What partitions cost that nobody uses: CPU, memory and wakeups of three nodes while nothing happens; how long a node takes to tell
//! its metrics then; and how soon all of them have a leader again when a node is killed. Last, how soon a new node answers.
//!
//! `make bench-idle` builds the release binaries and runs this. The arguments are numbers of partitions, 300 and 1,000
//! unless said otherwise; each is measured with every timer step, in a cluster of its own, with three replicas of every
//! partition. `HIGHWATER_IDLE_SECONDS` says for how long is measured, 30 by default, `HIGHWATER_IDLE_STEPS` with which steps,
//! `1,2,3` by default. It asserts nothing but that every partition gets its leader.

mod looked_at;

use std::fs;
use std::time::{Duration, Instant};

use highwater_tests::{ReservedPort, TestCluster, TestNode, eventually};

type Failure = Box<dyn std::error::Error>;

const PARTITIONS: [u32; 2] = [300, 1_000];
const MEASURED_SECONDS: u64 = 30;
const STEPS: &str = "1,2,3";
/// How long the newest rules may take to come into force.
const RULES_DEADLINE: Duration = Duration::from_secs(60);
/// Partitions of one topic.
const TOPIC_PARTITIONS_MAX: u32 = 100;
/// How long all partitions may take to get their leaders.
const LEADERS_DEADLINE: Duration = Duration::from_secs(300);
/// How long the nodes are left alone before they are measured: what comes with a start is not idleness.
const SETTLE_TIME: Duration = Duration::from_secs(20);
/// Clock ticks a second in what the kernel tells of a process.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<(), Failure> {
    let asked: Result<Vec<u32>, _> = std::env::args().skip(1).map(|argument| argument.parse()).collect();
    let mut counts = asked?;
    if counts.is_empty() {
        counts.extend(PARTITIONS);
    }
    let seconds = match std::env::var("HIGHWATER_IDLE_SECONDS") {
        Ok(seconds) => seconds.parse()?,
        Err(_) => MEASURED_SECONDS,
    };
    let steps = std::env::var("HIGHWATER_IDLE_STEPS").unwrap_or_else(|_| STEPS.to_owned());
    for partitions in counts {
        for step in steps.split(',') {
            measure(partitions, step, Duration::from_secs(seconds))?;
        }
    }
    looked_at::starts();
    Ok(())
}

fn measure(partitions: u32, step: &str, time: Duration) -> Result<(), Failure> {
    let port = ReservedPort::take();
    let admin = format!("127.0.0.1:{}", port.number());
    let mut cluster = TestCluster::prepare(3);
    cluster.node(0).set("--admin-listen", &admin);
    (0..3).for_each(|position| cluster.node(position).start());
    cluster.wait_ready();
    eventually("the timer step is set", RULES_DEADLINE, || {
        let set = cluster.run(&["cluster", "settings", "--timer-step", step]);
        set.status.success().then_some(())
    });
    let begin = Instant::now();
    for (number, first) in (0..partitions).step_by(TOPIC_PARTITIONS_MAX as usize).enumerate() {
        cluster.create_topic(&format!("idle-{number}"), TOPIC_PARTITIONS_MAX.min(partitions - first));
    }
    eventually("every partition has a leader", LEADERS_DEADLINE, || {
        (led(&cluster) == partitions as usize).then_some(())
    });
    let made = begin.elapsed();
    std::thread::sleep(SETTLE_TIME);
    let before: Result<Vec<Sample>, Failure> = cluster.nodes().iter().map(Sample::take).collect();
    let begin = Instant::now();
    std::thread::sleep(time);
    let elapsed = begin.elapsed().as_secs_f64();
    println!(
        "\n{partitions} partitions, 3 replicas each, timer step {step}, made and led after {:.1} s",
        made.as_secs_f64()
    );
    println!("  node   CPU of one core   resident   wakeups/s   threads");
    for (node, before) in cluster.nodes().iter().zip(before?) {
        let after = Sample::take(node)?;
        println!(
            "  {:<6} {:>13.2} % {:>8.0} MiB {:>9.0} {:>9}",
            node.name(),
            (after.cpu_ticks - before.cpu_ticks) as f64 / TICKS_PER_SECOND / elapsed * 100.0,
            after.resident_kib as f64 / 1024.0,
            (after.wakeups - before.wakeups) as f64 / elapsed,
            after.threads,
        );
    }
    looked_at::metrics(&admin);
    let killed = Instant::now();
    cluster.node(0).kill();
    eventually("every partition has a leader again", LEADERS_DEADLINE, || {
        (led(&cluster) == partitions as usize).then_some(())
    });
    println!(
        "  a node killed: every partition is led again, as clients can see, after {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    Ok(())
}

/// How many partitions have a leader.
fn led(cluster: &TestCluster) -> usize {
    let described = cluster.describe();
    let replicas = described["replicas"].as_array().cloned().unwrap_or_default();
    let leads = |replica: &&serde_json::Value| replica["role"] == "leader" && replica["topic"] != "";
    replicas.iter().filter(leads).count()
}

/// What the kernel counts for one process.
struct Sample {
    cpu_ticks: u64,
    resident_kib: u64,
    /// Times that a thread waited and went on.
    wakeups: u64,
    threads: usize,
}

impl Sample {
    fn take(node: &TestNode) -> Result<Sample, Failure> {
        let pid = node.pid().ok_or("a node does not run")?;
        let mut sample = Sample {
            cpu_ticks: node.cpu_ticks().ok_or("an odd stat")?,
            resident_kib: number_in(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
            wakeups: 0,
            threads: 0,
        };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may have ended meanwhile.
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            sample.wakeups += number_in(&status, "voluntary_ctxt_switches:");
            sample.threads += 1;
        }
        Ok(sample)
    }
}

/// The number behind a name at the beginning of a line; 0 if there is none.
fn number_in(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}
