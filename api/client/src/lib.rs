//! The Highwater client library: resolver, picker, producer and consumer.

mod admin;
mod backoff;
mod calls;
mod client;
mod connect;
mod consumer;
mod error;
mod identity;
mod picker;
mod picture;
mod producer;
mod profile;
mod record;
mod resolver;
mod tls;

pub use admin::{Cluster, CreateTopic, Topics};
pub use client::{Client, ClientBuilder};
pub use consumer::{Consumer, ConsumerBuilder, Freshness, Position};
pub use error::{ConnectionProblem, Error, NodeFailure, Outcome, ProduceError, Reason, Refusal};
pub use highwater_proto as proto;
pub use picker::{DefaultPicker, Picker, Purpose};
pub use picture::{Leader, Picture, TopicRef};
pub use producer::{Delivered, Delivery, KeyHash, Partitioner, Producer, ProducerBuilder, TrySendError};
pub use profile::Profile;
pub use record::{ConsumedRecord, Header, Record};
pub use resolver::{News, Resolver, WatchResolver};
pub use tls::TlsFiles;
