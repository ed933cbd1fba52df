//! Nothing is left behind, however a run ends.
//!
//! ```text
//! outer: waits for signals ── stdin pipe ──► inner: the run, in its own mount and process namespace
//! ```
//!
//! * Ctrl-C and SIGTERM reach only the outer process. It closes the pipe; the inner one stops in order and reports.
//! * If either is killed, the kernel ends every process of the namespace, also stopped ones, and with the last of them its
//!   mounts and their loop devices go.
//! * Files of a run that was killed are removed by the next one: the directory is held by a lock, not by a name.
//!
//! Without the right to make namespaces the same is done by the pipe alone.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::tools;

/// Set for the inner process.
const INSIDE: &str = "HIGHWATER_CHAOS_INSIDE";
const PREFIX: &str = "highwater-chaos-";
const LOCK: &str = "lock";
const NAMESPACES: &[&str] = &[
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// Told when the run is to end early.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether the run is to end.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs `work` in an inner process, with the same arguments, and gives its exit code.
pub fn in_sandbox(work: impl FnOnce(Stop) -> ExitCode) -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        return work(stop_with_stdin());
    }
    match outer() {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: cannot run inside a sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stop_with_stdin() -> Stop {
    let stop = Stop::default();
    let asked = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        asked.0.store(true, Ordering::Relaxed);
    });
    stop
}

fn outer() -> Result<ExitStatus, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let may = tools::run(Command::new("unshare").args(NAMESPACES).arg("true"));
    let mut command = match may {
        Ok(()) => {
            let mut command = Command::new("unshare");
            command.args(NAMESPACES).arg(own);
            command
        }
        Err(_) => Command::new(own),
    };
    command
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        // Not in the terminal's group: Ctrl-C must not end the nodes.
        .process_group(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(wait(command))
}

async fn wait(command: Command) -> Result<ExitStatus, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let text = |error: std::io::Error| error.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut inner = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(text)?;
    let mut pipe = inner.stdin.take();
    loop {
        tokio::select! {
            biased;
            status = inner.wait() => return status.map_err(text),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if pipe.take().is_none() {
            return Err("killed at the second signal".to_owned());
        }
        eprintln!("stopping; once more kills");
    }
}

/// The directory of one run: removed with everything in it, by this run or the next.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Removes what killed runs left behind, and makes a directory, in memory if there is such a place.
    pub(crate) fn make() -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        Self::make_in(&parent)
    }

    /// The same on a disk: where temporary files are.
    pub(crate) fn make_on_disk() -> Result<Self, String> {
        Self::make_in(&std::env::temp_dir())
    }

    fn make_in(parent: &Path) -> Result<Self, String> {
        remove_abandoned(parent);
        let path = parent.join(format!("{PREFIX}{:016x}", unique()));
        let cannot = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
        fs::create_dir(&path).map_err(cannot)?;
        let lock = File::create(path.join(LOCK)).map_err(cannot)?;
        lock.try_lock().map_err(|error| cannot(error.into()))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Different for each run on a machine; not from the seed, since the same seed may run twice at once.
fn unique() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_nanos() as u64);
    now ^ u64::from(std::process::id()).rotate_left(48)
}

fn remove_abandoned(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let is_ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        // A directory without a lock is just being made.
        let abandoned = is_ours && File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for mount in below.filter(|mount| Path::new(mount).starts_with(path)) {
        let _ = tools::run(Command::new("umount").args(["--lazy", mount]));
    }
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("warning: cannot remove {}: {error}", path.display());
    }
}
