//! The plan of moves and of preferred leaders, built step by step in the order of urgency.

use crate::command::Command;
use crate::limits::REPLACED_REPLICAS_MAX;
use crate::planning::evening::next_step;
use crate::planning::layout::{Group, Layout, Seat, Site};
use crate::planning::{MOVES_IN_FLIGHT_MAX, MOVES_TO_NODE_MAX, PREFERENCES_MAX};

/// A plan in the making.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    layout: Layout<'a>,
    commands: Vec<Command>,
    /// Partitions that change their replicas, or will by this plan.
    in_flight: usize,
}

impl<'a> Plan<'a> {
    pub(super) fn new(layout: Layout<'a>) -> Plan<'a> {
        Plan {
            in_flight: layout.groups.iter().filter(|group| group.is_in_flight()).count(),
            layout,
            commands: Vec::new(),
        }
    }

    pub(super) fn into_commands(self) -> Vec<Command> {
        self.commands
    }

    /// Also of groups that change already: the new replica may stand on the node that is gone.
    pub(super) fn leave_gone_nodes(&mut self) {
        self.leave(|site, _, group| site.is_gone && group.former.len() < REPLACED_REPLICAS_MAX);
    }

    /// A new replica that died there is not replaced on a node that leaves, and its group would wait for it for ever.
    pub(super) fn leave_leaving_nodes(&mut self) {
        let is_in_vain = |seat: &Seat, group: &Group| seat.is_dead && group.former.len() < REPLACED_REPLICAS_MAX;
        self.leave(|site, seat, group| site.is_leaving && (!group.is_in_flight() || is_in_vain(seat, group)));
    }

    fn leave(&mut self, is_left: impl Fn(&Site, &Seat, &Group) -> bool) {
        for number in 0..self.layout.groups.len() {
            let group = &self.layout.groups[number];
            if group.is_touched {
                continue;
            }
            let is_seat_left = |at: &usize| {
                let seat = &group.seats[*at];
                is_left(&self.layout.sites[seat.node], seat, group)
            };
            let mut left = (0..group.seats.len()).filter(is_seat_left);
            let found = left.find_map(|at| Some((at, self.best_taker(group, at)?)));
            if let Some((at, to)) = found {
                self.move_seat(number, at, to);
            }
        }
    }

    /// The best node for the seat, among all that there are: it is worth waiting for.
    fn best_taker(&self, group: &Group, at: usize) -> Option<usize> {
        let rank = |node: &usize| {
            let site = &self.layout.sites[*node];
            (self.layout.rack_uses(group, site.rack, Some(at)), site.replicas, *node)
        };
        self.layout.takers(group).min_by_key(rank)
    }

    pub(super) fn use_more_racks(&mut self) {
        for number in 0..self.layout.groups.len() {
            let group = &self.layout.groups[number];
            if group.is_touched || group.is_in_flight() {
                continue;
            }
            if let Some((at, to)) = self.to_another_rack(group) {
                self.move_seat(number, at, to);
            }
        }
    }

    /// A seat that shares its rack with others of the group, and a node in a rack that has none.
    fn to_another_rack(&self, group: &Group) -> Option<(usize, usize)> {
        let layout = &self.layout;
        let shares = |at: &usize| layout.rack_uses(group, layout.rack(&group.seats[*at]), None);
        let is_movable = |at: &usize| layout.sites[group.seats[*at].node].is_open && shares(at) > 1;
        let rank = |at: &usize| (shares(at), layout.sites[group.seats[*at].node].replicas, *at);
        let at = (0..group.seats.len()).filter(is_movable).max_by_key(rank)?;
        let is_new = |node: &usize| layout.rack_uses(group, layout.sites[*node].rack, None) == 0;
        let to = layout.takers(group).filter(is_new);
        Some((at, to.min_by_key(|node| (layout.sites[*node].replicas, *node))?))
    }

    // ------------------------------------------------------------------------------------------------ even replicas

    /// Only if nothing else is under way or planned: otherwise loads are not what they will be.
    pub(super) fn even_out_replicas(&mut self) {
        if self.in_flight > 0 {
            return;
        }
        let seats = self.seats_by_node();
        while self.in_flight < MOVES_IN_FLIGHT_MAX {
            let loads = self
                .layout
                .sites
                .iter()
                .map(|site| site.is_open.then_some(site.replicas));
            let loads: Vec<Option<u64>> = loads.collect();
            let Some(step) = next_step(&loads, |node| self.replica_options(&seats[node])) else {
                return;
            };
            // Groups that are touched are not seen any more, so a longer way may not be a shortest one.
            if !step.is_whole_way && self.in_flight > 0 {
                return;
            }
            let (group, at) = step.unit;
            self.move_seat(group, at, step.to);
        }
    }

    /// The seats on each node, as group and place; those of preferred leaders last, because they are better left alone.
    fn seats_by_node(&self) -> Vec<Vec<(usize, usize)>> {
        let mut seats = vec![Vec::new(); self.layout.sites.len()];
        for (number, group) in self.layout.groups.iter().enumerate() {
            for (at, seat) in group.seats.iter().enumerate() {
                seats[seat.node].push((number, at));
            }
        }
        seats
            .iter_mut()
            .for_each(|of_node| of_node.sort_by_key(|(_, at)| *at == 0));
        seats
    }

    /// Where replicas of these seats, which are all of one node, may go without a group using fewer racks.
    fn replica_options(&self, seats: &[(usize, usize)]) -> Vec<(usize, (usize, usize))> {
        let mut options = vec![None; self.layout.sites.len()];
        let is_possible = |node: usize| {
            let site = &self.layout.sites[node];
            site.is_open && site.receives < MOVES_TO_NODE_MAX
        };
        let mut missing: Vec<usize> = (0..options.len()).filter(|node| is_possible(*node)).collect();
        for (number, at) in seats {
            let group = &self.layout.groups[*number];
            if group.is_touched {
                continue;
            }
            missing.retain(|node| {
                let can_go = self.layout.can_take(group, *node) && self.keeps_racks(group, *at, *node);
                if can_go {
                    options[*node] = Some((*number, *at));
                }
                !can_go
            });
            if missing.is_empty() {
                break;
            }
        }
        let found = options.into_iter().enumerate();
        found.filter_map(|(node, unit)| Some((node, unit?))).collect()
    }

    /// Whether the group uses as many racks with its seat at `at` on another node.
    fn keeps_racks(&self, group: &Group, at: usize, to: usize) -> bool {
        let uses = |rack| self.layout.rack_uses(group, rack, Some(at));
        let (from, to) = (self.layout.rack(&group.seats[at]), self.layout.sites[to].rack);
        from == to || uses(from) > 0 || uses(to) == 0
    }

    /// Plans it if the limits allow.
    fn move_seat(&mut self, number: usize, at: usize, to: usize) {
        let group = &self.layout.groups[number];
        let is_new = !group.is_in_flight();
        let is_full = is_new && self.in_flight >= MOVES_IN_FLIGHT_MAX;
        if is_full || self.layout.sites[to].receives >= MOVES_TO_NODE_MAX {
            return;
        }
        self.commands.push(Command::MoveReplica {
            group_id: group.group_id,
            replica_id: group.seats[at].replica_id,
            node: self.layout.sites[to].name.to_string(),
        });
        self.in_flight += usize::from(is_new);
        self.layout.move_seat(number, at, to);
    }

    // ------------------------------------------------------------------------------------------------- even leaders

    pub(super) fn even_out_leaders(&mut self) {
        let mut left = PREFERENCES_MAX;
        self.lead_from_leader_racks(&mut left);
        while left > 0 {
            let loads = self
                .layout
                .sites
                .iter()
                .map(|site| site.may_lead.then_some(site.leaders));
            let loads: Vec<Option<u64>> = loads.collect();
            let led = self.groups_by_leader();
            let Some(step) = next_step(&loads, |node| self.leader_options(&led[node])) else {
                return;
            };
            if !step.is_whole_way && left < PREFERENCES_MAX {
                return; // as above
            }
            let (group, at) = step.unit;
            self.prefer(group, at);
            left -= 1;
        }
    }

    fn lead_from_leader_racks(&mut self, left: &mut usize) {
        for number in 0..self.layout.groups.len() {
            let group = &self.layout.groups[number];
            let Some(rack) = group.leader_rack else { continue };
            let is_there = |at: &usize| self.layout.rack(&group.seats[*at]) == rack;
            if *left == 0 || is_there(&0) || !may_prefer(group) {
                continue;
            }
            let fit = (1..group.seats.len()).filter(|at| is_there(at) && self.layout.may_lead(&group.seats[*at]));
            let least = fit.min_by_key(|at| (self.layout.sites[group.seats[*at].node].leaders, *at));
            if let Some(at) = least {
                self.prefer(number, at);
                *left -= 1;
            }
        }
    }

    /// The groups that each node is the preferred leader of, and that may get another one.
    fn groups_by_leader(&self) -> Vec<Vec<usize>> {
        let mut led = vec![Vec::new(); self.layout.sites.len()];
        for (number, group) in self.layout.groups.iter().enumerate() {
            if may_prefer(group) {
                led[group.seats[0].node].push(number);
            }
        }
        led
    }

    /// Which nodes may become the preferred leaders of some of these groups, which have the same now.
    fn leader_options(&self, groups: &[usize]) -> Vec<(usize, (usize, usize))> {
        let mut options = vec![None; self.layout.sites.len()];
        for number in groups {
            let group = &self.layout.groups[*number];
            let rack = self.layout.rack(&group.seats[0]);
            let is_bound = group.leader_rack == Some(rack);
            for (at, seat) in group.seats.iter().enumerate().skip(1) {
                if self.layout.may_lead(seat) && (!is_bound || self.layout.rack(seat) == rack) {
                    options[seat.node].get_or_insert((*number, at));
                }
            }
        }
        let found = options.into_iter().enumerate();
        found.filter_map(|(node, unit)| Some((node, unit?))).collect()
    }

    fn prefer(&mut self, number: usize, at: usize) {
        let group = &self.layout.groups[number];
        self.commands.push(Command::PreferLeader {
            group_id: group.group_id,
            replica_id: group.seats[at].replica_id,
        });
        self.layout.prefer(number, at);
    }
}

/// While a group's replicas change, who leads it best is not settled.
fn may_prefer(group: &Group) -> bool {
    !group.is_in_flight() && !group.is_touched
}
