//! Administrative calls: topics and the cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use highwater_proto::v1;

use crate::{Error, Picture};

/// Calls about topics. Every call is retried on other nodes until the client's deadline.
#[derive(Debug, Clone)]
pub struct Topics {}

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTopic {
    /// How many partitions; 0: one.
    pub partitions: u32,
    /// How many replicas of each partition; 0: three, or as many as there are nodes.
    pub replication: u32,
    /// How long records are kept, milliseconds; 0: for ever; absent: the cluster's default.
    pub retention_ms: Option<u64>,
    /// How many bytes each partition keeps; 0 or absent: no bound.
    pub retention_bytes: Option<u64>,
}

impl Topics {
    /// The same calls with another deadline.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let _ = deadline;
        self
    }

    /// Creates a topic and waits until its partitions have leaders.
    ///
    /// If an attempt ended without an answer and the retry finds a topic that is just as wanted, that is success.
    ///
    /// # Errors
    /// Reasons `TOPIC_EXISTS`, `INVALID_ARGUMENT`, `NOT_ENOUGH_NODES`; [`Error::Deadline`].
    pub async fn create(&self, name: &str, topic: CreateTopic) -> Result<v1::Topic, Error> {
        let _ = (name, topic);
        todo!()
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::Deadline`].
    pub async fn get(&self, name: &str) -> Result<v1::Topic, Error> {
        let _ = name;
        todo!()
    }

    /// All topics of the client's tenant, by name.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn list(&self) -> Result<Vec<v1::Topic>, Error> {
        todo!()
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::Deadline`].
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let _ = name;
        todo!()
    }
}

/// Calls about the cluster.
#[derive(Debug, Clone)]
pub struct Cluster {}

impl Cluster {
    /// The same calls with another deadline.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let _ = deadline;
        self
    }

    /// Nodes and replicas, as one node sees them.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn describe(&self) -> Result<v1::DescribeClusterResponse, Error> {
        todo!()
    }

    /// The client's picture of nodes, topics and leaders: first the present one, then each that follows.
    /// A slow reader misses pictures in between, never the last.
    pub fn watch(&self) -> impl Stream<Item = Arc<Picture>> + Send + Unpin + use<> {
        futures::stream::empty()
    }
}
