//! Histories as lists of items, which tests can build by hand and change.

use highwater_verify::history::{
    Dump, Fault, Freshness, Handout, Healing, Incident, Leader, LogEntry, NODE_UNKNOWN, Numbering, OffsetAnswer,
    OffsetKind, Poll, PollAnswer, Position, Promise, PromiseKind, RecordId, RetentionAllowed, Run, Scan, Seen, Send,
    SendOutcome, Span,
};
use highwater_verify::{History, Invariant, Requirements, Verdict, check, value};

/// One event.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Send(Send, Vec<u64>),
    Poll(Poll, Vec<Seen>),
    Offset(OffsetAnswer),
    Scan(Scan, Vec<Seen>),
    Retention(RetentionAllowed),
    Fault(Fault),
    Incident(Incident),
    Dump(Dump, Vec<LogEntry>),
    Promise(Promise),
    Leader(Leader),
    Healing(Healing),
    Handout(Handout),
    Position(Position),
}

/// The seed and names that every history here has.
pub(crate) fn run() -> Run {
    Run {
        title: "a test".to_owned(),
        seed: 7,
        partitions: vec!["orders/0".to_owned(), "orders/1".to_owned()],
        nodes: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
    }
}

pub(crate) fn history(items: &[Item]) -> History {
    let mut history = History::new(run());
    items.iter().for_each(|item| record(&mut history, item));
    history
}

pub(crate) fn record(history: &mut History, item: &Item) {
    match item.clone() {
        Item::Send(send, digests) => history.record_send(send, &digests),
        Item::Poll(poll, seen) => history.record_poll(poll, &seen),
        Item::Offset(answer) => history.record_offset(answer),
        Item::Scan(scan, seen) => history.record_scan(scan, seen),
        Item::Retention(allowed) => history.record_retention(allowed),
        Item::Fault(fault) => history.record_fault(fault),
        Item::Incident(incident) => history.record_incident(incident),
        Item::Dump(dump, entries) => history.record_dump(dump, entries),
        Item::Promise(promise) => history.record_promise(promise),
        Item::Leader(leader) => history.record_leader(leader),
        Item::Healing(healing) => history.record_healing(healing),
        Item::Handout(handout) => history.record_handout(handout),
        Item::Position(position) => history.record_position(position),
    }
}

pub(crate) fn judge(items: &[Item]) -> Verdict {
    check(&history(items), &Requirements::default())
}

/// Flagged, under exactly this invariant and with these words.
#[track_caller]
pub(crate) fn assert_only(items: &[Item], invariant: Invariant, what: &str) {
    let verdict = judge(items);
    assert_eq!(verdict.violated(), vec![invariant], "{verdict}");
    assert!(
        verdict.violations.iter().any(|violation| violation.what == what),
        "{verdict}"
    );
    assert!(verdict.violations.iter().all(|violation| !violation.message.is_empty()));
    for proof in verdict.violations.iter().flat_map(|violation| &violation.events) {
        assert!(!proof.line.is_empty(), "{:?} is not described", proof.event);
    }
}

#[track_caller]
pub(crate) fn assert_fine(items: &[Item]) {
    let verdict = judge(items);
    assert!(verdict.passed(), "{verdict}");
}

pub(crate) fn id(producer: u32, number: u32) -> RecordId {
    RecordId { producer, number }
}

pub(crate) fn digest(id: RecordId) -> u64 {
    value::digest(&value::make_value(id, 24))
}

pub(crate) fn seen(offset: u64, id: RecordId) -> Seen {
    Seen {
        offset,
        id,
        digest: digest(id),
    }
}

pub(crate) fn span(process: u32, invoked_ns: u64, returned_ns: u64) -> Span {
    Span {
        process,
        invoked_ns,
        returned_ns,
    }
}

/// A send of `count` records of producer `producer` to partition 0, in calls, from `at` to `at + 5`.
pub(crate) fn send(producer: u32, first_number: u32, count: u32, at: u64, outcome: SendOutcome) -> Item {
    let send = Send {
        span: span(producer, at, at + 5),
        partition: 0,
        producer,
        numbering: Numbering::Calls,
        sequence: u64::from(first_number),
        first_number,
        outcome,
    };
    let digests = (0..count).map(|place| digest(id(producer, first_number + place)));
    Item::Send(send, digests.collect())
}

/// The same, as a batch on the wire.
pub(crate) fn wire(item: Item) -> Item {
    let Item::Send(send, digests) = item else { return item };
    let numbering = Numbering::Wire;
    Item::Send(Send { numbering, ..send }, digests)
}

pub(crate) fn appended(base_offset: u64) -> SendOutcome {
    SendOutcome::Appended { base_offset }
}

/// `count` acknowledged sends of producer 0, one after the other: record 0:n at offset n.
pub(crate) fn acknowledged(count: u32) -> Vec<Item> {
    let one = |number| send(0, number, 1, u64::from(number) * 10, appended(u64::from(number)));
    (0..count).map(one).collect()
}

/// Records of producer 0 where [`acknowledged`] has them.
pub(crate) fn seen_range(start: u32, end: u32) -> Vec<Seen> {
    (start..end)
        .map(|number| seen(u64::from(number), id(0, number)))
        .collect()
}

/// A final scan of partition 0 on a node, holding these records.
pub(crate) fn scan(node: u32, log_start: u64, end: u64, seen: Vec<Seen>) -> Item {
    let scan = Scan {
        span: span(900 + node, 1_000_000, 1_000_100),
        partition: 0,
        node,
        log_start,
        end,
    };
    Item::Scan(scan, seen)
}

/// A read of partition 0 by process 50, from `at` to `at + 5`.
pub(crate) fn poll(at: u64, from: u64, high_watermark: u64, seen: Vec<Seen>) -> Item {
    let poll = Poll {
        span: span(50, at, at + 5),
        partition: 0,
        node: NODE_UNKNOWN,
        from,
        freshness: Freshness::Committed,
        answer: PollAnswer::Records { high_watermark },
    };
    Item::Poll(poll, seen)
}

/// The same with a change.
pub(crate) fn poll_with(item: Item, change: impl FnOnce(&mut Poll)) -> Item {
    let Item::Poll(mut poll, seen) = item else { return item };
    change(&mut poll);
    Item::Poll(poll, seen)
}

pub(crate) fn offset(at: u64, kind: OffsetKind, offset: u64) -> Item {
    Item::Offset(OffsetAnswer {
        span: span(60, at, at + 5),
        partition: 0,
        kind,
        offset,
    })
}

pub(crate) fn promise(at_ns: u64, replica: u64, kind: PromiseKind) -> Item {
    Item::Promise(Promise {
        at_ns,
        partition: 0,
        replica,
        kind,
    })
}

/// Items before, and more behind.
pub(crate) fn with(mut items: Vec<Item>, more: impl IntoIterator<Item = Item>) -> Vec<Item> {
    items.extend(more);
    items
}

/// Somebody in the group was done with an offset of partition 0.
pub(crate) fn handout(at_ns: u64, offset: u64) -> Item {
    Item::Handout(Handout {
        at_ns,
        member: 1,
        partition: 0,
        offset,
    })
}

/// The group was told to be at an offset of partition 0, just before `returned_ns`.
pub(crate) fn position(returned_ns: u64, claim: u64, offset: u64) -> Item {
    Item::Position(Position {
        span: Span {
            process: 9,
            invoked_ns: returned_ns - 1,
            returned_ns,
        },
        partition: 0,
        claim,
        offset,
    })
}
