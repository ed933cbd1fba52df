//! What everybody says that there is, and whether they agree.
//!
//! Figures that belong together stand in one row, with who said them. Whoever reads a log may still be reading, so a row is asked for until
//! it agrees, or until the patience is at its end; then it is shown as it is.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use highwater_tests::{TestCluster, run};

use crate::Result;

/// For how long those who read the log may be behind.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before something is asked, or tried, again.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);
/// How long a command may take, also when it has to try again.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_secs(180);

/// A figure, and who says so.
pub(crate) type Figure = (&'static str, u64);

/// The rows that do not agree are kept for the verdict.
#[derive(Debug, Default)]
pub(crate) struct Account {
    application: &'static str,
    /// Shown before its first row.
    heading: &'static str,
    disagreements: Vec<String>,
}

impl Account {
    /// What follows is about that application.
    pub(crate) fn begin(&mut self, application: &'static str) {
        self.application = application;
        self.heading = application;
    }

    /// A row of figures that must all be the same, and more than none.
    ///
    /// # Errors
    /// Those of asking.
    pub(crate) fn same(&mut self, what: &str, ask: impl FnMut() -> Result<Vec<Figure>>) -> Result<()> {
        let agree = |figures: &[Figure]| figures.iter().all(|figure| figure.1 == figures[0].1 && figure.1 > 0);
        self.row(what, ask, agree)
    }

    /// A row of figures that must all be zero.
    ///
    /// # Errors
    /// Those of asking.
    pub(crate) fn none(&mut self, what: &str, ask: impl FnMut() -> Result<Vec<Figure>>) -> Result<()> {
        self.row(what, ask, |figures| figures.iter().all(|figure| figure.1 == 0))
    }

    fn row(
        &mut self,
        what: &str,
        mut ask: impl FnMut() -> Result<Vec<Figure>>,
        agree: impl Fn(&[Figure]) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut figures = ask()?;
        while !agree(&figures) && Instant::now() < until {
            sleep(PAUSE);
            figures = ask()?;
        }
        let said: Vec<String> = figures.iter().map(|(who, count)| format!("{count} {who}")).collect();
        let said = said.join(", ");
        let mark = if agree(&figures) { "" } else { "   <-- WRONG" };
        println!("       {:9} {what}: {said}{mark}", self.heading);
        self.heading = "";
        if !agree(&figures) {
            self.disagreements.push(format!("{}, {what}: {said}", self.application));
        }
        Ok(())
    }

    /// Whether all rows agree.
    ///
    /// # Errors
    /// Those that do not.
    pub(crate) fn verdict(self) -> Result<()> {
        match self.disagreements.is_empty() {
            true => Ok(()),
            false => Err(format!("the account does not agree: {}", self.disagreements.join("; "))),
        }
    }
}

/// All records of a topic, as lines of that format.
///
/// # Errors
/// If they cannot be read.
pub(crate) fn records(cluster: &TestCluster, profile: &Path, topic: &str, format: &str) -> Result<Vec<String>> {
    let arguments = [
        "consume",
        topic,
        "--from",
        "beginning",
        "--exit-at-end",
        "--format",
        format,
    ];
    let consumed = run(&mut cluster.command_as(profile, &arguments), COMMAND_DEADLINE);
    if !consumed.status.success() {
        return Err(format!("topic {topic} cannot be read: {}", consumed.stderr.trim()));
    }
    Ok(consumed.stdout().lines().map(str::to_owned).collect())
}

/// How many there are.
pub(crate) fn count<T>(of: &[T]) -> u64 {
    of.len() as u64
}
