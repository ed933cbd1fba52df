//! Watches what this node knows anyway (who leads, who is heard of, what is damaged here) and notes what has changed.
//!
//! Looking once a second costs a pass over the groups in memory and asks nobody. What begins and ends within a second goes unseen; the log of
//! the node has that. What happens to many partitions at once, as when a node goes, is one event.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use highwater_catalog::Catalog;
use highwater_partition::log::GroupId;
use tokio::time::{MissedTickBehavior, interval};

use super::events::{Events, Happening};
use crate::readiness::NotReady;
use crate::replicas::CATALOG_GROUP;
use crate::services::Context;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
struct Look {
    catalog_leader: String,
    /// By group; what it is called, and who leads it.
    leaders: BTreeMap<u64, (String, String)>,
    topics: BTreeSet<String>,
    nodes: BTreeMap<String, NodeLook>,
    /// Damaged entries on this node, by group.
    damaged: BTreeMap<u64, (String, u64)>,
    /// Dead replicas by id: of what, and where.
    dead: BTreeMap<u64, (String, String)>,
    not_ready: Option<NotReady>,
    notices: Vec<String>,
    has_room: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct NodeLook {
    alive: bool,
    /// Which start of its process gossip knows of; 0: none.
    boot: u64,
    leaving: bool,
    drained: bool,
}

/// Fills the ring for as long as the node runs.
pub(super) async fn watch(context: &Arc<Context>, events: &Events) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    events.add(&context.node, vec![Happening::WatchBegan]);
    let mut before = look(context);
    loop {
        looks.tick().await;
        let now = look(context);
        events.add(&context.node, changes(&before, &now));
        before = now;
    }
}

fn look(context: &Context) -> Look {
    let mut look = context.host.read(in_catalog);
    for (group, (_, leader)) in &mut look.leaders {
        *leader = leader_of(context, GroupId(*group));
    }
    for (name, node) in &mut look.nodes {
        node.alive = *name == context.node || context.leaders.is_alive(name);
    }
    for known in context.leaders.nodes().borrow().iter() {
        if let Some(node) = look.nodes.get_mut(&known.name) {
            node.boot = known.boot;
        }
    }
    for hosted in context.registry.all() {
        let entries = hosted.damaged_entries();
        if let Some((what, _)) = look.leaders.get(&hosted.group_id.0).filter(|_| entries > 0) {
            look.damaged.insert(hosted.group_id.0, (what.clone(), entries));
        }
    }
    look.catalog_leader = leader_of(context, CATALOG_GROUP);
    look.not_ready = context.not_ready.borrow().clone();
    look.notices = context.notices.borrow().clone();
    look.has_room = context.leaders.has_room();
    look
}

fn leader_of(context: &Context, group: GroupId) -> String {
    context
        .leaders
        .leader(group)
        .map(|leader| leader.node)
        .unwrap_or_default()
}

/// What the catalog knows, without who leads.
fn in_catalog(catalog: &Catalog) -> Look {
    let mut look = Look::default();
    for topic in catalog.all_topics() {
        let name = format!("{}/{}", topic.tenant, topic.name);
        for partition in &topic.partitions {
            let what = format!("{name} {}", partition.partition);
            let dead = partition.replicas.iter().filter(|replica| catalog.is_dead(replica));
            let dead = dead.map(|replica| (replica.replica_id, (what.clone(), replica.node.clone())));
            look.dead.extend(dead);
            look.leaders.insert(partition.group_id, (what, String::new()));
        }
        look.topics.insert(name);
    }
    let node = |node: &highwater_catalog::Node| NodeLook {
        leaving: node.leaving,
        drained: node.drained,
        ..NodeLook::default()
    };
    look.nodes = catalog
        .members()
        .map(|member| (member.name.clone(), node(member)))
        .collect();
    look
}

fn changes(before: &Look, now: &Look) -> Vec<Happening> {
    let mut happenings = Vec::new();
    nodes(before, now, &mut happenings);
    catalog(before, now, &mut happenings);
    leaders(before, now, &mut happenings);
    replicas(before, now, &mut happenings);
    here(before, now, &mut happenings);
    let topic = |topic: &String| topic.clone();
    happenings.extend(
        now.topics
            .difference(&before.topics)
            .map(|name| Happening::TopicMade { topic: topic(name) }),
    );
    happenings.extend(
        before
            .topics
            .difference(&now.topics)
            .map(|name| Happening::TopicDeleted { topic: topic(name) }),
    );
    happenings
}

fn nodes(before: &Look, now: &Look, happenings: &mut Vec<Happening>) {
    for (name, node) in &now.nodes {
        let known = || name.clone();
        let Some(former) = before.nodes.get(name) else {
            happenings.push(Happening::NodeJoined { node: known() });
            continue;
        };
        let is_another = former.boot != 0 && node.boot > former.boot;
        match (former.alive, node.alive) {
            (true, false) => happenings.push(Happening::NodeGone { node: known() }),
            (false, true) => happenings.push(Happening::NodeBack { node: known() }),
            (true, true) if is_another => happenings.push(Happening::NodeRestarted { node: known() }),
            _ => {}
        }
        let sets = [
            (
                former.leaving,
                node.leaving,
                ["is leaving the cluster", "stays in the cluster after all"],
            ),
            (former.drained, node.drained, ["is drained", "is not drained any more"]),
        ];
        for (was, is, [begun, ended]) in sets {
            let what = if is { begun } else { ended };
            happenings.extend((was != is).then(|| Happening::NodeSet { node: known(), what }));
        }
    }
    let left = before.nodes.keys().filter(|name| !now.nodes.contains_key(*name));
    happenings.extend(left.map(|node| Happening::NodeLeft { node: node.clone() }));
}

fn catalog(before: &Look, now: &Look, happenings: &mut Vec<Happening>) {
    let (from, to) = (before.catalog_leader.clone(), now.catalog_leader.clone());
    if from != to {
        happenings.push(match to.is_empty() {
            true => Happening::CatalogLeaderLost { from },
            false => Happening::CatalogElected { from, to },
        });
    }
}

fn leaders(before: &Look, now: &Look, happenings: &mut Vec<Happening>) {
    let mut moves: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (group, (what, to)) in &now.leaders {
        let from = before.leaders.get(group).map_or("", |(_, from)| from.as_str());
        if from != to {
            moves.entry((from, to)).or_default().push(what);
        }
    }
    for ((from, to), whats) in moves {
        let (from, to, what, partitions) = (from.to_owned(), to.to_owned(), whats[0].to_owned(), whats.len());
        happenings.push(match (to.is_empty(), partitions) {
            (true, _) => Happening::LeaderLost { what, partitions, from },
            (false, 1) => Happening::Elected { what, from, to },
            (false, _) => Happening::ElectedMany { partitions, from, to },
        });
    }
}

fn replicas(before: &Look, now: &Look, happenings: &mut Vec<Happening>) {
    for (group, (what, entries)) in &now.damaged {
        let former = before.damaged.get(group).map_or(0, |(_, entries)| *entries);
        let (what, entries) = (what.clone(), *entries);
        happenings.extend((entries > former).then_some(Happening::DamageFound { what, entries }));
    }
    let is_mended = |group: &u64| !now.damaged.contains_key(group) && now.leaders.contains_key(group);
    let mended = before.damaged.iter().filter(|(group, _)| is_mended(group));
    happenings.extend(mended.map(|(_, (what, _))| Happening::DamageMended { what: what.clone() }));
    let place = |(what, node): &(String, String)| (what.clone(), node.clone());
    let died = now.dead.iter().filter(|(id, _)| !before.dead.contains_key(id));
    happenings.extend(
        died.map(|(_, at)| place(at))
            .map(|(what, node)| Happening::ReplicaDied { what, node }),
    );
    let replaced = before.dead.iter().filter(|(id, _)| !now.dead.contains_key(id));
    happenings.extend(
        replaced
            .map(|(_, at)| place(at))
            .map(|(what, node)| Happening::ReplicaReplaced { what, node }),
    );
}

fn here(before: &Look, now: &Look, happenings: &mut Vec<Happening>) {
    if kind(&before.not_ready) != kind(&now.not_ready) {
        happenings.push(match &now.not_ready {
            Some(why) => Happening::NotReady { why: why.to_string() },
            None => Happening::Ready,
        });
    }
    let new = now.notices.iter().filter(|notice| !before.notices.contains(notice));
    happenings.extend(new.map(|notice| Happening::Noticed { notice: notice.clone() }));
    if before.has_room != now.has_room {
        happenings.push(Happening::DiskRoom { has_room: now.has_room });
    }
}

/// Of which kind a reason is. Some count replicas: if each number were an event, a start would push all others out of the ring.
fn kind(not_ready: &Option<NotReady>) -> Option<Discriminant<NotReady>> {
    not_ready.as_ref().map(discriminant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Look {
        let alive = NodeLook {
            alive: true,
            ..NodeLook::default()
        };
        Look {
            catalog_leader: "a".to_owned(),
            leaders: (1..=4)
                .map(|group| (group, (format!("shop/orders {group}"), "a".to_owned())))
                .collect(),
            topics: BTreeSet::from(["shop/orders".to_owned()]),
            nodes: ["a", "b", "c"].map(|name| (name.to_owned(), alive)).into(),
            has_room: true,
            ..Look::default()
        }
    }

    fn words(change: impl FnOnce(&mut Look)) -> Vec<String> {
        let mut now = known();
        change(&mut now);
        let there = changes(&known(), &now);
        there.iter().map(|happening| happening.words("b")).collect()
    }

    #[test]
    fn nothing_new_is_no_event() {
        assert_eq!(words(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn a_node_that_goes_is_told_once_with_what_it_led() {
        let told = words(|now| {
            now.nodes.entry("a".to_owned()).or_default().alive = false;
            now.catalog_leader = "b".to_owned();
            for (group, (_, leader)) in &mut now.leaders {
                *leader = match group {
                    4 => String::new(),
                    3 => "c".to_owned(),
                    _ => "b".to_owned(),
                };
            }
        });
        assert_eq!(
            told,
            [
                "a is not heard of any more.",
                "b leads the catalog now, after a.",
                "shop/orders 4 has no leader; it was a.",
                "b leads 2 partitions now, after a.",
                "c leads shop/orders 3 now, after a.",
            ]
        );
    }

    #[test]
    fn a_restart_that_nobody_missed_is_told() {
        let with_boot = |boot| {
            let mut look = known();
            look.nodes.entry("c".to_owned()).or_default().boot = boot;
            look
        };
        let words = |before, now| -> Vec<String> {
            let happenings = changes(&with_boot(before), &with_boot(now));
            happenings.iter().map(|happening| happening.words("a")).collect()
        };
        assert_eq!(words(7, 9), ["c was restarted."]);
        assert_eq!(words(0, 9), Vec::<String>::new());
        assert_eq!(words(7, 0), Vec::<String>::new());
    }

    #[test]
    fn a_reason_that_counts_is_told_once_and_again_when_it_is_another() {
        let with = |not_ready: Option<NotReady>| Look { not_ready, ..known() };
        let words = |before, now| -> Vec<String> {
            let happenings = changes(&with(before), &with(now));
            happenings.iter().map(|happening| happening.words("b")).collect()
        };
        let (opening, catching_up) = (NotReady::Opening, NotReady::CatchingUp);
        assert_eq!(
            words(None, Some(opening(900))),
            ["b is not ready: 900 of its replicas are still being opened or mended."]
        );
        assert_eq!(words(Some(opening(900)), Some(opening(899))), Vec::<String>::new());
        assert_eq!(words(Some(catching_up(7)), Some(catching_up(8))), Vec::<String>::new());
        let told = words(Some(opening(1)), Some(catching_up(1)));
        assert!(
            told.len() == 1 && told[0].contains("have not caught up yet"),
            "{told:?}"
        );
        assert_eq!(words(Some(catching_up(1)), None), ["b is ready."]);
    }

    #[test]
    fn joins_leaves_and_what_operators_set_are_told() {
        let told = words(|now| {
            now.nodes.remove("c");
            now.nodes.insert("d".to_owned(), NodeLook::default());
            now.nodes.entry("b".to_owned()).or_default().drained = true;
        });
        assert_eq!(
            told,
            ["b is drained.", "d has joined the cluster.", "c has left the cluster."]
        );
    }

    #[test]
    fn damage_and_dead_replicas_are_told_and_that_they_are_over() {
        let what = "shop/orders 1".to_owned();
        let mut hurt = known();
        hurt.damaged.insert(1, (what.clone(), 7));
        hurt.dead.insert(99, (what, "c".to_owned()));
        let begun: Vec<_> = changes(&known(), &hurt)
            .iter()
            .map(|happening| happening.words("b"))
            .collect();
        assert!(
            begun[0].starts_with("7 entries of shop/orders 1 are damaged on b"),
            "{begun:?}"
        );
        assert!(begun[1].contains("on c is dead"), "{begun:?}");
        let ended: Vec<_> = changes(&hurt, &known())
            .iter()
            .map(|happening| happening.words("b"))
            .collect();
        assert_eq!(ended[0], "shop/orders 1 is whole again on b.");
        assert!(ended[1].contains("has been replaced"), "{ended:?}");
        assert_eq!(ended.len(), 2);
    }
}
