//! `calc`: the prompt, a back end, or the log service, by its first argument.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater_calc::access::NEEDS;
use highwater_calc::connect::{self, ConnectSettings};
use highwater_calc::recorder::{self, LogSettings};
use highwater_calc::{backend, service::Failed};
use highwater_service::access::{self, InitSettings};
use highwater_service::logs;
use highwater_service::settings::{self, ServiceSettings};
use highwater_service::version::SUMMARY;

/// A calculator whose commands and results are records of two topics.
#[derive(Debug, Parser)]
#[command(name = "calc", version = SUMMARY)]
struct Calc {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the tenant, its access rules and its topics, as an operator; what is there already stays.
    Init(InitSettings),
    /// Ask, at a prompt or from a pipe.
    Connect(ConnectSettings),
    /// Answer. Several may run at the same time.
    Backend(ServiceSettings),
    /// Write every command and every result to a file.
    Log(LogSettings),
    /// Print the version, and the commit that it was built from.
    Version,
}

#[tokio::main]
async fn main() -> ExitCode {
    let calc: Calc = settings::parse();
    match calc.verb {
        Verb::Init(settings) => logs::told(access::run(&settings, &NEEDS).await),
        Verb::Connect(settings) => match connect::run(settings).await {
            Err(Failed::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            ended => logs::told(ended),
        },
        Verb::Backend(settings) => logs::ended(backend::run(&settings).await),
        Verb::Log(settings) => logs::ended(recorder::run(&settings).await),
        Verb::Version => {
            println!("calc {SUMMARY}");
            ExitCode::SUCCESS
        }
    }
}
