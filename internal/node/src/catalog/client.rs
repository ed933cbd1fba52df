//! Changing the catalog from any node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_catalog::{Catalog, Command, Reply};
use highwater_partition::{CommandError, Partition, PeerError};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::CatalogHost;
use crate::link::Link;
use crate::peer_calls::{self, CommandAnswer};
use crate::replicas::Registry;
use crate::status::Problem;

/// How long to wait before the leader is looked for again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait for another node to say how far its catalog is.
const APPLIED_TIMEOUT: Duration = Duration::from_secs(1);
const WHAT: &str = "the catalog";

/// The way to the catalog's leader; cheap to clone.
#[derive(Clone)]
pub(crate) struct CatalogClient {
    node: String,
    host: Arc<CatalogHost>,
    registry: Arc<Registry>,
    link: Link,
}

/// What one attempt came to.
enum Attempt {
    Done(Reply),
    /// Certainly not applied; worth another attempt.
    Again(Option<String>),
    Failed(Problem),
}

impl CatalogClient {
    pub(crate) fn new(node: &str, host: Arc<CatalogHost>, registry: Arc<Registry>, link: Link) -> CatalogClient {
        CatalogClient {
            node: node.to_owned(),
            host,
            registry,
            link,
        }
    }

    /// Has the command decided. Attempts that were certainly not applied are made again until the deadline; one of
    /// unknown outcome is not, and is reported as such.
    pub(crate) async fn command(&self, command: &Command, deadline: Instant) -> Result<Reply, Problem> {
        self.check_level(command)?;
        let encoded = Bytes::from(command.encode());
        let readable = Readable::new(encoded).map_err(|error| Problem::from_unreadable_command(&error))?;
        let mut ask: Option<String> = None;
        let mut others = 0..;
        loop {
            let attempt = match ask.take().filter(|node| *node != self.node) {
                None => self.attempt_here(&readable, deadline).await?,
                Some(leader) => self.attempt_at(&leader, &readable, deadline).await,
            };
            match attempt {
                Attempt::Done(reply) => return Ok(reply),
                Attempt::Failed(problem) => return Err(problem),
                Attempt::Again(leader) => ask = leader,
            }
            if ask.is_none() {
                sleep_until(deadline.min(Instant::now() + LEADER_PAUSE)).await;
                ask = others.next().and_then(|turn| self.another_node(turn));
            }
            if Instant::now() >= deadline {
                return Err(Problem::NoQuorum { what: WHAT.to_owned() });
            }
        }
    }

    /// A command that nodes of an older version could not read is not proposed while there may be any: they would have to stop.
    fn check_level(&self, command: &Command) -> Result<(), Problem> {
        let (needed, level) = (command.feature_level(), self.host.read(Catalog::feature_level));
        if needed <= level || matches!(command, Command::RaiseFeatureLevel { .. }) {
            return Ok(());
        }
        Err(Problem::Unavailable {
            why: format!(
                "this needs rules of level {needed}, and level {level} is in force until every node of the cluster is there \
                 and knows newer ones"
            ),
            hint: None,
        })
    }

    /// One of the nodes at hand, in turn, or none for this one itself: who hears from no leader may hear of it from others.
    fn another_node(&self, turn: usize) -> Option<String> {
        let is_led = self.replica().is_ok_and(|replica| !replica.contact().is_lost());
        let connected = self.link.connected();
        let at = turn % (connected.len() + 1);
        connected.into_keys().nth(at).filter(|_| !is_led)
    }

    async fn attempt_here(&self, command: &Readable, deadline: Instant) -> Result<Attempt, Problem> {
        let partition = self.replica()?;
        let Ok(answer) = timeout_at(deadline, propose_here(&partition, command.clone())).await else {
            return Ok(Attempt::Failed(Problem::Unknown(
                "no majority answered in time".to_owned(),
            )));
        };
        Ok(interpret(answer))
    }

    async fn attempt_at(&self, leader: &str, command: &Readable, deadline: Instant) -> Attempt {
        let left = deadline.saturating_duration_since(Instant::now());
        let body = vec![command.encoded.clone()];
        match self.link.call_node(leader, peer_calls::COMMAND, body, left).await {
            Ok(answer) => match CommandAnswer::decode(answer) {
                Ok(answer) => interpret(answer),
                Err(why) => Attempt::Failed(Problem::Unknown(why)),
            },
            Err(PeerError::Unreachable { .. } | PeerError::Refused { .. }) => Attempt::Again(None),
            Err(error @ PeerError::NoAnswer { .. }) => Attempt::Failed(Problem::Unknown(error.to_string())),
        }
    }

    /// Waits until this node knows everything that was committed when it was asked, and answers whether it does. It does
    /// not without a leader that a quorum confirms: what is known here may then be old, after a restart even empty.
    pub(crate) async fn catch_up(&self, deadline: Instant) -> bool {
        let deadline = deadline.min(Instant::now() + APPLIED_TIMEOUT);
        let Ok(replica) = self.replica() else {
            return false;
        };
        // A new leader may have entries to apply that were committed before its time; confirming waits for them.
        let confirmed = timeout_at(deadline, replica.confirmed_high_watermark()).await;
        let (Ok(Ok(_)), Some(leader)) = (confirmed, replica.status().leader) else {
            return false;
        };
        if leader.node == self.node {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = self
            .link
            .call_node(&leader.node, peer_calls::APPLIED, Vec::new(), left)
            .await;
        let Some(applied) = asked.ok().and_then(|answer| peer_calls::decode_number(&answer)) else {
            return false;
        };
        let mut progress = self.host.progress();
        timeout_at(deadline, progress.wait_for(|progress| progress.applied >= applied))
            .await
            .is_ok()
    }

    /// The same as [`CatalogClient::catch_up`] for whoever asks all the time: it costs one call, and no heartbeats.
    pub(crate) async fn keep_up(&self, deadline: Instant) -> bool {
        let Ok(replica) = self.replica() else {
            return false;
        };
        let Some(leader) = replica.status().leader else {
            return false;
        };
        if leader.node == self.node {
            let confirmed = timeout_at(deadline, replica.confirmed_by_lease()).await;
            return confirmed.is_ok_and(|confirmed| confirmed.is_ok());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = self
            .link
            .call_node(&leader.node, peer_calls::REVISION, Vec::new(), left)
            .await;
        let revision = match asked {
            Ok(answer) => peer_calls::decode_number(&answer),
            // It may be of a version that does not know the question.
            Err(PeerError::Refused { begun: false, .. }) => return self.catch_up(deadline).await,
            Err(_) => None,
        };
        let Some(revision) = revision else {
            return false;
        };
        let mut progress = self.host.progress();
        let known = progress.wait_for(|progress| progress.revision >= revision);
        timeout_at(deadline, known).await.is_ok_and(|known| known.is_ok())
    }

    fn replica(&self) -> Result<Partition, Problem> {
        self.registry.catalog().ok_or_else(|| Problem::Unavailable {
            why: "this node has not found its cluster yet".to_owned(),
            hint: None,
        })
    }
}

/// An encoded command that every node will be able to read. One that is committed and cannot be read ends all of them, and again at
/// each start: so nothing is proposed but this, whoever sent it.
#[derive(Debug, Clone)]
pub(crate) struct Readable {
    encoded: Bytes,
    command: Command,
}

impl Readable {
    /// Reads it, or says why it cannot be read.
    pub(crate) fn new(encoded: Bytes) -> Result<Readable, highwater_catalog::Error> {
        let command = Command::decode(&encoded)?;
        Ok(Readable { encoded, command })
    }

    /// What it says.
    pub(crate) fn command(&self) -> &Command {
        &self.command
    }
}

/// Proposes a command to this node's replica of the catalog, whoever leads.
pub(crate) async fn propose_here(partition: &Partition, command: Readable) -> CommandAnswer {
    match partition.command(command.encoded).await {
        Ok(reply) => CommandAnswer::Reply(reply),
        Err(CommandError::NotLeader { leader, .. }) => CommandAnswer::NotLeader(leader.map(|leader| leader.node)),
        Err(CommandError::Unknown(why)) => CommandAnswer::Unknown(why),
        Err(CommandError::Stopped | CommandError::DiskFull | CommandError::Refused(_)) => {
            CommandAnswer::NotLeader(None)
        }
    }
}

fn interpret(answer: CommandAnswer) -> Attempt {
    match answer {
        CommandAnswer::Reply(encoded) => match Reply::decode(&encoded) {
            Ok(reply) => Attempt::Done(reply),
            Err(error) => Attempt::Failed(Problem::Internal(format!("the catalog's answer: {error}"))),
        },
        CommandAnswer::NotLeader(leader) => Attempt::Again(leader),
        CommandAnswer::Unknown(why) => Attempt::Failed(Problem::Unknown(why)),
    }
}
