//! What the codec writes, byte for byte, and what it says to bytes that nobody wrote.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{StreamAppendError, TransferLeaderError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::calls::Confirmation;
use super::recall::{ManifestPiece, Refill};
use super::{NUMBER_MAX, append, calls, install, membership, recall};
use crate::error::Error;
use crate::memory::Seen;
use crate::types::{
    AppendRequest, AppendResult, CommittedLeaderId, LogId, Membership, NodeName, TransferRequest, TransferResponse,
    Vote, VoteRequest, VoteResponse,
};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn one(parts: Vec<Bytes>) -> Bytes {
    Bytes::from(parts.concat())
}

fn sample_membership() -> Membership {
    let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
    let nodes = BTreeMap::from([
        (1, NodeName("a".to_owned())),
        (2, NodeName("b".to_owned())),
        (3, NodeName("c1".to_owned())),
        (9, NodeName(String::new())),
    ]);
    Membership::new(configs, nodes).unwrap()
}

fn sample_append() -> AppendRequest {
    AppendRequest {
        vote: Vote::new_committed(7, 2),
        prev_log_id: Some(id(6, 41)),
        entries: Vec::new(),
        leader_commit: Some(id(5, 40)),
    }
}

/// Every message of the format, with its golden bytes. A change here breaks a rolling upgrade.
fn samples() -> Vec<(&'static str, Bytes, &'static str)> {
    let vote_request = {
        let mut request = VoteRequest::new(Vote::new(8, 3), Some(id(6, 41)));
        request.leadership_transfer = true;
        request
    };
    let vote_response = VoteResponse::new(Vote::new(8, 3), None, true);
    let transfer = TransferRequest::new(Vote::new_committed(7, 2), 3, Some(id(6, 41)));
    let changed: TransferResponse = Err(TransferLeaderError::VoteChanged {
        expected: Vote::new_committed(7, 2),
        actual: Vote::new(8, 1),
    });
    let seen = Seen {
        vote: Vote::new_committed(7, 2),
        last: Some(id(6, 41)),
    };
    let piece = ManifestPiece {
        floor: 41,
        bytes: 3,
        crc: 4,
        piece: Bytes::from_static(b"a"),
    };
    let conflict: AppendResult = Err(StreamAppendError::Conflict(id(6, 41)));
    let higher: AppendResult = Err(StreamAppendError::HigherVote(Vote::new(9, 1)));
    vec![
        (
            "append",
            one(append::encode_request(3, sample_append(), None).unwrap().0),
            "010300000000000000070000000000000002000000000000000101060000000000000029000000000000000105000000000000002800000000000000\
             0000000000",
        ),
        (
            "matching",
            append::encode_result(&Ok(Some(id(6, 41)))),
            "01010106000000000000002900000000000000",
        ),
        (
            "conflict",
            append::encode_result(&conflict),
            "010206000000000000002900000000000000",
        ),
        (
            "higher vote",
            append::encode_result(&higher),
            "01030900000000000000010000000000000000",
        ),
        (
            "vote request",
            calls::encode_vote_request(1, &vote_request),
            "0101000000000000000800000000000000030000000000000000010600000000000000290000000000000001",
        ),
        (
            "vote response",
            calls::encode_vote_response(&vote_response),
            "0108000000000000000300000000000000000100",
        ),
        (
            "transfer",
            calls::encode_transfer_request(1, &transfer),
            "0101000000000000000300000000000000070000000000000002000000000000000101060000000000000029000000000000\
             00",
        ),
        (
            "transfer refused",
            calls::encode_transfer_response(&changed),
            "0102070000000000000002000000000000000108000000000000000100000000000000\
             00",
        ),
        ("confirm", calls::encode_confirm_request(2), "010200000000000000"),
        (
            "confirmation",
            calls::encode_confirmation(&Confirmation::Offset(77)),
            "01014d00000000000000",
        ),
        (
            "remember",
            recall::encode_remember(3, 2),
            "0103000000000000000200000000000000",
        ),
        (
            "remembered",
            recall::encode_seen(Some(&seen)),
            "010107000000000000000200000000000000010106000000000000002900000000000000",
        ),
        (
            "refill",
            recall::encode_refill_request(3, 40, 42),
            "01030000000000000028000000000000002a00000000000000",
        ),
        ("nothing to refill", one(recall::encode_refill(Refill::Nothing)), "0102"),
        (
            "purged",
            one(recall::encode_refill(Refill::Purged(50))),
            "01033200000000000000",
        ),
        (
            "manifest request",
            recall::encode_manifest_request(3, 7),
            "0103000000000000000700000000000000",
        ),
        (
            "manifest piece",
            one(recall::encode_manifest_piece(Some(piece))),
            "0101290000000000000003000000000000000400000061",
        ),
        (
            "install answer",
            install::encode_answer(&Vote::new_committed(7, 2)),
            "010700000000000000020000000000000001",
        ),
        (
            "membership",
            membership::encode(&sample_membership()).unwrap(),
            "010202010000000000000002000000000000000202000000000000000300000000000000\
             0401000000000000000161020000000000000001620300000000000000026331090000000000000000",
        ),
    ]
}

/// Like `decode_all`, for what members ask each other; some of these requests look the same.
fn decode_recalls(bytes: &Bytes) -> usize {
    [
        recall::decode_remember(bytes.clone()).is_ok(),
        recall::decode_seen(bytes.clone()).is_ok(),
        recall::decode_refill_request(bytes.clone()).is_ok(),
        recall::decode_refill(bytes.clone()).is_ok(),
        recall::decode_manifest_request(bytes.clone()).is_ok(),
        recall::decode_manifest_piece(bytes.clone()).is_ok(),
        install::decode_head(bytes.clone()).is_ok(),
        install::decode_answer(bytes.clone()).is_ok(),
    ]
    .into_iter()
    .filter(|taken| *taken)
    .count()
}

/// Every decoder; the number of them that took the bytes.
fn decode_all(bytes: &Bytes) -> usize {
    [
        append::decode_request(bytes.clone()).is_ok(),
        append::decode_result(bytes.clone()).is_ok(),
        calls::decode_vote_request(bytes.clone()).is_ok(),
        calls::decode_vote_response(bytes.clone()).is_ok(),
        calls::decode_transfer_request(bytes.clone()).is_ok(),
        calls::decode_transfer_response(bytes.clone()).is_ok(),
        calls::decode_confirm_request(bytes.clone()).is_ok(),
        calls::decode_confirmation(bytes.clone()).is_ok(),
        membership::decode(bytes.clone()).is_ok(),
    ]
    .into_iter()
    .filter(|taken| *taken)
    .count()
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (name, bytes, golden) in samples() {
        assert_eq!(hex(&bytes), golden, "{name}");
    }
}

#[test]
fn appends_come_back_as_they_were_sent() {
    let certain = Some(id(6, 40));
    let message = one(append::encode_request(3, sample_append(), certain).unwrap().0);
    let (to, request, shown) = append::decode_request(message).unwrap();
    assert_eq!(shown, certain);
    let sent = sample_append();
    assert_eq!((to, request.vote), (3, sent.vote));
    assert_eq!(
        (request.prev_log_id, request.leader_commit),
        (sent.prev_log_id, sent.leader_commit)
    );
    assert!(request.entries.is_empty());
}

#[test]
fn append_results_come_back_as_they_were_sent() {
    let results: [AppendResult; 4] = [
        Ok(None),
        Ok(Some(id(6, 41))),
        Err(StreamAppendError::Conflict(id(6, 41))),
        Err(StreamAppendError::HigherVote(Vote::new_committed(9, 1))),
    ];
    for result in results {
        assert_eq!(append::decode_result(append::encode_result(&result)).unwrap(), result);
    }
}

#[test]
fn votes_come_back_as_they_were_sent() {
    for transfer in [false, true] {
        let mut request = VoteRequest::new(Vote::new(8, 3), Some(id(6, 41)));
        request.leadership_transfer = transfer;
        let decoded = calls::decode_vote_request(calls::encode_vote_request(1, &request)).unwrap();
        assert_eq!(decoded, (1, request));
    }
    let response = VoteResponse::new(Vote::new_committed(8, 3), Some(id(6, 41)), false);
    let decoded = calls::decode_vote_response(calls::encode_vote_response(&response)).unwrap();
    assert_eq!(decoded, response);
}

#[test]
fn hand_overs_come_back_as_they_were_sent() {
    let request = TransferRequest::new(Vote::new_committed(7, 2), 3, None);
    let decoded = calls::decode_transfer_request(calls::encode_transfer_request(1, &request)).unwrap();
    assert_eq!(decoded, (1, request));
    let responses: [TransferResponse; 2] = [
        Ok(()),
        Err(TransferLeaderError::LogNotFlushed {
            expected: Some(id(6, 41)),
            actual: None,
        }),
    ];
    for response in responses {
        let decoded = calls::decode_transfer_response(calls::encode_transfer_response(&response)).unwrap();
        assert_eq!(decoded, response);
    }
}

#[test]
fn confirmations_come_back_as_they_were_sent() {
    let confirmations = [
        Confirmation::Offset(u64::MAX),
        Confirmation::NotLeader { term: 9 },
        Confirmation::Unconfirmed,
    ];
    for confirmation in confirmations {
        let decoded = calls::decode_confirmation(calls::encode_confirmation(&confirmation)).unwrap();
        assert_eq!(decoded, confirmation);
    }
}

#[test]
fn a_membership_comes_back_as_it_was_stored() {
    let stored = membership::encode(&sample_membership()).unwrap();
    assert_eq!(membership::decode(stored).unwrap(), sample_membership());
}

#[test]
fn a_membership_beyond_its_limits_is_refused() {
    let long_name = BTreeMap::from([(1, NodeName("n".repeat(129)))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], long_name).unwrap();
    assert!(membership::encode(&membership).is_err());
    let many: BTreeMap<_, _> = (0..129).map(|id| (id, NodeName::default())).collect();
    let membership = Membership::new(vec![BTreeSet::from([1])], many).unwrap();
    assert!(membership::encode(&membership).is_err());
}

#[test]
fn a_membership_out_of_order_is_refused() {
    let mut bytes = membership::encode(&sample_membership()).unwrap().to_vec();
    bytes.swap(3, 11); // voters 1 and 2 of the first set change places
    assert!(matches!(
        membership::decode(Bytes::from(bytes)),
        Err(Error::BadMessage(_))
    ));
}

#[test]
fn every_prefix_and_every_extension_is_refused() {
    for (name, bytes, _) in samples() {
        for end in 0..bytes.len() {
            let taken = decode_all(&bytes.slice(..end));
            // some prefix may be a whole message of another kind, but never one of its own
            assert!(taken <= 1, "{name} cut to {end} bytes is taken by {taken} decoders");
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(
            append::decode_request(longer.clone()).is_err(),
            "{name} with a byte too many"
        );
        assert!(membership::decode(longer).is_err(), "{name} with a byte too many");
    }
}

#[test]
fn another_version_is_refused() {
    for (name, bytes, _) in samples() {
        let mut other = bytes.to_vec();
        other[0] = 2;
        let other = Bytes::from(other);
        assert_eq!(decode_all(&other) + decode_recalls(&other), 0, "{name}");
    }
}

#[test]
fn numbers_near_the_end_of_their_range_are_refused() {
    let mut request = sample_append();
    request.prev_log_id = Some(id(6, NUMBER_MAX + 1));
    let bytes = one(append::encode_request(3, request, None).unwrap().0);
    assert!(matches!(append::decode_request(bytes), Err(Error::BadMessage(_))));
}

#[test]
fn a_huge_entry_count_allocates_nothing() {
    let mut bytes = one(append::encode_request(3, sample_append(), None).unwrap().0).to_vec();
    let count = bytes.len() - 4;
    bytes[count..].copy_from_slice(&u32::MAX.to_le_bytes());
    let err = append::decode_request(Bytes::from(bytes)).unwrap_err();
    assert!(err.to_string().contains("entries in one request"), "{err}");
}

#[test]
fn random_bytes_never_panic() {
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..20_000 {
        let mut bases = samples();
        let (_, base, _) = bases.swap_remove(round % bases.len());
        let mut bytes = base.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        let bytes = Bytes::from(bytes);
        decode_all(&bytes);
        decode_recalls(&bytes);
    }
}

#[test]
fn what_members_recall_comes_back_as_it_was_sent() {
    let seen = Seen {
        vote: Vote::new(9, 1),
        last: None,
    };
    for seen in [None, Some(seen)] {
        assert_eq!(recall::decode_seen(recall::encode_seen(seen.as_ref())).unwrap(), seen);
    }
    assert_eq!(recall::decode_remember(recall::encode_remember(4, 9)).unwrap(), (4, 9));
    let request = recall::encode_refill_request(4, 10, 20);
    assert_eq!(recall::decode_refill_request(request).unwrap(), (4, 10, 20));
    for refill in [Refill::Nothing, Refill::Purged(77)] {
        let decoded = recall::decode_refill(one(recall::encode_refill(refill.clone()))).unwrap();
        assert_eq!(decoded, refill);
    }
    let piece = ManifestPiece {
        floor: 5,
        bytes: 9,
        crc: 1,
        piece: Bytes::from_static(b"abc"),
    };
    for piece in [None, Some(piece)] {
        let decoded = recall::decode_manifest_piece(one(recall::encode_manifest_piece(piece.clone()))).unwrap();
        assert_eq!(decoded, piece);
    }
}

#[test]
fn a_refill_of_nothing_or_of_too_much_is_refused() {
    assert!(recall::decode_refill_request(recall::encode_refill_request(4, 20, 20)).is_err());
    for count in [0u32, u32::MAX] {
        let bytes = [&[1, 1][..], &count.to_le_bytes()].concat();
        let err = recall::decode_refill(Bytes::from(bytes)).unwrap_err();
        assert!(err.to_string().contains("entries"), "{err}");
    }
}

#[test]
fn a_manifest_beyond_its_limit_is_refused_before_anything_is_kept() {
    let mut head = vec![1];
    head.extend_from_slice(&3u64.to_le_bytes());
    head.extend_from_slice(&[0; 17]);
    head.extend_from_slice(&(highwater_log::MANIFEST_BYTES_MAX + 1).to_le_bytes());
    head.extend_from_slice(&[0; 4]);
    let err = install::decode_head(Bytes::from(head)).unwrap_err();
    assert!(err.to_string().contains("are possible"), "{err}");
}
