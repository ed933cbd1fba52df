//! A verdict for people, and as JSON for programs.

use std::fmt;

use crate::history::seconds;
use crate::verdict::{Outcome, Place, Verdict, Violation};

impl Verdict {
    /// The verdict as indented JSON.
    pub fn to_json(&self) -> String {
        match serde_json::to_string_pretty(self) {
            Ok(json) => json,
            Err(error) => unreachable!("a verdict has neither maps with odd keys nor fallible parts: {error}"),
        }
    }

    fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "  sent      {} records in {} sends: {} acknowledged, {} refused, {} unknown ({} of them found)",
            counts.records_sent,
            counts.sends,
            counts.records_acknowledged,
            counts.records_refused,
            counts.records_unknown,
            counts.records_unknown_found,
        )?;
        writeln!(
            f,
            "  read      {} records in {} reads, {} reads failed, {} confirmed offsets",
            counts.records_read, counts.reads, counts.reads_failed, counts.offsets,
        )?;
        writeln!(
            f,
            "  at rest   {} records in {} scans, {} entries in {} dumps, {} promises",
            counts.records_scanned, counts.scans, counts.entries, counts.dumps, counts.promises,
        )
    }

    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.faults.is_empty() {
            return writeln!(f, "  faults    none");
        }
        for figure in &self.faults {
            let kind = format!("{:?}", figure.kind);
            write!(f, "  faults    {kind}: {} of {} bit", figure.bit, figure.count)?;
            for (evidence, amount) in &figure.effects {
                write!(f, ", {amount} {evidence}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_judged(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for judged in &self.judged {
            let id = format!("{:?}", judged.invariant);
            let name = judged.invariant.name();
            let result = match (judged.checked, judged.violated) {
                (_, violated @ 1..) => format!("VIOLATED {violated} times"),
                (0, 0) => "not judged".to_owned(),
                (checked, 0) => format!("holds, {checked} checked"),
            };
            writeln!(f, "  {id:<4} {name:<35} {result}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Pass => "PASS",
            Outcome::Fail => "FAIL",
            Outcome::Void => "VOID",
        };
        writeln!(
            f,
            "{word}  {}, seed {}, {}",
            self.title,
            self.seed,
            seconds(self.duration_ns)
        )?;
        self.write_figures(f)?;
        self.write_faults(f)?;
        self.write_judged(f)?;
        for reason in &self.void {
            writeln!(f, "  void: {reason}")?;
        }
        for violation in &self.violations {
            write!(f, "{violation}")?;
        }
        let listed = self.violations.len() as u64;
        let unlisted = self.violation_count().saturating_sub(listed);
        if unlisted > 0 {
            writeln!(f, "  … and {unlisted} violations more")?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:?} {}{}: {}",
            self.invariant, self.what, self.place, self.message
        )?;
        for proof in &self.events {
            writeln!(f, "       {}", proof.line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = &self.partition {
            write!(f, " in {partition}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " offset {offset}")?;
        }
        if let Some(index) = self.index {
            write!(f, " index {index}")?;
        }
        if let Some(replica) = self.replica {
            write!(f, " replica {replica}")?;
        }
        Ok(())
    }
}
