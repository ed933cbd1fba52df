//! What should be done next: which replicas should move, who should lead, who should vote in the catalog.
//!
//! These are questions to the catalog, not commands: whoever leads the catalog group asks them and proposes what they
//! answer, and a proposal is checked again when it is applied. So they may use what only one node knows, a [`View`] of
//! the nodes and of the groups that have a leader; a wrong view costs work, never data. The same question to the same
//! state gets the same answer, on every node.
//!
//! The answers are small and are asked for again and again. Each step brings the cluster nearer to where nothing is left
//! to do, and none of them takes back another: what must go from a node goes first, then partitions spread over racks,
//! then nodes become even, and never at the cost of an earlier one.
//!
//! Deliberately absent: acting, waiting, and time. When a node is gone is decided by whoever asks.

mod evening;
mod layout;
mod leaders;
mod moves;
mod voters;

use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::command::Command;
use crate::levels::CHANGES_LEVEL;

/// The most partitions that change their replicas at the same time.
pub const MOVES_IN_FLIGHT_MAX: usize = 16;
/// The most new replicas of moves that one node makes at the same time.
pub const MOVES_TO_NODE_MAX: usize = 4;
/// The most preferred leaders that one plan changes.
pub const PREFERENCES_MAX: usize = 16;

/// What the planning node knows of the others. Nodes that are in neither set are away, or not ready: they keep what they
/// have and get nothing new. Whoever is gone is not usable, whatever is said.
#[derive(Debug, Clone, Default)]
pub struct View<'a> {
    /// Nodes that can take replicas and leaderships now: alive, ready, with room on their disks.
    pub usable: BTreeSet<&'a str>,
    /// Nodes that have been away for longer than the grace.
    pub gone: BTreeSet<&'a str>,
}

impl Catalog {
    /// The next [`Command::MoveReplica`]s and [`Command::PreferLeader`]s, the most urgent first; at most one for a group.
    ///
    /// `led` tells which groups have a leader now. Only those are changed: a group without a leader could not follow, and
    /// one that has no members yet must not be changed. At most [`MOVES_IN_FLIGHT_MAX`] of them change at a time, those
    /// counted that have former replicas still.
    ///
    /// 1. Replicas go from nodes that are gone, then from those that are leaving, to the best usable node that holds none
    ///    of the group. Where there is none, they stay.
    /// 2. Partitions that use fewer racks than they could use one more.
    /// 3. If [`Settings::balance`](crate::Settings::balance) is on and nothing of the above is due or under way: nodes
    ///    come to hold equally many replicas, as far as no partition uses fewer racks for it.
    /// 4. If it is on: nodes come to be the preferred leaders of equally many partitions, as far as their leader racks
    ///    allow. Preferred leaders on nodes that are drained or not usable stay as they are.
    pub fn plan_moves(&self, view: &View, led: impl Fn(u64) -> bool) -> Vec<Command> {
        if self.feature_level() < CHANGES_LEVEL {
            return Vec::new();
        }
        let mut plan = moves::Plan::new(layout::Layout::new(self, view, led));
        plan.leave_gone_nodes();
        plan.leave_leaving_nodes();
        plan.use_more_racks();
        if self.settings().balance {
            plan.even_out_replicas();
            plan.even_out_leaders();
        }
        plan.into_commands()
    }
}
