//! The link between nodes of one process: what the tests share.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bytes_on_the_wire;
mod calls;
mod company;
mod greetings;
mod idleness;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_partition::log::{ClusterId, GroupId};
use highwater_partition::{Lane, PeerError, PeerStream, Peers};

use super::connection::Connection;
use crate::test_ca::TestCa;
use crate::test_node::{PATIENCE, TestNode};

/// Two nodes that know each other's address.
async fn pair(ca: &TestCa) -> (TestNode, TestNode) {
    let (one, two) = (TestNode::start(ca, "n1").await, TestNode::start(ca, "n2").await);
    one.knows(&two);
    two.knows(&one);
    (one, two)
}

async fn call(from: &TestNode, to: &str, lane: Lane, kind: u8, body: impl Into<Bytes>) -> Result<Bytes, PeerError> {
    from.link
        .call(to, GroupId(7), lane, kind, vec![body.into()], PATIENCE)
        .await
}

async fn open(from: &TestNode, to: &str, kind: u8) -> PeerStream {
    from.link.open_stream(to, GroupId(7), Lane::Bulk, kind).await.unwrap()
}

/// The connections that are up, of both roles.
fn connections(node: &TestNode) -> Vec<Arc<Connection>> {
    node.link.inner.all_connections()
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.expect("it takes too long")
}

const fn cluster(number: u8) -> ClusterId {
    ClusterId([number; 16])
}
