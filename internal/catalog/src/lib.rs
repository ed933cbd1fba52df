//! The catalog: which nodes belong to the cluster, which topics exist, and which node holds which replica.
//!
//! The catalog is a pure state machine. It is fed the committed [`Command`]s of one Raft group (the catalog group,
//! group id 0) in log order and answers each with a [`Reply`]. Every node keeps the same commands, so every node
//! computes the same state: [`Catalog::apply`] sees no clock, no randomness, no network and no unordered map.
//!
//! * [`Catalog`] is the state, with its invariants; [`Catalog::encode`] and [`Catalog::decode`] are its checkpoint.
//! * [`Command`], [`Reply`] and [`Refusal`] are what goes in and comes out, with their stored form.
//! * [`names`] is the one validator of names of topics, tenants, nodes, clients and clusters.
//! * [`Access`] holds tenants, rules and grants: who may do what.
//! * [`levels`] is the table of what builds of different age can read.
//! * [`limits`] holds every bound and default; [`Settings`] is what an operator chooses for the whole cluster.
//! * [`planning`] says what should be done next: moves of replicas, preferred leaders, voters of the catalog.
//!
//! What an older build could not read has a feature level above 1: such commands are refused, and none of it is stored,
//! before the catalog itself has that level ([`Catalog::feature_level`]), to which whoever leads it raises it once every
//! node runs a build that supports it.
//!
//! What the catalog holds is the *target*. The membership of a Raft group is the truth about that group, and whoever
//! drives the one towards the other lives elsewhere, as do liveness, leadership and everything with a socket.
//! Deliberately absent: a way to read or write it other than through the log, and any decision that depends on when
//! or where it is computed.

mod access;
mod catalog;
mod checkpoint;
mod checks;
mod codec;
mod command;
mod index;
pub mod levels;
pub mod limits;
mod model;
mod moves;
pub mod names;
mod nodes;
mod placement;
pub mod planning;
mod reading;
mod recovery;
mod replacement;
mod reply;
mod resizing;
mod settings;
#[cfg(test)]
mod tests;
mod tombstones;
mod topics;

pub use access::{
    Access, CLUSTER_DOMAIN, Domain, EACH_CLIENT, Effect, Grant, Limit, OPERATOR_ROLE, PolicyChange, Proposer, Quota,
    QuotaChange, Resource, Rule, Tenant, covers,
};
pub use catalog::Catalog;
pub use codec::Error;
pub use command::{CatalogReplica, Command, FoundingNode, StartedReplica};
pub use levels::FEATURE_LEVEL;
pub use model::{CATALOG_GROUP_ID, Incarnation, LeftOn, Node, Partition, PastLife, Placement, Replica, Topic};
pub use reply::{Refusal, Reply};
pub use settings::Settings;
