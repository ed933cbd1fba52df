//! How much of a quota one node may give.
//!
//! A quota is for the whole cluster, and every node decides alone. So each node takes the part of it that its part of the use suggests: what
//! nobody uses elsewhere can be used here. A tenth is divided by weight whatever is used, so that a node that has had nothing to do yet can
//! begin: for producing by the leaders that it has of the tenant's partitions, otherwise evenly. All parts together are the quota, as long as
//! the nodes know of each other's use; what they know is a few seconds old, and for as long more may pass.

/// The part of a quota that is divided whatever is used.
const BY_WEIGHT: f64 = 0.1;

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
    let all = here + elsewhere;
    let by_use = if all > 0.0 { here / all } else { weight };
    let part = (1.0 - BY_WEIGHT) * by_use + BY_WEIGHT * weight;
    ((quota as f64 * part) as u64).max(1)
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

    /// Three nodes that are asked for `wanted` per second and settle.
    fn settled(quota: u64, wanted: [f64; 3]) -> [u64; 3] {
        let mut given = [0.0; 3];
        let mut shares = [0; 3];
        for _ in 0..30 {
            let all: f64 = given.iter().sum();
            shares = given.map(|here| share(quota, used(here, all - here)));
            for (given, (share, wanted)) in given.iter_mut().zip(shares.iter().zip(wanted)) {
                *given = wanted.min(*share as f64);
            }
        }
        shares
    }

    #[test]
    fn before_anything_is_used_the_weight_decides() {
        assert_eq!(share(900, used(0.0, 0.0)), 300);
        let nothing_to_lead = Use {
            here: 0.0,
            elsewhere: 0.0,
            weight: 0.0,
        };
        assert_eq!(share(900, nothing_to_lead), 1, "a rate of nothing could never recover");
    }

    #[test]
    fn who_is_asked_alone_gets_nearly_all_and_the_others_can_begin() {
        let [first, second, third] = settled(1_000_000, [5e6, 0.0, 0.0]);
        assert!(first > 930_000, "{first}");
        assert!(second > 30_000 && third > 30_000, "{second} {third}");
    }

    #[test]
    fn all_parts_together_are_never_more_than_the_quota() {
        for wanted in [[5e6, 5e6, 5e6], [5e6, 1e3, 0.0], [4e5, 4e5, 4e5], [1.0, 2.0, 3.0]] {
            let shares = settled(1_000_000, wanted);
            assert!(shares.iter().sum::<u64>() <= 1_000_000, "{wanted:?}: {shares:?}");
        }
    }

    #[test]
    fn a_node_whose_use_grows_takes_over_from_those_that_are_idle() {
        let before = share(1_000, used(900.0, 0.0));
        let after = share(1_000, used(900.0, 900.0));
        assert!(before > 900 && (480..=520).contains(&after), "{before} {after}");
    }
}
