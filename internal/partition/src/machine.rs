//! What happens when entries are applied: very little.
//!
//! The log is the data. Committing has already moved the log's own state and the watermark (see `progress`), so
//! applying only keeps the membership, feeds commands to the group's machine and answers those who wait for it.
//! Batches arrive without their payload.
//!
//! The machine's state is not persisted yet. Because no log is trimmed yet, it is rebuilt at start from all commands
//! up to the commit point, in order; when logs are trimmed, the manifest will carry the machine's checkpoint.
//!
//! A snapshot here is the state at the last applied entry, kept in memory. Nothing in this crate asks for one or
//! sends one: a log that cannot be trimmed never needs it.
//!
//! Invariant: entries are applied in order; a round of them has no gap.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use highwater_log::{Body, Frame, Kind, Log};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};

use crate::codec::membership as membership_codec;
use crate::error::Error;
use crate::storage::READ_BYTES_MAX;
use crate::types::{CommittedLeaderId, LogEntry, LogId, LogPayload, NodeName, StoredMembership, TypeConfig, log_id};

/// Derived state of a control group, fed with committed commands in order (the catalog).
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command and answers it. Deterministic. Called off the Raft core.
    fn apply(&self, index: u64, command: Bytes) -> Bytes;
    /// The state as of the last applied index.
    fn checkpoint(&self) -> Bytes;
    /// Replaces the state.
    fn restore(&self, checkpoint: &[u8]) -> Result<(), String>;
}

pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, NodeName>;
pub(crate) type GroupSnapshot = Snapshot<CommittedLeaderId, u64, NodeName, Bytes>;

/// The state machine of one replica.
pub(crate) struct GroupMachine {
    machine: Option<Arc<dyn Machine>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<GroupSnapshot>,
}

impl GroupMachine {
    /// Takes up the log's committed state and replays all committed commands into the machine. Reads the disk.
    pub(crate) fn recover(log: &Log, machine: Option<Arc<dyn Machine>>) -> Result<GroupMachine, Error> {
        let (last, stored) = log.committed(|state| (state.last_entry(), state.membership.clone()));
        let membership = match stored {
            Some((id, bytes)) => StoredMembership::new(Some(log_id(id)), membership_codec::decode(bytes)?),
            None => StoredMembership::default(),
        };
        if let (Some(machine), Some(last)) = (&machine, last) {
            replay(log, last.index, machine.as_ref())?;
        }
        Ok(GroupMachine {
            machine,
            applied: last.map(log_id),
            membership,
            snapshot: None,
        })
    }

    fn apply_one(&mut self, entry: LogEntry) -> Result<Bytes, io::Error> {
        let id = entry.log_id();
        let mut answer = Bytes::new();
        match entry.payload {
            LogPayload::Membership(membership) | LogPayload::StoredMembership(membership, _) => {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            LogPayload::Stored(frame) if frame.header.kind == Kind::Command => {
                answer = self.command(frame)?;
            }
            _ => {}
        }
        self.applied = Some(id);
        Ok(answer)
    }

    fn command(&self, frame: Frame) -> Result<Bytes, io::Error> {
        match &self.machine {
            Some(machine) => Ok(apply_command(machine.as_ref(), &frame)?),
            None => Ok(Bytes::new()),
        }
    }

    fn snapshot_now(&self) -> GroupSnapshot {
        GroupSnapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            snapshot: self
                .machine
                .as_ref()
                .map(|machine| machine.checkpoint())
                .unwrap_or_default(),
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

/// Feeds the machine with every command from the start of the log to `last_index`, inclusive.
fn replay(log: &Log, last_index: u64, machine: &dyn Machine) -> Result<(), Error> {
    let mut next = log.floor().map_or(0, |id| id.index + 1);
    while next <= last_index {
        let frames = log.read(next, last_index + 1, READ_BYTES_MAX)?;
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

/// A panic in the machine must end the core, as every other failure here does, not just one task of it.
fn apply_command(machine: &dyn Machine, frame: &Frame) -> Result<Bytes, Error> {
    let index = frame.header.id.index;
    let command = match frame.body() {
        Ok(Body::Command(command)) => command,
        Ok(_) => return Err(Error::Raft(format!("entry {index} is not the command it says it is"))),
        Err(err) => return Err(Error::Raft(format!("entry {index}: {err}"))),
    };
    std::panic::catch_unwind(AssertUnwindSafe(|| machine.apply(index, command)))
        .map_err(|_| Error::Raft(format!("the machine panicked at entry {index}")))
}

impl RaftStateMachine<TypeConfig> for GroupMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = BuiltSnapshot;

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

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<BuiltSnapshot> {
        let snapshot = self.snapshot_now();
        self.snapshot = Some(snapshot.clone());
        Some(BuiltSnapshot(snapshot))
    }

    async fn get_snapshot_builder(&mut self) -> BuiltSnapshot {
        BuiltSnapshot(self.snapshot_now())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        if let Some(machine) = &self.machine {
            machine.restore(&snapshot).map_err(io::Error::other)?;
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(GroupSnapshot {
            meta: meta.clone(),
            snapshot,
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<GroupSnapshot>, io::Error> {
        Ok(self.snapshot.clone())
    }
}

/// A snapshot, taken when its builder was asked for.
pub(crate) struct BuiltSnapshot(GroupSnapshot);

impl RaftSnapshotBuilder<TypeConfig> for BuiltSnapshot {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<GroupSnapshot, io::Error> {
        Ok(self.0.clone())
    }
}
