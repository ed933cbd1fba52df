//! The program `school`: its services, and the job that prepares the cluster for them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use highwater::{Client, Profile};
use highwater_school::{access, courses, gateway, students};
use highwater_service::logs::{self, LogFormat};
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
    Init(Init),
    /// Serve students: handle their commands, answer reads over gRPC.
    Students(students::Settings),
    /// Serve courses: handle their commands, answer reads over gRPC.
    Courses(courses::Settings),
    /// Serve HTTP and JSON in front of all of it.
    Gateway(gateway::Settings),
    /// Print the version, the commit and its day.
    Version,
}

/// Settings of `school init`.
#[derive(Debug, clap::Args)]
struct Init {
    /// The profile of an operator of the cluster.
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE")]
    profile: PathBuf,
    /// How lines of the log look.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives of parts.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let program: Program = settings::parse();
    let ended = match program.command {
        Command::Init(settings) => init(&settings).await,
        Command::Students(settings) => {
            serve(&settings.service, async |stop| students::run(&settings, &stop).await).await
        }
        Command::Courses(settings) => serve(&settings.service, async |stop| courses::run(&settings, &stop).await).await,
        Command::Gateway(settings) => serve(&settings.service, async |stop| gateway::run(&settings, &stop).await).await,
        Command::Version => {
            println!("school {}", version::SUMMARY);
            Ok(())
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(service: &ServiceSettings, run: impl AsyncFnOnce(Stop) -> Outcome) -> Outcome {
    logs::init(service.log_format, &service.log_level)?;
    run(Stop::on_signals()?).await
}

async fn init(settings: &Init) -> Outcome {
    logs::init(settings.log_format, &settings.log_level)?;
    let client = Client::from_profile(&Profile::load(&settings.profile)?).await?;
    let changed = access::init(&client).await?;
    for line in &changed {
        println!("{line}");
    }
    match changed.len() {
        0 => println!("It is so already; nothing was changed."),
        count => println!("{count} changes."),
    }
    Ok(())
}
