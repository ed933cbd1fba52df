//! A million records.

use std::time::{Duration, Instant};

use highwater_verify::history::{History, SendOutcome};
use highwater_verify::{Requirements, check};

use crate::script::*;

const RECORDS: u32 = 1_000_000;
const PRODUCERS: u32 = 4;

#[test]
fn a_million_records_are_judged_in_seconds() {
    let mut history = History::new(run());
    let place = |offset: u32| id(offset % PRODUCERS, offset / PRODUCERS);
    for offset in 0..RECORDS {
        let who = place(offset);
        let outcome = SendOutcome::Appended {
            base_offset: offset.into(),
        };
        record(
            &mut history,
            &send(who.producer, who.number, 1, u64::from(offset), outcome),
        );
    }
    let seen = |start: u32, end: u32| (start..end).map(|offset| seen(offset.into(), place(offset)));
    for start in (0..RECORDS).step_by(250) {
        let end = start + 250;
        record(
            &mut history,
            &poll(
                u64::from(end) + 10,
                start.into(),
                end.into(),
                seen(start, end).collect(),
            ),
        );
    }
    record(&mut history, &scan(0, 0, RECORDS.into(), seen(0, RECORDS).collect()));
    record(&mut history, &scan(1, 0, RECORDS.into(), seen(0, RECORDS).collect()));

    let begin = Instant::now();
    let verdict = check(&history, &Requirements::default());
    let took = begin.elapsed();
    assert!(verdict.passed(), "{verdict}");
    assert_eq!(verdict.counts.records_acknowledged, u64::from(RECORDS));
    assert!(took < Duration::from_secs(60), "took {took:?}");
    println!("judged {RECORDS} records, read three times, in {took:?}");
}
