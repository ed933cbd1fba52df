//! Groups of three in one process: real logs on real files, the real codec, and a network in memory that can be cut.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod cluster;
mod conformance;
mod damage;
mod failover;
mod full_disk;
mod groups;
mod hand_over;
pub(crate) mod logs;
mod manifests;
mod membership;
mod network;
mod only_member;
mod promises;
mod recovery;
mod replication;
mod room;
mod shutdown;
mod strangers;
mod trims;
mod truncations;
mod unstarted;
