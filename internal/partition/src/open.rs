//! Opening a replica's log, if need be with the help of the others.
//!
//! A log with damage among entries that have to be folded cannot be opened; its vote and its end are whole, so once the
//! entries are put back from any member that has them it opens as if nothing had happened. Meanwhile the replica is just
//! away, as far as its group is concerned. What is whole in a log that cannot be opened yet is there for the others: all of
//! them may be in the same state ([`ClosedLog`]).
//!
//! If the others have purged those entries, their manifest stands for them. One that reaches beyond what is known to be committed here would
//! have to be installed, which drops the log; but what this log has behind that point may have been acknowledged, and cannot be looked at.
//! Such a replica is dead.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use highwater_log::{DamagedRange, Frame, Grade, GroupId, Log, Manifest, OpenLog, Repair};

use crate::codec::recall::{self, Refill};
use crate::codec::{bad, kind};
use crate::error::Error;
use crate::mending::{REFILL_BYTES_MAX, ask, pull_manifest};
use crate::peers::Peers;
use crate::runtime;
use crate::serve::check_receiver;
use crate::types::Member;

/// How soon to ask again when nobody had anything.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A log that is being mended and cannot be opened yet; clones are the same one.
#[derive(Clone)]
pub struct ClosedLog {
    replica_id: u64,
    repair: Arc<Mutex<Repair>>,
}

impl ClosedLog {
    /// Answers a call of a peer: entries that the caller has lost, if they are whole here. Nothing else is known yet.
    pub async fn handle_call(&self, kind: u8, body: Bytes) -> Result<Vec<Bytes>, Error> {
        if kind != kind::REFILL {
            return Err(bad(format!("replica {} is not open yet", self.replica_id)));
        }
        let (to, first, end) = recall::decode_refill_request(body)?;
        check_receiver(self.replica_id, to)?;
        let found = self.with(move |repair| repair.read_for_refill(first, end, REFILL_BYTES_MAX));
        let frames = found.await??;
        let answer = match frames.is_empty() {
            true => Refill::Nothing,
            false => Refill::Frames(frames),
        };
        Ok(recall::encode_refill(answer))
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Repair) -> T + Send + 'static) -> Result<T, Error> {
        let repair = self.repair.clone();
        off_thread(move || work(&mut repair.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// Opens a log; mends it first, from `members`, if it cannot be opened otherwise. That takes as long as it takes for one of
/// them to answer that has what is missing. `options` makes the options of an opening, as often as one is tried.
/// Meanwhile `serve` is given the closed log, to answer calls for it. `Error::is_dead` tells whether the replica must be
/// replaced.
pub async fn open_log(
    options: impl Fn() -> OpenLog + Send + Sync + Clone + 'static,
    group_id: GroupId,
    members: &[Member],
    peers: &dyn Peers,
    serve: impl Fn(ClosedLog) + Send,
) -> Result<Log, Error> {
    loop {
        let make = options.clone();
        match off_thread(move || Log::open(make())).await? {
            Ok(log) => return Ok(log),
            Err(error) if error.grade() == Grade::Inside => {
                tracing::warn!(group = group_id.0, %error, "the log is mended before it is opened");
            }
            Err(error) => return Err(error.into()),
        }
        let make = options.clone();
        let repair = off_thread(move || Repair::open(make())).await??;
        let closed = ClosedLog {
            replica_id: options().identity.replica_id.0,
            repair: Arc::new(Mutex::new(repair)),
        };
        serve(closed.clone());
        mend(&closed, group_id, members, peers).await?;
    }
}

async fn mend(closed: &ClosedLog, group_id: GroupId, members: &[Member], peers: &dyn Peers) -> Result<(), Error> {
    loop {
        let ranges = closed.with(|repair| repair.damage()).await?;
        if ranges.is_empty() {
            return Ok(());
        }
        let mut filled = false;
        let mut beyond = None;
        for range in ranges.iter().copied() {
            for member in members {
                let Some(help) = help(peers, group_id, member, range).await else {
                    continue;
                };
                let put_back = closed.with(move |repair| match help {
                    Help::Frames(frames) => repair.refill(&frames),
                    Help::Manifest(manifest) => repair.replace_manifest(&manifest),
                });
                match put_back.await? {
                    Ok(()) => filled = true,
                    Err(error @ highwater_log::Error::NotCommitted { .. }) => {
                        beyond = Some((range, error));
                        continue;
                    }
                    Err(error) if error.grade() == Grade::Request => {
                        tracing::warn!(node = %member.node, %error, "a refill does not fit");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
                break;
            }
        }
        if let Some((range, error)) = beyond.filter(|_| !filled) {
            let (first, last) = (range.first_index, range.end_index - 1);
            return Err(Error::Dead(format!(
                "entries {first} to {last} are damaged here and purged elsewhere, and the manifest that stands for them reaches too far: {error}"
            )));
        }
        if !filled {
            tracing::error!(
                group = group_id.0,
                ?ranges,
                "no member has answered with what the log needs to open"
            );
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// What a member has for a range.
enum Help {
    Frames(Vec<Frame>),
    /// It has purged all of the range: this stands for it.
    Manifest(Box<Manifest>),
}

async fn help(peers: &dyn Peers, group_id: GroupId, member: &Member, range: DamagedRange) -> Option<Help> {
    match ask(peers, group_id, member, range).await {
        Ok(Refill::Frames(frames)) => Some(Help::Frames(frames)),
        Ok(Refill::Purged(first_index)) if first_index >= range.end_index => {
            let manifest = pull_manifest(peers, group_id, member).await.ok()?;
            Some(Help::Manifest(Box::new(manifest)))
        }
        Ok(_) | Err(_) => None,
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    runtime::blocking(work)
        .await
        .map_err(|err| Error::Raft(format!("opening the log: {err}")))
}
