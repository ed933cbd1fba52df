//! Opening a replica's log, if need be with the help of the others.
//!
//! A log with damage among entries that have to be folded cannot be opened; its vote and its end are whole, so once the
//! entries are put back from any member that has them it opens as if nothing had happened. Meanwhile the replica is just
//! away, as far as its group is concerned. What is whole in a log that cannot be opened yet is there for the others: all of
//! them may be in the same state (see `unstarted`).
//!
//! If the others have purged those entries, their manifest stands for them. One that reaches beyond what is known to be committed here would
//! have to be installed, which drops the log; but what this log has behind that point may have been acknowledged, and cannot be looked at.
//! Such a replica is dead.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_log::{DamagedRange, Frame, Grade, GroupId, Log, Manifest, OpenLog, Opened, Repair};

use crate::codec::recall::Refill;
use crate::error::Error;
use crate::mending::{ask, pull_manifest};
use crate::peers::Peers;
use crate::runtime;
use crate::types::Member;
use crate::unstarted::{Unstarted, with};

/// How soon to ask again when nobody had anything.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Unstarted {
    /// Opens the log; mends it first, from `members`, if it cannot be opened otherwise. That takes as long as it takes for one
    /// of them to answer that has what is missing. `options` makes the options of an opening, as often as one is tried.
    /// `Error::is_dead` tells whether the replica must be replaced.
    pub async fn open(
        &self,
        options: impl Fn() -> OpenLog + Send + Sync + Clone + 'static,
        members: &[Member],
        peers: &dyn Peers,
    ) -> Result<Log, Error> {
        let group_id = options().identity.group_id;
        loop {
            let make = options.clone();
            let repair = match off_thread(move || Log::open_or_repair(make())).await?? {
                Opened::Log(log) => return Ok(self.opened(log)),
                Opened::Repair(repair) => repair,
            };
            let ranges = repair.damage();
            tracing::warn!(group = group_id.0, ?ranges, "the log is mended before it is opened");
            let repair = Arc::new(Mutex::new(*repair));
            self.note_damaged(repair.clone());
            mend(&repair, group_id, members, peers).await?;
            if let Some(log) = with(&repair, Repair::take_log).await? {
                return Ok(self.opened(log));
            }
        }
    }

    fn opened(&self, log: Log) -> Log {
        self.note_open(log.clone());
        log
    }
}

async fn mend(
    repair: &Arc<Mutex<Repair>>,
    group_id: GroupId,
    members: &[Member],
    peers: &dyn Peers,
) -> Result<(), Error> {
    loop {
        let ranges = with(repair, |repair| repair.damage()).await?;
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
                let put_back = with(repair, move |repair| match help {
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
