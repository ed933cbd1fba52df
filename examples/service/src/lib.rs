//! What a service that lives on the log is made of: the part that the example applications have in common.
//!
//! Half of it is what every small service needs and what says nothing about a log: settings from flags, environment and a file
//! ([`settings`]), a log in text or JSON ([`logs`]), metrics and health ([`telemetry`]), clients that have limits ([`connections`]), an end that
//! loses nothing ([`serving`]), and a cluster that is ready for it ([`access`]).
//!
//! The other half is three ways to use a log, each small enough to be read before it is used:
//!
//! * [`View`]: a state is what the records of a topic make of it. It is rebuilt at every start, follows the topic, and can be waited for
//!   (read your own writes).
//! * [`Writer`]: a decision is made on that state, and its records are appended only if nobody has appended anything meanwhile. So two
//!   servers that race never both win.
//! * [`transform`]: each record of one topic is handled once, in order, and what comes of it is appended to another topic: exactly once,
//!   also when a worker is killed at any moment, or is thought dead and is not.
//!
//! Deliberately absent: snapshots of a state (a state that is too large to be rebuilt keeps itself, with its positions, in a database: see
//! the application `school`), and transactions over several partitions, which Highwater does not have.

pub mod access;
pub mod connections;
mod handled;
pub mod logs;
pub mod serving;
pub mod settings;
pub mod telemetry;
pub mod topics;
pub mod transform;
pub mod version;
mod view;
mod writer;

pub use view::{Behind, Lost, OpenError, Start, State, View};
pub use writer::{Declined, WAITING_MAX, Writer};
