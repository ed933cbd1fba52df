//! `highwater serve`: one node, until it is told to stop.
//!
//! Where its settings come from is told in [`settings`](crate::settings). The process ends orderly on SIGTERM, SIGINT, or (with `--end-with-stdin`) when its standard input is
//! closed, and with an error when the node reports a failure that it cannot go on from. SIGHUP has it look at its certificate
//! files at once.

use std::convert::Infallible;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use highwater_node::{Config, Node, NodeHandle, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::exit::{Code, Failure, Result};
use crate::output;
use crate::settings::{LogFormat, Process, Settings, WORKERS_MAX};

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
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Args {
    /// Settings in a TOML file.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_NODE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The stable name of this node; must be the one in its certificate.
    #[arg(long, value_name = "NAME", env = "HIGHWATER_NODE")]
    pub(crate) node: Option<String>,
    /// The name of the cluster; must be the one in the certificates.
    #[arg(long, value_name = "NAME", env = "HIGHWATER_CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// Where the one port listens, host:port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "HIGHWATER_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Where the admin listener listens, host:port: /livez, /readyz, /metrics and the console. On loopback plain HTTP; elsewhere TLS with
    /// an operator's certificate, and without one only the first two. Empty turns it off.
    #[arg(long, value_name = "ADDRESS", env = "HIGHWATER_ADMIN_LISTEN")]
    pub(crate) admin_listen: Option<String>,
    /// Further host names under which browsers may ask the admin listener, separated by commas.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', env = "HIGHWATER_ADMIN_NAMES")]
    pub(crate) admin_names: Option<Vec<String>>,
    /// Give /metrics to everybody who reaches the admin listener, also without a certificate.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", env = "HIGHWATER_ADMIN_OPEN_METRICS")]
    pub(crate) admin_open_metrics: Option<bool>,
    /// Let the console show records: on loopback to whoever reaches it, elsewhere to operators who may consume the topic.
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", env = "HIGHWATER_CONSOLE_RECORDS")]
    pub(crate) console_records: Option<bool>,
    /// Where other nodes and clients reach this node, host:port.
    #[arg(long, value_name = "ADDRESS", env = "HIGHWATER_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// Where everything that must outlive the process is kept.
    #[arg(long, value_name = "DIR", env = "HIGHWATER_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Addresses of nodes to ask for the cluster, separated by commas.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', env = "HIGHWATER_SEEDS")]
    pub(crate) seeds: Option<Vec<String>>,
    /// Names of the nodes that found the cluster together, separated by commas; the same list on each of them.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', env = "HIGHWATER_BOOTSTRAP")]
    pub(crate) bootstrap: Option<Vec<String>>,
    /// The failure domain that this node stands in.
    #[arg(long, value_name = "NAME", env = "HIGHWATER_RACK")]
    pub(crate) rack: Option<String>,
    /// Clients that may change the cluster, tenant/client each, separated by commas.
    #[arg(
        long,
        value_name = "TENANT/CLIENT,…",
        value_delimiter = ',',
        env = "HIGHWATER_OPERATORS"
    )]
    pub(crate) operators: Option<Vec<String>>,
    /// Tenants that the cluster's first policy knows, beside those of the operators. Default: `default`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', env = "HIGHWATER_TENANTS")]
    pub(crate) tenants: Option<Vec<String>>,
    /// The CA certificate that peers and clients must come from.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// This node's certificate.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of the certificate.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Lists of revoked certificates, PEM.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CRL")]
    pub(crate) crl: Option<PathBuf>,
    /// Memory for recent frames, bytes.
    #[arg(long, value_name = "BYTES", env = "HIGHWATER_TAIL_CACHE_BYTES")]
    pub(crate) tail_cache_bytes: Option<u64>,
    /// How large a segment file grows, bytes.
    #[arg(long, value_name = "BYTES", env = "HIGHWATER_SEGMENT_BYTES_MAX")]
    pub(crate) segment_bytes_max: Option<u64>,
    /// How often partitions led here are looked at for records that their topics keep no longer, milliseconds.
    #[arg(long, value_name = "MS", env = "HIGHWATER_RETENTION_INTERVAL_MS")]
    pub(crate) retention_interval_ms: Option<u64>,
    /// How old a client's connection may become before the client has to make another one, milliseconds.
    #[arg(long, value_name = "MS", env = "HIGHWATER_CONNECTION_AGE_MAX_MS")]
    pub(crate) connection_age_max_ms: Option<u64>,
    /// Worker threads beside the disk writer. 0 runs the node on one thread, which is fastest on small machines.
    /// Default: that on up to two cores, else half as many as there are cores, at most 4.
    #[arg(long, value_name = "COUNT", env = "HIGHWATER_WORKERS", value_parser = workers())]
    pub(crate) workers: Option<u64>,
    /// What to log: a level, or a filter such as `info,highwater_node=debug`. Default: info, without the libraries' talk.
    #[arg(long, value_name = "FILTER", env = "HIGHWATER_LOG", value_parser = parse_filter)]
    pub(crate) log: Option<String>,
    /// How to log, to stderr. Default: text.
    #[arg(long, value_name = "FORMAT", value_enum, env = "HIGHWATER_LOG_FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Print the settings that came out of flags, environment, file and defaults, and end.
    #[arg(long)]
    print_config: bool,
    /// End when standard input is closed: for a parent process that must never leave nodes behind.
    #[arg(long)]
    end_with_stdin: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let settings = Settings::load(args)?;
    if args.print_config {
        return output::line(settings.to_toml()?.trim_end());
    }
    start_logging(&settings.process)?;
    avoid_huge_pages();
    let runtime = runtime(settings.process.workers)
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start the runtime: {error}")))?;
    let served = runtime.block_on(serve(settings.node, args.end_with_stdin));
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

fn workers() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(..=WORKERS_MAX as u64)
}

fn parse_filter(text: &str) -> std::result::Result<String, String> {
    let filter = EnvFilter::try_new(text).map_err(|error| error.to_string());
    filter.map(|_| text.to_owned())
}

fn start_logging(process: &Process) -> Result<()> {
    let filter = process.filter().map_err(Failure::setup)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match process.log_format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(Code::Failure, format!("cannot start logging: {error}")))
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

async fn serve(config: Config, end_with_stdin: bool) -> Result<()> {
    let mut stop = Stop::new(end_with_stdin)?;
    // From the start, since it would end the process otherwise.
    let mut reload = listen(SignalKind::hangup())?;
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
        never = reload_when_told(&mut reload, &node) => match never {},
    };
    tracing::error!(node = %name, %failure, "ending");
    Err(Failure::new(Code::Failure, format!("the node had to end: {failure}")).hint(failure.hint()))
}

/// Has the certificates looked at whenever the signal comes; never returns.
async fn reload_when_told(hangup: &mut Signal, node: &NodeHandle) -> Infallible {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: looking at the certificate files");
        node.reload_certificates();
    }
    std::future::pending().await
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
