//! Certificate files that are replaced while a client runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater::{Client, Record, TlsFiles};

use crate::certificates::{Authority, EXPIRED, VALID};
use crate::cluster::{Cluster, TOPIC};
use crate::metrics::{Recorder, Told};
use crate::{until, within};

const APP: &str = "spiffe://test/tenant/acme/client/app";

/// The files of a client in a directory of its own.
struct Files(TlsFiles);

impl Files {
    fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        Self(TlsFiles {
            ca: directory.join("ca.pem"),
            cert: directory.join("app.pem"),
            key: directory.join("app.key"),
        })
    }

    /// Who we are from now on.
    fn replace_own(&self, files: &TlsFiles) {
        fs::copy(&files.cert, &self.0.cert).unwrap();
        fs::copy(&files.key, &self.0.key).unwrap();
    }

    /// Whom we trust from now on.
    fn replace_authorities(&self, authorities: &[&TlsFiles]) {
        let certificates = authorities.iter().map(|files| fs::read_to_string(&files.ca).unwrap());
        fs::write(&self.0.ca, certificates.collect::<String>()).unwrap();
    }
}

/// A client whose files are its own, and what it tells.
async fn client(cluster: &Cluster) -> (Files, Client, Arc<Recorder>) {
    let files = Files::new(&cluster.path().join("app"));
    let from = cluster.authority.client();
    files.replace_own(&from);
    files.replace_authorities(&[&from]);
    let recorder = Arc::new(Recorder::default());
    let builder = cluster.builder_with(files.0.clone()).metrics(recorder.clone());
    (files, within(builder.connect()).await.unwrap(), recorder)
}

fn reloads(recorder: &Recorder) -> usize {
    recorder.count(|told| matches!(told, Told::Reloaded))
}

fn refusals(recorder: &Recorder) -> Vec<String> {
    recorder.those(|told| match told {
        Told::Refused(problem) => Some(problem.clone()),
        _ => None,
    })
}

/// Breaks the connection to node a, and makes a call that needs a new one.
async fn reconnect(cluster: &mut Cluster, client: &Client, recorder: &Recorder) {
    let ends = || recorder.count(|told| matches!(told, Told::Closed(_)));
    let before = ends();
    cluster.kill(0);
    until("the connection has ended", || ends() > before).await;
    cluster.restart(0);
    client.topics().list().await.unwrap();
}

#[tokio::test]
async fn a_new_authority_and_a_new_certificate_are_used_by_the_next_connection_and_others_go_on() {
    let mut cluster = Cluster::start(2, 1);
    let (old_node, address) = (cluster.addresses()[0].clone(), cluster.addresses()[1].clone());
    cluster.kill(1);
    let (files, client, recorder) = client(&cluster).await;
    within(async {
        let producer = client.producer(TOPIC).build().await.unwrap();
        producer.send(Record::new("0")).await.unwrap().await.unwrap();

        // Node b comes back in the world of another authority, and knows no other.
        let other = Authority::new(&cluster.path().join("other"));
        cluster.restart_with(1, &other.node("b"));
        let renewed = other.sign("client", APP, VALID);
        files.replace_authorities(&[&cluster.authority.client(), &renewed]);
        files.replace_own(&renewed);
        producer.send(Record::new("1")).await.unwrap().await.unwrap();
        assert_eq!(reloads(&recorder), 0, "nobody looks before a connection is made");

        cluster.set_leader(0, 1);
        producer.send(Record::new("2")).await.unwrap().await.unwrap();
    })
    .await;
    assert_eq!(cluster.values(0), ["0", "1", "2"]);
    assert_eq!((reloads(&recorder), refusals(&recorder)), (1, vec![]));
    let opened = |address: &String| recorder.count(|told| *told == Told::Opened(address.clone()));
    assert_eq!((opened(&old_node), opened(&address)), (1, 1));
    assert_eq!(recorder.count(|told| *told == Told::Closed(old_node.clone())), 0);
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_told_once() {
    let mut cluster = Cluster::start(1, 1);
    let (files, client, recorder) = client(&cluster).await;
    within(async {
        let renewed = cluster.authority.sign("renewed", APP, VALID);
        // Half of a replacement: the key is not there yet.
        fs::copy(&renewed.cert, &files.0.cert).unwrap();
        reconnect(&mut cluster, &client, &recorder).await;
        reconnect(&mut cluster, &client, &recorder).await;
        let told = refusals(&recorder);
        assert!(
            told.len() == 1 && told[0].contains("app.key") && told[0].contains("fit"),
            "{told:?}"
        );

        files.replace_own(&renewed);
        reconnect(&mut cluster, &client, &recorder).await;
        assert_eq!(reloads(&recorder), 1, "the other half has come");

        for (own, expected) in [
            (cluster.authority.sign("expired", APP, EXPIRED), "expired"),
            (
                cluster
                    .authority
                    .sign("bob", "spiffe://test/tenant/acme/client/bob", VALID),
                "was made as spiffe://test/tenant/acme/client/app",
            ),
        ] {
            files.replace_own(&own);
            reconnect(&mut cluster, &client, &recorder).await;
            let told = refusals(&recorder);
            assert!(told.last().unwrap().contains(expected), "{told:?}");
        }
        fs::remove_file(&files.0.ca).unwrap();
        reconnect(&mut cluster, &client, &recorder).await;
        assert!(refusals(&recorder).last().unwrap().contains("ca.pem"));
        assert_eq!((reloads(&recorder), refusals(&recorder).len()), (1, 4));
    })
    .await;
}

#[tokio::test]
async fn files_that_are_only_written_anew_are_no_news() {
    let mut cluster = Cluster::start(1, 1);
    let (files, client, recorder) = client(&cluster).await;
    within(async {
        for path in [&files.0.ca, &files.0.cert, &files.0.key] {
            fs::write(path, fs::read(path).unwrap()).unwrap();
        }
        reconnect(&mut cluster, &client, &recorder).await;
    })
    .await;
    assert_eq!((reloads(&recorder), refusals(&recorder)), (0, vec![]));
}

#[tokio::test]
async fn while_the_authority_changes_nodes_of_both_are_accepted() {
    let mut cluster = Cluster::start(2, 1);
    cluster.kill(1);
    let (files, client, recorder) = client(&cluster).await;
    within(async {
        let first = cluster.authority.client();
        let other = Authority::new(&cluster.path().join("other")).node("b");
        let trusts_first = TlsFiles {
            ca: first.ca.clone(),
            ..other.clone()
        };
        cluster.restart_with(1, &trusts_first);
        files.replace_authorities(&[&first, &other]);
        reconnect(&mut cluster, &client, &recorder).await;

        let producer = client.producer(TOPIC).build().await.unwrap();
        producer.send(Record::new("to a")).await.unwrap().await.unwrap();
        cluster.set_leader(0, 1);
        producer.send(Record::new("to b")).await.unwrap().await.unwrap();
    })
    .await;
    assert_eq!(cluster.values(0), ["to a", "to b"]);
    assert_eq!((reloads(&recorder), refusals(&recorder)), (1, vec![]));
}
