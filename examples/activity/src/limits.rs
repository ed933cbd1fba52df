//! Every limit of the service, in one place.

use std::time::Duration;

/// The largest id of a deployment or an event: every whole number up to it is exact in JSON, also in a browser.
pub const ID_MAX: u64 = (1 << 53) - 1;
/// The longest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// The latest time at which something can have been sent, milliseconds since 1970-01-01 UTC: the end of the year 9999.
pub const SENT_AT_MS_MAX: u64 = 253_402_300_799_999;
/// The largest request, bytes: a message, and room for the rest.
pub const REQUEST_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// The most events that the feed takes: each server has up to 200 bytes of each in memory, besides the newest messages.
pub const EVENTS_MAX: u64 = 10_000_000;
/// The most events of a page; also how many are looked up at a time for whoever follows.
pub const PAGE_EVENTS_MAX: u32 = 200;
/// The events of a page if nothing is said.
pub const PAGE_EVENTS: u32 = 100;
/// How many of a deployment's events the web page begins with.
pub const WEB_EVENTS: usize = 100;
/// The most deployments that the web page proposes.
pub const WEB_DEPLOYMENTS: usize = 100;
/// The most streams that one server has open, gRPC and web together.
pub const FOLLOWERS_MAX: usize = 1_000;
/// The most events that one server is adding at the same time; each waits for its turn.
pub const ADDS_MAX: usize = 500;
/// The most reads of old messages from the log at the same time; more wait.
pub const OLD_READS_MAX: usize = 8;
/// The longest line that `activity-cli add -` reads, bytes: every letter of a message may be an escape of six.
pub const LINE_BYTES_MAX: u64 = 6 * MESSAGE_BYTES_MAX as u64 + 1024;
/// How long adding an event may take.
pub const ADD_DEADLINE: Duration = Duration::from_secs(30);
/// How long a read may wait for the log.
pub const READ_DEADLINE: Duration = Duration::from_secs(10);

// A page fits into gRPC's usual limit of a message, 4 MiB.
const _: () = assert!(PAGE_EVENTS_MAX as usize * (MESSAGE_BYTES_MAX + 100) < 4 * 1024 * 1024);
