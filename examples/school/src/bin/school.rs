//! The program `school`: its services, the job that prepares the cluster for them, and who asks them.

use std::process::ExitCode;

use clap::Parser;
use highwater_school::names::NEEDS;
use highwater_school::{ask, courses, gateway, students};
use highwater_service::access::{self, InitSettings};
use highwater_service::logs;
use highwater_service::serving::Stop;
use highwater_service::settings::{self, ServiceSettings};
use highwater_service::version;

/// A school on a replicated log: commands through queues, reads through gRPC.
#[derive(Debug, Parser)]
#[command(name = "school", version = version::SUMMARY)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the tenant, its access rules and its topics, as an operator; what is there already stays.
    Init(InitSettings),
    /// Serve students: handle their commands, answer reads over gRPC.
    Students(students::Settings),
    /// Serve courses: handle their commands, answer reads over gRPC.
    Courses(courses::Settings),
    /// Serve HTTP and JSON in front of all of it.
    Gateway(gateway::Settings),
    /// Ask the gateway: change something, or show what there is.
    Ask(ask::Settings),
    /// Print the version, the commit and its day.
    Version,
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let program: Program = settings::parse();
    let ended = match program.command {
        Command::Init(settings) => return logs::told(access::run(&settings, &NEEDS).await),
        Command::Ask(settings) => return logs::told(ask::run(&settings).await),
        Command::Version => {
            println!("school {}", version::SUMMARY);
            return ExitCode::SUCCESS;
        }
        Command::Students(settings) => {
            serve(&settings.service, async |stop| students::run(&settings, &stop).await).await
        }
        Command::Courses(settings) => serve(&settings.service, async |stop| courses::run(&settings, &stop).await).await,
        Command::Gateway(settings) => serve(&settings.service, async |stop| gateway::run(&settings, &stop).await).await,
    };
    logs::ended(ended)
}

async fn serve(service: &ServiceSettings, run: impl AsyncFnOnce(Stop) -> Outcome) -> Outcome {
    logs::init(service.log_format, &service.log_level)?;
    run(Stop::on_signals()?).await
}
