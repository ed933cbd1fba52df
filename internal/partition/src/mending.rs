//! Damage inside the log: getting the entries back from the other members, and waiting for them.
//!
//! The log says which committed entries cannot be read on this disk. One task asks the other members for them, one after
//! the other, until one has them; any will do, with or without a leader, for an entry proves itself by its chain. Whoever
//! needs a damaged entry meanwhile waits here instead of failing: a failed read would end the core, and with it a voter.
//! Another task goes over the log in the background and finds damage before readers do.
//!
//! Both run before the core does, because starting it may need entries that are damaged.
//!
//! What no member has is never skipped: it stays in the list, and is asked for again and again, in case a member comes
//! back that has it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use highwater_log::{DamagedRange, Frame, Grade, GroupId, Log, Manifest, Space, crc32c};
use tokio::sync::{oneshot, watch};

use crate::codec::recall::{self, ManifestPiece, Refill};
use crate::codec::{bad, kind};
use crate::error::Error;
use crate::memory::all_members;
use crate::peers::{Lane, Peers};
use crate::runtime;
use crate::snapshot::Snapshots;
use crate::types::Member;

/// Most bytes of one answer to a refill, unless one entry alone is larger.
pub(crate) const REFILL_BYTES_MAX: usize = 1024 * 1024;
/// How long one member may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two pieces, so that a refill leaves room for the group's work: at most about 50 MiB a second.
const PIECE_PAUSE: Duration = Duration::from_millis(20);
/// How soon to ask again when nobody had anything.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How soon to look again for an entry that somebody waits for.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What is known of the damage of one log, and who waits for its end.
pub(crate) struct Mending {
    log: Log,
    /// Counts changes of what is damaged, and of what nobody has.
    changes: watch::Sender<u64>,
    nowhere: Mutex<Vec<DamagedRange>>,
    /// Why damaged entries cannot come back before the log is brought further, if that is so.
    behind: watch::Sender<Option<String>>,
    dead: OnceLock<String>,
}

impl Mending {
    pub(crate) fn new(log: Log) -> Arc<Mending> {
        let mending = Arc::new(Mending {
            log: log.clone(),
            changes: watch::Sender::new(0),
            nowhere: Mutex::default(),
            behind: watch::Sender::new(None),
            dead: OnceLock::new(),
        });
        let notified = Arc::downgrade(&mending);
        log.on_damage(Arc::new(move || {
            if let Some(mending) = notified.upgrade() {
                mending.changes.send_modify(|count| *count += 1);
            }
        }));
        mending
    }

    /// Changes with the damage.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The damage known now.
    pub(crate) fn damage(&self) -> Vec<DamagedRange> {
        self.log.damage()
    }

    /// Damage that all other members were asked about, and none could help.
    pub(crate) fn nowhere(&self) -> Vec<DamagedRange> {
        self.nowhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this replica's id is dead, if what was found means that.
    pub(crate) fn dead(&self) -> Option<String> {
        self.dead.get().cloned()
    }

    /// Waits until it is known that the others have purged what is damaged here, and that what stands for it reaches beyond what is
    /// committed here. Then only a leader can help, with its manifest, and only a core can take it.
    pub(crate) async fn behind(&self) -> String {
        let mut behind = self.behind.subscribe();
        loop {
            if let Some(why) = behind.borrow_and_update().clone() {
                return why;
            }
            let _ = behind.changed().await; // the sender lives as long as `self`
        }
    }

    fn note_dead(&self, error: &highwater_log::Error) {
        if self.dead.set(error.to_string()).is_ok() {
            tracing::error!(%error, "the replica is dead");
        }
    }

    fn set_nowhere(&self, ranges: Vec<DamagedRange>) {
        let mut nowhere = self.nowhere.lock().unwrap_or_else(PoisonError::into_inner);
        if *nowhere == ranges {
            return;
        }
        if !ranges.is_empty() {
            tracing::error!(?ranges, "damaged entries that no other member has");
        }
        *nowhere = ranges;
        drop(nowhere);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Reads until it is not damage that is in the way; off the async threads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Log) -> Result<T, highwater_log::Error> + Clone + Send + 'static,
    ) -> Result<T, std::io::Error> {
        loop {
            let mut changes = self.changes();
            let (log, attempt) = (self.log.clone(), read.clone());
            let result = runtime::blocking(move || attempt(&log)).await;
            match result.map_err(std::io::Error::other)? {
                Err(error) if error.grade() == Grade::Inside => {
                    tracing::warn!(%error, "waiting for a refill");
                    // a change is the usual end; what could not be told apart from damage is looked at again anyway
                    let _ = tokio::time::timeout(RETRY_PAUSE, changes.changed()).await;
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                Err(error) if error.grade() == Grade::Dead => {
                    self.note_dead(&error);
                    return Err(std::io::Error::other(error));
                }
                result => return result.map_err(std::io::Error::other),
            }
        }
    }
}

/// Gets damaged entries back from the other members.
pub(crate) struct Refiller {
    pub(crate) group_id: GroupId,
    pub(crate) own: u64,
    pub(crate) log: Log,
    pub(crate) peers: Arc<dyn Peers>,
    /// Members that are known otherwise than from the log.
    pub(crate) known: Vec<Member>,
    pub(crate) mending: Arc<Mending>,
    pub(crate) snapshots: Arc<Snapshots>,
}

/// What asking all members for a range came to.
enum Outcome {
    Filled,
    /// Somebody did not answer, or what came did not fit.
    Later,
    /// All have answered, and none has it.
    Nowhere,
}

impl Refiller {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut changes = self.mending.changes();
        loop {
            changes.mark_unchanged();
            if self.mending.damage().is_empty() {
                self.mending.set_nowhere(Vec::new());
                let _ = changes.changed().await; // the sender lives as long as `self`
                continue;
            }
            // what is missing may need room; a refill that finds none would be the log's end
            let filled = self.log.space() > Space::Full && self.round().await;
            tokio::time::sleep(if filled { PIECE_PAUSE } else { RETRY_PAUSE }).await;
        }
    }

    /// Asks for a piece of every damaged range; whether any came.
    async fn round(&self) -> bool {
        let members = match self.others().await {
            Ok(members) => members,
            Err(error) => {
                tracing::warn!(%error, "the members cannot be read");
                self.known.clone()
            }
        };
        let mut filled = false;
        let mut nowhere = Vec::new();
        for range in self.mending.damage() {
            match self.fill(range, &members).await {
                Outcome::Filled => filled = true,
                Outcome::Later => {}
                Outcome::Nowhere => nowhere.push(range),
            }
        }
        self.mending.set_nowhere(nowhere);
        filled
    }

    async fn others(&self) -> Result<Vec<Member>, Error> {
        let mut members = all_members(&self.log, &self.known).await?;
        members.retain(|member| member.replica_id.0 != self.own);
        Ok(members)
    }

    async fn fill(&self, range: DamagedRange, members: &[Member]) -> Outcome {
        let mut answered_all = true;
        let mut purged_at = None;
        for member in members {
            match ask(self.peers.as_ref(), self.group_id, member, range).await {
                Ok(Refill::Frames(frames)) => match self.put_back(frames).await {
                    Ok(()) => return Outcome::Filled,
                    Err(error) => {
                        tracing::warn!(node = %member.node, %error, "a refill does not fit");
                        answered_all = false;
                    }
                },
                Ok(Refill::Purged(first_index)) if first_index >= range.end_index => purged_at = Some(member),
                Ok(Refill::Nothing | Refill::Purged(_)) => {}
                Err(error) => {
                    tracing::debug!(node = %member.node, %error, "no answer to a refill");
                    answered_all = false;
                }
            }
        }
        if let Some(member) = purged_at {
            return self.take_manifest(member).await;
        }
        match answered_all {
            true => Outcome::Nowhere,
            false => Outcome::Later,
        }
    }

    /// What is damaged here is purged elsewhere, so it is not needed: the other's manifest stands for it. The purge is
    /// carried out as for any other floor (see `trim`).
    async fn take_manifest(&self, member: &Member) -> Outcome {
        match self.pull(member).await {
            Ok(manifest) if self.is_committed(&manifest) => self.snapshots.pin(manifest),
            Ok(manifest) => {
                let why = format!(
                    "{} has purged what is damaged here up to {}",
                    member.node,
                    manifest.last()
                );
                self.mending.behind.send_replace(Some(why));
            }
            Err(error) => tracing::warn!(node = %member.node, %error, "no manifest for what is damaged"),
        }
        Outcome::Later
    }

    fn is_committed(&self, manifest: &Manifest) -> bool {
        let committed = self.log.committed(|state| state.last_entry());
        committed.is_some_and(|committed| manifest.last().index <= committed.index)
    }

    async fn pull(&self, member: &Member) -> Result<Manifest, Error> {
        let manifest = pull_manifest(self.peers.as_ref(), self.group_id, member).await?;
        let wrong = manifest.check_group(&self.log.identity());
        wrong.map_err(|err| bad(err.to_string()))?;
        Ok(manifest)
    }

    async fn put_back(&self, frames: Vec<Frame>) -> Result<(), Error> {
        let (done, synced) = oneshot::channel();
        let log = self.log.clone();
        let refill = move || log.refill(frames, Box::new(move |result| drop(done.send(result))));
        let queued = runtime::blocking(refill).await;
        queued.map_err(|err| Error::Raft(err.to_string()))??;
        match synced.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Raft("the log dropped a refill".to_owned())),
        }
    }
}

/// Asks one member for a piece of a range.
pub(crate) async fn ask(
    peers: &dyn Peers,
    group_id: GroupId,
    member: &Member,
    range: DamagedRange,
) -> Result<Refill, Error> {
    let body = recall::encode_refill_request(member.replica_id.0, range.first_index, range.end_index);
    let call = peers.call(
        &member.node,
        group_id,
        Lane::Bulk,
        kind::REFILL,
        vec![body],
        ASK_TIMEOUT,
    );
    let answer = call.await.map_err(|err| Error::Raft(err.to_string()))?;
    recall::decode_refill(answer)
}

/// Gets the manifest of one member, piece by piece.
pub(crate) async fn pull_manifest(peers: &dyn Peers, group_id: GroupId, member: &Member) -> Result<Manifest, Error> {
    let mut bytes = BytesMut::new();
    let mut begun: Option<(u64, u64, u32)> = None;
    loop {
        let body = recall::encode_manifest_request(member.replica_id.0, bytes.len() as u64);
        let call = peers.call(
            &member.node,
            group_id,
            Lane::Bulk,
            kind::MANIFEST,
            vec![body],
            ASK_TIMEOUT,
        );
        let answer = call.await.map_err(|err| Error::Raft(err.to_string()))?;
        let Some(piece) = recall::decode_manifest_piece(answer)? else {
            return Err(bad("there is no manifest"));
        };
        let (floor, total, crc) = *begun.get_or_insert((piece.floor, piece.bytes, piece.crc));
        let room = total.saturating_sub(bytes.len() as u64);
        if (floor, total, crc) != (piece.floor, piece.bytes, piece.crc) || piece.piece.is_empty() {
            return Err(bad("the manifest has changed meanwhile"));
        }
        if piece.piece.len() as u64 > room {
            return Err(bad("a manifest is longer than it says"));
        }
        bytes.extend_from_slice(&piece.piece);
        if (bytes.len() as u64) < total {
            continue;
        }
        if crc32c(&bytes) != crc {
            return Err(bad("a manifest has the wrong checksum"));
        }
        return Manifest::decode(&bytes).map_err(|err| bad(format!("manifest: {err}")));
    }
}

/// A piece of this replica's manifest.
pub(crate) fn serve_manifest(log: &Log, offset: u64) -> Option<ManifestPiece> {
    let manifest = log.manifest()?;
    let encoded = manifest.encode();
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(encoded.len());
    let end = start.saturating_add(REFILL_BYTES_MAX).min(encoded.len());
    Some(ManifestPiece {
        floor: manifest.last().index,
        bytes: encoded.len() as u64,
        crc: crc32c(&encoded),
        piece: encoded.slice(start..end),
    })
}

/// What this replica has of the entries that a member has lost.
pub(crate) async fn serve(log: &Log, first: u64, end: u64) -> Result<Refill, Error> {
    let log = log.clone();
    let read = runtime::blocking(move || log.read_for_refill(first, end, REFILL_BYTES_MAX)).await;
    match read.map_err(|err| Error::Raft(err.to_string()))? {
        Ok(frames) if frames.is_empty() => Ok(Refill::Nothing),
        Ok(frames) => Ok(Refill::Frames(frames)),
        Err(highwater_log::Error::Purged { first_index, .. }) => Ok(Refill::Purged(first_index)),
        Err(error) if error.grade() == Grade::Inside => Ok(Refill::Nothing),
        Err(error) => Err(error.into()),
    }
}
