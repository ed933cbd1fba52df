//! A node that runs: what its owner can ask of it, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
#[cfg(test)]
use crate::audit::Ledger;
#[cfg(test)]
use crate::catalog::CatalogHost;
use crate::config::Config;
#[cfg(test)]
use crate::controller::Controller;
use crate::data_dir::DataDir;
use crate::error::Failure;
use crate::failures::Failures;
use crate::leaders::Leaders;
use crate::leadership::TRANSFERS_AT_ONCE;
use crate::link::Link;
#[cfg(test)]
use crate::quotas::Quotas;
use crate::readiness::{self, NotReady};
use crate::replicas::{Keeper, Registry};
use crate::storage::Storage;
use crate::tls::Credentials;
use crate::traces::Traces;
use crate::tuning::Tuning;

/// How long a stopping node waits for its leaderships to move away.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);
/// How long one of them may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping node waits for its streams to end.
const STREAMS_PATIENCE: Duration = Duration::from_secs(3);
/// How long a stopping node waits for what its peers have asked before.
const PEERS_PATIENCE: Duration = Duration::from_secs(1);
/// How long a stopping node waits for its partitions' replicas, and then for the catalog's.
const REPLICAS_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stopping node waits for the disk to take what is queued.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// A running node. Dropping it does not stop it in an orderly way; call [`NodeHandle::shutdown`].
pub struct NodeHandle {
    pub(super) address: SocketAddr,
    pub(super) admin_address: Option<SocketAddr>,
    pub(super) not_ready: Arc<watch::Sender<Option<NotReady>>>,
    pub(super) failures: Failures,
    pub(super) tuning: watch::Sender<Tuning>,
    pub(super) registry: Arc<Registry>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) storage: Arc<Storage>,
    pub(super) leaders: Leaders,
    pub(super) link: Link,
    pub(super) credentials: Arc<Credentials>,
    pub(super) audit: Audit,
    pub(super) traces: Traces,
    pub(super) draining: CancellationToken,
    pub(super) stopping: CancellationToken,
    pub(super) server: JoinHandle<()>,
    /// Loops that are simply cut off; none of them may be in the way of the replicas' end.
    pub(super) loops: Vec<JoinHandle<()>>,
    pub(super) data: Arc<DataDir>,
    #[cfg(test)]
    pub(super) controller: Arc<Controller>,
    #[cfg(test)]
    pub(super) ledger: Ledger,
    #[cfg(test)]
    pub(super) quotas: Arc<Quotas>,
}

impl NodeHandle {
    #[cfg(test)]
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    #[cfg(test)]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    #[cfg(test)]
    pub(crate) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    #[cfg(test)]
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    #[cfg(test)]
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    #[cfg(test)]
    pub(crate) fn host(&self) -> &CatalogHost {
        self.leaders.catalog()
    }

    #[cfg(test)]
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    #[cfg(test)]
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    #[cfg(test)]
    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    #[cfg(test)]
    pub(crate) fn cluster_id(&self) -> Option<highwater_partition::log::ClusterId> {
        self.data.cluster_id()
    }

    /// The address that the port listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that the admin listener listens on, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Whether the node is a caught-up member of its cluster at this moment.
    pub fn is_ready(&self) -> bool {
        self.not_ready.borrow().is_none()
    }

    /// Why it is not ready, in words; None if it is.
    pub fn not_ready(&self) -> Option<String> {
        self.not_ready.borrow().as_ref().map(ToString::to_string)
    }

    /// Waits until [`NodeHandle::is_ready`].
    pub async fn ready(&self) {
        let mut not_ready = self.not_ready.subscribe();
        // The sender is ours, so the wait cannot fail.
        let _ = not_ready.wait_for(Option::is_none).await;
    }

    /// Waits until something has failed that the node cannot go on from. The caller must end the process; the node is not
    /// ready any more by then.
    pub async fn failed(&self) -> Failure {
        let failure = self.failures.wait().await;
        readiness::tell(&self.not_ready, Some(NotReady::Failed(failure.clone())));
        failure
    }

    /// Has the certificate files looked at now; by itself the node looks every few seconds. Returns at once: what comes of it
    /// is logged, and told with the node's readiness.
    pub fn reload_certificates(&self) {
        self.credentials.ask_for_look();
    }

    /// Takes from a configuration what may change while the node runs (`tail_cache_bytes`, `retention_interval_ms`,
    /// `connection_age_max_ms`, `traces.one_in`, `traces.per_second_max`), and nothing else. The configuration must be a valid one.
    pub fn retune(&self, config: &Config) {
        self.tuning.send_replace(Tuning::of(config));
        self.storage.set_tail_cache_bytes(config.tail_cache_bytes);
        self.traces.retune(&config.traces);
    }

    /// Tells clients to go elsewhere, gives leaderships away, ends the streams, and closes the logs. Each step has a
    /// limit: it ends even if neither clients, nor peers, nor the disk answer.
    pub async fn shutdown(mut self) {
        self.draining.cancel();
        readiness::tell(&self.not_ready, Some(NotReady::Draining));
        self.give_leaderships_away().await;
        self.stopping.cancel();
        if timeout(STREAMS_PATIENCE, &mut self.server).await.is_err() {
            tracing::info!("some streams did not end in time and are cut off");
            self.server.abort();
        }
        self.audit.finish().await;
        self.traces.finish().await;
        for running in std::mem::take(&mut self.loops) {
            running.abort();
            // That it was cut off is what was wanted.
            let _ = running.await;
        }
        // Peers first: to them the node is gone from here on, and nobody asks a replica that has ended.
        self.link.shutdown();
        if timeout(PEERS_PATIENCE, self.link.quiet()).await.is_err() {
            tracing::debug!("some questions of peers are left without an answer");
        }
        self.keeper.stop_all(REPLICAS_PATIENCE).await;
        let storage = self.storage;
        let stopping = tokio::task::spawn_blocking(move || storage.stop());
        match timeout(DISK_PATIENCE, stopping).await {
            Ok(Ok(())) => self.data.release(),
            // The directory stays locked until the process has ended: something may still be written.
            Ok(Err(error)) => tracing::warn!(%error, "the disk writer did not stop in an orderly way"),
            Err(_) => tracing::warn!("the disk does not answer; what was not acknowledged may be lost"),
        }
    }

    /// Gives up leaderships that somebody alive can take, and waits a while until they are taken.
    async fn give_leaderships_away(&self) {
        let all = self.registry.all();
        // A leader has a connection with each of its voters that is there; gossip can be seconds behind. Better one that is
        // not ready than nobody.
        let usable = self.leaders.usable_nodes();
        let is_fit = |node: &str| self.leaders.is_connected(node) && (usable.is_empty() || usable.contains(node));
        // A few at a time: each is then over sooner than if all waited for each other.
        let moves = futures::stream::iter(all).map(|hosted| async move {
            let moved = async {
                if hosted.leads_others() && hosted.hand_over_to(|voter| is_fit(&voter.node)).await.is_ok() {
                    hosted.led_by_another().await;
                }
            };
            timeout(HAND_OVER_TIMEOUT, moved).await.is_ok()
        });
        let moved: Result<Vec<bool>, _> =
            timeout(HAND_OVER_PATIENCE, moves.buffer_unordered(TRANSFERS_AT_ONCE).collect()).await;
        if moved.is_err() || moved.is_ok_and(|moved| moved.contains(&false)) {
            tracing::info!("some leaderships did not move away in time");
        }
    }
}
