//! One ProduceStream to the leader of a partition.
//!
//! Opening it needs no waiting: requests queue up while the connection is made. At most as many requests are queued as
//! batches may be in flight, so the queue needs no other bound.

use std::sync::Arc;

use futures::future::BoxFuture;
use highwater_proto::limits::PRODUCER_BATCHES_IN_FLIGHT_MAX;
use highwater_proto::v1::{ProduceRequest, ProduceStreamResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::calls::{Target, connection_error, log_client};
use crate::connect::{Connections, Lease, call_error, was_never_sent};
use crate::error::{Error, Outcome};

type Responses = Streaming<ProduceStreamResponse>;

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) error: Error,
    /// No connection came about, or the node refused the stream as such: no batch was looked at.
    pub(crate) never_sent: bool,
}

pub(crate) struct ProduceStream {
    pub(crate) node: String,
    requests: mpsc::Sender<ProduceRequest>,
    responses: ResponsesState,
    /// Held for as long as the stream lives.
    _lease: Lease,
}

enum ResponsesState {
    Opening(BoxFuture<'static, Result<Responses, Status>>),
    Open(Box<Responses>),
}

impl ProduceStream {
    pub(crate) fn open(connections: &Arc<Connections>, target: Target) -> Result<Self, Error> {
        let lease = connections
            .lease(&target.address)
            .map_err(|problem| connection_error(&target.node, problem))?;
        let (requests, queued) = mpsc::channel(PRODUCER_BATCHES_IN_FLIGHT_MAX);
        let mut client = log_client(lease.connection.channel.clone());
        let opening = async move {
            let response = client.produce_stream(ReceiverStream::new(queued)).await?;
            Ok(response.into_inner())
        };
        Ok(Self {
            node: target.node,
            requests,
            responses: ResponsesState::Opening(Box::pin(opening)),
            _lease: lease,
        })
    }

    /// Queues a request. `false`: the stream has ended, or does not move.
    pub(crate) fn send(&self, request: ProduceRequest) -> bool {
        self.requests.try_send(request).is_ok()
    }

    /// The next answer. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<ProduceStreamResponse, Broken> {
        let status = loop {
            match &mut self.responses {
                ResponsesState::Opening(opening) => match opening.await {
                    Ok(responses) => self.responses = ResponsesState::Open(Box::new(responses)),
                    Err(status) => break status,
                },
                ResponsesState::Open(responses) => match responses.message().await {
                    Ok(Some(response)) => return Ok(response),
                    Ok(None) => break Status::unavailable("the node ended the stream"),
                    Err(status) => break status,
                },
            }
        };
        let error = call_error(&self.node, &status);
        let is_opening = matches!(self.responses, ResponsesState::Opening(_));
        let is_refused = matches!(&error, Error::Refused(refusal) if refusal.outcome == Outcome::NotApplied);
        Err(Broken {
            never_sent: was_never_sent(&status) || (is_opening && is_refused),
            error,
        })
    }
}
