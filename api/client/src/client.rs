//! The client: one per process and identity.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Cluster, ConsumerBuilder, Error, ProducerBuilder, Profile, Topics};

/// The PEM files that say whom to trust and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that sign nodes.
    pub ca: PathBuf,
    /// Our certificate, followed by its chain if there is one.
    pub cert: PathBuf,
    /// The private key of our certificate.
    pub key: PathBuf,
}

/// Settings of a [`Client`] that is not connected yet.
#[derive(Debug, Clone)]
pub struct ClientBuilder {}

impl ClientBuilder {
    pub(crate) fn new() -> Self {
        Self {}
    }

    /// Addresses (`host:port`) where to look for the cluster. One that answers suffices to find all nodes.
    #[must_use]
    pub fn seeds<S: Into<String>>(self, seeds: impl IntoIterator<Item = S>) -> Self {
        let _ = seeds;
        self
    }

    /// The certificate files.
    #[must_use]
    pub fn tls(self, files: TlsFiles) -> Self {
        let _ = files;
        self
    }

    /// The name of the cluster; by default the one in our own certificate.
    #[must_use]
    pub fn cluster_name(self, name: impl Into<String>) -> Self {
        let _ = name.into();
        self
    }

    /// How long administrative calls and look-ups are tried before they fail. Default 30 s.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let _ = deadline;
        self
    }

    /// How long `connect` looks for a node before it fails. Default 5 s, never longer than the deadline.
    #[must_use]
    pub fn connect_deadline(self, deadline: Duration) -> Self {
        let _ = deadline;
        self
    }

    /// Reads the certificates and finds the cluster.
    ///
    /// # Errors
    /// [`Error::File`] for certificate files that cannot be used, [`Error::NoNodeReachable`] with the cause for each
    /// seed, [`Error::Refused`] if a node answered and refuses us.
    pub async fn connect(self) -> Result<Client, Error> {
        todo!()
    }
}

/// A connection to a cluster. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// Starts the settings of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Connects with what a profile says.
    ///
    /// # Errors
    /// See [`ClientBuilder::connect`].
    pub async fn from_profile(profile: &Profile) -> Result<Self, Error> {
        profile.builder().connect().await
    }

    /// Topics: create, get, list, delete.
    pub fn topics(&self) -> Topics {
        todo!()
    }

    /// The cluster: describe, watch.
    pub fn cluster(&self) -> Cluster {
        todo!()
    }

    /// Starts the settings of a producer for a topic (`topic`, or `tenant/topic` of another tenant).
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        let _ = topic.into();
        todo!()
    }

    /// Starts the settings of a consumer of one partition.
    pub fn consumer(&self, topic: impl Into<String>, partition: u32) -> ConsumerBuilder {
        let _ = (topic.into(), partition);
        todo!()
    }

    /// Starts the settings of a consumer of all partitions of a topic.
    pub fn consume_topic(&self, topic: impl Into<String>) -> ConsumerBuilder {
        let _ = topic.into();
        todo!()
    }
}
