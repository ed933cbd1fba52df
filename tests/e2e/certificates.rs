//! Certificates that are replaced while everything runs.

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::parse_x509_pem;

use highwater_tests::{Consuming, Finished, Producing, TestCluster, TestNode, eventually, run};

use crate::{PATIENCE, consume, numbers};

/// So short that connections also become too old all the time.
const CONNECTION_AGE_MS: &str = "2000";
/// For how long there is load while connections last a second, and streams on them for a second more.
const OLD_FOR: std::time::Duration = std::time::Duration::from_secs(8);
/// For how many days a list of revoked certificates is good.
const LIST_DAYS: i64 = 30;
/// How many records are acknowledged after each change.
const LOAD_AFTER_A_CHANGE: usize = 20_000;
/// What a node logs when it has taken files.
const TAKEN: [&str; 2] = [
    "new certificate files are in force",
    "new revocation lists are in force",
];

/// Puts a file in its place in one step.
fn put(path: &Path, content: &str) {
    let aside = path.with_extension("new");
    let put = fs::write(&aside, content).and_then(|()| fs::rename(&aside, path));
    put.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Makes a change of the certificate files, and waits until every node has taken it and clients have gone on.
fn change(cluster: &TestCluster, load: &Producing, make: impl FnOnce()) {
    let taken = |position: usize| {
        let log = cluster.nodes()[position].log();
        TAKEN.iter().map(|words| log.matches(words).count()).sum::<usize>()
    };
    let before: Vec<usize> = (0..3).map(taken).collect();
    make();
    eventually("all nodes have taken the files", PATIENCE, || {
        cluster.nodes().iter().for_each(TestNode::hang_up);
        (0..3).all(|position| taken(position) > before[position]).then_some(())
    });
    load.wait_for_more(LOAD_AFTER_A_CHANGE, PATIENCE);
}

/// New certificates for all nodes and for the client under load, where the former ones are.
fn issue(cluster: &TestCluster, authority: &str) {
    let own = cluster.certificates();
    let whom: [&[&str]; 4] = [
        &["node", "n1"],
        &["node", "n2"],
        &["node", "n3"],
        &["client", "acme", "app"],
    ];
    for who in whom {
        let more = ["--ca-dir", authority, "--out", &own, "--force"];
        cluster.run(&[&["certs"], who, &more].concat()).success();
    }
}

#[track_caller]
fn good<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Three nodes that serve.
fn start_with(settings: &[(&str, &str)], prepare: impl FnOnce(&TestCluster)) -> TestCluster {
    let mut cluster = TestCluster::prepare(3);
    prepare(&cluster);
    for position in 0..3 {
        let node = cluster.node(position);
        settings.iter().for_each(|(flag, value)| node.set(flag, value));
        node.start();
    }
    cluster.wait_ready();
    cluster
}

/// Revokes the certificates of these clients of `acme`, and nobody else's.
fn revoke(cluster: &TestCluster, clients: &[&str]) -> String {
    let file = |name: &str| Path::new(&cluster.certificates()).join(name);
    let key = good(KeyPair::from_pem(&read(&file("ca.key"))));
    let issuer = good(Issuer::from_ca_cert_pem(&read(&file("ca.pem")), key));
    let now = OffsetDateTime::now_utc();
    let revoked = clients.iter().map(|client| {
        let pem = read(&file(&format!("client-acme-{client}.pem")));
        let (_, pem) = good(parse_x509_pem(pem.as_bytes()));
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(good(pem.parse_x509()).raw_serial()),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        }
    });
    let list = CertificateRevocationListParams {
        this_update: now,
        next_update: now + Duration::days(LIST_DAYS),
        crl_number: SerialNumber::from(clients.len() as u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    good(good(list.signed_by(&issuer)).pem())
}

/// Waits until a reader gets nothing any more although there is more and more.
fn is_out(reader: &Consuming, load: &Producing) {
    eventually("the reader is out", PATIENCE, || {
        let before = reader.lines().len();
        load.wait_for_more(LOAD_AFTER_A_CHANGE, PATIENCE);
        (reader.lines().len() == before).then_some(())
    });
}

fn follow(cluster: &TestCluster, profile: &Path) -> Consuming {
    let mut command = cluster.command_as(profile, &["consume", "numbers", "--from", "beginning"]);
    let reader = Consuming::start(&mut command);
    reader.wait_for(1, PATIENCE);
    reader
}

fn list(cluster: &TestCluster, profile: &Path) -> Finished {
    let mut command = cluster.command_as(profile, &["topic", "list", "--deadline", "5s"]);
    run(&mut command, PATIENCE)
}

#[test]
fn certificates_and_then_their_authority_are_replaced_under_load_and_no_operation_fails() {
    let cluster = start_with(&[("--connection-age-max-ms", CONNECTION_AGE_MS)], |_| ());
    cluster.create_topic("numbers", 1);
    let former = cluster.profile_for("acme", "former");
    let load = Producing::start(&mut cluster.command(&["produce", "numbers", "-v"]));
    let (reader, of_former) = (follow(&cluster, cluster.profile()), follow(&cluster, &former));
    load.wait_for_more(LOAD_AFTER_A_CHANGE, PATIENCE);

    let old = cluster.certificates();
    let new = cluster.directory().join("new").to_string_lossy().into_owned();
    change(&cluster, &load, || issue(&cluster, &old));

    cluster
        .run(&["certs", "ca", "--cluster", "test", "--out", &new])
        .success();
    let authorities = Path::new(&old).join("ca.pem");
    let (first, second) = (read(&authorities), read(&Path::new(&new).join("ca.pem")));
    change(&cluster, &load, || put(&authorities, &format!("{first}{second}")));
    change(&cluster, &load, || issue(&cluster, &new));
    list(&cluster, &former).success();

    change(&cluster, &load, || put(&authorities, &second));
    assert_ne!(list(&cluster, &former).code(), 0, "its authority is trusted no longer");
    is_out(&of_former, &load);
    of_former.kill();

    all_is_there(&cluster, load, reader);
}

/// Nothing failed, and everything was stored and read once.
#[track_caller]
fn all_is_there(cluster: &TestCluster, load: Producing, reader: Consuming) {
    let produced = load.finish(PATIENCE);
    assert_eq!(produced.finished.code(), 0, "{}", produced.finished.stderr);
    assert_eq!(produced.acknowledged.len(), produced.fed);
    let expected = numbers(produced.fed);
    assert_eq!(consume(cluster, "numbers"), expected);
    let read = reader.wait_for(produced.fed, PATIENCE);
    let read: String = read.iter().map(|line| format!("{line}\n")).collect();
    assert!(read.as_bytes() == expected, "it reads on without gap or repeat");
    reader.interrupt(PATIENCE);
}

#[test]
fn connections_that_become_too_old_under_load_fail_no_operation() {
    let cluster = start_with(&[("--connection-age-max-ms", "1000")], |_| ());
    cluster.create_topic("numbers", 1);
    let load = Producing::start(&mut cluster.command(&["produce", "numbers", "-v"]));
    let reader = follow(&cluster, cluster.profile());
    let begin = Instant::now();
    while begin.elapsed() < OLD_FOR {
        load.wait_for_more(1, PATIENCE);
        list(&cluster, cluster.profile()).success();
    }
    all_is_there(&cluster, load, reader);
}

#[test]
fn a_revoked_client_is_out_as_soon_as_the_nodes_have_read_the_list() {
    let directory = good(tempfile::tempdir());
    let lists: PathBuf = directory.path().join("crl.pem");
    let prepare = |cluster: &TestCluster| put(&lists, &revoke(cluster, &[]));
    let cluster = start_with(&[("--crl", &lists.to_string_lossy())], prepare);
    cluster.create_topic("numbers", 1);
    let bad = cluster.profile_for("acme", "bad");
    let load = Producing::start(&mut cluster.command(&["produce", "numbers", "-v"]));
    let of_bad = follow(&cluster, &bad);
    change(&cluster, &load, || put(&lists, &revoke(&cluster, &["bad"])));
    is_out(&of_bad, &load);
    of_bad.kill();
    assert_ne!(list(&cluster, &bad).code(), 0);
    let log: String = cluster.nodes().iter().map(TestNode::log).collect();
    assert!(log.contains("/client/bad") && log.contains("its certificate is revoked"));

    let produced = load.finish(PATIENCE);
    assert_eq!(produced.finished.code(), 0, "{}", produced.finished.stderr);
    assert_eq!(consume(&cluster, "numbers"), numbers(produced.fed));
}

#[test]
fn a_key_that_others_may_read_is_refused_by_nodes_and_commands() {
    let mut cluster = TestCluster::prepare(1);
    for file in ["node-n1.key", "client-acme-app.key"] {
        let path = Path::new(&cluster.certificates()).join(file);
        let opened = fs::set_permissions(&path, fs::Permissions::from_mode(0o644));
        opened.unwrap_or_else(|error| panic!("{error}"));
    }
    let mut node = cluster.node(0).command();
    run(&mut node, PATIENCE).fails_with(6, &["node-n1.key", "644", "chmod 600"]);
    let profile = cluster.profile().to_owned();
    list(&cluster, &profile).fails_with(6, &["client-acme-app.key", "644", "chmod 600"]);
}
