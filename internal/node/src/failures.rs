//! Where the parts of a node report what it cannot go on from.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Failure;

/// Keeps the first failure; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Failures {
    first: Arc<watch::Sender<Option<Failure>>>,
}

impl Default for Failures {
    fn default() -> Self {
        Failures {
            first: Arc::new(watch::Sender::new(None)),
        }
    }
}

impl Failures {
    /// Reports one, loudly. Callable from any thread.
    pub(crate) fn report(&self, failure: Failure) {
        tracing::error!(%failure, "this node cannot go on");
        self.first.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(failure);
            }
            is_first
        });
    }

    /// Changes when there is one.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Failure>> {
        self.first.subscribe()
    }

    /// The first one, if there is any.
    pub(crate) fn first(&self) -> Option<Failure> {
        self.first.borrow().clone()
    }

    /// Waits for the first one.
    pub(crate) async fn wait(&self) -> Failure {
        let mut first = self.first.subscribe();
        match first.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // The sender lives in `self`, so this is never reached.
            _ => std::future::pending().await,
        }
    }
}
