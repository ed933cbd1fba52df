//! What a replica has, for an operator who considers to have its partition go on from it alone.
//!
//! A partition whose majority is gone for good is recovered in three places: an operator asks (`services::recover`), the catalog
//! declares all its replicas dead and gives the survivor's place to a new id that continues it, and that one's node makes it
//! so (`replicas::take_over`). Here is what is asked before, and again until the new one leads.

use serde::{Deserialize, Serialize};

use highwater_partition::log::GroupId;

use crate::replicas::Registry;

/// What a node's replica of a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) replica: u64,
    pub(crate) leads: bool,
    /// It hears from no leader; or it leads, and hears no majority.
    pub(crate) is_forsaken: bool,
    pub(crate) log_start: u64,
    /// What it knows to be committed.
    pub(crate) high_watermark: u64,
    /// What it would go on with.
    pub(crate) log_end: u64,
    /// When its last entry was appended, by the clock of the leader then; 0: unknown.
    pub(crate) last_append_ms: u64,
    /// Entries that its last leader had committed and that it does not have.
    pub(crate) entries_missing: u64,
    /// Records of it are damaged, and nobody else could put them right.
    pub(crate) is_damaged: bool,
}

/// What this node's replica of a group has.
pub(crate) async fn standing(registry: &Registry, group: u64) -> Result<Standing, String> {
    match registry.hosted(GroupId(group)) {
        Some(hosted) => Ok(hosted.standing().await),
        None => Err("its replica there does not run; the node's log says why".to_owned()),
    }
}
