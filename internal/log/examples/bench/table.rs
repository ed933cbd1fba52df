//! The table of results, and how a figure is made of several runs.

use std::fmt;

/// How often each figure is measured, the log and its floor in turns.
pub(crate) const RUNS: usize = 5;

/// What is wanted of a figure.
pub(crate) enum Goal {
    /// Something to reach on a quiet machine; missing it is reported.
    Aim { met: bool, what: String },
    /// Something that holds on any machine; missing it fails the run.
    Limit { met: bool, what: String },
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 4]>,
    broken: bool,
}

impl Table {
    pub(crate) fn row(&mut self, what: &str, log: String, floor: String, goal: Goal) {
        let (met, wanted, word) = match goal {
            Goal::Aim { met, what } => (met, what, "missed"),
            Goal::Limit { met, what } => (met, what, "BROKEN"),
        };
        self.broken |= word == "BROKEN" && !met;
        let wanted = format!("{wanted}: {}", if met { "yes" } else { word });
        println!("{what}: {log}; {floor}; {wanted}");
        self.rows.push([what.to_owned(), log, floor, wanted]);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "| | the log | floor of the same run | wanted |")?;
        writeln!(out, "|---|---|---|---|")?;
        for [what, log, floor, wanted] in &self.rows {
            writeln!(out, "| {what} | {log} | {floor} | {wanted} |")?;
        }
        Ok(())
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
