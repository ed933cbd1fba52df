//! The gRPC services, and what they have in common: who calls, until when, and the way to a permitted partition.
//!
//! Every handler begins with the caller's [`Principal`], asks [`authorize`] and goes on with the permit. Every wait has
//! a deadline: the caller's `grpc-timeout` less a margin in which the answer can still travel, or [`DEADLINE_DEFAULT`].
//!
//! Deliberately absent: how problems look on the wire (`status`), and any state of partitions (`replicas`).

mod acts;
mod calls;
mod classes;
mod cluster;
mod connections;
mod deadline;
mod following;
mod groups;
mod health;
mod in_flight;
mod joining;
mod lanes;
mod leaving;
mod log;
mod metering;
mod operate;
mod overview;
mod policy;
mod produce;
mod produce_stream;
mod quotas;
mod records;
mod recover;
mod revocation;
mod server;
mod targets;
mod tenants;
mod topic;
mod turns;
mod watch_cluster;
mod way;

use std::sync::Arc;
use std::time::Duration;

use highwater_partition::log::{GroupId, PrincipalDigest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Request;

/// How long a call waits for a leader, of the catalog or of a partition that it is to change.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);
/// How soon it looks again.
const LEADER_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
pub(crate) use acts::ACTS;
pub(crate) use calls::span as span_of_call;
#[cfg(test)]
pub(crate) use classes::{Class, METHODS};
pub(crate) use connections::AgeMax;
pub(crate) use in_flight::InFlight;
pub(crate) use log::stored;
pub(crate) use metering::{pay_for_batch, pay_for_call, pay_for_read};
pub(crate) use overview::{NodeView, ReplicaView, overview};
pub(crate) use produce::produce;
pub(crate) use records::{Fetch, Start, fetch, partition_count};
pub(crate) use server::{ServerParts, serve};

use crate::access::{Action, Authority, Permit, Principal, Resource, TopicName};
use crate::audit::Audit;
use crate::catalog::{CatalogClient, CatalogHost, Currency};
use crate::coordinator::Coordinator;
use crate::data_dir::DataDir;
use crate::hex::Id;
use crate::leaders::Leaders;
use crate::link::Link;
use crate::port::Peer;
use crate::quotas::Quotas;
use crate::readiness::NotReady;
use crate::replicas::{Opened, Place, Registry};
use crate::status::{Problem, Refused};
use crate::storage::Storage;
use crate::traces::Traces;

/// What every service works with.
pub(crate) struct Context {
    pub(crate) node: String,
    pub(crate) cluster: String,
    pub(crate) data: Arc<DataDir>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) catalog: CatalogClient,
    /// Whether the policy known here is new enough to serve clients by it.
    pub(crate) currency: Arc<Currency>,
    pub(crate) leaders: Leaders,
    pub(crate) link: Link,
    pub(crate) storage: Arc<Storage>,
    /// Why this node is not ready; None if it is.
    pub(crate) not_ready: watch::Receiver<Option<NotReady>>,
    /// What else is to be known of this node, in words.
    pub(crate) notices: watch::Receiver<Vec<String>>,
    pub(crate) in_flight: InFlight,
    /// How much everybody uses, and may use.
    pub(crate) quotas: Arc<Quotas>,
    /// What clients were refused.
    pub(crate) refused: Arc<Refused>,
    pub(crate) traces: Traces,
    /// How old a client's connection may become.
    pub(crate) connection_age: AgeMax,
    /// The consumer groups that are coordinated here.
    pub(crate) coordinator: Coordinator,
    /// Who may do what.
    pub(crate) authority: Arc<Authority>,
    /// Is told what was done, and what was refused.
    pub(crate) audit: Audit,
    /// Clients are to go elsewhere.
    pub(crate) draining: CancellationToken,
    /// Streams are to end.
    pub(crate) stopping: CancellationToken,
}

impl Context {
    /// The cluster id as text; empty before it is known.
    pub(crate) fn cluster_id(&self) -> String {
        self.data
            .cluster_id()
            .map(|id| Id(id.0).to_string())
            .unwrap_or_default()
    }

    /// Opens the partition that the caller means, if it may do `action` to it.
    async fn open(
        &self,
        principal: &Principal,
        action: Action,
        wanted: &Wanted<'_>,
        deadline: Instant,
    ) -> Result<(Opened, PrincipalDigest), Problem> {
        // Again, for calls that try for long.
        self.currency.check()?;
        let permit = self.permit_topic(principal, action, wanted.topic)?;
        let mut place = self.place(&permit, action, wanted);
        if matches!(place, Err(Problem::TopicNotFound { .. } | Problem::TopicChanged { .. })) {
            // It may have been created on another node a moment ago.
            self.know_catalog(deadline).await?;
            place = self.place(&permit, action, wanted);
        }
        match place? {
            Place::Here(opened) => Ok((opened, permit.principal())),
            Place::Elsewhere { group_id, what } => Err(self.elsewhere(action, group_id, what)),
        }
    }

    /// Makes "there is no such topic" true: only a catalog that has caught up can tell.
    async fn know_catalog(&self, deadline: Instant) -> Result<(), Problem> {
        // A leadership that moves is over in milliseconds; without a leader for longer, another node is worth a try.
        let patience = deadline.min(Instant::now() + LEADER_PATIENCE);
        while !self.catalog.catch_up(deadline).await {
            if Instant::now() + LEADER_PAUSE >= patience {
                return Err(self.cut_off());
            }
            sleep(LEADER_PAUSE).await;
        }
        Ok(())
    }

    /// Whether a group has a leader that is followed, or gets one in a moment.
    async fn is_led(&self, group: GroupId, deadline: Instant) -> bool {
        let patience = deadline.min(Instant::now() + LEADER_PATIENCE);
        while !self.leaders.is_led(group).await {
            if Instant::now() + LEADER_PAUSE >= patience {
                return false;
            }
            sleep(LEADER_PAUSE).await;
        }
        true
    }

    fn cut_off(&self) -> Problem {
        Problem::Unavailable {
            why: format!(
                "node {} does not hear from the catalog's leader, so it cannot tell which topics exist",
                self.node
            ),
            hint: None,
        }
    }

    /// Nodes that new replicas are better not placed on, as they are not there. Older versions know no such thing.
    fn nodes_to_avoid(&self) -> Vec<String> {
        let members: Vec<String> = self.host.read(|catalog| match catalog.feature_level() {
            1 => Vec::new(),
            _ => catalog.members().map(|node| node.name.clone()).collect(),
        });
        let is_away = |node: &String| *node != self.node && !self.leaders.is_alive(node);
        members.into_iter().filter(is_away).collect()
    }

    fn place(&self, permit: &Permit, action: Action, wanted: &Wanted<'_>) -> Result<Place, Problem> {
        let Wanted {
            topic_id, partition, ..
        } = *wanted;
        self.host
            .read(|catalog| self.registry.open(permit, action, catalog, topic_id, partition))
    }

    fn elsewhere(&self, action: Action, group: GroupId, what: String) -> Problem {
        match self.leaders.hint(group) {
            Some(hint) if action == Action::Produce => Problem::NotLeader { what, hint },
            hint => Problem::Unavailable {
                why: format!("node {} holds no replica of {what}; ask one that does", self.node),
                hint,
            },
        }
    }
}

/// Which partition a caller means.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    topic: &'a str,
    topic_id: Option<u64>,
    partition: u32,
}

/// Who calls: the identity proven by the connection's certificate.
fn principal<T>(request: &Request<T>) -> Result<Principal, Problem> {
    Ok(Principal::of(caller(request)?))
}

/// The other end of the connection that a call came on.
fn caller<T>(request: &Request<T>) -> Result<&Arc<Peer>, Problem> {
    let peer = request.extensions().get::<Arc<Peer>>();
    peer.ok_or_else(|| Problem::Internal("a call without a proven caller".to_owned()))
}

impl Context {
    /// The permit for a topic as the caller writes it.
    fn permit_topic(&self, principal: &Principal, action: Action, topic: &str) -> Result<Permit, Problem> {
        let name = self.topic_name(principal, topic)?;
        Ok(self.authority.authorize(principal, action, Resource::Topic(name))?)
    }

    /// A topic as the caller writes it.
    fn topic_name(&self, principal: &Principal, topic: &str) -> Result<TopicName, Problem> {
        Ok(TopicName::parse(topic, self.own_tenant(principal)?)?)
    }

    /// The caller's tenant. A node has none, and is refused.
    fn own_tenant<'a>(&self, principal: &'a Principal) -> Result<&'a str, Problem> {
        self.authority
            .authorize(principal, Action::Describe, Resource::Cluster)?;
        principal
            .tenant()
            .ok_or_else(|| Problem::Denied(format!("{principal} has no tenant")))
    }

    /// Whether the caller may know of a topic.
    fn may_see(&self, principal: &Principal, tenant: &str, topic: &str) -> bool {
        let name = TopicName {
            tenant: tenant.to_owned(),
            topic: topic.to_owned(),
        };
        let asked = self
            .authority
            .check(principal, Action::Describe, &Resource::Topic(name));
        asked.is_ok()
    }
}
