//! What is refused, how, and that nothing dies of it.

use super::*;
use highwater_proto::detail;
use tonic_health::pb::health_client::HealthClient;

async fn refused(cluster: &TestCluster, request: v1::ProduceRequest) -> Reason {
    cluster.produce("shop", request).await.unwrap_err()
}

fn get(topic: &str) -> v1::GetTopicRequest {
    v1::GetTopicRequest {
        topic: topic.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_call_gets_its_own_reason() {
    let cluster = TestCluster::founded().await;
    let mut client = cluster.client(0, "shop").await;
    let created = client.create("orders", 1).await;
    assert_eq!(
        refused(&cluster, batch_of("nowhere", 0, &["x"])).await,
        Reason::TopicNotFound
    );
    assert_eq!(
        refused(&cluster, batch_of("Not a name", 0, &["x"])).await,
        Reason::InvalidArgument
    );
    assert_eq!(
        refused(&cluster, batch_of("orders", 5, &["x"])).await,
        Reason::UnknownProducer
    );
    let mut request = batch_of("orders", 0, &["x"]);
    request.partition = 7;
    assert_eq!(refused(&cluster, request).await, Reason::PartitionNotFound);
    let mut request = batch_of("orders", 0, &["x"]);
    request.topic_id = Some(created.topic_id + 1);
    assert_eq!(refused(&cluster, request).await, Reason::TopicChanged);
    let large = "x".repeat(highwater_proto::limits::BATCH_BYTES_MAX);
    assert_eq!(
        refused(&cluster, batch_of("orders", 0, &[&large])).await,
        Reason::TooLarge
    );
    let mut request = batch_of("orders", 0, &["x"]);
    request.expected_offset = Some(4);
    assert_eq!(refused(&cluster, request).await, Reason::OffsetMismatch);

    let again = v1::CreateTopicRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(&client.topics.create_topic(again).await.unwrap_err()),
        Reason::TopicExists
    );
    let too_many = v1::CreateTopicRequest {
        topic: "wide".to_owned(),
        replication: 5,
        ..Default::default()
    };
    assert_eq!(
        reason(&client.topics.create_topic(too_many).await.unwrap_err()),
        Reason::NotEnoughNodes
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_topic_looks_like_none_and_a_node_is_not_a_client() {
    let cluster = TestCluster::founded().await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    let mut foreign = cluster.client(1, "thief").await;
    let there = foreign.topics.get_topic(get("shop/orders")).await.unwrap_err();
    let not_there = foreign.topics.get_topic(get("shop/nothing")).await.unwrap_err();
    assert_eq!(there.code(), not_there.code());
    assert_eq!(there.message().replace("orders", "nothing"), not_there.message());
    let taken = foreign
        .log
        .produce(batch_of("shop/orders", 0, &["x"]))
        .await
        .unwrap_err();
    assert_eq!(reason(&taken), Reason::TopicNotFound);
    let create = v1::CreateTopicRequest {
        topic: "shop/mine".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason(&foreign.topics.create_topic(create).await.unwrap_err()),
        Reason::PermissionDenied
    );
    let listed = foreign
        .topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(listed.topics.is_empty());
    assert!(foreign.describe().await.replicas.is_empty());

    let mut node = TestClient::connect(cluster.ports[0], cluster.ca.node_files(CLUSTER, "b")).await;
    let taken = node.log.produce(batch_of("orders", 0, &["x"])).await.unwrap_err();
    assert_eq!(reason(&taken), Reason::PermissionDenied);
    let described = node.cluster.describe_cluster(v1::DescribeClusterRequest {}).await;
    assert_eq!(reason(&described.unwrap_err()), Reason::PermissionDenied);
    let health = HealthClient::new(node.channel.clone())
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await;
    assert_eq!(health.unwrap().into_inner().status, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_call_ends_in_time_and_works_again_with_it() {
    let mut cluster = TestCluster::founded().await;
    let created = cluster.client(0, "shop").await.create("orders", 1).await;
    let leader = TestCluster::number(&created.partitions[0].leader);
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    for number in &others {
        cluster.stop(*number).await;
    }
    let mut client = cluster.client(leader, "shop").await;
    let mut request = tonic::Request::new(batch_of("orders", 0, &["x"]));
    request.set_timeout(Duration::from_secs(3));
    let refused = timeout(Duration::from_secs(6), client.log.produce(request))
        .await
        .unwrap()
        .unwrap_err();
    let reason = reason(&refused);
    assert!(
        matches!(reason, Reason::NoQuorum | Reason::UnknownOutcome),
        "{reason:?}"
    );
    for number in &others {
        cluster.start(*number).await;
    }
    let produced = cluster.produce("shop", batch_of("orders", 0, &["x"])).await;
    assert_eq!(produced.unwrap().base_offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_and_its_address() {
    let cluster = TestCluster::founded().await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    let hinted = async {
        for number in (0..3).cycle() {
            let mut client = cluster.client(number, "shop").await;
            let answered = client.log.produce(batch_of("orders", 0, &["x"])).await;
            let hint = answered.err().and_then(|status| detail::from_status(&status)?.leader);
            if let Some(hint) = hint {
                assert_ne!(hint.node, NAMES[number]);
                return hint;
            }
        }
        unreachable!("the cycle has no end");
    };
    let hint = timeout(PATIENCE, hinted).await.unwrap();
    assert_eq!(hint.address, cluster.config(TestCluster::number(&hint.node)).listen);
    assert!(hint.term > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_topic_that_is_deleted_are_told_so_at_once() {
    let cluster = TestCluster::founded().await;
    let mut client = cluster.client(0, "shop").await;
    let topic = client.create("orders", 1).await;
    let consume = |freshness| v1::ConsumeRequest {
        topic: "orders".to_owned(),
        topic_id: Some(topic.topic_id),
        freshness,
        ..Default::default()
    };
    let mut tail = client.log.consume(consume(None)).await.unwrap().into_inner();
    tail.message().await.unwrap().expect("the first response comes at once");
    let mut waiting = client.clone();
    let beyond = v1::Freshness {
        kind: Some(v1::freshness::Kind::MinOffset(1_000)),
    };
    let parked = waiting.log.consume(consume(Some(beyond)));
    let delete = async {
        let delete = v1::DeleteTopicRequest {
            topic: "orders".to_owned(),
            topic_id: None,
        };
        client.topics.delete_topic(delete).await.unwrap();
        tail.message().await.unwrap_err()
    };
    let both = futures::future::join(parked, delete);
    let (parked, tail) = timeout(Duration::from_secs(20), both)
        .await
        .expect("nobody waits for the deadline");
    assert_eq!(reason(&tail), Reason::TopicNotFound);
    assert!(matches!(
        reason(&parked.unwrap_err()),
        Reason::TopicNotFound | Reason::TopicChanged
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_limit_are_refused_with_a_detail_and_what_came_before_is_answered() {
    let cluster = TestCluster::founded().await;
    let mut client = cluster.client(0, "shop").await;
    client.create("orders", 1).await;
    let mut too_large = batch_of("orders", 0, &["x"]);
    too_large.batch = vec![0; highwater_proto::limits::MESSAGE_BYTES_MAX + 1].into();
    let refused = client.log.produce(too_large.clone()).await.unwrap_err();
    let limit = detail::from_status(&refused).unwrap().limit;
    assert_eq!((reason(&refused), limit), (Reason::TooLarge, Some(4 * 1024 * 1024)));
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);

    // On a stream, what came before is answered first.
    let requests = [batch_of("orders", 0, &["x"]), too_large];
    let sent = client.log.produce_stream(tokio_stream::iter(requests)).await.unwrap();
    let mut answers = sent.into_inner();
    assert_eq!(answers.message().await.unwrap().expect("an answer").request_id, 0);
    assert_eq!(reason(&answers.message().await.unwrap_err()), Reason::TooLarge);
}

/// A produce request with a field that nobody knows.
#[derive(Clone, PartialEq, prost::Message)]
struct PaddedRequest {
    #[prost(bytes = "vec", tag = "1999")]
    padding: Vec<u8>,
}

/// A stored batch keeps the message in memory that it came in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_mostly_padding_is_refused() {
    let cluster = TestCluster::founded().await;
    let client = cluster.client(0, "shop").await;
    let mut grpc = tonic::client::Grpc::new(client.channel);
    grpc.ready().await.unwrap();
    let request = PaddedRequest { padding: vec![1; 4096] };
    let codec = tonic_prost::ProstCodec::<PaddedRequest, v1::ProduceResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/highwater.v1.LogService/Produce");
    let refused = grpc.unary(tonic::Request::new(request), path, codec).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert_eq!(reason(&refused), Reason::InvalidArgument);
    assert!(refused.message().contains("not known here"), "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_is_gone_with_its_data_and_its_name_is_free() {
    let cluster = TestCluster::founded().await;
    let mut client = cluster.client(0, "shop").await;
    let first = client.create("orders", 1).await;
    let groups = |number: usize| {
        std::fs::read_dir(cluster.data_dir(number).join("groups"))
            .unwrap()
            .count()
    };
    let delete = v1::DeleteTopicRequest {
        topic: "orders".to_owned(),
        topic_id: Some(first.topic_id),
    };
    client.topics.delete_topic(delete.clone()).await.unwrap();
    assert_eq!(
        reason(&client.topics.get_topic(get("orders")).await.unwrap_err()),
        Reason::TopicNotFound
    );
    let only_the_catalog = async {
        while (0..3).any(|number| groups(number) != 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, only_the_catalog).await.unwrap();
    let second = client.create("orders", 1).await;
    assert_ne!(second.topic_id, first.topic_id);
    assert_eq!(
        reason(&client.topics.delete_topic(delete).await.unwrap_err()),
        Reason::TopicChanged
    );
}

/// What is committed and cannot be read ends every node, and again at each start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_catalog_s_nodes_could_not_read_is_never_proposed() {
    let cluster = TestCluster::founded().await;
    let mut client = cluster.client(0, OPERATOR_TENANT).await;
    client.create("orders", 1).await;
    // In JSON each of these takes six bytes.
    let huge = "\u{1}".repeat(1024 * 1024);
    let update = v1::UpdateTopicRequest {
        topic: "orders".to_owned(),
        leader_rack: Some(huge.clone()),
        ..Default::default()
    };
    let refused = client.topics.update_topic(update).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TooLarge, "{}", refused.message());
    let drain = v1::DrainNodeRequest {
        node: huge.clone(),
        undo: false,
        look: false,
    };
    let refused = client.cluster.drain_node(drain).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::NodeNotFound);

    let link = cluster.nodes[0].as_ref().unwrap().link();
    let decommission = |node: &str| highwater_catalog::Command::DecommissionNode {
        node: node.to_owned(),
        leaving: false,
    };
    for unreadable in [b"\x01{}".to_vec(), Vec::new(), decommission(&huge).encode()] {
        for node in ["b", "c"] {
            let body = vec![Bytes::from(unreadable.clone())];
            let asked = link.call_node(node, crate::peer_calls::COMMAND, body, PATIENCE).await;
            assert!(asked.is_err(), "{asked:?}");
        }
    }
    client.create("still", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_registers_no_other_node() {
    let cluster = TestCluster::founded().await;
    let link = cluster.nodes[0].as_ref().unwrap().link();
    let register = highwater_catalog::Command::RegisterNode {
        name: "c".to_owned(),
        incarnation: [9; 16],
        address: "localhost:1".to_owned(),
        rack: String::new(),
        version: String::new(),
        feature_level: 1,
        catalog_replica: None,
    };
    let body = vec![Bytes::from(register.encode())];
    let asked = link.call_node("b", crate::peer_calls::COMMAND, body, PATIENCE).await;
    let why = asked.expect_err("it is registered").to_string();
    assert!(why.contains("a asks to register c"), "{why}");
}
