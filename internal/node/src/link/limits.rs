//! Every bound of the peer link, in one place.

use std::time::Duration;

/// The longest body of a frame, bytes, both ways.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest body of the frames before and of a hello, bytes.
pub const HELLO_BYTES_MAX: usize = 1024;
/// The longest reason that is sent with a refusal or a failed call, bytes; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 4 * 1024;
/// The longest gossip message, bytes.
pub const GOSSIP_BYTES_MAX: usize = 128 * 1024;

/// Frames that wait to be written on one connection.
pub const OUTBOX_FRAMES_MAX: usize = 4096;
/// Bytes that wait to be written on one connection.
pub const OUTBOX_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Small frames (pings, credit, refusals) that wait to be written; a peer that lets them pile up is cut off.
pub const URGENT_FRAMES_MAX: usize = 8192;
/// Pieces of memory that are handed to TLS in one write.
pub const WRITE_SLICES_MAX: usize = 64;

/// Calls of a peer that are carried out at the same time, per connection; further ones are refused. When a node dies that
/// led a thousand groups, a candidate of each asks for a vote; and heartbeats to a replica that is just being opened wait
/// for it a while, of several intervals side by side.
pub const INCOMING_CALLS_MAX: usize = 4096;
/// Bytes of such calls, per connection.
pub const INCOMING_CALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Our own calls that wait for an answer, per connection.
pub const OUTGOING_CALLS_MAX: usize = 8192;

/// How long a call that may travel in company waits for it.
pub const COMPANY_WAIT: Duration = Duration::from_millis(3);
/// After so long without such a call the next one goes at once.
pub const COMPANY_QUIET: Duration = Duration::from_millis(20);
/// How long the first answer to a bundle waits for the others.
pub const ANSWERS_WAIT: Duration = Duration::from_millis(2);
/// Calls, or answers, in one bundle.
pub const BUNDLE_CALLS_MAX: usize = 512;
/// Bytes at which a bundle takes no more.
pub const BUNDLE_BYTES_MAX: usize = 128 * 1024;
/// The longest body of a call or an answer in a bundle, bytes; longer ones travel alone.
pub const BUNDLED_BODY_BYTES_MAX: usize = 1024;

/// Open streams per connection: each group has at most one of appends and one of manifests to each follower.
pub const STREAMS_MAX: usize = 4096;
/// Messages that may be on their way in one direction of a stream before the receiver has taken any.
pub const STREAM_WINDOW_MESSAGES: usize = 64;
/// Bytes that may be on their way in one direction of a stream before the receiver has taken any.
pub const STREAM_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Messages that wait between a stream's user and the link, each way, beside the window.
pub const STREAM_QUEUE_MESSAGES: usize = 8;

/// Nodes that the link keeps diallers for, by name and by address each.
pub const NODES_MAX: usize = 1024;
/// Connections that one node may have open to us.
pub const ACCEPTED_PER_NODE_MAX: usize = 16;

/// From the start of a dial to the end of the hello.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// For one address of a host that has several.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause after a failed dial; it doubles with every further failure.
pub const REDIAL_PAUSE_LEAST: Duration = Duration::from_millis(50);
/// The longest pause after a failed dial.
pub const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often each side looks at a connection: sends a ping if it has sent nothing else, and counts silence.
pub const TICK: Duration = Duration::from_millis(500);
/// Ticks without a byte from the other side after which a connection is dead. The other side sends at every tick.
pub const SILENT_TICKS_MAX: u32 = 6;
/// Ticks without any use after which the dialler closes a connection; it dials again when needed.
pub const UNUSED_TICKS_MAX: u32 = 120;

const _: () = assert!(
    STREAM_WINDOW_BYTES >= FRAME_BYTES_MAX,
    "the largest message must fit into a stream's window"
);
const _: () = assert!(
    BUNDLE_BYTES_MAX + BUNDLED_BODY_BYTES_MAX + REASON_BYTES_MAX < FRAME_BYTES_MAX,
    "a bundle must fit into a frame"
);
const _: () = assert!(
    BUNDLE_CALLS_MAX <= INCOMING_CALLS_MAX,
    "a full bundle must be acceptable"
);
const _: () = assert!(
    OUTBOX_BYTES_MAX >= FRAME_BYTES_MAX,
    "the largest message must fit into the outbox"
);
const _: () = assert!(
    INCOMING_CALL_BYTES_MAX >= FRAME_BYTES_MAX,
    "the largest call must be acceptable"
);
