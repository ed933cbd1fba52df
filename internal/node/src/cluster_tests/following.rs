//! Who leads, who is ready, and readers at followers that do not follow.

use std::collections::BTreeSet;

use highwater_partition::log::GroupId;
use tokio_stream::StreamExt;

use super::*;
use crate::test_node::eventually;

/// So long that it does not come in a test: a round of gossip after the first one, or the end of what a node knows.
const NEVER: Duration = Duration::from_secs(3600);

fn group_of(cluster: &TestCluster, number: usize, topic: &str) -> GroupId {
    let host = cluster.nodes[number].as_ref().unwrap().host();
    let group = host.read(|catalog| catalog.topic("shop", topic).map(|topic| topic.partitions[0].group_id));
    GroupId(group.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_a_node_without_a_replica_is_told_a_new_leader_without_any_gossip() {
    let mut cluster = TestCluster::new();
    cluster.pace.gossip_interval = NEVER;
    cluster.found().await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let created = cluster.client(0, "shop").await.create("orders", 1).await;
    let replicas = &created.partitions[0].replicas;
    let outside = (0..4).find(|number| !replicas.iter().any(|node| node == NAMES[*number]));
    let outside = outside.unwrap();
    assert!(
        cluster.nodes[outside]
            .as_ref()
            .unwrap()
            .registry()
            .hosted(group_of(&cluster, 0, "orders"))
            .is_none()
    );

    let mut watcher = cluster.client(outside, "shop").await;
    let watched = watcher.cluster.watch_cluster(v1::WatchClusterRequest {}).await.unwrap();
    let mut changes = watched.into_inner();
    let mut told = async |wanted: &dyn Fn(&str) -> bool| {
        let waiting = async {
            loop {
                let change = changes.next().await.unwrap().unwrap();
                let leaders = change.topics.iter().map(|topic| topic.partitions[0].leader.clone());
                if let Some(leader) = leaders.into_iter().find(|leader| wanted(leader)) {
                    return leader;
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("the watcher is told")
    };
    let mut leader = told(&|leader| !leader.is_empty()).await;
    for _ in 0..2 {
        let number = TestCluster::number(&leader);
        let hosted = cluster.nodes[number]
            .as_ref()
            .unwrap()
            .registry()
            .hosted(group_of(&cluster, number, "orders"));
        if hosted.unwrap().hand_over_to(|_| true).await.is_err() {
            continue; // on a busy machine it may have been lost a moment ago, and the watcher is told all the same
        }
        let before = leader.clone();
        leader = told(&|leader| !leader.is_empty() && leader != before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_knows_which_nodes_are_ready() {
    let mut cluster = TestCluster::founded().await;
    let usable = |cluster: &TestCluster, number: usize| -> BTreeSet<String> {
        cluster.nodes[number].as_ref().unwrap().leaders().usable_nodes()
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    for number in 0..3 {
        eventually("all are usable", || usable(&cluster, number) == set(&["a", "b", "c"])).await;
    }
    cluster.stop(2).await;
    for number in 0..2 {
        eventually("the one that stopped is not", || {
            usable(&cluster, number) == set(&["a", "b"])
        })
        .await;
    }
    cluster.start(2).await;
    cluster.ready(2).await;
    for number in 0..3 {
        eventually("it is again", || usable(&cluster, number) == set(&["a", "b", "c"])).await;
    }
}

fn from_start(topic: &str, kind: Option<v1::freshness::Kind>) -> v1::ConsumeRequest {
    v1::ConsumeRequest {
        topic: topic.to_owned(),
        freshness: kind.map(|kind| v1::Freshness { kind: Some(kind) }),
        ..Default::default()
    }
}

/// A follower whose link is shut goes on serving clients for a while, and for the first seconds it takes the others for alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_hands_its_readers_over() {
    let mut cluster = TestCluster::new();
    cluster.pace.stale_after = NEVER;
    cluster.found().await;
    let created = cluster.client(0, "shop").await.create("orders", 1).await;
    cluster.produce("shop", batch_of("orders", 0, &["one"])).await.unwrap();
    let leader = TestCluster::number(&created.partitions[0].leader);
    let follower = (leader + 1) % 3;
    let mut client = cluster.client(follower, "shop").await;
    let fresh = from_start("orders", Some(v1::freshness::Kind::MinOffset(1)));
    let mut stream = client.log.consume(fresh).await.unwrap().into_inner();
    let first = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(values_of(&first), ["one"]);

    cluster.nodes[follower].as_ref().unwrap().link().shutdown();
    let status = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err();
    let detail = highwater_proto::detail::from_status(&status).unwrap();
    assert_eq!(
        (status.code(), detail.reason()),
        (tonic::Code::Unavailable, v1::Reason::ReplicaBehind)
    );
    assert_eq!(detail.range.unwrap().high_watermark, 1);
    assert!(
        detail.leader.is_some_and(|leader| leader.node != NAMES[follower]),
        "no hint in {status:?}"
    );

    // What asks for more than is here is handed over, whoever is known to be alive.
    for kind in [
        v1::freshness::Kind::MinOffset(2),
        v1::freshness::Kind::Linearizable(true),
    ] {
        let waiting = client.log.consume(from_start("orders", Some(kind)));
        let status = timeout(PATIENCE, waiting).await.unwrap().unwrap_err();
        assert_eq!(reason(&status), v1::Reason::ReplicaBehind, "{kind:?}: {status:?}");
    }

    // Once it takes the others for dead, it keeps whoever wants only what is committed: it has nowhere to send him.
    let leaders = cluster.nodes[follower].as_ref().unwrap().leaders();
    let others = || NAMES[..3].iter().filter(|name| **name != NAMES[follower]);
    eventually("the others are taken for dead", || {
        others().all(|name| !leaders.is_alive(name))
    })
    .await;
    let mut stream = client
        .log
        .consume(from_start("orders", None))
        .await
        .unwrap()
        .into_inner();
    let first = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(values_of(&first), ["one"]);
    let silence_max = Duration::from_secs(1);
    assert!(timeout(2 * silence_max, stream.next()).await.is_err(), "it has left");
}
