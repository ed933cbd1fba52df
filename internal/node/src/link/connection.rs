//! One connection with another node, after the hello: its calls, its streams and its end.
//!
//! Three tasks serve it: the reader (`reader.rs`), the writer (`outbox.rs`) and the keeper, which sends signs of life
//! and counts the other side's silence. Whichever ends first ends the others.
//!
//! Invariants: an id is given to one call or stream only; a closed connection holds no waiting calls and no streams,
//! and takes no new ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use highwater_partition::log::ClusterId;
use highwater_partition::{Lane, PeerStream};
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::company::Company;
use super::frame::{Frame, FrameType, Header, broke};
use super::limits::{
    FRAME_BYTES_MAX, INCOMING_CALL_BYTES_MAX, INCOMING_CALLS_MAX, OUTGOING_CALLS_MAX, SILENT_TICKS_MAX, STREAMS_MAX,
    TICK, UNUSED_TICKS_MAX,
};
use super::outbox::{NotQueued, Outbox, Queues, outbox};
use super::stream::{Direction, StreamEntry, new_stream};
use super::{Hello, Inner, Refusal, reader};

/// Which side began the connection. The dialler asks, the acceptor answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Dialler,
    Acceptor,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// Certainly not carried out.
    NotSent(String),
    /// Perhaps carried out.
    NoAnswer(String),
    /// The other side says no.
    Refused(Refusal),
}

type Answer = Result<Bytes, Refusal>;

/// Calls or streams by id; refuses new ones once the connection has closed.
#[derive(Debug)]
struct Table<T> {
    entries: HashMap<u64, T>,
    open: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) role: Role,
    hello: Mutex<Hello>,
    peer: String,
    outbox: Outbox,
    last_id: AtomicU64,
    calls: Mutex<Table<oneshot::Sender<Answer>>>,
    company: Company,
    takes_bundles: bool,
    streams: Mutex<Table<StreamEntry>>,
    pub(super) incoming_calls: Arc<Semaphore>,
    pub(super) incoming_call_bytes: Arc<Semaphore>,
    /// Pieces read so far; only whether it moves is of interest.
    pub(super) progress: AtomicU64,
    closed: CancellationToken,
    why_closed: OnceLock<String>,
}

impl Connection {
    /// A connection with the node that said `hello`; served by [`Connection::run`].
    pub(super) fn new(role: Role, hello: Hello, closed: CancellationToken) -> (Arc<Connection>, Queues) {
        let (outbox, queues) = outbox();
        let connection = Connection {
            role,
            peer: hello.node.clone(),
            takes_bundles: hello.bundles,
            company: Company::default(),
            hello: Mutex::new(hello),
            outbox,
            last_id: AtomicU64::new(0),
            calls: Mutex::new(Table::new()),
            streams: Mutex::new(Table::new()),
            incoming_calls: Arc::new(Semaphore::new(INCOMING_CALLS_MAX)),
            incoming_call_bytes: Arc::new(Semaphore::new(INCOMING_CALL_BYTES_MAX)),
            progress: AtomicU64::new(0),
            closed,
            why_closed: OnceLock::new(),
        };
        (Arc::new(connection), queues)
    }

    /// The name of the node at the other end, as its certificate says.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) fn lane(&self) -> Lane {
        lock(&self.hello).lane
    }

    pub(super) fn peer_boot(&self) -> u64 {
        lock(&self.hello).boot
    }

    pub(super) fn peer_cluster_id(&self) -> Option<ClusterId> {
        lock(&self.hello).cluster_id
    }

    /// Takes a later hello, in which only the cluster id may have become known.
    pub(super) fn replace_hello(&self, hello: Hello) -> Result<(), String> {
        let mut known = lock(&self.hello);
        if known.cluster_id.is_some_and(|id| hello.cluster_id != Some(id)) {
            return Err("a later hello takes back the cluster id".to_owned());
        }
        let expected = Hello {
            cluster_id: hello.cluster_id,
            ..known.clone()
        };
        if hello != expected {
            return Err(format!("a later hello differs in more than the cluster id: {hello:?}"));
        }
        *known = hello;
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Serves the connection until it ends, and answers why it did.
    pub(super) async fn run<S>(self: &Arc<Self>, stream: S, mut queues: Queues, inner: &Arc<Inner>) -> String
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let (mut input, mut output) = split(stream);
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            why = reader::read_from(self, &mut input, inner) => self.close(why),
            result = queues.write_to(&mut output) => {
                self.close(result.map_or_else(|error| broke(&error), |()| "closed".to_owned()));
            }
            why = self.keep() => self.close(why.to_owned()),
        }
        self.close("the link was shut down".to_owned());
        let _ = timeout(TICK, queues.write_last_words(&mut output)).await;
        self.why_closed().to_owned()
    }

    /// Sends a sign of life at every tick without other traffic, and returns the reason when the connection is to end:
    /// the other side has missed too many ticks, or we have not used it for long. Counting ticks rather than time keeps
    /// a node that was paused itself from blaming the others.
    async fn keep(&self) -> &'static str {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = Watched::new(self.outbox.written());
        let mut progress = Watched::new(self.progress.load(Ordering::Relaxed));
        let mut uses = Watched::new(self.outbox.queued());
        loop {
            ticks.tick().await;
            if written.ticks_unchanged(self.outbox.written()) > 0 {
                self.send_urgent(Frame::plain(FrameType::Ping, Vec::new()));
            }
            if progress.ticks_unchanged(self.progress.load(Ordering::Relaxed)) >= SILENT_TICKS_MAX {
                return "it has been silent for too long";
            }
            if uses.ticks_unchanged(self.outbox.queued()) >= UNUSED_TICKS_MAX && self.is_unused() {
                return "it is not needed at present";
            }
        }
    }

    /// Only the dialler can tell: it knows that it waits for nothing and can dial again.
    fn is_unused(&self) -> bool {
        self.role == Role::Dialler && lock(&self.calls).entries.is_empty() && lock(&self.streams).entries.is_empty()
    }

    /// Ends the connection. Waiting calls get no answer, streams end. The first reason given stays.
    pub(super) fn close(&self, why: String) {
        let _ = self.why_closed.set(why);
        self.closed.cancel();
        self.outbox.close();
        lock(&self.calls).close();
        lock(&self.streams).close();
    }

    /// Tells the other side why we end the connection, and ends it.
    pub(super) fn refuse(&self, why: String) {
        let _ = self.outbox.send_urgent(Frame::reason(FrameType::Refuse, 0, &why));
        self.close(why);
    }

    pub(super) fn why_closed(&self) -> &str {
        self.why_closed.get().map_or("it was closed", String::as_str)
    }

    /// A request, until it is answered. Dropping the future forgets the call.
    pub(super) async fn call(&self, group: u64, kind: u8, body: Vec<Bytes>) -> Result<Bytes, CallError> {
        let pending = self.begin_call()?;
        self.send_call(&pending, group, kind, body)?;
        pending.answer().await
    }

    /// Whether the other side understands bundles of calls.
    pub(super) fn takes_bundles(&self) -> bool {
        self.takes_bundles
    }

    pub(super) fn company(&self) -> &Company {
        &self.company
    }

    /// Gives a call its id; it must be sent next.
    pub(super) fn begin_call(&self) -> Result<PendingCall<'_>, CallError> {
        let id = self.next_id();
        let (sender, answer) = oneshot::channel();
        lock(&self.calls)
            .insert(id, sender, OUTGOING_CALLS_MAX)
            .map_err(|why| self.not_sent(why))?;
        Ok(PendingCall {
            connection: self,
            id,
            answer,
        })
    }

    /// Sends a call by itself.
    pub(super) fn send_call(
        &self,
        pending: &PendingCall<'_>,
        group: u64,
        kind: u8,
        body: Vec<Bytes>,
    ) -> Result<(), CallError> {
        let frame = Frame {
            header: Header {
                frame_type: FrameType::Call,
                id: pending.id,
                group,
                kind,
            },
            body,
        };
        check_size(&frame.body).map_err(CallError::NotSent)?;
        let queued = self.outbox.try_send(frame);
        queued.map_err(|NotQueued| self.not_sent("too much is waiting to be sent"))
    }

    /// Ends a call without an answer.
    pub(super) fn forget_call(&self, id: u64) {
        lock(&self.calls).entries.remove(&id);
    }

    fn not_sent(&self, why: &str) -> CallError {
        CallError::NotSent(if self.is_closed() {
            self.why_closed().to_owned()
        } else {
            why.to_owned()
        })
    }

    /// Gives an answer to the call that waits for it, if it still does.
    pub(super) fn answer(&self, id: u64, answer: Answer) {
        if let Some(sender) = lock(&self.calls).entries.remove(&id) {
            let _ = sender.send(answer);
        }
    }

    /// Opens a stream to the other side; for the dialler.
    pub(super) fn open_stream(self: &Arc<Self>, group: u64, kind: u8) -> Result<PeerStream, String> {
        let id = self.next_id();
        let (entry, stream, tasks) = new_stream(&self.closed);
        lock(&self.streams).insert(id, entry, STREAMS_MAX)?;
        let header = Header {
            frame_type: FrameType::Open,
            id,
            group,
            kind,
        };
        if self
            .outbox
            .try_send(Frame {
                header,
                body: Vec::new(),
            })
            .is_err()
        {
            lock(&self.streams).entries.remove(&id);
            return Err("too much is waiting to be sent".to_owned());
        }
        tasks.start(self, id);
        Ok(stream)
    }

    /// Takes a stream that the other side has opened; for the acceptor.
    pub(super) fn accept_stream(self: &Arc<Self>, id: u64) -> Result<PeerStream, &'static str> {
        let (entry, stream, tasks) = new_stream(&self.closed);
        lock(&self.streams).insert(id, entry, STREAMS_MAX)?;
        tasks.start(self, id);
        Ok(stream)
    }

    /// Lets `act` see the stream, unless it has been forgotten by now, which is all right.
    pub(super) fn with_stream(
        &self,
        id: u64,
        act: impl FnOnce(&mut StreamEntry) -> Result<(), String>,
    ) -> Result<(), String> {
        lock(&self.streams).entries.get_mut(&id).map_or(Ok(()), act)
    }

    pub(super) fn finish_stream(&self, id: u64, direction: Direction) {
        let mut streams = lock(&self.streams);
        if streams
            .entries
            .get_mut(&id)
            .is_some_and(|entry| entry.finish(direction))
        {
            streams.entries.remove(&id);
        }
    }

    /// Our user has dropped its receiver.
    pub(super) fn stop_reading(&self, id: u64) {
        self.send_urgent(Frame::of(FrameType::Stop, id, Vec::new()));
    }

    /// Queues a frame in order, waiting for room.
    pub(super) async fn send(&self, frame: Frame) -> Result<(), NotQueued> {
        self.outbox.send(frame).await
    }

    /// Queues a frame in order, if there is room.
    pub(super) fn try_send(&self, frame: Frame) -> Result<(), NotQueued> {
        self.outbox.try_send(frame)
    }

    /// Queues a small frame ahead of others. A peer that does not take even those is cut off.
    pub(super) fn send_urgent(&self, frame: Frame) {
        if self.outbox.send_urgent(frame).is_err() {
            self.close("it does not read what is sent to it".to_owned());
        }
    }

    #[cfg(test)]
    pub(super) fn frames_queued(&self) -> u64 {
        self.outbox.queued()
    }

    #[cfg(test)]
    pub(super) fn waiting_calls(&self) -> usize {
        lock(&self.calls).entries.len()
    }

    #[cfg(test)]
    pub(super) fn open_streams(&self) -> usize {
        lock(&self.streams).entries.len()
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Whether a body fits into a frame.
pub(super) fn check_size(body: &[Bytes]) -> Result<(), String> {
    let bytes: usize = body.iter().map(Bytes::len).sum();
    if bytes > FRAME_BYTES_MAX {
        return Err(format!("the message has {bytes} bytes, {FRAME_BYTES_MAX} are allowed"));
    }
    Ok(())
}

/// A call that waits for its answer; forgotten when the one who waits for it has gone.
pub(super) struct PendingCall<'a> {
    connection: &'a Connection,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl PendingCall<'_> {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) async fn answer(mut self) -> Result<Bytes, CallError> {
        match (&mut self.answer).await {
            Ok(answer) => answer.map_err(CallError::Refused),
            Err(_) => Err(CallError::NoAnswer(self.connection.why_closed().to_owned())),
        }
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        self.connection.forget_call(self.id);
    }
}

/// A counter looked at once per tick.
struct Watched {
    last: u64,
    ticks: u32,
}

impl Watched {
    fn new(now: u64) -> Watched {
        Watched { last: now, ticks: 0 }
    }

    /// For how many ticks the counter has not moved.
    fn ticks_unchanged(&mut self, now: u64) -> u32 {
        self.ticks = if now == self.last {
            self.ticks.saturating_add(1)
        } else {
            0
        };
        self.last = now;
        self.ticks
    }
}

impl<T> Table<T> {
    fn new() -> Table<T> {
        Table {
            entries: HashMap::new(),
            open: true,
        }
    }

    fn insert(&mut self, id: u64, entry: T, entries_max: usize) -> Result<(), &'static str> {
        if !self.open {
            return Err("the connection has ended");
        }
        if self.entries.len() >= entries_max {
            return Err("too many are open on the connection");
        }
        if self.entries.insert(id, entry).is_some() {
            return Err("its id is in use");
        }
        Ok(())
    }

    fn close(&mut self) {
        self.open = false;
        self.entries.clear();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
