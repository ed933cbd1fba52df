//! How much of a quota one node may give.
//!
//! A quota is for the whole cluster, and every node decides alone. So each node takes what the others leave: what nobody uses elsewhere can be
//! used here. Where all of it is in use, each keeps the part that it has. A twentieth is divided by weight whatever is used, so that a node that
//! is asked for something for the first time can begin: for producing by the leaders that it has of the tenant's partitions, otherwise evenly.
//!
//! As long as nodes know of each other's use, all parts that are used are the quota together. What they know is some seconds old: for as long
//! more may pass, up to the quota on each node.

/// The part of a quota that is divided whatever is used.
const BY_WEIGHT: f64 = 0.05;

/// What is known of the use of one quota, per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Use {
    pub(super) here: f64,
    pub(super) elsewhere: f64,
    /// This node's weight, 0 to 1; those of all nodes together are 1.
    pub(super) weight: f64,
}

/// How much of a quota this node may give per second; at least 1.
pub(super) fn share(quota: u64, used: Use) -> u64 {
    let Use {
        here,
        elsewhere,
        weight,
    } = used;
    let quota = quota as f64;
    let divided = quota * BY_WEIGHT;
    let open = quota - divided;
    let left_over = open - elsewhere;
    let kept = if here > 0.0 {
        open * here / (here + elsewhere)
    } else {
        0.0
    };
    let part = left_over.max(kept) + divided * weight;
    (part as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(here: f64, elsewhere: f64) -> Use {
        Use {
            here,
            elsewhere,
            weight: 1.0 / 3.0,
        }
    }

    /// What three nodes give that are asked for `wanted` per second, once they have settled.
    fn settled(quota: u64, wanted: [f64; 3]) -> [f64; 3] {
        let mut given = [0.0; 3];
        for _ in 0..50 {
            let all: f64 = given.iter().sum();
            let mut next = given;
            for (next, (here, wanted)) in next.iter_mut().zip(given.iter().zip(wanted)) {
                let may = share(quota, used(*here, all - here)) as f64;
                // Rates are means of what was and what is.
                *next = 0.5 * wanted.min(may) + 0.5 * here;
            }
            given = next;
        }
        given
    }

    #[test]
    fn before_anything_is_used_nearly_all_is_there_on_each_node() {
        assert_eq!(share(900, used(0.0, 0.0)), 870);
    }

    #[test]
    fn who_finds_everything_used_elsewhere_can_begin_and_never_has_nothing() {
        assert_eq!(share(3_000, used(0.0, 3_000.0)), 50);
        let nothing_to_lead = Use {
            here: 0.0,
            elsewhere: 900.0,
            weight: 0.0,
        };
        assert_eq!(share(900, nothing_to_lead), 1, "a rate of nothing could never recover");
    }

    #[test]
    fn a_node_that_is_asked_alone_gives_nearly_all() {
        let [first, ..] = settled(1_000_000, [5e6, 0.0, 0.0]);
        assert!((960_000.0..=1_000_000.0).contains(&first), "{first}");
    }

    #[test]
    fn what_is_given_together_settles_at_the_quota_or_at_what_is_wanted() {
        for wanted in [
            [5e6, 5e6, 5e6],
            [5e6, 1e3, 0.0],
            [4e5, 4e5, 4e5],
            [9e5, 3e5, 0.0],
            [1e3, 2e3, 3e3],
        ] {
            let given = settled(1_000_000, wanted);
            let (all, wish) = (given.iter().sum::<f64>(), wanted.iter().sum::<f64>());
            assert!(all <= 1_000_000.0 * 1.001, "{wanted:?}: {given:?}");
            assert!(all >= wish.min(940_000.0) * 0.999, "{wanted:?}: {given:?}");
        }
    }

    #[test]
    fn a_node_that_is_asked_late_gets_its_part() {
        let mut given = [950_000.0, 0.0];
        for _ in 0..60 {
            let may = [
                share(1_000_000, used(given[0], given[1])),
                share(1_000_000, used(given[1], given[0])),
            ];
            given = [0, 1].map(|at| 0.5 * may[at] as f64 + 0.5 * given[at]);
        }
        assert!(given[1] > 300_000.0, "{given:?}");
    }
}
