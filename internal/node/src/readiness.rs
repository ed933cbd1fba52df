//! Readiness: whether this node is as useful as it can be, and if not, why.
//!
//! Ready means: this node is a member of the committed catalog under its present incarnation, its copy of the catalog
//! is current (it has heard from a quorum within the last seconds: without that it answers no clients), its replicas are
//! opened and have once caught up with their leaders since the node started (as far as those can be asked and the disk takes records), nothing has failed that the node cannot go on from (a Raft core that ended, a disk that does not take writes), and
//! it is not on its way out. It does not mean that partitions have a quorum, nor that there is room on the disk: a full disk
//! serves and votes.
//!
//! Whether the process works at all, liveness, is another question and has another answer: see `services/health` and
//! `admin`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::catalog::{CatalogHost, Currency};
use crate::controller::Controller;
use crate::error::Failure;
use crate::failures::Failures;
use crate::replicas::{CATALOG_GROUP, Registry};
use crate::tls::Credentials;

/// How often a node that is not ready looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often a node that is not ready says why.
const REMINDER: Duration = Duration::from_secs(30);

/// Why a node is not ready. Its text is for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    /// What the process begins with.
    #[error("its catalog replica is being opened")]
    Starting,
    /// Neither founded nor joined yet.
    #[error("it has not found its cluster yet")]
    NoCluster,
    /// The catalog that it knows does not have it as a member under this incarnation, or not yet.
    #[error("the catalog does not know it as a member yet{}", waiting(.leader, .voters))]
    NoMember { leader: String, voters: Vec<String> },
    /// The catalog here may be old.
    #[error("its catalog has not caught up yet{}", waiting(.leader, .voters))]
    Behind { leader: String, voters: Vec<String> },
    /// It had caught up, and what it knows may be old by now.
    #[error("it does not hear from a quorum of the catalog any more, and answers no clients{}", waiting(.leader, .voters))]
    CutOff { leader: String, voters: Vec<String> },
    /// Replicas are being opened or mended.
    #[error("{0} of its replicas are still being opened or mended")]
    Opening(usize),
    /// Replicas lack what was appended while the node was away.
    #[error("{0} of its replicas have not caught up yet with what was appended while it was away")]
    CatchingUp(usize),
    /// Nobody takes it for what it is any more.
    #[error("its certificate has expired")]
    Expired,
    /// It stops.
    #[error("it is draining")]
    Draining,
    /// It cannot go on, and its process ends.
    #[error("it cannot go on: {0}")]
    Failed(Failure),
}

fn waiting(leader: &str, voters: &[String]) -> String {
    match leader {
        "" if voters.is_empty() => String::new(),
        "" => format!("; it hears from no leader, the other voters are {}", voters.join(", ")),
        leader => format!("; its leader is {leader}"),
    }
}

/// What others must know of a node's readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// Not ready yet, or not any more.
    Starting,
    /// May be given leaderships.
    Ready,
    /// On its way out.
    Draining,
}

impl NodeState {
    pub(crate) fn of(not_ready: &Option<NotReady>) -> NodeState {
        match not_ready {
            None => NodeState::Ready,
            Some(NotReady::Draining) => NodeState::Draining,
            Some(_) => NodeState::Starting,
        }
    }

    /// As it is gossiped.
    pub(crate) fn name(self) -> &'static str {
        match self {
            NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Draining => "draining",
        }
    }
}

/// What readiness is judged from.
pub(crate) struct Readiness {
    /// How many replicas are still to be opened.
    pub(crate) opening: watch::Receiver<usize>,
    /// How many have not caught up yet.
    pub(crate) behind: watch::Receiver<usize>,
    pub(crate) controller: Arc<Controller>,
    pub(crate) currency: Arc<Currency>,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) failures: Failures,
    pub(crate) credentials: Arc<Credentials>,
    /// None: ready.
    pub(crate) not_ready: Arc<watch::Sender<Option<NotReady>>>,
    pub(crate) draining: CancellationToken,
}

impl Readiness {
    /// Keeps `not_ready` true to its meaning, until the node drains or fails.
    pub(crate) async fn keep(self) {
        let mut changes = self.registry.changes();
        let mut applied = self.host.progress();
        let mut failed = self.failures.watch();
        let mut notices = self.credentials.notices();
        let mut is_current = self.currency.changes();
        let mut caught_up = false;
        let mut reminded = Instant::now();
        loop {
            changes.mark_unchanged();
            applied.mark_unchanged();
            let is_member = self.controller.is_member();
            let is_current_now = *is_current.borrow_and_update();
            caught_up = caught_up || (is_member && is_current_now);
            let not_ready = self.judge(is_member, caught_up);
            tell(&self.not_ready, not_ready.clone());
            match &not_ready {
                Some(NotReady::Draining | NotReady::Failed(_)) => return,
                Some(why) if reminded.elapsed() > REMINDER => {
                    tracing::info!(%why, "still not ready");
                    reminded = Instant::now();
                }
                _ => {}
            }
            tokio::select! {
                biased;
                () = self.draining.cancelled() => {}
                changed = failed.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
                changed = notices.changed() => if changed.is_err() { return },
                changed = is_current.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
                () = sleep(LOOK_INTERVAL), if not_ready.is_some() => {}
            }
        }
    }

    fn judge(&self, is_member: bool, caught_up: bool) -> Option<NotReady> {
        if let Some(failure) = self.failures.first() {
            return Some(NotReady::Failed(failure));
        }
        if self.draining.is_cancelled() {
            return Some(NotReady::Draining);
        }
        if self.credentials.is_expired() {
            return Some(NotReady::Expired);
        }
        if self.registry.hosted(CATALOG_GROUP).is_none() {
            return Some(NotReady::NoCluster);
        }
        let (leader, voters) = self.awaited();
        if !is_member {
            return Some(NotReady::NoMember { leader, voters });
        }
        if !caught_up {
            return Some(NotReady::Behind { leader, voters });
        }
        if self.currency.check().is_err() {
            return Some(NotReady::CutOff { leader, voters });
        }
        match (*self.opening.borrow(), *self.behind.borrow()) {
            (0, 0) => None,
            (0, count) => Some(NotReady::CatchingUp(count)),
            (count, _) => Some(NotReady::Opening(count)),
        }
    }

    /// For whom a node with a catalog replica waits: its leader, empty if it knows none, and the other voters.
    fn awaited(&self) -> (String, Vec<String>) {
        let Some(hosted) = self.registry.hosted(CATALOG_GROUP) else {
            return Default::default();
        };
        let status = hosted.status();
        let others = status.voters.into_iter();
        let others = others.filter(|voter| voter.replica_id != hosted.replica_id);
        // Who leads in vain is called its own leader; what it waits for are the others.
        let leader = status.leader.filter(|_| !hosted.leads_in_vain());
        let leader = leader.map(|leader| leader.node).unwrap_or_default();
        (leader, others.map(|voter| voter.node).collect())
    }
}

/// Publishes it, and says so in the log if the reason is another one: numbers in it may change all the time.
pub(crate) fn tell(readiness: &watch::Sender<Option<NotReady>>, now: Option<NotReady>) {
    readiness.send_if_modified(|before| {
        let is_news = *before != now;
        let kind = |not_ready: &Option<NotReady>| not_ready.as_ref().map(std::mem::discriminant);
        match &now {
            _ if kind(before) == kind(&now) => {}
            None => tracing::info!("ready"),
            Some(why) => tracing::info!(%why, "not ready"),
        }
        *before = now;
        is_news
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_for_whom_a_node_waits() {
        let voters = vec!["b".to_owned(), "c".to_owned()];
        let why = |leader: &str| NotReady::Behind {
            leader: leader.to_owned(),
            voters: voters.clone(),
        };
        assert_eq!(
            why("").to_string(),
            "its catalog has not caught up yet; it hears from no leader, the other voters are b, c"
        );
        assert_eq!(
            why("b").to_string(),
            "its catalog has not caught up yet; its leader is b"
        );
        assert_eq!(
            NotReady::Opening(3).to_string(),
            "3 of its replicas are still being opened or mended"
        );
    }

    #[test]
    fn only_a_ready_node_may_be_given_leaderships() {
        assert_eq!(NodeState::of(&None), NodeState::Ready);
        assert_eq!(NodeState::of(&Some(NotReady::Draining)), NodeState::Draining);
        let failed = NotReady::Failed(Failure::Disk("gone".to_owned()));
        for why in [NotReady::Starting, NotReady::NoCluster, failed] {
            assert_eq!(NodeState::of(&Some(why)), NodeState::Starting);
        }
    }
}
