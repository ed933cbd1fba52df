//! What the audit keeps: every administrative act once, every refusal, in chains that prove that nothing is missing.

use highwater_catalog::names::SYSTEM_TENANT;
use highwater_proto::v1::access_service_client::AccessServiceClient;
use tonic::Status;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::trail::{AUDIT, Line, assert_chained, count};
use super::*;
use crate::services::{ACTS, METHODS};

const SERVICES: &str = "/highwater.v1.";
/// As many calls as no client makes in good faith in that time.
const FLOOD: u64 = 300;

/// Calls a method by its name, whatever kind of method it is, and waits for its first answer.
async fn call<T>(client: &TestClient, service: &str, method: &str, request: T) -> Result<(), Status>
where
    T: Message + Default + 'static,
{
    let path = format!("{SERVICES}{service}/{method}").parse().unwrap();
    let mut grpc = Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<T, ()>::default();
    let called = grpc.server_streaming(tonic::Request::new(request), path, codec);
    timeout(PATIENCE, called)
        .await
        .unwrap()?
        .into_inner()
        .message()
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_administrative_method_leaves_one_record_and_no_other_method_any() {
    let cluster = TestCluster::audited().await;
    for (tenant, is_operator) in [(OPERATOR_TENANT, true), ("strangers", false)] {
        let client = cluster.client(0, tenant).await;
        let before = cluster.trail().await.len();
        for (service, method, _) in METHODS {
            // Without the loss accepted it only looks.
            let called = match method {
                "RecoverPartition" => {
                    let request = v1::RecoverPartitionRequest {
                        accept_loss: true,
                        ..Default::default()
                    };
                    call(&client, service, method, request).await
                }
                _ => call(&client, service, method, ()).await,
            };
            if ACTS.contains(&(service, method)) && method != "UpdateSettings" {
                assert!(called.is_err(), "{method} of an empty request");
            }
        }
        let last = ("TopicService", "DeleteTopic");
        assert_eq!(ACTS.last(), Some(&last), "its record is behind all others");
        let lines = cluster
            .until_trail("the last act", |lines| count(&lines[before..], "act", last.1) > 0)
            .await;
        let of_tenant = |line: &&Line| line.text("who") == format!("spiffe://{CLUSTER}/tenant/{tenant}/client/tester");
        let new: Vec<Line> = lines[before..].iter().filter(of_tenant).cloned().collect();
        for (_, method, _) in METHODS {
            let is_act = ACTS.iter().any(|(_, act)| *act == method);
            assert_eq!(count(&new, "act", method), usize::from(is_act), "{method}");
        }
        let refused: Vec<&str> = new
            .iter()
            .filter(|line| line.text("kind") == "denied")
            .map(|line| line.text("what"))
            .collect();
        match is_operator {
            true => assert!(refused.is_empty(), "{refused:?}"),
            // Of the whole policy, of all tenants, and of what is no tenant.
            false => assert_eq!(refused, ["admin", "admin", "admin"]),
        }
        assert_chained(&lines);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_says_who_did_what_to_what_where_and_what_came_of_it() {
    let cluster = TestCluster::audited().await;
    for (number, node) in NAMES[..3].iter().enumerate() {
        let topic = format!("orders-{node}");
        cluster.client(number, "shop").await.create(&topic, 2).await;
        // It was answered when its record was written, also by nodes that do not lead the audit's partition.
        let lines = cluster.trail().await;
        let created: Vec<&Line> = lines
            .iter()
            .filter(|line| line.text("target").contains(&topic))
            .collect();
        assert_eq!(created.len(), 1, "{lines:#?}");
        let line = created[0];
        assert!(line.is("act", "CreateTopic"), "{line:?}");
        assert_eq!(
            line.text("who"),
            format!("spiffe://{CLUSTER}/tenant/shop/client/tester")
        );
        assert_eq!(
            line.text("target"),
            format!("topic shop/{topic}: partitions 2, replication 3")
        );
        assert_eq!((line.text("node"), line.text("outcome")), (*node, "done"));
        assert!(line.text("from").starts_with("127.0.0.1:"), "{line:?}");
    }
    let again = v1::CreateTopicRequest {
        topic: "orders-a".to_owned(),
        ..Default::default()
    };
    cluster
        .client(0, "shop")
        .await
        .topics
        .create_topic(again)
        .await
        .unwrap_err();
    let foreign = v1::DeleteTopicRequest {
        topic: "shop/orders-a".to_owned(),
        topic_id: None,
    };
    cluster
        .client(0, "thief")
        .await
        .topics
        .delete_topic(foreign)
        .await
        .unwrap_err();
    let mut access = AccessServiceClient::new(cluster.client(1, "shop").await.channel);
    let policy = v1::GetPolicyRequest {
        tenant: "shop".to_owned(),
    };
    let version = access.get_policy(policy).await.unwrap().into_inner().version;
    let grant = v1::Grant {
        client: "other/tester".to_owned(),
        role: "viewer".to_owned(),
        domain: "shop".to_owned(),
    };
    let change = v1::ChangePolicyRequest {
        expected_version: version,
        change: Some(v1::PolicyChange {
            add_grants: vec![grant],
            ..Default::default()
        }),
    };
    access.change_policy(change).await.unwrap();
    let lines = cluster.trail().await;
    let found = |what: &str, outcome: &str| {
        let found: Vec<&Line> = lines
            .iter()
            .filter(|line| line.is("act", what) && line.text("outcome") == outcome)
            .collect();
        assert_eq!(found.len(), 1, "{what} {outcome}: {lines:#?}");
        (found[0].text("target").to_owned(), found[0].text("why").to_owned())
    };
    let (_, why) = found("CreateTopic", "refused");
    assert_eq!(why, "topic `shop/orders-a` exists already");
    let (_, why) = found("DeleteTopic", "refused");
    assert_eq!(
        why,
        "may not manage topic `shop/orders-a`: no rule allows it; answered as if it did not exist"
    );
    let (target, _) = found("ChangePolicy", "done");
    assert_eq!(target, "policy: + g, other/tester, viewer, shop");
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_calls_and_cut_streams_are_recorded_with_the_true_reason_and_looking_around_is_not() {
    let cluster = TestCluster::audited().await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    let mut other = cluster.client(1, "other").await;
    other.create("secret", 1).await;
    let deny = v1::Rule {
        subject: "other/tester".to_owned(),
        domain: "other".to_owned(),
        resource: "topic:secret".to_owned(),
        action: "*".to_owned(),
        deny: true,
    };
    let change = v1::PolicyChange {
        add_rules: vec![deny],
        ..Default::default()
    };
    cluster.change("other", change).await.unwrap();
    let hidden = async {
        while !other
            .topics
            .list_topics(v1::ListTopicsRequest::default())
            .await
            .unwrap()
            .get_ref()
            .topics
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, hidden).await.expect("it stays in the list");
    other.describe().await;
    let watched = other.cluster.watch_cluster(v1::WatchClusterRequest {}).await;
    timeout(PATIENCE, watched.unwrap().into_inner().message())
        .await
        .unwrap()
        .unwrap();
    let mut thief = cluster.client(1, "thief").await;
    let consume = || v1::ConsumeRequest {
        topic: "shop/orders".to_owned(),
        ..Default::default()
    };
    let status = thief.log.consume(consume()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::TopicNotFound);
    let answer = cluster
        .http(2, "thief")
        .await
        .post("shop%2Forders", &super::gateway::records(&["x"]))
        .await;
    assert_eq!(answer.status, 404, "{answer:?}");
    let mut node = TestClient::connect(cluster.ports[0], cluster.ca.node_files(CLUSTER, "intruder")).await;
    node.topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap_err();

    let lines = cluster.until_trail("three refusals", |lines| {
        lines.iter().filter(|line| line.text("kind") == "denied").count() == 3
    });
    let lines = lines.await;
    let denied: Vec<&Line> = lines.iter().filter(|line| line.text("kind") == "denied").collect();
    let of = |what: &str| {
        let found: Vec<&&Line> = denied.iter().filter(|line| line.text("what") == what).collect();
        assert_eq!(found.len(), 1, "{what}: {denied:#?}");
        found[0]
    };
    let hidden = "no rule allows it; answered as if it did not exist";
    for (what, node) in [("consume", "b"), ("produce", "c")] {
        let line = of(what);
        assert_eq!((line.text("target"), line.text("why")), ("topic `shop/orders`", hidden));
        assert_eq!(
            line.text("who"),
            format!("spiffe://{CLUSTER}/tenant/thief/client/tester")
        );
        assert_eq!((line.text("node"), line.text("outcome")), (node, "refused"));
    }
    assert_eq!(of("describe").text("who"), format!("spiffe://{CLUSTER}/node/intruder"));

    // A stream that is open when its tenant is suspended.
    let mut reader = cluster.client(0, "shop").await;
    let own = v1::ConsumeRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    let mut stream = reader.log.consume(own).await.unwrap().into_inner();
    timeout(PATIENCE, stream.message()).await.unwrap().unwrap();
    let mut operator = AccessServiceClient::new(cluster.client(0, OPERATOR_TENANT).await.channel);
    let suspend = v1::SuspendTenantRequest {
        tenant: "shop".to_owned(),
        suspended: true,
    };
    operator.suspend_tenant(suspend).await.unwrap();
    timeout(PATIENCE, stream.message()).await.unwrap().unwrap_err();
    let lines = cluster
        .until_trail("a cut stream", |lines| count(lines, "cut", "consume") == 1)
        .await;
    let cut = lines.iter().find(|line| line.text("kind") == "cut").unwrap();
    assert_eq!(
        (cut.text("target"), cut.text("why")),
        ("topic `shop/orders`", "the tenant is suspended")
    );
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_write_the_audit_and_only_operators_and_whom_they_let_read_it() {
    let cluster = TestCluster::audited().await;
    let mut operator = cluster.client(0, OPERATOR_TENANT).await;
    let status = operator.log.produce(batch_of(AUDIT, 0, &["forged"])).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied);
    let create = |topic: &str| v1::CreateTopicRequest {
        topic: topic.to_owned(),
        ..Default::default()
    };
    let status = operator.topics.create_topic(create("system/other")).await.unwrap_err();
    assert_eq!(reason(&status), Reason::Refused);
    let delete = v1::DeleteTopicRequest {
        topic: AUDIT.to_owned(),
        topic_id: None,
    };
    let status = operator.topics.delete_topic(delete.clone()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::Refused);
    let update = |retention_ms, partitions| v1::UpdateTopicRequest {
        topic: AUDIT.to_owned(),
        retention_ms,
        partitions,
        ..Default::default()
    };
    operator
        .topics
        .update_topic(update(Some(1_000_000_000), None))
        .await
        .unwrap();
    let status = operator.topics.update_topic(update(None, Some(2))).await.unwrap_err();
    assert_eq!(reason(&status), Reason::Refused);
    let mut tenants = AccessServiceClient::new(operator.channel.clone());
    let name = || SYSTEM_TENANT.to_owned();
    let suspend = v1::SuspendTenantRequest {
        tenant: name(),
        suspended: true,
    };
    assert_eq!(
        reason(&tenants.suspend_tenant(suspend).await.unwrap_err()),
        Reason::Refused
    );
    let remove = v1::DeleteTenantRequest {
        tenant: name(),
        delete_topics: true,
        confirm_name: name(),
    };
    assert_eq!(
        reason(&tenants.delete_tenant(remove).await.unwrap_err()),
        Reason::Refused
    );
    let make = v1::CreateTenantRequest {
        tenant: name(),
        clients_role: None,
    };
    assert_eq!(reason(&tenants.create_tenant(make).await.unwrap_err()), Reason::Refused);

    let consume = || v1::ConsumeRequest {
        topic: AUDIT.to_owned(),
        ..Default::default()
    };
    let mut auditor = cluster.client(0, "other").await;
    let status = auditor.log.consume(consume()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::TopicNotFound);
    assert_eq!(
        reason(&auditor.topics.delete_topic(delete).await.unwrap_err()),
        Reason::TopicNotFound
    );
    let policy = tenants
        .get_policy(v1::GetPolicyRequest::default())
        .await
        .unwrap()
        .into_inner();
    let grants = ["other/tester", "system/tester"].map(|client| v1::Grant {
        client: client.to_owned(),
        role: "owner".to_owned(),
        domain: name(),
    });
    let change = v1::ChangePolicyRequest {
        expected_version: policy.version,
        change: Some(v1::PolicyChange {
            add_grants: grants.to_vec(),
            ..Default::default()
        }),
    };
    tenants.change_policy(change).await.unwrap();
    auditor.log.consume(consume()).await.unwrap();
    let status = auditor.log.produce(batch_of(AUDIT, 0, &["forged"])).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied, "also for an owner");
    let status = auditor.topics.update_topic(update(Some(1), None)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied, "also for an owner");

    let mut nobody = cluster.client(0, SYSTEM_TENANT).await;
    let status = nobody.log.consume(consume()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PermissionDenied);
    assert!(status.message().contains("has no clients"), "{status}");
    assert_chained(&cluster.trail().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_are_recorded_once_while_the_audits_leader_goes_away_and_chains_go_on_over_restarts() {
    let mut cluster = TestCluster::audited().await;
    let leader = cluster.audit_leader().await;
    let other = (0..3).find(|number| *number != leader).unwrap();
    let client = cluster.client(other, "shop").await;
    let acting = tokio::spawn(async move {
        for number in 0..60 {
            // Each attempt is an act, and has to be recorded, whatever comes of it.
            let request = v1::DeleteTopicRequest {
                topic: format!("absent-{number}"),
                topic_id: None,
            };
            client.clone().topics.delete_topic(request).await.unwrap_err();
        }
    });
    cluster.stop(leader).await;
    timeout(PATIENCE, acting).await.unwrap().unwrap();
    cluster.start(leader).await;
    cluster.ready(leader).await;
    let lines = cluster.until_trail("all of it", |lines| {
        count(lines, "act", "DeleteTopic") >= 60 && count(lines, "started", "start") == 4
    });
    let lines = lines.await;
    for number in 0..60 {
        let target = format!("topic shop/absent-{number}");
        let found = lines.iter().filter(|line| line.text("target") == target).count();
        assert_eq!(found, 1, "{target}");
    }
    assert_chained(&lines);
    let own: Vec<&Line> = lines.iter().filter(|line| line.key == NAMES[leader]).collect();
    let again = own.iter().rposition(|line| line.text("kind") == "started").unwrap();
    let (before, former) = (own[again - 1], &own[again].json["former"]);
    assert_eq!(former["boot"], before.json["boot"]);
    assert_eq!(former["number"], before.json["number"], "it was stopped in order");
    assert_eq!(former["hash"], before.hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_sent_again_as_its_answer_was_lost_is_there_once() {
    let cluster = TestCluster::audited().await;
    let leader = cluster.audit_leader().await;
    for number in 0..3 {
        let ledger = cluster.nodes[leader].as_ref().unwrap().ledger();
        ledger.answers_lost.store(3, std::sync::atomic::Ordering::SeqCst);
        let request = v1::DeleteTopicRequest {
            topic: format!("absent-{number}"),
            topic_id: None,
        };
        let mut client = cluster.client(number, "shop").await;
        client.topics.delete_topic(request).await.unwrap_err();
    }
    let lines = cluster
        .until_trail("all acts", |lines| count(lines, "act", "DeleteTopic") >= 3)
        .await;
    for number in 0..3 {
        let target = format!("topic shop/absent-{number}");
        let found = lines.iter().filter(|line| line.text("target") == target).count();
        assert_eq!(found, 1, "{target}");
    }
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_flood_of_refusals_few_are_recorded_and_all_are_counted() {
    let cluster = TestCluster::audited().await;
    let get = || v1::GetTopicRequest {
        topic: "shop/orders".to_owned(),
    };
    let thief = cluster.client(0, "thief").await;
    let refused = (0..FLOOD).map(|_| {
        let mut thief = thief.clone();
        async move { thief.topics.get_topic(get()).await.unwrap_err() }
    });
    timeout(PATIENCE, futures::future::join_all(refused)).await.unwrap();
    // The next one of somebody else tells what was not recorded.
    cluster
        .client(0, "other")
        .await
        .topics
        .get_topic(get())
        .await
        .unwrap_err();
    let is_told = |lines: &[Line]| {
        let denied = lines.iter().filter(|line| line.text("kind") == "denied");
        let told: u64 = denied.map(|line| 1 + line.number("suppressed")).sum();
        told > FLOOD
    };
    let lines = cluster.until_trail("the number of what was suppressed", is_told).await;
    let denied: Vec<&Line> = lines.iter().filter(|line| line.text("kind") == "denied").collect();
    let told: u64 = denied.iter().map(|line| 1 + line.number("suppressed")).sum();
    assert_eq!(told, FLOOD + 1);
    assert!((denied.len() as u64) < FLOOD / 2, "{} records", denied.len());
    assert_chained(&lines);
}
