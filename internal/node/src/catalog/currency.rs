//! How current this node's catalog is, and with it the policy.
//!
//! A node that is cut off goes on with the policy that it knows, and would serve whoever has lost his rights since. So it asks the
//! catalog's leader all the time which revision is in force, and remembers when it asked for the one that it has. Once that was
//! longer ago than [`STALE_AFTER`], it answers no clients, and ends their streams, until it has asked with success again. So nobody
//! goes on for longer than that with what was taken from him.
//!
//! * What counts is when it *asked*. Whatever it hears may have lain in a buffer while the process stood still.
//! * The leader answers as long as a majority acknowledges it within its lease, so what it says was in force when it said it. That
//!   rests on clocks that run about equally fast, as the lease does: a leader whose clock is too slow may be believed for a lease too long.
//! * Our clock goes on while the machine sleeps. That of the leader's lease does not: a leader that sleeps may believe in it for the rest of the
//!   lease after it has woken up, and then be current for itself and whoever reaches it for [`STALE_AFTER`] more.
//! * Nothing is current before the first answer after the start: the copy on the disk may be of last year.
//!
//! Deliberately absent: who is refused then (`services/classes`, `services/revocation`, the gateway), and how the copy is kept (Raft).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::CatalogClient;
use crate::clock::since_boot_ms;
use crate::status::Problem;

/// For how long a node serves clients by the policy that it knows without hearing from a quorum of the catalog. Longer than the catalog
/// takes to get another leader with the most patient timers, and the pause between two questions.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(10);
/// How often the catalog's leader is asked.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon it is asked again after it gave no answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// When this node's catalog was last known to be as new as any.
pub(crate) struct Currency {
    node: String,
    stale_after_ms: u64,
    /// When it asked for what it has, milliseconds since the machine started; 0: never.
    asked_ms: AtomicU64,
    /// What `check` says, for those who wait for it.
    is_current: watch::Sender<bool>,
}

impl Currency {
    pub(crate) fn new(node: &str, stale_after: Duration) -> Arc<Currency> {
        Arc::new(Currency {
            node: node.to_owned(),
            stale_after_ms: u64::try_from(stale_after.as_millis()).unwrap_or(u64::MAX),
            asked_ms: AtomicU64::new(0),
            is_current: watch::Sender::new(false),
        })
    }

    /// Refuses while clients are not to be served by the policy that is known here.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        match self.is_current_at(since_boot_ms()) {
            true => Ok(()),
            false => Err(self.refusal()),
        }
    }

    /// What clients are told then.
    pub(crate) fn refusal(&self) -> Problem {
        let why = format!(
            "node {} {}, so it cannot tell who may do what; call another node, or see why this one does not reach the others",
            self.node,
            self.silence()
        );
        Problem::Unavailable { why, hint: None }
    }

    /// Since when it knows nothing new, in words.
    fn silence(&self) -> String {
        match self.asked_ms.load(Ordering::Relaxed) {
            0 => "has not heard from a quorum of the catalog since it started".to_owned(),
            asked_ms => {
                let silent_s = since_boot_ms().saturating_sub(asked_ms) / 1_000;
                format!("has not heard from a quorum of the catalog for {silent_s} s")
            }
        }
    }

    /// Whether clients are served; changes when that does.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.is_current.subscribe()
    }

    /// Asks until the node stops.
    pub(crate) async fn keep(self: Arc<Self>, client: CatalogClient) {
        join(self.ask(&client), self.age()).await;
    }

    async fn ask(&self, client: &CatalogClient) {
        loop {
            let asked_ms = since_boot_ms();
            let has_answer = client.keep_up(Instant::now() + ANSWER_TIMEOUT).await;
            match has_answer {
                true => self.note(asked_ms),
                // After a sleep of the machine, its clock says at once what a wait would say later.
                false => self.publish(),
            }
            sleep(if has_answer { ASK_INTERVAL } else { RETRY_PAUSE }).await;
        }
    }

    /// Tells those who wait when it is over, however long the present question takes.
    async fn age(&self) {
        let mut changes = self.changes();
        loop {
            self.publish();
            match self.left(since_boot_ms()) {
                Some(left) => sleep(left).await,
                // The sender is ours, so the wait cannot fail.
                None => drop(changes.wait_for(|is_current| *is_current).await),
            }
        }
    }

    fn note(&self, asked_ms: u64) {
        self.asked_ms.fetch_max(asked_ms, Ordering::Relaxed);
        self.publish();
    }

    fn publish(&self) {
        self.is_current.send_if_modified(|before| {
            // In here, so that of two who publish at once the later one is right.
            let now = self.is_current_at(since_boot_ms());
            let is_news = *before != now;
            match now {
                _ if !is_news => {}
                true => tracing::info!("the catalog is current, clients are served"),
                false => tracing::warn!(silence = self.silence(), "clients are not served any more"),
            }
            *before = now;
            is_news
        });
    }

    fn is_current_at(&self, now_ms: u64) -> bool {
        self.left(now_ms).is_some()
    }

    /// For how long it is still current.
    fn left(&self, now_ms: u64) -> Option<Duration> {
        let asked_ms = Some(self.asked_ms.load(Ordering::Relaxed)).filter(|asked_ms| *asked_ms > 0)?;
        let age_ms = now_ms.saturating_sub(asked_ms);
        let left_ms = self.stale_after_ms.checked_sub(age_ms)?;
        (left_ms > 0).then(|| Duration::from_millis(left_ms))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_known_is_current_for_ten_seconds_after_it_was_asked_for_and_nothing_before_the_first_answer() {
        let currency = Currency::new("a", STALE_AFTER);
        assert!(!currency.is_current_at(5));
        let why = currency.check().unwrap_err().to_string();
        assert!(
            why.contains("node a has not heard") && why.contains("since it started"),
            "{why}"
        );
        currency.note(1_000);
        assert!(currency.is_current_at(1_000) && currency.is_current_at(10_999));
        assert!(!currency.is_current_at(11_000) && !currency.is_current_at(u64::MAX));
        assert_eq!(currency.left(10_000), Some(Duration::from_secs(1)));
    }

    #[test]
    fn an_answer_that_comes_after_a_long_stop_counts_from_when_it_was_asked_for() {
        let currency = Currency::new("a", STALE_AFTER);
        let stopped_for_ms = 20_000;
        let asked_ms = since_boot_ms() - stopped_for_ms;
        currency.note(asked_ms);
        let why = currency.check().unwrap_err().to_string();
        assert!(why.contains("for 20 s"), "{why}");
        assert!(!*currency.changes().borrow());
        let now_ms = since_boot_ms();
        currency.note(now_ms);
        currency.note(asked_ms);
        assert!(
            currency.check().is_ok() && *currency.changes().borrow(),
            "an older answer takes nothing back"
        );
    }

    #[tokio::test]
    async fn who_waits_is_told_when_it_is_over() {
        let currency = Currency::new("a", Duration::from_millis(50));
        let mut changes = currency.changes();
        let ageing = tokio::spawn({
            let currency = currency.clone();
            async move { currency.age().await }
        });
        currency.note(since_boot_ms());
        let over = changes.wait_for(|is_current| !is_current);
        tokio::time::timeout(Duration::from_secs(30), over)
            .await
            .unwrap()
            .unwrap();
        assert!(currency.check().is_err());
        ageing.abort();
    }
}
