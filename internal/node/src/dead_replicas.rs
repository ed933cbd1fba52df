//! Replicas of this data directory that can never run again.
//!
//! What shows that one is dead may be forgotten by the next start, so it is recorded before anybody is told. Then the
//! catalog is told, which has its place given to another one (`groups`).

use std::sync::Arc;

use highwater_partition::log::{GroupId, ReplicaId};
use tokio::sync::mpsc;

use crate::data_dir::DataDir;

/// A replica that can never run again.
pub(crate) type Dead = (GroupId, ReplicaId);

/// Takes what is found dead; cheap to clone.
#[derive(Clone)]
pub(crate) struct DeadReplicas {
    data: Arc<DataDir>,
    /// At most as many as replicas are recorded here.
    reports: mpsc::UnboundedSender<Dead>,
}

impl DeadReplicas {
    /// With the end from which the catalog is told.
    pub(crate) fn new(data: Arc<DataDir>) -> (DeadReplicas, mpsc::UnboundedReceiver<Dead>) {
        let (reports, reported) = mpsc::unbounded_channel();
        (DeadReplicas { data, reports }, reported)
    }

    /// Records a partition's replica and has it reported.
    pub(crate) async fn note(&self, dead: Dead) {
        self.record(dead).await;
        self.report(dead);
    }

    /// Records it, durably. If that fails, it is found dead once more, or not at all, at the next start.
    pub(crate) async fn record(&self, (group, replica): Dead) {
        let data = self.data.clone();
        match tokio::task::spawn_blocking(move || data.record_dead(group, replica)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "that a replica is dead cannot be recorded"),
            Err(error) => tracing::debug!(%error, "the runtime ends"),
        }
    }

    /// Has one reported that was recorded before.
    pub(crate) fn report(&self, dead: Dead) {
        // Who listens ends with the node.
        let _ = self.reports.send(dead);
    }
}
