//! The prompt at a terminal: lines are edited, and what was typed comes back with an arrow, also in the next session.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use highwater_tests::{Program, TestCluster, eventually, wait, without_settings};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long anything may take, on a small machine.
const DEADLINE: Duration = Duration::from_secs(120);
const PROMPT: &str = "calc> ";
const UP: &str = "\x1b[A";
const ENTER: &str = "\r";
const CTRL_D: &str = "\x04";

/// `calc connect` at a terminal. It does not outlive the test.
struct Terminal {
    /// Until it is waited for.
    child: Option<Child>,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

fn calc(cluster: &TestCluster, arguments: &[&str]) -> Command {
    let mut command = without_settings(Path::new(env!("CARGO_BIN_EXE_calc")));
    command.args(arguments).env("HIGHWATER_CONFIG", cluster.profile());
    command
}

/// A terminal: the side of who types and looks, and that of the program.
fn terminal() -> (File, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let program = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    (File::from(person), program)
}

impl Terminal {
    fn start(cluster: &TestCluster) -> Self {
        let (keys, program) = terminal();
        let end = || Stdio::from(program.try_clone().unwrap());
        let mut command = calc(cluster, &["connect", "--history", "history"]);
        command.current_dir(cluster.directory()).env("TERM", "xterm");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let mut screen = keys.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = shown.clone();
        thread::spawn(move || {
            let mut some = [0; 4096];
            // When the program has ended, that is an error.
            while let Ok(count @ 1..) = screen.read(&mut some) {
                kept.lock().unwrap().extend_from_slice(&some[..count]);
            }
        });
        Self {
            child: Some(child),
            keys,
            shown,
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until the answer 7 has been given so often, and the prompt is there again.
    fn wait_sevens(&self, count: usize) {
        eventually(&format!("{count} answers"), DEADLINE, || {
            let shown = self.shown();
            let lines: Vec<&str> = shown.split('\n').map(|line| line.trim_end_matches('\r')).collect();
            let (prompt, before) = lines.split_last().unwrap();
            let sevens = before.iter().filter(|line| line.ends_with('7')).count();
            (sevens == count && prompt.contains(PROMPT)).then_some(())
        });
    }

    fn press(&mut self, keys: &[&str]) {
        self.keys.write_all(keys.concat().as_bytes()).unwrap();
    }

    fn finish(&mut self) {
        wait(self.child.take().unwrap(), DEADLINE).success();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        if thread::panicking() {
            eprintln!("---- the terminal\n{:?}", self.shown());
        }
    }
}

#[test]
fn an_arrow_brings_back_what_was_typed_also_in_the_next_session() {
    let cluster = TestCluster::start(1);
    let backend = Program::start("backend", &mut calc(&cluster, &["backend"]), cluster.directory());
    let mut first = Terminal::start(&cluster);
    first.wait_sevens(0);
    first.press(&["add 2 5", ENTER]);
    first.wait_sevens(1);
    first.press(&[UP, ENTER]);
    first.wait_sevens(2);
    first.press(&[CTRL_D]);
    first.finish();
    let history = fs::read_to_string(cluster.directory().join("history")).unwrap();
    assert_eq!(history.lines().last(), Some("add 2 5"), "{history}");

    let mut second = Terminal::start(&cluster);
    second.wait_sevens(0);
    second.press(&[UP, ENTER]);
    second.wait_sevens(1);
    second.press(&["exit", ENTER]);
    second.finish();
    backend.stop();
}
