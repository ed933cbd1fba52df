//! One WatchCluster stream: everything first, then what changes, as it happens.
//!
//! A node that hears nothing of the catalog any more sees a cluster of its own, in which all others are dead. Its watches end after a
//! while like all streams (`revocation`), and whoever can reach another node looks there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use highwater_proto::v1::{Node, Topic, WatchClusterResponse};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Context, cluster};
use crate::access::{Action, Principal, Resource};
use crate::catalog::Progress;
use crate::gossip::GossipNode;

/// Changes that come within this time of the first one are sent together.
const GATHER: Duration = Duration::from_millis(10);

/// All that one tenant's client may see.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) topics: BTreeMap<u64, Topic>,
}

impl View {
    /// What to send to somebody who has seen `self` so that he sees `now`; None if that is the same. A node that is
    /// gone can only be told in full.
    fn changes_to(&self, now: &View) -> Option<WatchClusterResponse> {
        if self == now {
            return None;
        }
        let full = self.nodes.keys().any(|name| !now.nodes.contains_key(name));
        if full {
            return Some(now.in_full());
        }
        let nodes = now
            .nodes
            .iter()
            .filter(|(name, node)| self.nodes.get(*name) != Some(node));
        let topics = now
            .topics
            .iter()
            .filter(|(id, topic)| self.topics.get(id) != Some(topic));
        let removed = self.topics.keys().filter(|id| !now.topics.contains_key(id));
        Some(WatchClusterResponse {
            nodes: nodes.map(|(_, node)| node.clone()).collect(),
            topics: topics.map(|(_, topic)| topic.clone()).collect(),
            removed_topic_ids: removed.copied().collect(),
            ..Default::default()
        })
    }

    fn in_full(&self) -> WatchClusterResponse {
        WatchClusterResponse {
            full: true,
            nodes: self.nodes.values().cloned().collect(),
            topics: self.topics.values().cloned().collect(),
            ..Default::default()
        }
    }
}

/// What a client may see, for as long as it may look at the cluster. Ends when the node stops, after saying that it drains.
pub(super) fn watch(context: Arc<Context>, principal: Principal) -> impl Stream<Item = WatchClusterResponse> + Send {
    let watcher = Watcher {
        principal,
        seen: None,
        applied: context.host.progress(),
        changes: context.registry.changes(),
        nodes: context.leaders.nodes(),
        connections: context.leaders.connections(),
        tellings: context.leaders.tellings(),
        told_draining: false,
        context,
    };
    stream::unfold(watcher, |mut watcher| async {
        let response = watcher.next().await?;
        Some((response, watcher))
    })
}

struct Watcher {
    context: Arc<Context>,
    principal: Principal,
    /// What the caller has been told; None before the first response.
    seen: Option<View>,
    applied: watch::Receiver<Progress>,
    changes: watch::Receiver<u64>,
    nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
    connections: watch::Receiver<u64>,
    tellings: watch::Receiver<u64>,
    told_draining: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<WatchClusterResponse> {
        loop {
            self.applied.mark_unchanged();
            self.changes.mark_unchanged();
            self.nodes.mark_unchanged();
            self.connections.mark_unchanged();
            self.tellings.mark_unchanged();
            let authority = &self.context.authority;
            if authority
                .check(&self.principal, Action::Describe, &Resource::Cluster)
                .is_err()
            {
                // Told so, and the audit too, by the grounds of its stream, which end it; unless it is allowed again by then.
                tokio::select! {
                    () = self.context.stopping.cancelled() => return None,
                    changed = self.applied.changed() => changed.ok()?,
                }
                continue;
            }
            let tenant = self.principal.tenant()?;
            let now = cluster::view(&self.context, &self.principal, tenant);
            let response = match self.seen.replace(now.clone()) {
                None => Some(now.in_full()),
                Some(seen) => seen.changes_to(&now),
            };
            if let Some(response) = response {
                return Some(self.signed(response));
            }
            if !self.wait().await {
                return None;
            }
            if self.context.draining.is_cancelled() && !self.told_draining {
                self.told_draining = true;
                let draining = WatchClusterResponse {
                    draining: true,
                    ..Default::default()
                };
                return Some(self.signed(draining));
            }
        }
    }

    fn signed(&self, response: WatchClusterResponse) -> WatchClusterResponse {
        WatchClusterResponse {
            cluster_id: self.context.cluster_id(),
            ..response
        }
    }

    /// Waits for any change; false at the end.
    async fn wait(&mut self) -> bool {
        let context = self.context.clone();
        let told_draining = self.told_draining;
        let goes_on = tokio::select! {
            biased;
            // Before the end, for the two may come together.
            () = context.draining.cancelled(), if !told_draining => return true,
            () = context.stopping.cancelled() => false,
            changed = self.applied.changed() => changed.is_ok(),
            changed = self.changes.changed() => changed.is_ok(),
            changed = self.nodes.changed() => changed.is_ok(),
            changed = self.connections.changed() => changed.is_ok(),
            changed = self.tellings.changed() => changed.is_ok(),
        };
        if goes_on {
            sleep(GATHER).await;
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn view(nodes: &[(&str, bool)], topics: &[(u64, u32)]) -> View {
        let node = |(name, alive): &(&str, bool)| {
            let node = Node {
                name: (*name).to_owned(),
                alive: *alive,
                ..Default::default()
            };
            (node.name.clone(), node)
        };
        let topic = |(topic_id, replication): &(u64, u32)| {
            let topic = Topic {
                topic_id: *topic_id,
                replication: *replication,
                ..Default::default()
            };
            (*topic_id, topic)
        };
        View {
            nodes: nodes.iter().map(node).collect(),
            topics: topics.iter().map(topic).collect(),
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let before = view(&[("a", true), ("b", true)], &[(1, 3), (2, 3)]);
        let after = view(&[("a", true), ("b", false), ("c", true)], &[(2, 1), (4, 3)]);
        let told = before.changes_to(&after).unwrap();
        assert!(!told.full);
        let names: Vec<_> = told.nodes.iter().map(|node| node.name.as_str()).collect();
        let ids: Vec<_> = told.topics.iter().map(|topic| topic.topic_id).collect();
        assert_eq!(
            (names, ids, told.removed_topic_ids),
            (vec!["b", "c"], vec![2, 4], vec![1])
        );
        assert_eq!(after.changes_to(&after), None);
    }

    #[test]
    fn a_node_that_is_gone_is_told_in_full() {
        let before = view(&[("a", true), ("b", true)], &[(1, 3)]);
        let after = view(&[("a", true)], &[(1, 3)]);
        let told = before.changes_to(&after).unwrap();
        assert!(told.full && told.nodes.len() == 1 && told.topics.len() == 1);
    }
}
