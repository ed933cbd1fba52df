//! The courses' service: it handles commands about courses, keeps a read model of their events, and answers from it.
//!
//! Courses are documents: JSON in one column, which SQLite can look into. A deleted course stays, marked, for those who are enrolled in it.

use std::path::PathBuf;

use highwater_service::View;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::answers::{self, Failure, wait_fresh};
use crate::course::{CourseChange, CourseDetails, Courses};
use crate::database::{Database, Tables};
use crate::limits::{self, BATCH_MAX, Invalid, NAME_LETTERS_MAX};
use crate::names::{COURSE_COMMANDS, COURSE_EVENTS, COURSE_GROUP};
use crate::proto::course_service_server::{CourseService, CourseServiceServer};
use crate::proto::{
    Course, GetCourseRequest, GetCoursesRequest, GetCoursesResponse, ListCoursesRequest, ListCoursesResponse,
};
use crate::worker::{self, Decided};

/// What readiness waits for.
const READ_MODEL: &str = "courses";

/// Settings of `school courses`.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service can be told.
    #[command(flatten)]
    pub service: ServiceSettings,
    /// The file of the read model; made if it is not there, and for this process only.
    #[arg(long, env = "DATABASE", value_name = "FILE")]
    pub database: PathBuf,
}

/// Serves until `stop`.
///
/// # Errors
/// What keeps the service from going on, in words.
pub async fn run(settings: &Settings, stop: &Stop) -> Result<(), Failure> {
    let service = &settings.service;
    let telemetry = Telemetry::new("school_courses", &[READ_MODEL])?;
    let client = service.connect().await?;
    let (view, failing) = answers::follow::<CourseTables>(&client, COURSE_EVENTS, &settings.database).await?;
    let answering = Answering {
        view: view.clone(),
        telemetry: telemetry.clone(),
    };
    let mut routes = Routes::builder();
    routes.add_service(CourseServiceServer::new(answering));
    let routes = answers::described(routes)?;
    let listener = serving::listen("courses", service.address()).await?;
    let decided = Decided::new(telemetry.registry())?;
    let route = worker::route(COURSE_COMMANDS, COURSE_EVENTS, COURSE_GROUP);
    tokio::try_join!(
        async { Ok::<(), Failure>(serving::grpc(listener, routes, telemetry.clone(), stop.clone()).await?) },
        answers::tell(service.metrics_address(), telemetry.clone(), stop.clone()),
        async { Ok(worker::work::<Courses>(&client, route, &decided, stop).await?) },
        answers::tell_caught_up(&view, &telemetry, READ_MODEL, stop),
        failing.watch(stop),
    )?;
    Ok(())
}

/// Courses, a document each.
#[derive(Debug)]
pub struct CourseTables;

impl Tables for CourseTables {
    type Change = CourseChange;
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS courses (
            id TEXT PRIMARY KEY,
            deleted INTEGER NOT NULL,
            document TEXT NOT NULL CHECK (json_valid(document))
        ) WITHOUT ROWID;
    ";

    fn take_in(transaction: &Transaction<'_>, id: &str, change: &CourseChange) -> rusqlite::Result<()> {
        match change {
            CourseChange::Created(details) | CourseChange::Updated(details) => {
                let document = serde_json::to_string(details);
                let document = document.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let upsert = "INSERT INTO courses VALUES (?1, FALSE, ?2)
                    ON CONFLICT (id) DO UPDATE SET deleted = FALSE, document = excluded.document";
                transaction.execute(upsert, params![id, document])?;
            }
            CourseChange::Deleted => {
                transaction.execute("UPDATE courses SET deleted = TRUE WHERE id = ?1", [id])?;
            }
        }
        Ok(())
    }
}

fn course_in(row: &Row<'_>) -> rusqlite::Result<Course> {
    let document: String = row.get(2)?;
    let details: Result<CourseDetails, _> = serde_json::from_str(&document);
    let details = details.map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, error.into()))?;
    Ok(Course {
        id: row.get(0)?,
        title: details.title,
        description: details.description,
        credits: details.credits,
        deleted: row.get(1)?,
    })
}

/// A course, also a deleted one.
fn one(connection: &Connection, id: &str) -> rusqlite::Result<Option<Course>> {
    let query = "SELECT id, deleted, document FROM courses WHERE id = ?1";
    connection.query_row(query, [id], course_in).optional()
}

/// Courses behind an id that are not deleted, with that in their title, at most so many.
fn page(connection: &Connection, after: &str, title_part: &str, limit: u32) -> rusqlite::Result<Vec<Course>> {
    let query = "SELECT id, deleted, document FROM courses
        WHERE id > ?1 AND NOT deleted AND instr(lower(json_extract(document, '$.title')), lower(?2)) > 0
        ORDER BY id LIMIT ?3";
    let mut query = connection.prepare(query)?;
    query.query_map(params![after, title_part, limit], course_in)?.collect()
}

fn several(connection: &Connection, ids: &[String]) -> rusqlite::Result<Vec<Course>> {
    let found = ids.iter().filter_map(|id| one(connection, id).transpose());
    found.collect()
}

/// What answers.
struct Answering {
    view: View<Database<CourseTables>>,
    telemetry: Telemetry,
}

impl Answering {
    async fn get(&self, request: GetCourseRequest) -> Result<Course, Status> {
        limits::id("id", &request.id)?;
        wait_fresh(&self.view, request.fresh).await?;
        let found = self
            .view
            .read(|database| database.read(|connection| one(connection, &request.id)))?;
        let found = found.filter(|course| !course.deleted);
        found.ok_or_else(|| Status::not_found(format!("there is no course {}", request.id)))
    }

    async fn list(&self, request: ListCoursesRequest) -> Result<ListCoursesResponse, Status> {
        let limit = limits::page(request.limit)?;
        limits::no_longer("title_part", &request.title_part, NAME_LETTERS_MAX)?;
        wait_fresh(&self.view, request.fresh).await?;
        let query = |connection: &Connection| page(connection, &request.after, &request.title_part, limit + 1);
        let mut courses = self.view.read(|database| database.read(query))?;
        let more = courses.len() > limit as usize;
        courses.truncate(limit as usize);
        Ok(ListCoursesResponse { courses, more })
    }

    async fn several(&self, request: GetCoursesRequest) -> Result<GetCoursesResponse, Status> {
        if request.ids.len() > BATCH_MAX {
            let problem = format!("there are {}; at most {BATCH_MAX}", request.ids.len());
            return Err(Invalid::new("ids", problem).into());
        }
        wait_fresh(&self.view, request.fresh).await?;
        // In one look, so that the courses are of these positions.
        let (positions, courses) = self.view.read(|database| {
            let courses = database.read(|connection| several(connection, &request.ids));
            (database.positions().to_vec(), courses)
        });
        Ok(GetCoursesResponse {
            courses: courses?,
            positions,
        })
    }
}

#[tonic::async_trait]
impl CourseService for Answering {
    async fn get_course(&self, request: Request<GetCourseRequest>) -> Result<Response<Course>, Status> {
        let counted = self.telemetry.request("GetCourse");
        counted.answered(self.get(request.into_inner()).await.map(Response::new))
    }

    async fn list_courses(
        &self,
        request: Request<ListCoursesRequest>,
    ) -> Result<Response<ListCoursesResponse>, Status> {
        let counted = self.telemetry.request("ListCourses");
        counted.answered(self.list(request.into_inner()).await.map(Response::new))
    }

    async fn get_courses(&self, request: Request<GetCoursesRequest>) -> Result<Response<GetCoursesResponse>, Status> {
        let counted = self.telemetry.request("GetCourses");
        counted.answered(self.several(request.into_inner()).await.map(Response::new))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn created(title: &str) -> CourseChange {
        CourseChange::Created(CourseDetails {
            title: title.to_owned(),
            description: String::new(),
            credits: 3,
        })
    }

    #[test]
    fn documents_are_found_by_title_and_stay_when_deleted() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(CourseTables::SCHEMA).unwrap();
        let transaction = connection.transaction().unwrap();
        let changes = [
            ("logic", created("Logic")),
            ("magic", created("Magic")),
            ("logic-2", created("More \"logic\"")),
            ("magic", CourseChange::Deleted),
        ];
        for (id, change) in changes {
            CourseTables::take_in(&transaction, id, &change).unwrap();
        }
        transaction.commit().unwrap();
        let found = |part: &str| -> Vec<String> {
            let courses = page(&connection, "", part, 9).unwrap();
            courses.into_iter().map(|course| course.id).collect()
        };
        assert_eq!(found("LOGIC"), ["logic", "logic-2"]);
        assert_eq!(found("gic"), ["logic", "logic-2"], "magic is deleted");
        assert_eq!(found(""), ["logic", "logic-2"]);
        assert!(one(&connection, "magic").unwrap().unwrap().deleted);
        let ids = ["magic", "never", "logic"].map(str::to_owned);
        let several = several(&connection, &ids).unwrap();
        assert_eq!(several.len(), 2);
        assert_eq!(several[1].credits, 3);
    }
}
