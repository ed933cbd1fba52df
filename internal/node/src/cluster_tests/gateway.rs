//! The JSON gateway on every kind of node: the leader, a follower, and one without a replica.

use bytes::BufMut;
use highwater_partition::log::GroupId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::http_client::{HttpAnswer, HttpClient, request};
use super::*;
use crate::peer_calls::GATEWAY;
use crate::test_node::eventually;

/// A topic's leader, a follower, and a node that has nothing of it.
pub(super) struct Places {
    pub(super) leader: usize,
    pub(super) follower: usize,
    pub(super) outside: usize,
}

/// Four nodes and a topic of one partition on three of them.
pub(super) async fn with_topic() -> (TestCluster, Places) {
    let mut cluster = TestCluster::founded().await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let created = cluster.client(0, "shop").await.create("orders", 1).await;
    let partition = &created.partitions[0];
    let holds = |number: &usize| partition.replicas.iter().any(|node| node == NAMES[*number]);
    let leader = TestCluster::number(&partition.leader);
    let follower = (0..4).filter(holds).find(|number| *number != leader).unwrap();
    let outside = (0..4).find(|number| !holds(number)).unwrap();
    let places = Places {
        leader,
        follower,
        outside,
    };
    (cluster, places)
}

impl TestCluster {
    pub(super) async fn http(&self, number: usize, tenant: &str) -> HttpClient {
        HttpClient::connect(self.ports[number], self.ca.client_files(tenant, "tester")).await
    }
}

pub(super) fn records(values: &[&str]) -> Value {
    use base64::Engine;
    let encode = |value: &&str| json!({ "value": base64::engine::general_purpose::STANDARD.encode(value) });
    json!({ "records": values.iter().map(encode).collect::<Vec<Value>>() })
}

/// Appends until a leader has taken it: on a busy machine one may be elected at any moment. What was certainly not
/// applied, or has a producer's number, may be sent again.
async fn appended(client: &mut HttpClient, body: &Value) -> Value {
    let attempts = async {
        loop {
            let answer = client.post("orders", body).await;
            if !is_worth_another(&answer, body) {
                return answer.ok("Appended");
            }
        }
    };
    timeout(PATIENCE, attempts).await.unwrap()
}

fn is_worth_another(answer: &HttpAnswer, body: &Value) -> bool {
    answer.status == 503 || (answer.status == 409 && body.get("producer_id").is_some())
}

/// The topic's group, as that node knows it.
fn group_of(cluster: &TestCluster, number: usize) -> GroupId {
    let host = cluster.nodes[number].as_ref().unwrap().host();
    let group = host.read(|catalog| {
        let topic = catalog.topic("shop", "orders");
        topic.map(|topic| topic.partitions[0].group_id)
    });
    GroupId(group.unwrap())
}

fn values_and_end(answer: &Value) -> (Vec<&str>, u64) {
    let records = answer["records"].as_array().unwrap();
    let values = records.iter().map(|record| record["value"].as_str().unwrap()).collect();
    (values, answer["next_offset"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_appends_and_every_node_reads_them() {
    let (cluster, places) = with_topic().await;
    let mut offsets = Vec::new();
    for number in [places.leader, places.follower, places.outside] {
        let mut client = cluster.http(number, "shop").await;
        // Twice on one connection.
        for value in ["one", "two"] {
            let answer = appended(&mut client, &records(&[value, ""])).await;
            assert_eq!((&answer["partition"], &answer["duplicate"]), (&json!(0), &json!(false)));
            offsets.push(answer["base_offset"].as_u64().unwrap());
        }
    }
    assert!(offsets.is_sorted() && offsets[0] == 0, "{offsets:?}");
    for number in [places.leader, places.follower, places.outside] {
        let mut client = cluster.http(number, "shop").await;
        let target = format!(
            "/v1/topics/shop%2Forders/records?offset={}&max=1&wait_ms=30000",
            offsets[5]
        );
        let one = client.get(&target).await.ok("Records");
        assert_eq!(
            values_and_end(&one),
            (vec!["dHdv"], offsets[5] + 1),
            "on {}",
            NAMES[number]
        );
        let all = client.get("/v1/topics/orders/records").await.ok("Records");
        assert!(values_and_end(&all).0.starts_with(&["b25l", "", "dHdv", ""]), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_numbered_append_may_be_sent_again_through_any_node_and_conditions_are_kept() {
    let (cluster, places) = with_topic().await;
    let mut body = records(&["once"]);
    body["producer_id"] = "00112233445566778899aabbccddeeff".into();
    body["sequence"] = 0.into();
    body["partition"] = 0.into();
    for number in [places.outside, places.leader, places.follower, places.outside] {
        let mut client = cluster.http(number, "shop").await;
        assert_eq!(appended(&mut client, &body).await["base_offset"], 0);
    }
    let mut client = cluster.http(places.outside, "shop").await;
    assert_eq!(appended(&mut client, &body).await["duplicate"], true);

    body["sequence"] = 5.into();
    let gap = refused(&mut client, &body, 409, "SEQUENCE_GAP").await;
    assert_eq!(
        (&gap["expected_sequence"], &gap["outcome"]),
        (&json!(1), &json!("NOT_APPLIED"))
    );
    let mut conditional = records(&["x"]);
    conditional["partition"] = 0.into();
    conditional["expected_offset"] = 0.into();
    let mismatch = refused(&mut client, &conditional, 412, "OFFSET_MISMATCH").await;
    assert_eq!(mismatch["range"]["high_watermark"], 1);
    conditional["expected_offset"] = 1.into();
    assert_eq!(appended(&mut client, &conditional).await["base_offset"], 1);
}

/// The refusal, past moments without a leader.
async fn refused(client: &mut HttpClient, body: &Value, status: u16, reason: &str) -> Value {
    let attempts = async {
        loop {
            let answer = client.post("orders", body).await;
            if answer.status != 503 {
                return answer.refused(status, reason);
            }
        }
    };
    timeout(PATIENCE, attempts).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waits_wakes_with_an_append_and_ends_with_its_node() {
    let (mut cluster, places) = with_topic().await;
    let (follower, leader) = (places.follower, places.leader);
    let group = group_of(&cluster, follower);
    let wait = |offset: u64| {
        request(
            "GET",
            &format!("/v1/topics/orders/records?offset={offset}&wait_ms=30000"),
            "",
        )
    };
    let mut waiting = cluster.http(follower, "shop").await;
    let opened = || cluster.nodes[follower].as_ref().unwrap().registry().hosted(group);
    // A topic is made as soon as a majority of its replicas is open.
    eventually("its replica is open", || opened().is_some()).await;
    let hosted = opened().unwrap();
    let unused = Arc::strong_count(&hosted);
    // A read holds the replica.
    let is_read = || Arc::strong_count(&hosted) >= unused + 2;
    waiting.send(&wait(0)).await;
    eventually("the read waits", is_read).await;
    let mut client = cluster.http(leader, "shop").await;
    let offset = appended(&mut client, &records(&["woken"])).await["base_offset"]
        .as_u64()
        .unwrap();
    let woken = waiting.answer().await.ok("Records");
    assert_eq!(woken["records"][0]["value"], "d29rZW4=");

    waiting.send(&wait(offset + 100)).await;
    eventually("the read waits again", is_read).await;
    let mut silent = cluster.http(follower, "shop").await;
    let mut idle = cluster.http(follower, "shop").await;
    idle.get("/v1").await.ok("Index");
    drop(hosted);
    let stopped = cluster.nodes[follower].take().unwrap();
    let (answer, ()) = futures::future::join(waiting.answer(), Box::pin(stopped.shutdown())).await;
    assert_eq!(answer.header("connection"), Some("close"));
    answer.refused(503, "UNAVAILABLE");
    for connection in [&mut waiting, &mut silent, &mut idle] {
        assert!(connection.is_closed().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_status_reason_and_place_on_every_node() {
    let (cluster, places) = with_topic().await;
    cluster.client(0, "shop").await.create("wide", 8).await;
    for number in [places.leader, places.outside] {
        let mut client = cluster.http(number, "shop").await;
        wrong_appends(&mut client).await;
        for (target, status, reason) in [
            ("nowhere/records", 404, "TOPIC_NOT_FOUND"),
            ("orders/records?partition=1", 404, "PARTITION_NOT_FOUND"),
            ("orders/records?max=10001", 413, "TOO_LARGE"),
            ("orders/records?offest=1", 400, "INVALID_ARGUMENT"),
        ] {
            let target = format!("/v1/topics/{target}");
            client.get(&target).await.refused(status, reason);
        }
    }
}

async fn wrong_appends(client: &mut HttpClient) {
    let mut elsewhere = records(&["x"]);
    elsewhere["partition"] = 7.into();
    let large = records(&[&"x".repeat(1024 * 1024)]);
    let apart = json!({"records": [{"key": "MQ==", "value": ""}, {"key": "Mg==", "value": ""}]});
    for (topic, body, status, reason, field) in [
        (
            "orders",
            json!({ "records": [] }),
            400,
            "INVALID_ARGUMENT",
            json!("record_count"),
        ),
        ("nowhere", records(&["x"]), 404, "TOPIC_NOT_FOUND", Value::Null),
        ("Upper", records(&["x"]), 400, "INVALID_ARGUMENT", json!("topic")),
        ("orders", elsewhere, 404, "PARTITION_NOT_FOUND", Value::Null),
        ("orders", large, 413, "TOO_LARGE", json!("batch")),
        ("wide", apart, 400, "INVALID_ARGUMENT", json!("records")),
    ] {
        let error = client.post(topic, &body).await.refused(status, reason);
        assert_eq!(error["field"], field, "{topic}: {error}");
        if status == 413 {
            assert_eq!(error["limit"], 1024 * 1024);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_told_what_there_is() {
    let (cluster, places) = with_topic().await;
    let mut client = cluster.http(places.leader, "shop").await;
    let error = client.get("/v2").await.refused(404, "PATH_NOT_FOUND");
    assert!(
        error["paths"].as_array().unwrap().contains(&json!("/v1/openapi.json")),
        "{error}"
    );
    client.send(&request("DELETE", "/v1/topics/orders/records", "")).await;
    let answer = client.answer().await;
    assert_eq!(answer.header("allow"), Some("get, post"));
    answer.refused(405, "METHOD_NOT_ALLOWED");
    client
        .send(&request("POST", "/v1/topics/orders/records", "{\"records\": 7}"))
        .await;
    let error = client.answer().await.refused(400, "INVALID_ARGUMENT");
    assert!(
        error["message"].as_str().unwrap().contains("line 1 column 13"),
        "{error}"
    );
    client.get("/v1/openapi.json").await.ok("Description");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_over_the_limit_are_refused_whether_they_say_so_before_or_not() {
    let (cluster, places) = with_topic().await;
    let too_much = 4 * 1024 * 1024 + 1;
    let mut told = cluster.http(places.leader, "shop").await;
    told.send(&request("POST", "/v1/topics/orders/records", &"x".repeat(too_much)))
        .await;
    let error = told.answer().await.refused(413, "TOO_LARGE");
    assert_eq!(
        (&error["field"], &error["limit"]),
        (&json!("body"), &json!(too_much - 1))
    );

    let mut untold = cluster.http(places.leader, "shop").await;
    let head = "POST /v1/topics/orders/records HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = format!("{head}{too_much:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(too_much));
    untold.send(&body).await;
    untold.answer().await.refused(413, "TOO_LARGE");

    // Whoever waits to be asked for a body is told without sending it.
    let mut waiting = cluster.http(places.leader, "shop").await;
    let head = "POST /v1/topics/orders/records HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n";
    waiting.send(&format!("{head}content-length: {too_much}\r\n\r\n")).await;
    waiting.answer().await.refused(413, "TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_authorised_here_and_again_where_they_are_sent() {
    let (cluster, places) = with_topic().await;
    for number in [places.leader, places.follower, places.outside] {
        let mut thief = cluster.http(number, "thief").await;
        thief
            .post("shop%2Forders", &records(&["x"]))
            .await
            .refused(404, "TOPIC_NOT_FOUND");
        thief
            .get("/v1/topics/shop%2Forders/records")
            .await
            .refused(404, "TOPIC_NOT_FOUND");
        thief
            .get("/v1/topics/shop%2Fnothing/records")
            .await
            .refused(404, "TOPIC_NOT_FOUND");
        let files = cluster.ca.node_files(CLUSTER, "intruder");
        let mut node = HttpClient::connect(cluster.ports[number], files).await;
        node.post("orders", &records(&["x"]))
            .await
            .refused(403, "PERMISSION_DENIED");
        node.get("/v1/topics/orders/records")
            .await
            .refused(403, "PERMISSION_DENIED");
    }
    let forward = async |to: usize, identity: &str, method: &str| {
        let target = "/v1/topics/shop%2Forders/records";
        let head =
            json!({ "identity": identity, "method": method, "target": target, "time_left_ms": 60_000, "partition": 0 });
        forwarded(&cluster, places.outside, to, &head, &records(&["x"])).await
    };
    let client = |tenant: &str| format!("spiffe://{CLUSTER}/tenant/{tenant}/client/app");
    for method in ["GET", "POST"] {
        let (status, body) = forward(places.leader, &client("thief"), method).await.unwrap();
        assert_eq!((status, &body["error"]["reason"]), (404, &json!("TOPIC_NOT_FOUND")));
        for nobody in [
            format!("spiffe://{CLUSTER}/node/a"),
            "spiffe://else/tenant/shop/client/app".to_owned(),
        ] {
            let why = forward(places.leader, &nobody, method).await.unwrap_err();
            assert!(why.contains("is no client of this cluster"), "{why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_passed_on_once_is_not_passed_on_again() {
    let (cluster, places) = with_topic().await;
    let group = group_of(&cluster, places.leader);
    let head = json!({
        "identity": format!("spiffe://{CLUSTER}/tenant/shop/client/app"), "method": "POST",
        "target": "/v1/topics/orders/records", "time_left_ms": 60_000, "partition": 0
    });
    // Nobody, as long as the replica there is not open: a topic is made as soon as a majority of them are.
    let leads = |number: usize| {
        let hosted = cluster.nodes[number].as_ref().unwrap().registry().hosted(group);
        hosted.map_or((0, None), |hosted| hosted.believed_leader())
    };
    let refused = async {
        loop {
            let before = leads(places.follower);
            let is_follower =
                |leader: &Option<String>| leader.as_deref().is_some_and(|name| name != NAMES[places.follower]);
            let answer = forwarded(&cluster, places.outside, places.follower, &head, &records(&["x"])).await;
            // On a busy machine it may be elected at any moment, and takes the append itself then.
            if is_follower(&before.1) && leads(places.follower) == before {
                return answer.unwrap();
            }
        }
    };
    let (status, body) = timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(
        (status, &body["error"]["outcome"]),
        (503, &json!("NOT_APPLIED")),
        "{body}"
    );
    assert!(
        ["NOT_LEADER", "NO_QUORUM"].contains(&body["error"]["reason"].as_str().unwrap()),
        "{body}"
    );
}

/// Sends what a gateway would, as the node `from`.
pub(super) async fn forwarded(
    cluster: &TestCluster,
    from: usize,
    to: usize,
    head: &Value,
    body: &Value,
) -> Result<(u64, Value), String> {
    let head = head.to_string();
    let mut message = Vec::new();
    message.put_u32_le(head.len() as u32);
    message.put_slice(head.as_bytes());
    message.put_slice(body.to_string().as_bytes());
    let link = cluster.nodes[from].as_ref().unwrap().link();
    let deadline = Instant::now() + PATIENCE;
    let called = link
        .call_node_in_bulk(NAMES[to], GATEWAY, vec![message.into()], deadline, deadline)
        .await;
    let answer = called.map_err(|error| error.to_string())?;
    let length = u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize;
    let head: Value = serde_json::from_slice(&answer[4..4 + length]).unwrap();
    let body = serde_json::from_slice(&answer[4 + length..]).unwrap();
    Ok((head["status"].as_u64().unwrap(), body))
}
