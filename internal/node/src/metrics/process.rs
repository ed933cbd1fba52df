//! What the process uses, by the names that every Prometheus client uses for it. What the system does not tell is left out.

use std::fs;

use super::Families;
use crate::clock;

pub(super) fn tell(families: &mut Families) {
    let mut tell = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            families.tell(name, help, value);
        }
    };
    tell(
        "process_cpu_seconds_total",
        "CPU time that the process has used, user and system.",
        clock::cpu_us().map(|microseconds| microseconds as f64 / 1e6),
    );
    tell(
        "process_resident_memory_bytes",
        "Memory of the process that is not swapped out.",
        resident_bytes().map(|bytes| bytes as f64),
    );
    tell(
        "process_open_fds",
        "Descriptors that the process has open.",
        fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64),
    );
}

/// The second figure of `/proc/self/statm` (proc(5)) is in pages.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
