//! The catalog as the planner sees it: nodes by number, and where each group's replicas stand. The planner changes it as
//! it plans, so that what it plans next fits to what it has planned already.

use std::collections::BTreeMap;

use crate::catalog::Catalog;
use crate::model::{Node, Partition, Replica, Topic};
use crate::planning::View;

/// A member of the cluster.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) name: &'a str,
    /// Equal for nodes of the same rack.
    pub(super) rack: usize,
    /// It may get replicas.
    pub(super) is_open: bool,
    /// It may get leaderships.
    pub(super) may_lead: bool,
    pub(super) is_gone: bool,
    pub(super) is_leaving: bool,
    /// Replicas of all groups.
    pub(super) replicas: u64,
    /// Preferred leaders of all groups.
    pub(super) leaders: u64,
    /// New replicas of moves that are under way or planned.
    pub(super) receives: usize,
}

/// A replica's place in a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    /// Index into [`Layout::sites`].
    pub(super) node: usize,
    pub(super) replica_id: u64,
    /// It has run and can run again.
    pub(super) is_fit: bool,
    /// It can never run again.
    pub(super) is_dead: bool,
}

/// A group that has a leader.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) group_id: u64,
    /// The preferred leader first.
    pub(super) seats: Vec<Seat>,
    /// The nodes of former replicas.
    pub(super) former: Vec<usize>,
    /// None: leaders may stand anywhere.
    pub(super) leader_rack: Option<usize>,
    /// The plan changes it already.
    pub(super) is_touched: bool,
}

impl Group {
    pub(super) fn is_in_flight(&self) -> bool {
        !self.former.is_empty()
    }

    fn is_held_by(&self, node: usize) -> bool {
        self.seats.iter().any(|seat| seat.node == node) || self.former.contains(&node)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    /// In order of name.
    pub(super) sites: Vec<Site<'a>>,
    /// Those that have a leader, by id.
    pub(super) groups: Vec<Group>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(catalog: &'a Catalog, view: &View, led: impl Fn(u64) -> bool) -> Layout<'a> {
        let mut racks: BTreeMap<&str, usize> = BTreeMap::new();
        for node in catalog.members() {
            let next = racks.len();
            racks.entry(&node.rack).or_insert(next);
        }
        let sites: Vec<Site> = catalog
            .members()
            .map(|node| site(catalog, node, view, &racks))
            .collect();
        let numbers: BTreeMap<&str, usize> = sites.iter().map(|site| site.name).zip(0..).collect();
        let partitions = catalog.all_topics().flat_map(|topic| {
            let of_topic = move |partition| (topic, partition);
            topic.partitions.iter().map(of_topic)
        });
        let led = partitions.filter(|(_, partition)| led(partition.group_id));
        let groups = led.map(|(topic, partition)| group(catalog, topic, partition, &numbers, &racks));
        let mut layout = Layout {
            groups: groups.collect(),
            sites,
        };
        layout.count_under_way();
        layout
    }

    /// The newest replicas of a group are those that its former ones wait for: ids ascend.
    fn count_under_way(&mut self) {
        for group in &self.groups {
            let mut seats = group.seats.clone();
            seats.sort_by_key(|seat| std::cmp::Reverse(seat.replica_id));
            for seat in seats.iter().take(group.former.len()) {
                self.sites[seat.node].receives += 1;
            }
        }
    }

    pub(super) fn rack(&self, seat: &Seat) -> usize {
        self.sites[seat.node].rack
    }

    /// How many seats of a group stand in a rack, the one at `without` left out.
    pub(super) fn rack_uses(&self, group: &Group, rack: usize, without: Option<usize>) -> usize {
        let seats = group.seats.iter().enumerate();
        seats
            .filter(|(at, seat)| Some(*at) != without && self.rack(seat) == rack)
            .count()
    }

    /// Whether a replica of the group may be placed on a node.
    pub(super) fn can_take(&self, group: &Group, node: usize) -> bool {
        self.sites[node].is_open && !group.is_held_by(node)
    }

    /// The nodes that may get a replica of the group.
    pub(super) fn takers(&self, group: &Group) -> impl Iterator<Item = usize> {
        (0..self.sites.len()).filter(|node| self.can_take(group, *node))
    }

    /// Whether a seat may be the preferred leader's; also whether it is where one should be if it is that already.
    pub(super) fn may_lead(&self, seat: &Seat) -> bool {
        seat.is_fit && self.sites[seat.node].may_lead
    }

    pub(super) fn move_seat(&mut self, group: usize, at: usize, to: usize) {
        let group = &mut self.groups[group];
        let from = group.seats[at].node;
        group.seats[at].node = to;
        group.former.push(from);
        group.is_touched = true;
        let leads = u64::from(at == 0);
        self.sites[from].replicas -= 1;
        self.sites[from].leaders -= leads;
        self.sites[to].replicas += 1;
        self.sites[to].leaders += leads;
        self.sites[to].receives += 1;
    }

    pub(super) fn prefer(&mut self, group: usize, at: usize) {
        let group = &mut self.groups[group];
        let (from, to) = (group.seats[0].node, group.seats[at].node);
        group.seats[..=at].rotate_right(1);
        group.is_touched = true;
        self.sites[from].leaders -= 1;
        self.sites[to].leaders += 1;
    }
}

fn site<'a>(catalog: &Catalog, node: &'a Node, view: &View, racks: &BTreeMap<&str, usize>) -> Site<'a> {
    let name = node.name.as_str();
    let load = catalog.index.load(name);
    let is_gone = view.gone.contains(name);
    let is_open = view.usable.contains(name) && !is_gone && node.is_placeable();
    Site {
        name,
        rack: racks.get(node.rack.as_str()).copied().unwrap_or_default(),
        is_open,
        may_lead: is_open && !node.drained,
        is_gone,
        is_leaving: node.leaving,
        replicas: load.replicas,
        leaders: load.leaders,
        receives: 0,
    }
}

fn group(
    catalog: &Catalog,
    topic: &Topic,
    partition: &Partition,
    numbers: &BTreeMap<&str, usize>,
    racks: &BTreeMap<&str, usize>,
) -> Group {
    let number = |replica: &Replica| match numbers.get(replica.node.as_str()) {
        Some(number) => *number,
        None => unreachable!("node {} holds a replica, but is no member", replica.node),
    };
    let seat = |replica: &Replica| Seat {
        node: number(replica),
        replica_id: replica.replica_id,
        is_fit: replica.started && !catalog.is_dead(replica),
        is_dead: catalog.is_dead(replica),
    };
    Group {
        group_id: partition.group_id,
        seats: partition.replicas.iter().map(seat).collect(),
        former: partition.replaced.iter().map(number).collect(),
        leader_rack: match topic.leader_rack.as_str() {
            "" => None,
            rack => racks.get(rack).copied(),
        },
        is_touched: false,
    }
}
