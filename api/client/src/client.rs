//! The client: one per process and identity. It owns the connections and the picture of the cluster; producers,
//! consumers and administrative calls share them.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::aside::Aside;
use crate::calls::Caller;
use crate::connect::Connections;
use crate::groups::Groups;
use crate::identity::is_name;
use crate::metrics::{Metrics, Silent};
use crate::picker::{DefaultPicker, Picker};
use crate::resolver::{Resolver, WatchResolver};
use crate::tls::{Credentials, TlsFiles};
use crate::{Cluster, ConsumerBuilder, Error, ProducerBuilder, Profile, Topics};

/// How long calls are tried unless the user says otherwise.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long `connect` looks for a node unless the user says otherwise.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The most seed addresses.
const SEEDS_MAX: usize = 64;

/// Settings of a [`Client`] that is not connected yet.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `connect` is called"]
pub struct ClientBuilder {
    seeds: Vec<String>,
    tls: Option<TlsFiles>,
    cluster_name: Option<String>,
    deadline: Duration,
    connect_deadline: Duration,
    resolver: Option<Arc<dyn Resolver>>,
    picker: Option<Arc<dyn Picker>>,
    rack: String,
    metrics: Arc<dyn Metrics>,
}

impl ClientBuilder {
    pub(crate) fn new() -> Self {
        Self {
            seeds: Vec::new(),
            tls: None,
            cluster_name: None,
            deadline: DEADLINE,
            connect_deadline: CONNECT_DEADLINE,
            resolver: None,
            picker: None,
            rack: String::new(),
            metrics: Arc::new(Silent),
        }
    }

    /// Addresses (`host:port`) where to look for the cluster; a name stands for all its addresses. One that answers suffices
    /// to find all nodes.
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// The certificate files. New connections are made with what they hold then, so they may be replaced at any time.
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// The name of the cluster; by default the one in our own certificate.
    pub fn cluster_name(mut self, name: impl Into<String>) -> Self {
        self.cluster_name = Some(name.into());
        self
    }

    /// How long an administrative call or a look-up is tried before it fails. Default 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long `connect` looks for a node before it fails. Default 5 s, never longer than the deadline.
    pub fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.connect_deadline = deadline;
        self
    }

    /// Another resolver; then seeds are not needed, and `connect` does not wait for a node. One that wraps the default one: see
    /// [`WatchResolver`].
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// The failure domain that this client stands in, as the nodes' `rack`: replicas there are read from first. Default:
    /// none. Without effect on another picker.
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.rack = rack.into();
        self
    }

    /// Another picker.
    pub fn picker(mut self, picker: Arc<dyn Picker>) -> Self {
        self.picker = Some(picker);
        self
    }

    /// Who is told what happens: see [`Metrics`]. Default: nobody.
    pub fn metrics(mut self, metrics: Arc<dyn Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Reads the certificates and finds the cluster.
    ///
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// [`Error::File`] for certificate files that cannot be used, [`Error::NoNodeReachable`] with the cause for each
    /// seed, [`Error::InvalidArgument`] for settings that cannot be.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn connect(self) -> Result<Client, Error> {
        let (credentials, connections) = self.connections()?;
        let resolver = match &self.resolver {
            Some(resolver) => resolver.clone(),
            None => Arc::new(self.watch(connections.clone()).await?),
        };
        let caller = Caller {
            connections,
            resolver,
            picker: self
                .picker
                .unwrap_or_else(|| Arc::new(DefaultPicker { rack: self.rack })),
            aside: Aside::default(),
            tenant: credentials.tenant().unwrap_or_default().to_owned(),
            metrics: self.metrics,
        };
        Ok(Client {
            caller: Arc::new(caller),
            deadline: self.deadline,
        })
    }

    /// Who the client is, and connections that show it.
    pub(crate) fn connections(&self) -> Result<(Arc<Credentials>, Arc<Connections>), Error> {
        let files = self
            .tls
            .clone()
            .ok_or_else(|| Error::invalid("tls", "certificate files are required"))?;
        if let Some(name) = self.cluster_name.as_deref().filter(|name| !is_name(name)) {
            return Err(Error::invalid("cluster_name", format!("{name:?} is not a name")));
        }
        let credentials = Credentials::load(files, self.cluster_name.as_deref(), self.metrics.clone())?;
        let connections = Connections::new(credentials.clone(), self.metrics.clone());
        Ok((credentials, Arc::new(connections)))
    }

    /// The default resolver, once it has found a node among the seeds.
    pub(crate) async fn watch(&self, connections: Arc<Connections>) -> Result<WatchResolver, Error> {
        check_seeds(&self.seeds)?;
        let patience = self.connect_deadline.min(self.deadline);
        WatchResolver::start(connections, self.seeds.clone(), patience).await
    }
}

fn check_seeds(seeds: &[String]) -> Result<(), Error> {
    if seeds.is_empty() {
        return Err(Error::invalid("seeds", "name at least one address"));
    }
    if seeds.len() > SEEDS_MAX {
        return Err(Error::invalid(
            "seeds",
            format!("{} addresses; at most {SEEDS_MAX}", seeds.len()),
        ));
    }
    Ok(())
}

/// A connection to a cluster. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Client {
    caller: Arc<Caller>,
    deadline: Duration,
}

impl Client {
    /// Starts the settings of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Connects with what a profile says.
    ///
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// See [`ClientBuilder::connect`].
    pub async fn from_profile(profile: &Profile) -> Result<Self, Error> {
        profile.builder().connect().await
    }

    /// The same client with another deadline, for instance what is left of one that connecting has used up in part.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Topics: create, get, list, delete.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(self.caller.clone(), self.deadline)
    }

    /// The cluster: describe, watch.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.caller.clone(), self.deadline)
    }

    /// Who may do what: the policy, and tenants.
    #[must_use]
    pub fn access(&self) -> Access {
        Access::new(self.caller.clone(), self.deadline)
    }

    /// Consumer groups: list, describe, reset, delete.
    pub fn groups(&self) -> Groups {
        Groups::new(self.caller.clone(), self.deadline)
    }

    /// Starts the settings of a producer for a topic (`topic`, or `tenant/topic` of another tenant).
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.caller.clone(), topic.into(), self.deadline)
    }

    /// Starts the settings of a consumer of one partition.
    pub fn consumer(&self, topic: impl Into<String>, partition: u32) -> ConsumerBuilder {
        ConsumerBuilder::new(self.caller.clone(), topic.into(), Some(partition), self.deadline)
    }

    /// Starts the settings of a consumer of all partitions of a topic.
    pub fn consume_topic(&self, topic: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.caller.clone(), topic.into(), None, self.deadline)
    }
}
