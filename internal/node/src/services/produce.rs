//! Proposing batches: one that came by itself, and what batches of a [stream](super::produce_stream) have in common with it.

use std::sync::Arc;

use highwater_partition::log::{Batch, Decision, Verdict};
use highwater_partition::{Answer, NotApplied};
use highwater_proto::limits::NAME_BYTES_MAX;
use highwater_proto::v1::{ProduceRequest, ProduceResponse};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::way::Way;
use super::{Context, Wanted};
use crate::access::{Action, Principal};
use crate::batch;
use crate::quotas::Payers;
use crate::replicas::Opened;
use crate::status::Problem;

/// The longest way to write a topic, `tenant/topic`, bytes.
const TOPIC_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 1;

/// One batch, once it is `paid` for; answered by `deadline` in any case, and proposed by `begin_by` or not at all.
pub(crate) async fn produce(
    context: &Arc<Context>,
    (principal, payers): (&Principal, &Payers),
    request: &ProduceRequest,
    paid: impl Future<Output = Result<(), Problem>>,
    (begin_by, deadline): (Instant, Instant),
) -> Result<ProduceResponse, Problem> {
    let way = Way::begin(context, principal, request, Instant::now());
    let admitted = async {
        paid.await?;
        admit(context, principal, request, (begin_by, deadline)).await
    };
    let (opened, batch) = match admitted.await {
        Ok(admitted) => admitted,
        Err(problem) => return way.refused(problem),
    };
    let what = opened.what.clone();
    let (answer, answered) = oneshot::channel();
    let stages = way.admitted();
    let deliver = move |result| {
        way.answered(&result);
        // The caller may have given up.
        let _ = answer.send(result);
    };
    propose(context, &opened, (batch, stages), payers, deliver);
    match timeout_at(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Problem::Unknown(format!("{what} gave no answer"))),
        Err(_) => Err(Problem::Unknown(format!(
            "no majority of the replicas of {what} answered in time"
        ))),
    }
}

/// Opens the partition of one batch, and checks that.
async fn admit(
    context: &Arc<Context>,
    principal: &Principal,
    request: &ProduceRequest,
    (begin_by, deadline): (Instant, Instant),
) -> Result<(Opened, Batch), Problem> {
    let (opened, digest) = context
        .open(principal, Action::Produce, &wanted(request), deadline)
        .await?;
    let batch = batch::check(request, digest)?;
    context.quotas.tenant(&opened.tenant).check_room()?;
    if Instant::now() > begin_by {
        let why = format!("no time is left in which {} could answer", opened.what);
        return Err(Problem::Overloaded(why));
    }
    Ok((opened, batch))
}

pub(super) fn wanted(request: &ProduceRequest) -> Wanted<'_> {
    Wanted {
        topic: &request.topic,
        topic_id: request.topic_id,
        partition: request.partition,
    }
}

/// Proposes a checked batch, whose stages somebody may want to know, if the node has room for it; `deliver` is called once, usually from
/// the Raft task.
pub(super) fn propose(
    context: &Arc<Context>,
    opened: &Opened,
    (batch, stages): (Batch, Option<highwater_partition::Trace>),
    payers: &Payers,
    deliver: impl FnOnce(Result<ProduceResponse, Problem>) + Send + 'static,
) {
    let held = opened.partition().in_flight_bytes();
    let Some(share) = context.in_flight.take(batch.payload.len(), held, payers.tenant()) else {
        let why = format!("node {} has too much in flight", context.node);
        return deliver(Err(Problem::Overloaded(why)));
    };
    let (context, opened_there) = (context.clone(), opened.clone());
    let answer = move |answer| {
        drop(share);
        deliver(interpret(&context, &opened_there, answer));
    };
    opened.partition().propose(batch, stages, Box::new(answer));
}

fn interpret(context: &Context, opened: &Opened, answer: Answer) -> Result<ProduceResponse, Problem> {
    let what = || opened.what.to_string();
    match answer {
        Answer::Decided(decision) => decided(opened, &decision),
        Answer::NotApplied(NotApplied::NotLeader {
            leader: Some(leader),
            term,
        }) => {
            let hint = context.leaders.hint_at(&leader.node, term);
            Err(Problem::NotLeader { what: what(), hint })
        }
        Answer::NotApplied(NotApplied::NotLeader { leader: None, .. }) => Err(Problem::NoQuorum { what: what() }),
        Answer::NotApplied(NotApplied::Overloaded) => {
            Err(Problem::Overloaded(format!("{} has too much in flight", opened.what)))
        }
        Answer::NotApplied(NotApplied::DiskFull) => Err(Problem::Overloaded(format!(
            "the disk of the leader of {} is nearly full",
            what()
        ))),
        Answer::NotApplied(NotApplied::Invalid(why)) => Err(Problem::Invalid { field: "batch", why }),
        Answer::NotApplied(NotApplied::Stopped) => Err(opened.gone()),
        Answer::Unknown(why) => Err(Problem::Unknown(why)),
    }
}

fn decided(opened: &Opened, decision: &Decision) -> Result<ProduceResponse, Problem> {
    let duplicate = match decision.verdict {
        Verdict::Accepted => false,
        Verdict::Duplicate => true,
        _ => return Err(Problem::from_decision(decision)),
    };
    if !duplicate {
        opened.hosted.count_appended(u64::from(decision.record_count));
    }
    Ok(ProduceResponse {
        base_offset: decision.base_offset,
        append_time_ms: decision.append_time_ms,
        duplicate,
        quota_delay_ms: 0,
    })
}

/// The topic as it was written; nothing if that is too long to be a name.
pub(super) fn possible_topic(request: &ProduceRequest) -> &str {
    let is_possible = request.topic.len() <= TOPIC_BYTES_MAX;
    if is_possible { request.topic.as_str() } else { "" }
}
