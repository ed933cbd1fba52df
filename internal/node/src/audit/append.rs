//! From a batch to the audit's partition: by the node that leads it, for itself and for others.
//!
//! A batch is appended once however often it is sent: it carries a producer id and a sequence, and the partition remembers them. So
//! whatever is not certain may simply be tried again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_partition::log::{Decision, Verdict};
use highwater_partition::{Answer, NotApplied};
use highwater_proto::v1::ProduceRequest;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::batches;
use crate::access::{Action, Permit, audit_writer};
use crate::batch;
use crate::catalog::CatalogHost;
use crate::link::Refusal;
use crate::peer_calls;
use crate::replicas::{Opened, Place, Registry};

/// The number of the one partition of the audit's topic.
pub(super) const PARTITION: u32 = 0;
/// How long an append waits for a majority.
pub(super) const APPEND_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Appended {
    /// It is in the log, by this attempt or by one before.
    Written,
    /// It may not be there; the same is to be tried again, at this node if one is named.
    Again { leader: Option<String>, why: String },
    /// It is not there, and the log knows nothing, or something else, of its producer.
    AsAnother { why: String },
}

impl Appended {
    fn again(why: impl ToString) -> Appended {
        Appended::Again {
            leader: None,
            why: why.to_string(),
        }
    }
}

/// The way to this node's replica of the audit's partition; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) cluster: String,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) registry: Arc<Registry>,
    /// For tests of what is tried again: so many answers are lost.
    #[cfg(test)]
    pub(crate) answers_lost: Arc<std::sync::atomic::AtomicUsize>,
}

impl Ledger {
    /// Appends what another node has sent, if this one leads.
    pub(crate) async fn receive(&self, from: &str, body: Bytes) -> Result<Bytes, Refusal> {
        let request = batches::decode(from, body).map_err(Refusal::NotBegun)?;
        let appended = self.append(from, &request).await;
        peer_calls::encode_json(&appended).map_err(Refusal::Failed)
    }

    /// Appends a batch of `writer`, if this node leads.
    pub(super) async fn append(&self, writer: &str, request: &ProduceRequest) -> Appended {
        let principal = audit_writer(&self.cluster, writer);
        let permit = Permit::to_audit(&principal);
        let batch = match batch::check(request, principal.digest()) {
            Ok(batch) => batch,
            Err(problem) => return Appended::again(problem),
        };
        let place = self
            .host
            .read(|catalog| self.registry.open(&permit, Action::Produce, catalog, None, PARTITION));
        let opened = match place {
            Ok(Place::Here(opened)) => opened,
            Ok(Place::Elsewhere { what, .. }) => return Appended::again(format!("no replica of {what} is here")),
            Err(problem) => return Appended::again(problem),
        };
        let (answer, answered) = oneshot::channel();
        let deliver = move |answered| {
            // Who waited may have given up.
            let _ = answer.send(answered);
        };
        opened.partition().propose(batch, None, Box::new(deliver));
        let answered = timeout(APPEND_TIMEOUT, answered).await;
        #[cfg(test)]
        if self.loses_answer() {
            return Appended::again("as ordered");
        }
        match answered {
            Ok(Ok(answer)) => interpret(&opened, answer),
            Ok(Err(_)) => Appended::again("the replica gave no answer"),
            Err(_) => Appended::again("no majority answered in time"),
        }
    }
}

#[cfg(test)]
impl Ledger {
    fn loses_answer(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        let one_less = |left: usize| left.checked_sub(1);
        self.answers_lost.fetch_update(SeqCst, SeqCst, one_less).is_ok()
    }
}

fn interpret(opened: &Opened, answer: Answer) -> Appended {
    match answer {
        Answer::Decided(decision) => decided(opened, &decision),
        Answer::NotApplied(NotApplied::NotLeader { leader, .. }) => Appended::Again {
            leader: leader.map(|leader| leader.node),
            why: format!("this node does not lead {}", opened.what),
        },
        Answer::NotApplied(why) => Appended::again(format!("{} does not take it: {why:?}", opened.what)),
        Answer::Unknown(why) => Appended::again(why),
    }
}

fn decided(opened: &Opened, decision: &Decision) -> Appended {
    match decision.verdict {
        Verdict::Accepted => {
            opened.hosted.count_appended(u64::from(decision.record_count));
            Appended::Written
        }
        // Forgotten: decided so long ago that only its place is not remembered.
        Verdict::Duplicate | Verdict::Forgotten => Appended::Written,
        // The partition went on from a replica that has less, or has long not heard of this producer.
        Verdict::UnknownProducer | Verdict::SequenceGap | Verdict::ProducerConflict => Appended::AsAnother {
            why: format!("{:?}", decision.verdict),
        },
        other => Appended::again(format!("the log decided {other:?}")),
    }
}
