//! The audit from the command line: what operators do and what strangers try is there, once, and proves itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::Value;

use highwater_tests::{Finished, TestCluster, eventually, run};

use crate::PATIENCE;

/// As many as take a while.
const ACTS: usize = 40;

const NODES: usize = 3;

/// A cluster whose nodes have all written down that they started, so that what comes after is what a test does.
fn cluster() -> TestCluster {
    let cluster = TestCluster::start(NODES);
    cluster.wait_audited();
    eventually("every node's start is in the audit", PATIENCE, || {
        let records = records(&cluster);
        let starts = records.iter().filter(|record| is(record, "started", "start"));
        (starts.count() == NODES).then_some(())
    });
    cluster
}

/// All records, oldest first.
fn records(cluster: &TestCluster) -> Vec<Value> {
    let all = ["audit", "tail", "--from", "beginning", "--output", "json"];
    let printed = cluster.run(&all).success().stdout();
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        line["record"].clone()
    };
    printed.lines().map(read).collect()
}

fn is(record: &Value, kind: &str, what: &str) -> bool {
    record["kind"] == kind && record["what"] == what
}

fn as_client(cluster: &TestCluster, profile: &Path, words: &[&str]) -> Finished {
    run(&mut cluster.command_as(profile, words), PATIENCE)
}

/// Has a client's certificate made by some authority in some way; the path of certificate and key without extension.
fn made(cluster: &TestCluster, name: &str, authority: &str, more: &[&str]) -> PathBuf {
    let out = cluster.directory().join("made");
    let directory = out.to_string_lossy().into_owned();
    let base = [
        "certs", "client", "acme", name, "--ca-dir", authority, "--out", &directory,
    ];
    cluster.run(&[&base, more].concat()).success();
    out.join(format!("client-acme-{name}"))
}

#[test]
fn what_operators_do_is_there_to_read_and_to_verify_and_is_nobody_elses_to_see() {
    let cluster = cluster();
    cluster.create_topic("orders", 2);
    let told = cluster.run(&["audit", "tail", "--max", "1"]).success().stdout();
    let line = "act  spiffe://test/tenant/acme/client/app (127.0.0.1:";
    assert!(told.contains(line), "{told}");
    assert!(told.contains("CreateTopic  topic acme/orders: partitions 2"), "{told}");
    assert!(told.trim_end().ends_with("done"), "{told}");
    assert_eq!(told.lines().count(), 1);

    cluster
        .run(&["topic", "create", "orders"])
        .fails_with(4, &["TOPIC_EXISTS"]);
    let refused = records(&cluster);
    let refused: Vec<&Value> = refused.iter().filter(|record| record["outcome"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["why"], "topic `acme/orders` exists already");

    let stranger = cluster.profile_for("acme", "other");
    as_client(&cluster, &stranger, &["audit", "tail"]).fails_with(3, &["TOPIC_NOT_FOUND"]);
    let forged = ["produce", "system/audit"];
    as_client(&cluster, cluster.profile(), &forged).success(); // nothing to produce
    cluster
        .run(&["topic", "delete", "system/audit"])
        .fails_with(4, &["the cluster's own"]);
    cluster
        .run(&["access", "grant", "acme/other", "consumer", "--tenant", "system"])
        .success();
    eventually("an auditor may read", PATIENCE, || {
        (as_client(&cluster, &stranger, &["audit", "verify"]).code() == 0).then_some(())
    });
    let explained = [
        "access", "explain", "acme/app", "produce", "--tenant", "system", "--topic", "audit",
    ];
    let why = cluster.run(&explained).success().stdout();
    assert!(why.contains("only the nodes write what is in tenant `system`"), "{why}");
}

#[test]
fn acts_are_recorded_once_while_nodes_are_killed_and_the_chains_hold() {
    let mut cluster = cluster();
    cluster.create_topic("orders", 1);
    let leader = cluster.leader("system/audit", 0);
    for number in 0..ACTS {
        if number == ACTS / 4 {
            cluster.node(leader).kill();
        }
        // Each is an act that is refused, whichever node takes it.
        let tenant = format!("absent-{number}");
        cluster
            .run(&["tenant", "suspend", &tenant])
            .fails_with(3, &["TENANT_NOT_FOUND"]);
    }
    cluster.node(leader).start();
    cluster.wait_ready();
    let other = (leader + 1) % 3;
    cluster.node(other).stop();
    cluster.node(other).start();
    cluster.wait_ready();
    let counts = eventually("all nodes have told of their starts", PATIENCE, || {
        let records = records(&cluster);
        let starts = records.iter().filter(|record| is(record, "started", "start")).count();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for record in records.iter().filter(|record| is(record, "act", "SuspendTenant")) {
            let target = record["target"].as_str().unwrap_or_default().to_owned();
            *counts.entry(target).or_default() += 1;
        }
        (starts == 5).then_some(counts)
    });
    // The client's library may have asked another node again when the first one died under it.
    let asked_again = counts.values().filter(|count| **count > 1).count();
    assert_eq!(counts.len(), ACTS);
    assert!(asked_again <= 1, "{counts:?}");

    let verified = cluster.json(&["audit", "verify", "--output", "json"]);
    assert_eq!(verified["first_offset"], 0);
    let nodes = verified["nodes"].as_array().cloned().unwrap_or_default();
    let chains: u64 = nodes.iter().filter_map(|node| node["chains"].as_u64()).sum();
    assert_eq!((nodes.len(), chains), (3, 5), "{verified}");
    assert!(
        nodes.iter().all(|node| node["notices"] == serde_json::json!([])),
        "{verified}"
    );
    let told = cluster.run(&["audit", "verify"]).success().stdout();
    assert!(told.contains("follow from each other"), "{told}");
}

#[test]
fn who_cannot_prove_who_he_is_is_recorded_with_the_reason() {
    let cluster = cluster();
    let foreign = cluster.directory().join("foreign").to_string_lossy().into_owned();
    cluster
        .run(&["certs", "ca", "--cluster", "test", "--out", &foreign])
        .success();
    let past = [
        "--not-before",
        "2001-01-01T00:00:00Z",
        "--not-after",
        "2002-01-01T00:00:00Z",
    ];
    let own = cluster.certificates();
    let (mallory, late) = (
        made(&cluster, "mallory", &foreign, &[]),
        made(&cluster, "late", &own, &past),
    );
    for pair in [Some(mallory), Some(late), None] {
        connect(&cluster, pair.as_deref());
    }
    let whys = eventually("all of them are recorded", PATIENCE, || {
        let records = records(&cluster);
        let refused = records.iter().filter(|record| is(record, "unauthenticated", "connect"));
        let whys: Vec<String> = refused.map(|record| record["why"].to_string().to_lowercase()).collect();
        let has = |word: &str| whys.iter().any(|why| why.contains(word));
        let mallory = has("unknownissuer") || has("badsignature");
        (mallory && has("expired") && has("no certificates")).then_some(whys)
    });
    assert!(!whys.is_empty());
    cluster.run(&["audit", "verify"]).success();
}

#[track_caller]
fn good<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Connects with a certificate, or with none, and waits until the node ends it. Our own library would not even try.
fn connect(cluster: &TestCluster, pair: Option<&Path>) {
    let mut roots = RootCertStore::empty();
    let authority = Path::new(&cluster.certificates()).join("ca.pem");
    good(roots.add(good(CertificateDer::from_pem_file(authority))));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = good(config).with_root_certificates(roots);
    let config = match pair {
        Some(pair) => {
            let certificate = good(CertificateDer::from_pem_file(pair.with_extension("pem")));
            let key = good(PrivateKeyDer::from_pem_file(pair.with_extension("key")));
            good(config.with_client_auth_cert(vec![certificate], key))
        }
        None => config.with_no_client_auth(),
    };
    let name = good(ServerName::try_from("localhost"));
    let mut connection = good(ClientConnection::new(Arc::new(config), name));
    let mut tcp = good(TcpStream::connect(cluster.nodes()[0].address()));
    let mut rest = Vec::new();
    let ended = rustls::Stream::new(&mut connection, &mut tcp).read_to_end(&mut rest);
    assert!(ended.is_err() || rest.is_empty());
}
