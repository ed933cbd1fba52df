//! Real processes, real disks, real kernels, and everything that goes wrong with them.
//!
//! ```text
//! seed ─► deck of scenarios ─► nemesis ─► processes (kill, pause, restart)
//!                                    ├──► links     (cut, one way, black hole, reset, delay)
//!                                    └──► disks     (power cut, failing and slow syncs, rot, full)
//! workload over the client library ──► history ─► checker ─► verdict: pass, fail or void
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `scenarios` | what can be done, and how often |
//! | `nemesis`, `outage` | how it is done |
//! | `links`, `dialer` | a proxy in front of each node, whose rules hold for each direction of each link |
//! | `disks`, `power` | a file system for each node, and how its power is cut |
//! | `storage` | syncs that fail, crawl or lie; stored bytes that change |
//! | `logs` | an independent reader of the files, which compares all replicas at the end |
//! | `trimmed` | a second topic, whose logs are trimmed all the time |
//! | `self_test` | shows that a broken cluster is caught |
//! | `stage`, `run`, `ending` | the cluster under load; a run from the first record to the verdict |
//! | `scene` | one fault by name, for tests that say what must happen meanwhile |
//! | `sandbox` | how nothing is left behind |
//!
//! The seed fixes what is done, to whom it is meant, in which order and for how long. It does not fix the machine's
//! interleaving, nor who leads at a moment: a seed found to fail is repeated until it fails again.
//!
//! Deliberately absent: clocks that jump (the simulation has them), and reordering inside a device's cache (so has it).

mod dialer;
mod disks;
mod ending;
mod links;
mod logs;
mod nemesis;
mod outage;
mod power;
mod random;
mod run;
mod sandbox;
mod scenarios;
mod scene;
mod self_test;
mod stage;
mod storage;
mod tools;
mod trimmed;

pub use links::{Rule, Rules};
pub(crate) use random::Random;
pub use run::{Plan, Report, run};
pub use sandbox::{Stop, in_sandbox};
pub use scenarios::Amount;
pub use scene::{Scene, Set};
pub use self_test::{SelfTestError, self_test};
pub use stage::Load;
