//! Quotas in a whole cluster: what is too much is held back, says why, and does not touch anybody else.

use futures::future::join_all;
use futures::{StreamExt, stream};
use highwater_catalog::Limit;
use highwater_proto::detail;
use highwater_proto::v1::access_service_client::AccessServiceClient;
use highwater_proto::v1::produce_stream_response::Result as Outcome;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::groups::{claim, groups};
use super::*;

/// Three nodes with a policy, and topic `orders` of tenant `shop` with one partition.
pub(super) async fn cluster() -> TestCluster {
    let cluster = TestCluster::founded().await;
    let is_set_up = |catalog: &highwater_catalog::Catalog| catalog.access().is_set_up();
    cluster.until_everywhere("the first policy", is_set_up).await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    cluster
        .produce("shop", batch_of("orders", 0, &["first"]))
        .await
        .unwrap();
    cluster
}

pub(super) fn access(client: &TestClient) -> AccessServiceClient<Channel> {
    AccessServiceClient::new(client.channel.clone())
}

impl TestCluster {
    pub(super) async fn limit(&self, client: Option<&str>, set: v1::Amounts) {
        self.relimit(client, set, &[]).await;
    }

    async fn relimit(&self, client: Option<&str>, set: v1::Amounts, clear: &[Limit]) {
        let request = v1::ChangeQuotaRequest {
            tenant: "shop".to_owned(),
            client: client.map(str::to_owned),
            set: Some(set),
            clear: clear.iter().map(|limit| limit.name().to_owned()).collect(),
        };
        let operator = self.client(0, OPERATOR_TENANT).await;
        access(&operator).change_quota(request).await.unwrap();
        // Of `*`, too, it is the client of these tests that has it.
        let client = client.map(|_| "tester");
        let counts = |node: &NodeHandle| {
            let in_force = node.quotas().in_force("shop", client);
            Limit::ALL.into_iter().all(|limit| {
                let wanted = amount(&set, limit);
                let is_set = in_force.get(&limit).copied();
                wanted.is_none_or(|wanted| is_set == Some(wanted)) && !(clear.contains(&limit) && is_set.is_some())
            })
        };
        let waiting = async {
            while !self.nodes.iter().flatten().all(counts) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the quota is in force");
    }

    async fn described(&self, number: usize) -> v1::DescribeTenantResponse {
        let operator = self.client(number, OPERATOR_TENANT).await;
        let request = v1::DescribeTenantRequest {
            tenant: "shop".to_owned(),
        };
        access(&operator).describe_tenant(request).await.unwrap().into_inner()
    }

    /// A client of the tenant at the leader of its topic.
    pub(super) async fn at_leader(&self, tenant: &str) -> TestClient {
        self.client(self.leader_of("orders").await, tenant).await
    }

    pub(super) async fn leader_of(&self, topic: &str) -> usize {
        let mut client = self.client(0, "shop").await;
        let request = v1::GetTopicRequest {
            topic: topic.to_owned(),
        };
        let finding = async {
            loop {
                let found = client.topics.get_topic(request.clone()).await.unwrap().into_inner();
                let partition = found.topic.unwrap().partitions.remove(0);
                if !partition.leader.is_empty() {
                    return TestCluster::number(&partition.leader);
                }
            }
        };
        timeout(PATIENCE, finding).await.expect("no leader")
    }
}

/// The limit that it names, what it is, and after which time to come back.
pub(super) fn over_quota(status: &Status) -> (String, u64, Option<u64>) {
    let detail = detail::from_status(status).unwrap_or_else(|| panic!("no detail in {status:?}"));
    assert_eq!(detail.reason(), Reason::QuotaExceeded, "{status}");
    assert_eq!(detail.outcome(), v1::Outcome::NotApplied);
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    (detail.field, detail.limit.unwrap(), detail.retry_after_ms)
}

fn amount(amounts: &v1::Amounts, limit: Limit) -> Option<u64> {
    match limit {
        Limit::ProduceBytesPerSecond => amounts.produce_bytes_per_second,
        Limit::ConsumeBytesPerSecond => amounts.consume_bytes_per_second,
        Limit::RequestsPerSecond => amounts.requests_per_second,
        Limit::Connections => amounts.connections,
        Limit::Streams => amounts.streams,
        Limit::Topics => amounts.topics,
        Limit::Partitions => amounts.partitions,
        Limit::Groups => amounts.groups,
        Limit::StoredBytes => amounts.stored_bytes,
    }
}

fn produce_rate(bytes: u64) -> v1::Amounts {
    v1::Amounts {
        produce_bytes_per_second: Some(bytes),
        ..Default::default()
    }
}

/// A batch of about so many bytes, from a producer of its own.
pub(super) fn batch_from(producer: u8, sequence: u64, bytes: usize) -> v1::ProduceRequest {
    let mut request = batch_of("orders", sequence, &["x".repeat(bytes).as_str()]);
    request.producer_id = Bytes::from(vec![producer; 16]);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_delayed_and_refused_with_a_time_to_come_back_and_others_notice_nothing() {
    let cluster = cluster().await;
    cluster.limit(None, produce_rate(100_000)).await;
    let client = cluster.at_leader("shop").await;
    let flood = (1..=60).map(|producer| {
        let mut log = client.log.clone();
        async move { log.produce(batch_from(producer, 0, 50_000)).await }
    });
    let mut other = cluster.client(0, OPERATOR_TENANT).await;
    other.create("elsewhere", 1).await;
    // More than the flood's quota, and beside it.
    let neighbours = async {
        for sequence in 0..3 {
            let batch = batch_of("elsewhere", sequence, &["x".repeat(200_000).as_str()]);
            cluster.produce(OPERATOR_TENANT, batch).await.unwrap();
        }
    };
    let flooding = timeout(PATIENCE, join_all(flood));
    let (answers, ()) = tokio::join!(flooding, neighbours);
    let answers = answers.unwrap();
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!taken.is_empty() && taken.len() < 30, "{} of 60 pass", taken.len());
    for status in refused.into_iter().filter_map(Result::err) {
        let (field, limit, retry_after_ms) = over_quota(&status);
        assert_eq!((field.as_str(), limit), ("produce_bytes_per_second", 100_000));
        assert!(retry_after_ms.is_some_and(|after| after > 0), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_no_faster_than_its_quota_and_refuses_nothing_by_itself() {
    let cluster = cluster().await;
    cluster.limit(None, produce_rate(200_000)).await;
    let mut client = cluster.at_leader("shop").await;
    let begin = Instant::now();
    let requests = (0..14).map(|sequence| batch_from(9, sequence, 50_000));
    let mut answers = client
        .log
        .produce_stream(stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut delays_ms = Vec::new();
    while let Some(answer) = timeout(PATIENCE, answers.next()).await.unwrap() {
        match answer.unwrap().result.unwrap() {
            Outcome::Appended(appended) => delays_ms.push(appended.quota_delay_ms),
            Outcome::Error(detail) => panic!("{detail:?}"),
        }
    }
    assert_eq!(delays_ms.len(), 14);
    assert_eq!(delays_ms[0], 0, "there is room for more");
    assert!(delays_ms[13] > 0, "the caller is told: {delays_ms:?}");
    // 700 KB, of which a second's worth may come at once, and one batch on credit.
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_one_tenant_share_its_quota_and_each_batch_is_answered() {
    let cluster = cluster().await;
    cluster.limit(Some("tester"), produce_rate(100_000)).await;
    let client = cluster.at_leader("shop").await;
    let streams = (1..=12).map(|producer| {
        let mut log = client.log.clone();
        let requests = (0..3).map(move |sequence| batch_from(producer, sequence, 50_000));
        async move {
            let mut answers = log.produce_stream(stream::iter(requests)).await.unwrap().into_inner();
            let mut refused = 0;
            for _ in 0..3 {
                let answer = answers.next().await.expect("an answer to each").unwrap();
                match answer.result.unwrap() {
                    Outcome::Appended(_) => {}
                    Outcome::Error(detail) if detail.reason() == Reason::QuotaExceeded => {
                        assert!(detail.message.contains("client shop/tester"), "{}", detail.message);
                        assert!(detail.retry_after_ms.is_some());
                        refused += 1;
                    }
                    // One before it was refused.
                    Outcome::Error(detail) => assert!(
                        [Reason::UnknownProducer, Reason::SequenceGap].contains(&detail.reason()),
                        "{detail:?}"
                    ),
                }
            }
            refused
        }
    });
    let refused: Vec<u32> = timeout(PATIENCE, join_all(streams)).await.unwrap();
    assert!(refused.iter().sum::<u32>() > 0, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_no_more_than_its_quota_but_all_of_it() {
    let cluster = cluster().await;
    for sequence in 0..8 {
        cluster.produce("shop", batch_from(3, sequence, 50_000)).await.unwrap();
    }
    let consume_bytes_per_second = Some(100_000);
    let limit = v1::Amounts {
        consume_bytes_per_second,
        ..Default::default()
    };
    cluster.limit(None, limit).await;
    let mut client = cluster.at_leader("shop").await;
    let begin = Instant::now();
    let request = v1::ConsumeRequest {
        topic: "orders".to_owned(),
        bytes_max: 50_000,
        ..Default::default()
    };
    let mut batches = client.log.consume(request).await.unwrap().into_inner();
    let mut records = 0;
    while records < 9 {
        records += values_of(&timeout(PATIENCE, batches.next()).await.unwrap().unwrap().unwrap()).len();
    }
    // 400 KB, of which a second's worth may go at once, and the last batch is not waited for.
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_connections_and_streams_are_limited_each_by_itself() {
    let cluster = cluster().await;
    let limit = v1::Amounts {
        connections: Some(1),
        ..Default::default()
    };
    cluster.limit(Some("*"), limit).await;
    let mut first = cluster.client(0, "shop").await;
    let list = v1::ListTopicsRequest::default;
    wait_for_room(&mut first).await;
    let mut second = cluster.client(0, "shop").await;
    let (field, limit, retry_after_ms) = over_quota(&second.topics.list_topics(list()).await.unwrap_err());
    assert_eq!((field.as_str(), limit), ("connections", 1));
    assert!(retry_after_ms.is_some());
    drop(first);
    wait_for_room(&mut second).await;

    let limit = v1::Amounts {
        streams: Some(2),
        ..Default::default()
    };
    cluster.limit(Some("*"), limit).await;
    let watch = v1::WatchClusterRequest::default;
    let mut watches = vec![second.cluster.watch_cluster(watch()).await.unwrap().into_inner()];
    watches.push(second.cluster.watch_cluster(watch()).await.unwrap().into_inner());
    let (field, ..) = over_quota(&second.cluster.watch_cluster(watch()).await.unwrap_err());
    assert_eq!(field, "streams");
    drop(watches);
    wait_for_room(&mut second).await;

    let limit = v1::Amounts {
        requests_per_second: Some(3),
        ..Default::default()
    };
    cluster.relimit(Some("*"), limit, &[Limit::Streams]).await;
    let calls = (0..40).map(|_| {
        let mut topics = second.topics.clone();
        async move { topics.list_topics(v1::ListTopicsRequest::default()).await }
    });
    let refused: Vec<String> = timeout(PATIENCE, join_all(calls))
        .await
        .unwrap()
        .into_iter()
        .filter_map(Result::err)
        .map(|status| over_quota(&status).0)
        .collect();
    assert!(!refused.is_empty());
    assert!(
        refused.iter().all(|field| field == "requests_per_second"),
        "{refused:?}"
    );
}

/// Until a call passes: connections and calls that have ended are noticed in a moment.
async fn wait_for_room(client: &mut TestClient) {
    let waiting = async {
        while client
            .topics
            .list_topics(v1::ListTopicsRequest::default())
            .await
            .is_err()
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("no room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tenant_owns_is_limited_and_told_without_a_time_to_come_back() {
    let cluster = cluster().await;
    let limit = v1::Amounts {
        topics: Some(1),
        groups: Some(1),
        ..Default::default()
    };
    cluster.limit(None, limit).await;
    let mut client = cluster.at_leader("shop").await;
    let create = v1::CreateTopicRequest {
        topic: "more".to_owned(),
        ..Default::default()
    };
    let refused = client.topics.create_topic(create).await.unwrap_err();
    assert_eq!(over_quota(&refused), ("topics".to_owned(), 1, None));

    groups(&client).claim_partition(claim("billing")).await.unwrap();
    groups(&client).claim_partition(claim("billing")).await.unwrap();
    let refused = groups(&client).claim_partition(claim("audit")).await.unwrap_err();
    assert_eq!(over_quota(&refused), ("groups".to_owned(), 1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_partitions_are_full_may_read_and_can_be_given_more_room() {
    let cluster = cluster().await;
    let stored = |bytes| v1::Amounts {
        stored_bytes: Some(bytes),
        ..Default::default()
    };
    cluster.limit(None, stored(100_000)).await;
    let filling = async {
        for sequence in 0.. {
            let mut client = cluster.at_leader("shop").await;
            if let Err(status) = client.log.produce(batch_from(5, sequence, 50_000)).await
                && reason(&status) == Reason::QuotaExceeded
            {
                return (sequence, over_quota(&status));
            }
            sleep(Duration::from_millis(50)).await;
        }
        unreachable!("there are always more numbers");
    };
    let (sequence, (field, limit, _)) = timeout(PATIENCE, filling).await.expect("it is never full");
    assert_eq!((field.as_str(), limit), ("stored_bytes", 100_000));
    let mut client = cluster.at_leader("shop").await;
    let request = v1::ConsumeRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    let mut batches = client.log.consume(request).await.unwrap().into_inner();
    assert!(!values_of(&batches.next().await.unwrap().unwrap()).is_empty());

    cluster.limit(None, stored(1 << 30)).await;
    let again = async {
        while client.log.produce(batch_from(5, sequence, 50_000)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("it stays full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_is_told_for_the_whole_cluster_to_those_who_may_see_the_tenant() {
    let cluster = cluster().await;
    cluster.limit(Some("tester"), produce_rate(1_000_000)).await;
    let clients = [cluster.client(0, "shop").await, cluster.client(1, "shop").await];
    let mut watches = Vec::new();
    for client in &clients {
        let mut nodes = client.cluster.clone();
        let watch = nodes.watch_cluster(v1::WatchClusterRequest::default()).await;
        watches.push(watch.unwrap().into_inner());
    }
    let seeing = async {
        loop {
            let described = cluster.described(2).await;
            let used = described.used.unwrap();
            // Connections of earlier calls may not have ended yet.
            if used.connections >= Some(2) && used.streams >= Some(2) {
                return described;
            }
        }
    };
    let described = timeout(PATIENCE, seeing).await.expect("the use of both nodes");
    let used = described.used.unwrap();
    assert_eq!((used.topics, used.partitions, used.groups), (Some(1), Some(1), Some(0)));
    assert!(used.stored_bytes > Some(0), "{used:?}");
    let tester = described
        .clients
        .iter()
        .find(|client| client.client == "tester")
        .unwrap();
    assert_eq!(tester.quota.unwrap().produce_bytes_per_second, Some(1_000_000));
    assert_eq!(described.quota, Some(v1::Amounts::default()));

    let request = |tenant: &str| v1::DescribeTenantRequest {
        tenant: tenant.to_owned(),
    };
    assert!(
        access(&clients[0]).describe_tenant(request("shop")).await.is_ok(),
        "an owner"
    );
    let strangers = cluster.client(0, "strangers").await;
    let forbidden = access(&strangers).describe_tenant(request("shop")).await.unwrap_err();
    let absent = access(&strangers).describe_tenant(request("absent")).await.unwrap_err();
    assert_eq!(
        (reason(&forbidden), reason(&absent)),
        (Reason::PermissionDenied, Reason::PermissionDenied)
    );
    let change = v1::ChangeQuotaRequest {
        tenant: "shop".to_owned(),
        set: Some(produce_rate(u64::MAX)),
        ..Default::default()
    };
    let refused = access(&clients[0]).change_quota(change.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PermissionDenied, "an owner is no operator");
    let operator = cluster.client(0, OPERATOR_TENANT).await;
    let refused = access(&operator).change_quota(change).await.unwrap_err();
    let detail = detail::from_status(&refused).unwrap();
    assert_eq!(
        (detail.reason(), detail.field.as_str()),
        (Reason::InvalidArgument, "produce_bytes_per_second")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_keeps_to_the_same_quotas() {
    let cluster = cluster().await;
    cluster.limit(None, produce_rate(10_000)).await;
    let mut client = cluster.http(cluster.leader_of("orders").await, "shop").await;
    let body = super::gateway::records(&["x".repeat(20_000).as_str()]);
    let flooding = async {
        loop {
            let answer = client.post("orders", &body).await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let answer = timeout(PATIENCE, flooding).await.expect("it is never refused");
    let error = answer.refused(429, "QUOTA_EXCEEDED");
    assert_eq!(error["field"], "produce_bytes_per_second");
    assert!(error["retry_after_ms"].as_u64() > Some(0), "{error}");
}
