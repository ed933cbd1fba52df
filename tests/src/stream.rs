//! `highwater produce` and `highwater consume` while they run.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use crate::command::{Finished, wait};

/// How many numbers are fed beyond those acknowledged.
const NUMBERS_AHEAD_MAX: usize = 20_000;
/// How many lines are written at once.
const LINES_AT_ONCE: usize = 500;

/// What to feed to a command: the n-th line without its newline, or nothing at the end.
type Source = Box<dyn Fn(usize) -> Option<Vec<u8>> + Send>;

/// An acknowledged line: its partition and offset.
pub type Acknowledgement = (u32, u64);

#[derive(Debug, Default)]
struct Progress {
    fed: usize,
    acknowledged: Vec<Acknowledgement>,
    /// No more lines are to be fed.
    enough: bool,
    /// The command has closed its output.
    ended: bool,
    /// What it said on standard error; complete once it has ended.
    stderr: String,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until the condition holds; false at the deadline.
    fn wait_until(&self, deadline: Duration, condition: impl Fn(&Progress) -> bool) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), deadline, |progress| !condition(progress));
        waited.is_ok_and(|(_, result)| !result.timed_out())
    }
}

/// A `produce -v` that is fed lines, never far ahead of what is acknowledged.
#[derive(Debug)]
pub struct Producing {
    child: Child,
    shared: Arc<Shared>,
    feeder: JoinHandle<()>,
    reader: JoinHandle<()>,
}

/// How a [`Producing`] ended.
#[derive(Debug)]
pub struct Produced {
    /// Exit status and standard error.
    pub finished: Finished,
    /// What was acknowledged; the n-th belongs to the line that says n.
    pub acknowledged: Vec<Acknowledgement>,
    /// How many lines were written to the command.
    pub fed: usize,
}

impl Producing {
    /// Starts the command, which must be a `produce` with `-v`, and feeds it the numbers 0, 1, 2, … a line each.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::feed(
            command,
            NUMBERS_AHEAD_MAX,
            Box::new(|number| Some(number.to_string().into_bytes())),
        )
    }

    /// Starts the command and feeds it `lines`, at most `ahead_max` beyond those acknowledged.
    #[track_caller]
    pub fn start_with(command: &mut Command, ahead_max: usize, lines: Vec<Vec<u8>>) -> Self {
        Self::feed(command, ahead_max, Box::new(move |number| lines.get(number).cloned()))
    }

    #[track_caller]
    fn feed(command: &mut Command, ahead_max: usize, source: Source) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let shared = Arc::new(Shared::default());
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            panic!("{command:?} has no pipes");
        };
        let feeder = spawn({
            let shared = shared.clone();
            move || feed(&shared, stdin, ahead_max, &source)
        });
        let reader = spawn({
            let shared = shared.clone();
            move || read_acknowledgements(&shared, BufReader::new(stdout), stderr)
        });
        Self {
            child,
            shared,
            feeder,
            reader,
        }
    }

    /// How many lines are acknowledged by now.
    pub fn acknowledged(&self) -> usize {
        self.shared.lock().acknowledged.len()
    }

    /// Waits until at least `count` lines more than now are acknowledged.
    #[track_caller]
    pub fn wait_for_more(&self, count: usize, deadline: Duration) {
        let wanted = self.acknowledged() + count;
        let reached = self.shared.wait_until(deadline, |progress| {
            progress.acknowledged.len() >= wanted || progress.ended
        });
        let (now, said) = (self.acknowledged(), self.shared.lock().stderr.clone());
        assert!(
            reached && now >= wanted,
            "{now} lines acknowledged, {wanted} wanted within {deadline:?}: {said}"
        );
    }

    /// Feeds nothing more, and waits for the end.
    #[track_caller]
    pub fn finish(self, deadline: Duration) -> Produced {
        self.shared.update(|progress| progress.enough = true);
        self.wait(deadline)
    }

    /// Waits for an end that comes without the input's.
    #[track_caller]
    pub fn wait(self, deadline: Duration) -> Produced {
        let started = Instant::now();
        let Self {
            child,
            shared,
            feeder,
            reader,
        } = self;
        let ended = shared.wait_until(deadline, |progress| progress.ended);
        let mut finished = wait(
            child,
            deadline.saturating_sub(started.elapsed()).max(Duration::from_secs(1)),
        );
        assert!(ended, "the output was not closed within {deadline:?}");
        let _ = (feeder.join(), reader.join());
        let progress = std::mem::take(&mut *shared.lock());
        finished.stderr = progress.stderr;
        Produced {
            finished,
            acknowledged: progress.acknowledged,
            fed: progress.fed,
        }
    }
}

fn feed(shared: &Shared, mut stdin: ChildStdin, ahead_max: usize, source: &Source) {
    loop {
        let may_feed = |progress: &Progress| {
            progress.enough || progress.ended || progress.fed < progress.acknowledged.len() + ahead_max
        };
        if !shared.wait_until(Duration::from_secs(1), may_feed) {
            continue;
        }
        let first = {
            let progress = shared.lock();
            if progress.enough || progress.ended {
                return;
            }
            progress.fed
        };
        let lines: Vec<Vec<u8>> = (first..first + LINES_AT_ONCE.min(ahead_max))
            .map_while(source)
            .collect();
        let text: Vec<u8> = lines
            .iter()
            .flat_map(|line| line.iter().copied().chain([b'\n']))
            .collect();
        // At its end, the command's standard input is closed.
        if lines.is_empty() || stdin.write_all(&text).is_err() {
            return;
        }
        shared.update(|progress| progress.fed += lines.len());
    }
}

fn read_acknowledgements(shared: &Shared, output: impl BufRead, mut errors: impl Read) {
    for line in output.lines().map_while(Result::ok) {
        let parsed = line
            .split_once(' ')
            .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
        let acknowledgement = parsed.unwrap_or_else(|| panic!("not an acknowledgement: {line:?}"));
        shared.update(|progress| progress.acknowledged.push(acknowledgement));
    }
    let mut said = String::new();
    let _ = errors.read_to_string(&mut said);
    shared.update(|progress| {
        progress.stderr = said;
        progress.ended = true;
    });
}

/// A `consume` that goes on until it is told to end.
#[derive(Debug)]
pub struct Consuming {
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Consuming {
    /// Starts the command, which must be a `consume` of text.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let Some(stdout) = child.stdout.take() else {
            panic!("{command:?} has no pipe");
        };
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        spawn({
            let lines = lines.clone();
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    lines.1.notify_all();
                }
            }
        });
        Self { child, lines }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What has been printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` lines have been printed, and gives them.
    #[track_caller]
    pub fn wait_for(&self, count: usize, deadline: Duration) -> Vec<String> {
        let lines = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .lines
            .1
            .wait_timeout_while(lines, deadline, |lines| lines.len() < count);
        let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            lines.len() >= count,
            "{} lines within {deadline:?}, {count} wanted",
            lines.len()
        );
        lines.clone()
    }

    /// Sends SIGKILL, and waits for the end.
    #[track_caller]
    pub fn kill(mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.unwrap_or_else(|error| panic!("cannot kill: {error}"));
    }

    /// Sends SIGINT, and waits for the end.
    #[track_caller]
    pub fn interrupt(self, deadline: Duration) -> Finished {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.unwrap_or_else(|| panic!("no process id"));
        rustix::process::kill_process(pid, rustix::process::Signal::INT)
            .unwrap_or_else(|error| panic!("cannot interrupt: {error}"));
        wait(self.child, deadline)
    }
}
