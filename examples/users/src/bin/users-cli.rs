//! The program `users-cli`.

use std::process::ExitCode;

use highwater_service::settings;
use highwater_users::cli::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match settings::parse::<Cli>().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
