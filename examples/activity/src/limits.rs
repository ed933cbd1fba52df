//! Every limit of the service, in one place, and what memory they add up to.

use std::time::Duration;

use highwater_service::connections::{BUFFER_BYTES_MAX, CONNECTIONS_MAX, REQUESTS_MAX};

use crate::PARTITIONS;

/// The largest id of a deployment or an event: every whole number up to it is exact in JSON, also in a browser.
pub const ID_MAX: u64 = (1 << 53) - 1;
/// The longest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// The latest time at which something can have been sent, milliseconds since 1970-01-01 UTC: the end of the year 9999.
pub const SENT_AT_MS_MAX: u64 = 253_402_300_799_999;
/// The largest request, bytes: a message, and room for the rest.
pub const REQUEST_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// The most events that the feed takes; something of each is in the memory of each server.
pub const EVENTS_MAX: u64 = 1_000_000;
/// What an event takes in memory at most, bytes, besides its message: a test of `index` measures it.
pub const EVENT_BYTES_MAX: u64 = 256;
/// How much of the newest messages is in memory if nothing is said, bytes.
pub const NEWEST_BYTES: usize = 64 * 1024 * 1024;
/// The most events of a page; also how many are looked up at a time for whoever follows.
pub const PAGE_EVENTS_MAX: u32 = 200;
/// The events of a page if nothing is said.
pub const PAGE_EVENTS: u32 = 100;
/// The most bytes of messages in a page, which are copies; one event is always taken.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;
/// How many of a deployment's events the web page begins with.
pub const WEB_EVENTS: usize = 100;
/// The most deployments that the web page proposes.
pub const WEB_DEPLOYMENTS: usize = 100;
/// The most streams that one server has open, gRPC and web together.
pub const FOLLOWERS_MAX: usize = 200;
/// What a stream takes in memory at most, bytes, if its reader does not read: a page, an event of which each letter is an escape, and what
/// the HTTP server holds ready.
pub const FOLLOWER_BYTES_MAX: usize = PAGE_BYTES_MAX + 8 * MESSAGE_BYTES_MAX + BUFFER_BYTES_MAX;
/// The most reads of old messages from the log at the same time; more wait.
pub const OLD_READS_MAX: usize = 8;
/// How much such a read reads ahead, bytes.
pub const OLD_READ_BYTES: usize = 256 * 1024;
/// The longest line that `activity-cli add -` reads, bytes: every letter of a message may be an escape of six.
pub const LINE_BYTES_MAX: u64 = 6 * MESSAGE_BYTES_MAX as u64 + 1024;
/// The most events of one partition that wait to be added, as [`Writer`](highwater_service::Writer) has it: a partition that has no leader
/// does not keep the others waiting.
pub const ADDS_MAX: usize = highwater_service::WAITING_MAX;
/// How long adding an event may take.
pub const ADD_DEADLINE: Duration = Duration::from_secs(30);
/// How long a read may wait for the log.
pub const READ_DEADLINE: Duration = Duration::from_secs(10);

// Neither followers nor events that wait keep all others out.
const _: () = assert!(FOLLOWERS_MAX < CONNECTIONS_MAX);
const _: () = assert!(PARTITIONS as usize * ADDS_MAX < REQUESTS_MAX);

const MIB: u64 = 1024 * 1024;

// A page fits into gRPC's usual limit of a message, 4 MiB.
const _: () = assert!(PAGE_BYTES_MAX + MESSAGE_BYTES_MAX + PAGE_EVENTS_MAX as usize * 100 < 4 * 1024 * 1024);

// All of it at once fits into the 512 MiB that the chart gives to a pod, with room for the program itself and what it is doing.
const _: () = assert!(
    EVENTS_MAX * EVENT_BYTES_MAX
        + NEWEST_BYTES as u64
        + (FOLLOWERS_MAX * FOLLOWER_BYTES_MAX) as u64
        // Heads at the port of the page and at that of metrics.
        + (2 * CONNECTIONS_MAX * BUFFER_BYTES_MAX) as u64
        + (OLD_READS_MAX * (OLD_READ_BYTES + PAGE_BYTES_MAX)) as u64
        + (PARTITIONS as usize * ADDS_MAX * MESSAGE_BYTES_MAX) as u64
        <= (512 - 64) * MIB
);
