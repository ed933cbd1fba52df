//! `highwater serve`: one node, until it is told to stop.
//!
//! Settings come from flags, then the environment, then the file, then the defaults; `--print-config` shows what
//! came out. The process ends orderly on SIGTERM, SIGINT, or (with `--end-with-stdin`) when its standard input is
//! closed, and with an error when the node reports a failure that it cannot go on from.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_node::{Config, Node, NodeHandle, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::exit::{Code, Failure, Result};
use crate::output;

/// How long an orderly end may take before the process ends anyway; a crash is safe, only slower for clients.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// What libraries tell about each heartbeat that a silent peer misses is for those who look for it: with a node down it
/// is dozens of lines a second. That a node is silent, and that it is back, the node says itself, once.
const LOG_FILTER: &str = "info,openraft=error,chitchat=warn";

const EXAMPLES: &str = "\
Examples:
  highwater serve --config /etc/highwater/node.toml
  highwater serve --node n1 --listen 0.0.0.0:7400 --advertise n1.example:7400 --data-dir /var/lib/highwater \\
      --bootstrap n1,n2,n3 --seeds n1.example:7400,n2.example:7400,n3.example:7400 \\
      --ca certs/ca.pem --cert certs/node-n1.pem --key certs/node-n1.key

What --print-config shows may stand in the file, too; workers and logging are set by flags and environment alone.
Order: flag, environment, file, default.";

/// Run one node.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Args {
    /// Settings in a TOML file.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_NODE_CONFIG")]
    config: Option<PathBuf>,
    /// The stable name of this node; must be the one in its certificate.
    #[arg(long, value_name = "NAME", env = "HIGHWATER_NODE")]
    node: Option<String>,
    /// The name of the cluster; must be the one in the certificates.
    #[arg(long, value_name = "NAME", env = "HIGHWATER_CLUSTER")]
    cluster: Option<String>,
    /// Where the one port listens, host:port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", env = "HIGHWATER_LISTEN")]
    listen: Option<String>,
    /// Where other nodes and clients reach this node, host:port.
    #[arg(long, value_name = "ADDRESS", env = "HIGHWATER_ADVERTISE")]
    advertise: Option<String>,
    /// Where everything that must outlive the process is kept.
    #[arg(long, value_name = "DIR", env = "HIGHWATER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Addresses of nodes to ask for the cluster, separated by commas.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', env = "HIGHWATER_SEEDS")]
    seeds: Option<Vec<String>>,
    /// Names of the nodes that found the cluster together, separated by commas; the same list on each of them.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', env = "HIGHWATER_BOOTSTRAP")]
    bootstrap: Option<Vec<String>>,
    /// The failure domain that this node stands in.
    #[arg(long, value_name = "NAME", env = "HIGHWATER_RACK")]
    rack: Option<String>,
    /// The CA certificate that peers and clients must come from.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CA")]
    ca: Option<PathBuf>,
    /// This node's certificate.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CERT")]
    cert: Option<PathBuf>,
    /// The private key of the certificate.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_KEY")]
    key: Option<PathBuf>,
    /// Memory for recent frames, bytes.
    #[arg(long, value_name = "BYTES", env = "HIGHWATER_TAIL_CACHE_BYTES")]
    tail_cache_bytes: Option<u64>,
    /// How large a segment file grows, bytes.
    #[arg(long, value_name = "BYTES", env = "HIGHWATER_SEGMENT_BYTES_MAX")]
    segment_bytes_max: Option<u64>,
    /// Worker threads beside the disk writer. 0 runs the node on one thread, which is fastest on small machines.
    #[arg(long, value_name = "COUNT", env = "HIGHWATER_WORKERS")]
    workers: Option<usize>,
    /// What to log: a level, or a filter such as `info,highwater_node=debug`.
    #[arg(long, value_name = "FILTER", env = "HIGHWATER_LOG", default_value = LOG_FILTER)]
    log: String,
    /// How to log, to stderr.
    #[arg(long, value_enum, env = "HIGHWATER_LOG_FORMAT", default_value_t)]
    log_format: LogFormat,
    /// Print the settings that came out of flags, environment, file and defaults, and end.
    #[arg(long)]
    print_config: bool,
    /// End when standard input is closed: for a parent process that must never leave nodes behind.
    #[arg(long)]
    end_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let config = load_config(args)?;
    if args.print_config {
        let text = toml::to_string(&config)
            .map_err(|error| Failure::setup(format!("cannot print the configuration: {error}")))?;
        return output::line(text.trim_end());
    }
    start_logging(args)?;
    let runtime = runtime(args.workers.unwrap_or_else(default_workers))
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start the runtime: {error}")))?;
    let served = runtime.block_on(serve(config, args.end_with_stdin));
    // A thread that still reads standard input must not hold up the end.
    runtime.shutdown_background();
    served
}

fn load_config(args: &Args) -> Result<Config> {
    let wrong = |error: config::ConfigError| {
        let place = match &args.config {
            Some(path) => format!("configuration file {}", path.display()),
            None => "configuration".to_owned(),
        };
        Failure::setup(format!("{place}: {error}"))
            .hint("`highwater serve --print-config` shows what may stand there; `highwater serve --help` explains it")
    };
    let mut builder = config::Config::builder();
    if let Some(path) = &args.config {
        // Read here, so that the failure names the path and the reason.
        let text = crate::files::read_text("the configuration file", path)?;
        builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
    }
    let config = apply_flags(builder, args)
        .and_then(|builder| builder.build())
        .and_then(|merged| merged.try_deserialize::<Config>())
        .map_err(wrong)?;
    Ok(config)
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

fn apply_flags(builder: Builder, args: &Args) -> std::result::Result<Builder, config::ConfigError> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(path_text);
    builder
        .set_override_option("node", args.node.clone())?
        .set_override_option("cluster", args.cluster.clone())?
        .set_override_option("listen", args.listen.clone())?
        .set_override_option("advertise", args.advertise.clone())?
        .set_override_option("data_dir", path(&args.data_dir))?
        .set_override_option("seeds", args.seeds.clone().map(without_empty))?
        .set_override_option("bootstrap", args.bootstrap.clone().map(without_empty))?
        .set_override_option("rack", args.rack.clone())?
        .set_override_option("tls.ca", path(&args.ca))?
        .set_override_option("tls.cert", path(&args.cert))?
        .set_override_option("tls.key", path(&args.key))?
        .set_override_option("tail_cache_bytes", args.tail_cache_bytes)?
        .set_override_option("segment_bytes_max", args.segment_bytes_max)
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// An empty variable in the environment means an empty list, not a list of one empty name.
fn without_empty(list: Vec<String>) -> Vec<String> {
    list.into_iter().filter(|item| !item.is_empty()).collect()
}

fn start_logging(args: &Args) -> Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| Failure::usage(format!("--log {:?} is not a filter: {error}", args.log)))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match args.log_format {
        LogFormat::Text => subscriber.with_ansi(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new(Code::Failure, format!("cannot start logging: {error}")))
}

/// Measured on two cores: one thread is fastest. Larger machines gain from a second and third one.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 2 { 0 } else { (cores / 2).min(4) }
}

fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match workers {
        0 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build(),
    }
}

async fn serve(config: Config, end_with_stdin: bool) -> Result<()> {
    let mut stop = Stop::new(end_with_stdin)?;
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
    tracing::info!(node = %name, address = %node.address(), "serving");
    let failure = tokio::select! {
        biased;
        why = stop.wait() => {
            tracing::info!(node = %name, why, "stopping");
            return shut_down(node, &mut stop).await;
        }
        failure = node.failed() => failure,
    };
    tracing::error!(node = %name, %failure, "ending");
    Err(Failure::new(Code::Failure, format!("the node had to end: {failure}"))
        .hint("look at the lines above, then start the node again on the same data directory"))
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
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Code::Failure, format!("cannot listen for signals: {error}")))
        };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn args(list: &[&str]) -> Args {
        Only::try_parse_from(std::iter::once("serve").chain(list.iter().copied()))
            .unwrap()
            .args
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_string_lossy().into_owned();
        (directory, path)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let (_directory, path) = file("node = 'n1'\nlisten = 'localhost:1'\nseeds = ['a:1']\n[tls]\nca = 'ca.pem'\n");
        let config = load_config(&args(&[
            "--config",
            &path,
            "--listen",
            "localhost:2",
            "--seeds",
            "b:1,c:1",
        ]))
        .unwrap();
        assert_eq!(config.node, "n1");
        assert_eq!(config.listen, "localhost:2");
        assert_eq!(config.seeds, ["b:1", "c:1"]);
        assert_eq!(config.tls.ca, PathBuf::from("ca.pem"));
        assert_eq!(config.cluster, Config::default().cluster);
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        let (_directory, path) = file("nodee = 'n1'\n");
        let failure = load_config(&args(&["--config", &path])).unwrap_err();
        assert_eq!(failure.code, Code::Setup);
        assert!(failure.message.contains("nodee"), "{failure}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = load_config(&args(&["--config", "/nonexistent/node.toml"])).unwrap_err();
        assert!(failure.message.contains("/nonexistent/node.toml"), "{failure}");
    }

    #[test]
    fn printed_settings_can_be_read_back() {
        let config = load_config(&args(&["--node", "n1", "--cert", "x.pem"])).unwrap();
        let (_directory, path) = file(&toml::to_string(&config).unwrap());
        assert_eq!(load_config(&args(&["--config", &path])).unwrap(), config);
    }

    #[test]
    fn an_empty_list_is_empty() {
        let config = load_config(&args(&["--bootstrap", ""])).unwrap();
        assert!(config.bootstrap.is_empty());
    }
}
