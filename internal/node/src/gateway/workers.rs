//! What takes a while and much memory: beside everything else, and not for many at once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::limits::WORKERS_MAX;
use crate::status::Problem;

/// The places.
pub(super) struct Workers {
    free: Arc<Semaphore>,
}

impl Default for Workers {
    fn default() -> Self {
        Workers {
            free: Arc::new(Semaphore::new(WORKERS_MAX)),
        }
    }
}

impl Workers {
    /// Does something as soon as there is a place, unless there is none by `deadline`.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        deadline: Instant,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let Ok(place) = timeout_at(deadline, self.free.clone().acquire_owned()).await else {
            let why = format!("the JSON gateway's {WORKERS_MAX} workers were busy for too long");
            return Err(Problem::Overloaded(why));
        };
        let working = tokio::task::spawn_blocking(move || {
            let _place = place; // the semaphore is never closed
            task()
        });
        working.await.map_err(|error| Problem::Internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_worker_beyond_his_time() {
        let workers = Workers::default();
        let all = workers
            .free
            .clone()
            .acquire_many_owned(WORKERS_MAX as u32)
            .await
            .unwrap();
        let (begin, patience) = (Instant::now(), Duration::from_secs(3));
        let refused = workers.work(begin + patience, || ()).await;
        assert!(matches!(refused, Err(Problem::Overloaded(_))), "{refused:?}");
        assert_eq!(begin.elapsed(), patience);
        drop(all);
        assert_eq!(workers.work(Instant::now() + patience, || 7).await.unwrap(), 7);
    }
}
