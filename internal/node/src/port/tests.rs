//! The port against clients of every kind, and against garbage.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod slowed;

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Connected;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::test_ca::{CLUSTER, TestCa, Wanted};
use crate::test_node::{PATIENCE, TestNode, eventually};
use crate::tls::{ALPN_GRPC, ALPN_HTTP, ALPN_PEER, ClientNames, TlsFiles};

fn client_config(files: Option<&TlsFiles>, ca: &TestCa, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca.path("ca.pem")).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

async fn connect(node: &TestNode, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(node.address).await?;
    TlsConnector::from(config)
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await
}

/// What the other side says last: the bytes until it closes, or the error.
async fn last_words(node: &TestNode, config: Arc<ClientConfig>) -> String {
    let mut stream = match connect(node, config).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    let mut bytes = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the port closes the connection")
    {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn grpc_runs_over_the_port_and_sees_who_calls() {
    let ca = TestCa::new();
    let mut node = TestNode::start(&ca, "n1").await;
    let (_, health) = tonic_health::server::health_reporter();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = seen.clone();
    let service = InterceptedService::new(health, move |request: tonic::Request<()>| {
        let peer = request.extensions().get::<Arc<Peer>>().cloned().unwrap();
        noted.lock().unwrap().push(peer.identity.to_string());
        Ok(request)
    });
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(node.incoming.take().unwrap()),
    );

    let config = client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]);
    let address = node.address;
    let connector = tower::service_fn(move |_| {
        let config = config.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = TlsConnector::from(config)
                .connect(ServerName::try_from("localhost").unwrap(), tcp)
                .await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .unwrap();
    HealthClient::new(channel)
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [format!("spiffe://{CLUSTER}/tenant/acme/client/app")]
    );
}

#[tokio::test]
async fn http_goes_to_the_gateway_also_if_grpc_would_do_or_nothing_is_offered() {
    let ca = TestCa::new();
    let mut node = TestNode::start(&ca, "n1").await;
    let mut gateway = node.http_incoming.take().unwrap();
    for alpn in [vec![ALPN_HTTP], vec![ALPN_GRPC, ALPN_HTTP], vec![]] {
        let _client = connect(&node, client_config(Some(&ca.client_files("acme", "app")), &ca, &alpn))
            .await
            .unwrap();
        let handed_over = timeout(PATIENCE, gateway.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(
            handed_over.connect_info().identity.to_string(),
            format!("spiffe://{CLUSTER}/tenant/acme/client/app")
        );
    }
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason_and_do_no_harm() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n1").await;
    let foreign = TestCa::new();
    let uri = |uri: &str| Wanted {
        uris: vec![uri.to_owned()],
        ..Wanted::default()
    };
    let node_uri = format!("spiffe://{CLUSTER}/node/n2");
    let expired = Wanted {
        years: Some((2000, 2001)),
        ..uri(&node_uri)
    };
    let several = Wanted {
        uris: vec![node_uri.clone(), node_uri.clone()],
        ..Wanted::default()
    };
    let self_signed = Wanted {
        self_signed: true,
        ..uri(&node_uri)
    };
    let server_only = Wanted {
        server_only: true,
        ..uri(&node_uri)
    };
    let cases = [
        ("no certificate", None, "CertificateRequired"),
        ("foreign authority", Some(foreign.issue("a", &uri(&node_uri))), "alert"),
        ("expired", Some(ca.issue("b", &expired)), "CertificateExpired"),
        (
            "another cluster",
            Some(ca.issue("c", &uri("spiffe://elsewhere/node/n2"))),
            "CertificateUnknown",
        ),
        (
            "no identity",
            Some(ca.issue("d", &Wanted::default())),
            "CertificateUnknown",
        ),
        ("two identities", Some(ca.issue("e", &several)), "CertificateUnknown"),
        ("signed by itself", Some(ca.issue("f", &self_signed)), "UnknownCA"),
        (
            "for servers only",
            Some(ca.issue("g", &server_only)),
            "UnsupportedCertificate",
        ),
    ];
    for (number, (what, files, expected)) in cases.iter().enumerate() {
        for alpn in [ALPN_GRPC, ALPN_PEER, ALPN_HTTP] {
            let why = last_words(&node, client_config(files.as_ref(), &ca, &[alpn])).await;
            assert!(why.contains(expected), "{what}: {why}");
        }
        eventually("the refusals are counted", || {
            node.counters.failed() == 3 * (number as u64 + 1)
        })
        .await;
    }
    let why = last_words(
        &node,
        client_config(Some(&ca.client_files("acme", "app")), &ca, &[b"h3"]),
    )
    .await;
    assert!(why.contains("NoApplicationProtocol"), "{why}");
    connect(
        &node,
        client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn authorities_in_one_file_are_trusted_together_and_one_taken_out_is_not() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let mut node = TestNode::start(&old, "n1").await;
    let _served = node.incoming.take();
    let config = |of: &TestCa| client_config(Some(&of.client_files("acme", "app")), &old, &[ALPN_GRPC]);
    let (of_old, of_new) = (config(&old), config(&new));
    assert!(last_words(&node, of_new.clone()).await.contains("alert"));

    let pem = |ca: &TestCa| std::fs::read_to_string(ca.path("ca.pem")).unwrap();
    let (first, second) = (pem(&old), pem(&new));
    std::fs::write(old.path("ca.pem"), format!("{first}{second}")).unwrap();
    node.credentials.look();
    connect(&node, of_old.clone()).await.unwrap();
    connect(&node, of_new.clone()).await.unwrap();

    std::fs::write(old.path("ca.pem"), second).unwrap();
    node.credentials.look();
    assert!(last_words(&node, of_old).await.contains("alert"));
    connect(&node, of_new).await.unwrap();
}

#[tokio::test]
async fn a_revoked_client_is_out_at_once_and_stays_out() {
    let ca = TestCa::new();
    let (good, bad) = (ca.client_files("acme", "good"), ca.client_files("acme", "bad"));
    ca.revoke(&[], 2090);
    let files = TlsFiles {
        revoked: Some(ca.path("crl.pem")),
        ..ca.node_files(CLUSTER, "n1")
    };
    let credentials = Credentials::load(files).unwrap();
    let mut node = TestNode::start_with(credentials, None, 1, ([127, 0, 0, 1], 0).into()).await;
    let config = |files| client_config(Some(files), &ca, &[ALPN_GRPC]);
    let mut incoming = node.incoming.take().unwrap();
    let mut taken = async || timeout(PATIENCE, incoming.next()).await.unwrap().unwrap().unwrap();
    let _trusted = connect(&node, config(&good)).await.unwrap();
    let mut of_good = taken().await;
    let _revoked = connect(&node, config(&bad)).await.unwrap();
    let mut of_bad = taken().await;

    ca.revoke(&[&bad], 2090);
    node.credentials.look();
    let ended = timeout(PATIENCE, of_bad.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
    assert!(of_bad.write_u8(0).await.is_err());
    assert_eq!(node.credentials.connections_ended(), 1);
    of_good.write_u8(0).await.unwrap();
    let why = last_words(&node, config(&bad)).await;
    assert!(why.contains("CertificateRevoked"), "{why}");
    connect(&node, config(&good)).await.unwrap();
}

#[tokio::test]
async fn a_client_with_a_common_name_alone_is_let_in_where_that_is_set_and_is_no_node() {
    let ca = TestCa::new();
    let named = ca.issue(
        "named",
        &Wanted {
            common_name: Some("acme/app".to_owned()),
            ..Wanted::default()
        },
    );
    let config = |alpn| client_config(Some(&named), &ca, &[alpn]);
    let strict = TestNode::start(&ca, "n1").await;
    assert!(
        last_words(&strict, config(ALPN_GRPC))
            .await
            .contains("CertificateUnknown")
    );

    let credentials = Credentials::load_with(ca.node_files(CLUSTER, "n2"), ClientNames::UriOrCommonName).unwrap();
    let mut node = TestNode::start_with(credentials, None, 1, ([127, 0, 0, 1], 0).into()).await;
    let mut incoming = node.incoming.take().unwrap();
    let _client = connect(&node, config(ALPN_GRPC)).await.unwrap();
    let taken = timeout(PATIENCE, incoming.next()).await.unwrap().unwrap().unwrap();
    let identity = taken.connect_info().identity.to_string();
    assert_eq!(identity, format!("spiffe://{CLUSTER}/tenant/acme/client/app"));
    let words = last_words(&node, config(ALPN_PEER)).await;
    assert!(words.contains("is not a node"), "{words:?}");
}

#[tokio::test]
async fn a_client_is_refused_on_the_peer_link_and_told_why() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n1").await;
    let words = last_words(
        &node,
        client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_PEER]),
    )
    .await;
    assert!(words.contains("/tenant/acme/client/app is not a node"), "{words:?}");
    assert_eq!(node.counters.refused(), 1);
    assert!(node.handler.hellos.lock().unwrap().is_empty());
}

#[tokio::test]
async fn plain_http_is_answered_politely_and_garbage_is_not() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n1").await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS"),
        "{answer}"
    );

    for garbage in [
        &b"\x00\x01\x02\x03"[..],
        &[0xff; 70_000],
        b"\x16\x03\x01\xff\xff garbage that begins like TLS",
    ] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the port closes the connection");
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    eventually("the garbage is counted", || {
        node.counters.not_tls() == 3 && node.counters.failed() == 1
    })
    .await;
    connect(
        &node,
        client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off_and_holds_up_nobody() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n1").await;
    let begin = Instant::now();
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let mut slow = TcpStream::connect(node.address).await.unwrap();
    slow.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    connect(
        &node,
        client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]),
    )
    .await
    .unwrap();
    assert!(begin.elapsed() < HANDSHAKE_TIMEOUT);
    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let _ = timeout(HANDSHAKE_TIMEOUT + PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("it is cut off");
    }
    assert!(begin.elapsed() >= HANDSHAKE_TIMEOUT);
    assert_eq!(node.counters.timed_out(), 2);
}

#[tokio::test]
async fn silent_connections_of_one_address_leave_room_for_others() {
    let ca = TestCa::new();
    let node = TestNode::start(&ca, "n1").await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX {
        silent.push(TcpStream::connect(node.address).await.unwrap());
    }
    let turned_away = (HANDSHAKES_MAX - HANDSHAKES_PER_ADDRESS_MAX) as u64;
    eventually("those over the share are closed", || {
        node.counters.crowded() == turned_away
    })
    .await;
    assert_eq!(node.counters.timed_out(), 0);

    // From another address of this machine.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let tcp = socket.connect(node.address).await.unwrap();
    let config = client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]);
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap();
}

#[tokio::test]
async fn an_identity_has_its_share_of_connections_and_leaves_the_rest_to_others() {
    let ca = TestCa::new();
    let mut node = TestNode::start(&ca, "n1").await;
    let mut incoming = node.incoming.take().unwrap();
    let taking = tokio::spawn(async move {
        let mut taken = Vec::new();
        while taken.len() < CONNECTIONS_PER_IDENTITY_MAX {
            taken.push(incoming.next().await.unwrap().unwrap());
        }
        (incoming, taken)
    });
    let greedy = client_config(Some(&ca.client_files("acme", "greedy")), &ca, &[ALPN_GRPC]);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_IDENTITY_MAX {
        open.push(connect(&node, greedy.clone()).await.unwrap());
    }
    let (mut incoming, taken) = timeout(PATIENCE, taking).await.unwrap().unwrap();
    assert_eq!(node.counters.refused(), 0);
    let _ = last_words(&node, greedy.clone()).await;
    assert_eq!(node.counters.refused(), 1);

    let modest = client_config(Some(&ca.client_files("acme", "modest")), &ca, &[ALPN_GRPC]);
    let _modest = connect(&node, modest).await.unwrap();
    timeout(PATIENCE, incoming.next()).await.unwrap().unwrap().unwrap();
    drop(taken);
    let _again = connect(&node, greedy).await.unwrap();
    timeout(PATIENCE, incoming.next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_grpc_server_that_takes_nothing_holds_up_no_nodes() {
    let ca = TestCa::new();
    let (one, two) = (TestNode::start(&ca, "n1").await, TestNode::start(&ca, "n2").await);
    let config = client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]);
    let mut waiting = Vec::new();
    for _ in 0..INCOMING_MAX + HANDSHAKES_MAX {
        waiting.push(connect(&one, config.clone()).await.unwrap());
    }
    two.knows(&one);
    two.link.call_node("n1", 0, Vec::new(), PATIENCE).await.unwrap();
    eventually("those without room are refused", || {
        one.counters.refused() == HANDSHAKES_MAX as u64
    })
    .await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Port::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = first.local_addr();
    let why = Port::bind(address).await.unwrap_err();
    assert!(
        matches!(why, PortError::InUse { address: named } if named == address),
        "{why}"
    );
    assert!(why.to_string().contains(&address.to_string()));
}

#[tokio::test]
async fn after_shutdown_nobody_is_accepted_and_the_port_is_free() {
    let ca = TestCa::new();
    let mut node = TestNode::start(&ca, "n1").await;
    let config = client_config(Some(&ca.client_files("acme", "app")), &ca, &[ALPN_GRPC]);
    let _client = connect(&node, config.clone()).await.unwrap();
    let accepted = node.incoming.as_mut().unwrap().next().await.unwrap().unwrap();
    assert_eq!(
        accepted.connect_info().identity.to_string(),
        format!("spiffe://{CLUSTER}/tenant/acme/client/app")
    );
    let address = node.address;
    node.kill();
    let mut port = Port::bind(address).await;
    while port.is_err() {
        tokio::task::yield_now().await;
        port = Port::bind(address).await;
    }
    drop(port);
    assert!(connect(&node, config).await.is_err());
}
