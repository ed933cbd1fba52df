//! `highwater dev`: a cluster for a person.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;
use std::time::{Duration, Instant};

use highwater_tests::{Finished, binary, eventually, run, run_with_input, wait};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{PATIENCE, numbers};

/// A running `highwater dev` and what it prints.
struct Dev {
    child: Option<Child>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Dev {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(binary())
            .args(["dev", "--port", "0", "--data-dir"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start: {error}"));
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                lines.for_each(|line| drop(sender.send(line)));
            });
        }
        Self {
            child: Some(child),
            lines,
            seen: Vec::new(),
        }
    }

    /// Waits for a line that contains `text`.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("{error}: no {text:?} in {:#?}", self.seen),
            }
        }
    }

    /// The pids of the nodes, as printed.
    #[track_caller]
    fn pids(&mut self) -> Vec<u32> {
        (1..=3)
            .map(|number| pid_in(&self.wait_for(&format!("n{number}  pid "))))
            .collect()
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill(child.id(), signal);
        }
    }

    #[track_caller]
    fn wait(mut self) -> Finished {
        let child = self.child.take().unwrap_or_else(|| panic!("waited for already"));
        wait(child, PATIENCE)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The nodes end with it, because their standard input does.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[track_caller]
fn pid_in(line: &str) -> u32 {
    let after = line.split("pid ").nth(1).unwrap_or_default();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no pid in {line:?}"))
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(number).ok()?)
}

#[track_caller]
fn kill(number: u32, signal: Signal) {
    let killed = pid(number).map(|pid| kill_process(pid, signal));
    assert!(matches!(killed, Some(Ok(()))), "cannot signal {number}: {killed:?}");
}

fn is_gone(number: u32) -> bool {
    let Some(pid) = pid(number) else {
        return true;
    };
    // A dead process that nobody has waited for yet still has a number.
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    test_kill_process(pid).is_err() || stat.contains(") Z ")
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env("HIGHWATER_CONFIG", directory.join("profile.toml"));
    command
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("cannot make a directory: {error}"))
}

#[test]
fn a_development_cluster_keeps_its_records_over_a_restart() {
    let directory = directory();
    let path = directory.path();
    let mut dev = Dev::start(path);
    dev.wait_for("is ready");
    let pids = dev.pids();
    run(
        &mut command(path, &["topic", "create", "numbers", "--partitions", "3"]),
        PATIENCE,
    )
    .success();
    run_with_input(&mut command(path, &["produce", "numbers"]), numbers(1_000), PATIENCE).success();
    dev.signal(Signal::TERM);
    dev.wait().success();
    assert!(
        pids.iter().all(|pid| is_gone(*pid)),
        "the nodes end before the command does"
    );

    let mut again = Dev::start(path);
    again.wait_for("is ready");
    let read = ["consume", "numbers", "--from", "beginning", "--exit-at-end"];
    let consumed = run(&mut command(path, &read), PATIENCE).success();
    assert_eq!(consumed.stdout().lines().count(), 1_000);
    again.signal(Signal::INT);
    again.wait().success();
}

#[test]
fn the_five_minute_start_of_the_library_works_as_it_stands() {
    let directory = directory();
    let mut dev = Dev::start(&directory.path().join("highwater-dev"));
    dev.wait_for("is ready");
    let mut program = Command::new(env!("CARGO_BIN_EXE_five_minutes"));
    let printed = run(program.current_dir(directory.path()), PATIENCE).success().stdout();
    let mut greetings: Vec<usize> = printed
        .lines()
        .filter_map(|line| line.split("hello ").nth(1)?.parse().ok())
        .collect();
    greetings.sort_unstable();
    assert!(greetings.into_iter().eq(0..1_000), "{printed}");
}

#[test]
fn a_node_that_dies_is_started_again() {
    let directory = directory();
    let mut dev = Dev::start(directory.path());
    dev.wait_for("is ready");
    let pids = dev.pids();
    kill(pids[1], Signal::KILL);
    let line = dev.wait_for("n2 runs again");
    assert_ne!(pid_in(&line), pids[1]);
    dev.wait_for("n2 serves again");
    run(&mut command(directory.path(), &["health"]), PATIENCE).success();
    dev.signal(Signal::TERM);
    dev.wait().success();
}

#[test]
fn the_nodes_do_not_outlive_a_killed_command() {
    let directory = directory();
    let mut dev = Dev::start(directory.path());
    dev.wait_for("is ready");
    let pids = dev.pids();
    dev.signal(Signal::KILL);
    let deadline = Duration::from_secs(60);
    eventually("all nodes are gone", deadline, || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    });
}

#[test]
fn a_second_one_on_the_same_directory_is_refused() {
    let directory = directory();
    let mut dev = Dev::start(directory.path());
    dev.wait_for("is ready");
    let mut second = Command::new(binary());
    second.args(["dev", "--data-dir"]).arg(directory.path());
    run(&mut second, PATIENCE).fails_with(6, &["in use"]);
    run(&mut command(directory.path(), &["health"]), PATIENCE).success();
}
