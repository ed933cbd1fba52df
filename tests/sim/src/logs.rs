//! log
use std::process::ExitCode;
pub fn run(_: &crate::arguments::LogArguments) -> ExitCode {
    ExitCode::SUCCESS
}
