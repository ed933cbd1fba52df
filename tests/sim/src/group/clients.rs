//! Clients: producers of three kinds and readers, who write down what they were told.
//!
//! * **Steady** producers send one batch after another under one id and retry the same sequence until they know. Only *not
//!   applied* lets them give a sequence to another batch; after an outcome that stays unknown they start anew.
//! * **Single** producers try once, each batch under an id of its own, and believe the answer.
//! * **Conditional** producers name the offset they expect, often wrongly, and ask again after a refusal: a refusal is for ever.
//!
//! Readers stay with one node and read on; now and then they jump to an offset that may not be there yet, and ask for the
//! confirmed end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_log::{Batch, Decision, PrincipalDigest, ProducerId, Verdict, crc32c};
use highwater_partition::{Answer, NotApplied, ReadError};
use highwater_verify::history::{
    Freshness, Numbering, OffsetAnswer, OffsetKind, Poll, PollAnswer, RecordId, Seen, Send, SendOutcome, Span,
};
use highwater_verify::value::{VALUE_BYTES_MIN, digest, make_value, read_id};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::world::{PARTITION, World, node_of, sleep_ms};
use crate::random::Random;

/// From here on nobody takes a new producer id for each batch: a partition keeps 4,096, and refuses more within the delivery deadline.
const PRODUCERS_MAX: u32 = 3_500;
/// How long one attempt may take.
const ATTEMPT_MS: u64 = 1_500;
/// How long a single attempt may take that is not followed by another.
const ONLY_ATTEMPT_MS: u64 = 8_000;
/// How long a producer tries to learn what became of a batch.
const SEND_MS: u64 = 12_000;
/// Bytes that a read asks for.
const READ_BYTES: usize = 4 * 1024;

/// How a producer goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Steady,
    Single,
    Conditional,
}

/// What one attempt told.
enum Told {
    Decided(Decision),
    NotApplied(Option<usize>),
    Unknown,
}

/// One producer id.
struct Identity {
    /// Its number in the history.
    number: u32,
    next_sequence: u64,
    /// Records numbered so far.
    records: u32,
    /// Sends so far, applied or not.
    sends: u64,
}

/// Someone who sends or reads.
pub(crate) struct Client {
    world: Arc<World>,
    number: u64,
    random: Random,
    /// Where to try first.
    target: usize,
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, number: u64) -> Client {
        Client {
            world: world.clone(),
            number,
            random: Random::stream(world.plan.seed, "client", number),
            target: 0,
        }
    }

    /// Produces until told to stop.
    pub(crate) async fn produce(mut self, manner: Manner) {
        let mut identity = self.identity();
        while !self.world.is_stopping() {
            let pause_ms = self.random.between(0, 2 * self.world.plan.pause_ms);
            sleep_ms(pause_ms).await;
            let outcome = self.send(&mut identity, manner).await;
            if manner == Manner::Single || outcome == SendOutcome::Unknown {
                identity = self.identity();
            }
            if manner == Manner::Single && identity.number >= PRODUCERS_MAX {
                return;
            }
        }
    }

    /// Sends one batch under an id of its own.
    pub(crate) async fn send_one(&mut self, manner: Manner) -> SendOutcome {
        let mut identity = self.identity();
        self.send(&mut identity, manner).await
    }

    fn identity(&self) -> Identity {
        Identity {
            number: self.world.next_producer(),
            next_sequence: 0,
            records: 0,
            sends: 0,
        }
    }

    /// Sends one batch, to the end, and writes down what became of it.
    async fn send(&mut self, identity: &mut Identity, manner: Manner) -> SendOutcome {
        let (batch, digests) = self.batch(identity, manner);
        let (sequence, first_number) = (identity.sends, identity.records);
        identity.sends += 1;
        identity.records += batch.record_count;
        let invoked_ns = self.world.now_ns();
        let outcome = self.settle(&batch, manner).await;
        if outcome.1 {
            identity.next_sequence += 1;
        }
        let numbering = match manner {
            Manner::Conditional => Numbering::Calls,
            Manner::Steady | Manner::Single => Numbering::Wire,
        };
        let send = Send {
            span: self.span(invoked_ns),
            partition: PARTITION,
            producer: identity.number,
            numbering,
            sequence,
            first_number,
            outcome: outcome.0,
        };
        self.world.note(format_args!("sent c{} {:?}", self.number, outcome.0));
        self.world.history().record_send(send, &digests);
        outcome.0
    }

    fn batch(&mut self, identity: &Identity, manner: Manner) -> (Batch, Vec<u64>) {
        let record_count = self.random.between(1, 4) as u32;
        let bytes = VALUE_BYTES_MIN
            + self
                .random
                .below(if self.random.clone().permille(100) { 1_500 } else { 120 }) as usize;
        let mut payload = Vec::new();
        let mut digests = Vec::new();
        for number in identity.records..identity.records + record_count {
            let producer = identity.number;
            let value = make_value(RecordId { producer, number }, bytes);
            digests.push(digest(&value));
            payload.extend_from_slice(&value);
        }
        let expected_offset = (manner == Manner::Conditional).then(|| {
            let end = self.world.acknowledged_end();
            end + self.random.below(6)
        });
        let payload = Bytes::from(payload);
        let batch = Batch {
            producer_id: producer_id(identity.number),
            principal: PrincipalDigest([1; 16]),
            sequence: identity.next_sequence,
            record_count,
            compression: 0,
            expected_offset,
            payload_crc: crc32c(&payload),
            payload,
        };
        (batch, digests)
    }

    /// Tries until it is known what became of the batch; also says whether its sequence is used up.
    async fn settle(&mut self, batch: &Batch, manner: Manner) -> (SendOutcome, bool) {
        let give_up = Instant::now() + Duration::from_millis(SEND_MS);
        let mut doubtful = false;
        let mut refused = false;
        let patience_ms = if manner == Manner::Single {
            ONLY_ATTEMPT_MS
        } else {
            ATTEMPT_MS
        };
        loop {
            match self.attempt(batch, patience_ms).await {
                Told::Decided(decision) => match self.judge(batch, decision, manner) {
                    SendOutcome::Refused if manner == Manner::Conditional && !refused && self.random.permille(400) => {
                        refused = true; // as if the refusal had been lost: it must be refused again
                        let pause_ms = self.random.between(1, 400);
                        sleep_ms(pause_ms).await;
                        continue;
                    }
                    SendOutcome::Appended { .. } if refused => {
                        let what = format!(
                            "a batch of producer {:?} was refused, and accepted when it was sent again",
                            batch.producer_id
                        );
                        self.world.violation(what);
                        return (SendOutcome::Refused, true);
                    }
                    outcome => return (outcome, true),
                },
                Told::NotApplied(hint) => {
                    if !doubtful && !refused {
                        self.world.check_absent(&batch.payload);
                    }
                    self.target = hint.unwrap_or_else(|| self.random.place(self.world.plan.nodes));
                    if manner == Manner::Single {
                        return (SendOutcome::Refused, false);
                    }
                }
                Told::Unknown => {
                    doubtful = true;
                    self.target = self.random.place(self.world.plan.nodes);
                    if manner == Manner::Single {
                        return (SendOutcome::Unknown, true);
                    }
                }
            }
            if Instant::now() >= give_up || self.world.is_stopping() {
                return match doubtful {
                    true => (SendOutcome::Unknown, true),
                    false => (SendOutcome::Refused, refused),
                };
            }
            let pause_ms = self.random.between(5, 120);
            sleep_ms(pause_ms).await;
        }
    }

    fn judge(&self, batch: &Batch, decision: Decision, manner: Manner) -> SendOutcome {
        match decision.verdict {
            Verdict::Accepted | Verdict::Duplicate => {
                let end = decision.base_offset + u64::from(batch.record_count);
                self.world.acknowledged(end);
                SendOutcome::Appended {
                    base_offset: decision.base_offset,
                }
            }
            Verdict::OffsetMismatch if manner == Manner::Conditional => SendOutcome::Refused,
            verdict => {
                let (id, sequence) = (batch.producer_id, batch.sequence);
                self.world.violation(format!(
                    "batch {sequence} of producer {id:?} got the verdict {verdict:?}"
                ));
                SendOutcome::Unknown
            }
        }
    }

    /// Sends the batch once.
    async fn attempt(&mut self, batch: &Batch, patience_ms: u64) -> Told {
        let deadline = Instant::now() + Duration::from_millis(patience_ms);
        let (there_ms, back_ms) = (self.delay_ms(), self.delay_ms());
        let answer_lost = self.random.permille(15);
        sleep_ms(there_ms).await;
        let Some((partition, life, _)) = self.world.serving(self.target) else {
            return Told::NotApplied(None); // nobody there: nothing was sent
        };
        let batch = batch.clone();
        let proposed = life.spawn(self.world.task_seed(), async move {
            let (sender, receiver) = oneshot::channel();
            partition.propose(batch, None, Box::new(move |answer| drop(sender.send(answer))));
            receiver.await
        });
        let Ok(Ok(Ok(answer))) = timeout_at(deadline, proposed).await else {
            return Told::Unknown;
        };
        sleep_ms(back_ms).await;
        if answer_lost {
            return Told::Unknown;
        }
        match answer {
            Answer::Decided(decision) => Told::Decided(decision),
            Answer::NotApplied(NotApplied::NotLeader { leader, .. }) => {
                Told::NotApplied(leader.and_then(|leader| node_of(&leader.node)))
            }
            Answer::NotApplied(NotApplied::Invalid(why)) => {
                self.world.violation(format!("a sound batch was called invalid: {why}"));
                Told::NotApplied(None)
            }
            Answer::NotApplied(NotApplied::DiskFull) => {
                self.world.count(|figures| figures.refused_full += 1);
                Told::NotApplied(None)
            }
            Answer::NotApplied(_) => Told::NotApplied(None),
            Answer::Unknown(_) => Told::Unknown,
        }
    }

    fn delay_ms(&mut self) -> u64 {
        self.random.between(0, 3)
    }

    fn span(&self, invoked_ns: u64) -> Span {
        Span {
            process: self.number as u32,
            invoked_ns,
            returned_ns: self.world.now_ns(),
        }
    }

    /// Reads from one node until told to stop. Each life of the node is a process of its own: what a replica knows to be
    /// committed may be less after a restart.
    pub(crate) async fn read(mut self, node: usize) {
        let mut last_boot = 0;
        let mut from = 0;
        while !self.world.is_stopping() {
            let pause_ms = self.random.between(1, 2 * self.world.plan.pause_ms);
            sleep_ms(pause_ms).await;
            let Some((partition, life, boot)) = self.world.serving(node) else {
                continue;
            };
            if boot != last_boot {
                last_boot = boot;
                self.number = self.world.next_process();
            }
            if self.random.permille(100) {
                from = self.world.acknowledged_end() + self.random.below(3);
            } else if self.random.permille(30) {
                from = self.random.below(from + 1);
            }
            let invoked_ns = self.world.now_ns();
            if self.random.permille(80) {
                self.confirm(partition, &life, invoked_ns).await;
                continue;
            }
            let watermark = partition.watermark();
            let read = life.spawn(self.world.task_seed(), async move {
                let batches = partition.read(from, READ_BYTES).await;
                let high_watermark = watermark.borrow().high_watermark;
                (batches, high_watermark)
            });
            let Ok((batches, high_watermark)) = read.await else {
                continue; // a crash: no answer
            };
            let (answer, seen) = answered(batches, high_watermark);
            let poll = Poll {
                span: self.span(invoked_ns),
                partition: PARTITION,
                node: node as u32,
                from,
                freshness: Freshness::Committed,
                answer,
            };
            self.world
                .note(format_args!("read n{node} {from} {} {high_watermark}", seen.len()));
            let due: Vec<Seen> = seen.into_iter().filter(|seen| seen.offset >= from).collect();
            self.world.history().record_poll(poll, &due);
            from = match answer {
                PollAnswer::OutOfRange { log_start, .. } => log_start.max(from),
                _ => due.last().map_or(from, |last| last.offset + 1),
            };
        }
    }

    /// Asks for the confirmed end.
    async fn confirm(
        &mut self,
        partition: highwater_partition::Partition,
        life: &Arc<highwater_partition::simulation::Life>,
        invoked_ns: u64,
    ) {
        let asked = life.spawn(self.world.task_seed(), async move {
            let asked = partition.confirmed_high_watermark();
            tokio::time::timeout(Duration::from_millis(ATTEMPT_MS), asked).await
        });
        if let Ok(Ok(Ok(offset))) = asked.await {
            let answer = OffsetAnswer {
                span: self.span(invoked_ns),
                partition: PARTITION,
                kind: OffsetKind::Latest,
                offset,
            };
            self.world.note(format_args!("confirmed {offset}"));
            self.world.history().record_offset(answer);
        }
    }
}

/// What a reader was told, for the history.
fn answered(
    batches: Result<Vec<highwater_partition::StoredBatch>, ReadError>,
    high_watermark: u64,
) -> (PollAnswer, Vec<Seen>) {
    match batches {
        Ok(batches) => {
            let seen = batches.iter().flat_map(records).collect();
            (PollAnswer::Records { high_watermark }, seen)
        }
        Err(ReadError::BelowStart {
            log_start,
            high_watermark,
            ..
        }) => {
            let answer = PollAnswer::OutOfRange {
                log_start,
                high_watermark,
            };
            (answer, Vec::new())
        }
        Err(ReadError::Damaged { .. } | ReadError::Stopped | ReadError::Failed(_)) => (PollAnswer::Failed, Vec::new()),
    }
}

/// The records of a batch: values of equal length, one behind the other.
pub(crate) fn records(batch: &highwater_partition::StoredBatch) -> Vec<Seen> {
    let bytes = batch.payload.len() / batch.record_count.max(1) as usize;
    let values = batch.payload.chunks_exact(bytes.max(1));
    let place = |(number, value): (u64, &[u8])| Seen {
        offset: batch.base_offset + number,
        id: read_id(value),
        digest: digest(value),
    };
    (0..).zip(values).map(place).collect()
}

fn producer_id(number: u32) -> ProducerId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_le_bytes());
    ProducerId(id)
}
