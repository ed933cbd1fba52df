//! The rules of votes, memory, refill and new ids as a small model, checked in every state it can reach.
//!
//! The simulation (`tests/sim`) runs the real code and tries some of what can happen; this model is small enough to try *all* of it, within
//! bounds: so many terms, entries and crashes. It knows one group: three replicas and a fourth id that can take one's place. What it
//! holds is Raft's votes and commits, and our rules beside them (DESIGN sections 5 and 7):
//!
//! * a replica whose directory is gone, or whose vote or log end is lost, is dead and never votes again;
//! * one that starts asks the others what they remember of it, and is dead if that is more than its disk holds: so an old copy that was
//!   put back never votes;
//! * one with damage among committed entries votes, but neither campaigns nor serves the range, and takes what is committed elsewhere
//!   if it follows on by chain;
//! * the catalog gives a place to a new id, which learns, and becomes a voter by a change that needs majorities of both sides.
//!
//! What must hold: a term has one leader; what was committed is never missing from a later leader nor replaced; what is served was
//! committed; and no replica is declared dead that has lost nothing. Each rule is also broken on purpose, and the checker must find
//! what comes of it ([`CASES`]).
//!
//! Left out, because it is the simulation's: lost syncs, messages that arrive late, time, pre-votes, trims. Harm comes to
//! replica 0 only, once: the others are like it.

mod cases;
mod disk;
mod few;
mod rules;
mod steps;
mod world;

pub use cases::{CASES, Case, Expected, Found};
pub use disk::{Disk, End, Entry, Id, Ids, Slot, Voters, What};
pub use few::{Few, ITEMS_MAX};
pub use rules::{Bounds, Mistake, StayedUp};
pub use steps::{Rules, Step};
pub use world::{Broken, Harm, Life, Replica, Seen, World};
