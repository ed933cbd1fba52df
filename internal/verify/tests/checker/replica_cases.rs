//! For each invariant of replicas the smallest bad histories, with their honest twins.

use highwater_verify::Invariant::*;
use highwater_verify::history::{Dump, Leader, LogEntry, PromiseKind, SendOutcome};

use crate::script::*;

/// Three records acknowledged and scanned, so that the run counts.
fn base() -> Vec<Item> {
    with(acknowledged(3), [scan(0, 0, 3, seen_range(0, 3))])
}

fn entry(index: u64, term: u64, base_offset: u64, record_count: u32) -> LogEntry {
    LogEntry {
        index,
        term,
        base_offset,
        chain: index * 1_000 + term,
        record_count,
        payload_crc: 5,
        kind: 1,
        verdict: 0,
    }
}

/// A blank entry and three batches of one record each.
fn log() -> Vec<LogEntry> {
    vec![
        entry(0, 1, 0, 0),
        entry(1, 1, 0, 1),
        entry(2, 1, 1, 1),
        entry(3, 2, 2, 1),
    ]
}

fn dump(replica: u64, committed_end: u64, last: bool, entries: Vec<LogEntry>) -> Item {
    let dump = Dump {
        at_ns: 500,
        partition: 0,
        replica,
        node: 0,
        committed_end,
        last,
    };
    Item::Dump(dump, entries)
}

fn dumps(one: Vec<LogEntry>, other: Vec<LogEntry>) -> Vec<Item> {
    with(base(), [dump(1, 4, true, one), dump(2, 4, true, other)])
}

#[test]
fn equal_logs_pass() {
    assert_fine(&dumps(log(), log()));
}

#[test]
fn i1_a_replica_that_lacks_what_was_acknowledged() {
    let mut short = log();
    short.pop();
    let items = with(base(), [dump(1, 3, true, short.clone()), dump(2, 3, true, short)]);
    assert_only(&items, I1, "lost write");
}

#[test]
fn i4_base_offsets_that_do_not_continue() {
    let mut gap = log();
    gap[3].base_offset = 3;
    assert_only(&dumps(gap.clone(), gap), I4, "offsets not dense");
}

#[test]
fn i9_an_acknowledged_batch_that_is_not_one_entry() {
    let batch = wire(send(1, 0, 2, 50, appended(0)));
    let records = vec![seen(0, id(1, 0)), seen(1, id(1, 1))];
    let halves = vec![entry(0, 1, 0, 1), entry(1, 1, 1, 1)];
    let items = vec![batch, scan(0, 0, 2, records), dump(1, 2, true, halves)];
    assert_only(&items, I9, "torn batch");
}

#[test]
fn i15_same_index_and_term_with_other_content() {
    let mut other = log();
    other[1].payload_crc ^= 1;
    assert_only(&dumps(log(), other), I15, "logs do not match");
    let mut other = log();
    other[2].verdict = 1;
    assert_only(&dumps(log(), other), I15, "logs do not match");
}

#[test]
fn i15_a_committed_entry_of_another_term() {
    let mut early = log();
    early[3] = entry(3, 1, 2, 1);
    let committed = with(dumps(log(), log()), [dump(3, 4, false, early.clone())]);
    assert_only(&committed, I15, "committed entry changed");
    let not_committed = with(dumps(log(), log()), [dump(3, 3, false, early)]);
    assert_fine(&not_committed);
}

#[test]
fn i15_a_log_with_a_hole_a_falling_term_or_less_than_it_says() {
    let mut hole = log();
    hole.remove(2);
    assert_only(&with(base(), [dump(1, 3, false, hole)]), I15, "broken log");
    let mut falling = log();
    falling[3].term = 0;
    assert_only(&with(base(), [dump(1, 3, false, falling)]), I15, "broken log");
    assert_only(&with(base(), [dump(1, 9, false, log())]), I15, "committed and missing");
}

#[test]
fn i16_logs_that_end_differently() {
    let mut longer = log();
    longer.push(entry(4, 2, 3, 0));
    assert_only(&dumps(log(), longer), I16, "replicas differ");
}

fn acked(index_end: u64, term: u64) -> PromiseKind {
    PromiseKind::Acked { index_end, term }
}

fn voted(term: u64, candidate: u64) -> PromiseKind {
    PromiseKind::Voted { term, candidate }
}

fn cut(index_end: u64, leader_term: u64) -> PromiseKind {
    PromiseKind::Truncated { index_end, leader_term }
}

fn back(index_end: u64, last_term: u64, vote_term: u64, voted_for: Option<u64>) -> PromiseKind {
    PromiseKind::Restarted {
        index_end,
        last_term,
        vote_term,
        voted_for,
    }
}

/// These promises of replica 1, one after the other.
fn promises(kinds: &[PromiseKind]) -> Vec<Item> {
    let promises = (100..).zip(kinds).map(|(at_ns, kind)| promise(at_ns, 1, *kind));
    with(base(), promises)
}

#[test]
fn i13_a_replica_that_came_back_with_less() {
    assert_fine(&promises(&[acked(5, 1), back(5, 1, 1, None)]));
    assert_fine(&promises(&[acked(5, 1), back(7, 2, 2, None)]));
    assert_only(
        &promises(&[acked(5, 1), back(4, 1, 1, None)]),
        I13,
        "acknowledged and lost",
    );
    assert_only(
        &promises(&[acked(5, 2), back(5, 1, 2, None)]),
        I13,
        "acknowledged and lost",
    );
}

#[test]
fn i13_a_loss_is_found_after_a_truncation_too() {
    let kinds = |index_end| [acked(5, 1), acked(9, 2), cut(7, 3), back(index_end, 2, 3, None)];
    assert_fine(&promises(&kinds(7)));
    assert_only(&promises(&kinds(6)), I13, "acknowledged and lost");
}

#[test]
fn i13_a_truncation_without_a_later_leader() {
    assert_only(&promises(&[acked(9, 2), cut(7, 2)]), I13, "cut without proof");
    assert_fine(&promises(&[acked(9, 2), cut(9, 2)]));
}

#[test]
fn i14_two_votes_a_vote_that_goes_back_and_one_that_is_lost() {
    assert_fine(&promises(&[
        voted(3, 1),
        voted(3, 1),
        voted(4, 2),
        back(0, 0, 4, Some(2)),
    ]));
    assert_only(&promises(&[voted(3, 1), voted(3, 2)]), I14, "two votes");
    assert_only(&promises(&[voted(3, 1), voted(2, 1)]), I14, "term fell");
    assert_only(&promises(&[voted(3, 1), back(0, 0, 2, None)]), I14, "vote lost");
    assert_only(&promises(&[voted(3, 1), back(0, 0, 3, None)]), I14, "vote lost");
    assert_only(&promises(&[voted(3, 1), back(0, 0, 3, Some(2))]), I14, "vote lost");
    assert_only(&promises(&[acked(5, 4), back(5, 4, 3, None)]), I14, "vote lost");
}

#[test]
fn i14_the_dead_do_not_speak() {
    assert_only(&promises(&[PromiseKind::Died, voted(3, 1)]), I14, "dead replica speaks");
    assert_only(&promises(&[PromiseKind::Died, acked(3, 1)]), I14, "dead replica speaks");
}

#[test]
fn i14_two_leaders_of_a_term() {
    let leads = |replica, term| {
        Item::Leader(Leader {
            at_ns: 10,
            partition: 0,
            replica,
            term,
        })
    };
    assert_fine(&with(base(), [leads(1, 1), leads(2, 2), leads(1, 3), leads(1, 3)]));
    assert_only(&with(base(), [leads(1, 1), leads(2, 1)]), I14, "two leaders");
}

#[test]
fn i15_committed_without_a_quorum() {
    let published = || {
        let kind = PromiseKind::Published {
            index_end: 5,
            quorum: 2,
        };
        promise(200, 1, kind)
    };
    let one = with(base(), [promise(100, 1, acked(5, 1)), published()]);
    assert_only(&one, I15, "committed without a quorum");
    let behind = promise(100, 2, acked(4, 1));
    assert_only(&with(one.clone(), [behind]), I15, "committed without a quorum");
    assert_fine(&with(one, [promise(100, 2, acked(5, 1))]));
}

#[test]
fn evidence_about_one_partition_says_nothing_about_another() {
    let Item::Send(mut elsewhere, digests) = send(3, 0, 1, 0, SendOutcome::Unknown) else {
        unreachable!()
    };
    elsewhere.partition = 1;
    let Item::Promise(mut promise) = promise(300, 1, back(0, 0, 0, None)) else {
        unreachable!()
    };
    promise.partition = 1;
    let items = with(
        promises(&[acked(5, 1)]),
        [Item::Send(elsewhere, digests), Item::Promise(promise)],
    );
    assert_fine(&items);
}
