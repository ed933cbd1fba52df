//! A request that waits for its turn to catch up.
//!
//! A leader of a thousand groups may have as many followers that wait, each for a MiB. So what waits keeps no entries: only
//! which ones they were. When its turn has come they are read again, one request at a time over all streams that share a
//! pace, for the turn is held meanwhile.
//!
//! * What is read must be what was let go of. The log may have been truncated and written anew under a stream whose replica
//!   leads no more; its last entry's id tells, as two logs with the same entry are the same up to it.
//! * What cannot be read now (damaged, say) breaks the stream: openraft reads it for the next one, and can wait for it
//!   without holding a turn.

use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_log::{Frame, Log};
use openraft::entry::RaftEntry;

use super::{Follower, first_index, load, lost};
use crate::catch_up::{Load, Payment};
use crate::network::broken;
use crate::runtime;
use crate::storage::READ_BYTES_MAX;
use crate::types::{AppendRequest, LogEntry, LogId, RpcError};

/// Invariants: `request` has no entries; they are those from `first_index` up to and with `last`. `reading` is there from the
/// turn on until the entries are.
pub(super) struct Waiting {
    request: AppendRequest,
    first_index: u64,
    last: LogId,
    load: Load,
    reading: Option<Reading>,
}

/// The turn has come.
struct Reading {
    payment: Option<Payment>,
    entries: BoxFuture<'static, Result<Vec<LogEntry>, RpcError>>,
}

impl Waiting {
    /// A request that waits; None if it has no entries: those wait for nothing.
    pub(super) fn new(mut request: AppendRequest) -> Option<Waiting> {
        let (first_index, load) = (first_index(&request), load(&request));
        let last = request.entries.last()?.log_id();
        request.entries = Vec::new();
        Some(Waiting {
            request,
            first_index,
            last,
            load,
            reading: None,
        })
    }

    /// Ready when the turn has come, with the whole request; then it is paid for. An error if it cannot be had any more.
    pub(super) fn poll_whole(
        &mut self,
        follower: &mut Follower,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AppendRequest, RpcError>> {
        follower.check_kept(self.first_index)?;
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => {
                let payment = ready!(follower.poll_clear(self.first_index, self.load, cx));
                let entries = Box::pin(read_again(follower.log.clone(), self.first_index, self.last));
                Reading { payment, entries }
            }
        };
        let Poll::Ready(entries) = reading.entries.poll_unpin(cx) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let entries = entries?;
        reading.payment.into_iter().for_each(Payment::begin);
        Poll::Ready(Ok(AppendRequest {
            vote: self.request.vote,
            prev_log_id: self.request.prev_log_id,
            leader_commit: self.request.leader_commit,
            entries,
        }))
    }

    /// Waits for no turn at present, and gives back the one it has.
    pub(super) fn leave_queue(&mut self) {
        self.reading = None;
    }
}

/// The entries from `first_index` up to `last`, in as many reads as it takes.
async fn read_again(log: Log, first_index: u64, last: LogId) -> Result<Vec<LogEntry>, RpcError> {
    let end_index = last.index() + 1;
    let mut entries: Vec<LogEntry> = Vec::new();
    while first_index + (entries.len() as u64) < end_index {
        let start = first_index + entries.len() as u64;
        let frames = read_piece(&log, start, end_index).await?;
        if frames.is_empty() {
            return Err(lost(format!("entry {start} is gone since it was to be sent")));
        }
        for frame in frames {
            entries.push(LogEntry::stored(frame).map_err(broken)?);
        }
    }
    match entries.last().map(RaftEntry::log_id) {
        Some(found) if found == last => Ok(entries),
        found => Err(lost(format!(
            "entry {last} was to be sent, and the log has {found:?} now"
        ))),
    }
}

async fn read_piece(log: &Log, start: u64, end: u64) -> Result<Vec<Frame>, RpcError> {
    if let Some(frames) = log.read_cached(start, end, READ_BYTES_MAX) {
        return Ok(frames);
    }
    let log = log.clone();
    let read = runtime::blocking(move || log.read(start, end, READ_BYTES_MAX)).await;
    read.map_err(lost)?.map_err(lost)
}
