//! Members of a group that share a topic: how partitions pass from one to another, also when members, coordinators and applications
//! fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater::{Client, Consumer, ConsumerBuilder, Error, Position, Profile, Reason, Record};
use highwater_tests::{Consuming, TestCluster, eventually};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::PATIENCE;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
const PARTITIONS: u32 = 6;

async fn connect(cluster: &TestCluster) -> Client {
    let profile = Profile::load(cluster.profile()).unwrap_or_else(|error| panic!("{error}"));
    Client::from_profile(&profile)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn member(client: &Client, name: &str) -> ConsumerBuilder {
    client.consume_topic(TOPIC).from(Position::Beginning).group(GROUP, name)
}

async fn join(builder: ConsumerBuilder) -> Consumer {
    builder.build().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers, spread over the partitions.
async fn produce(client: &Client, numbers: std::ops::Range<u32>) {
    let producer = client
        .producer(TOPIC)
        .build()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    for number in numbers {
        let record = Record::new(number.to_string()).with_partition(number % PARTITIONS);
        drop(producer.send(record).await.unwrap_or_else(|error| panic!("{error}")));
    }
    producer.close().await;
}

/// What a worker has seen: its name, and what.
type Seen = (String, Event);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Record(u32),
    Partitions(Vec<u32>),
    Failed(Option<Reason>),
}

/// A consumer that commits by itself, run by a task of its own, which tells what it sees.
struct Worker {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Worker {
    async fn start(builder: ConsumerBuilder, name: &str, seen: mpsc::UnboundedSender<Seen>) -> Worker {
        let consumer = join(builder.auto_commit(Duration::from_millis(50))).await;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(work(consumer, name.to_owned(), seen, stopped));
        Worker { stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap_or_else(|error| panic!("{error}"));
    }
}

async fn work(
    mut consumer: Consumer,
    name: String,
    seen: mpsc::UnboundedSender<Seen>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut partitions = Vec::new();
    loop {
        let next = tokio::select! {
            _ = &mut stopped => break,
            next = timeout(Duration::from_millis(20), consumer.next_record()) => next,
        };
        let event = match next {
            Ok(Some(Ok(record))) => Event::Record(number(&record.value)),
            Ok(Some(Err(error))) => Event::Failed(error.reason()),
            Ok(None) => break,
            Err(_) if consumer.partitions() != partitions => {
                partitions = consumer.partitions();
                Event::Partitions(partitions.clone())
            }
            Err(_) => continue,
        };
        let _ = seen.send((name.clone(), event));
    }
    consumer.close().await.unwrap_or_else(|error| panic!("{error}"));
}

fn number(value: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(value);
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What all workers have seen so far.
struct Watch {
    seen: mpsc::UnboundedReceiver<Seen>,
    records: BTreeMap<u32, u32>,
    partitions: BTreeMap<String, Vec<u32>>,
    failures: Vec<Option<Reason>>,
}

impl Watch {
    fn new() -> (mpsc::UnboundedSender<Seen>, Watch) {
        let (sender, seen) = mpsc::unbounded_channel();
        let watch = Watch {
            seen,
            records: BTreeMap::new(),
            partitions: BTreeMap::new(),
            failures: Vec::new(),
        };
        (sender, watch)
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Watch) -> bool) {
        let waiting = async {
            while !condition(self) {
                let Some((name, event)) = self.seen.recv().await else {
                    break;
                };
                match event {
                    Event::Record(number) => *self.records.entry(number).or_default() += 1,
                    Event::Partitions(partitions) => drop(self.partitions.insert(name, partitions)),
                    Event::Failed(reason) => self.failures.push(reason),
                }
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{what}: {:?} {:?}", self.partitions, self.failures);
    }

    async fn until_records(&mut self, count: u32) {
        self.until("all records", |watch| watch.records.len() == count as usize)
            .await;
    }

    async fn until_shares(&mut self, sizes: &[(&str, usize)]) {
        let has =
            |watch: &Watch, name: &str, size: usize| watch.partitions.get(name).is_some_and(|it| it.len() == size);
        self.until("shares", |watch| {
            sizes.iter().all(|(name, size)| has(watch, name, *size))
        })
        .await;
    }

    /// Numbers that were seen more than once.
    fn repeated(&self) -> Vec<u32> {
        let repeated = self.records.iter().filter(|(_, times)| **times > 1);
        repeated.map(|(number, _)| *number).collect()
    }

    fn has(&self, name: &str) -> BTreeSet<u32> {
        self.partitions.get(name).into_iter().flatten().copied().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_pass_from_member_to_member_without_a_gap_or_a_repeat() {
    let cluster = TestCluster::start(1);
    cluster.create_topic(TOPIC, PARTITIONS);
    let client = connect(&cluster).await;
    let (sender, mut watch) = Watch::new();
    let one = Worker::start(member(&client, "one"), "one", sender.clone()).await;
    produce(&client, 0..300).await;
    watch.until_records(300).await;
    let two = Worker::start(member(&client, "two"), "two", sender.clone()).await;
    produce(&client, 300..600).await;
    watch.until_shares(&[("one", 3), ("two", 3)]).await;
    let kept = watch.has("one");
    let three = Worker::start(member(&client, "three"), "three", sender.clone()).await;
    produce(&client, 600..900).await;
    watch.until_shares(&[("one", 2), ("two", 2), ("three", 2)]).await;
    assert!(
        watch.has("one").is_subset(&kept),
        "whoever gives up gets nothing else instead"
    );
    two.stop().await;
    produce(&client, 900..1200).await;
    watch.until_shares(&[("one", 3), ("three", 3)]).await;
    watch.until_records(1200).await;
    one.stop().await;
    three.stop().await;
    assert_eq!(
        watch.repeated(),
        Vec::<u32>::new(),
        "each has committed what it gave up"
    );
    let found = client.groups().describe(TOPIC, GROUP).await;
    let lag: u64 = found
        .unwrap_or_else(|error| panic!("{error}"))
        .iter()
        .map(|on| on.lag())
        .sum();
    assert_eq!(lag, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_dies_takes_nothing_from_anybody() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic(TOPIC, PARTITIONS);
    let client = connect(&cluster).await;
    let (sender, mut watch) = Watch::new();
    let one = Worker::start(member(&client, "one"), "one", sender.clone()).await;
    let two = Worker::start(member(&client, "two"), "two", sender.clone()).await;
    watch.until_shares(&[("one", 3), ("two", 3)]).await;
    let before = (watch.has("one"), watch.has("two"));
    let coordinator = cluster.leader(TOPIC, 0);
    cluster.node(coordinator).kill();
    produce(&client, 0..600).await;
    watch.until_records(600).await;
    let described = describe_until(&client, 2).await;
    assert_eq!(
        described,
        [
            ("one".to_owned(), before.0.clone()),
            ("two".to_owned(), before.1.clone())
        ]
    );
    assert_eq!((watch.has("one"), watch.has("two")), before);
    one.stop().await;
    two.stop().await;
    assert_eq!((watch.repeated(), watch.failures.len()), (vec![], 0));
}

/// The members that the coordinator knows once there are so many, and what they should have.
async fn describe_until(client: &Client, count: usize) -> Vec<(String, BTreeSet<u32>)> {
    let asking = async {
        loop {
            let members = client.groups().members(TOPIC, GROUP).await.unwrap_or_default();
            if members.len() == count {
                return members
                    .into_iter()
                    .map(|it| (it.member, it.assigned.into_iter().collect()))
                    .collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("there never were {count} members"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_hangs_loses_its_partitions_until_it_is_back() {
    let cluster = TestCluster::start(1);
    cluster.create_topic(TOPIC, PARTITIONS);
    let client = connect(&cluster).await;
    produce(&client, 0..60).await;
    let hasty = member(&client, "hangs")
        .processing_deadline(Duration::from_secs(1))
        .session(Duration::from_secs(1));
    let mut hangs = join(hasty).await;
    let first = hangs.next_record().await.and_then(Result::ok);
    assert!(first.is_some());
    // It works on that for ever. Its process is well.
    let (sender, mut watch) = Watch::new();
    let one = Worker::start(member(&client, "one"), "one", sender.clone()).await;
    watch.until_records(60).await;
    watch.until_shares(&[("one", PARTITIONS as usize)]).await;
    let stale = hangs.commit().await.err().and_then(|error| error.reason());
    assert_eq!(
        stale,
        Some(Reason::StaleClaim),
        "what it has done is done again elsewhere, and it is told"
    );
    let waiting = tokio::spawn(async move {
        // At first it believes that it has what it had.
        while hangs.partitions().len() != 3 {
            let next = timeout(Duration::from_millis(20), hangs.next_record()).await;
            assert!(!matches!(next, Ok(None | Some(Err(_)))), "{next:?}");
            let _ = hangs.commit().await; // what others have claimed meanwhile is refused
        }
    });
    watch.until_shares(&[("one", 3)]).await;
    let back = timeout(PATIENCE, waiting).await;
    assert!(matches!(back, Ok(Ok(()))), "it never came back: {back:?}");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_commits_by_hand_keeps_a_partition_until_it_has_committed() {
    let cluster = TestCluster::start(1);
    cluster.create_topic(TOPIC, 2);
    let client = connect(&cluster).await;
    let producer = client
        .producer(TOPIC)
        .build()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    for partition in [0, 1] {
        let record = Record::new("x").with_partition(partition);
        drop(producer.send(record).await.unwrap_or_else(|error| panic!("{error}")));
    }
    producer.close().await;
    let mut one = join(member(&client, "one")).await;
    for _ in 0..2 {
        assert!(one.next_record().await.is_some_and(|record| record.is_ok()));
    }
    let mut two = join(member(&client, "two")).await;
    while one.partitions().len() == 2 {
        let _ = timeout(Duration::from_millis(10), one.next_record()).await;
    }
    assert_eq!(one.partitions().len(), 1, "nothing more is handed out of the other");
    one.commit().await.unwrap_or_else(|error| panic!("{error}"));
    while two.partitions().is_empty() {
        let handed_out = timeout(Duration::from_millis(10), two.next_record()).await;
        assert!(
            handed_out.is_err(),
            "everything was committed before it was passed on: {handed_out:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_use_one_name_are_told_apart() {
    let cluster = TestCluster::start(1);
    cluster.create_topic(TOPIC, 1);
    let client = connect(&cluster).await;
    let mut first = join(member(&client, "worker")).await;
    let _second = join(member(&client, "worker")).await;
    let ended = timeout(PATIENCE, first.next_record()).await;
    let ended = ended.unwrap_or_else(|_| panic!("it hears nothing of it"));
    let reason = |error: &Error| error.reason();
    assert_eq!(
        ended.and_then(Result::err).as_ref().and_then(reason),
        Some(Reason::MemberReplaced)
    );
    assert!(first.next_record().await.is_none(), "and has ended");
}

/// By the command line: processes that are killed.
#[test]
fn the_partitions_of_a_killed_process_are_consumed_by_the_others() {
    let cluster = TestCluster::start(3);
    cluster.create_topic(TOPIC, PARTITIONS);
    let consume = |member: &str| {
        let args = ["consume", TOPIC, "--group", GROUP, "--from", "beginning"];
        let session = ["--session", "1s", "--member", member];
        Consuming::start(cluster.command(&args).args(session))
    };
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let client = runtime.block_on(connect(&cluster));
    let (one, two) = (consume("one"), consume("two"));
    let assigned = runtime.block_on(describe_until(&client, 2));
    runtime.block_on(produce(&client, 0..300));
    let all: BTreeSet<u32> = (0..300).collect();
    eventually("everything is consumed once", PATIENCE, || {
        let seen: Vec<u32> = [one.lines(), two.lines()]
            .concat()
            .iter()
            .map(|line| number(line.as_bytes()))
            .collect();
        (seen.iter().copied().collect::<BTreeSet<u32>>() == all).then_some(())
    });
    one.kill();
    runtime.block_on(produce(&client, 300..600));
    eventually("the other goes on alone", PATIENCE, || {
        let seen: BTreeSet<u32> = two.lines().iter().map(|line| number(line.as_bytes())).collect();
        (300..600).all(|wanted| seen.contains(&wanted)).then_some(())
    });
    let described = cluster.json(&["group", "describe", TOPIC, GROUP, "--output", "json"]);
    assert_eq!(described["members"][0]["member"], "two", "{assigned:?} {described}");
    assert_eq!(described["members"][1], serde_json::Value::Null, "{described}");
}
