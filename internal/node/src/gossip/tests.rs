//! Gossip of several nodes in one process, over real links.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::link::Directory;
use crate::test_ca::{CLUSTER, TestCa};
use crate::test_node::{PATIENCE, TestNode, eventually};

const FAST: Duration = Duration::from_millis(50);

struct Gossiping {
    node: TestNode,
    gossip: Gossip,
}

impl Gossiping {
    fn live(&self) -> Vec<String> {
        self.gossip
            .nodes
            .borrow()
            .iter()
            .map(|node| node.name.clone())
            .collect()
    }

    fn sees(&self, name: &str) -> Option<GossipNode> {
        self.gossip
            .nodes
            .borrow()
            .iter()
            .find(|node| node.name == name)
            .cloned()
    }

    fn kill(self) {
        self.node.kill();
    }
}

async fn start(ca: &TestCa, name: &str, seeds: &[String]) -> Gossiping {
    start_boot(TestNode::start(ca, name).await, 1, seeds).await
}

async fn start_boot(node: TestNode, boot: u64, seeds: &[String]) -> Gossiping {
    let (mailbox, inbox) = mailbox();
    *node.handler.mailbox.lock().unwrap() = Some(mailbox);
    let options = GossipOptions {
        link: node.link.clone(),
        inbox,
        addresses: node.book.clone(),
        cluster: CLUSTER.to_owned(),
        node: node.name.clone(),
        boot,
        address: node.address.to_string(),
        rack: format!("rack of {}", node.name),
        version: "0.1.0".to_owned(),
        incarnation: [boot as u8; 16],
        cluster_id: None,
        seeds: seeds.to_vec(),
        interval: FAST,
    };
    let gossip = Gossip::start(options).await.unwrap();
    Gossiping { node, gossip }
}

/// Three nodes; the second and third know only the first.
async fn three(ca: &TestCa) -> [Gossiping; 3] {
    let first = start(ca, "n1", &[]).await;
    let seeds = [first.node.address.to_string()];
    [first, start(ca, "n2", &seeds).await, start(ca, "n3", &seeds).await]
}

async fn all_see(nodes: &[Gossiping], names: &[&str]) {
    eventually("all nodes see each other", || {
        nodes.iter().all(|node| node.live() == names)
    })
    .await;
}

#[tokio::test]
async fn nodes_find_each_other_through_one_seed() {
    let ca = TestCa::new();
    let nodes = three(&ca).await;
    all_see(&nodes, &["n1", "n2", "n3"]).await;
    let third = nodes[1].sees("n3").unwrap();
    assert_eq!(third.address, nodes[2].node.address.to_string());
    assert_eq!((third.rack.as_str(), third.version.as_str()), ("rack of n3", "0.1.0"));
    assert_eq!(
        (third.incarnation, third.boot, third.cluster_id),
        (Some([1; 16]), 1, None)
    );
    assert_eq!(
        nodes[1].node.book.address("n3"),
        Some(third.address),
        "the directory is fed"
    );
    assert_eq!(nodes[1].node.book.address("n2"), None, "a node does not dial itself");
}

#[tokio::test]
async fn what_a_node_publishes_reaches_the_others() {
    let ca = TestCa::new();
    let nodes = three(&ca).await;
    all_see(&nodes, &["n1", "n2", "n3"]).await;
    nodes[0].gossip.set("lead/17", "4").await.unwrap();
    nodes[0].gossip.set_cluster_id(ClusterId([0xab; 16])).await;
    let told = |node: &Gossiping| {
        let seen = node.sees("n1").unwrap();
        seen.keys.get("lead/17").is_some_and(|value| value == "4") && seen.cluster_id == Some(ClusterId([0xab; 16]))
    };
    eventually("the others are told", || nodes.iter().all(told)).await;
    nodes[0].gossip.remove("lead/17").await;
    let forgotten = |node: &Gossiping| !node.sees("n1").unwrap().keys.contains_key("lead/17");
    eventually("the key is gone", || nodes.iter().all(forgotten)).await;
}

#[tokio::test]
async fn a_dead_node_is_noticed_and_its_restart_too() {
    let ca = TestCa::new();
    let [first, second, third] = three(&ca).await;
    let mut nodes = vec![first, second];
    eventually("all are there", || nodes.iter().all(|node| node.live().len() == 3)).await;
    let (credentials, address) = (third.node.credentials.clone(), third.node.address);
    third.kill();
    all_see(&nodes, &["n1", "n2"]).await;

    let again = TestNode::start_with(credentials, None, 2, address).await;
    nodes.push(start_boot(again, 2, &[nodes[0].node.address.to_string()]).await);
    all_see(&nodes, &["n1", "n2", "n3"]).await;
    assert_eq!(nodes[0].sees("n3").unwrap().boot, 2);
}

#[tokio::test]
async fn nodes_that_swapped_addresses_are_heard_of_at_their_new_ones() {
    let ca = TestCa::new();
    let [first, second, third] = three(&ca).await;
    let nodes = [first, second, third];
    all_see(&nodes, &["n1", "n2", "n3"]).await;
    let [first, second, third] = nodes;
    let (address_of_first, address_of_second) = (first.node.address, second.node.address);
    let (credentials_of_first, credentials_of_second) =
        (first.node.credentials.clone(), second.node.credentials.clone());
    first.kill();
    second.kill();

    // The one that stayed still takes the earlier lives for alive, at the addresses where the others are now.
    let seeds = [third.node.address.to_string()];
    let first = TestNode::start_with(credentials_of_first, None, 2, address_of_second).await;
    let second = TestNode::start_with(credentials_of_second, None, 2, address_of_first).await;
    let first = start_boot(first, 2, &seeds).await;
    let second = start_boot(second, 2, &seeds).await;
    let knows_both = || {
        third.node.book.address("n1") == Some(address_of_second.to_string())
            && third.node.book.address("n2") == Some(address_of_first.to_string())
    };
    eventually("the third knows where both are now", knows_both).await;
    all_see(&[first, second, third], &["n1", "n2", "n3"]).await;
}

#[tokio::test]
async fn the_seed_may_come_up_last() {
    let ca = TestCa::new();
    let place = crate::port::Port::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = place.local_addr();
    let second = start(&ca, "n2", &[address.to_string()]).await;
    eventually("a node sees itself", || second.live() == ["n2"]).await;
    drop(place);
    let first = TestNode::start_with(ca.node("n1"), None, 1, address).await;
    let first = start_boot(first, 1, &[]).await;
    all_see(&[first, second], &["n1", "n2"]).await;
}

#[tokio::test]
async fn too_much_is_not_published() {
    let ca = TestCa::new();
    let node = start(&ca, "n1", &[]).await;
    let value = "v".repeat(VALUE_BYTES_MAX);
    assert!(matches!(node.gossip.set("", "x").await, Err(GossipError::Limit { .. })));
    assert!(node.gossip.set(&"k".repeat(KEY_BYTES_MAX + 1), "x").await.is_err());
    assert!(node.gossip.set("k", &format!("{value}x")).await.is_err());
    let mut accepted = 0;
    while node.gossip.set(&format!("k{accepted}"), &value).await.is_ok() {
        accepted += 1;
        assert!(accepted * VALUE_BYTES_MAX <= PUBLISHED_BYTES_MAX);
    }
    assert!(
        accepted >= PUBLISHED_BYTES_MAX / VALUE_BYTES_MAX - 1,
        "{accepted} values"
    );
    node.gossip.set("k0", "shorter").await.unwrap();
}

#[tokio::test]
async fn odd_messages_are_dropped_and_gossip_goes_on() {
    let ca = TestCa::new();
    let nodes = three(&ca).await;
    all_see(&nodes, &["n1", "n2", "n3"]).await;
    let second = &nodes[1].node;
    for message in [
        &b""[..],
        b"garbage",
        &[0xff; 60_000],
        &[4, 127, 0, 0, 1, 0, 1, 0x53, 0xb0, 0, 2, 9, 9],
    ] {
        second.link.send_gossip("n1", Bytes::copy_from_slice(message));
    }
    nodes[2].gossip.set("after", "all").await.unwrap();
    let told = || nodes[0].sees("n3").is_some_and(|node| node.keys.contains_key("after"));
    eventually("gossip goes on", told).await;
}

#[tokio::test]
async fn gossip_ends_when_told() {
    let ca = TestCa::new();
    let nodes = three(&ca).await;
    all_see(&nodes, &["n1", "n2", "n3"]).await;
    let [first, second, third] = nodes;
    timeout(PATIENCE, third.gossip.shutdown()).await.expect("it ends");
    all_see(&[first, second], &["n1", "n2"]).await;
}
