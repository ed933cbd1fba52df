//! A harness that has never failed proves nothing: here it must.

use std::fmt;
use std::path::PathBuf;

use highwater_verify::{Invariant, Requirements, Verdict, check};

use super::ending::finish;
use super::run::{BETWEEN_FAULTS, Missing, Plan, in_words};
use super::sandbox::{Place, Stop};
use super::scenarios::Amount;
use super::stage::{NODES, Setting, Stage};
use super::storage::Syncs;

/// Why the self-test did not succeed.
#[derive(Debug)]
pub enum SelfTestError {
    /// A tool or a right is missing on this machine.
    NotHere(String),
    /// The broken cluster was not caught.
    NotCaught(String),
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere(why) => write!(f, "it cannot be tried here: {why}"),
            Self::NotCaught(why) => write!(f, "not caught: {why}"),
        }
    }
}

/// All nodes run on disks that lie about syncs, and all lose power at once: acknowledged records must be reported as lost.
///
/// # Errors
/// If that was not reported, or could not be tried.
pub fn self_test(seed: u64, stop: Stop) -> Result<Verdict, SelfTestError> {
    let place = Place::make().map_err(SelfTestError::NotHere)?;
    let missing = Missing::find(&place);
    if let Some(why) = missing.images.or(missing.strace) {
        return Err(SelfTestError::NotHere(why));
    }
    let verdict = lose_everything(seed, place, stop).map_err(SelfTestError::NotCaught)?;
    if verdict.violated().contains(&Invariant::I1) {
        Ok(verdict)
    } else {
        let why = format!("the loss of acknowledged records was not noticed:\n{verdict}");
        Err(SelfTestError::NotCaught(why))
    }
}

fn lose_everything(seed: u64, place: Place, stop: Stop) -> Result<Verdict, String> {
    let plan = Plan {
        seed,
        amount: Amount::Short,
        acknowledged_min: 1,
        evidence: PathBuf::new(),
    };
    let setting = Setting::of_chaos(seed, plan.load(), true);
    let mut stage = Stage::set(&setting, place, stop).map_err(in_words)?;
    let all: Vec<usize> = (0..NODES).collect();
    let played = stage.wait_progress(BETWEEN_FAULTS, "before the lies").and_then(|()| {
        stage.attach(&all, Syncs::Lie)?;
        stage.wait_progress(BETWEEN_FAULTS, "while syncs lie")?;
        stage.cut_power_now(&all, false)?;
        stage.restore_power(&all)
    });
    played.map_err(in_words)?;
    let mut problems = Vec::new();
    let finished = finish(&mut stage, plan.load(), &mut problems).map_err(in_words)?;
    problems.iter().for_each(|problem| println!("  seen too: {problem}"));
    Ok(check(&finished.history, &Requirements::default()))
}
