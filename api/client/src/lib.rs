//! The Highwater client library: send records to topics, read them back, and administer topics.
//!
//! ```no_run
//! use highwater::{Client, CreateTopic, Profile, Record};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::from_profile(&Profile::load("highwater-dev/profile.toml")?).await?;
//! client.topics().create("greetings", CreateTopic::default()).await?;
//!
//! let producer = client.producer("greetings").build().await?;
//! let delivery = producer.send(Record::keyed("alice", "hello")).await?;
//! let delivered = delivery.await?; // It is on the disks of a majority now.
//! println!("partition {}, offset {}", delivered.partition, delivered.offset);
//!
//! let mut consumer = client.consumer("greetings", delivered.partition).build().await?;
//! if let Some(record) = consumer.next_record().await {
//!     println!("{:?}", record?.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A [`Client`] holds one HTTP/2 connection to each node it needs, always with mutual TLS: it shows its own certificate,
//! and accepts as server any node of its cluster, wherever that runs. A [`Resolver`] keeps the [`Picture`] of the cluster:
//! nodes, topics, leaders. A [`Picker`] chooses a node for each call: the leader for writes, a follower for reads, any
//! node for the rest. A leader that moves is followed, by push or by hint, and is never an error to the user.
//!
//! # What it promises
//!
//! * A delivery that resolves to success means: the record is on the disks of a majority, at that offset.
//! * Records of one partition are stored in the order in which they were sent.
//! * A retry never stores a record twice. Every producer is idempotent; there is no other mode.
//! * An error of a write says what became of it: *not applied* or *unknown* ([`ProduceError::outcome`]). "Not applied" is
//!   said only if it is certain.
//! * A consumer gets every committed record once and in order, or an error that names the offsets it cannot get.
//!
//! Unknown outcomes remain when a deadline passes without an answer: the library then cannot know, and says so.
//!
//! # What is bounded
//!
//! Memory: the producer's buffer, the consumer's prefetch, a window per stream. Time: every operation has a deadline, every
//! batch has one, and a consumer has one for the time in which nobody serves it. The library retries within them.
//!
//! # What can be seen of it
//!
//! [`Metrics`] is told what happens, for counters. Spans of `tracing` at level debug tell what a client is at: `connect`, `call`,
//! `append_at` and `flush` for what a program waits for; `produce`, `consume` (one for each partition in use), `watch` and `dial` for the tasks
//! behind. No span is made per record. Warnings are for people: corrupt batches, and certificate files that cannot be used.
//!
//! # Cancellation
//!
//! Every future may be dropped. Each asynchronous function says whether that is as if it had not been called (*cancel safe*), or
//! may leave something done.
//!
//! # What is absent
//!
//! No global state, no thread of its own: everything runs on the tokio runtime that calls it. No transactions, in this version.

/// The README's program, so that it is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod access;
mod admin;
mod aside;
mod backoff;
mod calls;
mod claim;
mod client;
mod compression;
mod connect;
mod consumer;
mod deadline;
mod doubt;
mod error;
/// A way in for the fuzz targets (`tests/fuzz`).
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    use bytes::Bytes;

    use crate::consumer::decode;

    /// The records that a consumer finds in these bytes.
    pub fn records(bytes: &[u8]) -> Result<Vec<highwater_proto::v1::Record>, String> {
        let mut batch = Bytes::copy_from_slice(bytes);
        let mut records = Vec::new();
        while let Some(record) = decode::next_record(&mut batch)? {
            records.push(decode::record(record)?);
        }
        Ok(records)
    }
}
mod groups;
mod identity;
mod membership;
mod metrics;
mod operate;
mod picker;
mod picture;
mod producer;
mod profile;
mod record;
mod resolver;
mod tls;
mod trace;

pub use access::Access;
pub use admin::{Cluster, CreateTopic, Topics, UpdateTopic};
pub use client::{Client, ClientBuilder};
pub use compression::Compression;
pub use consumer::{ConsumedBatch, Consumer, ConsumerBuilder, Freshness, Position};
pub use error::{ConnectionProblem, Error, NodeFailure, Outcome, ProduceError, Reason, Refusal};
pub use groups::{GroupMember, GroupOffset, Groups};
/// The wire contract: messages, limits, error details.
pub use highwater_proto as proto;
pub use metrics::{BatchInfo, Metrics};
pub use operate::ChangeSettings;
pub use picker::{DefaultPicker, Picker, Purpose};
pub use picture::{Leader, Picture, TopicRef};
pub use producer::{Delivered, Delivery, KeyHash, Partitioner, Producer, ProducerBuilder, TrySendError};
pub use profile::Profile;
pub use record::{ConsumedRecord, Header, Record};
pub use resolver::{News, Resolver, WatchResolver};
pub use tls::TlsFiles;
pub use trace::TraceParent;
