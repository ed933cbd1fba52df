//! The evidence of one run: what clients asked and were told, what replicas promised and hold, which faults there were.
//!
//! Everybody who records keeps a [`History`] of their own, without locks, and the parts are [merged](History::merge) at
//! the end. All times are nanoseconds of **one** monotonic clock (the simulated one in a simulation), so that what
//! ended before something else began is known exactly.
//!
//! # How to record truthfully
//!
//! * Every send must be recorded, also one whose caller was aborted: as [`SendOutcome::Unknown`]. A record that is read but
//!   was never recorded as sent is a violation.
//! * *Refused* means certain: it is not in the log and will never be. Everything doubtful is *unknown*.
//! * `invoked_ns` is taken before the first attempt, `returned_ns` after the last answer; retries are one event.
//! * A **process** is one client in its own order: what it is told must never go backwards. A harness that asks replicas
//!   directly uses one process for each replica and boot.
//! * A **partition** is any Raft group under test, by its place in [`Run::partitions`]; the catalog is one without records.
//!   Nobody but the recorded producers writes to it, and it is empty at the start.
//!
//! # Form and cost
//!
//! Rows of one kind stand in one vector; a send takes 72 bytes, a read 88. What belongs to a row in any number (digests
//! sent, records seen, entries dumped) stands in a pool: 8, 24 and 48 bytes each. A million records sent and read by two
//! consumers and three scans are about 200 MB. [`RECORDS_MAX`] bounds each vector; a history that outgrew it, or whose
//! numbers are not the small ones asked for, says so and is judged as void, never in part.
//!
//! A history has at most one consumer group, which nobody resets.

mod codec;
mod describe;
mod events;
mod file;
mod replica;

pub use self::describe::EventRef;
pub(crate) use self::describe::seconds;
pub use self::events::{
    Fault, FaultKind, Freshness, Handout, Incident, IncidentKind, Numbering, OffsetAnswer, OffsetKind, Poll,
    PollAnswer, Position, RecordId, RetentionAllowed, Scan, Seen, Send, SendOutcome, Span,
};
pub use self::file::FileError;
pub use self::replica::{Dump, Healing, Leader, LogEntry, Promise, PromiseKind};

/// How many rows each kind and each pool can have.
pub const RECORDS_MAX: usize = 1 << 28;
/// Producers are numbered below this.
pub const PRODUCERS_MAX: u32 = 1 << 20;
/// Partitions are numbered below this.
pub const PARTITIONS_MAX: u32 = 1 << 16;
/// A node that is not known.
pub const NODE_UNKNOWN: u32 = u32::MAX;

/// What the run is called, and the names behind its numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// One line for the report.
    pub title: String,
    /// What replays it.
    pub seed: u64,
    /// Name of each partition, by number.
    pub partitions: Vec<String>,
    /// Name of each node, by number.
    pub nodes: Vec<String>,
}

/// A row with its part of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pooled<T> {
    pub(crate) event: T,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

// What a million records cost depends on these.
const _: () = assert!(size_of::<Pooled<Send>>() <= 72);
const _: () = assert!(size_of::<Pooled<Poll>>() <= 88);
const _: () = assert!(size_of::<Seen>() <= 24);
const _: () = assert!(size_of::<LogEntry>() <= 48);

impl<T> Pooled<T> {
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + self.count as usize
    }
}

/// The evidence of one run, or one recorder's part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub(crate) run: Run,
    /// Why the history cannot be judged, if it cannot.
    pub(crate) unusable: Option<String>,
    pub(crate) incidents_watched: bool,
    pub(crate) sends: Vec<Pooled<Send>>,
    pub(crate) polls: Vec<Pooled<Poll>>,
    pub(crate) offsets: Vec<OffsetAnswer>,
    pub(crate) scans: Vec<Pooled<Scan>>,
    pub(crate) retention: Vec<RetentionAllowed>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) dumps: Vec<Pooled<Dump>>,
    pub(crate) promises: Vec<Promise>,
    pub(crate) leaders: Vec<Leader>,
    pub(crate) healings: Vec<Healing>,
    pub(crate) handouts: Vec<Handout>,
    pub(crate) positions: Vec<Position>,
    /// Pool of the sends: the digest of each record.
    pub(crate) digests: Vec<u64>,
    /// Pool of polls and scans.
    pub(crate) seen: Vec<Seen>,
    /// Pool of the dumps.
    pub(crate) entries: Vec<LogEntry>,
}

impl History {
    /// An empty history of a run. Recorders' parts are made by `History::default()`.
    pub fn new(run: Run) -> Self {
        Self { run, ..Self::default() }
    }

    /// The run's title, seed and names.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// A send with its outcome; `digests` has one [digest](crate::value::digest) for each record of the batch. The records
    /// have the numbers from `send.first_number` on.
    pub fn record_send(&mut self, send: Send, digests: &[u64]) {
        let problem = send_problem(&send, digests.len());
        if self.check_partition(send.partition)
            && self.check(problem)
            && has_room(&mut self.unusable, &self.sends, 1)
            && let Some(row) = pool(&mut self.unusable, &mut self.digests, send, digests.iter().copied())
        {
            self.sends.push(row);
        }
    }

    /// All sends with their outcomes, of each recorder in its order.
    pub fn sends(&self) -> impl Iterator<Item = &Send> {
        self.sends.iter().map(|row| &row.event)
    }

    /// A read and what came of it; `seen` is empty unless the answer is [`PollAnswer::Records`].
    pub fn record_poll(&mut self, poll: Poll, seen: &[Seen]) {
        if self.check_partition(poll.partition)
            && has_room(&mut self.unusable, &self.polls, 1)
            && let Some(row) = pool(&mut self.unusable, &mut self.seen, poll, seen.iter().copied())
        {
            self.polls.push(row);
        }
    }

    /// An answer to a question for an offset, confirmed by the leader.
    pub fn record_offset(&mut self, answer: OffsetAnswer) {
        if self.check_partition(answer.partition) {
            push(&mut self.unusable, &mut self.offsets, answer);
        }
    }

    /// A scan of a whole partition on one replica, after the last send and after all faults have ended.
    pub fn record_scan(&mut self, scan: Scan, seen: impl IntoIterator<Item = Seen>) {
        if self.check_partition(scan.partition)
            && has_room(&mut self.unusable, &self.scans, 1)
            && let Some(row) = pool(&mut self.unusable, &mut self.seen, scan, seen)
        {
            self.scans.push(row);
        }
    }

    /// From now on this much of a partition may be trimmed. Without it nothing may.
    pub fn record_retention(&mut self, allowed: RetentionAllowed) {
        if self.check_partition(allowed.partition) {
            push(&mut self.unusable, &mut self.retention, allowed);
        }
    }

    /// A fault, once it has ended and it is known how it bit.
    pub fn record_fault(&mut self, fault: Fault) {
        push(&mut self.unusable, &mut self.faults, fault);
    }

    /// Somebody watches for panics, storage errors and unexpected restarts: that there are none is evidence.
    pub fn watch_incidents(&mut self) {
        self.incidents_watched = true;
    }

    /// Something that must never happen.
    pub fn record_incident(&mut self, incident: Incident) {
        self.incidents_watched = true;
        push(&mut self.unusable, &mut self.incidents, incident);
    }

    /// The log of one replica as it stands on its disk, in the order of its indexes.
    pub fn record_dump(&mut self, dump: Dump, entries: impl IntoIterator<Item = LogEntry>) {
        if self.check_partition(dump.partition)
            && has_room(&mut self.unusable, &self.dumps, 1)
            && let Some(row) = pool(&mut self.unusable, &mut self.entries, dump, entries)
        {
            self.dumps.push(row);
        }
    }

    /// What a replica promised, or holds after a restart. Promises at the same time count in the order of recording.
    pub fn record_promise(&mut self, promise: Promise) {
        if self.check_partition(promise.partition) {
            push(&mut self.unusable, &mut self.promises, promise);
        }
    }

    /// A replica that acts as leader of a term.
    pub fn record_leader(&mut self, leader: Leader) {
        if self.check_partition(leader.partition) {
            push(&mut self.unusable, &mut self.leaders, leader);
        }
    }

    /// How a partition came to rest after the last fault.
    pub fn record_healing(&mut self, healing: Healing) {
        if self.check_partition(healing.partition) {
            push(&mut self.unusable, &mut self.healings, healing);
        }
    }

    /// A record that a member of the consumer group is done with.
    pub fn record_handout(&mut self, handout: Handout) {
        if self.check_partition(handout.partition) {
            push(&mut self.unusable, &mut self.handouts, handout);
        }
    }

    /// How far the consumer group is, as a partition's leader told.
    pub fn record_position(&mut self, position: Position) {
        if self.check_partition(position.partition) {
            push(&mut self.unusable, &mut self.positions, position);
        }
    }

    /// Takes in another recorder's part; this history's run holds.
    pub fn merge(&mut self, part: History) {
        let moved = |room: Option<()>| room.is_some();
        let why = &mut self.unusable;
        if why.is_none() {
            *why = part.unusable;
        }
        self.incidents_watched |= part.incidents_watched;
        let fits = moved(append_pooled(
            why,
            (&mut self.sends, &mut self.digests),
            part.sends,
            part.digests,
        )) && moved(append_seen(
            why,
            &mut self.polls,
            self.seen.len(),
            part.polls,
            part.seen.len(),
        )) && moved(append_seen(
            why,
            &mut self.scans,
            self.seen.len(),
            part.scans,
            part.seen.len(),
        )) && moved(append_pooled(
            why,
            (&mut self.dumps, &mut self.entries),
            part.dumps,
            part.entries,
        ));
        if !fits {
            return;
        }
        self.seen.extend(part.seen);
        self.offsets.extend(part.offsets);
        self.retention.extend(part.retention);
        self.faults.extend(part.faults);
        self.incidents.extend(part.incidents);
        self.promises.extend(part.promises);
        self.leaders.extend(part.leaders);
        self.healings.extend(part.healings);
        self.handouts.extend(part.handouts);
        self.positions.extend(part.positions);
    }

    /// Marks the history as one that cannot be judged: events are missing in it.
    pub fn spoil(&mut self, problem: String) {
        self.check(Some(problem));
    }

    /// Marks the history as one that cannot be judged if there is a problem. Says whether there is none.
    fn check(&mut self, problem: Option<String>) -> bool {
        let fine = problem.is_none();
        if self.unusable.is_none() {
            self.unusable = problem;
        }
        fine
    }

    fn check_partition(&mut self, partition: u32) -> bool {
        self.check(partition_problem(partition))
    }

    pub(crate) fn digests_of(&self, row: &Pooled<Send>) -> &[u64] {
        self.digests.get(row.range()).unwrap_or_default()
    }

    pub(crate) fn seen_of<T>(&self, row: &Pooled<T>) -> &[Seen] {
        self.seen.get(row.range()).unwrap_or_default()
    }

    pub(crate) fn entries_of(&self, row: &Pooled<Dump>) -> &[LogEntry] {
        self.entries.get(row.range()).unwrap_or_default()
    }

    /// How many partitions are named or used.
    pub(crate) fn partition_count(&self) -> usize {
        let end = self.partitions_used().max().map_or(0, |last| last as usize + 1);
        end.max(self.run.partitions.len())
    }

    fn partitions_used(&self) -> impl Iterator<Item = u32> {
        (self.sends.iter().map(|row| row.event.partition))
            .chain(self.polls.iter().map(|row| row.event.partition))
            .chain(self.scans.iter().map(|row| row.event.partition))
            .chain(self.dumps.iter().map(|row| row.event.partition))
            .chain(self.offsets.iter().map(|answer| answer.partition))
            .chain(self.promises.iter().map(|promise| promise.partition))
            .chain(self.leaders.iter().map(|leader| leader.partition))
            .chain(self.healings.iter().map(|healing| healing.partition))
            .chain(self.retention.iter().map(|allowed| allowed.partition))
            .chain(self.handouts.iter().map(|handout| handout.partition))
            .chain(self.positions.iter().map(|position| position.partition))
    }
}

/// Why a send cannot be recorded, if it cannot.
fn send_problem(send: &Send, records: usize) -> Option<String> {
    let producer = send.producer;
    if producer >= PRODUCERS_MAX {
        return Some(format!("producer {producer} is not numbered below {PRODUCERS_MAX}"));
    }
    let records = u32::try_from(records).ok();
    let end = records.and_then(|records| send.first_number.checked_add(records));
    end.is_none()
        .then(|| format!("record numbers of producer {producer} do not fit into 32 bits"))
}

/// Why a partition cannot be recorded, if it cannot.
fn partition_problem(partition: u32) -> Option<String> {
    (partition >= PARTITIONS_MAX).then(|| format!("partition {partition} is not numbered below {PARTITIONS_MAX}"))
}

/// Whether a vector can take `more`; if not, the history is marked.
fn has_room<T>(unusable: &mut Option<String>, rows: &[T], more: usize) -> bool {
    let fits = rows.len().saturating_add(more) <= RECORDS_MAX;
    if !fits && unusable.is_none() {
        *unusable = Some(format!(
            "more than {RECORDS_MAX} rows of one kind: later ones were not recorded"
        ));
    }
    fits
}

fn push<T>(unusable: &mut Option<String>, rows: &mut Vec<T>, row: T) {
    if has_room(unusable, rows, 1) {
        rows.push(row);
    }
}

/// Moves items into a pool and makes the row that owns them; `None`, and nothing moved, if they do not fit.
fn pool<T, P>(
    unusable: &mut Option<String>,
    pool: &mut Vec<P>,
    event: T,
    items: impl IntoIterator<Item = P>,
) -> Option<Pooled<T>> {
    let start = pool.len();
    // One more than there is room for, so that an endless iterator ends and is noticed.
    pool.extend(items.into_iter().take(RECORDS_MAX - start + 1));
    if !has_room(unusable, pool, 0) {
        pool.truncate(start);
        return None;
    }
    let count = pool.len() - start;
    Some(Pooled {
        event,
        start: start as u32,
        count: count as u32,
    })
}

fn append_pooled<T, P>(
    unusable: &mut Option<String>,
    (rows, pool): (&mut Vec<Pooled<T>>, &mut Vec<P>),
    more_rows: Vec<Pooled<T>>,
    more_items: Vec<P>,
) -> Option<()> {
    append_seen(unusable, rows, pool.len(), more_rows, more_items.len())?;
    pool.extend(more_items);
    Some(())
}

/// Appends rows whose pool will be appended behind `base` items.
fn append_seen<T>(
    unusable: &mut Option<String>,
    rows: &mut Vec<Pooled<T>>,
    base: usize,
    more_rows: Vec<Pooled<T>>,
    more_items: usize,
) -> Option<()> {
    let fits = has_room(unusable, rows, more_rows.len()) && base.saturating_add(more_items) <= RECORDS_MAX;
    if !fits {
        unusable.get_or_insert_with(|| format!("more than {RECORDS_MAX} rows of one kind after merging"));
        return None;
    }
    let shifted = more_rows.into_iter().map(|row| Pooled {
        start: row.start + base as u32,
        ..row
    });
    rows.extend(shifted);
    Some(())
}
