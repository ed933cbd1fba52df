//! What the JSON gateway does not take on: what it could not answer, and what is too much.

use serde_json::json;

use super::gateway::{forwarded, records, with_topic};
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
