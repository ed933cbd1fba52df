//! What could get round a quota, and what a quota must not stop.

use futures::future::join_all;

use super::groups::{claim, groups};
use super::quotas::{access, batch_from, cluster, over_quota};
use super::*;
use crate::test_node::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_new_groups_at_once_are_no_more_than_the_quota() {
    let cluster = cluster().await;
    let limit = v1::Amounts {
        groups: Some(2),
        ..Default::default()
    };
    cluster.limit(None, limit).await;
    let client = cluster.at_leader("shop").await;
    let claims = (0..40).map(|number| {
        let mut groups = groups(&client);
        async move { groups.claim_partition(claim(&format!("group-{number}"))).await }
    });
    let answers = timeout(PATIENCE, join_all(claims)).await.unwrap();
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 38);
    for status in refused {
        assert_eq!(over_quota(&status).0, "groups");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_of_nothing_on_the_operators_tenant_does_not_keep_them_from_changing_it() {
    let cluster = cluster().await;
    let operator = cluster.client(0, OPERATOR_TENANT).await;
    let nothing = v1::Amounts {
        streams: Some(0),
        connections: Some(0),
        requests_per_second: Some(1),
        ..Default::default()
    };
    let change = |set: Option<v1::Amounts>, clear: &[&str]| v1::ChangeQuotaRequest {
        tenant: OPERATOR_TENANT.to_owned(),
        client: None,
        set,
        clear: clear.iter().map(|name| (*name).to_owned()).collect(),
    };
    access(&operator)
        .change_quota(change(Some(nothing), &[]))
        .await
        .unwrap();
    let mut others = cluster.client(0, OPERATOR_TENANT).await;
    let counts = async {
        while others
            .topics
            .list_topics(v1::ListTopicsRequest::default())
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counts).await.expect("the quota does not count");
    let clear = change(None, &["streams", "connections", "requests_per_second"]);
    access(&operator).change_quota(clear).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_refuses_is_not_paid_for() {
    let cluster = cluster().await;
    let limit = v1::Amounts {
        produce_bytes_per_second: Some(10_000),
        ..Default::default()
    };
    cluster.limit(None, limit).await;
    let follower = (cluster.leader_of("orders").await + 1) % 3;
    let mut client = cluster.client(follower, "shop").await;
    for _ in 0..4 {
        let refused = client.log.produce(batch_from(7, 0, 60_000)).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::NotLeader, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_the_gateway_forwards_are_held_back_by_their_quota() {
    let cluster = cluster().await;
    let mut client = cluster.client(0, "shop").await;
    let create = v1::CreateTopicRequest {
        topic: "lonely".to_owned(),
        partitions: 1,
        replication: 1,
        config: None,
    };
    client.topics.create_topic(create).await.unwrap();
    let holder = cluster.leader_of("lonely").await;
    let batch = v1::ProduceRequest {
        topic: "lonely".to_owned(),
        ..batch_from(8, 0, 60_000)
    };
    cluster.client(holder, "shop").await.log.produce(batch).await.unwrap();
    let limit = v1::Amounts {
        consume_bytes_per_second: Some(3_000),
        ..Default::default()
    };
    cluster.limit(None, limit).await;
    let mut http = cluster.http((holder + 1) % 3, "shop").await;
    let reading = async {
        for _ in 0..5 {
            let answer = http.get("/v1/topics/lonely/records?max=1").await;
            if answer.status != 200 {
                return Some(answer);
            }
        }
        None
    };
    let refused = timeout(PATIENCE, reading).await.unwrap().expect("it is never refused");
    assert_eq!(
        refused.refused(429, "QUOTA_EXCEEDED")["field"],
        "consume_bytes_per_second"
    );
}

/// Nodes `a` and `b` lead three partitions and one of a topic, and nothing else that the tenant has.
async fn led_three_to_one(cluster: &TestCluster) {
    let knows_settings =
        |catalog: &highwater_catalog::Catalog| catalog.feature_level() == highwater_catalog::FEATURE_LEVEL;
    cluster.until_everywhere("the rules are raised", knows_settings).await;
    let mut operator = cluster.client(0, OPERATOR_TENANT).await;
    let unbalanced = v1::UpdateSettingsRequest {
        balance: Some(false),
        ..Default::default()
    };
    operator.settings(unbalanced).await;
    let mut owner = cluster.client(0, "shop").await;
    let only = v1::DeleteTopicRequest {
        topic: "orders".to_owned(),
        topic_id: None,
    };
    owner.topics.delete_topic(only).await.unwrap();
    owner.create("wide", 4).await;
    for (partition, node) in [(0, "a"), (1, "a"), (2, "a"), (3, "b")] {
        let request = v1::TransferLeaderRequest {
            topic: "shop/wide".to_owned(),
            partition,
            node: node.to_owned(),
        };
        let transferring = async {
            // Whoever leads may change at any moment on a busy machine, and a replica may not be open yet.
            while operator.cluster.transfer_leader(request.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, transferring).await.expect("it does not lead");
    }
}

/// Produces without a pause to a partition, at the node that leads it, until it is dropped.
async fn flood(cluster: &TestCluster, number: usize, partition: u32, producer: u8) {
    let mut client = cluster.client(number, "shop").await;
    for sequence in 0.. {
        let batch = v1::ProduceRequest {
            topic: "wide".to_owned(),
            partition,
            ..batch_from(producer, sequence, 50_000)
        };
        // What is refused is what this is about.
        if client.log.produce(batch).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_divided_over_nodes_by_leaders_and_by_use_and_is_not_given_twice() {
    let cluster = cluster().await;
    led_three_to_one(&cluster).await;
    let quota = 400_000;
    let limit = v1::Amounts {
        produce_bytes_per_second: Some(quota),
        ..Default::default()
    };
    cluster.limit(None, limit).await;
    let rates = || {
        let nodes = cluster.nodes[..3].iter().flatten();
        let rates = nodes.map(|node| node.quotas().produce_rate("shop").unwrap_or_default());
        rates.collect::<Vec<u64>>()
    };
    // Nearly all of it is there for whoever comes first, and a twentieth by leaders: three of four, one of four, none.
    eventually("it is divided by leaders", || rates() == [395_000, 385_000, 380_000]).await;

    let is_shared = async {
        loop {
            let [first, second, idle] = rates()[..] else {
                unreachable!("three nodes")
            };
            let together = first + second;
            let is_whole = (quota * 9 / 10..=quota * 21 / 20).contains(&together);
            if is_whole && first.min(second) > quota / 5 && idle < quota / 10 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let floods = [(0, 0, 1), (0, 1, 2), (1, 3, 3), (1, 3, 4)];
    let floods = floods.map(|(number, partition, producer)| flood(&cluster, number, partition, producer));
    tokio::select! {
        shared = timeout(PATIENCE, is_shared) => shared.expect("both nodes together give more, or less, than the quota"),
        _ = join_all(floods) => unreachable!("a flood has no end"),
    }
}
