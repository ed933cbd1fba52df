//! How a command ends: the exit codes, and the one shape in which every failure is told.
//!
//! A failure is one `error:` line that says what and where, then, if there is something to do about it, one
//! `hint:` line. Scripts decide by the exit code alone; [`Code`] is the table, and `highwater --help` prints it.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit codes. Their numbers are part of the command's interface and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The reader of the output is gone (`| head`): not a failure, and nobody is there to be told.
    OutputClosed = 0,
    /// Something failed that no other code names.
    Failure = 1,
    /// The command line is wrong. The argument parser uses the same number.
    Usage = 2,
    /// A topic, partition, offset or node does not exist.
    NotFound = 3,
    /// The cluster refused: not permitted, exists already, too large, not valid.
    Refused = 4,
    /// Nobody reachable, no quorum, or the deadline passed.
    Unavailable = 5,
    /// Configuration, certificates, data directory or port are not usable.
    Setup = 6,
}

/// The table as `--help` shows it.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong command line
  3  not found: topic, partition, offset or node
  4  refused: not permitted, exists already, too large, not valid
  5  unavailable: nobody reachable, no quorum, deadline passed
  6  setup: configuration, certificate, data directory or port not usable";

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What commands return.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            hint: None,
        }
    }

    pub(crate) fn setup(message: impl Display) -> Self {
        Self::new(Code::Setup, message)
    }

    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Writes the failure to stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.code != Code::OutputClosed {
            // Nothing can be done when stderr is gone as well; the exit code still tells.
            let _ = io::stderr().write_all(self.text().as_bytes());
        }
        ExitCode::from(self.code as u8)
    }

    fn text(&self) -> String {
        let message = one_line(&self.message);
        match &self.hint {
            Some(hint) => format!("error: {message}\nhint: {}\n", one_line(hint)),
            None => format!("error: {message}\n"),
        }
    }
}

/// Messages of others may span lines; the promise is one line each.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Failing to write stdout: quiet if the reader left, an ordinary failure otherwise.
pub(crate) fn output_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(Code::OutputClosed, "the reader of the output is gone");
    }
    Failure::new(Code::Failure, format!("cannot write the output: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_error_line_and_one_hint_line() {
        let failure = Failure::setup("first\n  second").hint("do this\nor that");
        assert_eq!(failure.text(), "error: first; second\nhint: do this; or that\n");
    }

    #[test]
    fn the_help_names_every_code() {
        for code in [
            Code::Failure,
            Code::Usage,
            Code::NotFound,
            Code::Refused,
            Code::Unavailable,
            Code::Setup,
        ] {
            let line = format!("\n  {}  ", code as u8);
            assert!(EXIT_CODES_HELP.contains(&line), "{code:?} is not in the help");
        }
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        let closed = output_failure(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.code as u8, 0);
        let full = output_failure(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.code, Code::Failure);
    }
}
