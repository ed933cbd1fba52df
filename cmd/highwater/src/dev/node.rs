//! One node process of a development cluster, kept running.
//!
//! A node that ends is started again, at once the first time, then after a growing pause, so that a broken one
//! does not eat the machine. Its standard input is a pipe that only this process holds: when this process is
//! gone, however it went, the pipe closes and the node ends too.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::layout::{CLUSTER, Layout};
use crate::exit::{Code, Failure, Result};
use crate::output;

const RESTART_PAUSE_MIN: Duration = Duration::from_millis(500);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A node that ran for so long is not the cause of its own end.
const STEADY_AFTER: Duration = Duration::from_secs(30);
/// How long a node may take to end orderly.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// How much of a log, from its end, is searched for the reason of a node's end.
const LOG_BYTES_SEARCHED: u64 = 64 * 1024;

/// How to start one node.
pub(super) struct NodeProcess {
    name: String,
    address: String,
    console: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log_path: PathBuf,
}

impl NodeProcess {
    pub(super) fn new(layout: &Layout, position: usize) -> Result<Self> {
        let binary = std::env::current_exe()
            .map_err(|error| Failure::new(Code::Failure, format!("cannot find this program's file: {error}")))?;
        let place = &layout.nodes()[position];
        let (cert, key) = layout.node_pair(&place.name);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let settings = [
            ("--node", place.name.clone()),
            ("--cluster", CLUSTER.to_owned()),
            ("--listen", place.address()),
            ("--advertise", place.address()),
            ("--admin-listen", place.console()),
            ("--console-records", "true".to_owned()), // whoever is on this machine put them there
            ("--data-dir", text(layout.node_directory(&place.name))),
            ("--seeds", layout.addresses().join(",")),
            ("--bootstrap", layout.bootstrap().join(",")),
            ("--operators", Layout::operator()),
            ("--ca", text(layout.ca())),
            ("--cert", text(cert)),
            ("--key", text(key)),
        ];
        let mut arguments = vec!["serve".to_owned(), "--end-with-stdin".to_owned()];
        arguments.extend(settings.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        Ok(Self {
            name: place.name.clone(),
            address: place.address(),
            console: place.console(),
            binary,
            arguments,
            log_path: layout.log_path(&place.name),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Where its console is.
    pub(super) fn console(&self) -> &str {
        &self.console
    }

    /// Sets the log of the last run aside.
    pub(super) fn rotate_log(&self) {
        // Only a convenience: without it, the log is appended to.
        let _ = fs::rename(&self.log_path, self.log_path.with_extension("log.old"));
    }

    /// One line for people.
    pub(super) fn describe(&self, pid: u32) -> String {
        format!(
            "  {}  pid {pid}  {}  console http://{}  log {}",
            self.name,
            self.address,
            self.console,
            self.log_path.display()
        )
    }

    /// Keeps the node running until `stop` turns true; `pid` always shows the current process, 0 for none.
    pub(super) async fn supervise(self: Arc<Self>, pid: watch::Sender<u32>, mut stop: watch::Receiver<bool>) {
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let started = Instant::now();
            let why = match self.spawn() {
                Ok(mut child) => {
                    // Taken out, because waiting for a child closes what it holds of the child's input.
                    let _life_line = child.stdin.take();
                    pid.send_replace(child.id().unwrap_or(0));
                    let ended = tokio::select! {
                        biased;
                        () = until_told(&mut stop) => return self.end(child).await,
                        ended = child.wait() => ended,
                    };
                    pid.send_replace(0);
                    ended.map_or_else(|error| error.to_string(), |status| self.reason(status))
                }
                Err(failure) => failure.message,
            };
            if started.elapsed() > STEADY_AFTER {
                pause = RESTART_PAUSE_MIN;
            }
            say(format!("{} ended ({why}); starting it again in {pause:?}.", self.name));
            tokio::select! {
                biased;
                () = until_told(&mut stop) => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    fn spawn(&self) -> Result<Child> {
        let log = self.open_log()?;
        let log_too = log.try_clone().map_err(|error| self.cannot_start(&error))?;
        Command::new(&self.binary)
            .args(&self.arguments)
            .env_remove("HIGHWATER_NODE_CONFIG")
            .env_remove("HIGHWATER_RACK")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            // Ctrl-C goes to this process alone, which then ends the nodes in good order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.cannot_start(&error))
    }

    fn open_log(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log_path)
            .map_err(|error| Failure::setup(format!("cannot open {}: {error}", self.log_path.display())))
    }

    fn cannot_start(&self, error: &std::io::Error) -> Failure {
        Failure::new(Code::Failure, format!("cannot start {}: {error}", self.name))
    }

    /// The exit status, and what the node itself said last, if it said anything.
    fn reason(&self, status: ExitStatus) -> String {
        match last_error_line(&self.log_path).filter(|_| status.code().is_some_and(|code| code != 0)) {
            Some(line) => format!("{status}, {line}"),
            None => status.to_string(),
        }
    }

    async fn end(&self, mut child: Child) {
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended in this moment; then there is nothing to signal.
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(STOP_DEADLINE, child.wait()).await.is_err() {
            say(format!(
                "{} did not stop within {STOP_DEADLINE:?}; killing it.",
                self.name
            ));
            let _ = child.kill().await;
        }
    }
}

/// Ready once the supervisor has been told to stop, or nobody is left to tell it.
async fn until_told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Looks at the end of the log only: the log of a node that has run for long may be large.
fn last_error_line(path: &Path) -> Option<String> {
    let mut log = File::open(path).ok()?;
    let begin = log.metadata().ok()?.len().saturating_sub(LOG_BYTES_SEARCHED);
    log.seek(SeekFrom::Start(begin)).ok()?;
    let mut end = Vec::new();
    log.take(LOG_BYTES_SEARCHED).read_to_end(&mut end).ok()?;
    String::from_utf8_lossy(&end)
        .lines()
        .rev()
        .find(|line| line.starts_with("error: "))
        .map(str::to_owned)
}

/// Tells the person at the terminal. A lost line is no reason to end a cluster.
pub(super) fn say(text: impl std::fmt::Display) {
    let _ = output::line(text);
}
