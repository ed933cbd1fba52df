//! What problems look like.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::access::TopicName;

fn detail_of(problem: Problem) -> (Code, ErrorDetail) {
    let status = Status::from(problem);
    (status.code(), detail::from_status(&status).unwrap())
}

#[test]
fn a_foreign_topic_and_a_missing_one_look_the_same() {
    let name = TopicName {
        tenant: "other".to_owned(),
        topic: "x".to_owned(),
    };
    let foreign = detail_of(Denied::Hidden(name).into());
    let missing = detail_of(Problem::TopicNotFound {
        topic: "other/x".to_owned(),
    });
    assert_eq!(foreign, missing);
}

#[test]
fn only_what_may_be_in_the_log_is_called_unknown() {
    let decision = |verdict| Decision {
        verdict,
        base_offset: 7,
        record_count: 0,
        append_time_ms: 0,
        number: 3,
    };
    let unknown = [Verdict::UnknownProducer, Verdict::Forgotten];
    let not_applied = [
        Verdict::OffsetMismatch,
        Verdict::SequenceGap,
        Verdict::ProducerConflict,
        Verdict::TooManyProducers,
    ];
    for verdict in unknown {
        let (_, detail) = detail_of(Problem::from_decision(&decision(verdict)));
        assert_eq!(detail.outcome(), Outcome::Unknown, "{verdict:?}");
    }
    for verdict in not_applied {
        let (_, detail) = detail_of(Problem::from_decision(&decision(verdict)));
        assert_eq!(detail.outcome(), Outcome::NotApplied, "{verdict:?}");
    }
    let (_, gap) = detail_of(Problem::from_decision(&decision(Verdict::SequenceGap)));
    assert_eq!(gap.expected_sequence, Some(3));
    let (_, mismatch) = detail_of(Problem::from_decision(&decision(Verdict::OffsetMismatch)));
    assert_eq!(mismatch.range.unwrap().high_watermark, 7);
}

#[test]
fn a_limit_names_its_field() {
    let (code, detail) = detail_of(Problem::TooLarge {
        field: "batch",
        found: 9,
        limit: 8,
    });
    assert_eq!(
        (code, detail.field.as_str(), detail.limit),
        (Code::InvalidArgument, "batch", Some(8))
    );
    assert!(
        detail.message.contains('9') && detail.message.contains('8'),
        "{}",
        detail.message
    );
}

#[test]
fn what_the_library_refuses_by_itself_gets_a_detail_and_what_is_ours_stays() {
    let explained = |status: Status| {
        let response = explain_refusal(status.into_http::<()>());
        Status::from_header_map(response.headers()).unwrap()
    };
    let garbled = explained(Status::internal("failed to decode Protobuf message"));
    assert_eq!(garbled.code(), Code::InvalidArgument);
    assert_eq!(detail::from_status(&garbled).unwrap().reason(), Reason::InvalidArgument);
    let large = explained(Status::out_of_range("decoded message length too large"));
    assert_eq!(
        detail::from_status(&large).unwrap().limit,
        Some(MESSAGE_BYTES_MAX as u64)
    );
    let ours = Status::from(Problem::Internal("a defect".to_owned()));
    assert_eq!(explained(ours.clone()).code(), ours.code());
    assert_eq!(
        explained(Status::unimplemented("no such call")).code(),
        Code::Unimplemented
    );
    let answer = explain_refusal(::http::Response::new(()));
    assert!(Status::from_header_map(answer.headers()).is_none());
}

#[test]
fn http_repeats_by_itself_only_what_was_certainly_not_applied() {
    let hint = LeaderHint::default();
    let range = OffsetRange::default();
    let why = String::new;
    let what = String::new;
    for (problem, status) in [
        (Problem::Unreadable(why()), 400),
        (Problem::Corrupt(why()), 400),
        (Problem::Denied(why()), 403),
        (Problem::TopicNotFound { topic: what() }, 404),
        (Problem::Unknown(why()), 409),
        (Problem::UnknownProducer, 409),
        (Problem::SequenceGap { expected: 3 }, 409),
        (Problem::OffsetMismatch { log_end: 3 }, 412),
        (Problem::RequestTooLarge, 413),
        (Problem::OutOfRange { offset: 1, range }, 416),
        (Problem::Overloaded(why()), 429),
        (Problem::Internal(why()), 500),
        (Problem::BrokenBatch { why: why(), range }, 500),
        (Problem::NotLeader { what: what(), hint }, 503),
        (Problem::NoQuorum { what: what() }, 503),
        (Problem::ReplicaBehind { wanted: 1, range }, 504),
    ] {
        assert_eq!(problem.http_status().as_u16(), status, "{problem}");
        let is_repeated = [429, 503, 504].contains(&status);
        assert!(!is_repeated || problem.is_not_applied(), "{problem}");
    }
}

#[test]
fn json_says_what_the_detail_says() {
    let hint = LeaderHint {
        node: "b".to_owned(),
        address: "b:1".to_owned(),
        term: 7,
    };
    let what = "partition 0".to_owned();
    let not_leader = Problem::NotLeader { what, hint }.to_json();
    assert_eq!(not_leader["reason"], "NOT_LEADER");
    assert_eq!(not_leader["outcome"], "NOT_APPLIED");
    assert_eq!(not_leader["leader"]["address"], "b:1");
    assert_eq!(not_leader.get("field"), None);
    let large = Problem::TooLarge {
        field: "body",
        found: 9,
        limit: 8,
    };
    assert_eq!(
        (&large.to_json()["field"], &large.to_json()["limit"]),
        (&"body".into(), &8.into())
    );
    let range = OffsetRange {
        log_start: 3,
        high_watermark: 5,
    };
    let broken = Problem::BrokenBatch {
        why: "cut".to_owned(),
        range,
    }
    .to_json();
    assert_eq!(
        (&broken["reason"], &broken["range"]["high_watermark"]),
        (&"CORRUPT_BATCH".into(), &5.into())
    );
    assert!(
        broken["message"].as_str().unwrap().contains("go on at offset 5"),
        "{broken}"
    );
}
