//! No false alarm, ever.

use highwater_verify::history::History;
use highwater_verify::{Invariant, Outcome, Requirements, check};
use proptest::prelude::*;

use crate::reference::honest_history;
use crate::script::{history, record, run};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_honest_log_raises_no_alarm(seed: u64, steps in 0u32..400) {
        let verdict = check(&history(&honest_history(seed, steps)), &Requirements::default());
        prop_assert!(verdict.violations.is_empty(), "{verdict}");
    }

    #[test]
    fn who_recorded_what_makes_no_difference(seed: u64, recorders in 1usize..5) {
        let items = honest_history(seed, 120);
        let whole = check(&history(&items), &Requirements::default());
        let mut parts = vec![History::default(); recorders];
        // Promises of one moment count in the order of recording, so they stay with one recorder.
        for (number, item) in items.iter().enumerate() {
            let recorder = match item {
                crate::script::Item::Promise(_) => 0,
                _ => number % recorders,
            };
            record(&mut parts[recorder], item);
        }
        let mut merged = History::new(run());
        parts.into_iter().for_each(|part| merged.merge(part));
        let verdict = check(&merged, &Requirements::default());
        prop_assert_eq!(verdict.outcome, whole.outcome, "{}", verdict);
        prop_assert_eq!(verdict.counts, whole.counts);
        prop_assert_eq!(verdict.judged, whole.judged);
    }
}

#[test]
fn an_honest_run_is_judged_in_every_respect_and_passes() {
    let verdict = check(&history(&honest_history(3, 2_000)), &Requirements::default());
    assert_eq!(verdict.outcome, Outcome::Pass, "{verdict}");
    let absent = [Invariant::I10, Invariant::I17];
    for invariant in Invariant::ALL
        .into_iter()
        .filter(|invariant| !absent.contains(invariant))
    {
        assert!(
            verdict.checked(invariant) > 0,
            "{invariant:?} was not judged: {verdict}"
        );
    }
    assert!(verdict.counts.records_unknown_found > 0, "{verdict}");
}
