//! Wrong requests: each a clear error with its exit code, and no harm to what is there.

use std::fs;
use std::net::TcpListener;

use highwater_tests::{TestCluster, run, run_with_input};

use crate::{PATIENCE, assert_same_bytes, consume, numbers, produce};

#[test]
fn topics_that_do_not_exist_or_cannot_exist_are_refused() {
    let cluster = TestCluster::start(1);
    cluster
        .run(&["topic", "describe", "nowhere"])
        .fails_with(3, &["nowhere"]);
    cluster.run(&["topic", "delete", "nowhere"]).fails_with(3, &["nowhere"]);
    cluster
        .run(&["consume", "nowhere", "--from", "beginning"])
        .fails_with(3, &["nowhere"]);
    run_with_input(&mut cluster.command(&["produce", "nowhere"]), b"x\n".to_vec(), PATIENCE)
        .fails_with(3, &["nowhere"]);

    for bad in ["Upper", "", "a/b/c", "..", "with blank", &"x".repeat(200)] {
        cluster.run(&["topic", "create", bad]).fails_with(4, &[]);
    }
    cluster.create_topic("there", 1);
    cluster.run(&["topic", "create", "there"]).fails_with(4, &["there"]);
    cluster
        .run(&["topic", "create", "wide", "--replication", "3"])
        .fails_with(4, &["3"]);
    cluster
        .run(&["topic", "create", "none", "--partitions", "0"])
        .fails_with(2, &["partition"]);
    cluster
        .run(&["topic", "create", "many", "--partitions", "100000"])
        .fails_with(4, &["partitions"]);
}

#[test]
fn a_line_that_is_too_long_is_named_and_what_came_before_it_is_kept() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("lines", 1);
    let input = [&numbers(1_000)[..], &vec![b'x'; 2_000_000], b"\nafter\n"].concat();
    let refused = run_with_input(&mut cluster.command(&["produce", "lines"]), input, PATIENCE);
    refused.fails_with(4, &["line 1001", "1048", "1000 lines acknowledged"]);
    assert_same_bytes(&consume(&cluster, "lines"), &numbers(1_000));

    let keyed = [b"k".repeat(100_000), b":v\n".to_vec()].concat();
    let mut command = cluster.command(&["produce", "lines", "--key-separator", ":"]);
    run_with_input(&mut command, keyed, PATIENCE)
        .fails_with(4, &["line 1", "100000 bytes", "65536"])
        .with_hint(&["smaller"]);
    let mut command = cluster.command(&["produce", "lines", "--key-separator", ":"]);
    run_with_input(&mut command, b"a:b\nno separator\n".to_vec(), PATIENCE)
        .fails_with(4, &["line 2", "separator"])
        .with_hint(&["--key-separator"]);
    assert_eq!(consume(&cluster, "lines").len(), numbers(1_000).len() + 2);
}

#[test]
fn partitions_and_offsets_that_do_not_exist_are_refused() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("small", 1);
    produce(&cluster, "small", numbers(10));
    let mut command = cluster.command(&["produce", "small", "--partition", "7"]);
    run_with_input(&mut command, b"x\n".to_vec(), PATIENCE).fails_with(3, &["7"]);
    cluster
        .run(&["consume", "small", "--partition", "7", "--from", "beginning"])
        .fails_with(3, &["7"]);
    cluster
        .run(&["consume", "small", "--from", "nonsense"])
        .fails_with(2, &["nonsense"]);
    cluster
        .run(&["consume", "small", "--from", "1000", "--exit-at-end"])
        .fails_with(3, &["1000", "10"]);
    assert_same_bytes(&consume(&cluster, "small"), &numbers(10));
}

#[test]
fn wrong_arguments_end_with_2_and_name_the_limit() {
    let cluster = TestCluster::prepare(1);
    for (arguments, limit) in [
        (&["produce", "x", "--deadline", "1h"][..], "10m"),
        (&["produce", "x", "--deadline", "0s"], "10m"),
        (&["consume", "x", "--deadline", "1000000000h"], "24h"),
        (&["topic", "list", "--deadline", "0ms"], "24h"),
        (&["cluster", "describe", "--deadline", "5"], "duration"),
        (&["cluster", "settings", "--groups-kept", "87601h"], "87600h"),
        (&["health", "--timeout", "0s"], "24h"),
        (&["serve", "--workers", "100000"], "256"),
        (&["serve", "--log", "x=y=z"], "filter"),
        (
            &[
                "certs",
                "node",
                "n",
                "--ca-dir",
                ".",
                "--out",
                ".",
                "--days",
                "4294967295",
            ],
            "1000000",
        ),
    ] {
        cluster.run(arguments).fails_with(2, &[limit]);
    }
}

#[test]
fn input_files_and_profiles_that_cannot_be_read_are_named_with_what_to_do() {
    let cluster = TestCluster::prepare(1);
    for path in ["/nonexistent/lines", "/"] {
        cluster
            .run(&["produce", "x", "--file", path])
            .fails_with(1, &["cannot read", path])
            .with_hint(&["--file"]);
    }
    let broken = cluster.directory().join("broken.toml");
    fs::write(&broken, "addresses = []\nca = \n").unwrap_or_else(|error| panic!("{error}"));
    for (profile, why) in [
        ("/nonexistent/profile", "cannot be read"),
        ("/", "cannot be read"),
        ("broken.toml", "line 2"),
    ] {
        cluster
            .run(&["topic", "list", "--profile", profile])
            .fails_with(6, &[profile, why])
            .with_hint(&["--profile"]);
    }
}

#[test]
fn certificates_decide_who_may_come_in() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("mine", 1);
    let list = |profile: &std::path::Path| run(&mut cluster.command_as(profile, &["topic", "list"]), PATIENCE);

    let stranger = TestCluster::prepare(1);
    let ca = stranger.certificates();
    let pair = format!("{ca}/client-acme-app");
    list(&cluster.profile_with("wrong-ca", &format!("{ca}/ca.pem"), &pair)).fails_with(6, &["certificate"]);
    list(&cluster.profile_with("wrong-client", "certs/ca.pem", &pair)).fails_with(6, &["certificate"]);

    let past = [
        "--not-before",
        "2020-01-01T00:00:00Z",
        "--not-after",
        "2021-01-01T00:00:00Z",
    ];
    let own = cluster.certificates();
    let arguments = ["certs", "client", "acme", "old", "--ca-dir", &own, "--out", &own];
    cluster.run(&[&arguments[..], &past].concat()).success();
    list(&cluster.profile_with("expired", "certs/ca.pem", "certs/client-acme-old")).fails_with(6, &["expired"]);

    list(&cluster.profile_with("missing", "certs/ca.pem", "certs/nobody")).fails_with(6, &["nobody.pem"]);
    fs::write(cluster.directory().join("garbage.pem"), "garbage").unwrap_or_else(|error| panic!("{error}"));
    fs::write(cluster.directory().join("garbage.key"), "garbage").unwrap_or_else(|error| panic!("{error}"));
    list(&cluster.profile_with("garbage", "certs/ca.pem", "garbage")).fails_with(6, &["garbage"]);

    // A node's certificate is no client's.
    assert_ne!(
        list(&cluster.profile_with("node", "certs/ca.pem", "certs/node-n1")).code(),
        0
    );

    // Another tenant sees nothing, and cannot tell what is there from what is not.
    crate::create_tenant(&cluster, "rival");
    let other = cluster.profile_for("rival", "app");
    assert_eq!(list(&other).success().stdout().lines().count(), 1, "only the heading");
    run(
        &mut cluster.command_as(&other, &["topic", "describe", "mine"]),
        PATIENCE,
    )
    .fails_with(3, &["mine"]);
    run(
        &mut cluster.command_as(&other, &["topic", "describe", "acme/mine"]),
        PATIENCE,
    )
    .fails_with(3, &[]);
    cluster.run(&["topic", "describe", "mine"]).success();
}

#[test]
fn a_cluster_that_is_not_there_is_said_to_be_unreachable() {
    let cluster = TestCluster::prepare(1);
    cluster.run(&["topic", "list"]).fails_with(5, &["127.0.0.1"]);
    cluster.run(&["health"]).fails_with(5, &["1 of 1"]);

    // Something else listens there and never answers.
    let _silent = TcpListener::bind(cluster.nodes()[0].address()).unwrap_or_else(|error| panic!("{error}"));
    cluster
        .run(&["topic", "list", "--deadline", "2s"])
        .fails_with(5, &["127.0.0.1"]);
}

#[test]
fn a_reader_that_leaves_early_ends_the_command_quietly() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("numbers", 1);
    produce(&cluster, "numbers", numbers(100_000));
    let mut command = cluster.command(&["consume", "numbers", "--from", "beginning", "--exit-at-end"]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{error}"));
    drop(child.stdout.take());
    let finished = highwater_tests::wait(child, PATIENCE).success();
    assert_eq!(finished.stderr, "");
}
