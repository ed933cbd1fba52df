//! How far the other members are behind their leader.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::hand_over::matching;
use crate::partition::Partition;
use crate::types::{Member, member};

impl Partition {
    /// How many entries of this replica's log each other member has not acknowledged yet; empty if this replica does not lead.
    pub fn lags(&self) -> Vec<(Member, u64)> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Vec::new();
        }
        let entries = |last_index: Option<u64>| last_index.map_or(0, |index| index + 1);
        let end = entries(metrics.last_log_index);
        let membership = metrics.membership_config.membership();
        let others = membership.nodes().filter(|(id, _)| **id != metrics.id);
        let lags = others.filter_map(|(id, _)| {
            let acknowledged = entries(matching(&metrics, *id).map(|last| last.index()));
            Some((member(membership, *id)?, end.saturating_sub(acknowledged)))
        });
        lags.collect()
    }
}
