//! `make bench-abuse`: what well-behaved clients feel while others do what they should not.
//!
//! One run prints everything. It measures, and asserts only what must never be: a node that restarts, or memory that grows without end.
//! `abuse [--seconds N] [--pairs N] [--only NAME]`.
//!
//! | section | what others do |
//! |---|---|
//! | `quota` | a tenant sends nearly as much as its quota allows; beside nothing |
//! | `neighbour` | the tenant sends ten times its quota; beside nearly as much as it allows, in batches as large |
//! | `beyond` | the same; beside nothing |
//! | `handshakes` | 500 handshakes a second without a certificate |
//! | `slow` | connections that begin a handshake and do not go on |
//! | `resets` | calls that are begun and given up at once, as fast as they go |
//! | `headers` | ever more request headers |
//! | `bombs` | messages, and batches, that would be large if somebody unpacked them |
//!
//! A victim sends records at a fixed rate meanwhile; its p99 counts from when a record was due. Each attack is beside a time without it, turn
//! by turn, and what is shown is the median of the ratios. Attackers run at low priority: here they share two cores with everybody else.

mod attack;
mod neighbour;
mod raw;
mod victim;

use std::process::{Child, Command, ExitCode};

use highwater_tests::{TestCluster, measured};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// How long each time lasts, with and without an attack, seconds.
const SECONDS: u64 = 30;
/// How often an attack is beside a time without it.
const PAIRS: usize = 1;
/// The same for the neighbour, whose effect is smaller.
const NEIGHBOUR_PAIRS: usize = 9;
/// How long the neighbour's times last at most, seconds.
const NEIGHBOUR_SECONDS: u64 = 10;
/// The sections with a neighbour, which is no attacker.
const NEIGHBOURS: [&str; 3] = ["quota", "neighbour", "beyond"];
/// How much memory a node may have more after an attack, MiB. What a neighbour sends is kept in caches, which is what they are for.
const GROWTH_MIB_MAX: i64 = 64;

const USAGE: &str = "abuse [--seconds N] [--pairs N] [--only SECTION]";

#[derive(Debug)]
struct Arguments {
    seconds: u64,
    pairs: Option<usize>,
    only: Option<String>,
    /// This process is an attacker: what it does, and whom it attacks with which certificates.
    attack: Option<(String, String, String)>,
}

fn main() -> ExitCode {
    measured(USAGE, arguments, measure)
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seconds: SECONDS,
        pairs: None,
        only: None,
        attack: None,
    };
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{name} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{name} {text}: not a number"));
        match name.as_str() {
            "--seconds" => arguments.seconds = number(value()?)?,
            "--pairs" => arguments.pairs = Some(number(value()?)? as usize),
            "--only" => arguments.only = Some(known(value()?)?),
            "--attack" => arguments.attack = Some((known(value()?)?, value()?, value()?)),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(arguments)
}

fn known(name: String) -> Result<String, String> {
    let known: Vec<&str> = sections().collect();
    match known.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(format!("there is no section {name}, but {}", known.join(", "))),
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    NEIGHBOURS.into_iter().chain(attack::ALL.map(|(name, _)| name))
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    if let Some((name, address, certificates)) = &arguments.attack {
        return attack::run(name, address, certificates);
    }
    let mut cluster = TestCluster::start(3);
    cluster.create_topic(victim::TOPIC, 1);
    cluster.wait_acquainted();
    victim::warm_up(&cluster)?;
    println!(
        "Three nodes, their attackers and a victim that sends {} records a second, on this machine.\n\n{:<12} {:>12} {:>12} {:>8} {:>22} {:>14}",
        victim::RATE,
        "SECTION",
        "P99 WITHOUT",
        "P99 WITH",
        "RATIO",
        "RATIOS FROM - TO",
        "MEMORY MORE"
    );
    for name in sections() {
        if arguments.only.as_ref().is_none_or(|only| only == name) {
            section(&mut cluster, arguments, name)?;
        }
    }
    Ok(())
}

fn section(cluster: &mut TestCluster, arguments: &Arguments, name: &str) -> Result<(), Failure> {
    let is_neighbour = NEIGHBOURS.contains(&name);
    let pairs = arguments
        .pairs
        .unwrap_or(if is_neighbour { NEIGHBOUR_PAIRS } else { PAIRS });
    let seconds = if is_neighbour {
        arguments.seconds.min(NEIGHBOUR_SECONDS)
    } else {
        arguments.seconds
    };
    if is_neighbour {
        neighbour::prepare(cluster)?;
    }
    let mut times = Vec::new();
    let mut grown = vec![[0; 2]; cluster.nodes().len()];
    for pair in 0..pairs.max(1) {
        // Turn by turn, and not always the same first: the machine has moods.
        let attacked_first = pair % 2 == 1;
        let mut one = [0.0; 2];
        for attacked in [attacked_first, !attacked_first] {
            let mut attackers = match (name, attacked) {
                ("quota", true) => vec![neighbour::start(cluster, seconds, neighbour::WITHIN)?],
                ("neighbour", false) => vec![neighbour::start(cluster, seconds, neighbour::WITHIN)?],
                ("neighbour" | "beyond", true) => vec![neighbour::start(cluster, seconds, neighbour::BEYOND)?],
                (_, false) => Vec::new(),
                (_, true) => start(cluster, name)?,
            };
            let before = memory(cluster)?;
            one[usize::from(attacked)] = victim::p99_us(cluster, seconds)?;
            let after = memory(cluster)?;
            for (grown, (after, before)) in grown.iter_mut().zip(after.iter().zip(&before)) {
                grown[usize::from(attacked)] += after - before;
            }
            attackers.iter_mut().try_for_each(end)?;
        }
        times.push(one);
    }
    show(name, times, &grown)?;
    let restarted = (0..3).filter(|position| !cluster.node(*position).runs()).count();
    if restarted > 0 {
        return Err(format!("{name}: {restarted} nodes have ended").into());
    }
    Ok(())
}

/// Shows what the victim felt, and how much more memory a node has after all times with the attack than after those without, in which it
/// keeps as much of what the victim sends.
fn show(name: &str, mut times: Vec<[f64; 2]>, grown: &[[i64; 2]]) -> Result<(), Failure> {
    let more = grown.iter().map(|[without, with]| with - without).max();
    let grew_mib = more.unwrap_or_default() / (1024 * 1024);
    times.sort_by(|one, other| (one[1] / one[0]).total_cmp(&(other[1] / other[0])));
    let ratio = |pair: &[f64; 2]| pair[1] / pair[0];
    let middle = times[times.len() / 2];
    println!(
        "{name:<12} {:>9.2} ms {:>9.2} ms {:>8.2} {:>22} {:>10} MiB",
        middle[0] / 1_000.0,
        middle[1] / 1_000.0,
        ratio(&middle),
        format!("{:.2} - {:.2}", ratio(&times[0]), ratio(&times[times.len() - 1])),
        grew_mib,
    );
    if grew_mib > GROWTH_MIB_MAX && !NEIGHBOURS.contains(&name) {
        return Err(format!("{name}: a node has {grew_mib} MiB more, {GROWTH_MIB_MAX} are allowed").into());
    }
    Ok(())
}

/// An attacker for each node, in processes of their own.
fn start(cluster: &TestCluster, name: &str) -> Result<Vec<Child>, Failure> {
    let own = std::env::current_exe()?;
    let attackers = cluster.nodes().iter().map(|node| {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(&own);
        command.args(["--attack", name, &node.address(), &cluster.certificates()]);
        command.spawn()
    });
    Ok(attackers.collect::<Result<Vec<Child>, _>>()?)
}

/// Ends an attacker, which must not have ended by itself: then nobody would have been attacked.
fn end(attacker: &mut Child) -> Result<(), Failure> {
    if let Some(status) = attacker.try_wait()? {
        return Err(format!("an attacker has ended by itself: {status}").into());
    }
    attacker.kill()?;
    attacker.wait()?;
    Ok(())
}

/// Resident bytes of each node.
fn memory(cluster: &TestCluster) -> Result<Vec<i64>, Failure> {
    let mut resident = Vec::new();
    for node in cluster.nodes() {
        let pid = node.pid().ok_or_else(|| format!("{} does not run", node.name()))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: i64 = kib.ok_or("no VmRSS in the status of a process")?.trim().parse()?;
        resident.push(kib * 1024);
    }
    Ok(resident)
}
