//! Calls of the server, tried again while it or the log is away.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::CliError;
use super::printing::{self, Outcome};
use crate::event::{Invalid, Posted};
use crate::limits::{ADD_DEADLINE, LINE_BYTES_MAX, PAGE_EVENTS_MAX};
use crate::v1;
use crate::v1::activity_service_client::ActivityServiceClient;
use crate::v1::follow_request::Start;

/// How long to wait before it is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than the server takes for anything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(ADD_DEADLINE.as_secs() + 5);

/// The server, and how patient to be with it.
pub(super) struct Calls {
    pub(super) client: ActivityServiceClient<Channel>,
    pub(super) retry_for: Duration,
}

impl Calls {
    pub(super) async fn add_one(&self, text: &str) -> Result<(), CliError> {
        let posted = Posted::from_json(text, now_ms())?;
        match self.add(posted).await? {
            true => Err(CliError::Differs(1)),
            false => Ok(()),
        }
    }

    pub(super) async fn add_lines(&self, mut input: impl AsyncBufRead + Unpin) -> Result<(), CliError> {
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
        printing::json(&Outcome {
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

    pub(super) async fn get(&self, deployment_id: u64, id: u64, min_position: Option<u64>) -> Result<(), CliError> {
        let request = v1::GetRequest {
            deployment_id,
            id,
            min_position,
        };
        let mut patience = Patience::new(self.retry_for);
        loop {
            match self.client.clone().get(timed(request)).await {
                Ok(found) => return printing::event(found.into_inner().event),
                Err(status) => patience.after(status).await?,
            }
        }
    }

    pub(super) async fn list(&self, deployment_id: u64, min_position: Option<u64>) -> Result<(), CliError> {
        let mut request = v1::ListRequest {
            deployment_id,
            from_position: 0,
            page_size: PAGE_EVENTS_MAX,
            min_position,
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
                printing::event(Some(event))?;
            }
            match page.next_position {
                // Whichever server gives the next page is to know at least what this one did.
                Some(next) => {
                    request.from_position = next;
                    request.min_position = request.min_position.max(next.checked_sub(1));
                }
                None => return Ok(()),
            }
        }
    }

    pub(super) async fn follow(
        &self,
        deployment_id: u64,
        from: Option<u64>,
        max: Option<u64>,
        min_position: Option<u64>,
    ) -> Result<(), CliError> {
        let mut request = v1::FollowRequest {
            deployment_id,
            start: from.map(Start::FromId),
            min_position,
        };
        let mut left = max.unwrap_or(u64::MAX);
        let mut patience = Patience::new(self.retry_for);
        while left > 0 {
            let mut stream = match self.client.clone().follow(request).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => {
                    if !begun_anew(&mut request, &status) {
                        patience.after(status).await?;
                    }
                    continue;
                }
            };
            // However long the stream lives: what breaks it is the first failure of the next attempts.
            patience = Patience::new(self.retry_for);
            if let Err(status) = print_stream(&mut stream, &mut request, &mut left).await? {
                patience.after(status).await?;
            }
        }
        Ok(())
    }
}

/// Whether to begin at the first event, since the log does not have the position that was seen any more.
fn begun_anew(request: &mut v1::FollowRequest, status: &Status) -> bool {
    let has_seen = matches!(request.start, Some(Start::FromPosition(_)));
    if status.code() != Code::OutOfRange || !has_seen {
        return false;
    }
    note(&format!("{}; beginning at the first event", status.message()));
    request.start = None;
    request.min_position = None;
    true
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
        request.min_position = None; // it has been waited for
        *left -= 1;
        printing::event(Some(event))?;
    }
    Ok(Ok(()))
}

/// How long to try again. It begins with the first failure, so that a long life before that takes nothing away.
struct Patience {
    retry_for: Duration,
    /// When the first failure was.
    since: Option<Instant>,
}

impl Patience {
    fn new(retry_for: Duration) -> Self {
        Self { retry_for, since: None }
    }

    /// Waits a little, if it may be different then.
    async fn after(&mut self, status: Status) -> Result<(), CliError> {
        let is_first = self.since.is_none();
        let tried_for = self.since.get_or_insert_with(Instant::now).elapsed();
        if !is_passing(status.code()) || self.retry_for.is_zero() || !is_first && tried_for >= self.retry_for {
            return Err(status.into());
        }
        if is_first {
            note(&format!("{}; trying again", status.message()));
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

fn note(text: &str) {
    eprintln!("note: {}", printing::harmless(text));
}

fn timed<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(ANSWER_TIMEOUT);
    request
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
