//! One Raft group over one log: the only crate that sees openraft.
//!
//! A *partition* of a topic and the *catalog* are the same thing here: a group of replicas that agree on one log. This
//! crate drives openraft over `highwater-log`, carries its messages over whatever `Peers` is (the node's peer link, a
//! simulation), and offers a [`Partition`]: propose, read, watch, change the membership.
//!
//! # The way of a batch
//!
//! `Partition::propose` takes its share of what may be in flight and hands the batch to openraft, which appends it to
//! the leader's log (`storage`) and sends it to each follower through a pipelined stream (`append_stream`); the
//! follower checks who speaks (`serve`), appends, and answers when it is synced. At a majority openraft commits: the
//! log's commit point and the watermark move (`progress`), and the producer is answered with the log's own verdict
//! (`responder`). Applying (`machine`) is left with memberships and machine commands.
//!
//! # What holds
//!
//! * A proposal is answered exactly once, with *decided*, *not applied* or *unknown*; the second means certainly not
//!   in the log.
//! * The watermark is raised before anyone is answered, never goes back while a replica runs, and never shows what is
//!   not committed.
//! * A follower appends the leader's very frames. One whose fold decides otherwise stops with a report.
//! * Nothing blocks on the Raft core but short locks; disk reads happen on the blocking threads.
//! * What waits is bounded: bytes and proposals in flight per group, requests and bytes unanswered per follower,
//!   entries per message. A shutdown ends in seconds, also if peers or the disk do not answer.
//! * Leadership is handed over (`hand_over`) only to a voter that is there, and never in the middle of a change of voters.
//! * A replica knows since when it has not heard from its leader, and how far that is ahead (`contact`).
//! * A core that ends is noticed at once: `Partition::stopped` says why.
//!
//! # Beside the way
//!
//! * Trims (`trim`): a committed `Trim` lets each replica purge its log behind a manifest, which is openraft's snapshot
//!   (`snapshot`). Who is behind the floor is brought up with it (`install`). A group with a machine trims itself.
//! * Promises (`memory`): before its core runs, a replica asks the others whether its disk still holds what it promised.
//! * Damage (`mending`, `scrub`, `open`): entries that are damaged here come back from any member that has them. Meanwhile
//!   whoever needs one waits, a leader steps aside, and a reader is sent elsewhere. What no member has is reported.
//! * Catching up (`catch_up`): who lacks much is sent it at a limited pace, over all groups of a node. Who has caught up
//!   (`caught_up`) may get a vote or the leadership.
//! * Starts (`unstarted`): whatever others need of a replica for their own starts it gives before its core runs.
//! * A majority that is gone for good (`only_member`): a replica can be made the only member of its group, by hand.
//! * A full disk: nothing new is proposed, a follower takes no entries; votes, heartbeats, reads, manifests and trims go on.
//!
//! # Not here
//!
//! Heartbeats coalesced over groups: that is the peer link's (`Peers::heartbeat`). The membership is changed, and the log
//! trimmed, when asked; who decides to ask is the catalog's business. So is what becomes of a dead replica: here it only
//! does not run. Clocks and randomness are openraft's and the log's; this crate reads neither.

mod append_stream;
mod catch_up;
mod caught_up;
mod codec;
mod config;
mod confirm;
mod contact;
mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod groups;
mod hand_over;
mod install;
mod lag;
mod life;
mod machine;
mod memory;
mod mending;
mod network;
mod only_member;
mod open;
mod partition;
mod peers;
mod progress;
mod read;
mod responder;
mod runtime;
mod scrub;
mod serve;
mod snapshot;
mod stages;
mod start;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod trim;
mod truncation;
mod types;
mod unstarted;

pub use catch_up::CatchUpPace;
pub use config::Timers;
pub use contact::Contact;
pub use error::{CommandError, Error, ReadError};
pub use groups::{Claimed, GroupError};
pub use highwater_log as log; // the node passes ids, batches and disks through; it never touches a Log itself
pub use machine::Machine;
pub use only_member::{LastEntry, become_only_member};
pub use partition::Partition;
pub use peers::{Lane, PeerError, PeerStream, Peers};
pub use progress::Watermark;
pub use read::StoredBatch;
pub use responder::{Answer, NotApplied};
#[cfg(highwater_simulation)]
pub use runtime::simulation;
pub use scrub::ScrubPace;
pub use stages::{Stage, StageDone, Stages, Trace};
pub use start::GroupOptions;
pub use status::{Role, Status, VoterChange};
pub use types::Member;
pub use unstarted::Unstarted;
