//! One run, from the first record to the verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use highwater::Profile;
use highwater_verify::history::{Dump, FaultKind, Healing, IncidentKind};
use highwater_verify::workload::scan_replicas;
use highwater_verify::{History, Invariant, Outcome, Requirements, Verdict, check};

use super::disks::{self, FileSystem};
use super::logs;
use super::outage::Outages;
use super::sandbox::{Place, Stop};
use super::scenarios::{Amount, Scenario, deck};
use super::stage::{Ended, HEAL_DEADLINE, Load, NODES, Result, Stage, TOPIC};
use super::storage;

/// Acknowledgements between two faults.
pub(crate) const BETWEEN_FAULTS: u64 = 2_000;
/// What a replica may take to be read from its start to its end.
pub(crate) const SCAN_DEADLINE: Duration = Duration::from_secs(120);
/// Long enough for followers to hear of the last commit, and for logs to note it.
const REST: Duration = Duration::from_millis(2_500);
/// How long damaged files may take to be whole again.
const WHOLE_DEADLINE: Duration = Duration::from_secs(60);

/// What a run does and must show.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all choices come from.
    pub seed: u64,
    /// How much is done.
    pub amount: Amount,
    /// How many records must be acknowledged for the run to count.
    pub acknowledged_min: u64,
    /// Where the history and the nodes' logs of a failed run are kept.
    pub evidence: PathBuf,
}

impl Plan {
    pub(crate) fn load(&self) -> Load {
        match self.amount {
            Amount::Short => Load {
                partitions: 2,
                producers: 2,
                send_interval: Duration::from_millis(2),
                value_bytes_max: 200,
                trims: false,
            },
            Amount::Rounds(_) | Amount::Only(..) => Load {
                partitions: 3,
                producers: 6,
                send_interval: Duration::from_millis(1),
                value_bytes_max: 400,
                trims: true,
            },
        }
    }

    /// Kinds of faults and how many of each must have bitten; storage faults are counted together.
    fn faults_min(&self, power: bool) -> Vec<(FaultKind, u64)> {
        let counts = |kill, link, pause, cut| {
            let mut wanted = vec![
                (FaultKind::Kill, kill),
                (FaultKind::LinkCut, link),
                (FaultKind::Pause, pause),
            ];
            wanted.extend(power.then_some((FaultKind::PowerCut, cut)));
            wanted
        };
        match self.amount {
            Amount::Only(..) => Vec::new(),
            Amount::Short => counts(2, 2, 1, 4),
            Amount::Rounds(rounds) => {
                let rounds = rounds as u64;
                counts(7 * rounds, 7 * rounds, 3 * rounds, 7 * rounds)
            }
        }
    }

    fn storage_faults_min(&self) -> u64 {
        match self.amount {
            Amount::Only(..) => 0,
            Amount::Short => 1,
            Amount::Rounds(rounds) => 4 * rounds as u64,
        }
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// The checker's judgement of the history.
    pub verdict: Verdict,
    /// What else is wrong: scenarios that ended badly, replicas that differ on disk.
    pub problems: Vec<String>,
    /// Why the run proves less than it should, beside the checker's reasons.
    pub void: Vec<String>,
    /// What could not be done here, how often, and why.
    pub skipped: Vec<(String, u64, String)>,
    figures: Vec<String>,
}

impl Report {
    /// In one word.
    pub fn outcome(&self) -> Outcome {
        if !self.problems.is_empty() || self.verdict.outcome == Outcome::Fail {
            Outcome::Fail
        } else if !self.void.is_empty() {
            Outcome::Void
        } else {
            self.verdict.outcome
        }
    }

    /// How many scenarios and kinds of disks could not be had here.
    pub fn skipped_count(&self) -> u64 {
        self.skipped.iter().map(|(_, count, _)| count).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        for line in &self.figures {
            writeln!(f, "  {line}")?;
        }
        for (scenario, count, why) in &self.skipped {
            writeln!(f, "  SKIPPED   {count} × {scenario}: {why}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  PROBLEM   {problem}")?;
        }
        for reason in &self.void {
            writeln!(f, "  VOID      {reason}")?;
        }
        let skipped = match self.skipped_count() {
            0 => String::new(),
            count => format!(", but {count} things were SKIPPED"),
        };
        writeln!(f, "chaos: {:?}{skipped}; seed {}", self.outcome(), self.verdict.seed)
    }
}

/// What this machine cannot do, with the reason.
pub(crate) struct Missing {
    pub(crate) images: Option<String>,
    pub(crate) strace: Option<String>,
}

impl Missing {
    pub(crate) fn find(place: &Place) -> Self {
        let missing = Self {
            images: disks::try_cut(place.path()).err(),
            strace: storage::try_syncs().err(),
        };
        for (what, why) in [("power cuts", &missing.images), ("changed syncs", &missing.strace)] {
            if let Some(why) = why {
                eprintln!("WARNING: no {what} on this machine: {why}");
            }
        }
        missing
    }

    fn reason(&self, scenario: Scenario) -> Option<&String> {
        let images = self.images.as_ref().filter(|_| scenario.needs_images());
        images.or(self.strace.as_ref().filter(|_| scenario.needs_strace()))
    }
}

/// Plays the whole run. An error: the run could not even begin, or was told to stop.
pub fn run(plan: &Plan, stop: Stop) -> std::result::Result<Report, String> {
    let place = Place::make()?;
    let missing = Missing::find(&place);
    let stage = Stage::set(plan.seed, plan.load(), missing.images.is_none(), place, stop);
    let mut stage = stage.map_err(in_words)?;
    let mut skipped: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut cards = deck(&plan.amount, &mut stage.random);
    cards.retain(|card| match missing.reason(*card) {
        Some(why) => {
            skipped.entry(card.to_string()).or_insert((0, why.clone())).0 += 1;
            false
        }
        None => true,
    });
    if missing.images.is_none() {
        for absent in FileSystem::ALL.into_iter().filter(|kind| !kind.is_here()) {
            let why = format!("{} is not installed", absent.maker());
            eprintln!("WARNING: no disks of {absent} on this machine: {why}");
            skipped.insert(format!("disks of {absent}"), (1, why));
        }
    }
    let disks: Vec<String> = stage.images.iter().map(|image| image.kind().to_string()).collect();
    println!(
        "seed {}: {} scenarios, disks {disks:?}, in {}",
        plan.seed,
        cards.len(),
        stage.place.path().display()
    );
    let mut problems = Vec::new();
    let began = Instant::now();
    for (number, card) in cards.iter().enumerate() {
        match play(&mut stage, *card, plan.load().partitions_of_all()) {
            Ok(()) => {}
            Err(Ended::Stopped) => return Err("stopped before its end: no verdict".to_owned()),
            Err(Ended::Failed(why)) => {
                problems.push(format!("scenario {}, {card}: {why}", number + 1));
                break;
            }
        }
        let (at, acknowledged) = (began.elapsed().as_secs_f64(), stage.acknowledged());
        println!(
            "{:>4}/{} {at:>7.1} s {acknowledged:>9} records  {card}",
            number + 1,
            cards.len()
        );
    }
    let finished = finish(&mut stage, plan.load(), &mut problems).map_err(in_words)?;
    let mut report = judge(plan, &finished, missing.images.is_none(), problems);
    report.skipped = skipped
        .into_iter()
        .map(|(card, (count, why))| (card, count, why))
        .collect();
    report.figures.extend(finished.trimmed.clone());
    report.figures.extend(figures(&stage.outage));
    if matches!(plan.amount, Amount::Rounds(_))
        && missing.images.is_none()
        && stage.outage.cuts_of_all * 2 < stage.outage.cuts
    {
        report
            .void
            .push("fewer than half of the power cuts hit all nodes".to_owned());
    }
    if report.outcome() == Outcome::Fail {
        keep_evidence(plan, &stage, &finished.history);
    }
    Ok(report)
}

pub(crate) fn in_words(ended: Ended) -> String {
    match ended {
        Ended::Stopped => "stopped before its end: no verdict".to_owned(),
        Ended::Failed(why) => why,
    }
}

fn play(stage: &mut Stage, card: Scenario, partitions: u32) -> Result<()> {
    stage.wait_progress(BETWEEN_FAULTS, "before the fault")?;
    stage.play(card)?;
    stage.wait_progress(BETWEEN_FAULTS, "after the fault")?;
    // What loses a replica for good may come again only when that one has been replaced: no cluster of three stands two.
    match card.loses_replicas() {
        true => stage.wait_complete(partitions, "after the loss of replicas"),
        false => Ok(()),
    }
}

/// What is there at the end.
pub(crate) struct Finished {
    pub(crate) history: History,
    compared: logs::Compared,
    /// Of the topic that is trimmed.
    trimmed: Option<String>,
}

/// Faults off; everything must heal; then everything that anybody holds is read.
pub(crate) fn finish(stage: &mut Stage, load: Load, problems: &mut Vec<String>) -> Result<Finished> {
    stage.attached.clear();
    stage.links.heal();
    stage.resume(&(0..NODES).collect::<Vec<_>>());
    let down: Vec<usize> = (0..NODES)
        .filter(|node| stage.cluster.nodes()[*node].pid().is_none())
        .collect();
    if !stage.images.is_empty() && !down.is_empty() && !problems.is_empty() {
        // A scenario that ended badly may have left a disk without power.
        for node in &down {
            stage.images[*node].restore()?;
        }
    }
    stage.start(&down);
    let healed_ns = stage.clock.now_ns();
    let healed = stage.wait_progress(load.proves_all_serve(), "after the last fault");
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
    stage.kill(&(0..NODES).collect::<Vec<_>>());
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

/// At rest nothing is written any more, and what was damaged is refilled within a minute. If not, the comparison tells.
fn wait_whole(stage: &Stage) {
    let end = Instant::now() + WHOLE_DEADLINE;
    loop {
        std::thread::sleep(REST);
        let mut nodes = stage.cluster.nodes().iter();
        if nodes.all(|node| logs::read_node(node.data_dir()).is_ok()) || Instant::now() > end {
            return;
        }
    }
}

fn notice_panics(stage: &mut Stage) {
    for node in 0..NODES {
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

/// Groups are numbered as they were made: the catalog is 0, the partitions of the topic follow in order, and then that of the
/// trimmed topic, which has a history of its own.
fn read_logs(stage: &Stage, history: &mut History, load: Load, problems: &mut Vec<String>) -> logs::Compared {
    let mut nodes = Vec::new();
    for (number, node) in stage.cluster.nodes().iter().enumerate() {
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

fn judge(plan: &Plan, finished: &Finished, power: bool, problems: Vec<String>) -> Report {
    use Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I12, I15, I16, I17};
    let requirements = Requirements {
        acknowledged_min: plan.acknowledged_min,
        read_min: plan.acknowledged_min,
        replicas_min: NODES as u64,
        faults: plan.faults_min(power),
        around_fault_min: 100,
        around_fault_ns: HEAL_DEADLINE.as_nanos() as u64,
        judged: vec![I1, I2, I3, I4, I5, I6, I7, I8, I12, I15, I16, I17],
    };
    let verdict = check(&finished.history, &requirements);
    let storage = [
        FaultKind::DiskError,
        FaultKind::DiskFull,
        FaultKind::DiskSlow,
        FaultKind::BitRot,
    ];
    let bit = verdict.faults.iter().filter(|figure| storage.contains(&figure.kind));
    let (bit, wanted) = (bit.map(|figure| figure.bit).sum::<u64>(), plan.storage_faults_min());
    let void = (bit < wanted).then(|| format!("{bit} storage faults did something, at least {wanted} are wanted"));
    let idle: u64 = verdict.faults.iter().map(|figure| figure.count - figure.bit).sum();
    let idle = (idle > 0).then(|| format!("{idle} faults did nothing"));
    let mut problems = problems;
    problems.extend(finished.compared.divergent.iter().cloned());
    Report {
        verdict,
        problems,
        void: void.into_iter().chain(idle).collect(),
        skipped: Vec::new(),
        figures: vec![
            format!("storage   {bit} faults of disks did something"),
            format!(
                "on disk   {} entries are equal on two replicas, byte for byte",
                finished.compared.equal
            ),
        ],
    }
}

fn figures(outage: &Outages) -> Vec<String> {
    let mut lines = Vec::new();
    if outage.cuts > 0 {
        lines.push(format!(
            "power     {} cuts, {} of all nodes (within {:.1} ms); of {} frozen nodes {} lost unsynced bytes of logs, {} in all",
            outage.cuts,
            outage.cuts_of_all,
            outage.spread_max.as_secs_f64() * 1_000.0,
            outage.measured,
            outage.measured_with_loss,
            outage.bytes_lost
        ));
    }
    lines
}

fn keep_evidence(plan: &Plan, stage: &Stage, history: &History) {
    let directory = plan.evidence.join(plan.seed.to_string());
    let kept = fs::create_dir_all(&directory)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            history
                .save(&directory.join("history"))
                .map_err(|error| error.to_string())?;
            stage.cluster.nodes().iter().try_for_each(|node| {
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
