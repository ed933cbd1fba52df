//! Replication to one follower: a pipeline of appends and their answers, as one hand-written stream.
//!
//! openraft gives a stream of requests and wants a stream of answers, in order. Between them stands a window: requests
//! are taken only while fewer than `WINDOW_REQUESTS` of them and `WINDOW_BYTES` are unanswered. Not taking is the flow
//! control; a slow follower costs this much memory and no more.
//!
//! * A request is taken inside this stream, by whoever polls it; there is no task in between to wake or to leak. When
//!   the stream is dropped, so is the peer stream, which tells the other side.
//! * The input is never polled again after it has ended.
//! * While anything is unanswered for `IDLE_TIMEOUT`, the stream breaks. openraft has no deadline of its own here: a
//!   follower that dies silently would stay behind for ever.
//! * A follower that still needs what is to be purged, and was waited for long enough, is let go: the stream breaks, and
//!   openraft, which waits for live streams only, purges and sends the manifest.
//! * A follower that lacks much is sent it at a limited pace (`catch_up`). A request has to be taken to tell what it costs, and
//!   whether there is one at all; while it waits for its turn it keeps no entries (`waiting`).
//! * openraft sends a request without entries at once whenever the commit point moves. It takes the time of the
//!   acknowledgement that is due at the same moment, so it is held while other tasks have their turn (`HOLD_TURNS`), or
//!   until another request follows or the input ends. Order and number of answers stay. A follower's readers wait for it,
//!   so it is not held for longer.

#[cfg(test)]
mod tests;
mod waiting;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use highwater_log::Log;
use openraft::entry::RaftEntry;
use openraft::errors::NetworkError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, Sleep};

use self::waiting::Waiting;
use crate::catch_up::{CatchUp, Load, Look, Payment};
use crate::codec::append;
use crate::memory::Memory;
use crate::network::{broken, check_result};
use crate::peers::PeerStream;
use crate::snapshot::LetGo;
use crate::stages::{ReplicaStages, Stage, Stopwatch};
use crate::types::{AppendRequest, AppendResult, LogEntry, RpcError, Vote, entry_id, log_id};

/// Most unanswered requests to one follower.
pub(crate) const WINDOW_REQUESTS: usize = 32;
/// Unanswered bytes to one follower at which no further request is taken.
pub(crate) const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// How long the follower may leave something unanswered.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long opening the stream may take.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to leave a peer alone to which no stream could be opened; doubled with every further failure.
pub(crate) const OPEN_RETRY_PAUSE_LEAST: Duration = Duration::from_millis(50);
/// The longest such pause: hundreds of groups may wait for the same peer.
pub(crate) const OPEN_RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often other tasks get their turn before a request without entries goes without company.
const HOLD_TURNS: u32 = 2;

/// Whom the stream leads to, and what is to be known about it.
pub(crate) struct Follower {
    pub(crate) id: u64,
    /// The name of its node.
    pub(crate) node: String,
    pub(crate) let_go: LetGo,
    pub(crate) memory: Arc<Memory>,
    /// This replica's own log.
    pub(crate) log: Log,
    pub(crate) catch_up: CatchUp,
    pub(crate) stages: ReplicaStages,
}

impl Follower {
    /// Ready when a request with entries from `first_index` on is to be sent: what is free at once, the rest in turns.
    fn poll_clear(&mut self, first_index: u64, load: Load, cx: &mut Context<'_>) -> Poll<Option<Payment>> {
        if self.let_go.has(first_index) {
            return Poll::Ready(None); // it is refused: nothing to pay for
        }
        let log = &self.log;
        let look = || Look {
            end_index: log.last().map_or(0, |last| last.index + 1),
            appended_bytes: log.appended_bytes(),
            is_cached: log.read_cached(first_index, first_index + 1, 0).is_some(),
        };
        self.catch_up.poll_clear(load, look, cx)
    }

    /// Entries are sent now.
    fn begin(&self, request: &AppendRequest) -> Stopwatch {
        let ids = request.entries.iter().map(|entry| entry_id(&entry.log_id()));
        self.stages.begin(self.stages.among(ids))
    }

    /// A follower that is to be sent the entry `first_index` may have been let go of.
    fn check_kept(&self, first_index: u64) -> Result<(), RpcError> {
        if self.let_go.has(first_index) {
            return Err(lost(format!(
                "entry {first_index} is to be purged, the follower gets the manifest"
            )));
        }
        Ok(())
    }
}

/// A request that was sent and is not yet answered.
struct Sent {
    vote: Vote,
    bytes: usize,
    /// Began when it was sent; None: it had no entries.
    stopwatch: Option<Stopwatch>,
}

/// What to do with the input next.
enum Input {
    /// Take requests.
    Open,
    /// It has ended; it must not be polled again.
    Ended,
}

/// The stream of answers.
///
/// Invariants: `unanswered` holds exactly the requests handed to the peer stream or to `blocked`, oldest first, and
/// `unanswered_bytes` their sum. At most one request is held, and it was taken after all of those; at most one waits, and it
/// was taken last: while it waits nothing is taken.
pub(crate) struct AppendStream<S> {
    follower: Follower,
    requests: S,
    input: Input,
    /// A request that has to be paid for and waits for its turn.
    waiting: Option<Waiting>,
    stream: PeerStream,
    unanswered: VecDeque<Sent>,
    unanswered_bytes: usize,
    /// A request without entries that waits for company, and for how many turns still.
    held: Option<AppendRequest>,
    hold_turns: u32,
    /// A message that found the peer stream full.
    blocked: Option<BoxFuture<'static, bool>>,
    idle: Pin<Box<Sleep>>,
    sent_any: bool,
    finished: bool,
}

impl<S> AppendStream<S>
where
    S: Stream<Item = AppendRequest> + Unpin,
{
    pub(crate) fn new(follower: Follower, requests: S, stream: PeerStream) -> AppendStream<S> {
        AppendStream {
            follower,
            requests,
            input: Input::Open,
            waiting: None,
            stream,
            unanswered: VecDeque::with_capacity(WINDOW_REQUESTS),
            unanswered_bytes: 0,
            held: None,
            hold_turns: 0,
            blocked: None,
            idle: Box::pin(tokio::time::sleep(IDLE_TIMEOUT)),
            sent_any: false,
            finished: false,
        }
    }

    fn window_open(&self) -> bool {
        self.blocked.is_none()
            && self.unanswered.len() + usize::from(self.held.is_some()) < WINDOW_REQUESTS
            && self.unanswered_bytes < WINDOW_BYTES
    }

    /// Takes and sends requests while the window is open.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<(), RpcError> {
        self.poll_blocked(cx)?;
        while self.window_open() {
            let Poll::Ready(request) = self.poll_request(cx) else {
                break;
            };
            self.take(request?)?;
        }
        if !self.window_open() {
            self.leave_queue(); // a turn that comes now could not be used, and would hold up others
        }
        self.poll_held(cx)
    }

    /// The next request that may go: the one that waited for its turn, or else the next one of the input if it is free.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<AppendRequest, RpcError>> {
        if let Some(waiting) = &mut self.waiting {
            let request = ready!(waiting.poll_whole(&mut self.follower, cx));
            self.waiting = None;
            return Poll::Ready(request);
        }
        let request = ready!(self.poll_input(cx));
        match self.follower.poll_clear(first_index(&request), load(&request), cx) {
            Poll::Ready(payment) => {
                payment.into_iter().for_each(Payment::begin);
                Poll::Ready(Ok(request))
            }
            Poll::Pending => {
                self.waiting = Waiting::new(request);
                Poll::Pending
            }
        }
    }

    /// The next request of the input; nothing is ready any more once it has ended.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<AppendRequest> {
        if matches!(self.input, Input::Ended) {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut self.requests).poll_next(cx)) {
            Some(request) => Poll::Ready(request),
            None => {
                self.input = Input::Ended;
                Poll::Pending
            }
        }
    }

    fn leave_queue(&mut self) {
        self.follower.catch_up.leave_queue();
        if let Some(waiting) = &mut self.waiting {
            waiting.leave_queue();
        }
    }

    /// Sends a request, or holds it if it only carries the commit point.
    fn take(&mut self, request: AppendRequest) -> Result<(), RpcError> {
        if let Some(held) = self.held.take() {
            self.send(held)?;
        }
        if request.entries.is_empty() && self.sent_any {
            self.hold_turns = HOLD_TURNS;
            self.held = Some(request);
            return Ok(());
        }
        self.send(request)
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Result<(), RpcError> {
        if self.held.is_none() || self.blocked.is_some() {
            return Ok(());
        }
        if self.hold_turns > 0 && matches!(self.input, Input::Open) {
            self.hold_turns -= 1;
            cx.waker().wake_by_ref(); // behind everything that is ready now
            return Ok(());
        }
        self.held.take().map_or(Ok(()), |held| self.send(held))
    }

    fn send(&mut self, request: AppendRequest) -> Result<(), RpcError> {
        self.follower.check_kept(first_index(&request))?;
        let vote = request.vote;
        let stopwatch = (!request.entries.is_empty()).then(|| self.follower.begin(&request));
        let certain = self.follower.log.certain_last().map(log_id);
        let (parts, bytes) = append::encode_request(self.follower.id, request, certain).map_err(broken)?;
        if self.unanswered.is_empty() {
            self.restart_idle();
        }
        self.sent_any = true;
        self.unanswered_bytes += bytes;
        self.unanswered.push_back(Sent { vote, bytes, stopwatch });
        self.hand_over(parts)
    }

    fn hand_over(&mut self, parts: Vec<Bytes>) -> Result<(), RpcError> {
        if self.blocked.is_some() {
            let sender = self.stream.sender.clone();
            let before = self.blocked.take();
            self.blocked = Some(Box::pin(send_behind(before, sender, parts)));
            return Ok(());
        }
        match self.stream.sender.try_send(parts) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(parts)) => {
                let sender = self.stream.sender.clone();
                self.blocked = Some(Box::pin(send_behind(None, sender, parts)));
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(lost("the peer closed the stream")),
        }
    }

    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Result<(), RpcError> {
        let Some(blocked) = &mut self.blocked else {
            return Ok(());
        };
        match blocked.poll_unpin(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(true) => {
                self.blocked = None;
                Ok(())
            }
            Poll::Ready(false) => Err(lost("the peer closed the stream")),
        }
    }

    /// The next answer; None when all is answered and nothing more will be asked.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AppendResult, RpcError>>> {
        if matches!(self.input, Input::Ended) && self.held.is_none() && self.unanswered.is_empty() {
            return Poll::Ready(None);
        }
        match self.stream.receiver.poll_recv(cx) {
            Poll::Ready(Some(message)) => return Poll::Ready(Some(self.answer(message))),
            Poll::Ready(None) => return Poll::Ready(Some(Err(lost("the peer ended the stream")))),
            Poll::Pending => {}
        }
        if !self.unanswered.is_empty() && self.idle.as_mut().poll(cx).is_ready() {
            let waiting = self.unanswered.len();
            let why = format!("{waiting} appends unanswered for {} ms", IDLE_TIMEOUT.as_millis());
            return Poll::Ready(Some(Err(lost(why))));
        }
        Poll::Pending
    }

    fn answer(&mut self, message: Bytes) -> Result<AppendResult, RpcError> {
        let Some(sent) = self.unanswered.pop_front() else {
            return Err(lost("the peer answered what was not asked"));
        };
        self.unanswered_bytes -= sent.bytes;
        self.restart_idle();
        if let Some(stopwatch) = &sent.stopwatch {
            stopwatch.done_by(Stage::Replicate, &self.follower.node);
        }
        let result = append::decode_result(message).map_err(broken)?;
        check_result(&sent.vote, &result).map_err(broken)?;
        if let Ok(matching) = result {
            self.follower.memory.note(self.follower.id, &sent.vote, matching);
        }
        Ok(result)
    }

    fn restart_idle(&mut self) {
        self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
    }
}

impl<S> Stream for AppendStream<S>
where
    S: Stream<Item = AppendRequest> + Unpin,
{
    type Item = Result<AppendResult, RpcError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.finished {
            return Poll::Ready(None);
        }
        let polled = match this.poll_requests(cx) {
            Ok(()) => this.poll_answer(cx),
            Err(err) => Poll::Ready(Some(Err(err))),
        };
        // A conflict, a higher vote or an error ends a session; openraft opens the next one.
        this.finished = matches!(polled, Poll::Ready(None | Some(Err(_)) | Some(Ok(Err(_)))));
        if this.finished {
            this.leave_queue();
        }
        polled
    }
}

/// Index of the first entry that the request carries, or would carry.
fn first_index(request: &AppendRequest) -> u64 {
    request.prev_log_id.map_or(0, |id| id.index() + 1)
}

fn load(request: &AppendRequest) -> Load {
    Load {
        end_index: first_index(request) + request.entries.len() as u64,
        bytes: request.entries.iter().map(LogEntry::stored_bytes).sum(),
    }
}

/// Sends what waited before and then these parts; false if the stream is gone.
async fn send_behind(
    before: Option<BoxFuture<'static, bool>>,
    sender: tokio::sync::mpsc::Sender<Vec<Bytes>>,
    parts: Vec<Bytes>,
) -> bool {
    if let Some(before) = before
        && !before.await
    {
        return false;
    }
    sender.send(parts).await.is_ok()
}

fn lost(why: impl ToString) -> RpcError {
    RpcError::Network(NetworkError::from_string(why))
}
