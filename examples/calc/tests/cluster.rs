//! A cluster, two back ends, the log service and several who ask, all of them processes: a back end, a node and the log service are killed,
//! and every command has exactly one result, which is right, and is written down once.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater_calc::command;
use highwater_calc::journal::Line;
use highwater_calc::wire::Outcome;
use highwater_tests::{TestCluster, eventually, run, run_with_input, wait};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take, on a small machine that has lost a node.
const DEADLINE: Duration = Duration::from_secs(120);
const SESSIONS: u64 = 4;
const COMMANDS: u64 = 60;

/// A process that does not outlive the test.
struct Running {
    /// Until it is waited for.
    child: Option<Child>,
    stderr: PathBuf,
}

impl Running {
    fn start(cluster: &TestCluster, name: &str, arguments: &[&str], stdin: Stdio) -> Self {
        let stderr = cluster.directory().join(format!("{name}.stderr"));
        let mut command = calc(cluster, arguments);
        let log = File::create(&stderr).unwrap();
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        Self {
            child: Some(child),
            stderr,
        }
    }

    fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    /// SIGKILL.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }

    /// Waits for its end, which is a good one, and gives what it printed.
    fn finish(&mut self) -> String {
        let finished = wait(self.child.take().unwrap(), DEADLINE);
        assert_eq!(finished.code(), 0, "{}", self.stderr());
        finished.stdout()
    }

    /// SIGTERM; it ends well.
    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child().id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.finish();
    }

    /// What it answers to a request to its port for metrics.
    fn get(&self, path: &str) -> String {
        let address = eventually("it listens", DEADLINE, || {
            let stderr = self.stderr();
            let line = stderr.lines().find(|line| line.contains("metrics over HTTP listens"))?;
            Some(line.split("address=").nth(1)?.trim().to_owned())
        });
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn wait_ready(&self) {
        eventually("it is ready", DEADLINE, || {
            self.get("/readyz").contains(" 200 ").then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.stderr.display(), self.stderr());
        }
    }
}

fn calc(cluster: &TestCluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calc"));
    command
        .args(arguments)
        .env("HIGHWATER_CONFIG", cluster.profile())
        .current_dir(cluster.directory());
    for name in [
        "PORT",
        "HOST",
        "METRICS_PORT",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "CONFIG",
        "CALC_LOG",
        "CALC_HISTORY",
    ] {
        command.env_remove(name);
    }
    command
}

fn backend(cluster: &TestCluster, name: &str) -> Running {
    let arguments = ["backend", "--port", "0", "--metrics-port", "0"];
    Running::start(cluster, name, &arguments, Stdio::null())
}

fn recorder(cluster: &TestCluster, name: &str) -> Running {
    let arguments = ["log", "--port", "0", "--metrics-port", "0", "--file", "calc.jsonl"];
    let mut running = Running::start(cluster, name, &arguments, Stdio::null());
    // What it prints is not looked at, but must not fill a pipe.
    let mut stdout = running.child().stdout.take().unwrap();
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    running
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

/// Pipes its commands into a session, with some that the prompt explains by itself.
fn ask(cluster: &TestCluster, session: u64) -> Running {
    let mut running = Running::start(cluster, &format!("session-{session}"), &["connect"], Stdio::piped());
    let mut text = String::from("help\nad 2 5\nnp 0\n\n");
    (0..COMMANDS).for_each(|number| text.push_str(&format!("{}\n", command_of(session, number))));
    text.push_str("exit\nadd 1 1\n");
    let mut stdin = running.child().stdin.take().unwrap();
    // It fits into a pipe, and is read as the answers come.
    stdin.write_all(text.as_bytes()).unwrap();
    running
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
    eventually(&format!("{count} results are recorded"), DEADLINE, || {
        let results = recorded(cluster).iter().filter(|line| line.topic == "result").count();
        (results as u64 >= count).then_some(())
    });
}

#[test]
fn every_command_has_one_result_and_is_recorded_once_whatever_is_killed() {
    let mut cluster = TestCluster::start(3);
    let mut log = recorder(&cluster, "log-1");
    // Those who ask before there is anybody to answer are told so, and are answered later.
    let sessions: Vec<Running> = (0..SESSIONS).map(|session| ask(&cluster, session)).collect();
    eventually("it is told that no back end has answered", DEADLINE, || {
        sessions[0]
            .stderr()
            .contains("no back end has answered yet; the command is in the log")
            .then_some(())
    });
    let by_hand = run_with_input(
        &mut cluster.command(&["produce", "command"]),
        b"nonsense\n".to_vec(),
        DEADLINE,
    );
    by_hand.success();
    let (mut doomed, other) = (backend(&cluster, "backend-1"), backend(&cluster, "backend-2"));
    other.wait_ready();

    let all = SESSIONS * COMMANDS;
    wait_for_results(&cluster, all / 6);
    doomed.kill();
    log.kill();
    let victim = cluster.leader("result", 0);
    cluster.node(victim).kill();
    let log = recorder(&cluster, "log-2");
    wait_for_results(&cluster, all / 3);
    let third = backend(&cluster, "backend-3");
    cluster.node(victim).start();

    let names: Vec<String> = (0..)
        .zip(sessions)
        .map(|(session, running)| check_session(session, running))
        .collect();
    wait_for_results(&cluster, all + 1);
    check_recorded(&cluster, &names);
    log.wait_ready();
    assert!(
        other
            .get("/metrics")
            .contains("calc_requests_total{method=\"np\",outcome=\"ok\"}")
    );
    for running in [other, third, log] {
        running.stop();
    }
    check_topic(&cluster, "command");
    check_topic(&cluster, "result");
}

/// Each command was answered, in order, and rightly. Gives the session's name.
fn check_session(session: u64, mut running: Running) -> String {
    let stdout = running.finish();
    let expected: Vec<String> = (0..COMMANDS)
        .map(|number| answer_of(&command_of(session, number)))
        .collect();
    let (explained, answers) = stdout
        .strip_prefix(command::HELP)
        .unwrap()
        .split_at(explanations().len());
    assert_eq!(explained, explanations());
    assert_eq!(answers.lines().collect::<Vec<_>>(), expected);
    let stderr = running.stderr();
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
    let mut offsets = BTreeMap::<(&str, u32), Vec<u64>>::new();
    let mut commands = BTreeMap::new();
    for line in &lines {
        offsets
            .entry((line.topic.as_str(), line.partition))
            .or_default()
            .push(line.offset);
        if line.topic == "command" {
            commands.insert((line.partition, line.offset), line);
        }
    }
    for (place, offsets) in &offsets {
        assert_eq!(offsets, &(0..offsets.len() as u64).collect::<Vec<_>>(), "{place:?}");
    }
    let mut answered = BTreeSet::new();
    for result in lines.iter().filter(|line| line.topic == "result") {
        let asked = commands.get(&(result.partition, result.command.unwrap())).unwrap();
        assert_eq!((&asked.session, asked.number), (&result.session, result.number));
        assert!(
            answered.insert((result.partition, result.command)),
            "two results: {result:?}"
        );
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
    assert_eq!(answered.len(), commands.len(), "every command has a result");
    assert_eq!(commands.len() as u64, SESSIONS * COMMANDS + 1);
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

#[test]
fn what_is_missing_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let run_in = |arguments: &[&str], path: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_calc"));
        run(
            command.args(arguments).env_remove("HIGHWATER_CONFIG").current_dir(path),
            DEADLINE,
        )
    };
    run_in(&["connect", "--profile", "nowhere.toml"], directory.path()).fails_with(1, &["nowhere.toml"]);
    run_in(&["backend"], directory.path()).fails_with(2, &["required"]);
    let version = run_in(&["version"], directory.path()).success().stdout();
    assert!(
        version.starts_with(&format!("calc {} (", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
    let same = run_in(&["--version"], directory.path()).success().stdout();
    assert_eq!(same, version);
}
