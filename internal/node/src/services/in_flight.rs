//! How many bytes of batches may wait for their answer on the whole node.
//!
//! Each partition bounds what it has in flight by itself; many partitions together could still take all memory, and
//! more than the disk writer queues. So the node has a budget over all of them. Partitions without a quorum hold what
//! they took until they have one again, and must not use it up for the others: once half of the budget is taken, a
//! partition that holds more than a small share gets no more, and neither does a tenant that holds a quarter of all.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::quotas::Account;

/// The most bytes of batches that wait for their answer on this node.
const NODE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The most that one partition may hold once half of that is taken.
const PARTITION_BYTES_WHEN_SCARCE: usize = 8 * 1024 * 1024;
/// The most that one tenant may hold once half of that is taken.
const TENANT_BYTES_WHEN_SCARCE: u64 = NODE_BYTES_MAX as u64 / 4;
/// What a batch costs at least: it bounds the number of small ones.
const BATCH_BYTES_LEAST: usize = 1024;

/// The budget; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    left: Arc<Semaphore>,
}

/// A batch's share of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    _bytes: OwnedSemaphorePermit,
    tenant: Option<Arc<Account>>,
    cost: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.tenant.iter().for_each(|tenant| tenant.end_batch(self.cost));
    }
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight {
            left: Arc::new(Semaphore::new(NODE_BYTES_MAX)),
        }
    }
}

impl InFlight {
    /// Takes a share for a batch of `bytes`, which `tenant` sends, to a partition that holds `partition_bytes` already; None if
    /// that is too much at present.
    pub(super) fn take(&self, bytes: usize, partition_bytes: usize, tenant: Option<&Arc<Account>>) -> Option<Share> {
        let is_scarce = self.left.available_permits() < NODE_BYTES_MAX / 2;
        let tenant_bytes = tenant.map_or(0, |tenant| tenant.in_flight_bytes());
        if is_scarce && (partition_bytes > PARTITION_BYTES_WHEN_SCARCE || tenant_bytes >= TENANT_BYTES_WHEN_SCARCE) {
            return None;
        }
        let cost = u32::try_from(bytes.max(BATCH_BYTES_LEAST)).ok()?;
        let share = self.left.clone().try_acquire_many_owned(cost).ok()?;
        let cost = u64::from(cost);
        tenant.into_iter().for_each(|tenant| tenant.begin_batch(cost));
        Some(Share {
            _bytes: share,
            tenant: tenant.cloned(),
            cost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 1024 * 1024;

    #[test]
    fn all_partitions_together_stay_below_the_budget_of_the_node() {
        let in_flight = InFlight::default();
        let taken: Vec<Share> = std::iter::from_fn(|| in_flight.take(BATCH, 0, None)).collect();
        assert_eq!(taken.len() * BATCH, NODE_BYTES_MAX);
        drop(taken);
        assert!(in_flight.take(BATCH, 0, None).is_some());
    }

    #[test]
    fn partitions_that_hold_much_leave_the_second_half_to_the_others() {
        let in_flight = InFlight::default();
        let scarce = 2 * PARTITION_BYTES_WHEN_SCARCE;
        let held: Vec<Share> = std::iter::from_fn(|| in_flight.take(BATCH, scarce, None)).collect();
        assert!(held.len() * BATCH <= NODE_BYTES_MAX / 2 + BATCH, "{}", held.len());
        assert!(in_flight.take(BATCH, 0, None).is_some());
    }

    #[test]
    fn a_tenant_that_holds_much_leaves_the_rest_to_the_others() {
        let (in_flight, one, other) = (
            InFlight::default(),
            Account::of_tenant("one"),
            Account::of_tenant("other"),
        );
        let held: Vec<Share> = std::iter::from_fn(|| in_flight.take(BATCH, 0, Some(&one))).collect();
        assert!(held.len() * BATCH <= NODE_BYTES_MAX / 2 + BATCH, "{}", held.len());
        let others: Vec<Share> = std::iter::from_fn(|| in_flight.take(BATCH, 0, Some(&other))).collect();
        assert!(
            others.len() as u64 * BATCH as u64 >= TENANT_BYTES_WHEN_SCARCE,
            "{}",
            others.len()
        );
        drop(held);
        assert_eq!(one.in_flight_bytes(), 0);
    }
}
