//! Readiness, and the health service that tells it.
//!
//! Ready means: this node is a member of the committed catalog under its present incarnation, its copy of the catalog
//! has caught up with the leader's once since the process started, its replicas are opened, and it is not on its way out. It does not mean that
//! there is a quorum: a node that has no majority beside it is as ready as it can be.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::catalog::{CatalogClient, CatalogHost};
use crate::controller::Controller;
use crate::replicas::{CATALOG_GROUP, Registry};

/// How often a node that is not ready looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often a node that is not ready says for whom it waits.
const REMINDER: Duration = Duration::from_secs(30);
/// How long one attempt to catch up takes.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What readiness is judged from.
pub(crate) struct Readiness {
    /// How many replicas are still to be opened.
    pub(crate) opening: watch::Receiver<usize>,
    pub(crate) controller: Arc<Controller>,
    pub(crate) catalog: CatalogClient,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) ready: Arc<watch::Sender<bool>>,
    pub(crate) draining: CancellationToken,
}

impl Readiness {
    /// Keeps `ready` true to its meaning, until the node drains.
    pub(crate) async fn keep(self) {
        let mut changes = self.registry.changes();
        let mut applied = self.host.progress();
        let mut caught_up = false;
        let mut reminded = Instant::now();
        loop {
            changes.mark_unchanged();
            applied.mark_unchanged();
            let is_member = self.controller.is_member();
            caught_up = caught_up || (is_member && self.catalog.catch_up(Instant::now() + CATCH_UP).await);
            let is_draining = self.draining.is_cancelled();
            let opening = *self.opening.borrow();
            let is_ready = is_member && caught_up && opening == 0 && !is_draining;
            tell(&self.ready, is_ready);
            if is_draining {
                return;
            }
            if !is_ready && reminded.elapsed() > REMINDER {
                remind(&self.registry, opening);
                reminded = Instant::now();
            }
            tokio::select! {
                biased;
                () = self.draining.cancelled() => {}
                changed = changes.changed() => if changed.is_err() { return },
                changed = applied.changed() => if changed.is_err() { return },
                () = sleep(LOOK_INTERVAL), if !is_ready => {}
            }
        }
    }
}

fn tell(ready: &watch::Sender<bool>, is_ready: bool) {
    let changed = ready.send_if_modified(|ready| std::mem::replace(ready, is_ready) != is_ready);
    if changed {
        tracing::info!(ready = is_ready, "readiness changed");
    }
}

/// Says whom a node with a catalog replica waits for; without one, discovery says it.
fn remind(registry: &Registry, opening: usize) {
    if opening > 0 {
        tracing::info!(
            replicas = opening,
            "not ready: replicas are still being opened or mended"
        );
        return;
    }
    let Some(hosted) = registry.hosted(CATALOG_GROUP) else {
        return;
    };
    let status = hosted.status();
    let others = status
        .voters
        .iter()
        .filter(|voter| voter.replica_id != hosted.replica_id);
    let voters: Vec<&str> = others.map(|voter| voter.node.as_str()).collect();
    let leader = status.leader.map(|leader| leader.node).unwrap_or_default();
    tracing::info!(leader, voters = voters.join(", "), "not ready: waiting for the catalog");
}

/// Tells the health service whatever `ready` says.
pub(crate) async fn keep_health(mut ready: watch::Receiver<bool>, reporter: HealthReporter) {
    loop {
        let status = match *ready.borrow_and_update() {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status("", status).await;
        if ready.changed().await.is_err() {
            return;
        }
    }
}
