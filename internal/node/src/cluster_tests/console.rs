//! The console's interface: what it tells of a real cluster, and to whom.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::http_client::HttpClient;
use super::readiness::{ask, with_admin};
use super::*;

/// A cluster with consoles, and with records in `orders` of tenant `shop`.
async fn with_records(admin_listen: &'static str, console_records: bool) -> TestCluster {
    let mut cluster = TestCluster {
        admin_listen,
        console_records,
        ..with_admin()
    };
    cluster.found().await;
    cluster.client(0, "shop").await.create("orders", 2).await;
    let values = ["plain", "{\"a\":1}", "other"];
    cluster.produce("shop", batch_of("orders", 0, &values)).await.unwrap();
    cluster
}

async fn get(cluster: &TestCluster, number: usize, path: &str) -> (u16, Value) {
    let (code, text) = ask(cluster.nodes[number].as_ref().unwrap(), path).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Asks until the answer is as wanted.
async fn until(cluster: &TestCluster, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let (_, answer) = get(cluster, 0, path).await;
            if is_wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("{path} is never as wanted"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_tells_nodes_topics_and_that_a_node_is_gone_and_back() {
    let mut cluster = with_records("127.0.0.1:0", false).await;
    let whole =
        |answer: &Value| answer["topics"]["rows"][0]["incomplete"] == 0 && answer["topics"]["rows"][0]["records"] == 3;
    let topics = until(&cluster, "/api/v1/topics?search=ORD", whole).await;
    assert_eq!(topics["topics"]["rows"][0]["name"], "orders");
    let (_, topic) = get(&cluster, 0, "/api/v1/topics/shop/orders").await;
    assert_eq!(topic["partitions"]["total"], 2, "{topic}");
    let replicas = topic["partitions"]["rows"][0]["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3, "{topic}");
    // How full the disk of this machine is, is no matter of the test.
    let is_of_disk = |finding: &Value| {
        finding["what"]
            .as_str()
            .is_some_and(|what| what.starts_with("The disk of"))
    };
    let settled = |answer: &Value| {
        answer["findings"]
            .as_array()
            .is_some_and(|all| all.iter().all(is_of_disk))
    };
    let calm = until(&cluster, "/api/v1/cluster", settled).await;
    assert_eq!(
        (calm["nodes"].as_array().unwrap().len(), &calm["viewer"]),
        (3, &Value::from(""))
    );

    cluster.stop(2).await;
    let is_told = |answer: &Value| {
        let findings = answer["findings"].as_array();
        findings.is_some_and(|all| {
            all.iter()
                .any(|finding| finding["about"] == "c" && finding["severity"] == "critical")
        })
    };
    until(&cluster, "/api/v1/cluster", is_told).await;
    cluster.start(2).await;
    until(&cluster, "/api/v1/cluster", settled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_policy_and_wrong_questions() {
    let cluster = with_records("127.0.0.1:0", false).await;
    let has_policy = |answer: &Value| answer["has_policy"] == true;
    until(&cluster, "/api/v1/access", has_policy).await;
    let (_, tenants) = get(&cluster, 0, "/api/v1/tenants?search=sho").await;
    assert_eq!(tenants["tenants"]["rows"][0]["partitions"], 2, "{tenants}");
    let (_, tenant) = get(&cluster, 0, "/api/v1/tenants/shop").await;
    let uses = tenant["uses"].as_array().unwrap();
    assert!(
        uses.iter().any(|row| row["limit"] == "topics" && row["used"] == 1),
        "{tenant}"
    );
    let (_, access) = get(&cluster, 0, "/api/v1/access?tenant=shop").await;
    assert!(access["grants_in_all"].as_u64().unwrap() > 0, "{access}");
    let (_, groups) = get(&cluster, 0, "/api/v1/groups").await;
    assert_eq!(groups["groups"]["total"], 0, "{groups}");
    for (path, code) in [
        ("/api/v1/topics?sort=name", 400),
        ("/api/v1/topics?page=x", 400),
        ("/api/v1/topics/shop/none", 404),
        ("/api/v1/tenants/nobody", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/tail?tenant=shop&topic=orders", 403), // the settings do not turn it on
    ] {
        assert_eq!(get(&cluster, 0, path).await.0, code, "{path}");
    }
}

/// A tail that is followed.
struct Tail(BufReader<TcpStream>);

impl Tail {
    async fn follow(cluster: &TestCluster, query: &str) -> Tail {
        Tail::follow_with(cluster, query, "").await
    }

    /// The same with further lines of the head.
    async fn follow_with(cluster: &TestCluster, query: &str, lines: &str) -> Tail {
        let address = cluster.nodes[0].as_ref().unwrap().admin_address().unwrap();
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let request = format!("GET /api/v1/tail?{query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Tail(stream)
    }

    /// What comes next, up to a line that has `wanted`.
    async fn until(&mut self, wanted: &str) -> String {
        let mut told = String::new();
        let reading = async {
            while !told.contains(wanted) {
                assert_ne!(self.0.read_line(&mut told).await.unwrap(), 0, "{told}");
            }
        };
        let read = timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "no {wanted}: {told}");
        told
    }
}

/// The first events of a tail, until one says where it stands.
async fn tail(cluster: &TestCluster, query: &str) -> String {
    Tail::follow(cluster, query).await.until("event: position").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_begins_where_it_is_told_filters_and_never_shows_the_audit() {
    let cluster = with_records("127.0.0.1:0", true).await;
    let whole = |answer: &Value| answer["partitions"]["rows"][0]["replicas"][0]["log_end"] == 3;
    until(&cluster, "/api/v1/topics/shop/orders", whole).await;
    // This replica may still be about to learn what is committed.
    let seen = async {
        loop {
            let told = tail(&cluster, "tenant=shop&topic=orders&partition=0&back=2").await;
            if told.contains("records\":[") {
                return told;
            }
        }
    };
    let told = timeout(PATIENCE, seen).await.unwrap();
    assert!(
        told.contains("text/event-stream") && told.contains("\"kind\":\"json\""),
        "{told}"
    );
    assert!(told.contains("other") && !told.contains("plain\""), "{told}");
    let filtered = tail(&cluster, "tenant=shop&topic=orders&partition=0&back=3&contains=pla").await;
    assert!(filtered.contains("plain") && !filtered.contains("other"), "{filtered}");
    for query in [
        "tenant=system&topic=audit",
        "tenant=shop",
        "tenant=shop&topic=orders&back=501",
    ] {
        let (code, _) = get(&cluster, 0, &format!("/api/v1/tail?{query}")).await;
        assert!((400..=413).contains(&code), "{query}: {code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filtered_tail_tells_where_it_stands_though_nothing_fits() {
    let cluster = with_records("127.0.0.1:0", true).await;
    let query = "tenant=shop&topic=orders&partition=0&back=0&contains=needle";
    let mut tail = Tail::follow(&cluster, query).await;
    tail.until("event: position").await;
    let hay = ["hay", "more hay"];
    cluster.produce("shop", batch_of("orders", 1, &hay)).await.unwrap();
    let told = tail.until("id: 0:5").await;
    assert!(
        !told.contains("event: records") && !told.contains("event: skipped"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_comes_again_goes_on_where_it_was_told_that_it_stood() {
    let cluster = with_records("127.0.0.1:0", true).await;
    let whole = |answer: &Value| answer["partitions"]["rows"][0]["replicas"][0]["log_end"] == 3;
    until(&cluster, "/api/v1/topics/shop/orders", whole).await;
    let query = "tenant=shop&topic=orders&partition=0&back=3";
    // As browsers do by themselves.
    let mut tail = Tail::follow_with(&cluster, query, "Last-Event-ID: 0:2\r\n").await;
    let told = tail.until("id: 0:3").await;
    assert!(told.contains("other") && !told.contains("plain"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elsewhere_the_console_is_for_operators_and_records_for_whoever_may_consume() {
    let cluster = with_records("0.0.0.0:0", true).await;
    let port = cluster.nodes[0].as_ref().unwrap().admin_address().unwrap().port();
    let connect = async |tenant: &str| HttpClient::connect(port, cluster.ca.client_files(tenant, "tester")).await;
    let mut shop = connect("shop").await;
    let refused = shop.get("/api/v1/cluster").await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let mut node = HttpClient::connect(port, cluster.ca.node_files(CLUSTER, "b")).await;
    assert_eq!(node.get("/api/v1/cluster").await.status, 403);
    let mut operator = connect(OPERATOR_TENANT).await;
    let told = operator.get("/api/v1/cluster").await;
    assert_eq!(
        (told.status, &told.json["viewer"]),
        (200, &Value::from("ops/tester")),
        "{told:?}"
    );
    // An operator of the cluster is nobody to the tenant.
    let refused = operator.get("/api/v1/tail?tenant=shop&topic=orders").await;
    assert!([403, 404].contains(&refused.status), "{refused:?}");
}
