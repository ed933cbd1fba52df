//! From sending a record to seeing it, for a consumer that tails the leader and one that tails a follower, of the same records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::{Client, Error, Position, Profile, Record};
use highwater_tests::{ReadFrom, TestCluster};
use tokio::time::{MissedTickBehavior, interval};

use crate::{Failure, table};

const TOPIC: &str = "freshness";
const RECORDS: usize = 5_000;
const SEND_INTERVAL: Duration = Duration::from_millis(2);

pub(crate) fn measure() -> Result<(), Failure> {
    let mut cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    cluster.create_topic(TOPIC, 1);
    let leader = cluster.leader(TOPIC, 0);
    let names: Vec<String> = cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let follower = (leader + 1) % names.len();
    let profile = Profile::load(cluster.profile())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (sent, acknowledged, by_leader, by_follower) = runtime.block_on(async {
        let client = Client::from_profile(&profile).await?;
        let of_leader = tokio::spawn(arrivals(profile.clone(), names[leader].clone()));
        let of_follower = tokio::spawn(arrivals(profile.clone(), names[follower].clone()));
        let (sent, acknowledged) = send(&client).await?;
        Ok::<_, Failure>((sent, acknowledged, of_leader.await??, of_follower.await??))
    })?;
    let since = |times: &[Instant]| -> Vec<Duration> {
        let pairs = times.iter().zip(&sent);
        pairs.map(|(then, sent)| then.duration_since(*sent)).collect()
    };
    let (on_leader, on_follower) = (since(&by_leader), since(&by_follower));
    let median = |mut times: Vec<Duration>| {
        times.sort();
        table::quantile(&times, 0.5).as_secs_f64()
    };
    let ratio = median(on_follower.clone()) / median(on_leader.clone());
    println!(
        "\nfreshness at the tail, a record every {SEND_INTERVAL:?} (target: follower at most 1.5 times the leader, median)"
    );
    table::times("from sending to acknowledgement", since(&acknowledged));
    table::times("from sending to a consumer on the leader", on_leader);
    table::times("from sending to a consumer on a follower", on_follower);
    table::number("follower / leader, medians", format!("{ratio:.2}"));
    Ok(())
}

/// Sends all records, each at its time; when each was sent, and acknowledged.
async fn send(client: &Client) -> Result<(Vec<Instant>, Vec<Instant>), Failure> {
    let producer = client.producer(TOPIC).linger(Duration::ZERO).build().await?;
    let mut ticks = interval(SEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..RECORDS {
        ticks.tick().await;
        sent.push(Instant::now());
        let delivery = producer.send(Record::new(vec![b'x'; 100])).await?;
        answers.push(tokio::spawn(async move { delivery.await.map(|_| Instant::now()) }));
    }
    let mut acknowledged = Vec::new();
    for answer in answers {
        acknowledged.push(answer.await??);
    }
    Ok((sent, acknowledged))
}

/// When each record came to a consumer that reads from this node.
async fn arrivals(profile: Profile, node: String) -> Result<Vec<Instant>, Error> {
    let client = profile.builder().picker(Arc::new(ReadFrom(node))).connect().await?;
    let mut consumer = client.consumer(TOPIC, 0).from(Position::Beginning).build().await?;
    let mut times = Vec::new();
    while times.len() < RECORDS {
        let Some(record) = consumer.next_record().await else {
            break;
        };
        record?;
        times.push(Instant::now());
    }
    Ok(times)
}
