//! Random steps, crashes and reopenings; the log must always be what a plain list says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::world::{Step, World};
use highwater_log::disk::simulated::Keep;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Move {
    Step(Step),
    Crash(Keep),
    Check,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        6 => (1_u64..9).prop_map(Step::Append),
        2 => (0_u64..20).prop_map(Step::Truncate),
        1 => Just(Step::Vote),
        3 => (0_u64..9).prop_map(Step::Commit),
        2 => (0_u64..20_000).prop_map(Step::Tick),
        2 => Just(Step::Purge),
        5 => Just(Step::Round),
    ];
    let keep = prop_oneof![Just(Keep::Nothing), Just(Keep::Everything), Just(Keep::Torn)];
    let one = prop_oneof![12 => step.prop_map(Move::Step), 1 => keep.prop_map(Move::Crash), 1 => Just(Move::Check)];
    prop::collection::vec(one, 1..60)
}

/// Many for their price; more if `PROPTEST_CASES` says so.
fn cases() -> u32 {
    ProptestConfig::default().cases.max(1_500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_a_list_says(seed: u64, cache_bytes in prop_oneof![Just(0_usize), 0_usize..20_000], moves in moves()) {
        let mut world = World::new(seed, cache_bytes);
        for one in moves {
            match one {
                Move::Step(step) => world.step(&step).unwrap(),
                Move::Check => world.check_now(),
                Move::Crash(keep) => {
                    world.crash(keep).unwrap();
                    world.check_recovered();
                }
            }
        }
        world.check_now();
    }
}
