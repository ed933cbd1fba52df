//! `activity serve`: the server. `activity init` prepares the cluster for it. `activity version`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater_activity::access::NEEDS;
use highwater_activity::server::{ServeSettings, serve};
use highwater_service::access::{self, InitSettings};
use highwater_service::version::SUMMARY;
use highwater_service::{logs, settings};

/// A feed of what deployments do, without duplicates, followed live.
#[derive(Debug, Parser)]
#[command(name = "activity", version = SUMMARY)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the tenant, its access rules and its topic, as an operator; what is there already stays
    Init(InitSettings),
    /// Serve the feed until SIGTERM or Ctrl-C
    Serve(Box<ServeSettings>),
    /// Print version, commit and date
    Version,
}

#[tokio::main]
async fn main() -> ExitCode {
    let program: Program = settings::parse();
    let settings = match program.command {
        Command::Version => {
            println!("activity {SUMMARY}");
            return ExitCode::SUCCESS;
        }
        Command::Init(settings) => return logs::told(access::run(&settings, &NEEDS).await),
        Command::Serve(settings) => settings,
    };
    if let Err(error) = logs::init(settings.service.log_format, &settings.service.log_level) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    logs::ended(Box::pin(serve(&settings)).await)
}
