//! A replica that does not run yet, as its peers see it.
//!
//! A start takes as long as others need to answer: they mend a log that cannot be opened, give back entries that the core
//! needs to begin, and tell what they remember. They may be starting as well, so from the first moment on a replica tells
//! whatever can be told without a core. Otherwise two that need entries from each other would wait for ever.
//!
//! * Entries: those that are whole, also in a log that cannot be opened.
//! * The manifest: once the log is open.
//! * Memory: none. What this replica remembers of others was never on its disk, so there is nothing to wait for either.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_log::{Log, Repair, ReplicaId};

use crate::codec::recall::{self, Refill};
use crate::codec::{bad, kind};
use crate::error::Error;
use crate::memory::all_members;
use crate::mending::REFILL_BYTES_MAX;
use crate::runtime;
use crate::serve::{check_receiver, recall_call};

/// A replica that does not run yet; clones are the same one. Made before its log is opened, and asked until its `Partition`
/// is there.
#[derive(Clone)]
pub struct Unstarted {
    replica_id: ReplicaId,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
enum State {
    /// Nobody has looked at the log yet.
    Unread,
    /// It cannot be opened before it is mended.
    Damaged(Arc<Mutex<Repair>>),
    Open(Log),
}

impl Unstarted {
    /// A replica whose log is about to be opened, with [`Unstarted::open`].
    pub fn new(replica_id: ReplicaId) -> Unstarted {
        Unstarted::in_state(replica_id, State::Unread)
    }

    /// A replica whose log is open: it was just made.
    pub fn with_log(log: Log) -> Unstarted {
        Unstarted::in_state(log.identity().replica_id, State::Open(log))
    }

    fn in_state(replica_id: ReplicaId, state: State) -> Unstarted {
        Unstarted {
            replica_id,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Its id.
    pub fn replica_id(&self) -> ReplicaId {
        self.replica_id
    }

    /// Whether calls of this kind can be answered before the replica runs. All others, and all streams, need its core.
    pub fn answers(kind: u8) -> bool {
        (kind::REMEMBER..=kind::MANIFEST).contains(&kind)
    }

    /// Answers a call of a peer on the node `from`, which must be a member of the group once the log tells who is.
    pub async fn handle_call(&self, from: &str, kind: u8, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let state = self.state().clone();
        if let State::Open(log) = &state {
            check_member(log, from).await?;
        }
        match (kind, state) {
            (kind::REMEMBER, _) => self.remember(body),
            (kind::REFILL | kind::MANIFEST, State::Open(log)) => recall_call(&log, self.replica_id.0, kind, body).await,
            (kind::REFILL, State::Damaged(repair)) => self.refill(repair, body).await,
            _ => Err(bad(format!("replica {} does not run yet", self.replica_id.0))),
        }
    }

    fn remember(&self, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, _asker) = recall::decode_remember(body)?;
        check_receiver(self.replica_id.0, to)?;
        Ok(vec![recall::encode_seen(None)])
    }

    async fn refill(&self, repair: Arc<Mutex<Repair>>, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let (to, first, end) = recall::decode_refill_request(body)?;
        check_receiver(self.replica_id.0, to)?;
        let found = with(&repair, move |repair| {
            repair.read_for_refill(first, end, REFILL_BYTES_MAX)
        });
        let frames = found.await??;
        let answer = match frames.is_empty() {
            true => Refill::Nothing,
            false => Refill::Frames(frames),
        };
        Ok(recall::encode_refill(answer))
    }

    /// From now on this log is mended.
    pub(crate) fn note_damaged(&self, repair: Arc<Mutex<Repair>>) {
        *self.state() = State::Damaged(repair);
    }

    /// From now on the log is open.
    pub(crate) fn note_open(&self, log: Log) {
        *self.state() = State::Open(log);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works on a log that is being mended, off the async threads.
pub(crate) async fn with<T: Send + 'static>(
    repair: &Arc<Mutex<Repair>>,
    work: impl FnOnce(&mut Repair) -> T + Send + 'static,
) -> Result<T, Error> {
    let repair = repair.clone();
    let done = runtime::blocking(move || work(&mut repair.lock().unwrap_or_else(PoisonError::into_inner)));
    done.await.map_err(|err| Error::Raft(format!("mending the log: {err}")))
}

/// As long as no membership is known, everybody may ask.
async fn check_member(log: &Log, from: &str) -> Result<(), Error> {
    let members = all_members(log, &[]).await?;
    match members.is_empty() || members.iter().any(|member| member.node == from) {
        true => Ok(()),
        false => Err(bad(format!("{from} is no member of this group"))),
    }
}
