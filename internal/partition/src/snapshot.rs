//! The manifest as openraft's snapshot.
//!
//! To openraft a snapshot is what stands for purged entries. Here that is the log's manifest, pinned at the floor and never
//! at the tail: installing a snapshot makes openraft drop a follower's whole log up to it, and with the floor as its end
//! a follower loses nothing that the others still have.
//!
//! From the moment a new floor is chosen until the log has purged up to it, the folded manifest is *pinned* here. openraft
//! plans with the new floor as soon as it knows the snapshot, so that is what it must find when it asks.
//!
//! Invariant: what is answered never goes back, and is never behind what openraft was told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_log::{EntryId, Log, Manifest, State};
use openraft::storage::Snapshot;
use tokio::sync::watch;

use crate::codec::membership as membership_codec;
use crate::error::Error;
use crate::truncation::Truncations;
use crate::types::{CommittedLeaderId, NodeName, StoredMembership, log_id};

/// What a snapshot holds.
pub(crate) type SnapshotData = Arc<Manifest>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, NodeName>;
pub(crate) type GroupSnapshot = Snapshot<CommittedLeaderId, u64, NodeName, SnapshotData>;

/// The snapshots of one replica.
pub(crate) struct Snapshots {
    log: Log,
    pinned: Mutex<Option<Arc<Manifest>>>,
    /// Counts what was pinned.
    pins: watch::Sender<u64>,
    /// How many followers are being sent a manifest.
    sending: watch::Sender<usize>,
    let_go: LetGo,
    truncations: Truncations,
}

impl Snapshots {
    pub(crate) fn new(log: Log) -> Arc<Snapshots> {
        Arc::new(Snapshots {
            log,
            pinned: Mutex::default(),
            pins: watch::Sender::new(0),
            sending: watch::Sender::new(0),
            let_go: LetGo::default(),
            truncations: Truncations::default(),
        })
    }

    fn pinned(&self) -> MutexGuard<'_, Option<Arc<Manifest>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `manifest` the snapshot from now on; one that is not higher than the present one changes nothing.
    pub(crate) fn pin(&self, manifest: Manifest) {
        let mut pinned = self.pinned();
        let present = pinned.as_deref().map(Manifest::last).max(self.log.floor());
        if present.is_none_or(|present| manifest.last() > present) {
            *pinned = Some(Arc::new(manifest));
            drop(pinned);
            self.pins.send_modify(|count| *count += 1);
        }
    }

    /// Waits until a manifest is pinned that stands for all entries up to `floor`; its last entry.
    pub(crate) async fn pinned_from(&self, floor: u64) -> EntryId {
        let mut pins = self.pins.subscribe();
        loop {
            pins.mark_unchanged();
            if let Some(pinned) = self.pending().filter(|pinned| pinned.index >= floor) {
                return pinned;
            }
            let _ = pins.changed().await; // the sender lives as long as `self`
        }
    }

    /// The manifest that stands for the entries up to the floor, or to the floor to come. None if nothing was ever purged.
    pub(crate) fn current(&self) -> Option<Arc<Manifest>> {
        let present = self.log.manifest();
        let pinned = self.pinned().clone();
        match (&pinned, &present) {
            (Some(next), Some(now)) if next.last() <= now.last() => present,
            (Some(_), _) => pinned,
            (None, _) => present,
        }
    }

    /// The floor of a pinned manifest that the log has not taken over yet.
    pub(crate) fn pending(&self) -> Option<EntryId> {
        let pinned = self.pinned().as_deref().map(Manifest::last);
        pinned.filter(|pinned| Some(*pinned) > self.log.floor())
    }

    /// The pinned manifest, if it is the one for this floor.
    pub(crate) fn pinned_at(&self, floor: u64) -> Option<Arc<Manifest>> {
        self.pinned().clone().filter(|manifest| manifest.last().index == floor)
    }

    /// Lets go of a pinned manifest that the log has taken over.
    pub(crate) fn unpin(&self, floor: EntryId) {
        let mut pinned = self.pinned();
        if pinned.as_ref().is_some_and(|manifest| manifest.last() <= floor) {
            *pinned = None;
        }
    }

    /// A follower is being sent a manifest, until the result is dropped.
    pub(crate) fn sending(self: &Arc<Self>) -> Sending {
        self.sending.send_modify(|count| *count += 1);
        Sending(self.clone())
    }

    /// Waits until no follower is being sent a manifest.
    pub(crate) async fn nobody_is_sent_one(&self) {
        let mut sending = self.sending.subscribe();
        // the sender lives as long as `self`
        let _ = sending.wait_for(|count| *count == 0).await;
    }

    /// Which followers are not waited for any longer.
    pub(crate) fn let_go(&self) -> &LetGo {
        &self.let_go
    }

    /// What the installation of a manifest saves from being cut.
    pub(crate) fn truncations(&self) -> &Truncations {
        &self.truncations
    }
}

/// The index below which followers are not sent entries any more, but the manifest.
#[derive(Debug, Clone, Default)]
pub(crate) struct LetGo(Arc<AtomicU64>);

impl LetGo {
    /// From now on followers that need entries below `index` are given the manifest instead.
    pub(crate) fn below(&self, index: u64) {
        self.0.fetch_max(index, Ordering::AcqRel);
    }

    /// Whether a follower that is to be sent the entry `index` has been let go.
    pub(crate) fn has(&self, index: u64) -> bool {
        index < self.0.load(Ordering::Acquire)
    }
}

/// One manifest on its way to a follower.
pub(crate) struct Sending(Arc<Snapshots>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.sending.send_modify(|count| *count -= 1);
    }
}

/// The manifest in openraft's terms.
pub(crate) fn snapshot_of(manifest: Arc<Manifest>) -> Result<GroupSnapshot, Error> {
    Ok(GroupSnapshot {
        meta: SnapshotMeta {
            last_log_id: Some(log_id(manifest.last())),
            last_membership: membership_in(manifest.state())?,
        },
        snapshot: manifest,
    })
}

/// The last membership that was folded into `state`.
pub(crate) fn membership_in(state: &State) -> Result<StoredMembership, Error> {
    Ok(match &state.membership {
        Some((id, bytes)) => StoredMembership::new(Some(log_id(*id)), membership_codec::decode(bytes.clone())?),
        None => StoredMembership::default(),
    })
}
