//! The programs under test, and what can be seen of them from outside.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use highwater_tests::{Finished, TestCluster, eventually, run};
use serde_json::Value;

/// How long anything may take on a small machine that does other things too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// A service under test. Killed when it is dropped; then also its log is shown if the test has failed.
pub(crate) struct Service {
    child: Child,
    log_path: PathBuf,
}

impl Service {
    /// Starts `users` with these arguments, the port 0 for all that listens, and a log of that name.
    pub(crate) fn start(cluster: &TestCluster, name: &str, arguments: &[&str]) -> Self {
        let log_path = cluster.directory().join(format!("{name}.log"));
        let log = File::create(&log_path).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_users"))
            .args(arguments)
            .args(["--port", "0", "--metrics-port", "0"])
            .env("HIGHWATER_CONFIG", cluster.profile())
            .current_dir(cluster.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self {
            child: child.unwrap(),
            log_path,
        }
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap()).into_owned()
    }

    /// The address that `what` listens on, once it does.
    pub(crate) fn address(&mut self, what: &str) -> String {
        let words = format!("{what} listens address=");
        eventually(&words, DEADLINE, || {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended: {}", self.log());
            let log = self.log();
            let rest = log.split(&words).nth(1)?.lines();
            let line = rest.take(1).next()?.to_owned();
            log.contains(&format!("{line}\n")).then_some(line)
        })
    }

    /// As a crash does it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has, without error.
    pub(crate) fn stop(mut self) {
        run(
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]),
            DEADLINE,
        )
        .success();
        let status = eventually("it ends", DEADLINE, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("{}:", self.log_path.display());
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Runs `users-cli` against that server.
pub(crate) fn cli(address: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_users-cli"));
    run(command.args(arguments).env("ADDRESS", address), DEADLINE)
}

/// The lines of JSON that `users-cli` prints.
pub(crate) fn cli_json(address: &str, arguments: &[&str]) -> Vec<Value> {
    let text = cli(address, &[arguments, &["--output", "json"]].concat())
        .success()
        .stdout();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The e-mail addresses of all users that a server lists.
pub(crate) fn listed(address: &str) -> Vec<String> {
    let users = cli_json(address, &["list"]);
    users
        .iter()
        .map(|user| user["email"].as_str().unwrap().to_owned())
        .collect()
}

/// The status line and the body of an answer over HTTP.
pub(crate) fn http(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Every header of each message of an outbox, in order.
pub(crate) fn messages(outbox: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(outbox).unwrap_or_default();
    let mut messages: Vec<HashMap<String, String>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("From ") {
            messages.push(HashMap::new());
        } else if let (Some((name, value)), Some(message)) = (line.split_once(": "), messages.last_mut()) {
            message.insert(name.to_owned(), value.to_owned());
        }
    }
    messages
}

/// The receivers of all messages of an outbox, in order of their names.
pub(crate) fn welcomed(outbox: &Path) -> Vec<String> {
    let messages = messages(outbox);
    let receivers = messages.iter().filter_map(|message| message.get("To"));
    let mut receivers: Vec<String> = receivers.map(|to| to.trim_matches(['<', '>']).to_owned()).collect();
    receivers.sort();
    receivers
}
