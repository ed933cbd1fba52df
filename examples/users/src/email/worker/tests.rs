//! A worker whose cluster goes away, and one whose server does not take what it is given.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use highwater::{Client, Producer, Profile};
use highwater_service::{serving, topics};
use highwater_tests::{TestCluster, eventually, http};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::events::{USER_ADDED, added};
use crate::proto::{User, UserAdded};

const DEADLINE: Duration = Duration::from_secs(90);
/// So soon a worker of this test takes the cluster to be away.
const READ_DEADLINE: Duration = Duration::from_secs(1);
const FROM: &str = "welcome@users.example";

/// The service's metrics over HTTP; where they are.
async fn metrics(telemetry: &Telemetry, stop: &Stop) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serving::http(listener, telemetry.router(), stop.clone()));
    address
}

fn count(metrics: &str, method: &str, outcome: &str) -> u64 {
    let text = http::get(metrics, "/metrics").is(200).text;
    let words = format!("_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}} ");
    let count = text.lines().find_map(|line| line.split_once(&words)?.1.parse().ok());
    count.unwrap_or(0)
}

async fn add(producer: &Producer, email: &str) {
    let user = User {
        email: email.to_owned(),
        ..Default::default()
    };
    producer.send(added(user)).await.unwrap().await.unwrap();
}

fn welcomed(outbox: &Path) -> usize {
    fs::read_to_string(outbox)
        .unwrap_or_default()
        .matches("\nTo: <")
        .count()
}

async fn worker(client: &Client, outbox: &Path, telemetry: &Telemetry) -> Worker {
    let topic_id = topics::ensure(client, USER_ADDED, 1).await.unwrap().topic_id;
    let membership = Membership {
        client: client.clone(),
        group: "email".to_owned(),
        member: "one".to_owned(),
        topic_id,
        deadline: READ_DEADLINE,
    };
    let consumer = membership.join().await.unwrap();
    let way = Way::Outbox(Outbox::open(outbox, topic_id).unwrap());
    Worker::new(membership, consumer, way, FROM.to_owned(), telemetry.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_outlives_a_cluster_that_is_away_but_not_its_topic() {
    let mut cluster = block_in_place(|| TestCluster::start(1));
    let client = Client::from_profile(&Profile::load(cluster.profile()).unwrap())
        .await
        .unwrap();
    let outbox = cluster.directory().join("outbox.mbox");
    let (stop, telemetry) = (Stop::on_signals().unwrap(), Telemetry::new("email", &[]).unwrap());
    let metrics = metrics(&telemetry, &stop).await;
    let worker = worker(&client, &outbox, &telemetry).await;
    let working = tokio::spawn(async move { worker.run(&stop).await.map_err(|error| error.to_string()) });
    let producer = client.producer(USER_ADDED).build().await.unwrap();

    add(&producer, "before@users.example").await;
    block_in_place(|| {
        eventually("the first one is welcomed", DEADLINE, || {
            (welcomed(&outbox) == 1).then_some(())
        });
        cluster.node(0).kill();
        let before = count(&metrics, "read", "retry");
        eventually("the topic cannot be read", DEADLINE, || {
            (count(&metrics, "read", "retry") > before).then_some(())
        });
        cluster.node(0).start();
        cluster.wait_ready();
    });
    add(&producer, "after@users.example").await;
    block_in_place(|| {
        eventually("the second one is welcomed", DEADLINE, || {
            (welcomed(&outbox) >= 2).then_some(())
        });
    });
    assert!(!working.is_finished());

    client.topics().delete(USER_ADDED).await.unwrap();
    topics::ensure(&client, USER_ADDED, 1).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, working).await.unwrap().unwrap();
    ended.unwrap_err();
    assert_eq!(welcomed(&outbox), 2);
    block_in_place(|| drop(cluster));
}

/// Answers the receiver of each connection with the next of these, and everything else well.
async fn relay(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            writer.write_all(b"220 hi\r\n").await.unwrap();
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let answer = if line.starts_with("RCPT") { answer } else { "250 ok" };
                writer.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_refuses_us_is_tried_again_and_what_it_rejects_is_left_out() {
    let (stop, telemetry) = (Stop::on_signals().unwrap(), Telemetry::new("email", &[]).unwrap());
    let metrics = metrics(&telemetry, &stop).await;
    let directory = TempDir::new().unwrap();
    let server = relay(&["554 5.7.1 relay access denied", "451 later", "550 5.1.1 nobody"]).await;
    let progress = Progress::open(&directory.path().join("progress"), 1).unwrap();
    let mut way = Way::Smtp { server, progress };
    let user = UserAdded {
        email: "ann@users.example".to_owned(),
        ..Default::default()
    };
    let place = Place {
        partition: 0,
        offset: 4,
    };
    let message = Message::welcome(&user, 1, place, FROM).unwrap();
    let sent = tokio::time::timeout(DEADLINE, way.send(&message, &telemetry, &stop)).await;
    assert!(matches!(sent.unwrap().unwrap(), Sent::Rejected));
    assert!(way.is_done(place));
    let counted = ["retry", "rejected", "ok"].map(|outcome| block_in_place(|| count(&metrics, "attempt", outcome)));
    assert_eq!(counted, [2, 1, 0]);
}
