//! Judges a history that was saved: `judge FILE`. Only the evidence counts; what a run had to show to be valid is known
//! to whoever made it.

use highwater_verify::{History, Requirements, check};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: judge FILE")?;
    let history = History::load(file.as_ref())?;
    let verdict = check(&history, &Requirements::default());
    print!("{verdict}");
    match verdict.violation_count() {
        0 => Ok(()),
        violations => Err(format!("{violations} violations").into()),
    }
}
