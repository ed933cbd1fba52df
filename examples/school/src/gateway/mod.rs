//! The gateway: HTTP and JSON in front of queues and services.
//!
//! What changes something is sent as a command and answered with 202 and the command's id, before anything has been decided. Who wants to
//! know what became of it asks by the id, or says `Prefer: wait=5` and is told in the same answer if it comes in time. What reads is passed
//! on by gRPC; an answer is never older than an event that this gateway has told anybody about.
//!
//! At the same port is gRPC's health service, which wants no key.
//!
//! Invariants: nothing under `/v1` is answered without a key; a body is bounded before it is read; every answer is JSON, and is counted.

mod commands;
pub mod keys;
pub mod outcomes;
mod queue;
mod reads;
mod reply;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use tokio::net::TcpListener;
use tonic::transport::Channel;

use self::keys::ApiKeys;
use self::queue::{Queue, Waiting};
use self::reply::Reply;
use crate::answers::{self, Failing, Failure};
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
    let telemetry = Telemetry::new("school_gateway", &[STUDENT_OUTCOMES, COURSE_OUTCOMES])?;
    let telling = answers::tell(settings.service.metrics_address(), telemetry.clone(), stop.clone());
    let serving = async {
        tokio::select! {
            () = stop.wait() => Ok(()),
            prepared = prepare(settings, telemetry, stop) => prepared?.serve(stop).await,
        }
    };
    tokio::try_join!(telling, serving)?;
    Ok(())
}

/// All that is there before the first request.
struct Prepared {
    gateway: Arc<Gateway>,
    /// Of commands about students, and about courses.
    failing: [Failing; 2],
    listener: TcpListener,
}

async fn prepare(settings: &Settings, telemetry: Telemetry, stop: &Stop) -> Result<Prepared, Failure> {
    let keys = ApiKeys::load(&settings.api_keys)?;
    let client = settings.service.connect().await?;
    let waiting = Waiting::new(stop);
    let (student_commands, students_failing) =
        Queue::open(&client, STUDENT_COMMANDS, STUDENT_EVENTS, waiting.clone()).await?;
    let (course_commands, courses_failing) = Queue::open(&client, COURSE_COMMANDS, COURSE_EVENTS, waiting).await?;
    let gateway = Gateway {
        student_commands,
        course_commands,
        students: StudentServiceClient::new(answers::channel("students", &settings.students)?),
        courses: CourseServiceClient::new(answers::channel("courses", &settings.courses)?),
        keys,
        telemetry,
    };
    Ok(Prepared {
        gateway: Arc::new(gateway),
        failing: [students_failing, courses_failing],
        listener: serving::listen("gateway", settings.service.address()).await?,
    })
}

impl Prepared {
    async fn serve(self, stop: &Stop) -> Result<(), Failure> {
        let (telemetry, [students_failing, courses_failing]) = (&self.gateway.telemetry, self.failing);
        let student_outcomes = &self.gateway.student_commands.outcomes;
        let course_outcomes = &self.gateway.course_commands.outcomes;
        let (reporting, health) = serving::health(telemetry, stop).await;
        let answering = serving::http(self.listener, routes(self.gateway.clone()).merge(health), stop.clone());
        tokio::try_join!(
            async {
                answering.await;
                Ok::<(), Failure>(())
            },
            async {
                reporting.await;
                Ok(())
            },
            answers::tell_caught_up(student_outcomes, telemetry, STUDENT_OUTCOMES, stop),
            answers::tell_caught_up(course_outcomes, telemetry, COURSE_OUTCOMES, stop),
            answers::watch_lost(student_outcomes, stop),
            answers::watch_lost(course_outcomes, stop),
            students_failing.watch(stop),
            courses_failing.watch(stop),
        )?;
        Ok(())
    }
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
        .method_not_allowed_fallback(not_allowed)
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

/// The path is there, and this cannot be done with it; axum adds the header that says what can.
async fn not_allowed(State(gateway): Shared, method: Method) -> Response {
    let problem = format!("{method} is not for this path; the header `allow` says what is");
    let refused = async { Err(Reply::problem(StatusCode::METHOD_NOT_ALLOWED, "not_allowed", &problem)) };
    gateway.counted("none", refused).await
}

/// What the path names, or that it is no text.
type Named<T> = Result<Path<T>, PathRejection>;

fn named<T>(path: Named<T>) -> Result<T, Reply> {
    match path {
        Ok(Path(names)) => Ok(names),
        Err(error) => Err(Reply::problem(
            error.status(),
            "invalid_argument",
            &format!("path: {}", error.body_text()),
        )),
    }
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
