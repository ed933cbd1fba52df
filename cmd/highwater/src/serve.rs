//! `highwater serve`: one node, until it is told to stop.
//!
//! Where its settings come from is told in [`settings`](crate::settings). The process ends orderly on SIGTERM, SIGINT, or (with `--end-with-stdin`) when its standard input is
//! closed, and with an error when the node reports a failure that it cannot go on from. What SIGHUP does is told in
//! [`reload`](crate::reload).

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use highwater_node::{Config, Node, NodeHandle, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::path_or_nothing;
use crate::exit::{Code, Failure, Result};
use crate::logging::Logging;
use crate::output;
use crate::reload::Reload;
use crate::settings::{Effective, Given, Settings, as_file, check_environment};

/// How long an orderly end may take before the process ends anyway; a crash is safe, only slower for clients.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// Most reads of disks at the same time, of all that a node does. Each takes up to 4 MiB of memory while it lasts, and a disk that
/// hangs makes them last: more of them would be memory without speed.
const BLOCKING_THREADS_MAX: usize = 32;

const EXAMPLES: &str = "\
Examples:
  highwater serve --config /etc/highwater/node.toml
  highwater serve --node n1 --listen 0.0.0.0:7400 --advertise n1.example:7400 --data-dir /var/lib/highwater \\
      --bootstrap n1,n2,n3 --seeds n1.example:7400,n2.example:7400,n3.example:7400 \\
      --ca certs/ca.pem --cert certs/node-n1.pem --key certs/node-n1.key

Every setting may stand in the file, under the name that --print-config shows. Order: flag, environment, file, default.";

/// Run one node.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Args {
    /// Settings in a TOML file.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_NODE_CONFIG", value_parser = path_or_nothing())]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Print all settings with what they are for and where each value comes from, as a file that says the same, and end.
    #[arg(long)]
    print_config: bool,
    /// End when standard input is closed: for a parent process that must never leave nodes behind.
    #[arg(long)]
    end_with_stdin: bool,
}

impl Args {
    /// What flags, environment and file say at this moment.
    pub(crate) fn load(&self) -> Result<Effective> {
        // An empty variable in the environment names no file.
        let file = self.config.as_deref().filter(|path| !path.as_os_str().is_empty());
        Effective::load(&self.given, file)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ignored = check_environment(names)?;
    let effective = args.load()?;
    if args.print_config {
        return output::line(as_file(&effective).trim_end());
    }
    effective.check()?;
    let Settings { process, node } = effective.settings.clone();
    let logging = Logging::start(&process)?;
    if !ignored.is_empty() {
        tracing::info!(
            variables = ignored.join(", "),
            "these variables are no settings, and are ignored"
        );
    }
    avoid_huge_pages();
    let runtime = runtime(process.workers)
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start the runtime: {error}")))?;
    let reload = Reload::new(args.clone(), effective, logging);
    let served = runtime.block_on(serve(node, reload, args.end_with_stdin));
    // A thread that still reads standard input must not hold up the end.
    runtime.shutdown_background();
    served
}

/// A replica has buffers of megabytes of which it uses kilobytes until there is much to do. With huge pages, which the allocator
/// asks for, all of them would be resident: 600 MiB instead of 116 with 300 idle replicas.
fn avoid_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages stay on, which takes memory");
    }
}

fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()
}

async fn serve(config: Config, reload: Reload, end_with_stdin: bool) -> Result<()> {
    let mut stop = Stop::new(end_with_stdin)?;
    // From the start, since it would end the process otherwise.
    let mut hangup = listen(SignalKind::hangup())?;
    let name = config.node.clone();
    let started = tokio::select! {
        biased;
        why = stop.wait() => {
            tracing::info!(node = %name, why, "stopped while starting");
            return Ok(());
        }
        started = Box::pin(Node::start(config)) => started,
    };
    let node = started.map_err(start_failure)?;
    let admin = node
        .admin_address()
        .map_or("off".to_owned(), |address| address.to_string());
    tracing::info!(node = %name, address = %node.address(), admin, "serving");
    let failure = tokio::select! {
        biased;
        why = stop.wait() => {
            tracing::info!(node = %name, why, "stopping");
            return shut_down(node, &mut stop).await;
        }
        failure = node.failed() => failure,
        never = reload.keep(&mut hangup, &node) => match never {},
    };
    tracing::error!(node = %name, %failure, "ending");
    Err(Failure::new(Code::Failure, format!("the node had to end: {failure}")).hint(failure.hint()))
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Failure::new(Code::Failure, format!("cannot listen for signals: {error}")))
}

async fn shut_down(node: NodeHandle, stop: &mut Stop) -> Result<()> {
    tokio::select! {
        biased;
        () = node.shutdown() => {
            tracing::info!("stopped");
            Ok(())
        }
        why = stop.wait_again() => {
            Err(Failure::new(Code::Failure, format!("ended before everything was closed: {why} came twice")))
        }
        () = tokio::time::sleep(SHUTDOWN_DEADLINE) => {
            Err(Failure::new(Code::Failure, format!("closing took longer than {SHUTDOWN_DEADLINE:?}; ended anyway")))
        }
    }
}

fn start_failure(error: StartError) -> Failure {
    let code = match error {
        StartError::Internal(_) => Code::Failure,
        _ => Code::Setup,
    };
    Failure::new(code, &error).hint(error.hint())
}

/// What tells the node to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    stdin_closed: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl Stop {
    fn new(end_with_stdin: bool) -> Result<Self> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            stdin_closed: end_with_stdin.then(watch_stdin).transpose()?,
        })
    }

    /// Waits for the first reason to stop.
    async fn wait(&mut self) -> &'static str {
        let stdin_closed = async {
            match self.stdin_closed.as_mut() {
                // An error means that the thread is gone, and with it standard input.
                Some(closed) => drop(closed.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = stdin_closed => "the parent process is gone",
        }
    }

    /// Waits for a signal while stopping.
    async fn wait_again(&mut self) -> &'static str {
        self.stdin_closed = None;
        self.wait().await
    }
}

/// Reads standard input to its end on a thread of its own, since such a read cannot be cancelled.
fn watch_stdin() -> Result<tokio::sync::oneshot::Receiver<()>> {
    let (closed, watched) = tokio::sync::oneshot::channel();
    let drain = move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 64];
        while matches!(stdin.read(&mut ignored), Ok(count) if count > 0) {}
        let _ = closed.send(());
    };
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(drain)
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start a thread: {error}")))?;
    Ok(watched)
}
