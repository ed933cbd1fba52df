//! Makes loads even, one unit at a time.
//!
//! Not every unit can go everywhere: a replica cannot go to a node that has one of its group already, or whose rack has.
//! So the fullest node may be unable to give anything to the emptiest, but to a third one that can. The search finds the
//! shortest such way and answers its *last* step. That one makes loads more even if it is the only one; otherwise it
//! leaves them as even as they were, and the way that is left is one step shorter. Therefore taking step after step comes
//! to an end, and at the end no way is left. What each unit may do must only have the usual form of such choices: a set of
//! nodes of a given size, with so many of each rack.

use std::collections::VecDeque;

/// One unit goes from a node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step<U> {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) unit: U,
    /// It makes loads more even by itself.
    pub(super) is_whole_way: bool,
}

/// The next step; None: loads are as even as they can be. Nodes with load None take no part. `options` are the nodes that
/// a unit of a node can go to, each once, with a unit that can.
pub(super) fn next_step<U: Copy>(loads: &[Option<u64>], options: impl Fn(usize) -> Vec<(usize, U)>) -> Option<Step<U>> {
    let least = loads.iter().flatten().min()?;
    let mut sources: Vec<(u64, usize)> = loads
        .iter()
        .zip(0..)
        .filter_map(|(load, node)| Some(((*load)?, node)))
        .collect();
    sources.retain(|(load, _)| *load >= least + 2);
    sources.sort_by_key(|(load, node)| (std::cmp::Reverse(*load), *node));
    // What a source reaches in vain is nothing that a less loaded one could give to: it need not be looked at again.
    let mut reached = vec![false; loads.len()];
    sources
        .into_iter()
        .find_map(|(load, source)| last_step(source, load - 2, loads, &options, &mut reached))
}

/// The last step of a shortest way from `source` to a node with at most `room` units.
fn last_step<U: Copy>(
    source: usize,
    room: u64,
    loads: &[Option<u64>],
    options: &impl Fn(usize) -> Vec<(usize, U)>,
    reached: &mut [bool],
) -> Option<Step<U>> {
    if std::mem::replace(&mut reached[source], true) {
        return None;
    }
    let mut open = VecDeque::from([source]);
    while let Some(from) = open.pop_front() {
        let mut next = options(from);
        next.retain(|(to, _)| loads[*to].is_some() && !reached[*to]);
        let emptiest = next.iter().min_by_key(|(to, _)| (loads[*to], *to)).copied();
        if let Some((to, unit)) = emptiest.filter(|(to, _)| loads[*to] <= Some(room)) {
            let is_whole_way = from == source;
            return Some(Step {
                from,
                to,
                unit,
                is_whole_way,
            });
        }
        for (to, _) in next {
            reached[to] = true;
            open.push_back(to);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `options[n]` are the nodes that a unit of node n can go to.
    fn step(loads: &[u64], options: &[&[usize]]) -> Option<(usize, usize, bool)> {
        let loads: Vec<Option<u64>> = loads.iter().copied().map(Some).collect();
        let options = |node: usize| options[node].iter().map(|to| (*to, ())).collect();
        next_step(&loads, options).map(|step| (step.from, step.to, step.is_whole_way))
    }

    #[test]
    fn the_fullest_gives_to_the_emptiest() {
        let all: &[&[usize]] = &[&[1, 2], &[0, 2], &[0, 1]];
        assert_eq!(step(&[3, 5, 1], all), Some((1, 2, true)));
        assert_eq!(step(&[2, 3, 2], all), None);
    }

    #[test]
    fn a_third_one_passes_on_what_the_fullest_cannot_give() {
        let chain: &[&[usize]] = &[&[1], &[2], &[]];
        assert_eq!(step(&[3, 2, 1], chain), Some((1, 2, false)));
        assert_eq!(step(&[3, 1, 2], chain), Some((0, 1, true)));
        assert_eq!(step(&[3, 2, 1], &[&[1], &[], &[]]), None);
    }

    #[test]
    fn others_become_even_if_the_fullest_can_give_nothing() {
        assert_eq!(step(&[9, 3, 1], &[&[], &[2], &[1]]), Some((1, 2, true)));
    }
}
