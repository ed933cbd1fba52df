//! The log of a service: on standard error, for people or for machines.

use std::fmt::Display;
use std::process::ExitCode;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log. `filter` is a level, or what `tracing_subscriber` calls directives (`info,tower=warn`).
///
/// # Errors
/// A filter that cannot be read, in words; a second call in one process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log-level {filter:?}: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| error.to_string())
}

/// How a service has ended: an error is the last line of its log, whatever that looks like, and the process's status. Without a log it is told
/// as [`told`] does.
#[must_use]
pub fn ended(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Err(error) if tracing::dispatcher::has_been_set() => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
        result => told(result),
    }
}

/// How a command has ended: an error is a line on standard error that begins with `error: `.
#[must_use]
pub fn told(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
