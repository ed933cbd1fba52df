//! Going on from one replica when the majority of its group is gone for good.
//!
//! What Raft forbids is done by hand: between two lives, an entry is put behind the end of the log that makes a replica the
//! only member of its group, in a term that it has claimed for itself. With that log it elects itself, and commits all that it
//! has; what only the others had is lost, and an operator has said so.
//!
//! The replica must be a *new* one that has taken over the log of the survivor (`take_over` in the log). The former members may
//! come back, elect a leader among themselves, and send it entries: a leader that is no member of the known membership is
//! believed, for a member that slept through a change learns of the new ones from nobody else (`serve`). But they address the
//! survivor under its old id, which nobody has any more.
//!
//! All entries stay where they are and as they are; also those that were not committed, for they may have been acknowledged
//! elsewhere.
//!
//! Deliberately absent: whether this is right to do. That is for those who can see the nodes.

use std::collections::{BTreeMap, BTreeSet};

use highwater_log::{Body, Entry, EntryId, Log, Vote};
use tokio::sync::oneshot;

use crate::codec::membership as membership_codec;
use crate::error::Error;
use crate::partition::Partition;
use crate::runtime;
use crate::types::{Member, Membership, NodeName};

/// The last entry of a log, committed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEntry {
    /// The term of the leader that appended it.
    pub term: u64,
    /// Its Raft index.
    pub index: u64,
    /// When it was appended, by the clock of its leader, milliseconds since 1970.
    pub append_time_ms: u64,
}

impl Partition {
    /// The last entry here; None if there is none, or if it cannot be read. May read the disk.
    pub async fn last_entry(&self) -> Option<LastEntry> {
        let log = self.inner.log.clone();
        let read = move || {
            let EntryId { term, index } = log.last()?;
            let frames = log.read(index, index + 1, 0).ok()?;
            Some(LastEntry {
                term,
                index,
                append_time_ms: frames.first()?.header.append_time_ms,
            })
        };
        runtime::blocking(read).await.ok().flatten()
    }
}

/// Makes `own` the only member of its group, from the entry on that this answers, which is synced. It must have taken the log
/// over from the survivor, and not have run yet; start it afterwards. May be repeated after a failure at any point.
pub async fn become_only_member(log: &Log, own: &Member) -> Result<EntryId, Error> {
    let (last, vote) = (log.last(), log.vote());
    let seen = [last.map(|last| last.term), vote.map(|vote| vote.term)];
    let id = EntryId {
        term: seen.into_iter().flatten().max().unwrap_or(0) + 1,
        index: last.map_or(0, |last| last.index + 1),
    };
    let replica_id = own.replica_id.0;
    let nodes = BTreeMap::from([(replica_id, NodeName(own.node.clone()))]);
    let membership = Membership::new(vec![BTreeSet::from([replica_id])], nodes);
    let membership = membership.map_err(|error| Error::Raft(error.to_string()))?;
    let body = Body::Membership(membership_codec::encode(&membership)?);
    let claimed = Vote {
        term: id.term,
        voted_for: Some(replica_id),
        committed: false, // it has to be elected first, if only by itself
    };
    log.save_vote(claimed, Box::new(|_| {}))?; // what is appended behind it is not certain before it
    let (done, synced) = oneshot::channel();
    let entries = vec![Entry::Proposed { id, body }];
    log.append(entries, Box::new(move |result| drop(done.send(result))))?;
    match synced.await {
        Ok(result) => result?,
        Err(_) => return Err(Error::Raft("the log dropped an entry without syncing it".to_owned())),
    }
    Ok(id)
}
