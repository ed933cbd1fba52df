//! The tasks of one replica beside its core: they end with it.

use std::future::Future;

use tokio::sync::watch;

use crate::runtime;

/// Runs tasks until it is dropped.
pub(crate) struct Life(watch::Sender<()>);

impl Life {
    pub(crate) fn begin() -> Life {
        Life(watch::Sender::new(()))
    }

    /// Starts a task that is dropped when this is, if it has not ended by itself.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut life = self.0.subscribe();
        runtime::spawn(async move {
            tokio::select! {
                biased;
                _ = life.changed() => {} // nothing is ever sent: the sender is gone
                () = task => {}
            }
        });
    }
}
