//! The program `users`: the server, and the two services that its events feed.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater_service::{settings, version};
use highwater_users::{email, page, serve};

/// Users as a fold over a log, with services fed by their events.
#[derive(Debug, Parser)]
#[command(name = "users", version = version::SUMMARY)]
struct Program {
    #[command(subcommand)]
    service: Service,
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

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match settings::parse::<Program>().service {
        Service::Serve(settings) => serve::run(settings).await,
        Service::Metrics(settings) => page::run(settings).await,
        Service::Email(settings) => email::run(settings).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
