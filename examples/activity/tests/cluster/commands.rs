//! Every command as a user gives it, on a cluster of one node.

use std::fs;

use highwater_activity::limits::MESSAGE_BYTES_MAX;
use highwater_tests::{TestCluster, eventually, run, run_with_input, without_settings};
use serde_json::Value;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::server::{Printing, Server};
use crate::{DEADLINE, web};

const FIRST: &str = r#"{"id":1,"deployment_id":1,"message":"begun"}"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}

#[test]
fn the_commands_do_what_they_say() {
    let cluster = TestCluster::start(1);
    let server = Server::start(&cluster);
    adding(&server);
    lines_from_standard_input(&server);
    reading(&server);
    refusals(&server);
    versions(&server);
    web::page_and_events(&server);
    metrics(&server);
    eventually("gRPC's health service says that it serves", DEADLINE, || {
        (server.health() == ServingStatus::Serving).then_some(())
    });
    the_address_may_stand_in_a_file(&cluster, &server);
    errors_are_lines_of_json_if_that_is_wanted(&cluster);
    nothing_happens_to_a_terminal(&server);
    followers_are_told_before_the_server_ends(server);
}

/// An event that is there already stays as it is, and is told.
fn adding(server: &Server) {
    let added = json(&server.run(&["add", FIRST]).success().stdout());
    assert_eq!(
        (&added["already_there"], &added["position"]),
        (&Value::Bool(false), &Value::from(0))
    );
    let again = json(&server.run(&["add", FIRST]).success().stdout());
    assert_eq!(
        (&again["already_there"], &again["differs"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    for name in ["position", "sent_at_ms", "received_at_ms"] {
        assert_eq!(added[name], again[name], "{name}");
    }
    let other = server.run(&["add", r#"{"id":1,"deployment_id":1,"message":"another"}"#]);
    let other = other.fails_with(1, &["another message"]);
    assert_eq!(json(&other.stdout())["differs"], true);
}

fn reading(server: &Server) {
    let read = |arguments: &[&str]| server.run(arguments).success().stdout();
    let ids = |text: &str| {
        text.lines()
            .map(|line| json(line)["id"].as_u64().unwrap())
            .collect::<Vec<u64>>()
    };
    let listed = read(&["list", "1"]);
    assert_eq!(ids(&listed), [1, 3, 2]);
    assert_eq!(
        read(&["get", "1", "1"]),
        listed.lines().next().unwrap().to_owned() + "\n"
    );
    assert_eq!(json(listed.lines().next().unwrap())["message"], "begun");
    assert_eq!(ids(&read(&["follow", "1", "--from", "3", "--max", "2"])), [3, 2]);
    assert_eq!(read(&["list", "7"]), "");

    let min = ["--min-position", "2"];
    assert_eq!(ids(&read(&[&["list", "1"], &min[..]].concat())), [1, 3, 2]);
    assert_eq!(ids(&read(&[&["get", "1", "2"], &min[..]].concat())), [2]);
    assert_eq!(ids(&read(&[&["follow", "1", "--max", "1"], &min[..]].concat())), [1]);
}

fn refusals(server: &Server) {
    let cli = |arguments: &[&str]| server.run(arguments);
    cli(&["get", "1", "9"]).fails_with(1, &["deployment 1 has no event 9"]);
    cli(&["follow", "1", "--from", "9"]).fails_with(1, &["deployment 1 has no event 9"]);
    cli(&["list", "0"]).fails_with(1, &["deployment_id: 0", "9007199254740991"]);
    cli(&["add", "{}"]).fails_with(1, &["missing field"]);
    let long = format!(
        r#"{{"id":5,"deployment_id":1,"message":"{}"}}"#,
        "x".repeat(MESSAGE_BYTES_MAX + 1)
    );
    cli(&["add", &long]).fails_with(1, &["message: it has 8193 bytes; 1 to 8192"]);
    cli(&["--retry-for-ms", "0", "--address", "127.0.0.1:1", "get", "1", "1"]).fails_with(1, &["error"]);
}

fn the_address_may_stand_in_a_file(cluster: &TestCluster, server: &Server) {
    let file = cluster.directory().join("cli.toml");
    fs::write(&file, format!("address = {:?}\nretry_for_ms = 0\n", server.grpc)).unwrap();
    let cli = || without_settings(env!("CARGO_BIN_EXE_activity-cli").as_ref());
    let listed = server.run(&["list", "1"]).success().stdout();
    let told = run(cli().args(["list", "1", "--config"]).arg(&file), DEADLINE);
    assert_eq!(told.success().stdout(), listed);
    let told = run(cli().args(["list", "1"]).env("CONFIG", &file), DEADLINE);
    assert_eq!(told.success().stdout(), listed);
    fs::write(&file, "adress = \"127.0.0.1:1\"\n").unwrap();
    run(cli().args(["list", "1"]).env("CONFIG", &file), DEADLINE).fails_with(2, &["no setting \"adress\""]);
}

fn errors_are_lines_of_json_if_that_is_wanted(cluster: &TestCluster) {
    let mut command = without_settings(env!("CARGO_BIN_EXE_activity").as_ref());
    let ports = ["--port", "0", "--web-port", "0", "--metrics-port", "0"];
    command.args(["serve", "--profile", "nowhere.toml"]).args(ports);
    let ended = run(
        command.env("LOG_FORMAT", "json").current_dir(cluster.directory()),
        DEADLINE,
    );
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    let lines: Vec<Value> = ended.stderr.lines().map(json).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["message"].as_str().unwrap().contains("nowhere.toml"), "{last}");
}

/// What a terminal would obey is printed as its number, and means the same to whoever reads the JSON; errors quote it so too.
fn nothing_happens_to_a_terminal(server: &Server) {
    const OBEYED: [char; 4] = ['\u{1b}', '\u{9b}', '\u{202e}', '\u{7f}'];
    let message = format!("red {}", String::from_iter(OBEYED));
    let line = serde_json::json!({"id": 1, "deployment_id": 2, "message": message}).to_string();
    server.run(&["add", &line]).success();
    let listed = server.run(&["list", "2"]).success().stdout();
    assert!(!listed.contains(OBEYED), "{listed:?}");
    assert_eq!(json(&listed)["message"], message);
    let refused = server.run(&["add", &format!(r#"{{"{}":1}}"#, String::from_iter(&OBEYED[1..]))]);
    assert!(!refused.stderr.contains(OBEYED), "{:?}", refused.stderr);
    refused.fails_with(1, &["unknown field", r"\u009b\u202e"]);
}

fn followers_are_told_before_the_server_ends(server: Server) {
    let following = Printing::start(server.cli(&["follow", "1", "--retry-for-ms", "0"]));
    following.wait_lines(3);
    server.stop();
    following
        .wait()
        .fails_with(1, &["the server stops; follow again from position 3"]);
}

/// Blank lines are nothing; one that is wrong ends it and is named; what stood before it has been posted.
fn lines_from_standard_input(server: &Server) {
    let lines = "{\"id\":3,\"deployment_id\":1,\"message\":\"<b>three</b>\"}\n\n{\"id\":2,\"deployment_id\":1,\"message\":\"two\",\"sent_at_ms\":5}\n";
    let add = |input: &str| run_with_input(&mut server.cli(&["add", "-"]), input.into(), DEADLINE);
    assert_eq!(add(lines).success().stdout().lines().count(), 2);
    let wrong = add(&format!("{lines}{{\"id\":4}}\n{FIRST}\n")).fails_with(1, &["line 4: event: missing field"]);
    let answers: Vec<Value> = wrong.stdout().lines().map(json).collect();
    assert_eq!(answers.len(), 2);
    assert!(
        answers
            .iter()
            .all(|answer| answer["already_there"] == true && answer["differs"] == false)
    );
    assert_eq!(answers[1]["sent_at_ms"], 5);
    add(&"x".repeat(100_000)).fails_with(1, &["line 1", "longer than"]);
    add("").success();
}

fn versions(server: &Server) {
    let own = server.run(&["version"]).success().stdout();
    assert!(
        own.starts_with(concat!("activity-cli ", env!("CARGO_PKG_VERSION"), " (")),
        "{own}"
    );
    assert_eq!(server.run(&["--version"]).success().stdout(), own);
    let mut command = without_settings(env!("CARGO_BIN_EXE_activity").as_ref());
    let servers = run(command.arg("version"), DEADLINE).success().stdout();
    assert_eq!(servers, own.replace("activity-cli", "activity"));
}

fn metrics(server: &Server) {
    let (_, text) = web::get(&server.metrics, "/metrics");
    for line in [
        "activity_requests_total{method=\"add\",outcome=\"already_there\"} 4",
        "activity_requests_total{method=\"add\",outcome=\"ok\"} 3",
        "activity_requests_total{method=\"get\",outcome=\"not_found\"} 1",
        "activity_followers ",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let (ready, _) = web::get(&server.metrics, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
}
