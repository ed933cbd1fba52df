//! Who is not let in is recorded as well.

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
