//! How long members waited for records while something happened to another one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use highwater_verify::history::Handout;

/// Something that happened to one member.
pub(super) struct Change {
    pub(super) during_ns: Range<u64>,
    /// The life that it happened to.
    pub(super) life: u32,
}

/// For each change, the longest time that another member had nothing of a partition that was its own before, during and after it.
pub(super) fn pauses(handouts: &[Handout], changes: &[Change]) -> Vec<Duration> {
    let mut by_partition: BTreeMap<u32, Vec<Handout>> = BTreeMap::new();
    for handout in handouts {
        by_partition.entry(handout.partition).or_default().push(*handout);
    }
    for of_partition in by_partition.values_mut() {
        of_partition.sort_by_key(|handout| handout.at_ns);
    }
    let longest = |change: &Change| {
        let gaps = by_partition
            .values()
            .filter_map(|of_partition| unaffected_gap(of_partition, change));
        gaps.max().map(Duration::from_nanos)
    };
    changes.iter().filter_map(longest).collect()
}

/// The longest gap of a partition in a change, if one other member had it all the time.
fn unaffected_gap(of_partition: &[Handout], change: &Change) -> Option<u64> {
    let during = &change.during_ns;
    let first = of_partition
        .partition_point(|handout| handout.at_ns < during.start)
        .checked_sub(1)?;
    let end = of_partition.partition_point(|handout| handout.at_ns < during.end);
    let around = of_partition.get(first..=end)?;
    let member = around.first()?.member;
    if member == change.life || around.iter().any(|handout| handout.member != member) {
        return None;
    }
    around.windows(2).map(|pair| pair[1].at_ns - pair[0].at_ns).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handout(at_ns: u64, member: u32, partition: u32) -> Handout {
        Handout {
            at_ns,
            member,
            partition,
            offset: 0,
        }
    }

    #[test]
    fn only_partitions_that_did_not_move_count() {
        let stays = [5, 12, 19, 31, 40].map(|at_ns| handout(at_ns, 1, 0));
        let moves = [(5, 2), (12, 2), (28, 1), (40, 1)].map(|(at_ns, member)| handout(at_ns, member, 1));
        let all = [stays.to_vec(), moves.to_vec()].concat();
        let change = |during_ns, life| [Change { during_ns, life }];
        assert_eq!(pauses(&all, &change(10..30, 2)), [Duration::from_nanos(12)]);
        assert!(
            pauses(&all, &change(10..30, 1)).is_empty(),
            "it happened to that one itself"
        );
        assert!(
            pauses(&all, &change(0..30, 2)).is_empty(),
            "nobody is known to have had anything before"
        );
    }
}
