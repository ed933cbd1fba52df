//! `activity-cli`, but for its first lines: posts events and reads them, and prints each, or what became of it, as a JSON object on a line.
//!
//! What fails because a server or the log is away is tried again (`calls`), for adding an event twice adds it once, and who follows goes on
//! behind the last event that was printed. No message can do anything to a terminal ([`printing`]).

mod calls;
pub mod printing;

use std::io::ErrorKind;
use std::time::Duration;

use clap::{Parser, Subcommand};
use highwater_service::version::SUMMARY;
use tokio::io::BufReader;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use self::calls::Calls;
use crate::event::Invalid;
use crate::v1::activity_service_client::ActivityServiceClient;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After what silence a server is asked whether it is there, and how long it may take to answer: who follows must notice.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Post what deployments do, and read it. Prints each event as a JSON object on a line.
#[derive(Debug, Parser)]
#[command(name = "activity-cli", version = SUMMARY)]
pub struct Program {
    /// host:port of the server.
    #[arg(long, global = true, env = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: String,
    /// For how long to try again while the server or the log is away, from the first failure on, milliseconds.
    #[arg(
        long,
        global = true,
        env = "RETRY_FOR_MS",
        value_name = "MS",
        default_value_t = 30_000
    )]
    retry_for_ms: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Post an event; one whose id is there already is not stored again
    Add {
        /// {"id":1,"deployment_id":1,"message":"…"}, or - for such lines from standard input.
        json: String,
    },
    /// Print all events of a deployment
    List {
        /// Of which deployment.
        deployment: u64,
        #[command(flatten)]
        read: Read,
    },
    /// Print the events of a deployment, and each new one as it comes
    Follow {
        /// Of which deployment.
        deployment: u64,
        /// Begin at the event of this id instead of the first one.
        #[arg(long, value_name = "ID")]
        from: Option<u64>,
        /// End after so many events.
        #[arg(long, value_name = "N")]
        max: Option<u64>,
        #[command(flatten)]
        read: Read,
    },
    /// Print one event
    Get {
        /// Of which deployment.
        deployment: u64,
        /// Which event.
        id: u64,
        #[command(flatten)]
        read: Read,
    },
    /// Print version, commit and date
    Version,
}

/// What every command that reads can be told.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Read {
    /// Wait until the server has read the log up to and with this position, as `add` told it, maybe of another server.
    #[arg(long, value_name = "N")]
    min_position: Option<u64>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The address is none.
    #[error("--address {0:?}: host:port is wanted")]
    Address(String),
    /// The server said no, or did not answer for too long.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The argument is no event.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A line is no event. Those before it have been posted.
    #[error("line {number}: {invalid}")]
    Line {
        /// Which, from 1 on.
        number: u64,
        /// What is wrong with it.
        invalid: Invalid,
    },
    /// Some were there already, with other messages.
    #[error("{0} of the events are there already with another message, and stay as they are")]
    Differs(u64),
    /// Standard input or output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The server left out what it must not.
    #[error("the server's answer has no event")]
    NoEvent,
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Runs a command to its end.
///
/// # Errors
/// [`CliError`]. That nobody reads the output any more is none.
pub async fn run(program: Program) -> Result<(), CliError> {
    let calls = Calls {
        client: ActivityServiceClient::new(channel(&program.address)?),
        retry_for: Duration::from_millis(program.retry_for_ms),
    };
    let done = match program.command {
        Command::Add { json } if json == "-" => calls.add_lines(BufReader::new(tokio::io::stdin())).await,
        Command::Add { json } => calls.add_one(&json).await,
        Command::List { deployment, read } => calls.list(deployment, read.min_position).await,
        Command::Follow {
            deployment,
            from,
            max,
            read,
        } => calls.follow(deployment, from, max, read.min_position).await,
        Command::Get { deployment, id, read } => calls.get(deployment, id, read.min_position).await,
        Command::Version => printing::line(&format!("activity-cli {SUMMARY}")).map_err(CliError::Io),
    };
    match done {
        Err(CliError::Io(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn channel(address: &str) -> Result<Channel, CliError> {
    let uri = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| CliError::Address(address.to_owned()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE);
    Ok(endpoint
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy())
}
