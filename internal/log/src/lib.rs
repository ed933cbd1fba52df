//! The segmented log: one directory per replica, in which everything that its Raft group agreed on stands once.
//!
//! **A log** is a list of entries in segment files. Entries are framed, checksummed and chained ; a pure function, the
//! *fold*, gives each its offset and its verdict ([`State`]). The Raft log is the data: there is no second store.
//!
//! **One writer** per data directory ([`DiskWriter`]) makes group commit: everything that all logs queued is written and synced in one
//! round, then the callbacks run in order. Appends never wait for the disk; what is not on disk yet is read from the tail cache.
//!
//! **Opening** replays what lies behind the checkpoint and cuts a torn tail behind the mark. **Damage** before it has two grades: committed entries are
//! put back from any other replica, in place ([`Log::refill`], [`Repair`]); anything else that was certain and is lost makes the replica dead.
//!
//! **Trims** remove the front by whole segments, behind a [`Manifest`] of what they said.
//!
//! Invariants: a callback is called with `Ok` only when its entries are synced and found again by every later start; offsets
//! are dense; a frame has the same bytes on every replica; a reader never sees a hole, nor frames from both sides of a truncation.
//!
//! Deliberately absent: Raft, network, async, wall clocks and randomness (all time comes from a [`Clock`], but for how long rounds
//! take, if somebody wants to know; all I/O goes through a [`Disk`]); who fetches what from whom, and when. The README specifies the bytes.

mod assess;
mod cache;
mod checkpoint;
mod clock;
mod create;
mod damage;
mod directory;
pub mod disk;
mod entry;
mod error;
mod extent;
mod fold;
mod format;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod hard_state;
mod ids;
mod index;
pub mod inspect;
mod log;
mod manifest;
mod mend;
pub mod mutants;
mod reader;
mod recovery;
mod refill;
mod repair;
mod round;
mod scan;
mod scrub;
mod sealed;
mod segment;
mod settle;
mod space;
mod survey;
mod tail;
mod take_over;
mod trim;
mod writer;

pub use cache::{CacheReads, TailCache};
pub use clock::{Clock, SystemClock};
pub use damage::DamagedRange;
pub use disk::{Disk, DiskFile, RealDisk};
pub use entry::{Batch, Body, Decision, Entry, Frame, GROUP_NAME_BYTES_MAX, Header, Kind, Verdict, Vote};
pub use error::{Error, FormatError, Grade};
pub use fold::{GROUPS_MAX, GroupState, State};
pub use format::crc32c;
pub use format::frame::{DETAIL_BYTES_MAX, HEADER_BYTES, PAYLOAD_BYTES_MAX};
pub use ids::{ClusterId, EntryId, GroupId, Identity, PrincipalDigest, ProducerId, ReplicaId};
pub use log::{DECISIONS_KEPT, Log, LogConfig, OpenLog, Opened};
pub use manifest::{MANIFEST_BYTES_MAX, Manifest};
pub use repair::Repair;
pub use scrub::{Scrubbed, Verified};
pub use space::{RESERVE, Space, SpaceLimits};
pub use take_over::take_over;
pub use writer::{Callback, DiskWriter, OpenRound, RoundDone};
