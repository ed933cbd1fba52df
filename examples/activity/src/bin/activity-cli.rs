//! `activity-cli`: posts events and reads them.

use std::process::ExitCode;

use highwater_activity::cli::{self, printing};
use highwater_service::settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Box::pin(cli::run(settings::parse())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printing::harmless(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}
