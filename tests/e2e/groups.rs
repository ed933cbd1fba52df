//! Consumer groups whose offsets the partitions keep: going on where somebody stopped, fencing, resets, and a leader that dies.

use std::process::Stdio;
use std::task::{Context, Waker};

use highwater::{Client, Position, Profile, Reason, Record};
use highwater_tests::TestCluster;
use serde_json::Value;
use tokio::runtime::Runtime;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";

fn run(cluster: &TestCluster, args: &[&str]) -> (Option<i32>, String, String) {
    let output = cluster.command(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn succeed(cluster: &TestCluster, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(cluster, args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn json(cluster: &TestCluster, args: &[&str]) -> Value {
    let text = succeed(cluster, args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

fn connect(cluster: &TestCluster, runtime: &Runtime) -> Client {
    let profile = Profile::load(cluster.profile()).unwrap_or_else(|error| panic!("{error}"));
    let connected = runtime.block_on(Client::from_profile(&profile));
    connected.unwrap_or_else(|error| panic!("{error}"))
}

fn produce(client: &Client, runtime: &Runtime, numbers: std::ops::Range<u32>) {
    runtime.block_on(async {
        let producer = client
            .producer(TOPIC)
            .build()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        for number in numbers {
            let sent = producer
                .send(Record::new(number.to_string()).with_partition(number % 2))
                .await;
            drop(sent.unwrap_or_else(|error| panic!("{error}")));
        }
        producer.close().await;
    });
}

fn lines(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// By the command line alone, as its help says.
#[test]
fn a_group_goes_on_where_it_stopped_and_after_a_reset_from_there() {
    let cluster = TestCluster::start(3);
    cluster.create_topic(TOPIC, 2);
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let client = connect(&cluster, &runtime);
    let consume = [
        "consume",
        TOPIC,
        "--group",
        GROUP,
        "--from",
        "beginning",
        "--exit-at-end",
    ];

    produce(&client, &runtime, 0..50);
    assert_eq!(lines(&succeed(&cluster, &consume)), (0..50).collect::<Vec<_>>());
    produce(&client, &runtime, 50..80);
    let listed = json(&cluster, &["group", "list", TOPIC, "--output", "json"]);
    assert_eq!(
        (&listed["groups"][0]["group"], &listed["groups"][0]["lag"]),
        (&GROUP.into(), &30.into())
    );
    assert_eq!(lines(&succeed(&cluster, &consume)), (50..80).collect::<Vec<_>>());
    assert_eq!(succeed(&cluster, &consume), "", "all is consumed");

    let described = json(&cluster, &["group", "describe", TOPIC, GROUP, "--output", "json"]);
    let partitions = described["partitions"].as_array().map_or(0, Vec::len);
    assert_eq!(partitions, 2, "{described}");
    assert_eq!(described["partitions"][1]["offset"], 40);
    assert_eq!(described["partitions"][1]["lag"], 0);
    succeed(
        &cluster,
        &["group", "reset", TOPIC, GROUP, "--to", "35", "--partition", "1"],
    );
    assert_eq!(lines(&succeed(&cluster, &consume)), [71, 73, 75, 77, 79]);

    let (code, _, stderr) = run(&cluster, &["group", "reset", TOPIC, GROUP, "--to", "41"]);
    assert_ne!(code, Some(0));
    assert!(stderr.contains("beyond the end"), "{stderr}");
    succeed(&cluster, &["group", "delete", TOPIC, GROUP]);
    let (code, _, stderr) = run(&cluster, &["group", "describe", TOPIC, GROUP]);
    assert_ne!(code, Some(0));
    assert!(stderr.contains("group list"), "{stderr}");
    assert_eq!(lines(&succeed(&cluster, &consume)).len(), 80, "it begins anew");
}

/// Also while leaders die: a commit is on the disks of a majority, or it did not happen.
#[test]
fn only_the_last_claim_commits_and_no_commit_is_lost_with_a_leader() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic(TOPIC, 2);
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let client = connect(&cluster, &runtime);
    produce(&client, &runtime, 0..40);
    let leader = cluster.leader(TOPIC, 0);
    runtime.block_on(async {
        let member = |name: &str| {
            let builder = client.consumer(TOPIC, 0).from(Position::Beginning);
            builder.group(GROUP, name).build()
        };
        let mut first = member("first").await.unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..10 {
            first
                .next_record()
                .await
                .transpose()
                .unwrap_or_else(|error| panic!("{error}"));
        }
        first.commit().await.unwrap_or_else(|error| panic!("{error}"));
        cluster.node(leader).kill();
        let mut second = member("second").await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(second.committed(0), Some(10));
        first
            .next_record()
            .await
            .transpose()
            .unwrap_or_else(|error| panic!("{error}"));
        let refused = first.commit().await.err().and_then(|error| error.reason());
        assert_eq!(refused, Some(Reason::StaleClaim));
        for _ in 0..10 {
            second
                .next_record()
                .await
                .transpose()
                .unwrap_or_else(|error| panic!("{error}"));
        }
        second.commit().await.unwrap_or_else(|error| panic!("{error}"));
        let found = client
            .groups()
            .describe(TOPIC, GROUP)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let seen: Vec<_> = found.iter().map(|on| (on.member.as_str(), on.lag())).collect();
        assert_eq!(seen, [("second", 0)]);
    });
}

/// A commit of which nobody knows whether it was applied is not taken for the one before.
#[test]
fn a_commit_after_one_that_was_cut_short_is_not_passed_over() {
    let cluster = TestCluster::start(1);
    cluster.create_topic(TOPIC, 2);
    let runtime = Runtime::new().unwrap_or_else(|error| panic!("{error}"));
    let client = connect(&cluster, &runtime);
    produce(&client, &runtime, 0..20);
    runtime.block_on(async {
        let builder = client.consumer(TOPIC, 0).from(Position::Beginning).group(GROUP, "one");
        let mut consumer = builder.build().await.unwrap_or_else(|error| panic!("{error}"));
        consumer.next_record().await;
        consumer.commit().await.unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..9 {
            consumer.next_record().await;
        }
        // It is on its way when it is given up: polled once, and dropped.
        {
            let mut commit = std::pin::pin!(consumer.commit());
            let polled = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        let offset = async |at: u64| {
            let found = client.groups().describe(TOPIC, GROUP).await;
            found.unwrap_or_else(|error| panic!("{error}"))[0].offset == Some(at)
        };
        consumer
            .seek(0, Position::Offset(1))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        consumer.commit().await.unwrap_or_else(|error| panic!("{error}"));
        assert!(
            offset(1).await,
            "the last commit counts, whatever became of the one before"
        );
    });
}
