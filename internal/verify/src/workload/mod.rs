//! A workload over the client library, and the history of what the library said.
//!
//! ```text
//! Workload::start ─► N producers    unique, seeded values; every record's outcome, the unknown ones too
//!                    M consumers    each follows the tail of a partition, on whichever replica the library chooses
//!                    K readers      look at the end with every freshness, and ask leaders for ends and starts
//! Running::stop   ─► producers first, then readers: one History
//! scan_replicas   ─► every partition from its start to its end, on each replica
//! ```
//!
//! Faults are the caller's: it records them, and whatever evidence it has of replicas, into the same history, with times
//! of the same [`Clock`].
//!
//! What is recorded is what the application of a user would be told. The library hides much of what a bad node does: it
//! reads on elsewhere when a node skips offsets or says out of range while it lags. So this workload judges cluster and
//! library together; a harness that wants to see a single node's answers asks it without the library.
//!
//! Everything is bounded: records in flight for each producer, records in one event, time for each read. The choices of
//! the workload (values, partitions, freshness) come from the seed; the interleaving is the machine's.
//!
//! Deliberately absent: faults, starting and stopping nodes, judging.

mod consumer;
mod producer;
mod reader;
mod scan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use highwater::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::scan::{Scans, scan_replicas};
use crate::History;
use crate::history::{NODE_UNKNOWN, RecordId, Run, Seen};
use crate::value;

/// How many records one read event holds at most.
const SEEN_AT_ONCE_MAX: usize = 256;
/// How long a worker waits after an error before it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// The one clock of a run: nanoseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What to do. The topic must exist and be empty, and nobody else may write to it.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The topic.
    pub topic: String,
    /// What the choices come from.
    pub seed: u64,
    /// How many producers there are; each writes to all partitions.
    pub producers: u32,
    /// How many consumers follow the tail of each partition.
    pub consumers_per_partition: u32,
    /// How many readers look at the end now and then.
    pub readers: u32,
    /// Between two looks of a reader.
    pub reader_interval: Duration,
    /// Size of a value, from and to (inclusive), bytes.
    pub value_bytes: (usize, usize),
    /// How many records a producer may have in flight.
    pub in_flight_max: usize,
    /// Between two records of a producer; zero: as fast as they go.
    pub send_interval: Duration,
    /// How long the library tries to deliver a record before its outcome is unknown.
    pub delivery_deadline: Duration,
    /// How long a read may take.
    pub read_deadline: Duration,
    /// Producers stop when they have got so many acknowledgements together.
    pub acknowledged_max: u64,
}

impl Workload {
    /// A small workload on a topic: two producers, one consumer a partition, two readers, as fast as it goes, for as long
    /// as it is left to run.
    pub fn new(topic: impl Into<String>, seed: u64) -> Self {
        Self {
            topic: topic.into(),
            seed,
            producers: 2,
            consumers_per_partition: 1,
            readers: 2,
            reader_interval: Duration::from_millis(50),
            value_bytes: (16, 200),
            in_flight_max: 512,
            send_interval: Duration::ZERO,
            delivery_deadline: Duration::from_secs(30),
            read_deadline: Duration::from_secs(30),
            acknowledged_max: u64::MAX,
        }
    }

    /// Starts all workers. They run until [`Running::stop`].
    ///
    /// # Errors
    /// If the topic cannot be found.
    pub async fn start(self, client: Client, clock: Clock) -> Result<Running, Error> {
        let topic = client.topics().get(&self.topic).await?;
        let partitions = topic.partitions.len() as u32;
        let run = Run {
            title: format!("workload on {}", self.topic),
            seed: self.seed,
            partitions: (0..partitions)
                .map(|partition| format!("{}/{partition}", self.topic))
                .collect(),
            nodes: nodes_of(&client, &topic),
        };
        let (stop_producers, producers_stop) = watch::channel(false);
        let (stop_readers, readers_stop) = watch::channel(false);
        let shared = Arc::new(Shared {
            ends: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            served: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            acknowledged: AtomicU64::new(0),
            read: AtomicU64::new(0),
            processes: AtomicU32::new(0),
            nodes: run.nodes.clone(),
            workload: self,
            client,
            clock,
        });
        let mut producers = JoinSet::new();
        for number in 0..shared.workload.producers {
            producers.spawn(producer::run(shared.clone(), number, producers_stop.clone()));
        }
        let mut readers = JoinSet::new();
        for partition in 0..partitions {
            for _ in 0..shared.workload.consumers_per_partition {
                readers.spawn(consumer::run(shared.clone(), partition, readers_stop.clone()));
            }
        }
        for number in 0..shared.workload.readers {
            readers.spawn(reader::run(shared.clone(), number, readers_stop.clone()));
        }
        Ok(Running {
            shared,
            history: History::new(run),
            stop_producers,
            stop_readers,
            producers,
            readers,
        })
    }
}

/// The names of all nodes that are known, in order; replicas of the topic may be on nodes that are down.
fn nodes_of(client: &Client, topic: &highwater::proto::v1::Topic) -> Vec<String> {
    let picture = client.cluster().picture();
    let replicas = topic
        .partitions
        .iter()
        .flat_map(|partition| partition.replicas.iter().cloned());
    let mut nodes: Vec<String> = picture.nodes().map(|node| node.name.clone()).chain(replicas).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// What all workers share.
struct Shared {
    workload: Workload,
    client: Client,
    clock: Clock,
    nodes: Vec<String>,
    /// By partition: everything below was acknowledged or read, exclusive.
    ends: Vec<AtomicU64>,
    /// By partition: when the latest of the acknowledged records was sent.
    served: Vec<AtomicU64>,
    acknowledged: AtomicU64,
    read: AtomicU64,
    processes: AtomicU32,
}

impl Shared {
    /// A new client in its own order.
    fn new_process(&self) -> u32 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }

    fn node_number(&self, name: Option<String>) -> u32 {
        node_number(&self.nodes, name.as_deref())
    }

    fn end(&self, partition: u32) -> u64 {
        let end = self.ends.get(partition as usize);
        end.map_or(0, |end| end.load(Ordering::Relaxed))
    }

    fn note_served(&self, partition: u32, sent_ns: u64) {
        if let Some(known) = self.served.get(partition as usize) {
            known.fetch_max(sent_ns, Ordering::Relaxed);
        }
    }

    fn raise_end(&self, partition: u32, end: u64) {
        if let Some(known) = self.ends.get(partition as usize) {
            known.fetch_max(end, Ordering::Relaxed);
        }
    }
}

fn node_number(nodes: &[String], name: Option<&str>) -> u32 {
    let place = nodes.iter().position(|node| Some(node.as_str()) == name);
    place.map_or(NODE_UNKNOWN, |place| place as u32)
}

/// A record as it was read.
fn seen(record: &highwater::ConsumedRecord) -> Seen {
    Seen {
        offset: record.offset,
        id: value::read_id(&record.value),
        digest: value::digest(&record.value),
    }
}

/// Offsets that every replica serves damaged (end exclusive): records that nobody can read.
fn unreadable(offsets: &std::ops::Range<u64>) -> impl Iterator<Item = Seen> + use<> {
    offsets.clone().map(|offset| Seen {
        offset,
        id: RecordId::UNREADABLE,
        digest: 0,
    })
}

/// Numbers from a seed, of one worker.
struct Choices(u64);

impl Choices {
    fn new(seed: u64, worker: u64) -> Self {
        Self(value::scramble(seed ^ value::scramble(worker)))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        value::scramble(self.0) % end.max(1)
    }
}

/// A workload that runs.
#[must_use = "a workload that is dropped records nothing"]
pub struct Running {
    shared: Arc<Shared>,
    history: History,
    stop_producers: watch::Sender<bool>,
    stop_readers: watch::Sender<bool>,
    producers: JoinSet<History>,
    readers: JoinSet<History>,
}

impl Running {
    /// How many records have been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether every partition has acknowledged a record that was sent at this time or later.
    pub fn all_have_served(&self, since_ns: u64) -> bool {
        let mut served = self.shared.served.iter();
        served.all(|sent_ns| sent_ns.load(Ordering::Relaxed) >= since_ns)
    }

    /// How many records consumers and readers have seen.
    pub fn read(&self) -> u64 {
        self.shared.read.load(Ordering::Relaxed)
    }

    /// Lets the producers end, waiting until every record has an outcome, then the readers; gives the history. At most
    /// the delivery deadline and then the read deadline, and a little.
    pub async fn stop(mut self) -> History {
        self.stop_producers.send_replace(true);
        collect(&mut self.history, &mut self.producers).await;
        self.stop_readers.send_replace(true);
        collect(&mut self.history, &mut self.readers).await;
        self.history
    }
}

/// Merges what workers recorded. A worker that ended without its history leaves the whole one unusable: records that it
/// sent would look like nobody's.
async fn collect(history: &mut History, workers: &mut JoinSet<History>) {
    while let Some(part) = workers.join_next().await {
        match part {
            Ok(part) => history.merge(part),
            Err(error) => history.spoil(format!("a worker was lost with its records: {error}")),
        }
    }
}

/// Resolves when the worker is to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can ask any more: as good as asked.
    let _ = stop.wait_for(|stop| *stop).await;
}
