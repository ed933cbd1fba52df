//! What the JSON gateway does not take on: what it could not answer, what is too much, and what others have forgotten.

use serde_json::json;

use super::gateway::{forwarded, records, with_topic};
use super::http_client::request;
use super::*;

fn client(tenant: &str) -> String {
    format!("spiffe://{CLUSTER}/tenant/{tenant}/client/tester")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_time_for_an_answer_is_not_begun() {
    let (cluster, places) = with_topic().await;
    let target = "/v1/topics/orders/records";
    for time_left_ms in [0, 200] {
        let head = json!({ "identity": client("shop"), "method": "POST", "target": target, "time_left_ms": time_left_ms, "partition": 0 });
        let answer = forwarded(&cluster, places.outside, places.leader, &head, &records(&["x"])).await;
        let (status, body) = answer.unwrap();
        assert_eq!(
            (status, &body["error"]["reason"]),
            (429, &json!("OVERLOADED")),
            "{body}"
        );
        assert_eq!(body["error"]["outcome"], "NOT_APPLIED");
    }
    let mut client = cluster.http(places.leader, "shop").await;
    let end = client
        .get("/v1/topics/orders/records?offset=latest")
        .await
        .ok("Records");
    assert_eq!(end["next_offset"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_passed_on_counts_where_it_is_received_and_for_its_client_only() {
    let (cluster, places) = with_topic().await;
    let call = |tenant: &str| {
        let target = "/v1/topics/orders/records?offset=0&wait_ms=30000";
        json!({ "identity": client(tenant), "method": "GET", "target": target, "time_left_ms": 60_000, "partition": null })
    };
    // Reads hold what came with them for as long as they wait. Five times as much is more than a client may have.
    let (own, body) = (call("shop"), json!("x".repeat(7 * 1024 * 1024)));
    let senders = [
        places.outside,
        places.outside,
        places.outside,
        places.follower,
        places.follower,
    ];
    let reads = senders.map(|from| Box::pin(forwarded(&cluster, from, places.leader, &own, &body)));
    let (first, _, waiting) = timeout(PATIENCE, futures::future::select_all(reads)).await.unwrap();
    let (status, answer) = first.unwrap();
    assert_eq!(
        (status, &answer["error"]["reason"], &answer["error"]["outcome"]),
        (429, &json!("OVERLOADED"), &json!("NOT_APPLIED"))
    );
    let other = forwarded(&cluster, places.outside, places.leader, &call("other"), &body).await;
    let (status, answer) = other.unwrap();
    assert_eq!(
        (status, &answer["error"]["reason"]),
        (404, &json!("TOPIC_NOT_FOUND")),
        "another client is served"
    );
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_site_appends_nothing_and_may_read_nothing() {
    let (cluster, places) = with_topic().await;
    let mut client = cluster.http(places.leader, "shop").await;
    let body = records(&["x"]).to_string();
    let length = body.len();
    for line in ["sec-fetch-site: cross-site", "origin: https://evil.example"] {
        let head = format!("POST /v1/topics/orders/records HTTP/1.1\r\nhost: localhost\r\n{line}\r\n");
        client
            .send(&format!("{head}content-length: {length}\r\n\r\n{body}"))
            .await;
        let error = client.answer().await.refused(403, "PERMISSION_DENIED");
        assert_eq!(error["outcome"], "NOT_APPLIED");
        client = cluster.http(places.leader, "shop").await;
    }
    let head =
        "GET /v1/topics/orders/records?offset=latest HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n";
    client.send(&format!("{head}\r\n")).await;
    let answer = client.answer().await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.ok("Records")["next_offset"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_again_takes_the_appends_of_those_who_bring_no_producer() {
    let (cluster, places) = with_topic().await;
    let append = request("POST", "/v1/topics/orders/records", &records(&["x"]).to_string());
    let mut admin = cluster.client(0, "shop").await;
    for round in 0..4 {
        // Side by side, so that whichever node leads is left with several idle producers.
        let mut clients = Vec::new();
        for number in [places.leader, places.follower, places.outside].repeat(3) {
            clients.push(cluster.http(number, "shop").await);
        }
        for client in &mut clients {
            client.send(&append).await;
        }
        let mut appended = 0;
        for client in &mut clients {
            let answer = client.answer().await;
            // On a busy machine the topic's leader may change at any moment.
            let is_of_the_moment = answer.status == 503 || answer.json["error"]["reason"] == "UNKNOWN_OUTCOME";
            assert!(answer.status == 200 || is_of_the_moment, "in round {round}: {answer:?}");
            appended += u32::from(answer.status == 200);
        }
        assert!(appended > 0, "in round {round}");
        let delete = v1::DeleteTopicRequest {
            topic: "orders".to_owned(),
            topic_id: None,
        };
        admin.topics.delete_topic(delete).await.unwrap();
        admin.create("orders", 1).await;
    }
}
