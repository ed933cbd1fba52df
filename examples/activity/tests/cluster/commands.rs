//! Every command as a user gives it, on a cluster of one node.

use std::process::Command;

use highwater_activity::limits::MESSAGE_BYTES_MAX;
use highwater_tests::{Finished, TestCluster, run, run_with_input};
use serde_json::Value;

use crate::server::{Printing, Server};
use crate::{DEADLINE, web};

const FIRST: &str = r#"{"id":1,"deployment_id":1,"message":"begun"}"#;

fn finished(mut command: Command) -> Finished {
    run(&mut command, DEADLINE)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}

#[test]
fn the_commands_do_what_they_say() {
    let cluster = TestCluster::start(1);
    let mut server = Server::start(cluster.profile(), &[]);
    let cli = |arguments: &[&str]| finished(server.cli(arguments));

    let added = json(&cli(&["add", FIRST]).success().stdout());
    assert_eq!(
        (&added["already_there"], &added["position"]),
        (&Value::Bool(false), &Value::from(0))
    );
    let again = json(&cli(&["add", FIRST]).success().stdout());
    assert_eq!(
        (&again["already_there"], &again["differs"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    for name in ["position", "sent_at_ms", "received_at_ms"] {
        assert_eq!(added[name], again[name], "{name}");
    }
    let other = cli(&["add", r#"{"id":1,"deployment_id":1,"message":"another"}"#]).fails_with(1, &["another message"]);
    assert_eq!(json(&other.stdout())["differs"], true);

    lines_from_standard_input(&server);
    let listed = cli(&["list", "1"]).success().stdout();
    let ids = |text: &str| {
        text.lines()
            .map(|line| json(line)["id"].as_u64().unwrap())
            .collect::<Vec<u64>>()
    };
    assert_eq!(ids(&listed), [1, 3, 2]);
    assert_eq!(
        cli(&["get", "1", "1"]).success().stdout(),
        listed.lines().next().unwrap().to_owned() + "\n"
    );
    assert_eq!(json(listed.lines().next().unwrap())["message"], "begun");
    assert_eq!(
        ids(&cli(&["follow", "1", "--from", "3", "--max", "2"]).success().stdout()),
        [3, 2]
    );
    assert_eq!(cli(&["list", "7"]).success().stdout(), "");

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

    versions(&server);
    web::page_and_events(&server);
    metrics(&server);

    // Whoever follows is told before the server ends.
    let following = Printing::start(server.cli(&["follow", "1", "--retry-for-ms", "0"]));
    following.wait_lines(3);
    assert!(server.stop().success());
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
    let own = finished(server.cli(&["version"])).success().stdout();
    assert!(
        own.starts_with(concat!("activity-cli ", env!("CARGO_PKG_VERSION"), " (")),
        "{own}"
    );
    assert_eq!(finished(server.cli(&["--version"])).success().stdout(), own);
    let mut command = Command::new(env!("CARGO_BIN_EXE_activity"));
    let servers = run(command.arg("version"), DEADLINE).success().stdout();
    assert_eq!(servers, own.replace("activity-cli", "activity"));
}

fn metrics(server: &Server) {
    let (_, text) = web::get(&server.address("metrics"), "/metrics");
    for line in [
        "activity_requests_total{method=\"add\",outcome=\"already_there\"} 4",
        "activity_requests_total{method=\"add\",outcome=\"ok\"} 3",
        "activity_requests_total{method=\"get\",outcome=\"not_found\"} 1",
        "activity_followers ",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let (ready, _) = web::get(&server.address("metrics"), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
}
