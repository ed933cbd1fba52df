//! The gateway: HTTP and JSON in front of queues and services.
//!
//! What changes something is sent as a command and answered with 202 and the command's id, before anything has been decided. Who wants to
//! know what became of it asks by the id, or says `Prefer: wait=5` and is told in the same answer if it comes in time. What reads is passed
//! on by gRPC; an answer is never older than an event that this gateway has told anybody about.
//!
//! Invariants: nothing under `/v1` is answered without a key; a body is bounded before it is read.

mod commands;
pub mod keys;
pub mod outcomes;
mod queue;
mod reads;
mod reply;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use highwater::{Client, Error, Reason};
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use tonic::transport::Channel;

use self::keys::ApiKeys;
use self::queue::Queue;
use self::reply::Reply;
use crate::answers::{self, Failure};
use crate::names::{COURSE_COMMANDS, COURSE_EVENTS, STUDENT_COMMANDS, STUDENT_EVENTS};
use crate::proto::course_service_client::CourseServiceClient;
use crate::proto::student_service_client::StudentServiceClient;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// What readiness waits for.
const STUDENT_OUTCOMES: &str = "outcomes of commands about students";
/// The same.
const COURSE_OUTCOMES: &str = "outcomes of commands about courses";

/// Settings of `school gateway`.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service can be told.
    #[command(flatten)]
    pub service: ServiceSettings,
    /// Where the students' service answers.
    #[arg(long, env = "STUDENTS", value_name = "URL")]
    pub students: String,
    /// Where the courses' service answers.
    #[arg(long, env = "COURSES", value_name = "URL")]
    pub courses: String,
    /// The file of the API keys, one a line.
    #[arg(long, env = "API_KEYS", value_name = "FILE")]
    pub api_keys: PathBuf,
}

/// What handlers share.
struct Gateway {
    student_commands: Queue,
    course_commands: Queue,
    students: StudentServiceClient<Channel>,
    courses: CourseServiceClient<Channel>,
    keys: ApiKeys,
    telemetry: Telemetry,
}

type Shared = State<Arc<Gateway>>;

/// Serves until `stop`.
///
/// # Errors
/// What keeps the gateway from going on, in words.
pub async fn run(settings: &Settings, stop: &Stop) -> Result<(), Failure> {
    let service = &settings.service;
    let telemetry = Telemetry::new("school_gateway", &[STUDENT_OUTCOMES, COURSE_OUTCOMES])?;
    let client = service.connect().await?;
    let gateway = Arc::new(Gateway {
        student_commands: queue(&client, STUDENT_COMMANDS, STUDENT_EVENTS).await?,
        course_commands: queue(&client, COURSE_COMMANDS, COURSE_EVENTS).await?,
        students: StudentServiceClient::new(answers::channel("students", &settings.students)?),
        courses: CourseServiceClient::new(answers::channel("courses", &settings.courses)?),
        keys: ApiKeys::load(&settings.api_keys)?,
        telemetry: telemetry.clone(),
    });
    let listener = serving::listen("gateway", service.address()).await?;
    tokio::try_join!(
        async { Ok::<(), Failure>(serving::http(listener, routes(gateway.clone()), stop.clone()).await?) },
        answers::tell(service.metrics_address(), telemetry.clone(), stop.clone()),
        answers::tell_caught_up(&gateway.student_commands.outcomes, &telemetry, STUDENT_OUTCOMES, stop),
        answers::tell_caught_up(&gateway.course_commands.outcomes, &telemetry, COURSE_OUTCOMES, stop),
    )?;
    Ok(())
}

async fn queue(client: &Client, commands: &'static str, events: &str) -> Result<Queue, Failure> {
    let opened: Result<Queue, Error> = Queue::open(client, commands, events).await;
    opened.map_err(|error| match error.reason() {
        Some(Reason::TopicNotFound) => format!("{error}; `school init` makes topics and access rules").into(),
        _ => error.into(),
    })
}

fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/v1/students", post(commands::create_student).get(reads::list_students))
        .route(
            "/v1/students/{id}",
            put(commands::update_student)
                .delete(commands::delete_student)
                .get(reads::get_student),
        )
        .route("/v1/students/{id}/courses", get(reads::get_student_courses))
        .route(
            "/v1/students/{id}/courses/{course}",
            put(commands::enrol_student).delete(commands::withdraw_student),
        )
        .route("/v1/courses", post(commands::create_course).get(reads::list_courses))
        .route(
            "/v1/courses/{id}",
            put(commands::update_course)
                .delete(commands::delete_course)
                .get(reads::get_course),
        )
        .route("/v1/commands/{topic}/{partition}/{offset}", get(commands::get_command))
        .fallback(nothing)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // Outermost, so that who has no key learns nothing, not even which paths there are.
        .layer(from_fn_with_state(gateway.clone(), with_key))
        .with_state(gateway)
}

async fn with_key(State(gateway): Shared, request: Request, next: Next) -> Response {
    let key = request.headers().get(keys::HEADER);
    if key.is_some_and(|key| gateway.keys.has(key.as_bytes())) {
        return next.run(request).await;
    }
    let refused = async {
        Err(Reply::problem(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "x-api-key: is missing or not known",
        ))
    };
    gateway.counted("any", refused).await
}

async fn nothing(State(gateway): Shared) -> Response {
    let nothing = async {
        Err(Reply::problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing here",
        ))
    };
    gateway.counted("none", nothing).await
}

impl Gateway {
    /// Answers a request and counts it, with the time that it took.
    async fn counted(&self, method: &'static str, answer: impl Future<Output = Result<Reply, Reply>>) -> Response {
        let counted = self.telemetry.request(method);
        let reply = answer.await.unwrap_or_else(|reply| reply);
        counted.outcome(reply.outcome);
        reply.into_response()
    }
}
