//! Streams: ordered messages each way, many on one connection, each with a window of its own.
//!
//! Each direction has a window, counted in messages and bytes. The sender spends it, the receiver gives it back once
//! its user has taken messages. So a stream whose user does not read stops by itself, and never holds up the
//! connection: the reader task always has room for what a well-behaved peer may send, and a peer that overspends is cut
//! off.
//!
//! ```text
//!   user's sender ─► pump_out ─ credit ─► outbox ═══► reader ─► window queue ─► pump_in ─► user's receiver
//!                        ▲                                                         │
//!                        └───────────────── Credit frames ◄────────────────────────┘
//! ```
//!
//! The directions end separately: dropping the sender ends ours after what is queued has been sent (`End`), dropping
//! the receiver asks the other side to end its (`Stop`). A stream is forgotten when both have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use highwater_partition::PeerStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::frame::{Frame, FrameType};
use super::limits::{FRAME_BYTES_MAX, STREAM_QUEUE_MESSAGES, STREAM_WINDOW_BYTES, STREAM_WINDOW_MESSAGES};

/// Credit is given back in portions of this share of the window.
const CREDIT_PORTIONS: usize = 4;

/// A stream as the connection's reader sees it.
#[derive(Debug)]
pub(super) struct StreamEntry {
    /// What we may still send.
    credit: Arc<Credit>,
    /// Where messages go; `None` once the other side has ended its direction.
    window: Option<mpsc::Sender<Bytes>>,
    /// Bytes received and not given back yet.
    outstanding_bytes: Arc<AtomicUsize>,
    /// Ends our direction.
    stop: CancellationToken,
    outbound_done: bool,
    inbound_done: bool,
}

/// The two directions of a stream, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Outbound,
    Inbound,
}

/// What may be sent before the other side gives credit back.
/// Invariant: never above the window, or the other side has broken the protocol.
#[derive(Debug)]
struct Credit {
    messages: Semaphore,
    bytes: Semaphore,
}

/// The pumps' ends of a new stream; they run once [`StreamTasks::start`] is called.
pub(super) struct StreamTasks {
    credit: Arc<Credit>,
    stop: CancellationToken,
    outstanding_bytes: Arc<AtomicUsize>,
    window: mpsc::Receiver<Bytes>,
    from_user: mpsc::Receiver<Vec<Bytes>>,
    to_user: mpsc::Sender<Bytes>,
}

/// Makes a stream: for the table of the connection, for the user, and for the pumps.
pub(super) fn new_stream(closed: &CancellationToken) -> (StreamEntry, PeerStream, StreamTasks) {
    let (window_sender, window) = mpsc::channel(STREAM_WINDOW_MESSAGES);
    let (sender, from_user) = mpsc::channel(STREAM_QUEUE_MESSAGES);
    let (to_user, receiver) = mpsc::channel(STREAM_QUEUE_MESSAGES);
    let credit = Arc::new(Credit {
        messages: Semaphore::new(STREAM_WINDOW_MESSAGES),
        bytes: Semaphore::new(STREAM_WINDOW_BYTES),
    });
    let (stop, outstanding_bytes) = (closed.child_token(), Arc::new(AtomicUsize::new(0)));
    let entry = StreamEntry {
        credit: credit.clone(),
        window: Some(window_sender),
        outstanding_bytes: outstanding_bytes.clone(),
        stop: stop.clone(),
        outbound_done: false,
        inbound_done: false,
    };
    let tasks = StreamTasks {
        credit,
        stop,
        outstanding_bytes,
        window,
        from_user,
        to_user,
    };
    (entry, PeerStream { sender, receiver }, tasks)
}

impl StreamEntry {
    /// Takes a message off the wire. An error is a breach of the protocol.
    pub(super) fn deliver(&mut self, message: Bytes) -> Result<(), String> {
        let Some(window) = &self.window else {
            return Err("data behind the end of a stream".to_owned());
        };
        let outstanding = self.outstanding_bytes.fetch_add(message.len(), Ordering::Relaxed) + message.len();
        if outstanding > STREAM_WINDOW_BYTES {
            return Err(format!(
                "a stream's window of {STREAM_WINDOW_BYTES} bytes was overspent: {outstanding}"
            ));
        }
        match window.try_send(message) {
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()), // closed: our user reads no more, and has said so
            Err(TrySendError::Full(_)) => Err(format!(
                "a stream's window of {STREAM_WINDOW_MESSAGES} messages was overspent"
            )),
        }
    }

    /// The other side has taken messages. An error is a breach of the protocol.
    pub(super) fn add_credit(&self, messages: u32, bytes: u32) -> Result<(), String> {
        let (messages, bytes) = (messages as usize, bytes as usize);
        let excess = self.credit.messages.available_permits() + messages > STREAM_WINDOW_MESSAGES
            || self.credit.bytes.available_permits() + bytes > STREAM_WINDOW_BYTES;
        if excess {
            return Err(format!(
                "credit of {messages} messages and {bytes} bytes is more than was spent"
            ));
        }
        self.credit.messages.add_permits(messages);
        self.credit.bytes.add_permits(bytes);
        Ok(())
    }

    /// The other side has ended its direction.
    pub(super) fn end_inbound(&mut self) {
        self.window = None;
    }

    /// The other side reads no more.
    pub(super) fn stop_outbound(&self) {
        self.stop.cancel();
    }

    /// Notes that a direction has ended; `true` when both have.
    pub(super) fn finish(&mut self, direction: Direction) -> bool {
        match direction {
            Direction::Outbound => self.outbound_done = true,
            Direction::Inbound => self.inbound_done = true,
        }
        self.outbound_done && self.inbound_done
    }
}

impl StreamTasks {
    pub(super) fn start(self, connection: &Arc<Connection>, id: u64) {
        let StreamTasks {
            credit,
            stop,
            outstanding_bytes,
            window,
            from_user,
            to_user,
        } = self;
        let outbound = connection.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = pump_out(&outbound, id, from_user, &credit) => {}
            }
            let _ = outbound.send(Frame::of(FrameType::End, id, Vec::new())).await;
            outbound.finish_stream(id, Direction::Outbound);
        });
        let inbound = connection.clone();
        tokio::spawn(async move {
            pump_in(&inbound, id, window, to_user, &outstanding_bytes).await;
            inbound.finish_stream(id, Direction::Inbound);
        });
    }
}

/// From the user to the outbox, as fast as the credit allows; until the user drops its sender.
async fn pump_out(connection: &Connection, id: u64, mut from_user: mpsc::Receiver<Vec<Bytes>>, credit: &Credit) {
    while let Some(body) = from_user.recv().await {
        let frame = Frame::of(FrameType::Data, id, body);
        let bytes = frame.body_bytes();
        if bytes > FRAME_BYTES_MAX {
            let node = connection.peer();
            tracing::error!(
                node,
                bytes,
                FRAME_BYTES_MAX,
                "a stream ends: its message is over the limit of a frame"
            );
            return;
        }
        if !credit.spend(bytes).await || connection.send(frame).await.is_err() {
            return;
        }
    }
}

impl Credit {
    async fn spend(&self, bytes: usize) -> bool {
        let (Ok(message), Ok(bytes)) = (
            self.messages.acquire().await,
            self.bytes.acquire_many(bytes as u32).await,
        ) else {
            return false;
        };
        message.forget();
        bytes.forget();
        true
    }
}

/// From the window to the user, giving credit back; until the other side ends or the user drops its receiver.
async fn pump_in(
    connection: &Connection,
    id: u64,
    mut window: mpsc::Receiver<Bytes>,
    to_user: mpsc::Sender<Bytes>,
    outstanding_bytes: &AtomicUsize,
) {
    let (mut owed_messages, mut owed_bytes) = (0, 0);
    loop {
        let message = tokio::select! {
            biased;
            message = window.recv() => message,
            () = to_user.closed() => return connection.stop_reading(id),
        };
        let Some(message) = message else { return };
        owed_messages += 1;
        owed_bytes += message.len();
        if to_user.send(message).await.is_err() {
            return connection.stop_reading(id);
        }
        if owed_messages * CREDIT_PORTIONS >= STREAM_WINDOW_MESSAGES
            || owed_bytes * CREDIT_PORTIONS >= STREAM_WINDOW_BYTES
        {
            outstanding_bytes.fetch_sub(owed_bytes, Ordering::Relaxed);
            connection.send_urgent(Frame::credit(id, owed_messages as u32, owed_bytes as u32));
            (owed_messages, owed_bytes) = (0, 0);
        }
    }
}
