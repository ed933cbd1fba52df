//! What is noted about one batch on its way through this node: how long its parts took, and its trace if it has one.

use std::sync::Arc;

use highwater_proto::v1::{ProduceRequest, ProduceResponse};
use tokio::time::Instant;

use super::Context;
use super::produce::possible_topic;
use crate::access::Principal;
use crate::metrics::Timings;
use crate::status::Problem;
use crate::traces::{BatchFacts, BatchTrace};

/// Begins when a batch was read from its connection.
pub(super) struct Way {
    arrived: Instant,
    timings: Arc<Timings>,
    /// With what it says about the batch in the end.
    trace: Option<(BatchTrace, BatchFacts)>,
}

impl Way {
    /// A batch that came at `arrived`.
    pub(super) fn begin(context: &Context, principal: &Principal, request: &ProduceRequest, arrived: Instant) -> Way {
        let traced = |trace| {
            let facts = BatchFacts {
                topic: possible_topic(request).to_owned(),
                partition: request.partition,
                record_count: request.record_count,
                bytes: request.batch.len(),
                client: principal.to_string(),
            };
            (trace, facts)
        };
        Way {
            arrived,
            timings: context.storage.timings().clone(),
            trace: context.traces.batch(&request.traceparent, arrived).map(traced),
        }
    }

    /// It may be proposed now; what wants to know of its stages from here on.
    pub(super) fn admitted(&self) -> Option<highwater_partition::Trace> {
        self.timings.admitted(self.arrived.elapsed());
        self.trace.as_ref().map(|(trace, _)| {
            trace.admitted();
            trace.stages()
        })
    }

    /// It is not proposed, for that reason, which is given back.
    pub(super) fn refused(self, problem: Problem) -> Result<ProduceResponse, Problem> {
        let answer = Err(problem);
        self.answered(&answer);
        answer
    }

    /// Its answer is given back.
    pub(super) fn answered(self, answer: &Result<ProduceResponse, Problem>) {
        self.timings.answered(self.arrived.elapsed());
        let Some((trace, facts)) = self.trace else { return };
        let outcome = answer.as_ref().map(|appended| appended.base_offset);
        trace.answered(facts, outcome.map_err(ToString::to_string));
    }
}
