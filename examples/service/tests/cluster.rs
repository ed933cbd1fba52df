//! The three ways to use a log, on a cluster of real processes of which one is killed: names that are each given once although two writers
//! race for them, and numbers that are each handled once although a worker ends in the middle of its work.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater::{Client, ConsumedRecord, Profile, Record};
use highwater_service::transform::{Route, Stateless, Transform, source_of};
use highwater_service::{Declined, Start, State, View, Writer, topics};
use highwater_tests::TestCluster;
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};

/// For how many names two race at least,
const NAMES: u64 = 60;
/// after a node was killed at least,
const NAMES_AFTER_THE_KILL: u64 = 20;
/// and until each has won once, at most.
const NAMES_MAX: u64 = 5_000;
const NUMBERS: u64 = 240;
const PARTITIONS: u32 = 2;
/// How long anything may take, on a small machine that has lost a node.
const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// The names that have been given, by whom.
#[derive(Debug, Default)]
struct Names {
    given: BTreeMap<String, String>,
    doubles: Vec<String>,
}

impl State for Names {
    fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
        for record in records {
            let (name, owner) = (text(record.key.as_ref().unwrap()), text(&record.value));
            if self.given.insert(name.clone(), owner).is_some() {
                self.doubles.push(name);
            }
        }
    }
}

/// The sum of what has been handled, and how many that were: to see that a step is given a state that is up to date.
#[derive(Debug, Default)]
struct Sums(BTreeMap<u32, (u64, u64)>);

impl State for Sums {
    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        let (count, sum) = self.0.entry(partition).or_default();
        for record in records.iter().filter(|record| record.key.is_some()) {
            *count += 1;
            *sum += text(record.key.as_ref().unwrap()).parse::<u64>().unwrap();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn client(profile: &std::path::Path) -> Client {
    Client::from_profile(&Profile::load(profile).unwrap()).await.unwrap()
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(POLL).await;
        }
    };
    timeout(DEADLINE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_is_given_once_and_each_record_has_one_result_while_a_node_and_a_worker_die() {
    let mut cluster = tokio::task::block_in_place(|| TestCluster::start(3));
    let profile = cluster.profile().to_owned();
    let client = client(&profile).await;
    for topic in ["names", "numbers", "results", "sums", "squares"] {
        topics::ensure(&client, topic, PARTITIONS).await.unwrap();
        // Once more, as each start of a service does.
        assert_eq!(
            topics::ensure(&client, topic, PARTITIONS)
                .await
                .unwrap()
                .partitions
                .len(),
            PARTITIONS as usize
        );
    }
    // Looked up before, since the race would go on meanwhile.
    let victim = tokio::task::block_in_place(|| cluster.leader("names", 0));
    let race = Arc::new(Race::new());
    let racers = [0, 1].map(|place| tokio::spawn(run_race(profile.clone(), place, race.clone())));
    until("a third of the decisions are made", || {
        race.done.load(Ordering::Relaxed) >= 2 * NAMES / 3
    })
    .await;
    cluster.node(victim).kill();
    race.is_node_killed.store(true, Ordering::Relaxed);
    for racer in racers {
        timeout(DEADLINE, racer).await.unwrap().unwrap();
    }
    check_names(&client, race.won()).await;

    cluster.node(victim).start();
    tokio::task::block_in_place(|| cluster.wait_ready());
    send_numbers(&client).await;
    let mut cluster = Some(cluster);
    handle_alone(&profile, &client, cluster.as_mut().unwrap()).await;
    handle_with_state(&profile, &client).await;
    handle_although_thought_dead(&profile, &client).await;
    // Its processes are waited for.
    tokio::task::block_in_place(|| drop(cluster.take()));
}

/// Who races.
const OWNERS: [&str; 2] = ["ann", "bob"];

/// How a race goes.
struct Race {
    /// Both begin at the same moment.
    start: Barrier,
    /// How many decisions have been made, by both.
    done: AtomicU64,
    /// How many names each was given.
    won: [AtomicU64; 2],
    is_node_killed: AtomicBool,
}

impl Race {
    fn new() -> Self {
        Self {
            start: Barrier::new(OWNERS.len()),
            done: AtomicU64::default(),
            won: Default::default(),
            is_node_killed: AtomicBool::default(),
        }
    }

    fn won(&self) -> u64 {
        self.won.iter().map(|won| won.load(Ordering::Relaxed)).sum()
    }

    /// Whether there has been enough of it, for one who has asked for so many names, and for so many since the node was killed.
    fn is_over(&self, asked: u64, asked_since: u64) -> bool {
        let has_each_won = self.won.iter().all(|won| won.load(Ordering::Relaxed) > 0);
        asked >= NAMES && asked_since >= NAMES_AFTER_THE_KILL && has_each_won
    }
}

/// Asks for one name after the other.
async fn run_race(profile: std::path::PathBuf, place: usize, race: Arc<Race>) {
    let owner = OWNERS[place];
    let client = client(&profile).await;
    let view = View::open(&client, "names", Start::State, Names::default())
        .await
        .unwrap();
    view.caught_up().await;
    let writer = Writer::open(&client, "names", view).await.unwrap();
    race.start.wait().await;
    let (mut asked, mut asked_since) = (0, 0);
    while !race.is_over(asked, asked_since) {
        assert!(asked < NAMES_MAX, "there was no race: {:?}", race.won);
        asked_since += u64::from(race.is_node_killed.load(Ordering::Relaxed));
        if ask_for_name(&writer, asked, owner).await {
            race.won[place].fetch_add(1, Ordering::Relaxed);
        }
        asked += 1;
        race.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks for one, and says whether it was given.
async fn ask_for_name(writer: &Writer<Names>, number: u64, owner: &'static str) -> bool {
    let (name, partition) = (format!("name-{number}"), (number % u64::from(PARTITIONS)) as u32);
    let decided = writer.decide(partition, |names: &Names| match names.given.contains_key(&name) {
        true => Err("taken"),
        false => Ok(vec![Record::keyed(name.clone(), owner)]),
    });
    match decided.await {
        Ok(offset) => {
            // The view has what was written.
            assert!(writer.view().position(partition) > offset);
            let given = writer.view().read(|names| names.given.get(&name).cloned());
            assert_eq!(given.as_deref(), Some(owner));
            true
        }
        Err(Declined::Refused("taken")) => false,
        Err(other) => panic!("{name}: {other}"),
    }
}

async fn check_names(client: &Client, won: u64) {
    let view = View::open(client, "names", Start::State, Names::default())
        .await
        .unwrap();
    view.caught_up().await;
    view.read(|names| {
        assert_eq!(names.doubles, Vec::<String>::new());
        assert_eq!(
            names.given.len() as u64,
            won,
            "each name was given to one who was told so"
        );
        let owners: BTreeSet<&str> = names.given.values().map(String::as_str).collect();
        assert_eq!(owners, OWNERS.into());
    });
    let writer = Writer::open(client, "names", view).await.unwrap();
    let before = writer.view().position(0);
    let nothing = writer
        .decide(0, |_: &Names| Ok::<_, Infallible>(Vec::new()))
        .await
        .unwrap();
    assert_eq!(nothing, before);
}

async fn send_numbers(client: &Client) {
    let producer = client.producer("numbers").build().await.unwrap();
    for number in 0..NUMBERS {
        let partition = (number % u64::from(PARTITIONS)) as u32;
        let sent = producer
            .send(Record::new(number.to_string()).with_partition(partition))
            .await;
        drop(sent.unwrap());
    }
    producer.flush().await;
}

fn route(destination: &str, member: &str) -> Route {
    Route {
        source: "numbers".to_owned(),
        destination: destination.to_owned(),
        group: format!("to-{destination}"),
        member: member.to_owned(),
    }
}

/// Twice two records follow from each. The first worker is cut off at any point, with all that it was about to do; the second does the rest
/// while a node is down.
async fn handle_alone(profile: &std::path::Path, client: &Client, cluster: &mut TestCluster) {
    let steps = Arc::new(AtomicU64::new(0));
    // A runtime of its own: when it is shut down, nothing of the worker is left, as when a process is killed.
    let doomed = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    doomed.spawn(work(profile.to_owned(), "doomed", steps.clone()));
    let second = tokio::spawn(work(profile.to_owned(), "second", steps.clone()));
    until("a fifth is handled", || steps.load(Ordering::Relaxed) >= NUMBERS / 5).await;
    doomed.shutdown_background();
    let victim = tokio::task::block_in_place(|| cluster.leader("results", 0));
    cluster.node(victim).kill();
    let results = all_of(client, "results", 2 * NUMBERS).await;
    second.abort();
    for (partition, records) in results {
        let sources: Vec<u64> = records.iter().map(|record| source_of(record).unwrap()).collect();
        let expected: Vec<u64> = (0..NUMBERS / u64::from(PARTITIONS))
            .flat_map(|offset| [offset, offset])
            .collect();
        assert_eq!(sources, expected, "partition {partition}");
        for (place, record) in records.iter().enumerate() {
            let number = place as u64 / 2 * u64::from(PARTITIONS) + u64::from(partition);
            assert_eq!(text(&record.value), format!("{number}:{}", place % 2));
        }
    }
}

async fn work(profile: std::path::PathBuf, member: &'static str, steps: Arc<AtomicU64>) {
    let client = client(&profile).await;
    let worker: Transform<Stateless> = Transform::stateless(&client, route("results", member)).await.unwrap();
    let step = |_: &Stateless, record: &ConsumedRecord| {
        steps.fetch_add(1, Ordering::Relaxed);
        ["0", "1"]
            .map(|which| Record::new(format!("{}:{which}", text(&record.value))))
            .into()
    };
    worker.run(step, pending()).await.unwrap();
}

/// Each result tells what came before it, as the step saw that; and a worker that is asked to stop leaves in the middle.
async fn handle_with_state(profile: &std::path::Path, client: &Client) {
    let seen = Arc::new(AtomicU64::new(0));
    for member in ["one", "two"] {
        let client = self::client(profile).await;
        let worker = Transform::open(&client, route("sums", member), Sums::default())
            .await
            .unwrap();
        let step = |sums: &Sums, record: &ConsumedRecord| {
            seen.fetch_add(1, Ordering::Relaxed);
            let (count, sum) = sums.0.get(&record.partition).copied().unwrap_or_default();
            vec![Record::keyed(record.value.clone(), format!("{count} {sum}"))]
        };
        let enough = async {
            match member {
                "one" => until("a third is handled", || seen.load(Ordering::Relaxed) >= NUMBERS / 3).await,
                _ => drop(all_of(&client, "sums", NUMBERS).await),
            }
        };
        timeout(DEADLINE, worker.run(step, enough)).await.unwrap().unwrap();
    }
    for (partition, records) in all_of(client, "sums", NUMBERS).await {
        let mut sum = 0;
        for (count, record) in records.iter().enumerate() {
            let number = count as u64 * u64::from(PARTITIONS) + u64::from(partition);
            assert_eq!(text(record.key.as_ref().unwrap()), number.to_string());
            assert_eq!(text(&record.value), format!("{count} {sum}"), "number {number}");
            sum += number;
        }
    }
}

/// A worker stands still in the middle of a record, for so long that another takes over and does all of the work; then it goes on.
async fn handle_although_thought_dead(profile: &std::path::Path, client: &Client) {
    let (stands, mut standing) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, going_on) = std::sync::mpsc::channel::<()>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // One thread: when a step blocks, all of this worker stands still, also what keeps it in the group.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let profile = profile.to_owned();
    let late = runtime.spawn(async move {
        let client = self::client(&profile).await;
        let worker = Transform::stateless(&client, route("squares", "late")).await.unwrap();
        let step = move |_: &Stateless, record: &ConsumedRecord| {
            if record.offset == 5 {
                stands.send(()).unwrap();
                going_on.recv().unwrap();
            }
            vec![square(record)]
        };
        worker.run(step, async { stopped.await.unwrap() }).await.unwrap();
    });
    timeout(DEADLINE, standing.recv()).await.unwrap().unwrap();
    let heir = Transform::stateless(client, route("squares", "heir")).await.unwrap();
    let enough = async { drop(all_of(client, "squares", NUMBERS).await) };
    let step = async |record: &ConsumedRecord| vec![square(record)];
    timeout(DEADLINE, heir.run_each(step, enough)).await.unwrap().unwrap();
    go_on.send(()).unwrap();
    stop.send(()).unwrap();
    timeout(DEADLINE, late).await.unwrap().unwrap();
    runtime.shutdown_background();
    for (partition, records) in all_of(client, "squares", NUMBERS).await {
        let numbers =
            (0..NUMBERS / u64::from(PARTITIONS)).map(|place| place * u64::from(PARTITIONS) + u64::from(partition));
        let expected: Vec<String> = numbers.map(|number| (number * number).to_string()).collect();
        assert_eq!(
            records.iter().map(|record| text(&record.value)).collect::<Vec<_>>(),
            expected,
            "partition {partition}"
        );
    }
}

fn square(record: &ConsumedRecord) -> Record {
    let number: u64 = text(&record.value).parse().unwrap();
    Record::new((number * number).to_string())
}

/// By partition, all records of a topic, once there are at least so many, and all that are there then.
async fn all_of(client: &Client, topic: &str, count: u64) -> BTreeMap<u32, Vec<ConsumedRecord>> {
    let reading = async {
        let consumer = client.consume_topic(topic).build().await.unwrap();
        loop {
            let mut ends = 0;
            for partition in 0..PARTITIONS {
                // A look that fails while a leader is chosen is made again.
                ends += consumer.end_offset(partition).await.unwrap_or(0);
            }
            if ends >= count {
                break;
            }
            sleep(POLL).await;
        }
        let mut consumer = client.consume_topic(topic).stop_at_end().build().await.unwrap();
        let mut all = BTreeMap::<u32, Vec<ConsumedRecord>>::new();
        while let Some(record) = consumer.next_record().await {
            let record = record.unwrap();
            all.entry(record.partition).or_default().push(record);
        }
        all
    };
    let all = timeout(DEADLINE, reading)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {count} in {topic}"));
    assert_eq!(
        all.values().map(Vec::len).sum::<usize>() as u64,
        count,
        "records in {topic}"
    );
    all
}
