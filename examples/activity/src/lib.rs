//! Example: a feed of what deployments do, without duplicates, followed live.
//!
//! ```text
//! activity-cli ─ gRPC ─► Feed ─ decide, append at exactly the end ─► topic `activity`, 3 partitions, key = deployment
//! browser ─ events ────► Feed ◄─ Index: (deployment, id) → position ◄─ read by each server from the beginning
//! ```
//!
//! * [`event`]: what an event is, what is allowed of it, and how it is stored.
//! * [`index`]: which ids are there, and the newest messages: the state that the log makes.
//! * [`feed`]: adding, getting, listing and following, for the two ways in, which are [`grpc`] and [`web`].
//! * [`server`] puts them together; [`cli`] is the other side.
//!
//! Deliberately absent: changing and removing events; a log-in (whoever reaches the ports may post and read).

pub mod access;
mod archive;
pub mod cli;
pub mod event;
pub mod feed;
pub mod grpc;
pub mod index;
pub mod limits;
pub mod server;
pub mod web;

/// The generated messages, client and server of `proto/activity.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)] // Generated; the documentation is in the .proto file.
pub mod v1 {
    tonic::include_proto!("highwater.examples.activity.v1");
}

/// The descriptor set of the contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/activity_descriptor.bin"));

/// The topic of all events.
pub const TOPIC: &str = "activity";

/// How many partitions it is made with. A topic that is there keeps its own number.
pub const PARTITIONS: u32 = 3;
