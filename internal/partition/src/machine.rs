//! What happens when entries are applied: very little.
//!
//! The log is the data. Committing has already moved the log's own state and the watermark (see `progress`), so
//! applying only keeps the membership, feeds commands to the group's machine and answers those who wait for it.
//! Batches arrive without their payload.
//!
//! The machine's state is saved while applying, at every `CHECKPOINT_ENTRIES`th entry, and becomes part of the manifest
//! (see `trim`). A start restores it from there and replays the commands behind it, in order.
//!
//! A snapshot is the log's manifest and nothing else (see `snapshot`); it is folded before openraft asks for it, so
//! building one is handing it out.
//!
//! Invariant: entries are applied in order; a round of them has no gap.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use highwater_log::{Body, Frame, Kind, Log, Manifest};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::mending::Mending;
use crate::progress::Progress;
use crate::runtime;
use crate::snapshot::{GroupSnapshot, SnapshotData, SnapshotMeta, Snapshots, membership_in, snapshot_of};
use crate::storage::read_frames;
use crate::trim::{CHECKPOINT_ENTRIES, Due};
use crate::types::{Applied, LogEntry, LogId, LogPayload, StoredMembership, TypeConfig, log_id};

/// Derived state of a control group, fed with committed commands in order (the catalog).
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command and answers it. Deterministic. Called off the Raft core.
    fn apply(&self, index: u64, command: Bytes) -> Bytes;
    /// The state as of the last applied index.
    fn checkpoint(&self) -> Bytes;
    /// Replaces the state.
    fn restore(&self, checkpoint: &[u8]) -> Result<(), String>;
}

/// The state machine of one replica.
pub(crate) struct GroupMachine {
    log: Log,
    machine: Option<Arc<dyn Machine>>,
    progress: Arc<Progress>,
    snapshots: Arc<Snapshots>,
    /// What has been applied that lets the log be trimmed.
    due: watch::Sender<Due>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl GroupMachine {
    /// Takes up the log's committed state; restores the machine from the manifest and replays all committed commands behind
    /// it. Waits for commands that are damaged.
    pub(crate) async fn recover(
        log: Log,
        machine: Option<Arc<dyn Machine>>,
        progress: Arc<Progress>,
        snapshots: Arc<Snapshots>,
        mending: &Mending,
    ) -> Result<GroupMachine, Error> {
        let (last, log_start, membership) =
            log.committed(|state| (state.last_entry(), state.log_start, membership_in(state)));
        if let Some(machine) = &machine {
            if let Some(manifest) = log.manifest() {
                restore(machine.as_ref(), &manifest)?;
            }
            if let Some(last) = last {
                replay(&log, mending, last.index, machine.as_ref()).await?;
            }
        }
        let due = match machine {
            None if log_start > 0 => Due::Records(log_start),
            _ => Due::Nothing,
        };
        Ok(GroupMachine {
            log,
            machine,
            progress,
            snapshots,
            due: watch::Sender::new(due),
            applied: last.map(log_id),
            membership: membership?,
        })
    }

    /// What has been applied that lets the log be trimmed, now and whenever there is more. Ends with the core.
    pub(crate) fn due(&self) -> watch::Receiver<Due> {
        self.due.subscribe()
    }

    fn apply_one(&mut self, entry: LogEntry) -> Result<Applied, io::Error> {
        let id = entry.log_id();
        let mut answer = Applied::Nothing;
        match entry.payload {
            LogPayload::Membership(membership) | LogPayload::StoredMembership(membership, _) => {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            LogPayload::Stored(frame) => match frame.header.kind {
                Kind::Command => answer = Applied::Reply(self.command(frame)?),
                Kind::Trim => self.trimmed(),
                Kind::Claim | Kind::CommitOffset | Kind::ForgetGroup => {
                    answer = Applied::Decided(frame.header.verdict);
                }
                _ => {}
            },
            _ => {}
        }
        self.applied = Some(id);
        self.save(id.index())?;
        Ok(answer)
    }

    /// The log start may have moved.
    fn trimmed(&self) {
        if self.machine.is_none() {
            let log_start = self.progress.watermark().log_start;
            self.due.send_replace(Due::Records(log_start));
        }
    }

    /// Saves the machine's state if it is to be saved behind the entry `index`.
    fn save(&self, index: u64) -> Result<(), Error> {
        let Some(machine) = &self.machine else { return Ok(()) };
        if !(index + 1).is_multiple_of(CHECKPOINT_ENTRIES) {
            return Ok(());
        }
        let saved = unpanicked(
            &format!("the machine panicked while it was saved behind entry {index}"),
            || machine.checkpoint(),
        )?;
        self.due.send_replace(Due::Checkpoint(index, saved));
        Ok(())
    }

    fn command(&self, frame: Frame) -> Result<Bytes, io::Error> {
        match &self.machine {
            Some(machine) => Ok(apply_command(machine.as_ref(), &frame)?),
            None => Ok(Bytes::new()),
        }
    }
}

/// An entry must come after what is applied, and within one round right behind it. (Where a round begins is openraft's
/// to say; its own suite leaves gaps there.)
fn check_order(applied: Option<LogId>, id: LogId, first: bool) -> Result<(), io::Error> {
    let Some(applied) = applied else { return Ok(()) };
    let follows = if first {
        id.index() > applied.index()
    } else {
        id.index() == applied.index() + 1
    };
    match follows {
        true => Ok(()),
        false => Err(io::Error::other(format!("{id} is to be applied behind {applied}"))),
    }
}

/// Feeds the machine with every command from the first entry that is there to `last_index`, inclusive.
async fn replay(log: &Log, mending: &Mending, last_index: u64, machine: &dyn Machine) -> Result<(), Error> {
    let mut next = log.floor().map_or(0, |id| id.index + 1);
    while next <= last_index {
        let frames = read_frames(log, mending, next, last_index + 1).await;
        let frames = frames.map_err(|err| Error::Raft(format!("replaying commands: {err}")))?;
        if frames.is_empty() {
            return Err(Error::Raft(format!(
                "entry {next} is missing below the commit point {last_index}"
            )));
        }
        next += frames.len() as u64;
        for frame in frames.iter().filter(|frame| frame.header.kind == Kind::Command) {
            apply_command(machine, frame)?;
        }
    }
    Ok(())
}

fn apply_command(machine: &dyn Machine, frame: &Frame) -> Result<Bytes, Error> {
    let index = frame.header.id.index;
    let command = match frame.body() {
        Ok(Body::Command(command)) => command,
        Ok(_) => return Err(Error::Raft(format!("entry {index} is not the command it says it is"))),
        Err(err) => return Err(Error::Raft(format!("entry {index}: {err}"))),
    };
    unpanicked(&format!("the machine panicked at entry {index}"), || {
        machine.apply(index, command)
    })
}

/// Puts the machine into the state that the manifest holds.
fn restore(machine: &dyn Machine, manifest: &Manifest) -> Result<(), Error> {
    let last = manifest.last();
    unpanicked(
        &format!("the machine panicked when it was restored to entry {last}"),
        || machine.restore(manifest.machine()),
    )?
    .map_err(|err| {
        Error::Raft(format!(
            "the machine's state behind entry {last} cannot be restored: {err}"
        ))
    })
}

/// A panic in the machine must end the core, as every other failure here does, not just one task of it.
fn unpanicked<T>(what: &str, call: impl FnOnce() -> T) -> Result<T, Error> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|_| Error::Raft(what.to_owned()))
}

impl RaftStateMachine<TypeConfig> for GroupMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut first = true;
        while let Some((entry, responder)) = entries.try_next().await? {
            check_order(self.applied, entry.log_id(), first)?;
            first = false;
            let answer = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(SnapshotBuilder(self.snapshots.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder(self.snapshots.clone())
    }

    /// Idempotent: a manifest at or below the floor changes nothing.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, manifest: SnapshotData) -> Result<(), io::Error> {
        let restored = self
            .machine
            .as_ref()
            .map(|machine| restore(machine.as_ref(), &manifest));
        let replaced = match restored.transpose() {
            Ok(_) => replace(self.log.clone(), manifest).await,
            Err(error) => Err(error.into()),
        };
        self.snapshots.truncations().replaced(replaced.is_ok());
        replaced?;
        self.progress.publish();
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<GroupSnapshot>, io::Error> {
        Ok(self.snapshots.current().map(snapshot_of).transpose()?)
    }
}

/// Puts a manifest in the place of the log.
async fn replace(log: Log, manifest: SnapshotData) -> Result<(), io::Error> {
    let (done, installed) = oneshot::channel();
    let install = move || {
        let done = Box::new(move |result| drop(done.send(result)));
        log.install(Arc::unwrap_or_clone(manifest), done)
    };
    let queued = runtime::blocking(install).await.map_err(io::Error::other)?;
    queued.map_err(io::Error::other)?;
    match installed.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the log dropped a manifest without installing it")),
    }
}

/// Hands out the manifest that was folded before openraft was told to build a snapshot.
pub(crate) struct SnapshotBuilder(Arc<Snapshots>);

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<GroupSnapshot, io::Error> {
        match self.0.current() {
            Some(manifest) => Ok(snapshot_of(manifest)?),
            None => Err(io::Error::other("a snapshot was asked for, but no floor was chosen")),
        }
    }
}
