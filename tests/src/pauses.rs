//! How long clients had to wait, read from a history.
//!
//! A partition **pauses** for as long as the record that waited longest for its acknowledgement. Records must be sent all the
//! time, on a schedule that does not wait for answers; a pause is known as exactly as the records lie close.

use std::time::Duration;

use highwater_verify::History;
use highwater_verify::history::{Send, SendOutcome};

/// A time on the history's clock, from and to (exclusive), nanoseconds.
pub type Window = std::ops::Range<u64>;

/// How many records were not acknowledged to their sender, whatever became of them.
pub fn failed(history: &History) -> usize {
    let is_failed = |send: &&Send| !matches!(send.outcome, SendOutcome::Appended { .. });
    history.sends().filter(is_failed).count()
}

/// Of each partition, the longest time that a record sent in the window waited; `None` if none was sent.
pub fn pauses(history: &History, window: &Window) -> Vec<Option<Duration>> {
    by_partition(history, |longest, send| {
        let is_in = window.contains(&send.span.invoked_ns);
        if is_in {
            *longest = (*longest).max(Some(waited(send)));
        }
    })
}

/// Of each partition, how long after the begin of the window the first record that was sent in it was acknowledged; `None`
/// if none was.
pub fn served_after(history: &History, window: &Window) -> Vec<Option<Duration>> {
    by_partition(history, |first, send| {
        let acknowledged = matches!(send.outcome, SendOutcome::Appended { .. });
        if !acknowledged || !window.contains(&send.span.invoked_ns) {
            return;
        }
        let after = Duration::from_nanos(send.span.returned_ns - window.start);
        *first = Some(first.map_or(after, |known| known.min(after)));
    })
}

fn waited(send: &Send) -> Duration {
    Duration::from_nanos(send.span.returned_ns.saturating_sub(send.span.invoked_ns))
}

fn by_partition(history: &History, mut take: impl FnMut(&mut Option<Duration>, &Send)) -> Vec<Option<Duration>> {
    let mut found = vec![None; history.run().partitions.len()];
    for send in history.sends() {
        if let Some(partition) = found.get_mut(send.partition as usize) {
            take(partition, send);
        }
    }
    found
}

/// The longest of some times with its place.
pub fn longest(times: &[Option<Duration>]) -> Option<(usize, Duration)> {
    let known = times.iter().enumerate();
    known
        .filter_map(|(place, time)| Some((place, (*time)?)))
        .max_by_key(|(_, time)| *time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use highwater_verify::history::{Numbering, Run, Span};

    use super::*;

    fn history(sends: &[(u32, u64, u64, bool)]) -> History {
        let run = Run {
            partitions: vec!["t/0".to_owned(), "t/1".to_owned()],
            ..Run::default()
        };
        let mut history = History::new(run);
        for (number, (partition, invoked_ns, returned_ns, acknowledged)) in (0..).zip(sends) {
            let send = Send {
                span: Span {
                    process: 0,
                    invoked_ns: *invoked_ns,
                    returned_ns: *returned_ns,
                },
                partition: *partition,
                producer: 0,
                numbering: Numbering::Calls,
                sequence: u64::from(number),
                first_number: number,
                outcome: match acknowledged {
                    true => SendOutcome::Appended { base_offset: 0 },
                    false => SendOutcome::Unknown,
                },
            };
            history.record_send(send, &[0]);
        }
        history
    }

    fn nanos(times: &[Option<Duration>]) -> Vec<Option<u128>> {
        times.iter().map(|time| time.map(|time| time.as_nanos())).collect()
    }

    #[test]
    fn the_record_that_waited_longest_in_the_window_is_the_pause() {
        let history = history(&[
            (0, 5, 100, true),
            (0, 10, 12, true),
            (0, 11, 31, false),
            (1, 30, 99, true),
        ]);
        assert_eq!(nanos(&pauses(&history, &(10..30))), [Some(20), None]);
        assert_eq!(failed(&history), 1);
    }

    #[test]
    fn a_partition_serves_again_with_the_first_acknowledgement_of_what_was_sent_afterwards() {
        let history = history(&[
            (0, 5, 11, true),
            (0, 10, 40, true),
            (0, 12, 15, false),
            (0, 13, 50, true),
        ]);
        let served = served_after(&history, &(10..30));
        assert_eq!(nanos(&served), [Some(30), None]);
        assert_eq!(longest(&served), Some((0, Duration::from_nanos(30))));
    }
}
