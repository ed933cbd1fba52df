//! The Highwater client library: resolver, picker, producer and consumer.

mod admin;
mod client;
mod consumer;
mod error;
mod picture;
mod producer;
mod profile;
mod record;

pub use admin::{Cluster, CreateTopic, Topics};
pub use client::{Client, ClientBuilder, TlsFiles};
pub use consumer::{Consumer, ConsumerBuilder, Freshness, Position};
pub use error::{ConnectionProblem, Error, NodeFailure, Outcome, ProduceError, Reason, Refusal};
pub use highwater_proto as proto;
pub use picture::{Leader, Picture, TopicRef};
pub use producer::{Delivered, Delivery, Producer, ProducerBuilder, TrySendError};
pub use profile::Profile;
pub use record::{ConsumedRecord, Header, Record};
