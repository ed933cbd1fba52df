//! A server as the client that `activity init` prepares; and one that may not write any more, whose refusal nobody takes for a passing one.

use std::path::Path;

use highwater_tests::{Finished, TestCluster, eventually, run, without_settings};

use crate::DEADLINE;
use crate::server::Server;

fn init(cluster: &TestCluster) -> Finished {
    let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_activity")));
    run(command.arg("init").arg("--profile").arg(cluster.profile()), DEADLINE)
}

fn add(server: &Server, id: u64) -> Finished {
    let json = format!(r#"{{"id":{id},"deployment_id":1,"message":"event {id}"}}"#);
    server.run(&["add", &json])
}

#[test]
fn what_the_log_will_not_take_is_not_tried_again() {
    let cluster = TestCluster::start(1);
    let profile = cluster.profile_for("activity", "server");
    init(&cluster).success();
    assert!(init(&cluster).success().stdout().contains("nothing was changed"));
    let server = Server::start_with(&cluster, &profile, &[]);
    add(&server, 1).success();

    let produce = [
        "activity/server",
        "produce",
        "--tenant",
        "activity",
        "--topic",
        "activity",
    ];
    cluster.run(&[&["access", "revoke"], &produce[..]].concat()).success();
    let mut id = 1;
    // Nodes learn of it a moment later.
    let refused = eventually("it may not write", DEADLINE, || {
        id += 1;
        Some(add(&server, id)).filter(|added| !added.status.success())
    });
    assert!(!refused.stderr.contains("again"), "{}", refused.stderr);
    refused.fails_with(1, &["not stored, and the log will not take it"]);
    // It is served what it may read.
    let listed = server.run(&["list", "1"]).success().stdout();
    assert_eq!(listed.lines().count() as u64, id - 1);
}
