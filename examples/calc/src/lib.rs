//! Questions and answers over topics: a calculator whose prompt and whose back ends know nothing of each other.
//!
//! ```text
//! calc connect ─► command (key: the session) ─► calc backend, one or several ─► result ─► calc connect
//!                        └────────────────────────► calc log ◄──────────────────────┘
//! ```
//!
//! A command is a record of topic `command`, and its one result a record of the same partition of topic `result`. Nothing else stands
//! between the two, so a back end may die, and a prompt may wait for one that is only started later. The words of both are in [`wire`].
//!
//! [`command`] reads and evaluates, [`primes`] is what takes its time, [`backend`] answers, [`session`] asks, [`connect`] is the prompt,
//! and [`journal`] and [`recorder`] write everything down.
//!
//! Deliberately absent: results for a prompt that has ended (they are in the log), and expressions: a command is a word and its numbers.

pub mod access;
pub mod backend;
pub mod command;
pub mod connect;
pub mod input;
pub mod journal;
pub mod primes;
pub mod recorder;
pub mod service;
pub mod session;
pub mod wire;
