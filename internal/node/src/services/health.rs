//! The health service: what gRPC tools ask.
//!
//! The empty name tells readiness (see `readiness`). The name `live` serves as long as the process works; whoever ends
//! processes that do not must ask that one, or a node that waits for its cluster would be ended for it.

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::readiness::NotReady;

/// The name under which liveness is asked for.
pub(crate) const LIVE: &str = "live";

/// Tells the health service whatever readiness says, until the node ends.
pub(crate) async fn keep_health(mut not_ready: watch::Receiver<Option<NotReady>>, reporter: HealthReporter) {
    loop {
        let status = match *not_ready.borrow_and_update() {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        };
        reporter.set_service_status("", status).await;
        if not_ready.changed().await.is_err() {
            return;
        }
    }
}
