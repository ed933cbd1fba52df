//! `highwater dev`: a cluster of node processes on this machine, with certificates and a client profile.
//!
//! The nodes are the same binary and run as they would anywhere: own processes, own data directories, mutual TLS.
//! What this file adds is making the pieces ([`layout`]), keeping the processes up ([`node`]), and telling the
//! person at the terminal what there is and what happens.

mod layout;
mod node;
mod ports;
mod roles;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::layout::{Layout, NODES_MAX};
use self::node::{NodeProcess, say};
use crate::exit::{Code, Failure, Result};
use crate::health::Probe;

/// How long a cluster may take to come up before the command gives up.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// After how long of waiting the command says for whom it waits.
const PATIENCE: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  highwater dev                        three nodes, data in ./highwater-dev
  highwater dev --nodes 1 --port 0 --data-dir /tmp/hw

Stopped and started again on the same directory, the cluster has the same nodes and records. A node that dies is
started again: kill one (the pids are printed) and watch. Ctrl-C or SIGTERM stops the nodes and then the command.";

/// Run a local cluster until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How many nodes; three for a new directory.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u32>,
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "highwater-dev")]
    data_dir: PathBuf,
    /// The first node's port, the others follow; 0 takes any free ones. Without it those of the last run, or from
    /// 7400 on.
    #[arg(long)]
    port: Option<u16>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    // Before anything is started, so that no signal is missed.
    let mut stopped = Box::pin(stop_signal()?);
    let layout = Layout::open(&args.data_dir, args.nodes, args.port)?;
    let cluster = Running::start(&layout)?;
    let outcome = tokio::select! {
        biased;
        () = &mut stopped => Ok(()),
        outcome = cluster.watch_over(&layout) => outcome,
    };
    say("Stopping the nodes.");
    cluster.stop().await;
    if outcome.is_ok() {
        say(format!("Stopped. The data stays in {}.", layout.directory().display()));
    }
    outcome
}

/// Ready at the first SIGINT or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::new(Code::Failure, format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The node processes and those who keep them up.
struct Running {
    nodes: Vec<Supervised>,
    supervisors: JoinSet<()>,
    stop: watch::Sender<bool>,
    probe: Probe,
}

struct Supervised {
    process: Arc<NodeProcess>,
    /// The current process, 0 for none.
    pid: watch::Receiver<u32>,
}

impl Running {
    fn start(layout: &Layout) -> Result<Self> {
        let (cert, key) = layout.client_pair();
        let mut running = Self {
            nodes: Vec::new(),
            supervisors: JoinSet::new(),
            stop: watch::Sender::new(false),
            probe: Probe::new(&layout.ca(), &cert, &key)?,
        };
        for position in 0..layout.nodes().len() {
            let process = Arc::new(NodeProcess::new(layout, position)?);
            process.rotate_log();
            let pid_sender = watch::Sender::new(0);
            let pid = pid_sender.subscribe();
            let supervisor = process.clone().supervise(pid_sender, running.stop.subscribe());
            running.supervisors.spawn(supervisor);
            running.nodes.push(Supervised { process, pid });
        }
        Ok(running)
    }

    /// Waits for the cluster, says how to use it, then tells what happens to its nodes. Returns only on failure.
    async fn watch_over(&self, layout: &Layout) -> Result<()> {
        self.wait_until_ready(&layout.logs()).await?;
        self.introduce(layout);
        let follow_all = join_all(self.nodes.iter().map(|node| self.follow(node)));
        tokio::select! {
            biased;
            _ = follow_all => Ok(()),
            () = Box::pin(roles::tell(layout.profile())) => Ok(()),
        }
    }

    async fn wait_until_ready(&self, logs: &Path) -> Result<()> {
        let logs = logs.display();
        let (started, mut told) = (Instant::now(), false);
        loop {
            let missing = self.not_serving().await;
            if missing.is_empty() {
                return Ok(());
            }
            let names = missing.join(", ");
            if started.elapsed() > READY_DEADLINE {
                let message = format!("{names} did not come up within {READY_DEADLINE:?}");
                return Err(Failure::new(Code::Unavailable, message).hint(format!("the logs in {logs} say why")));
            }
            if !told && started.elapsed() > PATIENCE {
                say(format!("Waiting for {names}; the logs in {logs} say what for."));
                told = true;
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    async fn not_serving(&self) -> Vec<&str> {
        let answers = join_all(self.nodes.iter().map(|node| self.serves(node))).await;
        let missing = self.nodes.iter().zip(answers).filter(|(_, serves)| !serves);
        missing.map(|(node, _)| node.process.name()).collect()
    }

    async fn serves(&self, node: &Supervised) -> bool {
        self.probe.serves(node.process.address(), PROBE_TIMEOUT).await
    }

    fn introduce(&self, layout: &Layout) {
        let (directory, count) = (layout.directory().display(), self.nodes.len());
        say(format!(
            "Cluster `{}` is ready: {count} nodes, data in {directory}.",
            layout::CLUSTER
        ));
        for node in &self.nodes {
            say(node.process.describe(*node.pid.borrow()));
        }
        if let Some(node) = self.nodes.first() {
            say(format!("\nThe console is at http://{}", node.process.console()));
        }
        let command = std::env::args().next().unwrap_or_else(|| "highwater".to_owned());
        say("\nUse it from another terminal:");
        say(format!("  export HIGHWATER_CONFIG={}", layout.profile().display()));
        say(format!("  {command} topic create numbers --partitions 3"));
        say(format!("  seq 1 1000 | {command} produce numbers"));
        say(format!("  {command} consume numbers --from beginning --exit-at-end"));
        say("\nCtrl-C stops it; the data stays.");
    }

    /// Says when a node runs again under a new pid, and when it serves again.
    async fn follow(&self, node: &Supervised) {
        let mut pid = node.pid.clone();
        pid.mark_unchanged();
        while pid.changed().await.is_ok() {
            let current = *pid.borrow_and_update();
            if current == 0 {
                continue;
            }
            say(format!("{} runs again, pid {current}.", node.process.name()));
            tokio::select! {
                biased;
                () = until_replaced(&mut pid, current) => {}
                () = self.until_serving(node) => say(format!("{} serves again.", node.process.name())),
            }
        }
    }

    async fn until_serving(&self, node: &Supervised) {
        while !self.serves(node).await {
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// Ends the nodes in good order.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.supervisors.join_next().await.is_some() {}
    }
}

/// Waits until the process is another one, and leaves telling of it to the next round.
async fn until_replaced(pid: &mut watch::Receiver<u32>, current: u32) {
    let replaced = pid.wait_for(|pid| *pid != current).await.is_ok();
    if replaced {
        pid.mark_changed();
    }
}
