//! `POST /v1/topics/{topic}/records`: one request is one batch for one partition.

use highwater_proto::v1::ProduceResponse;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::answer::Answer;
use super::asking::Asked;
use super::batches::Encoded;
use super::json::{AppendBody, Producer};
use super::limits::{LEADER_PATIENCE, LEADER_PAUSE};
use super::producers::Purpose;
use super::query::Query;
use super::{Call, Gateway, Hop};
use crate::clock::now_ms;
use crate::services::{partition_count, pay_for_batch, produce};
use crate::status::Problem;

/// What is to be appended, and where.
struct Append<'a> {
    topic: &'a str,
    partition: u32,
    encoded: Encoded,
    /// The caller's own, if it has one.
    producer: Option<Producer>,
    expected_offset: Option<u64>,
}

impl Gateway {
    pub(super) async fn append(&self, call: &Call, topic: &str) -> Result<Answer, Problem> {
        Query::read(call.target.query().unwrap_or_default(), &[])?;
        let append = self.read_append(call, topic).await?;
        let patience = call.begin_by().min(Instant::now() + LEADER_PATIENCE);
        let (mut asked, mut last) = (Asked::default(), None);
        loop {
            let answer = self.append_once(call, &append, &mut asked, last).await;
            let goes_on = answer.lacks_leader && call.hop == Hop::FromClient && !self.context.stopping.is_cancelled();
            if !goes_on || Instant::now() + LEADER_PAUSE >= patience {
                return Ok(answer);
            }
            last = Some(answer);
            sleep(LEADER_PAUSE).await;
        }
    }

    async fn read_append<'a>(&self, call: &Call, topic: &'a str) -> Result<Append<'a>, Problem> {
        let body = call.body.clone();
        let (body, encoded) = self.workers.work(call.begin_by(), move || take_apart(&body)).await??;
        let chosen = match call.hop {
            Hop::FromNode { partition } => partition,
            Hop::FromClient => None,
        };
        if call.hop == Hop::FromClient {
            pay_for_batch(&self.payers(call), encoded.batch_bytes(), call.begin_by()).await?;
        }
        let partition = match chosen.or(body.partition) {
            Some(partition) => partition,
            None => self.choose_partition(call, topic, &encoded).await?,
        };
        Ok(Append {
            topic,
            partition,
            encoded,
            producer: body.producer()?,
            expected_offset: body.expected_offset,
        })
    }

    /// By the keys as every producer does; without keys any.
    async fn choose_partition(&self, call: &Call, topic: &str, encoded: &Encoded) -> Result<u32, Problem> {
        let count = partition_count(&self.context, &call.principal, topic, call.deadline).await?;
        let by_key = encoded.partition(count)?;
        Ok(by_key.unwrap_or_else(|| rand::random_range(0..count.max(1))))
    }

    /// Here, or at the node that leads. `last`: what came of it the last time.
    async fn append_once(&self, call: &Call, append: &Append<'_>, asked: &mut Asked, last: Option<Answer>) -> Answer {
        let problem = match self.append_here(call, append).await {
            Ok(appended) => return appended_json(append.partition, &appended),
            Err(problem) => problem,
        };
        let leader = problem.led_by().cloned();
        if let Some(last) = last.filter(|_| asked.is_too_soon(leader.as_ref(), Instant::now())) {
            return last;
        }
        let answer = self.elsewhere(call, Some(append.partition), problem).await;
        if let Some(leader) = leader {
            asked.note(&leader, Instant::now());
        }
        answer
    }

    async fn append_here(&self, call: &Call, append: &Append<'_>) -> Result<ProduceResponse, Problem> {
        if let Some(producer) = append.producer {
            return self.append_as(producer, call, append).await;
        }
        let purpose = Purpose {
            principal: call.principal.to_string(),
            topic: append.topic.to_owned(),
            partition: append.partition,
        };
        let lent = |producer| self.append_as(producer, call, append);
        self.producers.with(purpose, lent).await
    }

    async fn append_as(
        &self,
        producer: Producer,
        call: &Call,
        append: &Append<'_>,
    ) -> Result<ProduceResponse, Problem> {
        let Append { topic, partition, .. } = *append;
        let mut request = append
            .encoded
            .request(topic, partition, producer, append.expected_offset);
        // A record that says its trace itself goes before.
        if let Some(trace) = call.trace.filter(|_| request.traceparent.is_empty()) {
            request.traceparent = trace.to_string();
        }
        let caller = (&call.principal, &self.payers(call));
        // Once for all attempts, before the first one.
        let paid = std::future::ready(Ok(()));
        produce(&self.context, caller, &request, paid, (call.begin_by(), call.deadline)).await
    }
}

/// What a body says, its records as their batch.
fn take_apart(body: &[u8]) -> Result<(AppendBody, Encoded), Problem> {
    let mut body = AppendBody::read(body)?;
    // A numbered batch that is sent again must be the same bytes.
    let timestamp_ms = if body.producer()?.is_some() { 0 } else { now_ms() as i64 };
    let encoded = Encoded::new(&std::mem::take(&mut body.records), timestamp_ms)?;
    Ok((body, encoded))
}

fn appended_json(partition: u32, appended: &ProduceResponse) -> Answer {
    Answer::json(&json!({
        "partition": partition,
        "base_offset": appended.base_offset,
        "append_time_ms": appended.append_time_ms,
        "duplicate": appended.duplicate,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_proto::v1::RecordBatch;
    use prost::Message;

    use super::*;

    fn time_of(body: &str) -> i64 {
        let (body, encoded) = take_apart(body.as_bytes()).unwrap();
        let producer = body.producer().unwrap().unwrap_or(Producer {
            id: crate::hex::Id::random(),
            sequence: 0,
        });
        let batch = encoded.request("orders", 0, producer, None).batch;
        RecordBatch::decode(batch).unwrap().records[0].timestamp_ms
    }

    #[test]
    fn records_get_the_time_unless_they_say_one_or_must_be_the_same_bytes_again() {
        let before = now_ms() as i64;
        assert!(time_of(r#"{"records":[{"value":""}]}"#) >= before);
        assert_eq!(time_of(r#"{"records":[{"value":"","timestamp_ms":5}]}"#), 5);
        let numbered = r#""partition":0,"sequence":0,"producer_id":"00112233445566778899aabbccddeeff""#;
        assert_eq!(time_of(&format!(r#"{{"records":[{{"value":""}}],{numbered}}}"#)), 0);
    }
}
