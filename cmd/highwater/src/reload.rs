//! SIGHUP: a running node looks at its settings and certificate files again. `highwater reload` sends the signal, for places without a
//! program that could: the image has no other than ours.
//!
//! Flags and environment are those of its start, so it is the file that can have changed. What may change while a node runs comes into force;
//! of the rest the log says that it needs a restart, at each signal. A file that is wrong changes nothing. The certificate files are
//! looked at in any case.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use highwater_node::NodeHandle;
use rustix::process::{Pid, kill_process};
use tokio::signal::unix::Signal;

use crate::exit::{Code, Failure, Result};
use crate::logging::Logging;
use crate::output;
use crate::serve;
use crate::settings::{Chosen, Effective, Taken};

const EXAMPLES: &str = "\
Examples:
  kubectl exec highwater-0 -- highwater reload      in a container, where the node is the first process
  highwater reload --pid \"$(pidof highwater)\"";

/// Have a node on this machine read its settings file and its certificates again, as SIGHUP does.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The process of the node.
    #[arg(long, value_name = "PID", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
}

/// Sends the signal, to a node only: most other processes would end by it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let pid = args.pid;
    let node = Pid::from_raw(pid).filter(|_| is_node(pid)).ok_or_else(|| {
        let failure = Failure::new(Code::NotFound, format!("process {pid} is no `highwater serve`"));
        failure.hint("--pid names the node's process")
    })?;
    kill_process(node, rustix::process::Signal::HUP)
        .map_err(|error| Failure::new(Code::Refused, format!("cannot signal process {pid}: {error}")))?;
    output::line(format!(
        "process {pid} reads its settings and certificates again; its log says what came into force"
    ))
}

fn is_node(pid: i32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut words = line.split(|byte| *byte == 0);
    let program = words
        .next()
        .and_then(|path| Path::new(OsStr::from_bytes(path)).file_name());
    program == Some(OsStr::new("highwater")) && words.next() == Some(&b"serve"[..])
}

/// What a running node goes by.
pub(crate) struct Reload {
    args: Arc<serve::Args>,
    in_force: Effective,
    logging: Logging,
}

impl Reload {
    pub(crate) fn new(args: serve::Args, in_force: Effective, logging: Logging) -> Self {
        Self {
            args: Arc::new(args),
            in_force,
            logging,
        }
    }

    /// Looks again whenever the signal comes; never returns.
    pub(crate) async fn keep(mut self, hangup: &mut Signal, node: &NodeHandle) -> std::convert::Infallible {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: looking at the settings and the certificate files");
            node.reload_certificates();
            if let Err(failure) = self.take(node).await {
                tracing::error!(%failure, "the settings stay as they are");
            }
        }
        std::future::pending().await
    }

    async fn take(&mut self, node: &NodeHandle) -> Result<()> {
        let args = self.args.clone();
        // A file can be on a disk that hangs.
        let loaded = tokio::task::spawn_blocking(move || args.load()).await;
        let loaded = loaded.map_err(|error| Failure::new(Code::Failure, error))??;
        loaded.check()?;
        let changes = Changes::between(&self.in_force, loaded);
        let next = Effective::of(changes.next)?;
        let logged = self.logging.retune(&next.settings.process);
        logged.map_err(|why| Failure::new(Code::Failure, format!("cannot change what is logged: {why}")))?;
        node.retune(&next.settings.node);
        self.in_force = next;
        let said = |list: Vec<String>| {
            if list.is_empty() {
                "nothing".to_owned()
            } else {
                list.join(", ")
            }
        };
        tracing::info!(taken = said(changes.taken), "settings are in force");
        if !changes.left.is_empty() {
            tracing::warn!(settings = said(changes.left), "these have changed, and need a restart");
        }
        Ok(())
    }
}

/// What differs between the settings in force and those that were loaded.
struct Changes {
    /// All settings, as they are from now on.
    next: Vec<Chosen>,
    taken: Vec<String>,
    left: Vec<String>,
}

impl Changes {
    fn between(in_force: &Effective, loaded: Effective) -> Self {
        let mut changes = Self {
            next: Vec::new(),
            taken: Vec::new(),
            left: Vec::new(),
        };
        for (old, new) in in_force.chosen.iter().zip(loaded.chosen) {
            if old.value == new.value {
                changes.next.push(new);
                continue;
            }
            let change = format!("{} = {} (was {})", new.setting.key, new.value, old.value);
            match new.setting.taken {
                Taken::AtSighup => {
                    changes.taken.push(change);
                    changes.next.push(new);
                }
                Taken::AtStart => {
                    changes.left.push(change);
                    changes.next.push(old.clone());
                }
            }
        }
        changes
    }
}
