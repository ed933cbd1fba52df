//! The checker against histories that it must pass and histories that it must not.
//!
//! * `minimal`: for each invariant the smallest bad histories, each flagged under exactly that invariant.
//! * `honest`: histories of a reference log with lagging replicas, trims, elections, restarts and unknown outcomes that
//!   land late or never; none of them may raise an alarm.
//! * `mutated`: the same histories with one lie in them, each flagged under the right invariant.
//! * `validity`: runs that prove nothing.
//! * `stored`: the file form, and a golden file that guards it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod honest;
mod minimal;
mod mutated;
mod reference;
mod replica_cases;
mod script;
mod size;
mod stored;
mod validity;
