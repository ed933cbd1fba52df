//! This node's copy of the catalog, and the way to its leader.
//!
//! Every node runs a replica of the catalog group, as a voter or a learner, so every node answers questions about topics
//! and placement from its own memory. Changes go to the leader: proposed here if this node leads, otherwise handed over
//! the peer link, one hop.
//!
//! Deliberately absent: what the commands mean (highwater-catalog), and what follows from them (the controller).

mod addresses;
mod client;
mod currency;
mod host;
mod in_force;
mod members;

use highwater_catalog::Replica;
use highwater_partition::Member;
use highwater_partition::log::ReplicaId;

pub(crate) use addresses::keep_addresses;
pub(crate) use client::{CatalogClient, Readable, propose_here};
pub(crate) use currency::{Currency, STALE_AFTER};
pub(crate) use host::{CatalogHost, Progress};
pub(crate) use in_force::InForce;

/// A replica that the catalog has placed, as its group knows it.
pub(crate) fn member(replica: &Replica) -> Member {
    Member {
        replica_id: ReplicaId(replica.replica_id),
        node: replica.node.clone(),
    }
}
