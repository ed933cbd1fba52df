//! What is traced, and how much of it.
//!
//! A client that has a trace of its own has decided already, and is followed. Of the batches of others, one in so many is traced from here
//! on. Both are bounded by a number of traces per second, so that nobody makes others pay for his curiosity.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use highwater_proto::trace::TraceParent;
use tokio::time::Instant;

use crate::config::TracesConfig;

/// Decides for each batch and call.
pub(super) struct Sampler {
    /// Of the batches without a trace, one in so many gets one; 0: none.
    one_in: AtomicU32,
    per_second_max: AtomicU32,
    began: Instant,
    /// The second, counted from `began`, in the upper half, and how many traces were begun in it in the lower.
    second: AtomicU64,
}

/// Where a trace goes on, or begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) trace_id: u128,
    /// The span that something is a part of; 0: none, the trace begins here.
    pub(super) parent_span: u64,
}

impl Sampler {
    pub(super) fn new(config: &TracesConfig) -> Sampler {
        Sampler {
            one_in: AtomicU32::new(config.one_in),
            per_second_max: AtomicU32::new(config.per_second_max),
            began: Instant::now(),
            second: AtomicU64::new(0),
        }
    }

    pub(super) fn retune(&self, config: &TracesConfig) {
        self.one_in.store(config.one_in, Ordering::Relaxed);
        self.per_second_max.store(config.per_second_max, Ordering::Relaxed);
    }

    /// Whether a batch is traced, and as part of what.
    pub(super) fn batch(&self, parent: Option<TraceParent>) -> Option<Origin> {
        if parent.is_some() {
            return self.call(parent);
        }
        let one_in = self.one_in.load(Ordering::Relaxed);
        if one_in == 0 || rand::random_range(0..one_in) != 0 || !self.has_room() {
            return None;
        }
        Some(Origin {
            trace_id: rand::random_range(1..=u128::MAX),
            parent_span: 0,
        })
    }

    /// Whether a call is traced, and as part of what: only if its client does it.
    pub(super) fn call(&self, parent: Option<TraceParent>) -> Option<Origin> {
        let parent = parent.filter(|parent| parent.sampled)?;
        self.has_room().then_some(Origin {
            trace_id: parent.trace_id,
            parent_span: parent.span_id,
        })
    }

    /// Takes one of this second's traces, if there is one left.
    fn has_room(&self) -> bool {
        let most = u64::from(self.per_second_max.load(Ordering::Relaxed));
        let now = self.began.elapsed().as_secs() << 32;
        let take = |second: u64| {
            let begun = if second & !u64::from(u32::MAX) == now {
                second & u64::from(u32::MAX)
            } else {
                0
            };
            (begun < most).then_some(now | (begun + 1))
        };
        self.second
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sampler(one_in: u32, per_second_max: u32) -> Sampler {
        Sampler::new(&TracesConfig {
            one_in,
            per_second_max,
            ..TracesConfig::default()
        })
    }

    fn parent(sampled: bool) -> Option<TraceParent> {
        Some(TraceParent {
            trace_id: 7,
            span_id: 8,
            sampled,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_decided_is_followed() {
        let sampler = sampler(1, 100);
        let origin = Some(Origin {
            trace_id: 7,
            parent_span: 8,
        });
        assert_eq!(sampler.batch(parent(true)), origin);
        assert_eq!(sampler.call(parent(true)), origin);
        assert_eq!(
            sampler.batch(parent(false)),
            None,
            "although every other batch is traced"
        );
        assert_eq!(sampler.call(None), None, "calls are traced only if their client does");
    }

    #[tokio::test(start_paused = true)]
    async fn of_the_others_one_in_so_many_begins_a_trace() {
        let begun = |one_in| {
            let sampler = sampler(one_in, u32::MAX);
            (0..10_000)
                .filter_map(|_| sampler.batch(None))
                .inspect(|origin| assert_eq!(origin.parent_span, 0))
                .count()
        };
        assert_eq!((begun(0), begun(1)), (0, 10_000));
        // 100 expected, standard deviation 10
        assert!((30..=170).contains(&begun(100)));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_so_many_traces_a_second_and_no_more() {
        let sampler = sampler(1, 10);
        let taken = || {
            (0..100)
                .filter(|number| sampler.batch(parent(true).filter(|_| number % 2 == 0)).is_some())
                .count()
        };
        assert_eq!((taken(), taken()), (10, 0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(), 10);
        sampler.retune(&TracesConfig {
            per_second_max: 0,
            ..TracesConfig::default()
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(), 0);
    }
}
