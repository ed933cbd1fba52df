//! The program `users`: the server, and the two services that its events feed.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater_service::access::{self, InitSettings};
use highwater_service::settings::ServiceSettings;
use highwater_service::{logs, settings, version};
use highwater_users::access::NEEDS;
use highwater_users::{email, page, serve};

/// Users as a fold over a log, with services fed by their events.
#[derive(Debug, Parser)]
#[command(name = "users", version = version::SUMMARY)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the tenant, its access rules and its topics, as an operator; what is there already stays.
    Init(InitSettings),
    #[command(flatten)]
    Service(Service),
}

#[derive(Debug, Subcommand)]
enum Service {
    /// Serve users over gRPC, and feed the topic of new users.
    Serve(serve::Settings),
    /// Show how many users are new in each month, on a web page.
    Metrics(page::Settings),
    /// Write a welcome message to each new user.
    Email(email::Settings),
}

impl Service {
    fn settings(&self) -> &ServiceSettings {
        match self {
            Self::Serve(settings) => &settings.service,
            Self::Metrics(settings) => &settings.service,
            Self::Email(settings) => &settings.service,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let service = match settings::parse::<Program>().command {
        Command::Service(service) => service,
        Command::Init(settings) => return logs::told(access::run(&settings, &NEEDS).await),
    };
    let settings = service.settings();
    if let Err(error) = logs::init(settings.log_format, &settings.log_level) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let ended = match service {
        Service::Serve(settings) => serve::run(settings).await,
        Service::Metrics(settings) => page::run(settings).await,
        Service::Email(settings) => email::run(settings).await,
    };
    logs::ended(ended)
}
