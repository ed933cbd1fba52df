//! Turns at working out what changes of the policy come to.
//!
//! That copies the policy and looks at all of it, off the threads that serve others, for one change at a time. Operators wait for each other
//! only, so nobody can hold up what they take away; of those who manage a tenant few may wait, so no tenant holds up the others for long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use highwater_catalog::Proposer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::status::Problem;

/// Changes that clients of one tenant may have waiting at a node at once.
const TENANT_WAITING_MAX: usize = 8;

/// Who works something out, and who waits for it.
pub(super) struct Turns {
    operators: Arc<Semaphore>,
    managers: Arc<Semaphore>,
    /// How many wait or work, by tenant; none that has nobody.
    waiting: Arc<Mutex<HashMap<String, usize>>>,
}

/// It is one's turn until this is dropped.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Option<Place>,
}

/// One of those that a tenant may have waiting.
struct Place {
    tenant: String,
    waiting: Arc<Mutex<HashMap<String, usize>>>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            operators: Arc::new(Semaphore::new(1)),
            managers: Arc::new(Semaphore::new(1)),
            waiting: Arc::default(),
        }
    }
}

impl Turns {
    /// Waits for the turn of a client of `tenant`.
    ///
    /// # Errors
    /// Overloaded if it does not come before the deadline, or too many of its tenant wait already.
    pub(super) async fn take(&self, by: Proposer, tenant: &str, deadline: Instant) -> Result<Turn, Problem> {
        let busy = || Problem::Overloaded("this node is looking at other changes of the policy".to_owned());
        let (semaphore, place) = match by {
            Proposer::Operator => (&self.operators, None),
            Proposer::Manager => (&self.managers, Some(self.place(tenant).ok_or_else(busy)?)),
        };
        match timeout_at(deadline, semaphore.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn {
                _permit: permit,
                _place: place,
            }),
            _ => Err(busy()),
        }
    }

    fn place(&self, tenant: &str) -> Option<Place> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(tenant.to_owned()).or_default();
        if *count >= TENANT_WAITING_MAX {
            return None;
        }
        *count += 1;
        Some(Place {
            tenant: tenant.to_owned(),
            waiting: self.waiting.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = waiting.get_mut(&self.tenant) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            waiting.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn an_operator_does_not_wait_for_those_who_manage_tenants() {
        let turns = Turns::default();
        let working = turns.take(Proposer::Manager, "shop", soon()).await.unwrap();
        let operators = turns.take(Proposer::Operator, "ops", soon()).await.unwrap();
        let now = Instant::now();
        assert!(turns.take(Proposer::Manager, "other", now).await.is_err());
        assert!(turns.take(Proposer::Operator, "ops", now).await.is_err());
        drop((working, operators));
        turns.take(Proposer::Manager, "other", soon()).await.unwrap();
    }

    #[tokio::test]
    async fn few_of_a_tenant_wait_and_those_who_give_up_make_room() {
        let turns = Turns::default();
        let working = turns.take(Proposer::Manager, "shop", soon()).await.unwrap();
        let mut waiting: Vec<_> = (1..TENANT_WAITING_MAX)
            .map(|_| Box::pin(turns.take(Proposer::Manager, "shop", soon())))
            .collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none(), "it works as well");
        }
        let overloaded = turns.take(Proposer::Manager, "shop", soon()).await;
        assert!(matches!(overloaded, Err(Problem::Overloaded(_))));
        let others = turns.take(Proposer::Manager, "other", Instant::now()).await;
        assert!(others.is_err(), "it is not yet the turn of another tenant");
        drop((waiting, working));
        turns.take(Proposer::Manager, "shop", soon()).await.unwrap();
        assert!(turns.waiting.lock().unwrap().is_empty());
    }
}
