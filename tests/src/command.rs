//! Running the `highwater` command, always with a deadline.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The built binary: `$HIGHWATER_BIN`, else the one beside this test's executable.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HIGHWATER_BIN") {
        return PathBuf::from(path);
    }
    let own = std::env::current_exe().unwrap_or_else(|error| panic!("cannot find this test's executable: {error}"));
    let beside = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("highwater"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "there is no highwater beside {}: `cargo build -p highwater-cli` first",
            own.display()
        )
    })
}

/// The program of an earlier version: `$HIGHWATER_PREVIOUS`, if it is set.
pub fn previous_binary() -> Option<PathBuf> {
    std::env::var_os("HIGHWATER_PREVIOUS").map(PathBuf::from)
}

/// What a command said, as text, and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output, byte for byte.
    pub bytes: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    fn new(output: Output) -> Self {
        Self {
            status: output.status,
            bytes: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The exit code; -1 after a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The same, if the command succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self
    }

    /// Checks the exit code and that the last line on standard error, which may be one of a log, contains each of `words`.
    #[track_caller]
    pub fn ends_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code(), code, "stderr: {}", self.stderr);
        let last = self.stderr.lines().last().unwrap_or_default();
        for word in words {
            assert!(last.contains(word), "no {word:?} in the last line of: {}", self.stderr);
        }
        self
    }

    /// Checks the exit code and that the one error line contains each of `words`.
    #[track_caller]
    pub fn fails_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code(), code, "stderr: {}", self.stderr);
        let error = self.stderr.lines().find(|line| line.starts_with("error: "));
        let error = error
            .unwrap_or_else(|| panic!("no error line in: {}", self.stderr))
            .to_lowercase();
        for word in words {
            assert!(error.contains(&word.to_lowercase()), "{word:?} is not in: {error}");
        }
        self
    }
}

impl Finished {
    /// Checks that the failure says what to do: one hint line that contains each of `words`.
    #[track_caller]
    pub fn with_hint(self, words: &[&str]) -> Self {
        let hint = self.stderr.lines().find(|line| line.starts_with("hint: "));
        let hint = hint.unwrap_or_else(|| panic!("no hint line in: {}", self.stderr));
        for word in words {
            assert!(hint.contains(word), "{word:?} is not in: {hint}");
        }
        self
    }
}

/// Runs a command to its end without input; panics at the deadline.
#[track_caller]
pub fn run(command: &mut Command, deadline: Duration) -> Finished {
    run_with_input(command, Vec::new(), deadline)
}

/// Runs a command to its end with `input` on standard input; panics at the deadline.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: Vec<u8>, deadline: Duration) -> Finished {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut stdin = child.stdin.take();
    let writer = spawn(move || {
        if let Some(stdin) = &mut stdin {
            // A command that fails early does not read everything.
            let _ = stdin.write_all(&input);
        }
    });
    let finished = wait(child, deadline);
    let _ = writer.join();
    finished
}

/// Waits for the end of a command whose outputs are pipes; panics at the deadline.
#[track_caller]
pub fn wait(mut child: Child, deadline: Duration) -> Finished {
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let end = Instant::now() + deadline;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => sleep(POLL_INTERVAL),
            other => {
                let _ = child.kill();
                let stderr = stderr.join().unwrap_or_default();
                panic!(
                    "not ended within {deadline:?} ({other:?}): {}",
                    String::from_utf8_lossy(&stderr)
                );
            }
        }
    };
    let output = Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    };
    Finished::new(output)
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits until `condition` gives a value; panics with `what` at the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        sleep(POLL_INTERVAL);
    }
}
