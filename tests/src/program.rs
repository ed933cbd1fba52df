//! A service that is no node, as a process of its own: it takes free ports and says so in its log, tells at `/readyz` whether it is ready,
//! and is stopped or killed. The example applications are such services.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::{binary, eventually, run};
use crate::http;

/// How long a start or an end may take on a small machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(120);
/// How much of its log a failing test shows.
const LOG_LINES_SHOWN: usize = 15;

/// What the services could be told by whoever runs the tests, and must not be.
const VARIABLES: [&str; 25] = [
    "ADDRESS",
    "API_KEYS",
    "CALC_HISTORY",
    "CALC_LOG",
    "CONFIG",
    "COURSES",
    "DATABASE",
    "GROUP",
    "HIGHWATER_CONFIG",
    "HOST",
    "LOG_FORMAT",
    "LOG_LEVEL",
    "MAIL_FROM",
    "MEMBER",
    "MESSAGE_MEMORY_BYTES",
    "METRICS_PORT",
    "OUTBOX",
    "OUTPUT",
    "PORT",
    "PROGRESS",
    "RETRY_FOR_MS",
    "SAMPLES",
    "SMTP_ADDRESS",
    "STUDENTS",
    "WEB_PORT",
];

/// A running service. Killed when it is dropped; if the test has failed, the end of its log is shown then.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log_path: PathBuf,
}

/// A program that was built beside the `highwater` command, without the settings of whoever runs this.
pub fn beside(name: &str) -> Command {
    without_settings(&binary().with_file_name(name))
}

/// The program at that path, without the settings of whoever runs this.
pub fn without_settings(path: &Path) -> Command {
    let mut command = Command::new(path);
    VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

impl Program {
    /// Starts the command in `directory`, at ports of its own choice; its log is `NAME.log` there.
    #[track_caller]
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        let log_path = directory.join(format!("{name}.log"));
        let log =
            File::create(&log_path).unwrap_or_else(|error| panic!("cannot write {}: {error}", log_path.display()));
        command
            .args(["--port", "0", "--metrics-port", "0"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            name: name.to_owned(),
            child: command
                .spawn()
                .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")),
            log_path,
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log_path).unwrap_or_default()).into_owned()
    }

    /// The address that `what` listens on, once it does.
    #[track_caller]
    pub fn address(&mut self, what: &str) -> String {
        let words = format!("{what} listens address=");
        eventually(&format!("{}: {words}", self.name), DEADLINE, || {
            let ended = self.child.try_wait();
            assert!(matches!(ended, Ok(None)), "{} has ended: {}", self.name, self.log());
            let log = self.log();
            let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let mut addresses = whole.filter_map(|line| Some(line.split_once(&words)?.1.trim().to_owned()));
            addresses.next()
        })
    }

    /// Waits until it says at its port of metrics that it is ready.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let address = self.address("metrics");
        eventually(&format!("{} is ready", self.name), DEADLINE, || {
            (http::get(&address, "/readyz").status == 200).then_some(())
        });
    }

    /// As a crash does it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits until it has, without error.
    #[track_caller]
    pub fn stop(mut self) {
        run(Command::new("kill").arg(self.child.id().to_string()), DEADLINE).success();
        let status = eventually(&format!("{} ends", self.name), DEADLINE, || {
            self.child.try_wait().ok().flatten()
        });
        assert!(status.success(), "{}: {status}: {}", self.name, self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
            eprintln!("---- {}:", self.name);
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
