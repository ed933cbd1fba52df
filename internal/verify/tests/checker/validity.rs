//! Runs in which nothing was violated and nothing was proven.

use highwater_verify::history::{Fault, FaultKind, Numbering, RecordId, Run, Send, SendOutcome, Span};
use highwater_verify::{History, Invariant, Outcome, Requirements, check};

use crate::script::*;

fn sound() -> Vec<Item> {
    with(acknowledged(20), [scan(0, 0, 20, seen_range(0, 20))])
}

fn fault(kind: FaultKind, begin_ns: u64, bitten: u64) -> Item {
    Item::Fault(Fault {
        kind,
        node: 0,
        begin_ns,
        end_ns: begin_ns + 20,
        bitten,
        evidence: "unsynced bytes lost".to_owned(),
    })
}

#[track_caller]
fn assert_void(items: &[Item], requirements: &Requirements, reason: &str) {
    let verdict = check(&history(items), requirements);
    assert_eq!(verdict.outcome, Outcome::Void, "{verdict}");
    assert!(verdict.void.iter().any(|found| found.contains(reason)), "{verdict}");
}

#[test]
fn an_empty_run_and_one_without_a_final_scan_are_void() {
    assert_void(&[], &Requirements::default(), "0 records were acknowledged");
    assert_void(&acknowledged(3), &Requirements::default(), "looked at on 0 replicas");
    let all = Requirements {
        replicas_min: 3,
        ..Requirements::default()
    };
    assert_void(&sound(), &all, "looked at on 1 replicas");
}

#[test]
fn faults_that_did_nothing_do_not_count() {
    let wanted = Requirements {
        faults: vec![(FaultKind::PowerCut, 2)],
        ..Requirements::default()
    };
    let cuts = |bitten| {
        [
            fault(FaultKind::PowerCut, 50, 9),
            fault(FaultKind::PowerCut, 100, bitten),
        ]
    };
    assert_void(&sound(), &wanted, "0 of 0 faults");
    assert_void(&with(sound(), cuts(0)), &wanted, "1 of 2 faults");
    assert!(check(&history(&with(sound(), cuts(3))), &wanted).passed());
}

#[test]
fn a_fault_with_nobody_sending_around_it_does_not_count() {
    let wanted = Requirements {
        faults: vec![(FaultKind::Kill, 1)],
        around_fault_min: 2,
        around_fault_ns: 50,
        ..Requirements::default()
    };
    let busy = with(sound(), [fault(FaultKind::Kill, 100, 1)]);
    assert!(check(&history(&busy), &wanted).passed());
    // Long after the last send, and with sends before it but none after it.
    for begin_ns in [900, 200] {
        let idle = with(sound(), [fault(FaultKind::Kill, begin_ns, 1)]);
        assert_void(&idle, &wanted, "around 1 of 1 faults");
    }
}

#[test]
fn what_must_be_judged_and_was_not_makes_a_run_void() {
    let wanted = Requirements {
        judged: vec![Invariant::I13],
        ..Requirements::default()
    };
    assert_void(&sound(), &wanted, "no evidence about I13");
}

#[test]
fn a_violation_outweighs_a_void_reason() {
    let wanted = Requirements {
        acknowledged_min: 1_000,
        ..Requirements::default()
    };
    let items = with(acknowledged(2), [scan(0, 0, 1, seen_range(0, 1))]);
    assert_eq!(check(&history(&items), &wanted).outcome, Outcome::Fail);
}

#[test]
fn numbers_that_are_not_dense_or_used_twice_make_a_run_void() {
    let sparse = send(0, 4_000_000, 1, 0, appended(0));
    assert_void(&[sparse], &Requirements::default(), "not numbered densely");
    let twice = [send(0, 0, 1, 0, appended(0)), send(0, 0, 1, 10, appended(1))];
    assert_void(&twice, &Requirements::default(), "sent twice");
    let mut history = History::new(Run::default());
    let send = Send {
        span: Span::default(),
        partition: 0,
        producer: u32::MAX,
        numbering: Numbering::Wire,
        sequence: 0,
        first_number: 0,
        outcome: SendOutcome::Unknown,
    };
    history.record_send(send, &[1]);
    let verdict = check(&history, &Requirements::default());
    assert!(
        verdict.void.iter().any(|reason| reason.contains("producer")),
        "{verdict}"
    );
}

#[test]
fn the_report_says_what_was_judged_and_what_not() {
    let items = with(sound(), [fault(FaultKind::PowerCut, 50, 4_096)]);
    let verdict = check(&history(&items), &Requirements::default());
    let text = verdict.to_string();
    for line in [
        "PASS  a test, seed 7",
        "20 records in 20 sends: 20 acknowledged",
        "PowerCut: 1 of 1 bit, 4096 unsynced bytes lost",
        "not judged",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
    assert_eq!(json["outcome"], "pass");
    assert_eq!(json["counts"]["records_acknowledged"], 20);
}

#[test]
fn a_flood_of_violations_is_counted_and_listed_in_part() {
    let nothing = scan(0, 0, 0, vec![]);
    let verdict = judge(&with(acknowledged(100), [nothing]));
    assert_eq!(verdict.violation_count(), 100);
    assert!(verdict.violations.len() < 50, "{}", verdict.violations.len());
    assert!(verdict.to_string().contains("violations more"), "{verdict}");
    assert_eq!(verdict.violations[0].place.partition.as_deref(), Some("orders/0"));
    let lost = RecordId { producer: 0, number: 0 };
    assert!(verdict.violations[0].message.contains(&lost.to_string()));
}
