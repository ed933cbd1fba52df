//! `activity-cli follow` at a server that breaks its streams: how long it tries again counts from the break, however long the stream has
//! lived before.

use std::pin::Pin;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use highwater_activity::v1::activity_service_server::{ActivityService, ActivityServiceServer};
use highwater_activity::v1::follow_request::Start;
use highwater_activity::v1::{
    AddRequest, AddResponse, Event, FollowRequest, FollowResponse, GetRequest, GetResponse, ListRequest, ListResponse,
};
use highwater_tests::{Finished, run, without_settings};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::DEADLINE;

/// How long a stream lives: longer than it may be tried again.
const LIFE: Duration = Duration::from_millis(500);
const RETRY_FOR_MS: &str = "100";
/// How many streams there are before every request is refused.
const STREAMS: u64 = 2;

type Answer<T> = Result<Response<T>, Status>;
type Following = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

/// Each of its streams has one event, and breaks a while later.
#[derive(Default)]
struct Breaking {
    /// Where the streams so far began.
    starts: Mutex<Vec<Option<Start>>>,
}

#[tonic::async_trait]
impl ActivityService for Breaking {
    type FollowStream = Following;

    async fn add(&self, _: Request<AddRequest>) -> Answer<AddResponse> {
        Err(Status::unimplemented("add"))
    }

    async fn get(&self, _: Request<GetRequest>) -> Answer<GetResponse> {
        Err(Status::unimplemented("get"))
    }

    async fn list(&self, _: Request<ListRequest>) -> Answer<ListResponse> {
        Err(Status::unimplemented("list"))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Answer<Following> {
        let mut starts = self.starts.lock().unwrap();
        let position = starts.len() as u64;
        if position == STREAMS {
            return Err(Status::unavailable("gone"));
        }
        let wanted = position.checked_sub(1).map(|last| Start::FromPosition(last + 1));
        assert_eq!(request.into_inner().start, wanted);
        starts.push(wanted);
        let event = Event {
            deployment_id: 1,
            id: position + 1,
            position,
            ..Default::default()
        };
        let first = stream::iter([Ok(FollowResponse { event: Some(event) })]);
        let end = stream::once(async {
            sleep(LIFE).await;
            Err(Status::unavailable("broken"))
        });
        Ok(Response::new(Box::pin(first.chain(end))))
    }
}

fn follow(runtime: &Runtime, max: u64) -> Finished {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = ActivityServiceServer::new(Breaking::default());
    let serving = Server::builder().add_service(service);
    let serving = runtime.spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    let mut command: Command = without_settings(env!("CARGO_BIN_EXE_activity-cli").as_ref());
    command.args(["--address", &address, "--retry-for-ms", RETRY_FOR_MS]);
    let finished = run(command.args(["follow", "1", "--max", &max.to_string()]), DEADLINE);
    serving.abort();
    finished
}

#[test]
fn a_stream_that_has_lived_longer_than_it_may_be_tried_again_is_followed_again() {
    let runtime = Runtime::new().unwrap();
    let finished = follow(&runtime, STREAMS).success();
    assert_eq!(finished.stdout().lines().count() as u64, STREAMS);
    assert_eq!(finished.stderr, "note: broken; trying again\n");
    // And it is given up some day.
    let finished = follow(&runtime, STREAMS + 1);
    assert_eq!(finished.stdout().lines().count() as u64, STREAMS);
    finished.fails_with(1, &["error: gone"]);
}
