//! The simulated world of one seed: nodes, network, clock, and what is known about them.
//!
//! Everything runs on one thread and one paused clock. Locks are held for a moment only, never over a wait, and never two of
//! them in an order that another place reverses: each method here takes what it needs one by one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{Clock, Log, ReplicaId};
use highwater_partition::simulation::Life;
use highwater_partition::{Member, Partition, Timers, Unstarted};
use highwater_verify::History;
use highwater_verify::history::{Fault, FaultKind, Incident, IncidentKind, Run};
use tokio::time::Instant;

use super::figures::Figures;
use super::network::Network;
use super::old_copy::Restored;
use super::oracle::Oracle;
use super::plan::Plan;
use super::rot::Scar;
use super::shared::Clients;
use super::trace::Trace;
use crate::random::Random;

/// The group under test is the only partition of the history.
pub(crate) const PARTITION: u32 = 0;

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is killed, the machine goes on.
    Kill,
    /// Power is lost.
    PowerCut(Keep),
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) life: Arc<Life>,
    pub(crate) log: Log,
    /// None while it starts.
    pub(crate) partition: Option<Partition>,
}

/// Who answers calls at a node.
pub(crate) enum Callee {
    Serving(Partition),
    Unstarted(Unstarted),
}

/// A node: its disk stays, its lives come and go.
pub(crate) struct Node {
    /// Its replica's Raft id; another one after a loss.
    pub(crate) replica: ReplicaId,
    pub(crate) disk: Arc<SimulatedDisk>,
    /// Whether the log was ever made; from then on it is only opened.
    pub(crate) created: bool,
    /// The vote on its disk was damaged on purpose.
    pub(crate) vote_damaged: bool,
    /// Counts lives.
    pub(crate) boot: u64,
    /// Its replica from the begin of the opening until it serves.
    pub(crate) unstarted: Option<(Unstarted, Arc<Life>)>,
    pub(crate) running: Option<Running>,
    /// Somebody is starting it.
    pub(crate) starting: bool,
    /// Its disk takes so many times as long.
    pub(crate) slowness: u64,
    /// Its clock is ahead by so much.
    pub(crate) skew_ms: u64,
    /// Whether a fault of its disk was arranged, so that the end of its core is explained.
    pub(crate) disk_fault: bool,
    /// Whether the machine starts anew after that fault, so that only what is on the disk is left.
    pub(crate) reboots: bool,
    /// Counts ends of lives and changes of the disk, also while the node only starts.
    pub(crate) cuts: u64,
    /// Its disk was found full.
    pub(crate) was_full: bool,
    /// Its disk was restored from an older copy.
    pub(crate) restored: Option<Restored>,
    /// Its replica is dead: it is not started again.
    pub(crate) dead: bool,
}

/// The world of one seed.
pub(crate) struct World {
    pub(crate) plan: Plan,
    began: Instant,
    nodes: Mutex<Vec<Node>>,
    pub(crate) network: Network,
    trace: Mutex<Trace>,
    oracle: Mutex<Oracle>,
    history: Mutex<History>,
    violations: Mutex<Vec<String>>,
    figures: Mutex<Figures>,
    scars: Mutex<Vec<Scar>>,
    /// Repairs of scars that a power cut took back, or would.
    masked_scars: Mutex<Vec<Scar>>,
    tasks: Mutex<Random>,
    disks: Mutex<Random>,
    pub(super) clients: Mutex<Clients>,
}

/// Locks; a panic elsewhere has been noted as a violation already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(plan: Plan, print: bool) -> Arc<World> {
        let (seed, plan_nodes) = (plan.seed, plan.nodes);
        let run = Run {
            title: format!("group of {}", plan.nodes),
            seed,
            partitions: vec!["group".to_owned()],
            nodes: (0..plan.nodes).map(node_name).collect(),
        };
        let mut disks = Random::stream(seed, "disks", 0);
        let nodes = (0..plan.nodes).map(|number| Node {
            replica: first_replica(number),
            disk: SimulatedDisk::new(disks.any()),
            created: false,
            vote_damaged: false,
            boot: 0,
            unstarted: None,
            running: None,
            starting: false,
            slowness: 1,
            skew_ms: disks.below(2_000),
            disk_fault: false,
            reboots: true,
            cuts: 0,
            was_full: false,
            restored: None,
            dead: false,
        });
        let nodes = nodes.collect();
        let mut history = History::new(run);
        history.watch_incidents();
        Arc::new(World {
            network: Network::new(seed, plan.nodes, plan.delay_ms),
            oracle: Mutex::new(Oracle::new(plan.nodes)),
            tasks: Mutex::new(Random::stream(seed, "tasks", 0)),
            plan,
            began: Instant::now(),
            nodes: Mutex::new(nodes),
            trace: Mutex::new(Trace::new(print)),
            history: Mutex::new(history),
            violations: Mutex::default(),
            figures: Mutex::default(),
            scars: Mutex::default(),
            masked_scars: Mutex::default(),
            disks: Mutex::new(disks),
            clients: Mutex::new(Clients {
                processes: 1_000, // below are the numbers of clients
                replicas: plan_nodes as u64,
                ..Clients::default()
            }),
        })
    }

    /// Nanoseconds since the beginning, for the history.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }

    /// Takes an event into the trace.
    pub(crate) fn note(&self, event: std::fmt::Arguments<'_>) {
        lock(&self.trace).record(self.now_ms(), event);
    }

    pub(crate) fn trace_sum(&self) -> (u64, u64) {
        lock(&self.trace).sum()
    }

    /// Something that must not be.
    pub(crate) fn violation(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        lock(&self.violations).push(format!("at {} ms: {what}", self.now_ms()));
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// A core or a process that ended, and no fault explains it.
    pub(crate) fn incident(&self, node: usize, kind: IncidentKind, text: String) {
        self.note(format_args!("INCIDENT n{node} {text}"));
        let at_ns = self.now_ns();
        let node = node as u32;
        lock(&self.history).record_incident(Incident {
            at_ns,
            node,
            kind,
            text,
        });
    }

    pub(crate) fn fault(&self, kind: FaultKind, node: u32, begin_ns: u64, bitten: u64, evidence: &str) {
        self.count(|figures| figures.note(kind, bitten));
        let end_ns = self.now_ns();
        lock(&self.history).record_fault(Fault {
            kind,
            node,
            begin_ns,
            end_ns,
            bitten,
            evidence: evidence.to_owned(),
        });
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        lock(&self.oracle)
    }

    pub(crate) fn nodes(&self) -> MutexGuard<'_, Vec<Node>> {
        lock(&self.nodes)
    }

    /// What rotted and may not be whole again.
    pub(crate) fn scars(&self) -> MutexGuard<'_, Vec<Scar>> {
        lock(&self.scars)
    }

    pub(crate) fn masked_scars(&self) -> MutexGuard<'_, Vec<Scar>> {
        lock(&self.masked_scars)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Figures)) {
        count(&mut lock(&self.figures));
    }

    pub(crate) fn figures(&self) -> Figures {
        *lock(&self.figures)
    }

    /// A seed for a task of a node.
    pub(crate) fn task_seed(&self) -> u64 {
        lock(&self.tasks).any()
    }

    pub(crate) fn draw_disk<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut lock(&self.disks))
    }

    /// Whether this is the life that the node lives now.
    pub(crate) fn lives(&self, node: usize, boot: u64) -> bool {
        let nodes = self.nodes();
        nodes[node].boot == boot && nodes[node].running.is_some()
    }

    /// Whether a node runs.
    pub(crate) fn lives_at_all(&self, node: usize) -> bool {
        self.nodes()[node].running.is_some()
    }

    /// The partition and the life of a node that serves.
    pub(crate) fn serving(&self, node: usize) -> Option<(Partition, Arc<Life>, u64)> {
        let nodes = self.nodes();
        let running = nodes[node].running.as_ref()?;
        Some((running.partition.clone()?, running.life.clone(), nodes[node].boot))
    }

    /// Ends a node's life. False if it had none.
    pub(crate) fn end_life(&self, node: usize, end: End) -> bool {
        let (unstarted, running, disk) = {
            let mut nodes = self.nodes();
            let node = &mut nodes[node];
            node.cuts += 1;
            (node.unstarted.take(), node.running.take(), node.disk.clone())
        };
        if let Some((_, life)) = unstarted {
            life.end();
        }
        if let Some(running) = &running {
            running.life.end();
        }
        let lost = disk.unsynced_bytes();
        match end {
            End::Kill => disk.restart(),
            End::PowerCut(keep) => disk.crash(keep),
        }
        if running.is_none() {
            return false;
        }
        self.note(format_args!("end n{node} {end:?} unsynced {lost}"));
        let (kind, evidence) = match end {
            End::Kill => (FaultKind::Kill, "processes killed"),
            End::PowerCut(_) => (FaultKind::PowerCut, "bytes unsynced at a power cut"),
        };
        let bitten = if end == End::Kill { 1 } else { lost };
        self.fault(kind, node as u32, self.now_ns(), bitten, evidence);
        true
    }

    /// Who leads, as far as the nodes know: the one of the highest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let nodes = self.nodes();
        let leaders = nodes.iter().enumerate().filter_map(|(number, node)| {
            let status = node.running.as_ref()?.partition.as_ref()?.status();
            (status.role == highwater_partition::Role::Leader).then_some((status.term, number))
        });
        leaders.max().map(|(_, number)| number)
    }

    /// The other nodes' replicas, as the catalog would know them.
    pub(crate) fn others(&self, node: usize) -> Vec<Member> {
        let nodes = self.nodes();
        let others = nodes.iter().enumerate().filter(|(number, _)| *number != node);
        let member = |(number, other): (usize, &Node)| Member {
            replica_id: other.replica,
            node: node_name(number),
        };
        others.map(member).collect()
    }

    /// How many lives and disks of a node have ended.
    pub(crate) fn cuts(&self, node: usize) -> u64 {
        self.nodes()[node].cuts
    }

    /// Returns when a node's life or disk is not what it was at this count any more.
    pub(crate) async fn cut(&self, node: usize, cuts: u64) {
        while self.cuts(node) == cuts {
            sleep_ms(50).await;
        }
    }

    /// Who answers calls at a node, in which life, and how many lives and disks it has had by then.
    pub(crate) fn callee(&self, node: usize) -> Option<(Callee, Arc<Life>, u64)> {
        let serving = self.serving(node);
        let nodes = self.nodes();
        let (callee, life) = match serving {
            Some((partition, life, _)) => (Callee::Serving(partition), life),
            None => {
                let (unstarted, life) = nodes[node].unstarted.clone()?;
                (Callee::Unstarted(unstarted), life)
            }
        };
        Some((callee, life, nodes[node].cuts))
    }

    /// The open log of a node, before its replica serves too.
    pub(crate) fn open_log(&self, node: usize) -> Option<Log> {
        let nodes = self.nodes();
        Some(nodes[node].running.as_ref()?.log.clone())
    }

    /// The Raft id of a node's replica.
    pub(crate) fn replica(&self, node: usize) -> ReplicaId {
        self.nodes()[node].replica
    }

    /// Index of the last entry that a node knows to be committed; also 0 before there is one.
    pub(crate) fn committed_index(&self, node: usize) -> Option<u64> {
        Some(self.serving(node)?.0.status().committed_index)
    }

    /// Index of the last entry of a node that runs; otherwise one that is never reached.
    pub(crate) fn last_index(&self, node: usize) -> u64 {
        let nodes = self.nodes();
        let last = nodes[node].running.as_ref().and_then(|running| running.log.last());
        last.map_or(u64::MAX, |last| last.index)
    }

    /// Gives a node a replica that never was.
    pub(crate) fn next_replica(&self, node: usize) -> ReplicaId {
        let id = {
            let mut clients = lock(&self.clients);
            clients.replicas += 1;
            ReplicaId(clients.replicas)
        };
        self.oracle().forget(node);
        let mut nodes = self.nodes();
        nodes[node].replica = id;
        nodes[node].created = false;
        nodes[node].vote_damaged = false;
        nodes[node].restored = None;
        nodes[node].dead = false;
        id
    }

    /// Drops everything that refers back to the world.
    pub(crate) fn clear(&self) {
        lock(&self.clients).end_ms = self.now_ms();
        let gone = |node: &mut Node| (node.unstarted.take(), node.running.take());
        let gone: Vec<_> = self.nodes().iter_mut().map(gone).collect();
        for (unstarted, running) in gone {
            unstarted.into_iter().for_each(|(_, life)| life.end());
            running.into_iter().for_each(|running| running.life.end());
        }
    }
}

/// The clock of a node: the simulated time, a bit ahead.
pub(crate) struct NodeClock {
    pub(crate) began: Instant,
    pub(crate) skew_ms: u64,
}

impl Clock for NodeClock {
    fn now_ms(&self) -> u64 {
        const EPOCH_MS: u64 = 1_700_000_000_000;
        EPOCH_MS + self.skew_ms + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0)
    }
}

impl World {
    pub(crate) fn clock(&self, skew_ms: u64) -> Arc<NodeClock> {
        Arc::new(NodeClock {
            began: self.began,
            skew_ms,
        })
    }
}

pub(crate) fn node_name(node: usize) -> String {
    format!("n{node}")
}

pub(crate) fn node_of(name: &str) -> Option<usize> {
    name.strip_prefix('n')?.parse().ok()
}

/// The replica that a node has at first.
pub(crate) fn first_replica(node: usize) -> ReplicaId {
    ReplicaId(node as u64 + 1)
}

pub(crate) fn members(nodes: usize) -> Vec<Member> {
    let member = |node| Member {
        replica_id: first_replica(node),
        node: node_name(node),
    };
    (0..nodes).map(member).collect()
}

pub(crate) fn timers() -> Timers {
    Timers::default()
}

/// Waits.
pub(crate) async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
