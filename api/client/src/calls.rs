//! Calls with an answer: choosing a node, trying again elsewhere, giving up at the deadline.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::limits::MESSAGE_BYTES_MAX;
use highwater_proto::v1;
use highwater_proto::v1::cluster_service_client::ClusterServiceClient;
use highwater_proto::v1::log_service_client::LogServiceClient;
use highwater_proto::v1::topic_service_client::TopicServiceClient;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::aside::Aside;
use crate::backoff::Backoff;
use crate::connect::{Connection, Connections, call_error, has_timed_out};
use crate::deadline::{Deadline, LONGEST};
use crate::error::{ConnectionProblem, Error, NodeFailure, Reason};
use crate::metrics::Metrics;
use crate::picker::{Picker, Purpose};
use crate::picture::TopicRef;
use crate::resolver::{News, Resolver};

/// How many nodes that failed just now are avoided at most; older ones get another chance.
const AVOIDED_MAX: usize = 8;

/// What every call needs: connections, the picture, and the choice.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) connections: Arc<Connections>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) picker: Arc<dyn Picker>,
    /// Nodes and replicas that have not served well lately.
    pub(crate) aside: Aside,
    /// Our own tenant; empty if our certificate is a node's.
    pub(crate) tenant: String,
    pub(crate) metrics: Arc<dyn Metrics>,
}

/// A node chosen for a call.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) node: String,
    pub(crate) address: String,
}

impl From<&v1::Node> for Target {
    fn from(node: &v1::Node) -> Target {
        Target {
            node: node.name.clone(),
            address: node.address.clone(),
        }
    }
}

impl Caller {
    /// Chooses a node.
    pub(crate) fn pick(&self, purpose: Purpose<'_>, avoid: &[String]) -> Result<Target, Error> {
        let picture = self.resolver.picture();
        let node = self.picker.pick(&picture, purpose, avoid);
        node.map(Target::from)
            .ok_or(Error::NoNodeReachable { failures: Vec::new() })
    }

    /// Chooses a node: rather one that is not set aside, if there is a choice.
    pub(crate) fn pick_around(&self, purpose: Purpose<'_>, avoid: &[String]) -> Result<Target, Error> {
        let now = Instant::now();
        let aside = match purpose {
            Purpose::Write { .. } => return self.pick(purpose, avoid),
            Purpose::Read { topic, partition } => self.aside.for_readers(topic.topic_id, partition, now),
            Purpose::Admin => self.aside.nodes(now),
        };
        let both: Vec<String> = avoid.iter().cloned().chain(aside).collect();
        let target = self.pick(purpose, &both)?;
        match both.contains(&target.node) {
            // All are to be avoided; those that have failed just now come last.
            true => self.pick(purpose, avoid),
            false => Ok(target),
        }
    }

    /// A node that readers of a partition should move to although `current` serves them, if there is one.
    pub(crate) fn pick_better(&self, topic: &TopicRef, partition: u32, current: &str) -> Option<Target> {
        let mut avoid = self.aside.for_readers(topic.topic_id, partition, Instant::now());
        // It serves, whatever others have met there.
        avoid.retain(|node| node != current);
        let picture = self.resolver.picture();
        let purpose = Purpose::Read { topic, partition };
        let better = self.picker.pick_better(&picture, purpose, &avoid, current)?;
        let is_other = better.name != current && !avoid.contains(&better.name);
        is_other.then(|| Target::from(better))
    }

    /// Notes that a reader leaves a node, and why.
    pub(crate) fn reader_left(&self, topic: &TopicRef, partition: u32, node: &str, error: &Error) {
        self.metrics.reader_left(&self.wire_name(topic), partition, node, error);
        if !node.is_empty() {
            self.failed_reader(topic, partition, node, error);
        }
    }

    /// Notes that a node does not serve a reader, and why.
    pub(crate) fn failed_reader(&self, topic: &TopicRef, partition: u32, node: &str, error: &Error) {
        match error.reason() {
            // Says nothing of the node, or of whoever else reads from it.
            Some(Reason::CorruptBatch | Reason::QuotaExceeded) => {}
            Some(Reason::ReplicaBehind | Reason::OffsetOutOfRange) => self.set_replica_aside(topic, partition, node),
            _ => self.set_node_aside(node),
        }
    }

    fn set_replica_aside(&self, topic: &TopicRef, partition: u32, node: &str) {
        let now = Instant::now();
        let Some(length) = self.aside.put_replica(topic.topic_id, partition, node, now) else {
            return;
        };
        let name = self.wire_name(topic);
        self.metrics.replica_set_aside(&name, partition, node, length);
        if self.aside.is_behind(node, now) {
            self.set_node_aside(node);
        }
    }

    fn set_node_aside(&self, node: &str) {
        if let Some(length) = self.aside.put_node(node, Instant::now()) {
            self.metrics.node_set_aside(node, length);
        }
    }

    /// Makes a call until it succeeds, cannot succeed, or its deadline comes. `call` is given a channel and a request
    /// maker that sets the time left, and must be safe to repeat.
    #[tracing::instrument(level = "debug", name = "call", skip_all, fields(action))]
    pub(crate) async fn call<T, F>(
        &self,
        action: &str,
        purpose: Purpose<'_>,
        deadline: Deadline,
        call: impl Fn(Channel, Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = Attempts::new(action, deadline);
        loop {
            let target = self.pick_around(purpose, &attempts.avoid)?;
            let error = match self.connection(&target) {
                Ok(connection) => {
                    let answer = call(connection.channel.clone(), deadline.left());
                    match timeout_at(deadline.at, answer).await {
                        Ok(Ok(response)) => return Ok(response.into_inner()),
                        Ok(Err(status)) if has_timed_out(&status) => return Err(attempts.give_up()),
                        Ok(Err(status)) => call_error(&target.node, &status),
                        Err(_) => return Err(attempts.give_up()),
                    }
                }
                Err(error) => error,
            };
            let news = self.learn_leader(purpose, &error);
            if matches!(error, Error::Connection(_)) {
                self.set_node_aside(&target.node);
            }
            let error = attempts.failed(&target.node, error, news)?;
            self.metrics.call_retried(&target.node, error);
            attempts.pause(news).await?;
        }
    }

    fn connection(&self, target: &Target) -> Result<Connection, Error> {
        let connection = self.connections.connection(&target.address);
        connection.map_err(|problem| connection_error(&target.node, problem))
    }

    /// Takes in the leader hint of an answer; says whether it was news.
    pub(crate) fn learn_leader(&self, purpose: Purpose<'_>, error: &Error) -> bool {
        let (Purpose::Write { topic, partition } | Purpose::Read { topic, partition }) = purpose else {
            return false;
        };
        let Error::Refused(refusal) = error else {
            return false;
        };
        let Some(hint) = &refusal.leader else {
            return false;
        };
        self.resolver.learn(News::Leader {
            topic: topic.clone(),
            partition,
            hint: hint.clone(),
        })
    }

    /// The topic that a name means now, as a node knows it; the picture stands in for a node that lags behind it.
    pub(crate) async fn look_up(&self, name: &str, deadline: Deadline) -> Result<v1::Topic, Error> {
        let found = self
            .call(
                &format!("look up topic {name}"),
                Purpose::Admin,
                deadline,
                |channel, time_left| {
                    let request = timed(v1::GetTopicRequest { topic: name.to_owned() }, time_left);
                    async move { topic_client(channel).get_topic(request).await }
                },
            )
            .await;
        match found {
            Ok(response) => {
                let topic = response.topic.ok_or_else(no_topic)?;
                self.resolver.learn(News::Topic(topic.clone()));
                Ok(topic)
            }
            Err(error) if error.reason() == Some(Reason::TopicNotFound) => {
                let (tenant, name) = name.split_once('/').unwrap_or((&self.tenant, name));
                let picture = self.resolver.picture();
                picture
                    .topic(tenant, name)
                    .map(|topic| v1::Topic::clone(topic))
                    .ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The offset of a position in a partition, as its leader confirms it.
    pub(crate) async fn list_offset(
        &self,
        topic: &TopicRef,
        partition: u32,
        position: v1::list_offsets_request::Position,
        deadline: Deadline,
    ) -> Result<u64, Error> {
        let purpose = Purpose::Write { topic, partition };
        let request = v1::ListOffsetsRequest {
            topic: self.wire_name(topic),
            topic_id: Some(topic.topic_id),
            partition,
            position: Some(position),
        };
        let action = format!("find an offset in {}/{partition}", topic.name);
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { log_client(channel).list_offsets(request).await }
        };
        let response = self.call(&action, purpose, deadline, call).await?;
        Ok(response.offset)
    }

    /// Whether a node's "not found" only means that it does not know yet what others know.
    pub(crate) fn is_lagging(&self, topic: &TopicRef, partition: u32, reason: Reason) -> bool {
        matches!(reason, Reason::TopicNotFound | Reason::PartitionNotFound)
            && self.resolver.picture().partition(topic, partition).is_some()
    }

    /// The name of a topic in requests: with its tenant if that is not ours.
    pub(crate) fn wire_name(&self, topic: &TopicRef) -> String {
        if topic.tenant.is_empty() || topic.tenant == self.tenant {
            topic.name.clone()
        } else {
            format!("{}/{}", topic.tenant, topic.name)
        }
    }
}

/// A request that tells the node how long its answer is waited for, and which trace it is part of.
pub(crate) fn timed<T>(message: T, time_left: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time_left.min(LONGEST));
    #[cfg(feature = "opentelemetry")]
    crate::trace::tell_current(request.metadata_mut());
    request
}

pub(crate) fn topic_client(channel: Channel) -> TopicServiceClient<Channel> {
    TopicServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn cluster_client(channel: Channel) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn log_client(channel: Channel) -> LogServiceClient<Channel> {
    LogServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// The attempts at one call so far.
struct Attempts<'a> {
    action: &'a str,
    deadline: Deadline,
    avoid: Vec<String>,
    backoff: Backoff,
    last: Option<Error>,
}

impl<'a> Attempts<'a> {
    fn new(action: &'a str, deadline: Deadline) -> Self {
        Self {
            action,
            deadline,
            avoid: Vec::new(),
            backoff: Backoff::new(),
            last: None,
        }
    }

    /// Notes a failure, or returns it if trying again is useless.
    ///
    /// One node whose certificate is at fault says nothing of the others, so that is final only when its turn comes again.
    fn failed(&mut self, node: &str, error: Error, news: bool) -> Result<&Error, Error> {
        let is_final = match &error {
            Error::Connection(failure) if failure.problem.is_certificate() => {
                self.avoid.iter().any(|avoided| avoided == node)
            }
            error => !error.is_retryable(),
        };
        if is_final {
            return Err(error);
        }
        tracing::debug!(action = self.action, node, %error, "trying again");
        if news {
            self.avoid.clear();
        }
        // A quota is the same at other nodes, and what would be done there may be only for this one.
        if error.reason() != Some(Reason::QuotaExceeded) {
            if self.avoid.len() == AVOIDED_MAX {
                self.avoid.remove(0);
            }
            self.avoid.push(node.to_owned());
        }
        Ok(self.last.insert(error))
    }

    /// Waits before the next attempt; not at all if a hint has just told whom to ask.
    async fn pause(&mut self, news: bool) -> Result<(), Error> {
        if news {
            return Ok(());
        }
        let retry_after = self.last.as_ref().and_then(Error::retry_after).unwrap_or_default();
        let pause = self.backoff.pause().max(retry_after);
        if Instant::now() + pause >= self.deadline.at {
            return Err(self.give_up());
        }
        sleep(pause).await;
        Ok(())
    }

    fn give_up(&mut self) -> Error {
        Error::Deadline {
            action: self.action.to_owned(),
            after: self.deadline.after,
            last: self.last.take().map(Box::new),
        }
    }
}

/// A connection problem of a node, as an error.
pub(crate) fn connection_error(node: &str, problem: ConnectionProblem) -> Error {
    Error::Connection(NodeFailure {
        node: node.to_owned(),
        problem,
    })
}

/// An answer that lacks what the contract says it holds.
pub(crate) fn no_topic() -> Error {
    connection_error(
        "the node",
        ConnectionProblem::Broken("its answer holds no topic".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::error::Refusal;

    #[test]
    fn a_node_where_a_quota_is_used_up_is_asked_again_and_others_are_avoided() {
        let mut attempts = Attempts::new("test", Deadline::after(Duration::from_secs(60)));
        let refused = |reason: Reason| {
            let detail = v1::ErrorDetail {
                reason: reason as i32,
                retry_after_ms: Some(700),
                ..v1::ErrorDetail::default()
            };
            Error::refused(Refusal::from_detail("n1", Code::Ok, detail))
        };
        assert!(attempts.failed("n1", refused(Reason::QuotaExceeded), false).is_ok());
        assert!(attempts.avoid.is_empty());
        let retry_after = attempts.last.as_ref().and_then(Error::retry_after);
        assert_eq!(retry_after, Some(Duration::from_millis(700)));
        assert!(attempts.failed("n1", refused(Reason::Overloaded), false).is_ok());
        assert_eq!(attempts.avoid, ["n1"]);
    }
}
