//! Who is not let in is recorded as well.

use highwater_proto::v1::access_service_client::AccessServiceClient;
use highwater_proto::v1::group_service_client::GroupServiceClient;

use super::access::grant;
use super::trail::{Line, assert_chained, count};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_prove_nothing_or_the_wrong_thing_are_recorded() {
    let cluster = TestCluster::audited().await;
    let stranger = TestCa::new();
    let expired = crate::test_ca::Wanted {
        uris: vec![format!("spiffe://{CLUSTER}/tenant/shop/client/late")],
        years: Some((2001, 2002)),
        client_only: true,
        ..Default::default()
    };
    let mut foreign = stranger.client_files("shop", "foreign");
    foreign.authorities = cluster.ca.path("ca.pem");
    for files in [foreign, cluster.ca.issue("late", &expired)] {
        attempt(cluster.ports[0], client_config(files)).await;
    }
    attempt(cluster.ports[0], without_certificate(&cluster.ca)).await;
    let mut as_node = client_config(cluster.ca.client_files("shop", "web"));
    as_node.alpn_protocols = vec![b"highwater-peer/1".to_vec()];
    attempt(cluster.ports[0], as_node).await;
    let lines = cluster
        .until_trail("four strangers", |lines| {
            count(lines, "unauthenticated", "connect") == 4
        })
        .await;
    let refused: Vec<&Line> = lines
        .iter()
        .filter(|line| line.text("kind") == "unauthenticated")
        .collect();
    assert!(
        refused
            .iter()
            .all(|line| line.text("from").starts_with("127.0.0.1:") && line.text("node") == "a")
    );
    let whys: Vec<&str> = refused.iter().map(|line| line.text("why")).collect();
    for expected in ["BadSignature", "expired", "no certificates", "is not a node"] {
        let found = whys
            .iter()
            .filter(|why| why.to_lowercase().contains(&expected.to_lowercase()))
            .count();
        assert_eq!(found, 1, "{expected}: {whys:?}");
    }
    let proven: Vec<&str> = refused
        .iter()
        .map(|line| line.text("who"))
        .filter(|who| *who != "unknown")
        .collect();
    assert_eq!(proven, [format!("spiffe://{CLUSTER}/tenant/shop/client/web")]);
    assert_chained(&lines);
}

fn without_certificate(ca: &TestCa) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca.path("ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Connects, and reads until the other side ends it.
async fn attempt(port: u16, config: rustls::ClientConfig) {
    use tokio::io::AsyncReadExt;
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    if let Ok(mut stream) = connector.connect(name, tcp).await {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    }
}

/// The records once an operator has done something behind all of it.
async fn until_an_operator_acts(cluster: &TestCluster) -> Vec<Line> {
    cluster.client(0, OPERATOR_TENANT).await.create("told", 1).await;
    cluster
        .until_trail("the act of an operator", |lines| {
            count(lines, "act", "CreateTopic") == 1
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_that_anybody_can_try_are_limited_whatever_they_fail_for() {
    const FLOOD: u64 = 200;
    let cluster = TestCluster::audited().await;
    let nobody = cluster.client(0, "nobody").await;
    let delete = || v1::DeleteGroupRequest {
        // Refused before anybody is asked who may do it.
        group: "!".to_owned(),
        topic: "shop/orders".to_owned(),
        ..Default::default()
    };
    let tried = (0..FLOOD).map(|_| {
        let mut groups = GroupServiceClient::new(nobody.channel.clone());
        async move { groups.delete_group(delete()).await.unwrap_err() }
    });
    timeout(PATIENCE, futures::future::join_all(tried)).await.unwrap();
    let lines = until_an_operator_acts(&cluster).await;
    let acts: Vec<&Line> = lines.iter().filter(|line| line.text("kind") == "act").collect();
    let told: u64 = acts.iter().map(|line| 1 + line.number("suppressed")).sum();
    assert_eq!(told, FLOOD + 1);
    assert!(acts.len() < 50, "{} records", acts.len());
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_grow_when_they_are_written_keep_nobodys_act_from_being_recorded() {
    let cluster = TestCluster::audited().await;
    // Permitted to manage its topics, so nothing of it is limited; as JSON each letter is six.
    let owner = cluster.client(0, "shop").await;
    let nasty = "\0".repeat(20_000);
    let tried = (0..64).map(|_| {
        let mut access = AccessServiceClient::new(owner.channel.clone());
        let change = v1::ChangePolicyRequest {
            change: Some(v1::PolicyChange {
                add_rules: vec![v1::Rule {
                    subject: nasty.clone(),
                    domain: "shop".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        async move { access.change_policy(change).await.unwrap_err() }
    });
    timeout(PATIENCE, futures::future::join_all(tried)).await.unwrap();
    let lines = until_an_operator_acts(&cluster).await;
    assert!(count(&lines, "act", "ChangePolicy") > 0);
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_suppressed_is_told_at_the_latest_when_the_node_stops() {
    let mut cluster = TestCluster::audited().await;
    let thief = cluster.client(0, "thief").await;
    let refused = |times: u64| {
        let calls = (0..times).map(|_| {
            let mut thief = thief.clone();
            let get = v1::GetTopicRequest {
                topic: "shop/orders".to_owned(),
            };
            async move { thief.topics.get_topic(get).await.unwrap_err() }
        });
        timeout(PATIENCE, futures::future::join_all(calls))
    };
    let told = |lines: &[Line]| {
        let denied = lines.iter().filter(|line| line.text("kind") == "denied");
        let of_line = |line: &Line| u64::from(line.text("what") != "suppressed") + line.number("suppressed");
        denied.map(of_line).sum::<u64>()
    };
    refused(20).await.unwrap();
    cluster
        .until_trail("what may be recorded", |lines| told(lines) == 20)
        .await;
    // Nothing of this is recorded, and nothing follows that could tell it.
    refused(50).await.unwrap();
    cluster.stop(0).await;
    let lines = cluster
        .until_trail("the number of what was suppressed", |lines| told(lines) == 70)
        .await;
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_act_of_an_operator_is_recorded_also_those_that_fail() {
    const TIMES: usize = 60;
    let cluster = TestCluster::audited().await;
    let operator = cluster.client(0, OPERATOR_TENANT).await;
    let tried = (0..TIMES).map(|_| {
        let mut access = AccessServiceClient::new(operator.channel.clone());
        let stale = v1::ChangePolicyRequest {
            expected_version: 1,
            change: Some(v1::PolicyChange::default()),
        };
        let of_system = v1::CreateTenantRequest {
            tenant: "system".to_owned(),
            ..Default::default()
        };
        async move {
            access.change_policy(stale).await.unwrap_err();
            access.create_tenant(of_system).await.unwrap_err();
        }
    });
    timeout(PATIENCE, futures::future::join_all(tried)).await.unwrap();
    let is_told = |lines: &[Line]| {
        ["ChangePolicy", "CreateTenant"]
            .into_iter()
            .all(|act| count(lines, "act", act) == TIMES)
    };
    let lines = cluster.until_trail("all that was tried", is_told).await;
    assert!(lines.iter().all(|line| line.number("suppressed") == 0));
    assert_chained(&lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_who_gives_up_the_right_is_recorded_although_its_tenant_has_used_up_its_records() {
    let cluster = TestCluster::audited().await;
    let own = || vec![grant("shop/tester", "operator", "@cluster")];
    let given = v1::PolicyChange {
        add_grants: own(),
        ..Default::default()
    };
    let given_up = v1::PolicyChange {
        remove_grants: own(),
        ..Default::default()
    };
    cluster.change(OPERATOR_TENANT, given).await.unwrap();
    cluster.nodes[0].as_ref().unwrap().audit().exhaust("shop");
    cluster.change("shop", given_up).await.unwrap();
    // From now on it is one of its tenant.
    cluster.client(0, "shop").await.create("orders", 1).await;
    let lines = until_an_operator_acts(&cluster).await;
    let of_it = |line: &&Line| line.text("kind") == "act" && line.text("who").contains("/tenant/shop/");
    let told: Vec<&str> = lines.iter().filter(of_it).map(|line| line.text("outcome")).collect();
    assert_eq!(told, ["done"]);
    assert_chained(&lines);
}
