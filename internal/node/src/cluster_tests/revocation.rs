//! What is taken from a client ends what it has open, on every node, wherever the change was made.

use futures::StreamExt;
use highwater_partition::log::GroupId;
use highwater_proto::v1::access_service_client::AccessServiceClient;
use highwater_proto::v1::group_service_client::GroupServiceClient;
use highwater_proto::v1::produce_stream_response::Result as Produced;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::access::{adding, cluster, grant, removing, rule};
use super::currency::end;
use super::gateway::with_topic;
use super::http_client::{HttpClient, request};
use super::quotas::batch_from;
use super::*;
use crate::test_node::eventually;

/// Whose rights are taken.
const CLIENT: &str = "other/tester";
/// What nobody takes from it is open for much longer.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn is_denied(status: &Status, what: &str) {
    assert_eq!(
        (status.code(), reason(status)),
        (Code::PermissionDenied, Reason::PermissionDenied),
        "{status}"
    );
    assert!(status.message().contains(what), "{status}");
}

fn from_beginning(topic: &str) -> v1::ConsumeRequest {
    v1::ConsumeRequest {
        topic: topic.to_owned(),
        ..Default::default()
    }
}

impl TestCluster {
    /// The group of a topic's only partition.
    fn only_group(&self, tenant: &str, topic: &str) -> GroupId {
        let host = self.nodes[0].as_ref().unwrap().host();
        let group = host.read(|catalog| {
            let topic = catalog.topic(tenant, topic);
            topic.map(|topic| topic.partitions[0].group_id)
        });
        GroupId(group.unwrap())
    }

    /// Waits until each of the first three nodes has opened its replica: a topic is made as soon as a majority has.
    async fn open_on_all(&self, tenant: &str, topic: &str) {
        let group = self.only_group(tenant, topic);
        let is_open = |node: &NodeHandle| node.registry().hosted(group).is_some();
        let are_open = || self.nodes[..3].iter().flatten().all(is_open);
        eventually("every replica is open", are_open).await;
    }

    /// Gives the client a role in the tenant of the topic, and waits until it counts.
    async fn give(&self, role: &str) {
        let given = grant(CLIENT, role, "shop");
        self.change("shop", adding(given)).await.unwrap();
        let counts = |catalog: &highwater_catalog::Catalog| {
            let mut grants = catalog.access().grants();
            grants.any(|grant| grant.client == CLIENT && grant.role == role)
        };
        self.until_everywhere("the grant", counts).await;
    }
}

/// A stream of batches, and the way to send more.
struct Sending {
    producing: mpsc::Sender<v1::ProduceRequest>,
    answers: Streaming<v1::ProduceStreamResponse>,
    topic: String,
    producer: u8,
}

impl Sending {
    /// Opens one and has it used, whether the node leads the topic or names the leader.
    async fn begin(client: &mut TestClient, topic: &str, producer: u8) -> Sending {
        let (producing, batches) = mpsc::channel(1);
        let answers = client.log.produce_stream(ReceiverStream::new(batches)).await.unwrap();
        let mut sending = Sending {
            producing,
            answers: answers.into_inner(),
            topic: topic.to_owned(),
            producer,
        };
        sending.goes_on().await;
        sending
    }

    async fn send(&self) {
        let batch = v1::ProduceRequest {
            topic: self.topic.clone(),
            ..batch_from(self.producer, 0, 100)
        };
        self.producing.send(batch).await.unwrap();
    }

    async fn answer(&mut self) -> Produced {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("an answer");
        answer.unwrap().unwrap().result.unwrap()
    }

    async fn goes_on(&mut self) {
        self.send().await;
        match self.answer().await {
            Produced::Appended(_) => {}
            Produced::Error(error) => assert_eq!(error.reason(), Reason::NotLeader, "{error:?}"),
        }
    }

    /// What it ends with, by itself.
    async fn end(self) -> Status {
        let ended = timeout(SOON, end(self.answers)).await.expect("it goes on");
        drop(self.producing);
        ended
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_are_cut_on_every_node_when_their_client_may_no_longer_read() {
    let cluster = cluster().await;
    cluster.produce("shop", batch_of("orders", 0, &["one"])).await.unwrap();
    let mut stranger = cluster.client(1, "other").await;
    let status = stranger.log.consume(from_beginning("shop/orders")).await.unwrap_err();
    assert_eq!(reason(&status), Reason::TopicNotFound);

    cluster.open_on_all("shop", "orders").await;
    cluster.give("consumer").await;
    let mut streams = Vec::new();
    for number in 0..3 {
        let mut client = cluster.client(number, "other").await;
        let mut stream = client
            .log
            .consume(from_beginning("shop/orders"))
            .await
            .unwrap()
            .into_inner();
        timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        streams.push(stream);
    }
    let taken = removing(grant(CLIENT, "consumer", "shop"));
    cluster.change("shop", taken).await.unwrap();
    for mut stream in streams {
        let status = loop {
            match timeout(SOON, stream.next()).await.expect("it goes on").unwrap() {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        is_denied(&status, "may not consume topic `shop/orders`");
        assert!(timeout(PATIENCE, stream.next()).await.unwrap().is_none(), "it goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_batches_are_cut_on_every_node_when_their_client_may_no_longer_produce() {
    let cluster = cluster().await;
    cluster.client(0, "other").await.create("own", 1).await;
    cluster.open_on_all("shop", "orders").await;
    cluster.open_on_all("other", "own").await;
    cluster.give("producer").await;
    let mut streams = Vec::new();
    for number in 0..3 {
        let mut client = cluster.client(number, "other").await;
        let foreign = Sending::begin(&mut client, "shop/orders", 1 + number as u8).await;
        let own = Sending::begin(&mut client, "own", 1 + number as u8).await;
        streams.push((foreign, own));
    }
    let taken = removing(grant(CLIENT, "producer", "shop"));
    cluster.change("shop", taken).await.unwrap();
    for (foreign, mut own) in streams {
        is_denied(&foreign.end().await, "may not produce topic `shop/orders`");
        own.goes_on().await;
    }

    let mut client = cluster.client(1, "other").await;
    let mut other = Sending::begin(&mut client, "own", 9).await;
    other.topic = "shop/orders".to_owned();
    for _ in 0..2 {
        other.send().await;
        match other.answer().await {
            Produced::Error(error) => assert_eq!(error.reason(), Reason::TopicNotFound),
            Produced::Appended(appended) => panic!("it is taken: {appended:?}"),
        }
    }
    other.topic = "own".to_owned();
    other.goes_on().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_batches_that_nobody_can_answer_is_cut_all_the_same() {
    let cluster = cluster().await;
    let mut owner = cluster.client(0, "shop").await;
    let create = v1::CreateTopicRequest {
        topic: "pair".to_owned(),
        partitions: 1,
        replication: 2,
        config: None,
    };
    let made = owner.topics.create_topic(create).await.unwrap().into_inner();
    let replicas = made.topic.unwrap().partitions.remove(0).replicas;
    cluster.give("producer").await;
    let leader = cluster.leader_of("pair").await;
    let follower = replicas.iter().find(|name| **name != NAMES[leader]).unwrap();
    let mut client = cluster.client(leader, "other").await;
    let sending = Sending::begin(&mut client, "shop/pair", 1).await;

    cluster.nodes[TestCluster::number(follower)]
        .as_ref()
        .unwrap()
        .link()
        .shutdown();
    let unanswered = v1::ProduceRequest {
        topic: sending.topic.clone(),
        ..batch_from(sending.producer, 1, 100)
    };
    sending.producing.send(unanswered).await.unwrap();
    let account = cluster.nodes[leader].as_ref().unwrap().quotas().tenant("other");
    eventually("the batch is proposed", || account.in_flight_bytes() > 0).await;
    let taking = async {
        // The catalog may need another leader first.
        while cluster
            .change_at(leader, "shop", removing(grant(CLIENT, "producer", "shop")))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, taking).await.expect("it cannot be taken");
    is_denied(&sending.end().await, "may not produce topic `shop/pair`");
}

fn join() -> v1::JoinGroupRequest {
    let join = v1::Join {
        topic: "shop/orders".to_owned(),
        group: "billing".to_owned(),
        member: "worker".to_owned(),
        session_ms: 120_000,
        release_ms: 60_000,
        ..Default::default()
    };
    v1::JoinGroupRequest {
        message: Some(v1::join_group_request::Message::Join(join)),
    }
}

/// What a place in the group ends with when `taken` comes into force at another node; past leaders that change.
async fn end_of_place(cluster: &TestCluster, taken: v1::PolicyChange, given: v1::PolicyChange) -> Status {
    let attempts = async {
        loop {
            cluster.change("shop", given.clone()).await.unwrap();
            let leader = cluster.leader_of("orders").await;
            let client = cluster.client(leader, "other").await;
            let mut groups = GroupServiceClient::new(client.channel.clone());
            let (joining, joins) = mpsc::channel(1);
            joining.send(join()).await.unwrap();
            let Ok(joined) = groups.join_group(ReceiverStream::new(joins)).await else {
                continue; // it does not know the grant yet, or leads no more
            };
            let mut joined = joined.into_inner();
            let Some(Ok(_assigned)) = joined.next().await else {
                continue;
            };
            cluster
                .change_at((leader + 1) % 3, "shop", taken.clone())
                .await
                .unwrap();
            let status = end(joined).await;
            if !matches!(
                reason(&status),
                Reason::NotLeader | Reason::NoQuorum | Reason::Unavailable
            ) {
                return status;
            }
        }
    };
    timeout(PATIENCE, attempts).await.expect("it keeps its place")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_in_a_group_ends_with_the_right_to_the_topic_and_with_that_to_the_group() {
    let cluster = cluster().await;
    let knows_groups =
        |catalog: &highwater_catalog::Catalog| catalog.feature_level() == highwater_catalog::FEATURE_LEVEL;
    cluster.until_everywhere("the rules are raised", knows_groups).await;
    let consumer = || grant(CLIENT, "consumer", "shop");
    let status = end_of_place(&cluster, removing(consumer()), adding(consumer())).await;
    is_denied(&status, "may not consume topic `shop/orders`");

    let denial = v1::Rule {
        deny: true,
        ..rule(CLIENT, "shop", "group:billing", "consume")
    };
    let taken = v1::PolicyChange {
        add_rules: vec![denial.clone()],
        ..Default::default()
    };
    let given = v1::PolicyChange {
        remove_rules: vec![denial],
        ..adding(consumer())
    };
    let status = end_of_place(&cluster, taken, given).await;
    is_denied(&status, "may not consume group `billing` of tenant `shop`");
}

/// Waits until a watch says that a topic is gone, in whatever way.
async fn until_gone(watch: &mut Streaming<v1::WatchClusterResponse>, topic_id: u64) {
    let seeing = async {
        loop {
            let told = watch.message().await.unwrap().expect("it ends");
            let is_left_out = told.full && told.topics.iter().all(|topic| topic.topic_id != topic_id);
            if is_left_out || told.removed_topic_ids.contains(&topic_id) {
                return;
            }
        }
    };
    timeout(SOON, seeing).await.expect("it is seen on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_without_the_topics_that_its_client_may_see_no_longer() {
    let cluster = cluster().await;
    let mut shop = cluster.client(0, "shop").await;
    let secret = shop.create("secret", 1).await.topic_id;
    let only_named = v1::PolicyChange {
        remove_grants: vec![grant("shop/*", "owner", "shop")],
        add_grants: vec![grant("shop/admin", "owner", "shop")],
        add_rules: vec![
            rule("shop/tester", "shop", "topic:orders", "*"),
            rule("shop/tester", "shop", "topic:secret", "*"),
        ],
        ..Default::default()
    };
    cluster.change("shop", only_named).await.unwrap();
    let mut watches = Vec::new();
    for number in 0..3 {
        let mut client = cluster.client(number, "shop").await;
        let watch = client.cluster.watch_cluster(v1::WatchClusterRequest {}).await;
        let mut watch = watch.unwrap().into_inner();
        let seeing = async {
            loop {
                let told = watch.message().await.unwrap().unwrap();
                if told.topics.iter().any(|topic| topic.topic_id == secret) {
                    return;
                }
            }
        };
        timeout(PATIENCE, seeing).await.expect("it is not seen");
        watches.push(watch);
    }
    let taken = v1::PolicyChange {
        remove_rules: vec![rule("shop/tester", "shop", "topic:secret", "*")],
        ..Default::default()
    };
    cluster.change(OPERATOR_TENANT, taken).await.unwrap();
    for watch in &mut watches {
        until_gone(watch, secret).await;
    }
}

/// Begins a read of what is not there yet, and waits until it waits at one of the replicas.
async fn waiting_read(cluster: &TestCluster, number: usize, target: &str, group: GroupId) -> HttpClient {
    let holds = || {
        let hosted = cluster.nodes.iter().flatten();
        let hosted = hosted.filter_map(|node| node.registry().hosted(group));
        hosted.map(|hosted| Arc::strong_count(&hosted)).sum::<usize>()
    };
    let mut client = cluster.http(number, "other").await;
    let before = holds();
    client.send(&request("GET", target, "")).await;
    // A read that waits holds its replica twice; one that was refused does not.
    eventually("the read waits", || holds() >= before + 2).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_the_gateway_that_wait_end_on_every_node_when_their_client_may_no_longer_read() {
    let (cluster, places) = with_topic().await;
    let is_set_up = |catalog: &highwater_catalog::Catalog| catalog.access().is_set_up();
    cluster.until_everywhere("the first policy", is_set_up).await;
    cluster.give("consumer").await;
    let group = cluster.only_group("shop", "orders");
    let holder = || {
        cluster.nodes[places.follower]
            .as_ref()
            .unwrap()
            .registry()
            .hosted(group)
    };
    eventually("the follower's replica is open", || holder().is_some()).await;
    let target = "/v1/topics/shop%2Forders/records?offset=100&wait_ms=30000";
    let mut waiting = Vec::new();
    for number in [places.leader, places.follower, places.outside] {
        waiting.push(waiting_read(&cluster, number, target, group).await);
    }
    let taken = removing(grant(CLIENT, "consumer", "shop"));
    cluster.change("shop", taken).await.unwrap();
    for client in &mut waiting {
        let error = client.answer().await.refused(403, "PERMISSION_DENIED");
        let why = error["message"].as_str().unwrap();
        assert!(why.contains("may not consume topic `shop/orders`"), "{why}");
    }
}

/// Its own topics, and what every client may: nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_suspended_loses_every_stream_on_every_node() {
    let cluster = cluster().await;
    cluster.client(0, "other").await.create("own", 1).await;
    cluster.open_on_all("other", "own").await;
    let group = cluster.only_group("other", "own");
    let (mut sent, mut consumed, mut watched, mut waiting) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..3 {
        let mut client = cluster.client(number, "other").await;
        sent.push(Sending::begin(&mut client, "own", 1 + number as u8).await);
        let reader = client.log.consume(from_beginning("own")).await;
        consumed.push(reader.unwrap().into_inner());
        let watch = client.cluster.watch_cluster(v1::WatchClusterRequest {}).await;
        watched.push(watch.unwrap().into_inner());
        let target = "/v1/topics/own/records?offset=100&wait_ms=30000";
        waiting.push(waiting_read(&cluster, number, target, group).await);
    }
    let mut operator = AccessServiceClient::new(cluster.client(0, OPERATOR_TENANT).await.channel);
    let suspend = v1::SuspendTenantRequest {
        tenant: "other".to_owned(),
        suspended: true,
    };
    operator.suspend_tenant(suspend).await.unwrap();
    let why = "may not do anything here: ";
    for sending in sent {
        is_denied(&sending.end().await, why);
    }
    for stream in consumed {
        is_denied(&timeout(SOON, end(stream)).await.expect("it goes on"), why);
    }
    for stream in watched {
        is_denied(&timeout(SOON, end(stream)).await.expect("it goes on"), why);
    }
    for client in &mut waiting {
        let error = client.answer().await.refused(403, "PERMISSION_DENIED");
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    }
}
