//! One node process under test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{binary, eventually, previous_binary};
use crate::ports::ReservedPort;

/// How long an orderly end may take.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How much of a log is shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// Flags that earlier versions do not know.
const NEW_FLAGS: [&str; 2] = ["--admin-listen", "--operators"];

/// A node: its place on the disk, its port, and its process if it runs.
#[derive(Debug)]
pub struct TestNode {
    pub(crate) name: String,
    pub(crate) port: ReservedPort,
    /// The port that it advertises.
    pub(crate) front: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) log_path: PathBuf,
    /// Everything after `serve`.
    pub(crate) arguments: Vec<String>,
    /// More of its environment.
    pub(crate) variables: Vec<(String, String)>,
    /// It runs the program of an earlier version.
    pub(crate) is_previous: bool,
    pub(crate) child: Option<Child>,
}

impl TestNode {
    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// host:port where others reach it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.front)
    }

    pub(crate) fn keep_data_in(&mut self, data_dir: PathBuf) {
        self.set_argument("--data-dir", data_dir.to_string_lossy().into_owned());
        self.data_dir = data_dir;
    }

    #[track_caller]
    fn set_argument(&mut self, flag: &str, value: String) {
        let place = self.arguments.iter().position(|argument| argument == flag);
        let Some(argument) = place.and_then(|place| self.arguments.get_mut(place + 1)) else {
            panic!("{} has no {flag}: {:?}", self.name, self.arguments);
        };
        *argument = value;
    }

    /// Takes the address and the port of another node, and gives it its own. Neither may run.
    #[track_caller]
    pub(crate) fn swap_address(&mut self, other: &mut TestNode) {
        std::mem::swap(&mut self.port, &mut other.port);
        std::mem::swap(&mut self.front, &mut other.front);
        for node in [self, other] {
            assert!(node.child.is_none(), "{} still runs at its address", node.name);
            node.set_argument("--listen", format!("127.0.0.1:{}", node.port.number()));
            node.set_argument("--advertise", node.address());
        }
    }

    /// Where it keeps what must outlive the process.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The CPU time that the process has used, in ticks of the kernel: a hundredth of a second each. None if it does not run.
    pub fn cpu_ticks(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        Some(ticks()? + ticks()?)
    }

    /// What it has logged since the cluster was made.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    /// The command that starts it; a test may add to it.
    pub fn command(&self) -> Command {
        let mut command = match self.is_previous {
            false => Command::new(binary()),
            true => Command::new(previous_binary().unwrap_or_else(|| panic!("no HIGHWATER_PREVIOUS to run"))),
        };
        command.arg("serve");
        for pair in self.arguments.chunks(2) {
            if !(self.is_previous && pair.iter().any(|flag| NEW_FLAGS.contains(&flag.as_str()))) {
                command.args(pair);
            }
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_")) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Gives its process a setting, from the next start on.
    pub fn set(&mut self, flag: &str, value: &str) {
        match self.arguments.contains(&flag.to_owned()) {
            true => self.set_argument(flag, value.to_owned()),
            false => self.arguments.extend([flag.to_owned(), value.to_owned()]),
        }
    }

    /// Sets a variable of its environment, for its next start.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log_path);
        let log = log.unwrap_or_else(|error| panic!("cannot open {}: {error}", self.log_path.display()));
        let log_too = log
            .try_clone()
            .unwrap_or_else(|error| panic!("cannot share a log: {error}"));
        let child = self
            .command()
            // The node must not outlive the test, however the test ends.
            .arg("--end-with-stdin")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name)));
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process with SIGTERM and gives its exit status.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let Some(mut child) = self.child.take() else {
            panic!("{} does not run", self.name);
        };
        let what = format!("{} ends after SIGTERM", self.name);
        eventually(&what, STOP_DEADLINE, || child.try_wait().ok().flatten())
    }

    /// Has it look at its certificate files.
    #[track_caller]
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Pauses the process, as a machine that hangs.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let pid = pid.unwrap_or_else(|| panic!("{} does not run", self.name));
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Sends SIGKILL without waiting for the end.
    pub(crate) fn begin_kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }

    /// How the process ended by itself, if it did; it can be started again then.
    pub(crate) fn take_end(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Whether the process runs; it may have ended by itself.
    pub fn runs(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// Takes the disk away: everything in the data directory.
    #[track_caller]
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "{} still runs on the disk to be wiped", self.name);
        fs::remove_dir_all(&self.data_dir).unwrap_or_else(|error| panic!("cannot wipe {}: {error}", self.name));
    }

    pub(crate) fn show_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        eprintln!("---- the end of {}'s log\n{}", self.name, shown.join("\n"));
    }
}
