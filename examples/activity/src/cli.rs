//! `activity-cli`, but for its first lines: posts events and reads them, and prints one JSON object a line.
//!
//! What fails because a server or the log is away is tried again, for adding an event twice adds it once, and who follows goes on behind
//! the last event that was printed. In JSON no message can do anything to a terminal.

use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use highwater_service::version::SUMMARY;
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::event::{Event, Invalid, Posted};
use crate::limits::{ADD_DEADLINE, LINE_BYTES_MAX, PAGE_EVENTS_MAX};
use crate::v1;
use crate::v1::activity_service_client::ActivityServiceClient;
use crate::v1::follow_request::Start;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After what silence a server is asked whether it is there, and how long it may take to answer: who follows must notice.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long to wait before it is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than the server takes for anything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(ADD_DEADLINE.as_secs() + 5);

/// Post what deployments do, and read it. Prints one JSON object a line.
#[derive(Debug, Parser)]
#[command(name = "activity-cli", version = SUMMARY)]
pub struct Program {
    /// host:port of the server.
    #[arg(long, global = true, env = "ADDRESS", default_value = "127.0.0.1:8080")]
    address: String,
    /// For how long to try again while the server or the log is away, milliseconds.
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
    },
    /// Print one event
    Get {
        /// Of which deployment.
        deployment: u64,
        /// Which event.
        id: u64,
    },
    /// Print version, commit and date
    Version,
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
        Command::List { deployment } => calls.list(deployment).await,
        Command::Follow { deployment, from, max } => calls.follow(deployment, from, max).await,
        Command::Get { deployment, id } => calls.get(deployment, id).await,
        Command::Version => write_line(&format!("activity-cli {SUMMARY}")).map_err(CliError::Io),
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

/// The server, and how patient to be with it.
struct Calls {
    client: ActivityServiceClient<Channel>,
    retry_for: Duration,
}

impl Calls {
    async fn add_one(&self, text: &str) -> Result<(), CliError> {
        let posted = Posted::from_json(text, now_ms())?;
        match self.add(posted).await? {
            true => Err(CliError::Differs(1)),
            false => Ok(()),
        }
    }

    async fn add_lines(&self, mut input: impl AsyncBufRead + Unpin) -> Result<(), CliError> {
        let mut differing = 0;
        for number in 1.. {
            let mut line = Vec::new();
            if (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await? == 0 {
                break;
            }
            let at_line = |invalid| CliError::Line { number, invalid };
            if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
                let problem = format!("it is longer than {LINE_BYTES_MAX} bytes");
                return Err(at_line(Invalid::new("event", problem)));
            }
            let text = std::str::from_utf8(&line);
            let text = text.map_err(|error| at_line(Invalid::new("event", error.to_string())))?;
            if text.trim().is_empty() {
                continue;
            }
            let posted = Posted::from_json(text, now_ms()).map_err(at_line)?;
            differing += u64::from(self.add(posted).await?);
        }
        match differing {
            0 => Ok(()),
            _ => Err(CliError::Differs(differing)),
        }
    }

    /// Posts an event and prints what became of it; whether another one is there.
    async fn add(&self, posted: Posted) -> Result<bool, CliError> {
        let request = v1::AddRequest {
            deployment_id: posted.deployment_id,
            id: posted.id,
            message: posted.message,
            sent_at_ms: posted.sent_at_ms,
        };
        let mut patience = Patience::new(self.retry_for);
        let added = loop {
            match self.client.clone().add(timed(request.clone())).await {
                Ok(added) => break added.into_inner(),
                Err(status) => patience.after(status).await?,
            }
        };
        print(&Outcome {
            deployment_id: posted.deployment_id,
            id: posted.id,
            already_there: added.already_there,
            differs: added.differs,
            sent_at_ms: added.sent_at_ms,
            received_at_ms: added.received_at_ms,
            position: added.position,
        })?;
        Ok(added.differs)
    }

    async fn get(&self, deployment_id: u64, id: u64) -> Result<(), CliError> {
        let request = v1::GetRequest {
            deployment_id,
            id,
            min_position: None,
        };
        let mut patience = Patience::new(self.retry_for);
        loop {
            match self.client.clone().get(timed(request)).await {
                Ok(found) => return print_event(found.into_inner().event),
                Err(status) => patience.after(status).await?,
            }
        }
    }

    async fn list(&self, deployment_id: u64) -> Result<(), CliError> {
        let mut request = v1::ListRequest {
            deployment_id,
            page_size: PAGE_EVENTS_MAX,
            ..Default::default()
        };
        let mut patience = Patience::new(self.retry_for);
        loop {
            let page = match self.client.clone().list(timed(request)).await {
                Ok(page) => page.into_inner(),
                Err(status) => {
                    patience.after(status).await?;
                    continue;
                }
            };
            patience = Patience::new(self.retry_for);
            for event in page.events {
                print_event(Some(event))?;
            }
            match page.next_position {
                Some(next) => request.from_position = next,
                None => return Ok(()),
            }
        }
    }

    async fn follow(&self, deployment_id: u64, from: Option<u64>, max: Option<u64>) -> Result<(), CliError> {
        let mut request = v1::FollowRequest {
            deployment_id,
            start: from.map(Start::FromId),
        };
        let mut left = max.unwrap_or(u64::MAX);
        let mut patience = Patience::new(self.retry_for);
        while left > 0 {
            let mut stream = match self.client.clone().follow(request).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => {
                    patience.after(status).await?;
                    continue;
                }
            };
            patience = Patience::new(self.retry_for);
            if let Err(status) = print_stream(&mut stream, &mut request, &mut left).await? {
                patience.after(status).await?;
            }
        }
        Ok(())
    }
}

/// Prints what comes, and notes where to go on; up to what broke the stream.
async fn print_stream(
    stream: &mut Streaming<v1::FollowResponse>,
    request: &mut v1::FollowRequest,
    left: &mut u64,
) -> Result<Result<(), Status>, CliError> {
    while *left > 0 {
        let event = match stream.message().await {
            Ok(Some(response)) => response.event.ok_or(CliError::NoEvent)?,
            Ok(None) => return Ok(Err(Status::unavailable("the server has ended the stream"))),
            Err(status) => return Ok(Err(status)),
        };
        request.start = Some(Start::FromPosition(event.position + 1));
        *left -= 1;
        print_event(Some(event))?;
    }
    Ok(Ok(()))
}

/// What `add` prints.
#[derive(Serialize)]
struct Outcome {
    deployment_id: u64,
    id: u64,
    already_there: bool,
    differs: bool,
    sent_at_ms: u64,
    received_at_ms: u64,
    position: u64,
}

/// How long to try again, and whether that has been said.
struct Patience {
    until: Instant,
    has_told: bool,
}

impl Patience {
    fn new(retry_for: Duration) -> Self {
        Self {
            until: Instant::now() + retry_for,
            has_told: false,
        }
    }

    /// Waits a little, if it may be different then.
    async fn after(&mut self, status: Status) -> Result<(), CliError> {
        if !is_passing(status.code()) || Instant::now() >= self.until {
            return Err(status.into());
        }
        if !std::mem::replace(&mut self.has_told, true) {
            eprintln!("note: {}; trying again", status.message());
        }
        sleep(PAUSE).await;
        Ok(())
    }
}

/// Whether that can be otherwise in a moment. A connection that breaks has several names.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted
    )
}

fn timed<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

fn print_event(event: Option<v1::Event>) -> Result<(), CliError> {
    print(&Event::from(event.ok_or(CliError::NoEvent)?))
}

fn print(value: &impl Serialize) -> Result<(), CliError> {
    let line = serde_json::to_string(value).map_err(std::io::Error::from)?;
    Ok(write_line(&line)?)
}

fn write_line(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
