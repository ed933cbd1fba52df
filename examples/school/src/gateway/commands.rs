//! Requests that change something: each becomes a command.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::outcomes::Fate;
use super::queue::{Queue, SendError};
use super::reply::Reply;
use super::{Gateway, Named, Shared, named};
use crate::command::CommandId;
use crate::course::{CourseCommand, CourseDetails};
use crate::limits::{self, Invalid};
use crate::student::{StudentCommand, StudentDetails};

/// How long a client may have the gateway wait.
const WAIT_MAX: Duration = Duration::from_secs(limits::WAIT_SECONDS_MAX);

/// A body, or that it is too large or broken.
type Body = Result<Bytes, BytesRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStudent {
    id: String,
    name: String,
    email: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCourse {
    id: String,
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    credits: u32,
}

pub(super) async fn create_student(State(gateway): Shared, headers: HeaderMap, body: Body) -> Response {
    let answer = async {
        let NewStudent { id, name, email } = json(body)?;
        gateway
            .tell_student(&id, StudentCommand::Create(StudentDetails { name, email }), &headers)
            .await
    };
    gateway.counted("create_student", answer).await
}

pub(super) async fn update_student(
    State(gateway): Shared,
    id: Named<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let id = named(id)?;
        gateway
            .tell_student(&id, StudentCommand::Update(json(body)?), &headers)
            .await
    };
    gateway.counted("update_student", answer).await
}

pub(super) async fn delete_student(State(gateway): Shared, id: Named<String>, headers: HeaderMap) -> Response {
    let answer = async {
        gateway
            .tell_student(&named(id)?, StudentCommand::Delete, &headers)
            .await
    };
    gateway.counted("delete_student", answer).await
}

pub(super) async fn enrol_student(
    State(gateway): Shared,
    names: Named<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (id, course) = named(names)?;
        gateway
            .tell_student(&id, StudentCommand::Enrol { course }, &headers)
            .await
    };
    gateway.counted("enrol_student", answer).await
}

pub(super) async fn withdraw_student(
    State(gateway): Shared,
    names: Named<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (id, course) = named(names)?;
        gateway
            .tell_student(&id, StudentCommand::Withdraw { course }, &headers)
            .await
    };
    gateway.counted("withdraw_student", answer).await
}

pub(super) async fn create_course(State(gateway): Shared, headers: HeaderMap, body: Body) -> Response {
    let answer = async {
        let new: NewCourse = json(body)?;
        let details = CourseDetails {
            title: new.title,
            description: new.description,
            credits: new.credits,
        };
        gateway
            .tell_course(&new.id, CourseCommand::Create(details), &headers)
            .await
    };
    gateway.counted("create_course", answer).await
}

pub(super) async fn update_course(
    State(gateway): Shared,
    id: Named<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let id = named(id)?;
        gateway
            .tell_course(&id, CourseCommand::Update(json(body)?), &headers)
            .await
    };
    gateway.counted("update_course", answer).await
}

pub(super) async fn delete_course(State(gateway): Shared, id: Named<String>, headers: HeaderMap) -> Response {
    let answer = async { gateway.tell_course(&named(id)?, CourseCommand::Delete, &headers).await };
    gateway.counted("delete_course", answer).await
}

pub(super) async fn get_command(
    State(gateway): Shared,
    names: Named<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (topic, partition, offset) = named(names)?;
        let queues = [&gateway.student_commands, &gateway.course_commands];
        let queue = queues.into_iter().find(|queue| queue.topic == topic);
        let queue = queue
            .ok_or_else(|| Reply::problem(StatusCode::NOT_FOUND, "not_found", "there is no such topic of commands"))?;
        let id: CommandId = format!("{partition}/{offset}").parse()?;
        if id.partition >= queue.outcomes.partitions() {
            return Err(Reply::problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such partition",
            ));
        }
        Ok(queue.told(id, &headers).await?.found())
    };
    gateway.counted("get_command", answer).await
}

impl Gateway {
    async fn tell_student(&self, id: &str, command: StudentCommand, headers: &HeaderMap) -> Result<Reply, Reply> {
        command.check()?;
        self.student_commands.tell(id, &command, headers).await
    }

    async fn tell_course(&self, id: &str, command: CourseCommand, headers: &HeaderMap) -> Result<Reply, Reply> {
        command.check()?;
        self.course_commands.tell(id, &command, headers).await
    }
}

impl Queue {
    /// Sends a command, and waits for what becomes of it if the client wants that.
    async fn tell<C: Serialize>(&self, id: &str, command: &C, headers: &HeaderMap) -> Result<Reply, Reply> {
        limits::id("id", id)?;
        preferred_wait(headers)?; // before anything is sent
        let id = self.send(id, command).await?;
        match preferred_wait(headers)? {
            // By the time that this is read it may well be decided; the answer is the same each time.
            None => Ok(Reply::fate(self.topic, id, &Fate::Pending)),
            Some(_) => self.told(id, headers).await,
        }
    }

    async fn told(&self, id: CommandId, headers: &HeaderMap) -> Result<Reply, Reply> {
        let Some(within) = preferred_wait(headers)? else {
            return Ok(Reply::fate(self.topic, id, &self.fate(id)));
        };
        let has_waited = self.wait(id, within).await;
        let reply = Reply::fate(self.topic, id, &self.fate(id));
        Ok(if has_waited { reply.waited() } else { reply })
    }
}

impl From<SendError> for Reply {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Produce(error) => error.into(),
            SendError::Json(error) => Self::problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
        }
    }
}

fn json<T: DeserializeOwned>(body: Body) -> Result<T, Reply> {
    let bytes = body.map_err(|error| {
        Reply::problem(
            error.status(),
            "invalid_argument",
            &format!("body: {}", error.body_text()),
        )
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Invalid::new("body", error.to_string()).into())
}

/// How long the client wants to wait for what becomes of a command: `Prefer: wait=SECONDS`, by RFC 7240. Other preferences are passed over.
fn preferred_wait(headers: &HeaderMap) -> Result<Option<Duration>, Invalid> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).map(str::trim);
    let Some(seconds) = preferences.find_map(|preference| preference.strip_prefix("wait=")) else {
        return Ok(None);
    };
    let within = seconds
        .parse()
        .ok()
        .map(Duration::from_secs)
        .filter(|within| *within <= WAIT_MAX);
    match within {
        Some(within) => Ok(Some(within)),
        None => Err(Invalid::new(
            "prefer",
            format!("wait is 0 to {} seconds", WAIT_MAX.as_secs()),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wait(prefer: &str) -> Result<Option<Duration>, Invalid> {
        let headers = HeaderMap::from_iter([("prefer".parse().unwrap(), prefer.parse().unwrap())]);
        preferred_wait(&headers)
    }

    #[test]
    fn a_client_may_prefer_to_wait() {
        assert_eq!(preferred_wait(&HeaderMap::new()), Ok(None));
        assert_eq!(wait("wait=5"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(wait("respond-async, wait=10"), Ok(Some(Duration::from_secs(10))));
        assert_eq!(wait("respond-async"), Ok(None));
        for wrong in ["wait=31", "wait=-1", "wait=", "wait=5s"] {
            assert!(wait(wrong).unwrap_err().to_string().contains("0 to 30"), "{wrong}");
        }
    }
}
