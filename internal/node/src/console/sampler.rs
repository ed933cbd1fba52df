//! Looks at the cluster once a second while somebody is shown it, and keeps the last few looks for rates.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::picture::{Picture, Rates, rates};
use crate::services::Context;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A look at thousands of replicas, or at a node that does not answer, takes time; the pause after it is so many times as long.
const PAUSE_PER_LOOK: u32 = 3;
/// For how long after the last question the looking goes on.
const INTEREST: Duration = Duration::from_secs(15);
/// How old a look may be that is shown while the next one goes on, as when a node does not answer.
const AGE_MAX: Duration = Duration::from_secs(6);
/// How long a question waits for a new look.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks between those that rates are made of.
const LOOKS_KEPT: usize = 5;

/// A look, with the rates up to it.
pub(super) struct Sample {
    pub(super) picture: Picture,
    rates: HashMap<(String, String, u32), Rates>,
    cpu: HashMap<String, f64>,
}

impl Sample {
    pub(super) fn rates(&self, tenant: &str, topic: &str, partition: u32) -> Rates {
        let key = (tenant.to_owned(), topic.to_owned(), partition);
        self.rates.get(&key).copied().unwrap_or_default()
    }

    pub(super) fn all_rates(&self) -> impl Iterator<Item = &Rates> {
        self.rates.values()
    }

    /// What share of one CPU a node's process used.
    pub(super) fn cpu(&self, node: &str) -> Option<f64> {
        self.cpu.get(node).copied()
    }
}

/// The looks at the cluster.
pub(super) struct Sampler {
    asked: Mutex<Option<Instant>>,
    wanted: Notify,
    latest: watch::Sender<Option<Arc<Sample>>>,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler {
            asked: Mutex::default(),
            wanted: Notify::new(),
            latest: watch::Sender::new(None),
        }
    }
}

impl Sampler {
    /// The cluster as it was a moment ago; None if it takes too long to see it.
    pub(super) async fn sample(&self) -> Option<Arc<Sample>> {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.wanted.notify_one();
        let mut latest = self.latest.subscribe();
        let is_new = |sample: &Option<Arc<Sample>>| {
            let age = sample.as_ref().map(|sample| sample.picture.at.elapsed());
            age.is_some_and(|age| age <= AGE_MAX)
        };
        let waited = timeout(PATIENCE, latest.wait_for(is_new)).await;
        waited.ok()?.ok()?.clone()
    }

    fn is_wanted(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_some_and(|asked| asked.elapsed() < INTEREST)
    }

    /// Looks while somebody wants it.
    pub(super) async fn keep(&self, context: &Arc<Context>) {
        let mut kept: VecDeque<Arc<Sample>> = VecDeque::new();
        loop {
            if !self.is_wanted() {
                kept.clear();
                self.wanted.notified().await;
                continue;
            }
            let begin = Instant::now();
            let picture = Picture::take(context).await;
            let sample = Arc::new(sample(kept.front(), picture));
            kept.push_back(sample.clone());
            if kept.len() > LOOKS_KEPT {
                kept.pop_front();
            }
            self.latest.send_replace(Some(sample));
            sleep(LOOK_INTERVAL.max(PAUSE_PER_LOOK * begin.elapsed())).await;
        }
    }
}

fn sample(before: Option<&Arc<Sample>>, picture: Picture) -> Sample {
    let before = before.map(|sample| &sample.picture);
    let cpu = before.map(|before| cpu_between(before, &picture)).unwrap_or_default();
    Sample {
        rates: before.map(|before| rates(before, &picture)).unwrap_or_default(),
        cpu,
        picture,
    }
}

fn cpu_between(before: &Picture, now: &Picture) -> HashMap<String, f64> {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    let used = now.nodes.iter().filter_map(|node| {
        let former = before.nodes.iter().find(|former| former.name == node.name)?;
        let us = node.cpu_us?.checked_sub(former.cpu_us?)?;
        Some((node.name.clone(), us as f64 / 1e6 / seconds.max(1e-3)))
    });
    used.collect()
}
