//! `make groups`: a consumer group whose members and nodes are killed, paused and restarted under load, and a verdict.
//!
//! ```text
//! producer (workload) ─► 3 nodes ─► 4 members, each a process ─► what each is done with, in a file of its own
//!                                     ▲ kills, pauses, restarts      │
//! positions, asked of the leaders all the time ──────────────────────┴─► one History ─► the checker (I10)
//! ```
//!
//! A member notes a record, with the machine's one monotonic clock, before it commits it. So everything below a committed offset must have
//! been noted by then, whoever did it and however that process ended; and no leader may ever tell a lower offset or claim
//! than before.
//!
//! What is measured beside: how long the other members waited for records while one of them came, went or hung.
//!
//! Deliberately absent: faults of links and disks (`chaos`).

mod crew;
mod member;
mod pauses;
mod show;

pub use self::member::member;
pub use self::show::{Plan, Report, run};

/// The topic.
const TOPIC: &str = "orders";
/// The group.
const GROUP: &str = "billing";
/// How many partitions there are.
const PARTITIONS: u32 = 12;
/// How many members there are.
const MEMBERS: usize = 4;
/// The session of each.
const SESSION: std::time::Duration = std::time::Duration::from_secs(3);

/// The machine's monotonic clock, nanoseconds; the same in all processes.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + nanoseconds.unwrap_or(0)
}
