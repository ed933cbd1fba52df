//! Groups that are forgotten, and what becomes of it when the answer gets lost.

use std::pin::Pin;

use futures::Stream;
use highwater::proto::v1::group_service_server::GroupService;
use highwater::proto::v1::{self, Outcome, Reason};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::cluster::{Cluster, TOPIC, error};
use crate::server::{Node, status};
use crate::within;

type Answer<T> = Result<Response<T>, Status>;

/// No tests need it.
fn absent<T>() -> Answer<T> {
    Err(Status::unimplemented("not here"))
}

#[tonic::async_trait]
impl GroupService for Node {
    type JoinGroupStream = Pin<Box<dyn Stream<Item = Result<v1::JoinGroupResponse, Status>> + Send>>;

    async fn join_group(&self, _: Request<Streaming<v1::JoinGroupRequest>>) -> Answer<Self::JoinGroupStream> {
        absent()
    }

    async fn describe_group(&self, _: Request<v1::DescribeGroupRequest>) -> Answer<v1::DescribeGroupResponse> {
        absent()
    }

    async fn claim_partition(&self, _: Request<v1::ClaimPartitionRequest>) -> Answer<v1::ClaimPartitionResponse> {
        absent()
    }

    async fn commit_offset(&self, _: Request<v1::CommitOffsetRequest>) -> Answer<v1::CommitOffsetResponse> {
        absent()
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Answer<v1::ListGroupsResponse> {
        absent()
    }

    async fn reset_offset(&self, _: Request<v1::ResetOffsetRequest>) -> Answer<v1::ResetOffsetResponse> {
        absent()
    }

    async fn delete_group(&self, request: Request<v1::DeleteGroupRequest>) -> Answer<v1::DeleteGroupResponse> {
        let request = request.into_inner();
        let existed = self.shared.lock().groups.remove(&(request.group, request.partition));
        if existed && self.hides_answer() {
            let detail = error(Reason::UnknownOutcome, Outcome::Unknown);
            return Err(status(Code::Unavailable, &detail));
        }
        Ok(Response::new(v1::DeleteGroupResponse { existed }))
    }
}

#[tokio::test]
async fn a_group_is_forgotten_although_the_answer_is_lost_and_one_that_never_was_is_not_found() {
    let cluster = Cluster::start(1, 2);
    let client = within(cluster.client()).await;
    let groups = client.groups();
    for unanswered in [0, 1] {
        {
            let mut state = cluster.shared.lock();
            state.groups.insert(("workers".to_owned(), 1));
            state.unanswered_calls = unanswered;
        }
        let existed = within(groups.delete(TOPIC, "workers")).await.unwrap();
        assert!(existed, "{unanswered} answers lost");
        assert_eq!(cluster.shared.lock().unanswered_calls, 0);
        assert!(cluster.shared.lock().groups.is_empty());
        assert!(!within(groups.delete(TOPIC, "workers")).await.unwrap());
    }
}
