//! A partition's replica goes on alone, because an operator has said that the majority is gone for good.
//!
//! Two halves: what the replica says of itself, so that an operator knows what would be lost, and the deed. The deed is a
//! restart in place (`replicas::restart`), which the controller carries out; everybody else only orders it. Before it is
//! ordered, the catalog has declared the other replicas dead.
//!
//! Invariant: a replica that hears from a leader, or that leads and hears a majority, is never made the only member of its
//! group.

use std::sync::Arc;
use std::time::Duration;

use highwater_partition::Role;
use highwater_partition::log::{GroupId, ReplicaId};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::controller::Controller;
use crate::replicas::{Hosted, Registry};

/// Orders that wait for each other.
const ORDERS_MAX: usize = 16;

/// How long the only member may take to elect itself, with the longest timers.
const LEADS_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked of the node that holds the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recover {
    pub(crate) group: u64,
    pub(crate) replica: u64,
    /// Make it the only member of its group; otherwise only tell what it has.
    pub(crate) go_on: bool,
}

/// What the replica has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) log_start: u64,
    /// What it knows to be committed.
    pub(crate) high_watermark: u64,
    /// What it would go on with.
    pub(crate) log_end: u64,
    /// When its last entry was appended, by the clock of the leader then; 0: unknown.
    pub(crate) last_append_ms: u64,
    /// Entries that its last leader had committed and that it does not have.
    pub(crate) entries_missing: u64,
    /// Records of it are damaged, and nobody else could put them right.
    pub(crate) is_damaged: bool,
}

/// A replica to be made the only member of its group.
pub(crate) struct Order {
    which: (GroupId, ReplicaId),
    done: oneshot::Sender<Result<(), String>>,
}

/// The way to this node's replicas for those who recover partitions; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recoveries {
    registry: Arc<Registry>,
    orders: mpsc::Sender<Order>,
}

impl Recoveries {
    /// With the end from which orders are carried out.
    pub(crate) fn new(registry: Arc<Registry>) -> (Recoveries, mpsc::Receiver<Order>) {
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        (Recoveries { registry, orders }, ordered)
    }

    /// Answers with what the replica has; if it is to go on, when it has been started as the only member.
    pub(crate) async fn recover(&self, asked: Recover) -> Result<Standing, String> {
        let (group, replica) = (GroupId(asked.group), ReplicaId(asked.replica));
        let hosted = self.registry.hosted(group).filter(|it| it.replica_id == replica);
        let Some(hosted) = hosted else {
            return Err("its replica there does not run; its log says why".to_owned());
        };
        check_forsaken(&hosted)?;
        let standing = hosted.standing().await;
        if asked.go_on {
            let (done, answer) = oneshot::channel();
            let order = Order {
                which: (group, replica),
                done,
            };
            let ordered = self.orders.send(order).await;
            ordered.map_err(|_| "the node is stopping".to_owned())?;
            answer.await.map_err(|_| "the node is stopping".to_owned())??;
            self.until_it_leads(group).await?;
        }
        Ok(standing)
    }
}

impl Recoveries {
    /// It elects itself after one election time.
    async fn until_it_leads(&self, group: GroupId) -> Result<(), String> {
        let mut changes = self.registry.changes();
        let leads = |_: &u64| {
            let hosted = self.registry.hosted(group);
            hosted.is_some_and(|hosted| hosted.status().role == Role::Leader)
        };
        match timeout(LEADS_TIMEOUT, changes.wait_for(leads)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("it is the only member now, but does not lead yet".to_owned()),
        }
    }
}

/// Whether the replica's group has no leader that a majority follows, as far as it can tell.
pub(crate) fn check_forsaken(hosted: &Hosted) -> Result<(), String> {
    let is_forsaken = match hosted.status().role {
        Role::Leader => hosted.leads_in_vain(),
        _ => hosted.is_forgotten(),
    };
    match is_forsaken {
        true => Ok(()),
        false => Err("its replica there has heard from the others a moment ago".to_owned()),
    }
}

impl Controller {
    /// Carries out what is ordered, one after the other, until the node stops.
    pub(crate) async fn keep_recovering(self: Arc<Self>, mut ordered: mpsc::Receiver<Order>) {
        while let Some(Order { which, done }) = ordered.recv().await {
            let (group, replica) = which;
            let alone = self.keeper.make_only_member(group, replica, &self.own.name).await;
            if let Err(error) = &alone {
                tracing::error!(%error, "a replica could not be made the only member of its group");
                if error.is_dead {
                    self.first_start.dead.note(which).await;
                }
            }
            // Who ordered it may have given up waiting.
            let _ = done.send(alone.map_err(|error| error.to_string()));
        }
    }
}
