//! Did the log keep its promises? Histories of what clients and replicas saw, and the one checker that judges them.
//!
//! ```text
//! simulation ─┐
//! make chaos ─┼─► History (events, faults, replica evidence) ─► check ─► Verdict ─► report, JSON
//! prove ──────┘                                                 └─ pass · fail · void
//! ```
//!
//! * [`history`] is the evidence: what each client asked and was told, what each replica promised and holds, which faults
//!   there were and how they bit. It is recorded by whoever drives the system, never by the system itself.
//! * [`check`] is a pure function from the evidence to a [`Verdict`]. Because a log answers with offsets, judging needs no
//!   search: it sorts and scans, and a million records take seconds.
//! * [`value`] makes record values that name themselves, so that whatever comes back can be traced to its send.
//! * `workload` (feature `workload`) drives a real cluster through the client library and records what that said.
//!
//! ```
//! use highwater_verify::history::{History, Numbering, RecordId, Run, Scan, Seen, Send, SendOutcome, Span};
//! use highwater_verify::{Requirements, check, value};
//!
//! let id = RecordId { producer: 0, number: 0 };
//! let digest = value::digest(&value::make_value(id, 100));
//! let mut history = History::new(Run { title: "one record".to_owned(), seed: 1, ..Run::default() });
//! let send = Send {
//!     span: Span { process: 0, invoked_ns: 10, returned_ns: 20 },
//!     partition: 0,
//!     producer: 0,
//!     numbering: Numbering::Wire,
//!     sequence: 0,
//!     first_number: 0,
//!     outcome: SendOutcome::Appended { base_offset: 0 },
//! };
//! history.record_send(send, &[digest]);
//! let scan = Scan {
//!     span: Span { process: 1, invoked_ns: 30, returned_ns: 40 },
//!     partition: 0,
//!     node: 0,
//!     log_start: 0,
//!     end: 1,
//! };
//! history.record_scan(scan, [Seen { offset: 0, id, digest }]);
//! let verdict = check(&history, &Requirements::default());
//! assert!(verdict.passed(), "{verdict}");
//! ```
//!
//! # Three results
//!
//! A run *fails* if one violation is proven. It is *void* if nothing was violated but the run could not have shown it:
//! faults that never bit, too few operations, no final scan. Only otherwise it *passes*. In the same spirit a send has
//! three outcomes: appended, refused (certainly never in the log), and unknown, which may be in the log once or never.
//!
//! # Invariants
//!
//! [`Invariant`] lists them, I1 to I18. The rule of each stands with the code that judges it, in the modules of the checker.
//! Deliberately absent: causes (the checker says what is wrong and shows the events that prove it, not why); and any clock,
//! randomness or network in the core.

mod checker;
pub mod history;
mod report;
pub mod value;
mod verdict;
#[cfg(feature = "workload")]
pub mod workload;

pub use checker::{Requirements, check};
pub use history::History;
pub use verdict::{Counts, FaultFigure, Invariant, Judged, Outcome, Place, Proof, Verdict, Violation};
