//! The topic is made again, so that the log ends before what has been seen: who follows begins anew instead of waiting for ever, and a server
//! that has known the old one ends.

use std::thread;

use highwater_activity::{PARTITIONS, TOPIC};
use highwater_tests::TestCluster;
use serde_json::Value;

use crate::server::{Printing, Server};
use crate::web;

fn delete_topic(cluster: &TestCluster) {
    cluster.run(&["topic", "delete", TOPIC]).success();
}

fn add(server: &Server, id: u64) {
    let json = format!(r#"{{"id":{id},"deployment_id":1,"message":"event {id}"}}"#);
    server.run(&["add", &json]).success();
}

#[test]
fn who_has_seen_what_the_log_has_not_begins_anew() {
    let cluster = TestCluster::start(1);
    let mut server = Server::start(&cluster);
    (1..=3).for_each(|id| add(&server, id));
    let following = Printing::start(server.cli(&["follow", "1", "--max", "5", "--retry-for-ms", "60000"]));
    following.wait_lines(3);
    server.kill();
    delete_topic(&cluster);
    server.start_again();
    add(&server, 11);
    add(&server, 12);

    let lines = following.wait_lines(5);
    let ids_and_positions: Vec<(u64, u64)> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|event: Value| (event["id"].as_u64().unwrap(), event["position"].as_u64().unwrap()))
        .collect();
    assert_eq!(ids_and_positions, [(1, 0), (2, 1), (3, 2), (11, 0), (12, 1)]);
    let said = following.wait().success().stderr;
    assert!(
        said.contains("note: position 2 is wanted, and the log ends at "),
        "{said}"
    );
    assert!(said.contains("beginning at the first event"), "{said}");

    let asked = ["get", "1", "11", "--min-position", "7"];
    thread::scope(|scope| {
        scope.spawn(|| server.run(&asked).fails_with(1, &["position 7", "ends at 2"]));
        scope.spawn(|| web::is_told_to_begin_anew(&server, "/events/1?after=2"));
    });
    a_server_of_the_old_topic_ends(&cluster, &server);
}

fn a_server_of_the_old_topic_ends(cluster: &TestCluster, server: &Server) {
    delete_topic(cluster);
    cluster.create_topic(TOPIC, PARTITIONS);
    let log = server.wait_ended();
    assert!(log.contains("deleted and made again"), "{log}");
}
