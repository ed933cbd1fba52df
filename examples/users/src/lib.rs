//! Example: users as a fold over a log, with services fed by their events.
//!
//! The topic `users` holds what has happened to users, and nothing else holds them: each server folds it into a state in its memory
//! ([`users`]), answers reads from that, and appends a new user only at the offset up to which its state goes ([`server`]). So two servers
//! that race for an e-mail address never both win, and no lock or leader is among them.
//!
//! From `users` follows the topic `user-added` ([`feed`]), exactly once though each server works at it. It feeds two services that know
//! nothing of the servers: [`months`] counts, and [`email`] welcomes.
//!
//! Invariants: an e-mail address belongs to one partition, which alone decides about it; partitions never become more or fewer. All that a
//! service has done can be seen where it has done it: the memory of a fold, the headers of `user-added`, the outbox itself.
//!
//! Deliberately absent: changing and deleting users, passwords, TLS and access control of this service (a proxy's work), and an index for
//! searching, which looks at every user.

pub mod access;
pub mod cli;
pub mod days;
pub mod email;
pub mod events;
pub mod feed;
pub mod months;
pub mod page;
pub mod rules;
pub mod samples;
pub mod serve;
pub mod server;
pub mod users;

/// The generated messages, clients and servers of `proto/*.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)] // Generated; the documentation is in the .proto files.
pub mod proto {
    tonic::include_proto!("highwater.examples.users.v1");

    /// The descriptor set, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/users_descriptor.bin"));
}
