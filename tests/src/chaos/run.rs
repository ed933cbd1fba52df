//! One run, from the first record to the verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use highwater_verify::history::FaultKind;
use highwater_verify::{Invariant, Outcome, Requirements, Verdict, check};

use super::disks::{self, FileSystem};
use super::ending::{Finished, finish, keep_evidence};
use super::outage::Outages;
use super::sandbox::{Place, Stop};
use super::scenarios::{Amount, Scenario, deck};
use super::stage::{Ended, HEAL_DEADLINE, IN_FLIGHT_MAX, Load, NODES, Result, Setting, Stage};
use super::storage;

/// Acknowledgements between two faults.
pub(crate) const BETWEEN_FAULTS: u64 = 2_000;
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
                in_flight_max: IN_FLIGHT_MAX,
                delivery_deadline: None,
                trims: false,
            },
            Amount::Rounds(_) | Amount::Only(..) => Load {
                partitions: 3,
                producers: 6,
                send_interval: Duration::from_millis(1),
                value_bytes_max: 400,
                in_flight_max: IN_FLIGHT_MAX,
                delivery_deadline: None,
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
    let setting = Setting::of_chaos(plan.seed, plan.load(), missing.images.is_none());
    let mut stage = Stage::set(&setting, place, stop).map_err(in_words)?;
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
        keep_evidence(&plan.evidence.join(plan.seed.to_string()), &stage, &finished.history);
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
    // What loses a replica for good may come only when those lost before have been replaced: no cluster of three stands two.
    let replicas = partitions as usize * NODES;
    if card.may_lose_replicas() {
        stage.wait_complete(replicas, "before the loss of replicas")?;
    }
    stage.play(card)?;
    stage.wait_progress(BETWEEN_FAULTS, "after the fault")?;
    match card.loses_replicas() {
        true => stage.wait_complete(replicas, "after the loss of replicas"),
        false => Ok(()),
    }
}

/// What a run must have had to count.
pub(crate) fn requirements(acknowledged_min: u64, replicas_min: u64, faults: Vec<(FaultKind, u64)>) -> Requirements {
    use Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I12, I15, I16, I17};
    Requirements {
        acknowledged_min,
        read_min: acknowledged_min,
        replicas_min,
        faults,
        around_fault_min: 100,
        around_fault_ns: HEAL_DEADLINE.as_nanos() as u64,
        judged: vec![I1, I2, I3, I4, I5, I6, I7, I8, I12, I15, I16, I17],
    }
}

fn judge(plan: &Plan, finished: &Finished, power: bool, problems: Vec<String>) -> Report {
    let requirements = requirements(plan.acknowledged_min, NODES as u64, plan.faults_min(power));
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
