//! Nodes with good certificates that are not in the cluster: whatever they send to its members changes nothing.

use highwater_catalog::Command;
use highwater_partition::log::GroupId;
use highwater_partition::{Lane, Peers};

use super::moves::TENANT;
use super::*;
use crate::link::Link;
use crate::peer_calls::{AUDIT, COMMAND, GATEWAY, TRANSFER};
use crate::test_node::TestNode;

/// Kinds of a partition's messages, as they are documented for the wire (`partition::codec`): a vote, and a stream of entries.
const VOTE: u8 = 2;
const APPEND_STREAM: u8 = 16;

/// All members refuse what the node of this link asks for, in the cluster and in its first partition.
pub(super) async fn assert_changes_nothing(cluster: &TestCluster, link: &Link, outsider: &str) {
    let expected = format!("{outsider} is no member of the cluster");
    let drain = Command::DrainNode {
        node: "c".to_owned(),
        drained: true,
    };
    for member in ["a", "b", "c"] {
        for (kind, body) in [
            (COMMAND, drain.encode()),
            (TRANSFER, Vec::new()),
            (GATEWAY, Vec::new()),
            (AUDIT, Vec::new()),
        ] {
            let asked = link.call_node(member, kind, vec![Bytes::from(body)], PATIENCE).await;
            let why = asked.expect_err("an outsider was heard").to_string();
            assert!(why.contains(&expected), "{kind}: {why}");
        }
        let group = first_group(cluster);
        let asked = link
            .call(member, group, Lane::Control, VOTE, vec![Bytes::new()], PATIENCE)
            .await;
        let why = asked.expect_err("an outsider stood for election").to_string();
        assert!(why.contains(&expected), "{why}");
        let mut entries = link
            .open_stream(member, group, Lane::Bulk, APPEND_STREAM)
            .await
            .unwrap();
        let answer = timeout(PATIENCE, entries.receiver.recv()).await;
        assert_eq!(answer.expect("it waits for an outsider's entries"), None);
    }
}

fn first_group(cluster: &TestCluster) -> GroupId {
    let host = cluster.nodes[0].as_ref().unwrap().host();
    let group = host.read(|catalog| {
        let topic = catalog.topics(TENANT).next();
        topic.map(|topic| topic.partitions[0].group_id)
    });
    GroupId(group.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_never_joined_changes_nothing() {
    let cluster = TestCluster::with_topic(1, 3).await;
    let outsider = TestNode::start(&cluster.ca, "x").await;
    for (member, port) in NAMES.iter().zip(cluster.ports).take(3) {
        outsider.book.learn(member, &format!("127.0.0.1:{port}"));
    }
    assert_changes_nothing(&cluster, &outsider.link, "x").await;
}
