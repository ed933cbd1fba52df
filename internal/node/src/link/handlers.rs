//! What peers have asked for and is being carried out. It outlives the connection that it came on, and a node that stops
//! waits for it before it ends the replicas that answer.

use tokio::sync::watch;

/// Counts what is going on.
#[derive(Debug, Default)]
pub(super) struct Handlers {
    going_on: watch::Sender<usize>,
}

impl Handlers {
    /// Carries something out in a task of its own.
    pub(super) fn spawn(&self, handling: impl Future<Output = ()> + Send + 'static) {
        let counted = Counted::new(self.going_on.clone());
        tokio::spawn(async move {
            let _counted = counted;
            handling.await;
        });
    }

    /// Waits until nothing goes on.
    pub(super) async fn idle(&self) {
        let mut going_on = self.going_on.subscribe();
        // The sender is ours, so the wait cannot fail.
        let _ = going_on.wait_for(|count| *count == 0).await;
    }
}

/// One thing that goes on, however it ends.
struct Counted {
    going_on: watch::Sender<usize>,
}

impl Counted {
    fn new(going_on: watch::Sender<usize>) -> Counted {
        going_on.send_modify(|count| *count += 1);
        Counted { going_on }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.going_on.send_modify(|count| *count -= 1);
    }
}
