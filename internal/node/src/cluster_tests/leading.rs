//! Who leads: drained nodes, full disks and transfers.

use super::moves::{BATCHES, TENANT};
use super::*;

impl TestClient {
    /// Asks until it is answered: the catalog's leadership may be moving, also because of this.
    async fn drain(&mut self, request: &v1::DrainNodeRequest) -> v1::DrainNodeResponse {
        let asking = async {
            loop {
                match self.cluster.drain_node(request.clone()).await {
                    Ok(answer) => return answer.into_inner(),
                    Err(status) => match reason(&status) {
                        Reason::Unavailable | Reason::UnknownOutcome | Reason::NoQuorum => {}
                        other => panic!("{other:?}: {status:?}"),
                    },
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, asking).await.expect("it is never answered")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_leads_nothing_until_it_may_again() {
    let cluster = TestCluster::with_topic(3, 3).await;
    let mut client = cluster.client(1, TENANT).await;
    let mut drain = async |undo: bool| {
        let request = v1::DrainNodeRequest {
            node: "a".to_owned(),
            undo,
            look: false,
        };
        client.drain(&request).await.leaders_left
    };
    let drained = async {
        while drain(false).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, drained).await.expect("the node leads on");
    let back = async {
        while drain(true).await == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("the node does not lead again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_does_not_lead_the_catalog_either() {
    let cluster = TestCluster::with_topic(1, 3).await;
    let mut client = cluster.client(0, TENANT).await;
    let leader = client.describe().await.catalog_leader;
    let mut request = v1::DrainNodeRequest {
        node: leader.clone(),
        undo: false,
        look: false,
    };
    let drained = async {
        while client.drain(&request).await.leaders_left > 0 {
            request.look = true;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, drained).await.expect("the node leads on");
    assert_ne!(client.describe().await.catalog_leader, leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_drained_node_does_not_overturn_what_others_undo() {
    let cluster = TestCluster::with_topic(1, 3).await;
    let mut client = cluster.client(1, TENANT).await;
    let mut ask = async |undo: bool, look: bool| {
        let node = "a".to_owned();
        client.drain(&v1::DrainNodeRequest { node, undo, look }).await.undone
    };
    assert!(!ask(false, false).await && !ask(false, true).await);
    assert!(!ask(true, false).await);
    assert!(ask(false, true).await, "it is told, and changes nothing");
    assert!(ask(false, true).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_else_can_lead_is_told_of_a_drained_node() {
    let cluster = TestCluster::with_topic(3, 1).await;
    let mut client = cluster.client(1, TENANT).await;
    let leader = cluster.leader().await;
    let mut request = v1::DrainNodeRequest {
        node: leader,
        undo: false,
        look: false,
    };
    let stuck = async {
        loop {
            let answer = client.drain(&request).await;
            request.look = true;
            if answer.leaders_left == answer.stuck {
                return answer.stuck;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(PATIENCE, stuck).await.expect("the others lead what they can") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_on_its_disk_leads_nothing_and_gets_nothing() {
    let mut cluster = TestCluster::with_topic(3, 3).await;
    let full = cluster.nodes[0].as_ref().unwrap();
    full.storage().pretend_room(false);
    let mut client = cluster.client(1, TENANT).await;
    let left = async {
        while client
            .describe()
            .await
            .nodes
            .iter()
            .any(|node| node.name == "a" && node.leaders > 0)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, left).await.expect("the node leads on");
    cluster.start(3).await;
    cluster.ready(3).await;
    let is_unusable = async {
        while (1..4).any(|number| {
            cluster.nodes[number]
                .as_ref()
                .unwrap()
                .leaders()
                .usable_nodes()
                .contains("a")
        }) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, is_unusable)
        .await
        .expect("others would place replicas there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_transferred_to_the_node_that_is_named() {
    let cluster = TestCluster::with_topic(1, 3).await;
    let off = v1::UpdateSettingsRequest {
        balance: Some(false),
        ..Default::default()
    };
    let mut client = cluster.client(0, TENANT).await;
    client.settings(off).await;
    for node in ["c", "a", "b"] {
        let request = v1::TransferLeaderRequest {
            topic: "orders".to_owned(),
            partition: 0,
            node: node.to_owned(),
        };
        let moved = timeout(PATIENCE, client.cluster.transfer_leader(request))
            .await
            .unwrap();
        assert_eq!(moved.unwrap().into_inner().leader, node);
    }
    let nowhere = v1::TransferLeaderRequest {
        topic: "orders".to_owned(),
        partition: 0,
        node: "nobody".to_owned(),
    };
    let refused = client.cluster.transfer_leader(nowhere).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Refused);
    cluster.fill(BATCHES..BATCHES + 1).await;
}
