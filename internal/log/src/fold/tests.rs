//! The rules of the decision, one behaviour each.

use bytes::Bytes;

use super::producers::{BATCHES_REMEMBERED, DELIVERY_DEADLINE_MS, PRODUCERS_MAX};
use super::{GROUPS_MAX, Item, State};
use crate::entry::{Batch, Body, Decision, Header, Verdict};
use crate::format::crc32c;
use crate::format::detail::Parts;
use crate::ids::{ClusterId, EntryId, GroupId, PrincipalDigest, ProducerId};

struct Fold {
    state: State,
    now_ms: u64,
}

impl Fold {
    fn new() -> Fold {
        Fold {
            state: State::empty(ClusterId([1; 16]), GroupId(1)),
            now_ms: 1_000,
        }
    }

    fn fold(&mut self, body: Body) -> (Decision, Header) {
        let parts = Parts::of(body);
        let detail_bytes = parts.detail.encode();
        self.state.fold(&Item {
            id: EntryId {
                term: 1,
                index: self.state.next_index,
            },
            kind: parts.kind,
            compression: parts.compression,
            append_time_ms: self.now_ms,
            detail: &parts.detail,
            detail_bytes: &detail_bytes,
            payload_bytes: parts.payload.len() as u32,
            payload_crc: crc32c(&parts.payload),
            membership: None,
        })
    }

    fn decide(&mut self, body: Body) -> Decision {
        self.fold(body).0
    }

    fn send(&mut self, producer: u32, sequence: u64, record_count: u32) -> Decision {
        self.decide(Body::Batch(batch(producer, sequence, record_count)))
    }

    fn send_expecting(&mut self, sequence: u64, expected_offset: u64) -> Decision {
        let expected_offset = Some(expected_offset);
        self.decide(Body::Batch(Batch {
            expected_offset,
            ..batch(1, sequence, 1)
        }))
    }

    fn claim(&mut self, group: &str) -> Decision {
        self.decide(Body::Claim {
            group: Bytes::from(group.to_owned()),
            member: Bytes::from("member"),
        })
    }

    fn commit(&mut self, claim: u64, offset: u64) -> Verdict {
        self.decide(Body::CommitOffset {
            group: Bytes::from("group"),
            claim,
            offset,
        })
        .verdict
    }

    fn forget(&mut self, claim: u64, append_time_ms: u64) -> Verdict {
        self.decide(Body::ForgetGroup {
            group: Bytes::from("group"),
            claim,
            append_time_ms,
        })
        .verdict
    }
}

fn batch(producer: u32, sequence: u64, record_count: u32) -> Batch {
    let mut producer_id = [0; 16];
    producer_id[..4].copy_from_slice(&producer.to_le_bytes());
    let payload = Bytes::from(format!("{producer} {sequence}"));
    Batch {
        producer_id: ProducerId(producer_id),
        principal: PrincipalDigest([1; 16]),
        sequence,
        record_count,
        compression: 0,
        expected_offset: None,
        payload_crc: crc32c(&payload),
        payload,
    }
}

#[test]
fn accepted_batches_get_dense_offsets() {
    let mut fold = Fold::new();
    assert_eq!(
        (
            fold.send(1, 0, 3).base_offset,
            fold.send(2, 0, 2).base_offset,
            fold.send(1, 1, 1).base_offset
        ),
        (0, 3, 5)
    );
    assert_eq!(fold.state.log_end, 6);
}

#[test]
fn a_retry_is_answered_with_the_place_of_the_original_and_stored_without_payload() {
    let mut fold = Fold::new();
    fold.send(2, 0, 5);
    let first = fold.send(1, 0, 3);
    fold.send(1, 1, 2);
    fold.now_ms += 50;
    let (again, header) = fold.fold(Body::Batch(batch(1, 0, 3)));
    assert_eq!(
        again,
        Decision {
            verdict: Verdict::Duplicate,
            ..first
        }
    );
    assert_eq!(
        (again.base_offset, again.record_count, again.append_time_ms),
        (5, 3, 1_000)
    );
    assert_eq!(
        (
            header.record_count,
            header.payload_bytes,
            header.payload_crc,
            header.base_offset
        ),
        (0, 0, 0, 10)
    );
    assert_eq!(fold.state.log_end, 10);
}

#[test]
fn a_sequence_with_other_bytes_or_another_count_is_a_conflict() {
    let mut fold = Fold::new();
    fold.send(1, 0, 3);
    assert_eq!(fold.send(1, 0, 4).verdict, Verdict::ProducerConflict);
    let other = Batch {
        payload_crc: 7,
        ..batch(1, 0, 3)
    };
    assert_eq!(fold.decide(Body::Batch(other)).verdict, Verdict::ProducerConflict);
    assert_eq!(fold.send(1, 0, 3).verdict, Verdict::Duplicate);
}

#[test]
fn a_producer_id_belongs_to_the_principal_that_used_it_first() {
    let mut fold = Fold::new();
    fold.send(1, 0, 1);
    let foreign = |sequence| {
        Body::Batch(Batch {
            principal: PrincipalDigest([2; 16]),
            ..batch(1, sequence, 1)
        })
    };
    assert_eq!(fold.decide(foreign(0)).verdict, Verdict::ProducerConflict);
    assert_eq!(fold.decide(foreign(1)).verdict, Verdict::ProducerConflict);
    assert_eq!(fold.send(1, 1, 1).verdict, Verdict::Accepted);
}

#[test]
fn a_gap_is_refused_with_the_next_sequence_and_not_remembered() {
    let mut fold = Fold::new();
    fold.send(1, 0, 1);
    let gap = fold.send(1, 2, 1);
    assert_eq!(
        (gap.verdict, gap.number, gap.record_count, gap.base_offset),
        (Verdict::SequenceGap, 1, 0, 1)
    );
    assert_eq!(fold.send(1, 1, 1).verdict, Verdict::Accepted);
    assert_eq!(fold.send(1, 2, 1).verdict, Verdict::Accepted);
}

#[test]
fn an_unknown_producer_must_start_at_zero_and_is_not_remembered() {
    let mut fold = Fold::new();
    assert_eq!(fold.send(1, 4, 1).verdict, Verdict::UnknownProducer);
    assert_eq!(fold.state.producer_count(), 0);
    assert_eq!(fold.send(1, 0, 1).verdict, Verdict::Accepted);
}

#[test]
fn only_the_last_batches_are_remembered() {
    let mut fold = Fold::new();
    for sequence in 0..=BATCHES_REMEMBERED as u64 {
        fold.send(1, sequence, 1);
    }
    assert_eq!(fold.send(1, 0, 1).verdict, Verdict::Forgotten);
    let oldest = fold.send(1, 1, 1);
    assert_eq!((oldest.verdict, oldest.base_offset), (Verdict::Duplicate, 1));
}

#[test]
fn another_expected_offset_is_refused_and_the_refusal_is_remembered() {
    let mut fold = Fold::new();
    let refused = fold.send_expecting(0, 5);
    assert_eq!((refused.verdict, refused.base_offset), (Verdict::OffsetMismatch, 0));
    for other in 0..5 {
        fold.send(2, other, 1);
    }
    assert_eq!(
        fold.send_expecting(0, 5),
        refused,
        "the retry of a refusal is refused again, although it would fit now"
    );
    assert_eq!(
        fold.send_expecting(1, 5).verdict,
        Verdict::Accepted,
        "the refused sequence is used up"
    );
    assert_eq!(fold.state.log_end, 6);
}

#[test]
fn a_duplicate_is_recognised_before_its_expected_offset_is_looked_at() {
    let mut fold = Fold::new();
    assert_eq!(fold.send_expecting(0, 0).verdict, Verdict::Accepted);
    assert_eq!(fold.send_expecting(0, 0).verdict, Verdict::Duplicate);
}

#[test]
fn a_full_table_forgets_the_least_recently_used_producer_after_the_deadline() {
    let mut fold = Fold::new();
    for producer in 0..PRODUCERS_MAX as u32 {
        fold.send(producer, 0, 1);
    }
    fold.send(0, 1, 1); // now producer 1 is the least recently used
    let newcomer = PRODUCERS_MAX as u32;
    fold.now_ms += DELIVERY_DEADLINE_MS;
    assert_eq!(fold.send(newcomer, 0, 1).verdict, Verdict::TooManyProducers);
    assert_eq!(fold.send(1, 0, 1).verdict, Verdict::Duplicate);
    fold.now_ms += 1;
    assert_eq!(
        fold.send(newcomer, 0, 1).verdict,
        Verdict::Accepted,
        "producer 2 makes room"
    );
    assert_eq!(fold.state.producer_count(), PRODUCERS_MAX);
    assert_eq!(fold.send(2, 1, 1).verdict, Verdict::UnknownProducer);
    assert_eq!(fold.send(1, 0, 1).verdict, Verdict::Duplicate);
}

#[test]
fn a_refused_newcomer_leaves_the_full_table_as_it_is() {
    let mut fold = Fold::new();
    for producer in 0..PRODUCERS_MAX as u32 {
        fold.send(producer, 0, 1);
    }
    let producers = fold.state.producers.clone();
    assert_eq!(fold.send(PRODUCERS_MAX as u32, 0, 1).verdict, Verdict::TooManyProducers);
    assert_eq!(fold.state.producers, producers);
}

#[test]
fn claims_are_numbered_by_their_entries_and_older_ones_may_not_commit() {
    let mut fold = Fold::new();
    fold.send(1, 0, 10);
    let (first, second) = (fold.claim("group").number, fold.claim("group").number);
    assert_eq!((first, second, fold.claim("other").number), (1, 2, 3));
    assert_eq!(fold.commit(first, 5), Verdict::StaleClaim);
    assert_eq!(fold.commit(3, 5), Verdict::StaleClaim, "another group's");
    assert_eq!(fold.commit(second, 5), Verdict::Accepted);
    assert_eq!(fold.state.groups[&Bytes::from("group")].offset, Some(5));
    assert_eq!(fold.commit(second, 10), Verdict::Accepted);
    assert_eq!(fold.commit(second, 11), Verdict::OutOfRange);
    assert_eq!(fold.state.groups[&Bytes::from("group")].offset, Some(10));
}

#[test]
fn a_group_that_nobody_claimed_has_no_commits() {
    let mut fold = Fold::new();
    assert_eq!(fold.commit(0, 0), Verdict::StaleClaim);
    assert!(fold.state.groups.is_empty());
}

#[test]
fn groups_are_bounded_and_known_ones_can_still_be_claimed() {
    let mut fold = Fold::new();
    for group in 0..GROUPS_MAX {
        assert_eq!(fold.claim(&format!("group {group}")).verdict, Verdict::Accepted);
    }
    assert_eq!(fold.claim("one more").verdict, Verdict::TooManyGroups);
    assert_eq!(fold.claim("group 7").verdict, Verdict::Accepted);
}

#[test]
fn a_group_is_forgotten_unless_it_was_used_since_and_its_claims_are_never_issued_again() {
    let mut fold = Fold::new();
    fold.send(1, 0, 10);
    let before = fold.claim("group").number;
    let used_ms = fold.state.append_time_ms;
    assert_eq!(fold.forget(before, used_ms - 1), Verdict::StaleClaim, "used since");
    assert_eq!(fold.forget(before + 1, used_ms), Verdict::StaleClaim, "claimed since");
    assert_eq!(fold.forget(before, used_ms), Verdict::Accepted);
    assert_eq!(
        fold.forget(before, used_ms),
        Verdict::Accepted,
        "nothing is left to forget"
    );
    assert!(fold.state.groups.is_empty());
    assert!(fold.claim("group").number > before);
    assert_eq!(fold.commit(before, 5), Verdict::StaleClaim);
}

#[test]
fn a_trim_moves_the_log_start_forward_only_and_never_above_the_log_end() {
    let mut fold = Fold::new();
    fold.send(1, 0, 10);
    let mut trim = |offset| {
        let verdict = fold.decide(Body::Trim { offset }).verdict;
        (verdict, fold.state.log_start)
    };
    assert_eq!(trim(4), (Verdict::Accepted, 4));
    assert_eq!(trim(2), (Verdict::Accepted, 4));
    assert_eq!(trim(11), (Verdict::OutOfRange, 4));
    assert_eq!(trim(10), (Verdict::Accepted, 10));
}

#[test]
fn the_chain_depends_on_the_group_and_on_every_entry_before() {
    let chain = |group: u64, first: u64| {
        let mut fold = Fold {
            state: State::empty(ClusterId([1; 16]), GroupId(group)),
            now_ms: 5,
        };
        fold.decide(Body::Trim { offset: first });
        fold.send(1, 0, 1);
        fold.state.chain
    };
    assert_eq!(chain(1, 0), chain(1, 0));
    assert_ne!(chain(1, 0), chain(2, 0));
    assert_ne!(chain(1, 0), chain(1, 9));
}
