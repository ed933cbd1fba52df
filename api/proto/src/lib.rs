//! The wire contract of Highwater: the services of `highwater/v1`, their limits, and error details.
//!
//! Others depend on this crate, and so does every stub in another language on the `.proto` files beside it;
//! nothing in it may change its meaning. It holds no logic but what the contract asks of everyone alike, encoding and the
//! partitions of keys, and knows no other crate of ours.
//!
//! Deliberately absent: the peer protocol (private to the nodes) and the formats on disk (`internal/log`).

pub mod batches;
pub mod codec;
pub mod detail;
pub mod keys;
pub mod limits;
pub mod trace;

/// The generated messages, clients and servers of `highwater/v1`.
///
/// Fields of type `RecordBatch` are [`bytes::Bytes`] here: the encoded batch, which is passed on as it is.
#[allow(missing_docs, clippy::all, unreachable_pub)] // Generated; the documentation is in the .proto files.
pub mod v1 {
    tonic::include_proto!("highwater.v1");
}

/// The descriptor set of the public contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/highwater_descriptor.bin"));
