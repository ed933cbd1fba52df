//! Every bound of the gateway, in one place; `docs/gateway.md` and the OpenAPI description quote them.

use std::time::Duration;

use highwater_proto::limits::{HEADER_LIST_BYTES_MAX, MESSAGE_BYTES_MAX};

use crate::link::limits::FRAME_BYTES_MAX;

/// The longest head of a request, bytes: its line and its headers.
pub(super) const HEAD_BYTES_MAX: usize = HEADER_LIST_BYTES_MAX as usize;
/// The most headers of a request.
pub(super) const HEADERS_MAX: usize = 64;
/// What a connection may buffer, bytes.
pub(super) const CONNECTION_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The longest body of a request, bytes.
pub(super) const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// How much more is read of a longer one before it is refused, bytes: who still sends when the connection is closed
/// might not get to see the answer.
pub(super) const DISCARDED_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;

/// How long a connection may take for a request's head, from its begin or from the end of the request before.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request's body may take.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a caller may take nothing of its answer.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What a caller must take of its answer on the whole, beyond the first [`STALL_TIMEOUT`], bytes a second.
pub(super) const ANSWER_BYTES_PER_S_LEAST: u64 = 32 * 1024;

/// The records that a read gives if it does not say how many.
pub(super) const FETCH_RECORDS_DEFAULT: u64 = 500;
/// The most records that a read gives.
pub(super) const FETCH_RECORDS_MAX: u64 = 10_000;
/// The bytes of records, as JSON, that a read gives if it does not say how many. A single longer record is given whole.
pub(super) const FETCH_BYTES_DEFAULT: u64 = 1024 * 1024;
/// The most bytes of records, as JSON, that a read gives, also for a single record.
pub(super) const FETCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The longest wait for records that are not there yet, milliseconds.
pub(super) const WAIT_MS_MAX: u64 = 30_000;

/// How long an append may take, from the end of its body on.
pub(super) const APPEND_TIME_MAX: Duration = Duration::from_secs(30);
/// What must be left of that when an append is proposed, or sent to another node: it would most likely be done, and
/// nobody would be there any more to learn it.
pub(super) const APPEND_TIME_LEAST: Duration = Duration::from_secs(1);
/// How long a read may take, its wait included.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_millis(WAIT_MS_MAX + 10_000);
/// How long an append is tried again while its partition has no leader.
pub(super) const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How soon it is tried again.
pub(super) const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// How soon a node is asked again, at the most, that has said not to lead and is still taken for the leader. The first
/// pause is [`LEADER_PAUSE`], each further one twice as long.
pub(super) const ASK_AGAIN_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Bytes of bodies, of batches that are read and of answers in memory at the same time, over all connections.
pub(super) const BUFFERED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// What a single principal may have of that.
pub(super) const PRINCIPAL_BUFFERED_BYTES_MAX: usize = BUFFERED_BYTES_MAX / 4;
/// Bodies that are taken apart, and answers that are made, at the same time.
pub(super) const WORKERS_MAX: usize = 4;
/// Appends, and as many reads, that are carried out by other nodes at the same time.
pub(super) const FORWARDED_MAX: usize = 256;
/// What is kept back of a forwarded call's time, so that the answer still arrives.
pub(super) const FORWARD_MARGIN: Duration = Duration::from_millis(250);
/// Producers that the gateway keeps for requests that bring none.
pub(super) const PRODUCERS_MAX: usize = 4096;

/// The longest head of a forwarded request or of its answer, bytes.
const FORWARD_HEAD_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(
    PRINCIPAL_BUFFERED_BYTES_MAX >= BODY_BYTES_MAX + FETCH_BYTES_MAX as usize,
    "whoever does one thing at a time must not be refused"
);
const _: () = assert!(
    BODY_BYTES_MAX + HEAD_BYTES_MAX + FORWARD_HEAD_BYTES_MAX < FRAME_BYTES_MAX,
    "a request must fit into a frame of the link"
);
const _: () = assert!(
    FETCH_BYTES_MAX as usize + FORWARD_HEAD_BYTES_MAX < FRAME_BYTES_MAX,
    "an answer must fit into a frame of the link"
);
