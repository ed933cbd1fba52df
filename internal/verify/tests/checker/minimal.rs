//! For each invariant of clients the smallest bad histories. Beside each stands its honest twin.

use highwater_verify::Invariant::*;
use highwater_verify::history::{
    Freshness, Healing, Incident, IncidentKind, OffsetKind, PollAnswer, RecordId, RetentionAllowed, SendOutcome,
};

use crate::script::*;

fn whole(count: u32) -> Item {
    scan(0, 0, u64::from(count), seen_range(0, count))
}

#[test]
fn a_sound_history_passes() {
    let items = with(acknowledged(4), [poll(25, 0, 2, seen_range(0, 2)), whole(4)]);
    assert_fine(&items);
}

#[test]
fn i1_a_record_lost_in_the_middle_at_the_end_or_on_one_replica() {
    let mut records = seen_range(0, 4);
    records.remove(1);
    assert_only(&with(acknowledged(4), [scan(0, 0, 4, records)]), I1, "lost write");
    assert_only(
        &with(acknowledged(4), [scan(0, 0, 3, seen_range(0, 3))]),
        I1,
        "lost write",
    );
    let on_one = [whole(4), scan(1, 0, 3, seen_range(0, 3))];
    assert_only(&with(acknowledged(4), on_one), I1, "lost write");
}

#[test]
fn i1_a_scan_that_gave_up_before_its_end() {
    assert_only(
        &with(acknowledged(4), [scan(0, 0, 4, seen_range(0, 2))]),
        I1,
        "lost write",
    );
}

#[test]
fn i2_two_values_at_one_offset() {
    let two_acks = with(acknowledged(2), [send(1, 0, 1, 12, appended(1)), whole(2)]);
    assert_only(&two_acks, I2, "inconsistent offset");
    let unknown = send(1, 0, 1, 50, SendOutcome::Unknown);
    let other = vec![seen(0, id(1, 0))];
    let changed = with(acknowledged(1), [unknown, poll(60, 0, 1, other), whole(1)]);
    assert_only(&changed, I2, "inconsistent offset");
}

#[test]
fn i2_two_replicas_with_swapped_records() {
    let mut swapped = seen_range(0, 2);
    (swapped[0].id, swapped[1].id) = (swapped[1].id, swapped[0].id);
    (swapped[0].digest, swapped[1].digest) = (swapped[1].digest, swapped[0].digest);
    assert_only(
        &with(acknowledged(2), [whole(2), scan(1, 0, 2, swapped)]),
        I2,
        "inconsistent offset",
    );
}

#[test]
fn i3_a_record_twice_refused_but_there_or_in_another_partition() {
    let twice = [seen_range(0, 2), vec![seen(2, id(0, 0))]].concat();
    assert_only(&with(acknowledged(2), [scan(0, 0, 3, twice)]), I3, "duplicate");

    let refused = send(1, 0, 1, 50, SendOutcome::Refused);
    let there = [seen_range(0, 1), vec![seen(1, id(1, 0))]].concat();
    assert_only(
        &with(acknowledged(1), [refused.clone(), scan(0, 0, 2, there)]),
        I3,
        "aborted read",
    );
    assert_fine(&with(acknowledged(1), [refused, whole(1)]));

    let Item::Send(mut elsewhere, digests) = send(1, 0, 1, 50, SendOutcome::Unknown) else {
        unreachable!()
    };
    elsewhere.partition = 1;
    let there = [seen_range(0, 1), vec![seen(1, id(1, 0))]].concat();
    let items = [Item::Send(elsewhere, digests), scan(0, 0, 2, there)];
    assert_only(&with(acknowledged(1), items), I3, "wrong partition");
}

#[test]
fn i3_an_unknown_record_may_be_there_once_or_never_but_not_twice() {
    let unknown = send(1, 0, 1, 50, SendOutcome::Unknown);
    let once = [seen_range(0, 1), vec![seen(1, id(1, 0))]].concat();
    let twice = [once.clone(), vec![seen(2, id(1, 0))]].concat();
    assert_fine(&with(acknowledged(1), [unknown.clone(), whole(1)]));
    assert_fine(&with(acknowledged(1), [unknown.clone(), scan(0, 0, 2, once)]));
    assert_only(&with(acknowledged(1), [unknown, scan(0, 0, 3, twice)]), I3, "duplicate");
}

#[test]
fn i4_a_hole_and_an_offset_that_cannot_be() {
    let unknown = send(1, 0, 1, 50, SendOutcome::Unknown);
    let behind_a_hole = [seen_range(0, 1), vec![seen(2, id(1, 0))]].concat();
    assert_only(
        &with(acknowledged(1), [unknown, scan(0, 0, 3, behind_a_hole)]),
        I4,
        "hole",
    );
    assert_only(&with(acknowledged(1), [scan(0, 0, 3, seen_range(0, 1))]), I4, "hole");

    let far = send(1, 0, 1, 50, appended(u64::MAX));
    assert_only(&with(acknowledged(1), [far, whole(1)]), I4, "impossible offset");
}

#[test]
fn i5_a_later_send_with_a_lower_offset() {
    let later_but_lower = vec![send(0, 0, 1, 0, appended(1)), send(1, 0, 1, 10, appended(0))];
    let at_once = vec![send(0, 0, 1, 0, appended(1)), send(1, 0, 1, 3, appended(0))];
    let scan = scan(0, 0, 2, vec![seen(0, id(1, 0)), seen(1, id(0, 0))]);
    assert_only(&with(later_but_lower, [scan.clone()]), I5, "order in real time");
    assert_fine(&with(at_once, [scan]));
}

#[test]
fn i6_served_above_the_watermark_or_above_the_final_log() {
    let above = with(acknowledged(2), [poll(20, 0, 1, seen_range(0, 2)), whole(2)]);
    assert_only(&above, I6, "served above commit");

    let unknown = send(1, 0, 1, 50, SendOutcome::Unknown);
    let ghost = poll(60, 1, 1, vec![seen(1, id(1, 0))]);
    let verdict = judge(&with(acknowledged(1), [unknown, ghost, whole(1)]));
    assert_eq!(verdict.violated(), vec![I6], "{verdict}");
    assert!(
        verdict
            .violations
            .iter()
            .any(|found| found.what == "served uncommitted"),
        "{verdict}"
    );

    let too_high = with(acknowledged(2), [offset(50, OffsetKind::Latest, 3), whole(2)]);
    assert_only(&too_high, I6, "watermark above the log");
}

#[test]
fn i6_a_fresh_read_that_is_stale() {
    let linearizable = |high_watermark| {
        poll_with(poll(50, high_watermark, high_watermark, vec![]), |poll| {
            poll.freshness = Freshness::Linearizable;
        })
    };
    assert_only(&with(acknowledged(2), [linearizable(1), whole(2)]), I6, "stale read");
    assert_fine(&with(acknowledged(2), [linearizable(2), whole(2)]));
    assert_only(
        &with(acknowledged(2), [offset(50, OffsetKind::Latest, 1), whole(2)]),
        I6,
        "stale read",
    );
    // A committed read of a replica that lags is as it should be.
    assert_fine(&with(acknowledged(2), [poll(50, 1, 1, vec![]), whole(2)]));

    let min_offset = poll_with(poll(50, 1, 1, vec![]), |poll| {
        poll.freshness = Freshness::MinOffset { offset: 2 };
    });
    assert_only(&with(acknowledged(2), [min_offset, whole(2)]), I6, "not fresh enough");
}

#[test]
fn i6_a_watermark_that_falls_for_one_client_or_in_real_time() {
    let falls = [poll(20, 2, 2, vec![]), poll(30, 1, 1, vec![])];
    assert_only(
        &with(acknowledged(2), falls.into_iter().chain([whole(2)])),
        I6,
        "watermark fell",
    );
    let other_client = poll_with(poll(30, 1, 1, vec![]), |poll| poll.span.process += 1);
    assert_fine(&with(acknowledged(2), [poll(20, 2, 2, vec![]), other_client, whole(2)]));

    let unknown = send(1, 0, 1, 15, SendOutcome::Unknown);
    let falls = [offset(40, OffsetKind::Latest, 3), offset(50, OffsetKind::Latest, 2)];
    let end = scan(0, 0, 3, [seen_range(0, 2), vec![seen(2, id(1, 0))]].concat());
    let items = with(acknowledged(2), falls.into_iter().chain([unknown, end]));
    assert_only(&items, I6, "stale read");
}

#[test]
fn i6_a_watermark_told_before_the_record_below_it_was_sent() {
    let early = [poll(2, 0, 2, seen_range(0, 1)), whole(2)];
    assert_only(&with(acknowledged(2), early), I6, "watermark too high");
}

#[test]
fn i7_a_producer_out_of_order() {
    let items = vec![send(0, 0, 1, 0, appended(1)), send(0, 1, 1, 3, appended(0))];
    let scan = scan(0, 0, 2, vec![seen(0, id(0, 1)), seen(1, id(0, 0))]);
    assert_only(&with(items, [scan]), I7, "order of a producer");
}

#[test]
fn i7_a_sequence_that_is_skipped_on_the_wire_but_not_in_calls() {
    let sends = || vec![send(0, 0, 1, 0, SendOutcome::Unknown), send(0, 1, 1, 3, appended(0))];
    let scan = scan(0, 0, 1, vec![seen(0, id(0, 1))]);
    let on_the_wire = sends().into_iter().map(wire).collect();
    assert_only(&with(on_the_wire, [scan.clone()]), I7, "skipped sequence");
    assert_fine(&with(sends(), [scan]));
}

#[test]
fn i8_a_reader_that_skips_or_repeats() {
    let skips = [seen_range(0, 1), seen_range(2, 3)].concat();
    assert_only(
        &with(acknowledged(3), [poll(30, 0, 3, skips), whole(3)]),
        I8,
        "skipped by a reader",
    );
    let late = poll(30, 0, 3, seen_range(1, 3));
    assert_only(&with(acknowledged(3), [late, whole(3)]), I8, "skipped by a reader");
    let repeats = [seen_range(0, 2), seen_range(1, 2)].concat();
    assert_only(
        &with(acknowledged(3), [poll(30, 0, 3, repeats), whole(3)]),
        I8,
        "repeated to a reader",
    );
    let backwards = [seen_range(0, 3), seen_range(1, 2)].concat();
    assert_only(
        &with(acknowledged(3), [scan(0, 0, 3, backwards)]),
        I8,
        "scan out of order",
    );
}

#[test]
fn i9_a_batch_of_unknown_outcome_that_is_torn() {
    let unknown = || send(1, 0, 3, 50, SendOutcome::Unknown);
    let of_batch = |range: std::ops::Range<u32>| range.map(|number| seen(u64::from(number) + 1, id(1, number)));
    let all: Vec<_> = seen_range(0, 1).into_iter().chain(of_batch(0..3)).collect();
    assert_fine(&with(acknowledged(1), [unknown(), scan(0, 0, 4, all)]));
    assert_fine(&with(acknowledged(1), [unknown(), whole(1)]));
    let half: Vec<_> = seen_range(0, 1).into_iter().chain(of_batch(0..2)).collect();
    assert_only(
        &with(acknowledged(1), [unknown(), scan(0, 0, 3, half)]),
        I9,
        "torn batch",
    );
    let spread = vec![
        seen(0, id(1, 0)),
        seen(1, id(1, 1)),
        seen(2, id(2, 0)),
        seen(3, id(1, 2)),
    ];
    let items = vec![unknown(), send(2, 0, 1, 50, appended(2)), scan(0, 0, 4, spread)];
    assert_only(&items, I9, "torn batch");
}

fn allowed(at_ns: u64, up_to: u64) -> Item {
    Item::Retention(RetentionAllowed {
        at_ns,
        partition: 0,
        up_to,
    })
}

#[test]
fn i10_a_group_that_skips_goes_back_or_says_done_too_early() {
    let group = |items: Vec<Item>| with(with(acknowledged(3), [whole(3)]), items);
    let done = || vec![handout(10, 0), handout(12, 1), handout(11, 1), handout(20, 2)];
    let sound = [done(), vec![position(11, 5, 1), position(13, 5, 2), position(20, 8, 3)]].concat();
    assert_fine(&group(sound));
    let again = [done(), vec![handout(30, 0), position(40, 8, 3)]].concat();
    assert_fine(&group(again));

    let skipped = vec![handout(10, 0), handout(11, 2), position(40, 5, 3)];
    assert_only(&group(skipped), I10, "skipped by a group");
    assert_only(&group(vec![position(40, 5, 1)]), I10, "skipped by a group");
    let early = [done(), vec![position(15, 5, 3)]].concat();
    assert_only(&group(early), I10, "committed before it was done");
    let back = [done(), vec![position(30, 5, 3), position(40, 5, 2)]].concat();
    assert_only(&group(back), I10, "position fell");
    let stale = [done(), vec![position(30, 5, 3), position(40, 4, 3)]].concat();
    assert_only(&group(stale), I10, "claim fell");
    // Both asked at the same time, so either may have been answered first.
    let (mut late, early) = (position(40, 5, 2), position(39, 5, 3));
    if let Item::Position(position) = &mut late {
        position.span.invoked_ns = 30;
    }
    assert_fine(&group([done(), vec![early, late]].concat()));
}

#[test]
fn i11_trimmed_without_leave_too_early_or_back_again() {
    let trimmed = || scan(0, 2, 3, seen_range(2, 3));
    assert_only(&with(acknowledged(3), [trimmed()]), I11, "trimmed too much");
    assert_only(
        &with(acknowledged(3), [allowed(40, 1), trimmed()]),
        I11,
        "trimmed too much",
    );
    assert_fine(&with(acknowledged(3), [allowed(40, 2), trimmed()]));
    let too_early = [allowed(60, 2), offset(50, OffsetKind::Earliest, 2), trimmed()];
    assert_only(&with(acknowledged(3), too_early), I11, "trimmed too much");
    let falls = [
        allowed(40, 2),
        offset(50, OffsetKind::Earliest, 2),
        scan(0, 1, 3, seen_range(1, 3)),
    ];
    assert_only(&with(acknowledged(3), falls), I11, "log start fell");
}

#[test]
fn i11_out_of_range_above_the_start_and_emptiness() {
    let refused = |from, log_start| {
        poll_with(poll(40, from, 3, vec![]), |poll| {
            poll.answer = PollAnswer::OutOfRange {
                log_start,
                high_watermark: 3,
            };
        })
    };
    let trimmed = || [allowed(35, 2), scan(0, 2, 3, seen_range(2, 3))];
    let items = |item| with(acknowledged(3), trimmed().into_iter().chain([item]));
    assert_fine(&items(refused(1, 2)));
    assert_only(&items(refused(2, 2)), I11, "out of range above the start");
    assert_only(&items(poll(40, 0, 3, vec![])), I11, "emptiness");
}

#[test]
fn i12_changed_phantom_and_unreadable_records() {
    let mut changed = seen_range(0, 2);
    changed[1].digest ^= 1;
    assert_only(
        &with(acknowledged(2), [poll(30, 0, 2, changed), whole(2)]),
        I12,
        "changed bytes",
    );
    let phantom = [seen_range(0, 1), vec![seen(1, id(5, 5))]].concat();
    assert_only(&with(acknowledged(1), [scan(0, 0, 2, phantom)]), I12, "phantom record");
    let unreadable = [seen_range(0, 1), vec![seen(1, RecordId::UNREADABLE)]].concat();
    assert_only(
        &with(acknowledged(1), [scan(0, 0, 2, unreadable)]),
        I12,
        "unreadable record",
    );
}

#[test]
fn i16_a_partition_that_does_not_heal() {
    let healing = |served_ns, leaders, memberships| {
        let healing = Healing {
            partition: 0,
            healed_ns: 100,
            served_ns,
            leaders,
            memberships,
        };
        with(acknowledged(1), [whole(1), Item::Healing(healing)])
    };
    let soon = Some(2_000_000_000);
    assert_fine(&healing(soon, 1, 1));
    assert_only(&healing(None, 1, 1), I16, "does not heal");
    assert_only(&healing(Some(31_000_000_000), 1, 1), I16, "does not heal");
    assert_only(&healing(soon, 2, 1), I16, "not one leader");
    assert_only(&healing(soon, 1, 2), I16, "memberships differ");
}

#[test]
fn i16_replicas_that_end_differently() {
    let unknown = send(1, 0, 1, 50, SendOutcome::Unknown);
    let longer = [seen_range(0, 1), vec![seen(1, id(1, 0))]].concat();
    assert_only(
        &with(acknowledged(1), [unknown, whole(1), scan(1, 0, 2, longer)]),
        I16,
        "replicas differ",
    );
}

#[test]
fn i17_any_incident() {
    let incident = Incident {
        at_ns: 5,
        node: 1,
        kind: IncidentKind::Panic,
        text: "index out of bounds".to_owned(),
    };
    assert_only(
        &with(acknowledged(1), [whole(1), Item::Incident(incident)]),
        I17,
        "incident",
    );
}
