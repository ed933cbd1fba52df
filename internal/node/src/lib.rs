//! One running server: everything of Highwater that has a socket.
//!
//! ```text
//!            ┌ port ── TLS, ALPN ┬─ h2 ────────────► services ── access ── Permit ──► replicas ──► partition, log
//!            │                   ├─ http/1.1 ──────► gateway ── services
//!  clients ──┤                   └─ highwater-peer ► link ─┬─ Raft messages ────────► replicas
//!  nodes   ──┘                                             ├─ node calls ───────────► founding, catalog, leaders
//!                                                          └─ gossip ───────────────► addresses, liveness
//!  catalog (a replica on every node) ── committed changes ──► controller ── makes and removes ──► replicas
//! ```
//!
//! * `admin`: liveness, readiness and metrics, on a listener of its own; `readiness`: what the second means.
//! * `console`: pages for people on that listener; [`attention`]: what needs attention, in words.
//! * [`identity`], [`tls`], [`port`], [`link`], [`gossip`]: who is at the other end, and how nodes talk.
//! * `data_dir`, `storage`: what must outlive the process, and the one disk writer.
//! * `founding`: how a cluster comes to be exactly once, and how a node finds its way into one.
//! * `catalog`, `controller`, `replicas`: the committed target, and making it come true here.
//! * `leaders`: who leads what and who may, told by each node to every other.
//! * `access`, `services`, `status`: who may do what, the gRPC services, and how problems look to a client.
//! * `audit`: what was done and what was refused, as records in a topic of the cluster's own.
//! * `gateway`: the same in JSON over HTTP.
//! * `coordinator`: which member of a consumer group should consume what.
//!
//! Invariants: nothing reaches a partition's records without a permit; nothing that can lose data is decided from
//! gossip; a failed write, a dead Raft core or a contradiction in what is recorded ends the node, loudly.
//!
//! Deliberately absent: reading configuration, signals and the process's end (the command line's business), and what a
//! record, an entry or a vote is (highwater-partition, highwater-log).

mod absences;
mod access;
mod admin;
pub mod attention;
mod audit;
mod batch;
mod catalog;
mod catalog_members;
mod clock;
#[cfg(test)]
mod cluster_tests;
pub mod config;
mod console;
mod controller;
mod coordinator;
mod data_dir;
mod dead_replicas;
mod describe;
mod error;
mod failures;
mod first_start;
mod founding;
mod gateway;
pub mod gossip;
mod groups;
mod hex;
pub mod identity;
mod leaders;
mod leadership;
pub mod link;
mod metrics;
mod node;
mod opening;
mod peer_calls;
mod peer_handler;
mod planner;
pub mod port;
mod quotas;
mod readiness;
mod record_file;
mod recoveries;
mod replicas;
mod retention;
mod services;
mod settings;
mod status;
mod storage;
#[cfg(test)]
mod test_ca;
#[cfg(test)]
mod test_node;
pub mod tls;
mod traces;
mod tuning;
mod unused_groups;

/// Ways in for the fuzz targets (`tests/fuzz`).
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::batch::fuzz::batch;
    pub use crate::gateway::fuzz::gateway;
    pub use crate::leaders::fuzz::leaders;
    pub use crate::link::fuzz::link;
}

pub use config::{Config, ConfigError, TlsConfig};
pub use data_dir::DataDirError;
pub use error::{Failure, StartError};
pub use node::{Node, NodeHandle};
pub use replicas::ReplicaError;
