//! One hop to the node that leads, over the peer link, and in from there.
//!
//! A message is a short JSON head, its length before it, and the body as the caller sent it. The receiving node does
//! with it what it does with a request of its own clients: it authorises, it checks everything anew, and it answers.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ::http::uri::PathAndQuery;
use ::http::{Method, StatusCode};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_partition::PeerError;
use highwater_proto::trace::TraceParent;
use highwater_proto::v1::Reason;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::answer::Answer;
use super::http::time_max;
use super::limits::{FORWARD_MARGIN, FORWARDED_MAX};
use super::{Call, Gateway, Hop};
use crate::access::Principal;
use crate::identity::Identity;
use crate::link::Refusal;
use crate::peer_calls::GATEWAY;
use crate::status::Problem;

/// Requests that other nodes carry out at the moment. Reads wait long, and must not take the places of appends.
pub(super) struct Forwards {
    appends: Semaphore,
    reads: Semaphore,
}

impl Default for Forwards {
    fn default() -> Self {
        Forwards {
            appends: Semaphore::new(FORWARDED_MAX),
            reads: Semaphore::new(FORWARDED_MAX),
        }
    }
}

impl Forwards {
    fn place(&self, is_read: bool) -> Result<SemaphorePermit<'_>, Problem> {
        let (places, what) = match is_read {
            true => (&self.reads, "reads"),
            false => (&self.appends, "appends"),
        };
        let why = || format!("{FORWARDED_MAX} {what}, as many as may, wait for other nodes already");
        places.try_acquire().map_err(|_| Problem::Overloaded(why()))
    }
}

/// The head of a request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RequestHead {
    identity: String,
    method: String,
    target: String,
    time_left_ms: u64,
    partition: Option<u32>,
    /// What it is a part of, as `traceparent` has it. Older versions do not say.
    trace: Option<String>,
}

/// The head of an answer.
#[derive(Debug, Serialize, Deserialize)]
struct AnswerHead {
    status: u16,
    retry_after_s: Option<u64>,
    lacks_leader: bool,
    /// Why it was refused, by its number. Older versions do not say.
    reason: Option<i32>,
}

impl Gateway {
    /// What to answer if `problem` is what came of it here: what the node says that knows better, if there is one.
    /// `partition`: the one that was chosen here.
    pub(super) async fn elsewhere(&self, call: &Call, partition: Option<u32>, problem: Problem) -> Answer {
        let node = problem.led_by().map(|leader| leader.node.clone());
        match node.filter(|node| *node != self.context.node) {
            Some(node) if call.hop == Hop::FromClient => {
                let forwarded = self.forward(call, &node, partition, problem).await;
                forwarded.unwrap_or_else(Answer::from)
            }
            _ => problem.into(),
        }
    }

    async fn forward(
        &self,
        call: &Call,
        node: &str,
        partition: Option<u32>,
        problem: Problem,
    ) -> Result<Answer, Problem> {
        let is_read = call.method == Method::GET;
        let _place = self.forwards.place(is_read)?;
        let send_by = if is_read { call.deadline } else { call.begin_by() };
        if !is_read && Instant::now() + FORWARD_MARGIN > send_by {
            let why = format!("no time is left to ask {node}, which leads");
            return Err(Problem::Overloaded(why));
        }
        let message = message(&head(call, partition), call.body.clone()).map_err(Problem::Internal)?;
        let link = &self.context.link;
        let asked = link.call_node_in_bulk(node, GATEWAY, message, send_by, call.deadline);
        let answer = tokio::select! {
            answer = asked => answer,
            // An append is waited for: whoever stops the node gives it a moment.
            () = self.context.stopping.cancelled(), if is_read => return Err(problem),
        };
        match answer {
            Ok(answer) if is_read => {
                let answer = read_answer(answer)?;
                let body = self.buffers.hold(&call.principal, answer.body)?;
                Ok(Answer { body, ..answer })
            }
            Ok(answer) => read_answer(answer),
            // Nothing is lost by a read, whatever became of it.
            Err(_) if is_read => Err(problem),
            Err(error) => Err(unanswered(error, problem)),
        }
    }

    /// A request that another node has forwarded.
    fn received(&self, message: Bytes) -> Result<Call, String> {
        let (head, body): (RequestHead, Bytes) = split(message)?;
        let identity = Identity::from_uri(&head.identity).map_err(|error| error.to_string())?;
        if identity.cluster() != self.context.cluster || identity.node_name().is_some() {
            return Err(format!("{identity} is no client of this cluster"));
        }
        let method = Method::from_bytes(head.method.as_bytes()).map_err(|error| error.to_string())?;
        let target = PathAndQuery::try_from(head.target).map_err(|error| error.to_string())?;
        let time = Duration::from_millis(head.time_left_ms).min(time_max(&method));
        Ok(Call {
            principal: Principal::new(&identity),
            method,
            target,
            body,
            deadline: Instant::now() + time,
            hop: Hop::FromNode {
                partition: head.partition,
            },
            trace: head.trace.and_then(|trace| TraceParent::parse(trace.as_bytes())),
        })
    }
}

fn head(call: &Call, partition: Option<u32>) -> RequestHead {
    let time_left = call.deadline.saturating_duration_since(Instant::now());
    RequestHead {
        identity: call.principal.to_string(),
        method: call.method.to_string(),
        target: call.target.to_string(),
        time_left_ms: time_left.saturating_sub(FORWARD_MARGIN).as_millis() as u64,
        partition,
        trace: call.trace.map(|trace| trace.to_string()),
    }
}

/// What is known of an append that another node did not answer: `problem`, as before, if it certainly did nothing.
fn unanswered(error: PeerError, problem: Problem) -> Problem {
    match error {
        PeerError::Unreachable { .. } | PeerError::Refused { begun: false, .. } => problem,
        PeerError::NoAnswer { .. } | PeerError::Refused { begun: true, .. } => Problem::Unknown(error.to_string()),
    }
}

fn read_answer(message: Bytes) -> Result<Answer, Problem> {
    let unreadable = |why: String| Problem::Unknown(format!("another node's answer cannot be read: {why}"));
    let (head, body): (AnswerHead, Bytes) = split(message).map_err(unreadable)?;
    let status = StatusCode::from_u16(head.status).map_err(|error| unreadable(error.to_string()))?;
    let refused = status.is_client_error() || status.is_server_error();
    let reason = head.reason.and_then(|reason| Reason::try_from(reason).ok());
    Ok(Answer {
        status,
        body,
        retry_after_s: head.retry_after_s,
        allow: None,
        lacks_leader: head.lacks_leader,
        reason: refused.then(|| reason.unwrap_or_default()),
    })
}

/// Where forwarded requests come in. It is there before the gateway is, and does not keep it.
#[derive(Clone, Default)]
pub(crate) struct Entrance {
    gateway: Arc<OnceLock<Weak<Gateway>>>,
}

impl Entrance {
    /// Lets requests in from now on, as long as the gateway is there.
    pub(crate) fn open(&self, gateway: &Arc<Gateway>) {
        // A node has one gateway; were there another, the first would stay.
        let _ = self.gateway.set(Arc::downgrade(gateway));
    }

    /// Carries out what another node has forwarded.
    pub(crate) async fn take(&self, message: Bytes) -> Result<Vec<Bytes>, Refusal> {
        let Some(gateway) = self.gateway.get().and_then(Weak::upgrade) else {
            let why = "the node that leads is starting or stopping".to_owned();
            return answered(Problem::Unavailable { why, hint: None }.into());
        };
        let call = gateway.received(message).map_err(Refusal::NotBegun)?;
        match gateway.buffers.take(&call.principal, call.body.len()) {
            Ok(_share) => answered(gateway.answer(&call).await),
            Err(problem) => answered(problem.into()),
        }
    }
}

fn answered(answer: Answer) -> Result<Vec<Bytes>, Refusal> {
    let head = AnswerHead {
        status: answer.status.as_u16(),
        retry_after_s: answer.retry_after_s,
        lacks_leader: answer.lacks_leader,
        reason: answer.reason.map(i32::from),
    };
    message(&head, answer.body).map_err(Refusal::Failed)
}

fn message(head: &impl Serialize, body: Bytes) -> Result<Vec<Bytes>, String> {
    let head = serde_json::to_vec(head).map_err(|error| error.to_string())?;
    let mut first = BytesMut::with_capacity(4 + head.len());
    first.put_u32_le(head.len() as u32);
    first.put_slice(&head);
    Ok(vec![first.freeze(), body])
}

fn split<T: DeserializeOwned>(mut message: Bytes) -> Result<(T, Bytes), String> {
    let length = message.try_get_u32_le().map_err(|error| error.to_string())? as usize;
    if length > message.len() {
        return Err("its head reaches beyond its end".to_owned());
    }
    let head = message.split_to(length);
    let head = serde_json::from_slice(&head).map_err(|error| error.to_string())?;
    Ok((head, message))
}

/// A way in for the fuzz targets: what is read is the same message again, but for the spelling of its head.
#[cfg(feature = "fuzz")]
#[allow(clippy::unwrap_used)] // a panic is what is looked for
pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok((head, body)) = split::<RequestHead>(Bytes::copy_from_slice(bytes)) {
        let again = message(&head, body.clone()).unwrap().concat();
        assert_eq!(split::<RequestHead>(again.into()), Ok((head, body)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_read_back_as_written_and_cut_ones_are_refused() {
        let head = AnswerHead {
            status: 503,
            retry_after_s: Some(1),
            lacks_leader: true,
            reason: Some(i32::from(Reason::NoQuorum)),
        };
        let whole = Bytes::from(message(&head, Bytes::from_static(b"body")).unwrap().concat());
        let (read, body): (AnswerHead, Bytes) = split(whole.clone()).unwrap();
        assert_eq!(
            (read.status, read.retry_after_s, read.lacks_leader),
            (503, Some(1), true)
        );
        assert_eq!(body, "body");
        for length in 0..whole.len() - b"body".len() {
            assert!(split::<AnswerHead>(whole.slice(..length)).is_err(), "cut to {length}");
        }
        assert!(split::<AnswerHead>(Bytes::from_static(&[0xff; 8])).is_err());
    }

    #[test]
    fn reads_take_no_place_of_appends_and_who_finds_none_is_told_how_many_there_are() {
        let forwards = Forwards::default();
        let reads: Vec<_> = (0..FORWARDED_MAX).map(|_| forwards.place(true).unwrap()).collect();
        let why = forwards.place(true).unwrap_err().to_string();
        assert!(why.contains("256 reads"), "{why}");
        assert!(forwards.place(false).is_ok());
        drop(reads);
        assert!(forwards.place(true).is_ok());
    }

    #[test]
    fn an_append_that_another_node_did_not_begin_is_not_of_unknown_outcome() {
        let (node, why) = (|| "b".to_owned(), || "because".to_owned());
        let refused = |begun| PeerError::Refused {
            node: node(),
            why: why(),
            begun,
        };
        let (unreachable, silent) = (
            PeerError::Unreachable {
                node: node(),
                why: why(),
            },
            PeerError::NoAnswer {
                node: node(),
                why: why(),
            },
        );
        let first = Problem::NoQuorum { what: why() };
        for (error, is_known) in [
            (unreachable, true),
            (refused(false), true),
            (refused(true), false),
            (silent, false),
        ] {
            let told = unanswered(error.clone(), first.clone());
            assert_eq!(told == first, is_known, "{error}");
            assert_eq!(matches!(told, Problem::Unknown(_)), !is_known, "{error}");
        }
    }

    #[tokio::test]
    async fn before_there_is_a_gateway_nothing_is_applied() {
        let answer = Entrance::default().take(Bytes::new()).await.unwrap().concat();
        let (head, body): (AnswerHead, Bytes) = split(answer.into()).unwrap();
        assert_eq!(head.status, 503);
        assert!(String::from_utf8_lossy(&body).contains("NOT_APPLIED"));
    }
}
