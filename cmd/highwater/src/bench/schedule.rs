//! When records are due, and how a sender waits for that.

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// When each record of a run is due: `rate` a second from `start` on, or whenever it can be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    /// Records a second.
    pub(super) rate: Option<u64>,
}

impl Schedule {
    /// When the record of that number is due, if there is a rate.
    pub(super) fn due(&self, number: u64) -> Option<Instant> {
        let rate = u128::from(self.rate?);
        let ns = u128::from(number) * 1_000_000_000 / rate;
        Some(self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }

    /// From when on the latency of a record counts whose sending began at `begun`: from when it was due. A record that
    /// had to wait because the ones before it were stuck has waited, too; leaving that out is called coordinated omission.
    pub(super) fn measured_from(&self, number: u64, begun: Instant) -> Instant {
        self.due(number).unwrap_or(begun)
    }

    /// How many records are due in that time, if there is a rate.
    pub(super) fn count(&self, time: Duration) -> Option<u64> {
        let due = u128::from(self.rate?) * time.as_nanos() / 1_000_000_000;
        Some(u64::try_from(due).unwrap_or(u64::MAX).max(1))
    }
}

/// A timer of the system. The runtime's own are rounded to whole milliseconds, which is longer than what is measured.
#[derive(Debug)]
pub(super) struct Timer {
    /// A timer can be read as a pipe can: when there is something to read, it has expired.
    expired: Receiver,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            expired: Receiver::from_owned_fd_unchecked(descriptor)?,
        })
    }

    /// Waits until then; not at all if that is past.
    pub(super) async fn wait_until(&self, time: Instant) -> io::Result<()> {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(left),
        };
        timerfd_settime(&self.expired, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.expired.readable().await?;
            match self.expired.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                expired => return expired.map(drop),
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::latencies::Latencies;

    /// One record at a time to a server that takes 100 µs for each, and stalls once for half a second.
    fn with_a_stall(rate: Option<u64>) -> Latencies {
        let start = Instant::now();
        let schedule = Schedule { start, rate };
        let mut latencies = Latencies::new().unwrap();
        let mut answered = start;
        for number in 0..1_000 {
            let begun = schedule.due(number).unwrap_or(answered).max(answered);
            let took = match number {
                500 => Duration::from_millis(500),
                _ => Duration::from_micros(100),
            };
            answered = begun + took;
            latencies.note(answered - schedule.measured_from(number, begun));
        }
        latencies
    }

    #[test]
    fn a_stall_shows_in_the_percentiles_when_there_is_a_rate() {
        let ms = |latencies: &Latencies, thousandths| latencies.percentile(thousandths).unwrap().as_secs_f64() * 1e3;
        let corrected = with_a_stall(Some(1_000));
        // Half a second of a second is stalled, so half of the records wait, evenly from none of it to all of it.
        assert!(ms(&corrected, 900) > 300.0, "{corrected:?}");
        assert!(ms(&corrected, 990) > 450.0);
        // Without a rate that is one record out of a thousand.
        let uncorrected = with_a_stall(None);
        assert!(ms(&uncorrected, 990) < 1.0);
        assert!(uncorrected.max().unwrap() >= Duration::from_millis(499));
    }

    #[test]
    fn records_are_due_evenly_without_drift() {
        let start = Instant::now();
        let schedule = Schedule { start, rate: Some(3) };
        assert_eq!(schedule.due(0), Some(start));
        assert_eq!(
            schedule.due(3_000_000_000),
            Some(start + Duration::from_secs(1_000_000_000))
        );
        assert_eq!(schedule.count(Duration::from_secs(10)), Some(30));
        assert_eq!(schedule.count(Duration::from_millis(1)), Some(1), "never none");
        assert_eq!(Schedule { start, rate: None }.due(7), None);
    }

    #[tokio::test]
    async fn the_timer_never_wakes_early_and_can_be_used_again() {
        let timer = Timer::new().unwrap();
        for _ in 0..3 {
            let time = Instant::now() + Duration::from_micros(300);
            timer.wait_until(time).await.unwrap();
            assert!(Instant::now() >= time);
            timer.wait_until(time).await.unwrap();
        }
    }
}
