//! Who is not let in at all, on every protocol of the port; and who is let in where he has nothing to do.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::super::test_ca::Wanted;
use super::*;

/// The protocols of the port, with something to say in each to which whoever is let in gets an answer.
const PROTOCOLS: [(&str, &[u8]); 3] = [
    ("h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ("http/1.1", b"GET /v1 HTTP/1.1\r\nhost: x\r\n\r\n"),
    ("highwater-peer/1", b""),
];

/// A client's way of proving itself, whose server is checked against the cluster's own authority.
fn config(ca: &TestCa, files: Option<TlsFiles>, protocol: &str) -> rustls::ClientConfig {
    let own = ca.files("none").authorities;
    let mut config = match files {
        Some(files) => client_config(TlsFiles {
            authorities: own,
            ..files
        }),
        None => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(own).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config
}

/// The first bytes that come back, or the error, after the handshake as the client sees it: in TLS 1.3 it is done before the server has
/// looked at the client's certificate. None if nothing comes.
async fn first_bytes(
    cluster: &TestCluster,
    config: rustls::ClientConfig,
    say: &[u8],
) -> Option<std::io::Result<Vec<u8>>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(("127.0.0.1", cluster.ports[0])).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let talking = async {
        let mut stream = connector.connect(name, tcp).await?;
        stream.write_all(say).await?;
        let mut bytes = vec![0; 4096];
        let count = stream.read(&mut bytes).await?;
        bytes.truncate(count);
        Ok(bytes)
    };
    timeout(Duration::from_secs(2), talking).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_good_certificate_fails_in_the_handshake_of_every_protocol() {
    let cluster = TestCluster::new();
    let uri = |name: &str| vec![format!("spiffe://{CLUSTER}/tenant/shop/client/{name}")];
    let expired = Wanted {
        uris: uri("expired"),
        years: Some((2001, 2002)),
        client_only: true,
        ..Wanted::default()
    };
    let early = Wanted {
        uris: uri("early"),
        years: Some((2900, 2901)),
        ..expired.clone()
    };
    let nameless = Wanted {
        uris: Vec::new(),
        years: None,
        ..expired.clone()
    };
    let (good, revoked) = (
        cluster.ca.client_files("shop", "good"),
        cluster.ca.client_files("shop", "bad"),
    );
    cluster.ca.revoke(&[&revoked], 2999);
    let elsewhere = TestCa::new();
    let strangers = [
        ("no certificate", None),
        ("another authority", Some(elsewhere.client_files("shop", "good"))),
        ("a node of another authority", Some(elsewhere.node_files(CLUSTER, "b"))),
        (
            "another cluster",
            Some(cluster.ca.client_files_of("other", "shop", "elsewhere")),
        ),
        ("expired", Some(cluster.ca.issue("expired", &expired))),
        ("not yet good", Some(cluster.ca.issue("early", &early))),
        ("nobody's", Some(cluster.ca.issue("nameless", &nameless))),
        ("revoked", Some(revoked)),
    ];
    let mut with_list = cluster.config(0);
    with_list.tls.crl = cluster.ca.path("crl.pem");
    let node = Box::pin(Node::start_at(with_list, cluster.pace)).await.unwrap();
    for (protocol, say) in PROTOCOLS {
        for (what, files) in &strangers {
            let config = config(&cluster.ca, files.clone(), protocol);
            let answer = first_bytes(&cluster, config, say).await;
            // Some are refused after the handshake, by what stands in the certificate, and closed without a word.
            let is_out = answer
                .as_ref()
                .is_some_and(|answer| answer.as_ref().map_or(true, Vec::is_empty));
            assert!(is_out, "{what}, {protocol}: {answer:?}");
        }
        // And by what it can be told that it is the certificate.
        if !say.is_empty() {
            let config = config(&cluster.ca, Some(good.clone()), protocol);
            let answer = first_bytes(&cluster, config, say).await;
            assert!(
                matches!(&answer, Some(Ok(bytes)) if !bytes.is_empty()),
                "{protocol}: {answer:?}"
            );
        }
    }
    Box::pin(node.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_gets_onto_the_link_between_nodes_whatever_it_may_do_elsewhere() {
    let world = World::new().await;
    let (protocol, say) = PROTOCOLS[2];
    for who in CALLERS.into_iter().filter(|who| *who != Who::Node) {
        let files = who.certificate(&world.cluster.ca);
        let answer = first_bytes(&world.cluster, config(&world.cluster.ca, Some(files), protocol), say).await;
        let bytes = answer.expect("it waits for more").unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("is not a node"), "{who:?}: {text:?}");
    }
    let files = Who::Node.certificate(&world.cluster.ca);
    let answer = first_bytes(&world.cluster, config(&world.cluster.ca, Some(files), protocol), say).await;
    assert!(answer.is_none(), "a node is not waited for: {answer:?}");
}
