//! A cluster, two back ends, the log service and several who ask, all of them processes: a back end, a node and the log service are killed,
//! and every command has exactly one result, which is right, and is written down once.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater::{Client, Profile};
use highwater_calc::command;
use highwater_calc::journal::Line;
use highwater_calc::session::Session;
use highwater_calc::wire::{self, COMMAND_TOPIC, Outcome};
use highwater_tests::http::get;
use highwater_tests::{Program, TestCluster, eventually, run, run_with_input, wait, without_settings};
use tokio::runtime::Runtime;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How long anything may take, on a small machine that has lost a node.
const DEADLINE: Duration = Duration::from_secs(120);
const SESSIONS: u64 = 4;
const COMMANDS: u64 = 60;

/// A session: `calc connect`, with commands at its standard input. It does not outlive the test.
struct Asking {
    /// Until it is waited for.
    child: Option<Child>,
    stderr: PathBuf,
}

impl Asking {
    /// Pipes its commands into a session, with some that the prompt explains by itself.
    fn start(cluster: &TestCluster, session: u64) -> Self {
        let stderr = cluster.directory().join(format!("session-{session}.stderr"));
        let log = File::create(&stderr).unwrap();
        let mut command = calc(cluster, &["connect"]);
        command.current_dir(cluster.directory()).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut text = String::from("help\nad 2 5\nnp 0\n\n");
        (0..COMMANDS).for_each(|number| text.push_str(&format!("{}\n", command_of(session, number))));
        text.push_str("exit\nadd 1 1\n");
        // It fits into a pipe, and is read as the answers come.
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        Self {
            child: Some(child),
            stderr,
        }
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for its end, which is a good one, and gives what it printed.
    fn finish(&mut self) -> String {
        let finished = wait(self.child.take().unwrap(), DEADLINE);
        assert_eq!(finished.code(), 0, "{}", self.stderr());
        finished.stdout()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.stderr.display(), self.stderr());
        }
    }
}

fn calc(cluster: &TestCluster, arguments: &[&str]) -> Command {
    let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_calc")));
    command.args(arguments).env("HIGHWATER_CONFIG", cluster.profile());
    command
}

fn backend(cluster: &TestCluster, name: &str) -> Program {
    Program::start(name, &mut calc(cluster, &["backend"]), cluster.directory())
}

fn recorder(cluster: &TestCluster, name: &str) -> Program {
    let mut command = calc(cluster, &["log", "--file", "calc.jsonl"]);
    Program::start(name, &mut command, cluster.directory())
}

/// The n-th command of a session, different for each.
fn command_of(session: u64, number: u64) -> String {
    let seed = session * 1_000 + number;
    match number % 4 {
        0 => format!("add {seed} {number} -7"),
        1 => format!("max {number} {seed} -1"),
        2 => format!("np 2 12 {}", seed + 1),
        // It takes a while.
        _ => format!("np {}", 200_000 + seed),
    }
}

fn answer_of(text: &str) -> String {
    command::Command::read(text).unwrap().answer().unwrap()
}

/// The whole lines of the log service's file.
fn recorded(cluster: &TestCluster) -> Vec<Line> {
    let text = fs::read_to_string(cluster.directory().join("calc.jsonl")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| highwater_calc::journal::line(line.as_bytes()).unwrap())
        .collect()
}

fn wait_for_results(cluster: &TestCluster, count: u64) {
    wait_recorded(cluster, "result", count);
}

fn wait_recorded(cluster: &TestCluster, topic: &str, count: u64) {
    eventually(&format!("{count} lines of {topic} are recorded"), DEADLINE, || {
        let lines = recorded(cluster).iter().filter(|line| line.topic == topic).count();
        (lines as u64 >= count).then_some(())
    });
}

#[test]
fn every_command_has_one_result_and_is_recorded_once_whatever_is_killed() {
    let mut cluster = TestCluster::start(3);
    let log = recorder(&cluster, "log-1");
    // Those who ask before there is anybody to answer are told so, and are answered later.
    let sessions: Vec<Asking> = (0..SESSIONS).map(|session| Asking::start(&cluster, session)).collect();
    eventually("it is told that no back end has answered", DEADLINE, || {
        sessions[0]
            .stderr()
            .contains("no back end has answered yet; the command is in the log")
            .then_some(())
    });
    let mut by_hand = cluster.command(&["produce", "command"]);
    run_with_input(&mut by_hand, b"nonsense\n".to_vec(), DEADLINE).success();

    let (log, backends) = kill_meanwhile(&mut cluster, log);
    let names: Vec<String> = (0..)
        .zip(sessions)
        .map(|(session, asking)| check_session(session, asking))
        .collect();
    // Each topic is recorded by itself, so a result may be there before its command.
    for topic in ["command", "result"] {
        wait_recorded(&cluster, topic, SESSIONS * COMMANDS + 1);
    }
    check_recorded(&cluster, &names);
    [log].into_iter().chain(backends).for_each(Program::stop);
    check_topic(&cluster, "command");
    check_topic(&cluster, "result");
}

/// Two back ends answer; one of them, the log service and a node are killed meanwhile. Those that are left at the end.
fn kill_meanwhile(cluster: &mut TestCluster, mut log: Program) -> (Program, [Program; 2]) {
    let (mut doomed, mut other) = (backend(cluster, "backend-1"), backend(cluster, "backend-2"));
    other.wait_ready();
    let all = SESSIONS * COMMANDS;
    wait_for_results(cluster, all / 6);
    doomed.kill();
    log.kill();
    let victim = cluster.leader("result", 0);
    cluster.node(victim).kill();
    let mut log = recorder(cluster, "log-2");
    wait_for_results(cluster, all / 3);
    let third = backend(cluster, "backend-3");
    cluster.node(victim).start();
    wait_for_results(cluster, all + 1);
    log.wait_ready();
    let metrics = get(&other.address("metrics"), "/metrics").is(200).text;
    assert!(
        metrics.contains("calc_requests_total{method=\"np\",outcome=\"ok\"}"),
        "{metrics}"
    );
    let mut backends = [other, third];
    let mut all: Vec<&mut Program> = backends.iter_mut().collect();
    all.push(&mut log);
    all.into_iter().for_each(is_healthy);
    (log, backends)
}

/// It says so over gRPC, too.
fn is_healthy(service: &mut Program) {
    let endpoint = Endpoint::from_shared(format!("http://{}", service.address("health over gRPC"))).unwrap();
    let runtime = Runtime::new().unwrap();
    eventually("it is healthy", DEADLINE, || {
        let answer = runtime.block_on(async {
            let mut client = HealthClient::new(endpoint.connect().await.unwrap());
            client.check(HealthCheckRequest::default()).await.unwrap()
        });
        (answer.into_inner().status() == ServingStatus::Serving).then_some(())
    });
}

/// Each command was answered, in order, and rightly. Gives the session's name.
fn check_session(session: u64, mut asking: Asking) -> String {
    let stdout = asking.finish();
    let expected: Vec<String> = (0..COMMANDS)
        .map(|number| answer_of(&command_of(session, number)))
        .collect();
    let (explained, answers) = stdout
        .strip_prefix(command::HELP)
        .unwrap()
        .split_at(explanations().len());
    assert_eq!(explained, explanations());
    assert_eq!(answers.lines().collect::<Vec<_>>(), expected);
    let stderr = asking.stderr();
    let name = stderr.split("session ").nth(1).and_then(|rest| rest.split(';').next());
    name.unwrap().to_owned()
}

fn explanations() -> String {
    let explain = |text| command::Command::read(text).unwrap_err();
    format!("\nerror: {}\nerror: {}\n", explain("ad 2 5"), explain("np 0"))
}

/// Each command and each result stands in the file once, and they belong together.
fn check_recorded(cluster: &TestCluster, names: &[String]) {
    let lines = recorded(cluster);
    check_places(&lines);
    let (asked, results): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|line| line.topic == "command");
    let commands: BTreeMap<_, _> = asked.iter().map(|line| ((line.partition, line.offset), line)).collect();
    let mut answered = BTreeSet::new();
    for result in results {
        let place = (result.partition, result.command.unwrap());
        assert!(answered.insert(place), "two results: {result:?}");
        check_result(commands.get(&place).unwrap(), result, names);
    }
    assert_eq!(answered.len(), commands.len(), "every command has a result");
    assert_eq!(commands.len() as u64, SESSIONS * COMMANDS + 1);
}

/// Each record of both topics, once and in order, and with one id for each topic.
fn check_places(lines: &[Line]) {
    let mut offsets = BTreeMap::<(&str, u64, u32), Vec<u64>>::new();
    for line in lines {
        let place = (line.topic.as_str(), line.topic_id, line.partition);
        offsets.entry(place).or_default().push(line.offset);
    }
    for (place, offsets) in &offsets {
        assert_eq!(offsets, &(0..offsets.len() as u64).collect::<Vec<_>>(), "{place:?}");
    }
    let topics: BTreeSet<_> = offsets.keys().map(|(topic, topic_id, _)| (topic, topic_id)).collect();
    assert_eq!(topics.len(), 2, "{topics:?}");
}

/// It is the right one.
fn check_result(asked: &Line, result: &Line, names: &[String]) {
    assert_eq!((&asked.session, asked.number), (&result.session, result.number));
    match &result.session {
        Some(name) => {
            let session = names.iter().position(|known| known == name).unwrap() as u64;
            assert_eq!(asked.text, command_of(session, asked.number.unwrap() - 1));
            assert_eq!(
                (result.text.clone(), result.outcome),
                (answer_of(&asked.text), Some(Outcome::Ok))
            );
        }
        None => assert_eq!(
            (asked.text.as_str(), result.outcome),
            ("nonsense", Some(Outcome::Error))
        ),
    }
}

/// The topic has as many records as it should.
fn check_topic(cluster: &TestCluster, topic: &str) {
    let consumed = run(
        &mut cluster.command(&["consume", topic, "--from", "beginning", "--exit-at-end"]),
        DEADLINE,
    )
    .success();
    assert_eq!(
        consumed.stdout().lines().count() as u64,
        SESSIONS * COMMANDS + 1,
        "records in {topic}"
    );
}

/// Somebody who may publish commands guesses, or sees, what a session is called and how many commands it has sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_that_to_the_own_command_whoever_else_publishes_in_the_name_of_the_session() {
    let cluster = TestCluster::start(1);
    let backend = backend(&cluster, "backend");
    let client = Client::from_profile(&Profile::load(cluster.profile()).unwrap())
        .await
        .unwrap();
    highwater_calc::service::ensure_topics(&client).await.unwrap();
    let mut session = Session::open(&client).await.unwrap();
    let stranger = client.producer(COMMAND_TOPIC).build().await.unwrap();
    for number in 1..=3 {
        let forged = wire::command(session.name(), number, "add 6 6");
        stranger.send(forged).await.unwrap().await.unwrap();
        let mut tell = |told: &str| assert!(!told.contains("12"), "{told}");
        assert_eq!(session.ask("add 1 1", &mut tell).await.unwrap().text, "2");
    }
    backend.stop();
}

/// The offsets of the new topics say nothing about what is in the file.
#[test]
fn a_file_of_topics_that_are_no_more_is_refused() {
    let cluster = TestCluster::start(1);
    let mut log = recorder(&cluster, "log-1");
    log.wait_ready();
    let mut produce = cluster.command(&["produce", "command"]);
    run_with_input(&mut produce, b"add 1 1\nadd 2 2\n".to_vec(), DEADLINE).success();
    eventually("both are recorded", DEADLINE, || {
        (recorded(&cluster).len() == 2).then_some(())
    });
    log.stop();
    let before = fs::read(cluster.directory().join("calc.jsonl")).unwrap();
    run(&mut cluster.command(&["topic", "delete", "command"]), DEADLINE).success();
    let mut again = calc(
        &cluster,
        &["log", "--file", "calc.jsonl", "--port", "0", "--metrics-port", "0"],
    );
    let words = ["calc.jsonl", "topic command", "use another file"];
    run(again.current_dir(cluster.directory()), DEADLINE).ends_with(1, &words);
    assert_eq!(fs::read(cluster.directory().join("calc.jsonl")).unwrap(), before);
}

#[test]
fn whoever_may_not_read_results_any_more_is_told_and_does_not_wait() {
    let cluster = TestCluster::start(1);
    run(&mut calc(&cluster, &["init"]), DEADLINE).success();
    let profile = cluster.profile_for("calc", "prompt");
    let runtime = Runtime::new().unwrap();
    let mut session = runtime.block_on(async {
        let client = Client::from_profile(&Profile::load(&profile).unwrap()).await.unwrap();
        Session::open(&client).await.unwrap()
    });
    // Nobody answers.
    let asking = runtime.spawn(async move { session.ask("add 2 5", &mut |_: &str| ()).await });
    let consume = ["calc/prompt", "consume", "--tenant", "calc", "--topic", "result"];
    cluster.run(&[&["access", "revoke"], &consume[..]].concat()).success();
    let ended = runtime.block_on(async { tokio::time::timeout(DEADLINE, asking).await });
    let told = ended.unwrap().unwrap().unwrap_err().to_string();
    assert!(
        told.contains("the answer cannot be read: ") && told.contains("may not consume"),
        "{told}"
    );
}

#[test]
fn what_is_missing_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let run_in = |arguments: &[&str]| {
        let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_calc")));
        run(command.args(arguments).current_dir(directory.path()), DEADLINE)
    };
    run_in(&["connect", "--profile", "nowhere.toml"]).fails_with(1, &["nowhere.toml"]);
    run_in(&["backend"]).fails_with(2, &["required"]);
    for service in ["backend", "log"] {
        let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_calc")));
        command.args([
            service,
            "--profile",
            "nowhere.toml",
            "--port",
            "0",
            "--metrics-port",
            "0",
        ]);
        let command = command.env("LOG_FORMAT", "json").current_dir(directory.path());
        let ended = run(command, DEADLINE).ends_with(1, &["nowhere.toml"]);
        for line in ended.stderr.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["message"].is_string(), "{line}");
        }
    }
    let version = run_in(&["version"]).success().stdout();
    assert!(
        version.starts_with(&format!("calc {} (", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
    assert_eq!(run_in(&["--version"]).success().stdout(), version);
}
