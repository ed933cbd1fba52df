//! How far the other members are behind their leader.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::hand_over::matching;
use crate::partition::Partition;
use crate::types::{Member, member};

impl Partition {
    /// How many entries of this replica's log the others have not acknowledged yet: one member for each node, the newest there. Empty if
    /// this replica does not lead.
    pub fn lags(&self) -> Vec<(Member, u64)> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Vec::new();
        }
        let entries = |last_index: Option<u64>| last_index.map_or(0, |index| index + 1);
        let end = entries(metrics.last_log_index);
        let membership = metrics.membership_config.membership();
        let lags = membership.nodes().filter_map(|(id, _)| {
            let acknowledged = entries(matching(&metrics, *id).map(|last| last.index()));
            Some((member(membership, *id)?, end.saturating_sub(acknowledged)))
        });
        let mut lags = newest_of_each_node(lags.collect());
        // Only now: a dead replica on the leader's own node is not told of either.
        lags.retain(|(member, _)| member.replica_id.0 != metrics.id);
        lags
    }
}

/// While a dead replica is replaced on its own node, that node has two members. Ids only grow, so the larger one counts.
fn newest_of_each_node(mut lags: Vec<(Member, u64)>) -> Vec<(Member, u64)> {
    lags.sort_by(|(one, _), (other, _)| (&one.node, other.replica_id).cmp(&(&other.node, one.replica_id)));
    lags.dedup_by(|(older, _), (newest, _)| older.node == newest.node);
    lags
}

#[cfg(test)]
mod tests {
    use highwater_log::ReplicaId;

    use super::*;

    #[test]
    fn of_a_node_with_two_members_the_newest_counts() {
        let lag = |(id, node, entries): (u64, &str, u64)| {
            let member = Member {
                replica_id: ReplicaId(id),
                node: node.to_owned(),
            };
            (member, entries)
        };
        let lags = [(3, "b", 900), (12, "a", 7), (10, "b", 2), (11, "c", 0), (4, "c", 800)].map(lag);
        let newest = newest_of_each_node(Vec::from(lags));
        let expected = [(12, "a", 7), (10, "b", 2), (11, "c", 0)].map(lag);
        assert_eq!(newest, expected);
    }
}
