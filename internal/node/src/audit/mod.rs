//! The audit: every administrative act, and whatever was refused, becomes one record in a topic of the cluster's own.
//!
//! ```text
//!   services ── acts ────────┐
//!   access ──── refusals ────┼─► limits ─► queue ─► writer: chain, batch ─┬─ leads here ─► partition of system/audit
//!   port, link ─ strangers ──┘                                            └─ peer link ──► the node that leads
//! ```
//!
//! Whoever causes an event does not wait, but for acts: their caller is answered when the record is on the disks of a majority, or a
//! second later. There is no second store and no second consumer: the topic is one like any other, and `highwater audit` reads it
//! through the client library.
//!
//! Invariants:
//! * An act leaves one record at most, whatever came of it, and a refused call, too. It leaves none if it is suppressed for a limit, and none
//!   that lasts if its node ends before the record is written. Acts of operators are suppressed only when the queue is full.
//! * Records of a node are a hash chain from its start on (`chain`), in the order of the log, and none is there twice.
//! * What is not recorded is counted, and the next record of its kind tells how many there were.
//! * Everything is bounded: texts, the queue, batches, and what strangers can cause in a time (`limits`).
//!
//! Before a cluster has a policy there is no such topic; then everything is logged (target `audit`), as it is beside the records, too.
//!
//! Deliberately absent: reading, and any rule about who may read (`access`).

mod append;
mod batches;
mod chain;
mod event;
mod limits;
mod queue;
mod topic;
mod writer;

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub(crate) use append::Ledger;
pub(crate) use chain::End;
pub(crate) use event::Outcome;
pub(crate) use topic::next_step;
pub(crate) use writer::Writer;

use crate::access::{Principal, Refused};
use crate::catalog::CatalogHost;
use crate::clock::now_ms;
use crate::metrics::Families;
use crate::port::source_of;
use event::{Cause, Event, Kind, UNKNOWN};
use limits::{Buckets, Paces, REFUSALS, TENANTS_ACTS};
use queue::{Queue, Written};

/// How long the answer to an administrative act waits for its record.
const ACT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a stopping node tries to write what waits.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// Where everything that is to be recorded is told; cheap to clone. The default one keeps nothing.
#[derive(Clone, Default)]
pub(crate) struct Audit {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// None: nothing is kept.
    host: Option<Arc<CatalogHost>>,
    /// This node's configuration names operators, so there will be a policy.
    has_operators: bool,
    queue: Queue,
    /// By who was refused.
    refusals: Mutex<Buckets<[u8; 16]>>,
    /// By where who was refused has come from.
    sources: Mutex<Buckets<IpAddr>>,
    /// Permitted acts of clients that are no operators, by tenant.
    tenants: Mutex<Buckets<String>>,
    /// Something writes what is queued.
    is_written: AtomicBool,
    /// The writer is to come to an end.
    closing: CancellationToken,
    /// It has.
    closed: CancellationToken,
}

/// An administrative act as it is told.
pub(crate) struct Act<'a> {
    pub(crate) principal: &'a Principal,
    /// It is one of those who run the cluster.
    pub(crate) is_operators: bool,
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) outcome: Outcome,
    pub(crate) why: String,
}

/// The record of an act, on its way.
#[must_use = "the caller is to be answered when it is written"]
pub(crate) struct OnItsWay(Option<Written>);

impl Audit {
    pub(crate) fn new(host: Arc<CatalogHost>, has_operators: bool) -> Audit {
        Audit {
            inner: Arc::new(Inner {
                host: Some(host),
                has_operators,
                ..Inner::default()
            }),
        }
    }

    /// An act that was carried out, or was refused for what it is.
    pub(crate) fn act(&self, act: Act<'_>) -> OnItsWay {
        let tenant = || act.principal.tenant().unwrap_or_default().to_owned();
        // Without a policy there are no tenants' rights, and the log has room.
        let is_limited = !act.is_operators && self.is_kept();
        if is_limited && !self.may_record(Kind::Act, &self.inner.tenants, &TENANTS_ACTS, tenant()) {
            return OnItsWay(None);
        }
        OnItsWay(self.record(Audit::event_of(act)))
    }

    fn event_of(act: Act<'_>) -> Event {
        Event {
            cause: match act.is_operators {
                true => Cause::Operators,
                false => Cause::Tenants,
            },
            kind: Kind::Act,
            time_ms: now_ms(),
            who: act.principal.to_string(),
            from: act.principal.remote(),
            what: act.method.to_owned(),
            target: act.target,
            outcome: act.outcome,
            why: act.why,
        }
    }

    /// An act whose caller was permitted nothing that acts need. Anybody can try that, so it counts as a refusal does; a better reason is
    /// asked for only if it is recorded.
    pub(crate) fn refused_act(&self, act: Act<'_>, why: impl FnOnce() -> Option<String>) -> OnItsWay {
        if !self.may_refuse(Kind::Act, act.principal) {
            return OnItsWay(None);
        }
        let why = why().unwrap_or(act.why);
        let event = Event {
            cause: Cause::Strangers,
            ..Audit::event_of(Act { why, ..act })
        };
        OnItsWay(self.record(event))
    }

    /// A call that was refused; `why` is asked only if it is recorded.
    pub(crate) fn denied(&self, principal: &Principal, refused: &Refused, why: impl FnOnce() -> String) {
        if self.may_refuse(Kind::Denied, principal) {
            let _unawaited = self.record(Event {
                cause: Cause::Strangers,
                kind: Kind::Denied,
                time_ms: now_ms(),
                who: principal.to_string(),
                from: principal.remote(),
                what: refused.action.name().to_owned(),
                target: refused.resource.to_string(),
                outcome: Outcome::Refused,
                why: why(),
            });
        }
    }

    /// An open stream that was cut, as this is refused from now on; `why` as in [`Audit::denied`].
    pub(crate) fn cut(&self, principal: &Principal, refused: &Refused, why: impl FnOnce() -> String) {
        if self.may_refuse(Kind::Cut, principal) {
            let _unawaited = self.record(Event {
                cause: Cause::Strangers,
                kind: Kind::Cut,
                time_ms: now_ms(),
                who: principal.to_string(),
                from: principal.remote(),
                what: refused.action.name().to_owned(),
                target: refused.resource.to_string(),
                outcome: Outcome::Done,
                why: why(),
            });
        }
    }

    /// A connection that was refused; `who` if it has proven that much, and `what` it wanted.
    pub(crate) fn unauthenticated(&self, remote: SocketAddr, who: Option<String>, what: &str, why: String) {
        if self.may_record(
            Kind::Unauthenticated,
            &self.inner.sources,
            &REFUSALS,
            source_of(remote.ip()),
        ) {
            let _unawaited = self.record(Event {
                cause: Cause::Strangers,
                kind: Kind::Unauthenticated,
                time_ms: now_ms(),
                who: who.unwrap_or_else(|| UNKNOWN.to_owned()),
                from: Some(remote),
                what: what.to_owned(),
                target: "this node".to_owned(),
                outcome: Outcome::Refused,
                why,
            });
        }
    }

    /// Waits until the record of an act is on the disks of a majority, but not for long. What waits in vain is written all the same as
    /// soon as that is possible.
    pub(crate) async fn wait(&self, act: OnItsWay, deadline: Instant) {
        let Some(written) = act.0.filter(|_| self.has_topic()) else {
            return;
        };
        let until = deadline.min(Instant::now() + ACT_PATIENCE);
        if timeout_at(until, written).await.is_err() {
            tracing::warn!("an administrative act is answered before its record in the audit is written");
        }
    }

    /// Writes what waits, if that is possible in a moment, and ends the writer.
    pub(crate) async fn finish(&self) {
        self.inner.closing.cancel();
        if !self.inner.is_written.load(Ordering::Acquire) {
            return;
        }
        if timeout(FINISH_PATIENCE, self.inner.closed.cancelled()).await.is_err() {
            tracing::warn!("some records of the audit could not be written before the end");
        }
    }

    /// Tells Prometheus how much was not recorded.
    pub(crate) fn tell(&self, families: &mut Families) {
        let mut told = families.begin(
            "highwater_audit_suppressed_total",
            "Events that no record of the audit was made of, for a limit or for want of room, by kind.",
        );
        for (kind, count) in self.inner.queue.suppressed_in_all() {
            told.value(&[("kind", kind.name())], count as f64);
        }
    }

    /// From now on nothing more is recorded of what clients of `tenant` do.
    #[cfg(test)]
    pub(crate) fn exhaust(&self, tenant: &str) {
        let later = std::time::Instant::now() + Duration::from_secs(3600);
        let mut buckets = self.inner.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        while buckets.take(tenant.to_owned(), &TENANTS_ACTS, later) {}
    }

    fn may_refuse(&self, kind: Kind, principal: &Principal) -> bool {
        self.may_record(kind, &self.inner.refusals, &REFUSALS, principal.digest().0)
    }

    fn may_record<K: Eq + Hash>(&self, kind: Kind, buckets: &Mutex<Buckets<K>>, paces: &Paces, source: K) -> bool {
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let may = buckets.take(source, paces, std::time::Instant::now());
        if !may && self.is_kept() {
            self.inner.queue.suppress(kind);
        }
        may
    }

    fn record(&self, event: Event) -> Option<Written> {
        let event = event.bounded();
        let Event {
            who, what, target, why, ..
        } = &event;
        let (kind, outcome) = (event.kind, event.outcome);
        let from = event.from.map(|from| from.to_string()).unwrap_or_default();
        tracing::info!(target: "audit", ?kind, who, from, what, to = target, ?outcome, why);
        self.is_kept().then(|| self.inner.queue.push(event)).flatten()
    }

    /// Whether there is, or will be, a topic to write it into.
    fn is_kept(&self) -> bool {
        let Some(host) = &self.inner.host else { return false };
        self.inner.has_operators || host.read(|catalog| catalog.access().is_set_up())
    }

    fn has_topic(&self) -> bool {
        self.inner.host.as_ref().is_some_and(|host| topic::exists(host))
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Audit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
