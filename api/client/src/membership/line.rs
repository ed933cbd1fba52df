//! The stream to the group's coordinator: finding it, and speaking with it.

use std::time::Duration;

use highwater_proto::v1;
use highwater_proto::v1::join_group_request::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Route;
use crate::backoff::Backoff;
use crate::calls::{Target, connection_error};
use crate::claim::{HOME_PARTITION, group_client};
use crate::connect::{Lease, call_error};
use crate::error::{ConnectionProblem, Error, Reason};
use crate::picker::Purpose;

/// How many messages may wait to be sent; a line that takes none is broken.
const MESSAGES_MAX: usize = 16;
/// How many nodes that failed just now are avoided at most.
const AVOIDED_MAX: usize = 4;
/// How long the coordinator may take to close a line that was left.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A line to the coordinator.
pub(super) struct Line {
    pub(super) node: String,
    says: mpsc::Sender<v1::JoinGroupRequest>,
    hears: Streaming<v1::JoinGroupResponse>,
    _lease: Lease,
}

/// What the coordinator has said.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) version: u64,
    pub(super) partitions: Vec<u32>,
}

impl Line {
    /// Joins with what the member has: looks for the coordinator until it is found. An error is final.
    pub(super) async fn open(route: &Route, partitions: &[u32]) -> Result<(Box<Line>, Told), Error> {
        let (mut backoff, mut avoid) = (Backoff::new(), Vec::new());
        loop {
            let (node, error) = match route.caller.pick(purpose(route), &avoid) {
                Ok(target) => match Line::join(route, &target, partitions).await {
                    Ok((line, told)) => return Ok((Box::new(line), told)),
                    Err(error) => (target.node, error),
                },
                Err(error) => (String::new(), error),
            };
            if is_final(route, &error) {
                return Err(error);
            }
            tracing::debug!(node, %error, "looking for the coordinator elsewhere");
            if route.caller.learn_leader(purpose(route), &error) {
                avoid.clear();
                continue;
            }
            if avoid.len() == AVOIDED_MAX {
                avoid.remove(0);
            }
            avoid.push(node);
            sleep(backoff.pause()).await;
        }
    }

    async fn join(route: &Route, target: &Target, partitions: &[u32]) -> Result<(Line, Told), Error> {
        let lease = route.caller.connections.lease(&target.address);
        let lease = lease.map_err(|problem| connection_error(&target.node, problem))?;
        let (says, said) = mpsc::channel(MESSAGES_MAX);
        let join = v1::Join {
            topic: route.caller.wire_name(&route.topic),
            topic_id: Some(route.topic.topic_id),
            group: route.member.group.clone(),
            member: route.member.member.clone(),
            session_ms: milliseconds(route.session),
            release_ms: milliseconds(route.processing_deadline),
            partitions: partitions.to_vec(),
        };
        // There is room for the first.
        let _ = says.try_send(message(Message::Join(join)));
        let mut client = group_client(lease.connection.channel.clone());
        let opening = async {
            let opened = client.join_group(ReceiverStream::new(said)).await;
            let hears = opened.map_err(|status| call_error(&target.node, &status))?.into_inner();
            let mut line = Line {
                node: target.node.clone(),
                says,
                hears,
                _lease: lease,
            };
            let told = line.hear().await?;
            Ok((line, told))
        };
        let silence = || connection_error(&target.node, ConnectionProblem::Timeout(route.session));
        timeout(route.session, opening).await.unwrap_or_else(|_| Err(silence()))
    }

    /// What the coordinator says next. Cancel safe.
    pub(super) async fn hear(&mut self) -> Result<Told, Error> {
        match self.hears.message().await {
            Ok(Some(response)) => Ok(Told {
                version: response.version,
                partitions: response.partitions,
            }),
            Ok(None) => Err(self.broken("the node ended the stream")),
            Err(status) => Err(call_error(&self.node, &status)),
        }
    }

    /// Says what the member has. An error if the line is broken.
    pub(super) fn hold(&self, version: u64, partitions: Vec<u32>) -> Result<(), Error> {
        let holding = v1::Holding { version, partitions };
        let said = self.says.try_send(message(Message::Holding(holding)));
        said.map_err(|_| self.broken("the node takes no messages"))
    }

    fn broken(&self, why: &str) -> Error {
        connection_error(&self.node, ConnectionProblem::Broken(why.to_owned()))
    }

    /// Leaves the group, and waits for a moment until that is known.
    pub(super) async fn leave(mut self) {
        if self.says.try_send(message(Message::Leave(v1::Leave {}))).is_err() {
            return; // then the session's end has to tell
        }
        drop(self.says);
        let until = Instant::now() + GOODBYE_TIMEOUT;
        while let Ok(Ok(Some(_))) = tokio::time::timeout_at(until, self.hears.message()).await {}
    }
}

/// Calls go to the leader of the partition at which the group is coordinated.
pub(super) fn purpose(route: &Route) -> Purpose<'_> {
    Purpose::Write {
        topic: &route.topic,
        partition: HOME_PARTITION,
    }
}

/// The node that coordinates the group, as far as is known.
pub(super) fn coordinator(route: &Route) -> Option<String> {
    let picture = route.caller.resolver.picture();
    let leader = picture.leader(&route.topic, HOME_PARTITION);
    leader.map(|leader| leader.node.to_owned())
}

/// Whether joining, or staying, is useless.
pub(super) fn is_final(route: &Route, error: &Error) -> bool {
    match error.reason() {
        Some(Reason::SessionOver) => false,
        Some(reason) if route.caller.is_lagging(&route.topic, HOME_PARTITION, reason) => false,
        _ => !error.is_retryable(),
    }
}

fn message(message: Message) -> v1::JoinGroupRequest {
    v1::JoinGroupRequest { message: Some(message) }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
