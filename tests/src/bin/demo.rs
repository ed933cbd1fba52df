//! `make demo`: what Highwater promises, as a short story with a verdict.
//!
//! Three node processes, a topic, a real text, a killed leader. Every line that was acknowledged must be there
//! once, in order, byte for byte. The exit status is the verdict.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use highwater_tests::{Acknowledgement, Produced, Producing, TestCluster, run};

const TOPIC: &str = "library";
const PARTITIONS: u32 = 3;
/// The text must be no toy.
const LINES_MIN: usize = 10_000;
/// How far the first production runs ahead of its acknowledgements: many batches, so that every partition gets some.
const FIRST_LINES_AHEAD_MAX: usize = 2_000;
/// The same for the second one: so little that the kill falls into its middle.
const SECOND_LINES_AHEAD_MAX: usize = 400;
const STEP_DEADLINE: Duration = Duration::from_secs(40);

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let started = Instant::now();
    match story() {
        Ok(()) => {
            println!(
                "\nDone in {:.1} s. Nothing was lost, doubled, reordered or changed.",
                seconds(started)
            );
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("\nFAILED after {:.1} s: {why}", seconds(started));
            ExitCode::FAILURE
        }
    }
}

fn story() -> Result<()> {
    println!("Highwater: a record that is acknowledged is on the disks of a majority.\n");
    let mut cluster = start_cluster();
    create_topic(&mut cluster);
    let text = text()?;
    let first = produce(&cluster, &text);
    check_acknowledged(&first, &text)?;
    read_back(&mut cluster, &text, &first)?;
    let second = produce_while_the_leader_dies(&mut cluster, &text)?;
    verify(&cluster, &text, &[first, second])
}

fn start_cluster() -> TestCluster {
    let started = Instant::now();
    let cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    println!(
        "1. Three nodes, each its own process and disk, mutual TLS on every connection ({:.1} s):",
        seconds(started)
    );
    for node in cluster.nodes() {
        println!(
            "     {}  pid {}  {}",
            node.name(),
            node.pid().unwrap_or(0),
            node.address()
        );
    }
    cluster
}

fn create_topic(cluster: &mut TestCluster) {
    cluster.create_topic(TOPIC, PARTITIONS);
    println!("2. A topic `{TOPIC}` with {PARTITIONS} partitions, three replicas each:");
    for partition in 0..PARTITIONS as usize {
        let leader = cluster.leader(TOPIC, partition);
        println!(
            "     partition {partition} is led by {}",
            cluster.nodes()[leader].name()
        );
    }
}

/// The lines of this project's own source and documents, one file after the other.
fn text() -> Result<Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![
        root.join("Cargo.lock"),
        root.join("README.md"),
        root.join("ARCHITECTURE.md"),
    ];
    for room in ["api", "internal", "cmd", "tests"] {
        collect_files(&root.join(room), &mut files)?;
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let content = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        lines.extend(content.split_inclusive(|byte| *byte == b'\n').map(without_newline));
    }
    if lines.len() < LINES_MIN {
        return Err(format!(
            "the text has {} lines only; {LINES_MIN} are needed",
            lines.len()
        ));
    }
    Ok(lines)
}

fn collect_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error| format!("cannot read {}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_text = path
            .extension()
            .is_some_and(|it| ["rs", "md", "proto", "toml", "py"].iter().any(|wanted| it == *wanted));
        if path.is_dir() {
            collect_files(&path, files)?;
        } else if is_text {
            files.push(path);
        }
    }
    Ok(())
}

fn without_newline(line: &[u8]) -> Vec<u8> {
    line.strip_suffix(b"\n").unwrap_or(line).to_vec()
}

fn produce(cluster: &TestCluster, text: &[Vec<u8>]) -> Produced {
    let started = Instant::now();
    let mut command = cluster.command(&["produce", TOPIC, "-v"]);
    let produced = Producing::start_with(&mut command, FIRST_LINES_AHEAD_MAX, text.to_vec()).wait(STEP_DEADLINE);
    let bytes: usize = text.iter().map(Vec::len).sum();
    println!(
        "3. A real text, the {} lines ({} KB) of this project's source, produced in {:.1} s.",
        text.len(),
        bytes / 1000,
        seconds(started)
    );
    produced
}

fn check_acknowledged(produced: &Produced, text: &[Vec<u8>]) -> Result<()> {
    let acknowledged = produced.acknowledged.len();
    if acknowledged != text.len() || !produced.finished.status.success() {
        let said = produced.finished.stderr.trim();
        return Err(format!(
            "{acknowledged} of {} lines were acknowledged: {said}",
            text.len()
        ));
    }
    Ok(())
}

fn read_back(cluster: &mut TestCluster, text: &[Vec<u8>], produced: &Produced) -> Result<()> {
    let leaders: Vec<usize> = (0..PARTITIONS as usize)
        .map(|partition| cluster.leader(TOPIC, partition))
        .collect();
    let mut command = cluster.command(&consume_arguments());
    let consumed = run(command.arg("-v"), STEP_DEADLINE);
    if !consumed.status.success() {
        return Err(format!("reading failed: {}", consumed.stderr.trim()));
    }
    let found = parse(&consumed.bytes)?;
    compare(&found, text, &[produced])?;
    println!("4. Read back, the same bytes:");
    for (partition, leader) in leaders.iter().enumerate() {
        let leader = cluster.nodes()[*leader].name();
        let count = found.keys().filter(|place| place.0 as usize == partition).count();
        if count == 0 {
            println!("     partition {partition} holds nothing");
            continue;
        }
        let server = served_by(&consumed.stderr, partition).ok_or("nobody said who served the records")?;
        if server == leader {
            return Err(format!(
                "partition {partition} was served by its leader {leader}, not by a follower"
            ));
        }
        println!("     partition {partition}, {count} lines, from {server}, a follower of {leader}");
    }
    Ok(())
}

fn served_by(notes: &str, partition: usize) -> Option<&str> {
    let wanted = format!("{TOPIC}/{partition} is served by ");
    notes.lines().rev().find_map(|line| line.strip_prefix(wanted.as_str()))
}

fn produce_while_the_leader_dies(cluster: &mut TestCluster, text: &[Vec<u8>]) -> Result<Produced> {
    let mut command = cluster.command(&["produce", TOPIC, "-v"]);
    let producing = Producing::start_with(&mut command, SECOND_LINES_AHEAD_MAX, text.to_vec());
    producing.wait_for_more(text.len() / 2, STEP_DEADLINE);
    let victim = cluster.leader(TOPIC, 0);
    let (name, pid) = (
        cluster.nodes()[victim].name().to_owned(),
        cluster.nodes()[victim].pid().unwrap_or(0),
    );
    cluster.node(victim).kill();
    let killed = Instant::now();
    let before = producing.acknowledged();
    println!(
        "5. The same text again. After {before} lines {name}, which leads partition 0, is killed (SIGKILL, pid {pid})."
    );
    if before >= text.len() {
        return Err("the text was over before the kill; there was nothing left to prove".to_owned());
    }
    let successor = cluster.leader(TOPIC, 0);
    println!(
        "     {} leads partition 0 now, {:.1} s later",
        cluster.nodes()[successor].name(),
        seconds(killed)
    );
    let produced = producing.wait(STEP_DEADLINE);
    check_acknowledged(&produced, text)?;
    println!(
        "     all {} lines are acknowledged, {:.1} s after the kill",
        text.len(),
        seconds(killed)
    );
    cluster.node(victim).start();
    cluster.wait_node_ready(victim);
    println!("     {name} is back and has caught up");
    Ok(produced)
}

fn verify(cluster: &TestCluster, text: &[Vec<u8>], produced: &[Produced]) -> Result<()> {
    let consumed = run(&mut cluster.command(&consume_arguments()), STEP_DEADLINE);
    if !consumed.status.success() {
        return Err(format!("reading failed: {}", consumed.stderr.trim()));
    }
    let found = parse(&consumed.bytes)?;
    compare(&found, text, &produced.iter().collect::<Vec<_>>())?;
    println!(
        "6. All {} records read again and compared with both productions, line by line.",
        found.len()
    );
    Ok(())
}

fn consume_arguments() -> [&'static str; 7] {
    [
        "consume",
        TOPIC,
        "--from",
        "beginning",
        "--exit-at-end",
        "--format",
        "%p %o %v",
    ]
}

/// Values by partition and offset. A place that comes twice is an error.
fn parse(output: &[u8]) -> Result<BTreeMap<Acknowledgement, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for line in output.split_inclusive(|byte| *byte == b'\n').map(without_newline) {
        let fields: Vec<&[u8]> = line.splitn(3, |byte| *byte == b' ').collect();
        let [partition, offset, value] = fields[..] else {
            return Err(format!("not a record: {:?}", String::from_utf8_lossy(&line)));
        };
        let place = (number(partition)? as u32, number(offset)?);
        if found.insert(place, value.to_vec()).is_some() {
            return Err(format!("offset {} of partition {} came twice", place.1, place.0));
        }
    }
    Ok(found)
}

fn number(digits: &[u8]) -> Result<u64> {
    let text = String::from_utf8_lossy(digits);
    text.parse().map_err(|_| format!("not a number: {text:?}"))
}

/// Every acknowledged line stands at its place with its bytes; there is nothing else; and within a partition the
/// lines of each production stand in the order in which they were sent.
fn compare(found: &BTreeMap<Acknowledgement, Vec<u8>>, text: &[Vec<u8>], produced: &[&Produced]) -> Result<()> {
    let mut acknowledged = 0;
    for production in produced {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (line, place) in production.acknowledged.iter().enumerate() {
            match found.get(place) {
                None => return Err(format!("line {line} was acknowledged at {place:?} and is not there")),
                Some(value) if *value != text[line] => return Err(format!("line {line} at {place:?} has other bytes")),
                Some(_) => {}
            }
            if last.insert(place.0, place.1).is_some_and(|before| before >= place.1) {
                return Err(format!("line {line} at {place:?} stands before an earlier line"));
            }
            acknowledged += 1;
        }
    }
    if found.len() != acknowledged {
        return Err(format!(
            "{acknowledged} lines were acknowledged, but {} records are there",
            found.len()
        ));
    }
    Ok(())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
