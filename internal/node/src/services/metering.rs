//! Every call is paid for: it counts as a request and, for as long as it goes on, as a stream, and only on a connection that counts as well.
//!
//! What it moves is paid for where it is moved, by its handler. Health and reflection cost nothing, so that whoever watches a node sees
//! it also if his tenant has used up everything.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_catalog::Limit;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::classes::is_public;
use crate::port::Peer;
use crate::quotas::{Payers, StreamShare};
use crate::status::Problem;

/// Puts [`Metered`] around the services.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metering;

/// Services that are paid for.
#[derive(Debug, Clone)]
pub(super) struct Metered<S> {
    inner: S,
}

impl<S> Layer<S> for Metering {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner }
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready serves the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let serving = async move {
            if is_public(request.uri().path()) {
                return inner.call(request).await;
            }
            let peer = request.extensions().get::<Arc<Peer>>().cloned();
            let share = match peer {
                Some(peer) => pay_for_call(&peer).await,
                None => Err(Problem::Internal("a call without a proven caller".to_owned())),
            };
            let share = match share {
                Ok(share) => share,
                Err(problem) => return Ok(Status::from(problem).into_http()),
            };
            let response = inner.call(request).await?;
            Ok(response.map(|body| Body::new(Counted { body, _share: share })))
        };
        serving.boxed()
    }
}

/// A call begins: its share of the calls that its client may have, once there is room for one more request.
pub(crate) async fn pay_for_call(peer: &Peer) -> Result<StreamShare, Problem> {
    peer.share.count()?;
    let payers = peer.share.payers();
    let share = payers.stream()?;
    rest(payers.take(Limit::RequestsPerSecond, 1, Instant::now())?).await;
    Ok(share)
}

/// A batch that is the whole request. `begin_by`: a wait beyond that is of no use.
pub(crate) async fn pay_for_batch(payers: &Payers, bytes: usize, begin_by: Instant) -> Result<(), Problem> {
    let limit = Limit::ProduceBytesPerSecond;
    let now = Instant::now();
    let wait = payers.take(limit, bytes as u64, now)?;
    if now + wait > begin_by {
        payers.give_back(limit, bytes as u64);
        let why = "the quota of the client or its tenant leaves no room for the batch before the call's deadline";
        return Err(Problem::Overloaded(why.to_owned()));
    }
    rest(wait).await;
    Ok(())
}

/// A read that is about to begin waits until what was read before is paid for.
pub(crate) async fn pay_for_read(payers: &Payers) -> Result<(), Problem> {
    rest(payers.take(Limit::ConsumeBytesPerSecond, 0, Instant::now())?).await;
    Ok(())
}

async fn rest(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// The body of an answer; its call counts until it ends.
struct Counted {
    body: Body,
    _share: StreamShare,
}

impl hyper::body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
