//! Every call that reaches a handler is paid for: it counts as a request and, for as long as it goes on, as a stream, and only on a
//! connection that counts as well. What is refused before, by the name of its method or because the node is cut off, is not.
//!
//! What it moves is paid for where it is moved, by its handler. Health and reflection cost nothing, so that whoever watches a node sees
//! it also if his tenant has used up everything; neither do operators' own calls, which are proven to be theirs before they come here: a
//! quota of their tenant must not keep them from changing it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_catalog::Limit;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Span;

use super::classes::is_free;
use super::deadline::{deadline_in, shorten};
use crate::port::Peer;
use crate::quotas::{Payers, StreamShare};
use crate::status::{Problem, Refused};

/// Puts [`Metered`] around the services.
#[derive(Debug, Clone)]
pub(super) struct Metering(pub(super) Arc<Refused>);

/// Services that are paid for.
#[derive(Debug, Clone)]
pub(super) struct Metered<S> {
    inner: S,
    refused: Arc<Refused>,
}

impl<S> Layer<S> for Metering {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered {
            inner,
            refused: self.0.clone(),
        }
    }
}

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready serves the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let refused = self.refused.clone();
        let serving = async move {
            if is_free(request.uri().path()) {
                return inner.call(request).await;
            }
            let peer = request.extensions().get::<Arc<Peer>>().cloned();
            let came_at = Instant::now();
            let share = match peer {
                Some(peer) => pay_for_call(&peer, deadline_in(request.headers())).await,
                None => Err(Problem::Internal("a call without a proven caller".to_owned())),
            };
            let share = match share {
                Ok(share) => share,
                Err(problem) => return Ok(Status::from(problem).into_http()),
            };
            shorten(request.headers_mut(), came_at.elapsed());
            let response = inner.call(request).await?;
            let span = Span::current();
            Ok(response.map(|body| {
                Body::new(Counted {
                    body,
                    span,
                    refused,
                    _share: share,
                })
            }))
        };
        serving.boxed()
    }
}

/// A call begins: its share of the calls that its client may have, once there is room for one more request. A wait beyond `begin_by`
/// is of no use, as in the other two.
pub(crate) async fn pay_for_call(peer: &Peer, begin_by: Instant) -> Result<StreamShare, Problem> {
    peer.share.count()?;
    let payers = peer.share.payers();
    let share = payers.stream()?;
    pay(payers, Limit::RequestsPerSecond, 1, begin_by).await?;
    Ok(share)
}

/// A batch that is the whole request.
pub(crate) async fn pay_for_batch(payers: &Payers, bytes: usize, begin_by: Instant) -> Result<(), Problem> {
    pay(payers, Limit::ProduceBytesPerSecond, bytes as u64, begin_by).await
}

/// A batch that came to a node that does not lead its partition is paid for where it is sent next.
pub(super) fn give_back_if_led_elsewhere<T>(payers: &Payers, bytes: usize, answer: &Result<T, Problem>) {
    if matches!(answer, Err(Problem::NotLeader { .. })) {
        payers.give_back(Limit::ProduceBytesPerSecond, bytes as u64);
    }
}

/// A read that is about to begin waits until what was read before is paid for.
pub(crate) async fn pay_for_read(payers: &Payers, begin_by: Instant) -> Result<(), Problem> {
    pay(payers, Limit::ConsumeBytesPerSecond, 0, begin_by).await
}

async fn pay(payers: &Payers, limit: Limit, cost: u64, begin_by: Instant) -> Result<(), Problem> {
    let wait = payers.take(limit, cost, begin_by, Instant::now())?;
    if !wait.is_zero() {
        sleep(wait).await;
    }
    Ok(())
}

/// The body of an answer; its call counts until it ends, and what is logged meanwhile is about it. If it ends with an error, that is counted, too.
struct Counted {
    body: Body,
    span: Span,
    refused: Arc<Refused>,
    _share: StreamShare,
}

impl hyper::body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let this = &mut *self;
        let _within = this.span.enter();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.refused.note(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
