//! Every rule, kept and broken, in the small worlds.

use highwater_model::CASES;

#[test]
fn rules_that_are_kept_hold_and_rules_that_are_broken_are_found() {
    let mut states = 0;
    for case in CASES {
        let found = case.check(false);
        assert!(found.is(case.expected), "{}: {found}: {found:#?}", case.name);
        states += found.states;
    }
    println!("{} cases, {states} states", CASES.len());
}
