//! The way in for programs: the service of `proto/activity.proto`.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use highwater_service::telemetry::Telemetry;
use tonic::{Request, Response, Status};

use crate::archive::ArchiveError;
use crate::event::{Event, Invalid, Posted, check_id};
use crate::feed::{AddError, Added, Fate, Feed, Follower, ReadError};
use crate::limits::{PAGE_EVENTS, PAGE_EVENTS_MAX};
use crate::v1;
use crate::v1::activity_service_server::ActivityService;
use crate::v1::follow_request::Start;

/// The service.
#[derive(Debug)]
pub struct Grpc {
    feed: Arc<Feed>,
    telemetry: Telemetry,
}

impl Grpc {
    /// Serves a feed.
    #[must_use]
    pub fn new(feed: Arc<Feed>, telemetry: Telemetry) -> Self {
        Self { feed, telemetry }
    }

    async fn add(&self, request: v1::AddRequest) -> Result<Added, Status> {
        let posted = Posted {
            deployment_id: request.deployment_id,
            id: request.id,
            message: request.message,
            sent_at_ms: request.sent_at_ms,
        };
        posted.check()?;
        Ok(self.feed.add(&posted).await?)
    }

    async fn get(&self, request: v1::GetRequest) -> Result<v1::GetResponse, Status> {
        let (deployment_id, id) = (request.deployment_id, request.id);
        check_id("deployment_id", deployment_id)?;
        check_id("id", id)?;
        self.feed.reach(deployment_id, request.min_position).await?;
        let event = self.feed.get(deployment_id, id).await?;
        let event = event.ok_or_else(|| no_such_event(deployment_id, id))?;
        Ok(v1::GetResponse {
            event: Some(event.into()),
        })
    }

    async fn list(&self, request: v1::ListRequest) -> Result<v1::ListResponse, Status> {
        check_id("deployment_id", request.deployment_id)?;
        let size = match request.page_size {
            0 => PAGE_EVENTS,
            1..=PAGE_EVENTS_MAX => request.page_size,
            size => {
                let problem = format!("{size} is too many; 1 to {PAGE_EVENTS_MAX} are allowed");
                return Err(Invalid::new("page_size", problem).into());
            }
        };
        self.feed.reach(request.deployment_id, request.min_position).await?;
        let page = self
            .feed
            .page(request.deployment_id, request.from_position, size as usize)
            .await?;
        Ok(v1::ListResponse {
            events: page.events.into_iter().map(Into::into).collect(),
            next_position: page.next_position,
        })
    }

    async fn follow(&self, request: v1::FollowRequest) -> Result<Follower, Status> {
        let deployment_id = request.deployment_id;
        check_id("deployment_id", deployment_id)?;
        // Another server may be ahead of this one, so what lies before a position is waited for.
        let before = match request.start {
            Some(Start::FromPosition(position)) => position.checked_sub(1),
            Some(Start::FromId(id)) => check_id("from_id", id).map(|()| None)?,
            None => None,
        };
        self.feed.reach(deployment_id, before.max(request.min_position)).await?;
        let from_position = match request.start {
            None => 0,
            Some(Start::FromPosition(position)) => position,
            Some(Start::FromId(id)) => {
                let position = self.feed.position_of(deployment_id, id);
                position.ok_or_else(|| no_such_event(deployment_id, id))?
            }
        };
        Ok(self.feed.follow(deployment_id, from_position)?)
    }
}

type Following = Pin<Box<dyn Stream<Item = Result<v1::FollowResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ActivityService for Grpc {
    type FollowStream = Following;

    async fn add(&self, request: Request<v1::AddRequest>) -> Result<Response<v1::AddResponse>, Status> {
        let counted = self.telemetry.request("add");
        match self.add(request.into_inner()).await {
            Ok(added) => {
                counted.outcome(if added.already_there { "already_there" } else { "ok" });
                Ok(Response::new(added.into()))
            }
            refused => counted.answered(refused.map(|added| Response::new(added.into()))),
        }
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let counted = self.telemetry.request("get");
        counted.answered(self.get(request.into_inner()).await.map(Response::new))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let counted = self.telemetry.request("list");
        counted.answered(self.list(request.into_inner()).await.map(Response::new))
    }

    /// Counted when the stream begins.
    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Following>, Status> {
        let counted = self.telemetry.request("follow");
        let following = self
            .follow(request.into_inner())
            .await
            .map(|follower| Response::new(stream_of(follower)));
        counted.answered(following)
    }
}

/// Everything that comes, up to the first error.
fn stream_of(follower: Follower) -> Following {
    Box::pin(stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        match follower.next().await {
            Ok(event) => {
                let response = v1::FollowResponse {
                    event: Some(event.into()),
                };
                Some((Ok(response), Some(follower)))
            }
            Err(error) => Some((Err(error.into()), None)),
        }
    }))
}

fn no_such_event(deployment_id: u64, id: u64) -> Status {
    Status::not_found(format!("deployment {deployment_id} has no event {id}"))
}

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        Self {
            deployment_id: event.deployment_id,
            id: event.id,
            message: event.message,
            sent_at_ms: event.sent_at_ms,
            received_at_ms: event.received_at_ms,
            position: event.position,
        }
    }
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Self {
            deployment_id: event.deployment_id,
            id: event.id,
            message: event.message,
            sent_at_ms: event.sent_at_ms,
            received_at_ms: event.received_at_ms,
            position: event.position,
        }
    }
}

impl From<Added> for v1::AddResponse {
    fn from(added: Added) -> Self {
        Self {
            already_there: added.already_there,
            differs: added.differs,
            position: added.position,
            sent_at_ms: added.sent_at_ms,
            received_at_ms: added.received_at_ms,
        }
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

impl From<AddError> for Status {
    fn from(error: AddError) -> Self {
        let text = error.to_string();
        match error {
            AddError::Full => Self::resource_exhausted(text),
            AddError::Failed {
                fate: Fate::Refused, ..
            } => Self::failed_precondition(text),
            AddError::Failed { .. } | AddError::Busy | AddError::Waited | AddError::Behind(_) | AddError::Late => {
                Self::unavailable(text)
            }
            AddError::Lost => Self::internal(text),
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        let text = error.to_string();
        match error {
            ReadError::Beyond { .. } => Self::out_of_range(text),
            ReadError::Archive(ArchiveError::Gone(_)) => Self::data_loss(text),
            ReadError::Behind(_)
            | ReadError::NotReady
            | ReadError::Archive(_)
            | ReadError::TooManyFollowers
            | ReadError::Stopping { .. } => Self::unavailable(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_what_passes_is_unavailable() {
        let added = |error: AddError| Status::from(error).code();
        assert_eq!(added(AddError::Full), Code::ResourceExhausted);
        for passing in [AddError::Busy, AddError::Waited, AddError::Late] {
            assert!(passing.to_string().contains("post it again"), "{passing}");
            assert_eq!(added(passing), Code::Unavailable);
        }
        let read = |error: ReadError| Status::from(error).code();
        assert_eq!(read(ReadError::TooManyFollowers), Code::Unavailable);
        assert_eq!(read(ReadError::Beyond { position: 7, end: 7 }), Code::OutOfRange);
        assert_eq!(read(ReadError::Archive(ArchiveError::Gone(7))), Code::DataLoss);
        assert_eq!(read(ReadError::Archive(ArchiveError::Late)), Code::Unavailable);
    }
}
