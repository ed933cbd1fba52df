//! The one task that writes: takes what waits, gives each event its place in the chain, and has the batch appended.
//!
//! One batch is under way at a time, and is tried with the same bytes and the same sequence until it is decided: so the order of the
//! chain is the order of the log, and nothing is there twice. Meanwhile events wait in the queue, which is bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use highwater_proto::v1::ProduceRequest;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep};

use super::append::{APPEND_TIMEOUT, Appended, Ledger};
use super::batches::{self, Sealed};
use super::chain::{Chain, End};
use super::event::{self, Cause, Event, Kind, Outcome, Place};
use super::{Audit, topic};
use crate::access::audit_writer;
use crate::clock::now_ms;
use crate::data_dir::DataDir;
use crate::hex::Id;
use crate::leaders::Leaders;
use crate::link::Link;
use crate::peer_calls::{self, AUDIT};

/// How soon an append is tried again, at first and at most.
const PAUSE_LEAST: Duration = Duration::from_millis(20);
const PAUSE_MOST: Duration = Duration::from_millis(500);
/// How long the leader's answer may take on its way.
const HOP_MARGIN: Duration = Duration::from_secs(1);
/// After this time in vain it is logged.
const WARN_AFTER: Duration = Duration::from_secs(10);
/// How often the end of the chain is noted, and suppressed events are told without an event that tells them.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// Writes what the node's audit is told.
pub(crate) struct Writer {
    pub(crate) audit: Audit,
    pub(crate) ledger: Ledger,
    pub(crate) leaders: Leaders,
    pub(crate) link: Link,
    pub(crate) node: String,
    pub(crate) data: Arc<DataDir>,
}

/// How far it has come.
///
/// Invariant: `end` is of the last record that is certainly in the log; the chain may be ahead of it by the batch under way.
struct Work {
    chain: Chain,
    producer: Id,
    /// Of the next batch.
    sequence: u64,
    /// Where the chain of the boot before had come to, until it is told.
    former: Option<End>,
    end: Option<End>,
    noted: Option<End>,
    noted_at: Option<Instant>,
}

impl Work {
    fn new(former: Option<End>) -> Work {
        Work {
            chain: Chain::new(Id::random()),
            producer: Id::random(),
            sequence: 0,
            former,
            end: None,
            noted: None,
            noted_at: None,
        }
    }
}

/// A batch with those who wait for it.
#[derive(Default)]
struct Composed {
    records: Vec<Sealed>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Writer {
    /// Writes until the audit is finished.
    pub(crate) async fn run(self) {
        let inner = &self.audit.inner;
        inner.is_written.store(true, Ordering::Release);
        let has_topic = inner.closing.run_until_cancelled(self.until_topic()).await;
        if has_topic.is_some() {
            self.keep_writing().await;
        }
        inner.closed.cancel();
    }

    async fn keep_writing(&self) {
        let (queue, closing) = (&self.audit.inner.queue, &self.audit.inner.closing);
        let mut work = Work::new(self.read_end().await);
        // Of its own, whatever else comes: the first tick is at once.
        let mut telling = interval(NOTE_INTERVAL);
        loop {
            let is_last = closing.is_cancelled();
            if is_last {
                self.tell_suppressed();
            }
            self.write_all(&mut work).await;
            self.note(&mut work, is_last).await;
            if is_last {
                return;
            }
            tokio::select! {
                biased;
                () = closing.cancelled() => {}
                // Before what was added: there may always be something.
                _ = telling.tick() => self.tell_suppressed(),
                () = queue.added() => {}
            }
        }
    }

    async fn until_topic(&self) {
        let mut progress = self.ledger.host.progress();
        // The host outlives this.
        let _ = progress.wait_for(|_| topic::exists(&self.ledger.host)).await;
    }

    /// So that a flood is told of that nothing has followed.
    fn tell_suppressed(&self) {
        for kind in self.audit.inner.queue.untold() {
            let _unawaited = self.audit.record(Event {
                what: "suppressed".to_owned(),
                outcome: Outcome::Unknown,
                ..self.own_event(kind)
            });
        }
    }

    fn own_event(&self, kind: Kind) -> Event {
        Event {
            cause: Cause::Operators,
            kind,
            time_ms: now_ms(),
            who: audit_writer(&self.ledger.cluster, &self.node).to_string(),
            from: None,
            what: "start".to_owned(),
            target: format!("node {}", self.node),
            outcome: Outcome::Done,
            why: String::new(),
        }
    }

    // ---------------------------------------------------------------------------------------------------- one batch

    async fn write_all(&self, work: &mut Work) {
        loop {
            let composed = self.compose(work);
            if composed.records.is_empty() {
                return;
            }
            let end = work.chain.end();
            self.write(work, &composed.records).await;
            work.end = end;
            for waiting in composed.waiting {
                // Who waited may have been answered by now.
                let _ = waiting.send(());
            }
        }
    }

    /// What waits, in its place in the chain; the chain begins with the start of the node.
    fn compose(&self, work: &mut Work) -> Composed {
        let mut composed = Composed::default();
        if work.chain.number_next == 0 {
            let started = self.own_event(Kind::Started);
            composed.records.extend(self.seal(work, &started));
            work.former = None;
        }
        for queued in self.audit.inner.queue.take() {
            composed.records.extend(self.seal(work, &queued.event));
            composed.waiting.push(queued.written);
        }
        composed
    }

    fn seal(&self, work: &mut Work, event: &Event) -> Option<Sealed> {
        let place = Place {
            node: &self.node,
            boot: work.chain.boot,
            number: work.chain.number_next,
            suppressed: self.audit.inner.queue.take_suppressed(event.kind),
            former: work.former.as_ref().filter(|_| event.kind == Kind::Started),
        };
        match event::encode(event, place) {
            Ok(value) => Some(Sealed {
                time_ms: event.time_ms,
                hash: work.chain.append(&value),
                value: value.into(),
            }),
            Err(error) => {
                tracing::error!(%error, ?event, "an event cannot be recorded in the audit");
                self.audit.inner.queue.suppress(event.kind);
                None
            }
        }
    }

    /// Tries until the batch is in the log.
    async fn write(&self, work: &mut Work, records: &[Sealed]) {
        let begin = Instant::now();
        let (mut pause, mut ask, mut is_told) = (PAUSE_LEAST, None, false);
        loop {
            let request = batches::request(&self.node, work.producer, work.sequence, records);
            match self.attempt(&request, ask.take()).await {
                Appended::Written => {
                    work.sequence += 1;
                    return;
                }
                Appended::AsAnother { why } => {
                    tracing::warn!(
                        why,
                        "the audit's partition does not know this node's records any more; going on"
                    );
                    work.producer = Id::random();
                    work.sequence = 0;
                }
                Appended::Again { leader, why } => {
                    if begin.elapsed() >= WARN_AFTER && !is_told {
                        tracing::warn!(why, "the audit cannot be written at present; trying on");
                        is_told = true;
                    }
                    ask = leader;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }

    /// At the node that is said to lead, or here.
    async fn attempt(&self, request: &ProduceRequest, leader: Option<String>) -> Appended {
        let known = || Some(self.leaders.leader(topic::group(&self.ledger.host)?)?.node);
        match leader.or_else(known).filter(|leader| *leader != self.node) {
            None => self.ledger.append(&self.node, request).await,
            Some(leader) => self.ask(&leader, request).await,
        }
    }

    async fn ask(&self, leader: &str, request: &ProduceRequest) -> Appended {
        let deadline = Instant::now() + APPEND_TIMEOUT + HOP_MARGIN;
        let body = vec![batches::encode(request)];
        let asked = self.link.call_node_in_bulk(leader, AUDIT, body, deadline, deadline);
        let answered = match asked.await {
            Ok(answer) => peer_calls::decode_json(&answer),
            Err(error) => Err(error.to_string()),
        };
        answered.unwrap_or_else(|why| Appended::Again { leader: None, why })
    }

    // -------------------------------------------------------------------------------------------- the end of a chain

    async fn read_end(&self) -> Option<End> {
        let data = self.data.clone();
        let read = tokio::task::spawn_blocking(move || data.audit_end()).await;
        match read.map_err(|error| error.to_string()) {
            Ok(Ok(end)) => end,
            Ok(Err(error)) => {
                tracing::error!(%error, "where the audit of the former start has ended is not known");
                None
            }
            Err(error) => {
                tracing::error!(error, "where the audit of the former start has ended is not known");
                None
            }
        }
    }

    /// Notes where the chain is, for the next start, if that is due or `at_once`.
    async fn note(&self, work: &mut Work, at_once: bool) {
        let is_due = at_once || work.noted_at.is_none_or(|at| at.elapsed() >= NOTE_INTERVAL);
        let Some(end) = work.end.clone().filter(|_| is_due && work.end != work.noted) else {
            return;
        };
        work.noted_at = Some(Instant::now());
        let (data, noted) = (self.data.clone(), end.clone());
        match tokio::task::spawn_blocking(move || data.note_audit_end(&noted)).await {
            Ok(Ok(())) => work.noted = Some(end),
            Ok(Err(error)) => tracing::warn!(%error, "the end of the audit's chain is not noted"),
            Err(error) => tracing::warn!(%error, "the end of the audit's chain is not noted"),
        }
    }
}
