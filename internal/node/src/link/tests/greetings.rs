//! Who is let in, and why not.

use super::*;
use crate::test_ca::CLUSTER;
use crate::test_node::{eventually, kinds};
use crate::tls::{Credentials, TlsFiles};

async fn with_cluster(ca: &TestCa, name: &str, cluster_id: Option<ClusterId>) -> TestNode {
    TestNode::start_with(ca.node(name), cluster_id, 1, ([127, 0, 0, 1], 0).into()).await
}

#[tokio::test]
async fn nodes_of_different_clusters_refuse_each_other_and_name_both() {
    let ca = TestCa::new();
    let one = with_cluster(&ca, "n1", Some(cluster(0xaa))).await;
    let two = with_cluster(&ca, "n2", Some(cluster(0xbb))).await;
    one.knows(&two);
    let why = call(&one, "n2", Lane::Control, kinds::ECHO, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        why.contains(&"aa".repeat(16)) && why.contains(&"bb".repeat(16)),
        "{why}"
    );
    assert!(connections(&one).is_empty() && connections(&two).is_empty());
}

#[tokio::test]
async fn before_founding_nodes_talk_and_afterwards_the_new_id_is_told() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
    one.link.set_cluster_id(cluster(1)).unwrap();
    let told = || {
        two.handler
            .hellos
            .lock()
            .unwrap()
            .iter()
            .any(|hello| hello.cluster_id == Some(cluster(1)))
    };
    eventually("the other node is told", told).await;
    two.link.set_cluster_id(cluster(1)).unwrap();
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
    assert_eq!(connections(&one).len(), 1, "the connection has outlived the founding");

    assert_eq!(two.link.set_cluster_id(cluster(1)), Ok(()));
    assert_eq!(two.link.set_cluster_id(cluster(2)), Err(cluster(1)));
    assert_eq!(two.link.cluster_id(), Some(cluster(1)));
}

#[tokio::test]
async fn connected_nodes_that_turn_out_to_differ_are_parted() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    assert_eq!(call(&one, "n2", Lane::Control, kinds::ECHO, "on").await.unwrap(), "on");
    one.link.set_cluster_id(cluster(1)).unwrap();
    two.link.set_cluster_id(cluster(2)).unwrap();
    eventually("the connection is cut", || {
        connections(&one).is_empty() && connections(&two).is_empty()
    })
    .await;
    one.link.peer_seen("n2");
    let why = call(&one, "n2", Lane::Control, kinds::ECHO, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("clusters differ"), "{why}");
}

#[tokio::test]
async fn only_the_very_node_that_was_dialled_will_do() {
    let ca = TestCa::new();
    let (one, two) = (TestNode::start(&ca, "n1").await, TestNode::start(&ca, "n2").await);
    one.book.learn("n3", &two.address.to_string());
    let why = call(&one, "n3", Lane::Control, kinds::ECHO, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("/node/n2 answered where node \"n3\" was dialled"), "{why}");
    assert!(two.handler.hellos.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nodes_of_another_authority_or_cluster_name_are_not_dialled() {
    let ca = TestCa::new();
    let one = TestNode::start(&ca, "n1").await;
    let foreign = TestNode::start(&TestCa::new(), "n2").await;
    one.knows(&foreign);
    let why = call(&one, "n2", Lane::Control, kinds::ECHO, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("invalid peer certificate"), "{why}");

    let credentials = Credentials::load(ca.node_files("elsewhere", "n3")).unwrap();
    let elsewhere = TestNode::start_with(credentials, None, 1, ([127, 0, 0, 1], 0).into()).await;
    one.knows(&elsewhere);
    let why = call(&one, "n3", Lane::Control, kinds::ECHO, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("spiffe://elsewhere/node/n3") && why.contains(CLUSTER),
        "{why}"
    );
}

#[tokio::test]
async fn a_second_process_under_our_name_is_noticed() {
    let ca = TestCa::new();
    let credentials = ca.node("n1");
    let first = TestNode::start_with(credentials.clone(), None, 1, ([127, 0, 0, 1], 0).into()).await;
    let second = TestNode::start_with(credentials, None, 2, ([127, 0, 0, 1], 0).into()).await;
    first.knows(&second);
    let why = call(&first, "n1", Lane::Control, kinds::ECHO, "")
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("two processes use the node name \"n1\""), "{why}");
}

#[tokio::test]
async fn the_handlers_refusal_is_told_to_the_dialler() {
    let ca = TestCa::new();
    let (one, two) = pair(&ca).await;
    *two.handler.refuse_hello.lock().unwrap() = Some("this incarnation is dead".to_owned());
    let why = call(&one, "n2", Lane::Control, kinds::ECHO, "").await.unwrap_err();
    assert!(
        matches!(&why, PeerError::Unreachable { why, .. } if why.contains("this incarnation is dead")),
        "{why}"
    );
}

/// Whichever of them learns of it first.
#[tokio::test]
async fn a_node_whose_certificate_is_revoked_is_cut_off_and_not_dialled_again() {
    for knows in ["the dialled", "the dialler"] {
        let ca = TestCa::new();
        ca.revoke(&[], 2090);
        let with_lists = |name: &str| {
            let files = TlsFiles {
                revoked: Some(ca.path("crl.pem")),
                ..ca.node_files(CLUSTER, name)
            };
            Credentials::load(files).unwrap()
        };
        let anywhere = ([127, 0, 0, 1], 0).into();
        let one = TestNode::start_with(with_lists("n1"), None, 1, anywhere).await;
        let two = TestNode::start_with(with_lists("n2"), None, 1, anywhere).await;
        one.knows(&two);
        call(&one, "n2", Lane::Control, kinds::ECHO, "hello").await.unwrap();

        let (judge, revoked) = match knows {
            "the dialled" => (&two, "n1"),
            _ => (&one, "n2"),
        };
        ca.revoke(&[&ca.files(revoked)], 2090);
        judge.credentials.look();
        eventually("the connection has ended", || connections(judge).is_empty()).await;
        let again = call(&one, "n2", Lane::Control, kinds::ECHO, "hello").await;
        assert!(again.is_err(), "{knows}: {again:?}");
    }
}
