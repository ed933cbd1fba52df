//! The end of a run: faults off, everything heals, and everything that anybody holds is read and handed to the checker.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use highwater::Profile;
use highwater_verify::History;
use highwater_verify::history::{Dump, Healing, IncidentKind};
use highwater_verify::workload::scan_replicas;

use super::logs::{self, ReplicaLog};
use super::stage::{Ended, Load, Result, Stage, TOPIC};
use super::storage;

/// What a replica may take to be read from its start to its end.
pub(crate) const SCAN_DEADLINE: Duration = Duration::from_secs(120);
/// Long enough for followers to hear of the last commit, and for logs to note it.
const REST: Duration = Duration::from_millis(2_500);
/// How often files are looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The group of the audit's topic, where that was made first.
const AUDIT_GROUP: u64 = 1;
/// How long damaged files may take to be whole again.
const WHOLE_DEADLINE: Duration = Duration::from_secs(60);

/// What is there at the end.
pub(crate) struct Finished {
    pub(crate) history: History,
    pub(crate) compared: logs::Compared,
    /// Of the topic that is trimmed.
    pub(crate) trimmed: Option<String>,
}

/// Faults off; everything must heal; then everything that anybody holds is read.
pub(crate) fn finish(stage: &mut Stage, load: Load, problems: &mut Vec<String>) -> Result<Finished> {
    stage.attached.clear();
    stage.links.heal();
    let cast: Vec<usize> = stage.cast.iter().copied().collect();
    stage.resume(&cast);
    let is_down = |node: &usize| stage.cluster.nodes()[*node].pid().is_none();
    let down: Vec<usize> = cast.iter().copied().filter(is_down).collect();
    if !stage.images.is_empty() && !down.is_empty() && !problems.is_empty() {
        // A scenario that ended badly may have left a disk without power.
        for node in &down {
            stage.images[*node].restore()?;
        }
    }
    stage.start(&down);
    let healed_ns = stage.clock.now_ns();
    let healed = stage.wait_all_serve("after the last fault");
    let served_ns = healed.is_ok().then(|| stage.clock.now_ns());
    match healed {
        Err(Ended::Stopped) => return Err(Ended::Stopped),
        Err(Ended::Failed(why)) => problems.push(why),
        Ok(()) => {}
    }
    let running = stage.running.take().ok_or_else(|| "the workload is gone".to_owned())?;
    let mut history = stage.runtime.block_on(running.stop());
    for partition in 0..load.partitions {
        let healing = Healing {
            partition,
            healed_ns,
            served_ns,
            // Seen from outside only: producers reached the one that took their records.
            leaders: u32::from(served_ns.is_some()),
            memberships: 1,
        };
        history.record_healing(healing);
    }
    scan(stage, &mut history, problems)?;
    let trimmed = stage.finish_trimmed(problems)?;
    stage.notice_ended_nodes();
    wait_whole(stage);
    stage.kill(&cast);
    notice_panics(stage);
    history.watch_incidents();
    history.merge(std::mem::take(&mut stage.history));
    let compared = read_logs(stage, &mut history, load, problems);
    Ok(Finished {
        history,
        compared,
        trimmed,
    })
}

fn scan(stage: &Stage, history: &mut History, problems: &mut Vec<String>) -> Result<()> {
    let profile = Profile::load(stage.cluster.profile()).map_err(|error| error.to_string())?;
    let (settings, clock) = (profile.builder(), stage.clock);
    let scans = stage
        .runtime
        .block_on(scan_replicas(&settings, TOPIC, clock, SCAN_DEADLINE, history));
    match scans {
        Ok(scans) => problems.extend(
            scans
                .problems
                .into_iter()
                .map(|problem| format!("not scanned: {problem}")),
        ),
        Err(error) => problems.push(format!("the final scan: {error}")),
    }
    Ok(())
}

/// At rest nothing is written any more, all logs come to the same end, and what was damaged is refilled within a minute. If
/// not, the comparison tells.
fn wait_whole(stage: &Stage) {
    let began = Instant::now();
    while began.elapsed() < WHOLE_DEADLINE {
        std::thread::sleep(LOOK_INTERVAL);
        let nodes = stage.cast.iter().map(|node| &stage.cluster.nodes()[*node]);
        let read: std::result::Result<Vec<_>, _> = nodes.map(|node| logs::read_node(node.data_dir())).collect();
        // Replicas that were given up keep what they had when they were.
        if read.is_ok_and(|read| began.elapsed() > REST || are_settled(read.iter().flatten())) {
            return;
        }
    }
}

/// Whether all replicas of each group have the same end, and have noted that it is committed.
fn are_settled<'a>(replicas: impl Iterator<Item = &'a ReplicaLog>) -> bool {
    let mut ends = BTreeMap::new();
    replicas.into_iter().all(|log| {
        let end = log.entries.last().map_or(0, |last| last.index + 1);
        log.committed_end >= end && *ends.entry(log.group).or_insert(end) == end
    })
}

fn notice_panics(stage: &mut Stage) {
    for node in stage.cast.clone() {
        let log = stage.cluster.nodes()[node].log();
        let panics: Vec<String> = log
            .lines()
            .filter(|line| line.contains("panicked at"))
            .map(str::to_owned)
            .collect();
        for line in panics {
            stage.incident(Some(node), IncidentKind::Panic, line);
        }
    }
}

/// Groups are numbered as they were made: the catalog is 0, then comes the audit, the partitions of the topic follow in order, and then
/// that of the trimmed topic, which has a history of its own.
fn read_logs(stage: &Stage, history: &mut History, load: Load, problems: &mut Vec<String>) -> logs::Compared {
    let mut nodes = Vec::new();
    for number in stage.cast.iter().copied() {
        let node = &stage.cluster.nodes()[number];
        let read = match logs::read_node(node.data_dir()) {
            Ok(read) => read,
            Err(why) => {
                problems.push(format!("{}'s files at the end: {why}", node.name()));
                continue;
            }
        };
        nodes.push((number, node.name().to_owned(), read));
    }
    let groups = nodes.iter().flat_map(|(_, _, logs)| logs.iter().map(|log| log.group));
    let mut groups: Vec<u64> = groups.filter(|group| *group != 0).collect();
    groups.sort_unstable();
    groups.dedup();
    match stage.is_audited_first {
        true => groups.retain(|group| *group != AUDIT_GROUP),
        false => groups.truncate(load.partitions_of_all() as usize),
    }
    if groups.len() != load.partitions_of_all() as usize {
        problems.push(format!(
            "{} partitions, but the groups on disk are {groups:?}",
            load.partitions_of_all()
        ));
    }
    groups.truncate(load.partitions as usize);
    for (number, _, logs) in &nodes {
        for log in logs {
            let Some(partition) = groups.iter().position(|group| *group == log.group) else {
                continue;
            };
            let dump = Dump {
                at_ns: stage.clock.now_ns(),
                partition: partition as u32,
                replica: log.replica,
                node: *number as u32,
                committed_end: log.committed_end,
                last: true,
            };
            history.record_dump(dump, log.entries.iter().copied());
        }
    }
    let named: Vec<_> = nodes.into_iter().map(|(_, name, logs)| (name, logs)).collect();
    logs::compare(&named)
}

/// Keeps the history, the nodes' logs and their files in a directory.
pub(crate) fn keep_evidence(directory: &Path, stage: &Stage, history: &History) {
    let kept = fs::create_dir_all(directory)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            history
                .save(&directory.join("history"))
                .map_err(|error| error.to_string())?;
            stage.cast.iter().try_for_each(|node| {
                let node = &stage.cluster.nodes()[*node];
                let logs = storage::copy_directory(&node.data_dir().join("groups"), &directory.join(node.name()));
                logs.and_then(|()| fs::write(directory.join(format!("{}.log", node.name())), node.log()))
                    .map_err(|error| error.to_string())
            })
        });
    match kept {
        Ok(()) => println!(
            "the history, the nodes' logs and their files are in {}",
            directory.display()
        ),
        Err(why) => println!("the evidence could not be kept in {}: {why}", directory.display()),
    }
}
