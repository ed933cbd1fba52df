//! The run: load, faults, evidence, verdict.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use highwater::{Client, Profile};
use highwater_verify::history::{Fault, FaultKind, Handout, NODE_UNKNOWN, Position, Span};
use highwater_verify::workload::{Clock, Workload, scan_replicas};
use highwater_verify::{History, Invariant, Outcome, Requirements, Verdict, check};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::crew::Crew;
use super::pauses::{Change, pauses};
use super::{GROUP, MEMBERS, PARTITIONS, SESSION, TOPIC, monotonic_ns};
use crate::TestCluster;
use crate::chaos::Random;

/// How many nodes there are.
const NODES: usize = 3;
/// Between two records of the producer: 1,000 a second.
const SEND_INTERVAL: Duration = Duration::from_millis(1);
/// How often leaders are asked how far the group is.
const POSITION_INTERVAL: Duration = Duration::from_millis(100);
/// How long nothing is done at the beginning, to compare with.
const CALM: Duration = Duration::from_secs(8);
/// How long everything may take to be consumed after the last fault.
const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
/// How long the final scan of a replica may take.
const SCAN_DEADLINE: Duration = Duration::from_secs(60);
/// No life has this number.
const NOBODY: u32 = u32::MAX;
/// Processes that ask for positions are apart from all others.
const POSITION_PROCESS: u32 = 1 << 30;

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all choices come from.
    pub seed: u64,
    /// How long members and nodes are troubled.
    pub duration: Duration,
    /// The program whose `member` command is a member.
    pub program: PathBuf,
    /// Where the history of a failed run is kept.
    pub evidence: PathBuf,
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// The checker's judgement.
    pub verdict: Verdict,
    /// What else is wrong.
    pub problems: Vec<String>,
    figures: Vec<String>,
}

impl Report {
    /// In one word.
    pub fn outcome(&self) -> Outcome {
        match self.problems.is_empty() {
            true => self.verdict.outcome,
            false => Outcome::Fail,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.verdict)?;
        for line in &self.figures {
            writeln!(f, "  {line}")?;
        }
        for problem in &self.problems {
            writeln!(f, "  PROBLEM   {problem}")?;
        }
        writeln!(f, "groups: {:?}; seed {}", self.outcome(), self.verdict.seed)
    }
}

/// What is done to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KillMember,
    PauseMember,
    RestartMember,
    KillNode,
    PauseNode,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::KillMember,
    Trouble::KillMember,
    Trouble::PauseMember,
    Trouble::PauseMember,
    Trouble::RestartMember,
    Trouble::KillNode,
    Trouble::PauseNode,
];

struct Show {
    cluster: TestCluster,
    crew: Crew,
    random: Random,
    clock: Clock,
    faults: Vec<Fault>,
    /// A time in which nothing happened.
    calm: Option<Change>,
    /// Times in which something happened to one member and to nothing else.
    changes: Vec<Change>,
}

/// Plays a run. An error: it could not even begin, or not end.
///
/// # Errors
/// Why, in words.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let cluster = TestCluster::start(NODES);
    cluster.create_topic(TOPIC, PARTITIONS);
    let clock = Clock::start();
    let zero_ns = monotonic_ns() - clock.now_ns();
    let profile = Profile::load(cluster.profile()).map_err(in_words)?;
    let client = runtime.block_on(Client::from_profile(&profile)).map_err(in_words)?;
    let workload = Workload {
        producers: 1,
        consumers_per_partition: 0,
        readers: 0,
        send_interval: SEND_INTERVAL,
        ..Workload::new(TOPIC, plan.seed)
    };
    let running = runtime
        .block_on(workload.start(client.clone(), clock))
        .map_err(in_words)?;
    let crew = Crew::new(plan.program.clone(), cluster.profile(), cluster.directory(), MEMBERS);
    let mut show = Show {
        cluster,
        crew,
        random: Random::new(plan.seed),
        clock,
        faults: Vec::new(),
        calm: None,
        changes: Vec::new(),
    };
    let (stop, asker) = ask_positions(&runtime, client.clone(), clock);
    show.play(plan.duration)?;
    let mut history = runtime.block_on(running.stop());
    let drained = runtime.block_on(wait_drained(&client));
    stop.send_replace(true);
    history.merge(runtime.block_on(asker).map_err(|error| error.to_string())?);
    (0..MEMBERS).for_each(|seat| show.crew.stop(seat));
    let settings = profile.builder();
    let scans = runtime.block_on(scan_replicas(&settings, TOPIC, clock, SCAN_DEADLINE, &mut history));
    let scans = scans.map_err(in_words)?;
    let handouts = show.crew.collect(&mut history, zero_ns);
    show.faults.iter().for_each(|fault| history.record_fault(fault.clone()));
    let verdict = check(&history, &requirements(&show.faults));
    let mut problems = std::mem::take(&mut show.crew.complaints);
    problems.extend(drained.err());
    problems.extend(scans.problems);
    let waits = pauses(&handouts, &show.changes);
    let calm = pauses(&handouts, show.calm.as_slice());
    let report = Report {
        verdict,
        problems,
        figures: figures(&handouts, &waits, &calm, show.crew.lives.len()),
    };
    if report.outcome() == Outcome::Fail {
        keep(plan, &history);
    }
    Ok(report)
}

impl Show {
    fn play(&mut self, duration: Duration) -> Result<(), String> {
        (0..MEMBERS).try_for_each(|seat| self.crew.start(seat))?;
        std::thread::sleep(SESSION + Duration::from_secs(1));
        let began_ns = self.clock.now_ns();
        std::thread::sleep(CALM);
        self.calm = Some(Change {
            during_ns: began_ns..self.clock.now_ns(),
            life: NOBODY,
        });
        let end = Instant::now() + duration;
        while Instant::now() < end {
            let trouble = TROUBLES[self.random.below(TROUBLES.len())];
            let began_ns = self.clock.now_ns();
            let (kind, life) = self.make(trouble)?;
            // Until all is shared out anew.
            std::thread::sleep(SESSION + Duration::from_secs(1));
            let ended_ns = self.clock.now_ns();
            if let Some(life) = life {
                let during_ns = began_ns..ended_ns;
                self.changes.push(Change { during_ns, life });
            }
            println!("{:>7.1} s  {trouble:?}", ended_ns as f64 / 1e9);
            self.faults.push(Fault {
                kind,
                node: NODE_UNKNOWN,
                begin_ns: began_ns,
                end_ns: ended_ns,
                bitten: 1,
                evidence: format!("{trouble:?}"),
            });
            self.crew.check();
            self.rest(500, 2_000);
        }
        Ok(())
    }

    fn rest(&mut self, least_ms: u64, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.between(least_ms, most_ms)));
    }

    /// What it was, and which life of a member it happened to, if it did.
    fn make(&mut self, trouble: Trouble) -> Result<(FaultKind, Option<u32>), String> {
        let seat = self.random.below(MEMBERS);
        let life = Some(self.crew.seats[seat].life);
        let node = self.random.below(NODES);
        // Shorter than a session, and longer.
        let (short_ms, long_ms) = (SESSION.as_millis() as u64 / 4, SESSION.as_millis() as u64 * 2);
        match trouble {
            Trouble::KillMember => {
                self.crew.kill(seat);
                self.rest(short_ms, long_ms);
                self.crew.start(seat)?;
                return Ok((FaultKind::Kill, life));
            }
            Trouble::PauseMember => {
                self.crew.signal(seat, Signal::STOP);
                self.rest(short_ms, long_ms);
                self.crew.signal(seat, Signal::CONT);
                return Ok((FaultKind::Pause, life));
            }
            Trouble::RestartMember => {
                self.crew.stop(seat);
                self.crew.start(seat)?;
                return Ok((FaultKind::Membership, life));
            }
            Trouble::KillNode => {
                self.cluster.node(node).kill();
                self.rest(short_ms, long_ms);
                self.cluster.node(node).start();
            }
            Trouble::PauseNode => {
                self.cluster.node(node).pause();
                self.rest(short_ms, long_ms);
                self.cluster.node(node).resume();
                return Ok((FaultKind::Pause, None));
            }
        }
        Ok((FaultKind::Kill, None))
    }
}

/// Asks all the time how far the group is.
fn ask_positions(runtime: &Runtime, client: Client, clock: Clock) -> (watch::Sender<bool>, JoinHandle<History>) {
    let (stop, mut stopped) = watch::channel(false);
    let asking = async move {
        let mut history = History::default();
        loop {
            ask_once(&client, clock, &mut history).await;
            let is_stopped = tokio::time::timeout(POSITION_INTERVAL, stopped.wait_for(|stop| *stop))
                .await
                .is_ok();
            if is_stopped {
                ask_once(&client, clock, &mut history).await;
                return history;
            }
        }
    };
    (stop, runtime.spawn(asking))
}

async fn ask_once(client: &Client, clock: Clock, history: &mut History) {
    let invoked_ns = clock.now_ns();
    let Ok(found) = client.groups().describe(TOPIC, GROUP).await else {
        return; // nobody leads just now
    };
    let span = Span {
        process: POSITION_PROCESS,
        invoked_ns,
        returned_ns: clock.now_ns(),
    };
    for on in found {
        history.record_position(Position {
            span,
            partition: on.partition,
            claim: on.claim,
            offset: on.offset.unwrap_or(0),
        });
    }
}

/// Waits until the group has consumed everything.
async fn wait_drained(client: &Client) -> Result<(), String> {
    let end = Instant::now() + DRAIN_DEADLINE;
    loop {
        let found = client.groups().describe(TOPIC, GROUP).await;
        let lag = found.map(|found| (found.len(), found.iter().map(|on| on.lag()).sum::<u64>()));
        match lag {
            Ok((partitions, 0)) if partitions == PARTITIONS as usize => return Ok(()),
            lag if Instant::now() > end => return Err(format!("not everything was consumed in the end: {lag:?}")),
            _ => tokio::time::sleep(POSITION_INTERVAL).await,
        }
    }
}

fn requirements(faults: &[Fault]) -> Requirements {
    use Invariant::{I1, I2, I3, I4, I5, I7, I10, I12};
    let count = |kind| faults.iter().filter(|fault| fault.kind == kind).count() as u64;
    Requirements {
        acknowledged_min: 1_000,
        replicas_min: NODES as u64,
        faults: [FaultKind::Kill, FaultKind::Pause]
            .map(|kind| (kind, count(kind).min(1)))
            .to_vec(),
        judged: vec![I1, I2, I3, I4, I5, I7, I10, I12],
        ..Requirements::default()
    }
}

fn figures(handouts: &[Handout], waits: &[Duration], calm: &[Duration], lives: usize) -> Vec<String> {
    let mut places: Vec<(u32, u64)> = handouts
        .iter()
        .map(|handout| (handout.partition, handout.offset))
        .collect();
    places.sort_unstable();
    places.dedup();
    let mut waits = waits.to_vec();
    waits.sort_unstable();
    let milliseconds = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1_000.0);
    let (median, longest) = (milliseconds(waits.get(waits.len() / 2)), milliseconds(waits.last()));
    let calm = milliseconds(calm.first());
    vec![
        format!(
            "members   {lives} lives in {MEMBERS} places; {} records done, {} of them more than once",
            places.len(),
            handouts.len() - places.len()
        ),
        format!(
            "pauses    the longest that a member not affected waited for a record of a partition: {median:.0} ms at the median and \
             {longest:.0} ms at most of {} changes of another member; {calm:.0} ms in {} s without any",
            waits.len(),
            CALM.as_secs()
        ),
    ]
}

fn keep(plan: &Plan, history: &History) {
    let path = plan.evidence.join(format!("groups-{}.history", plan.seed));
    let kept = std::fs::create_dir_all(&plan.evidence).map_err(|error| error.to_string());
    match kept.and_then(|()| history.save(&path).map_err(|error| error.to_string())) {
        Ok(()) => println!("the history is kept in {}", path.display()),
        Err(error) => println!("the history could not be kept: {error}"),
    }
}

fn in_words(error: highwater::Error) -> String {
    error.to_string()
}
