//! The courses' service: it handles commands about courses, keeps a read model of their events, and answers from it.
//!
//! Courses are documents: JSON in one column. What is looked for has a column and an index of its own, made by the rule that the search
//! goes by (`small`). A deleted course stays, marked, for those who are enrolled in it.

use std::path::PathBuf;

use highwater::Client;
use highwater_service::View;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::answers::{self, Failing, Failure, deadline, read, wait_fresh};
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
    let telemetry = Telemetry::new("school_courses", &[READ_MODEL])?;
    let telling = answers::tell(settings.service.metrics_address(), telemetry.clone(), stop.clone());
    let serving = async {
        tokio::select! {
            () = stop.wait() => Ok(()),
            prepared = prepare(settings, &telemetry) => prepared?.serve(&telemetry, stop).await,
        }
    };
    tokio::try_join!(telling, serving)?;
    Ok(())
}

/// All that is there before the first request.
struct Prepared {
    client: Client,
    view: View<Database<CourseTables>>,
    failing: Failing,
    routes: Routes,
    listener: TcpListener,
}

async fn prepare(settings: &Settings, telemetry: &Telemetry) -> Result<Prepared, Failure> {
    let client = settings.service.connect().await?;
    let (view, failing) = answers::follow::<CourseTables>(&client, COURSE_EVENTS, &settings.database).await?;
    let answering = Answering {
        view: view.clone(),
        telemetry: telemetry.clone(),
    };
    let mut routes = Routes::builder();
    routes.add_service(CourseServiceServer::new(answering));
    Ok(Prepared {
        client,
        view,
        failing,
        routes: answers::described(routes)?,
        listener: serving::listen("courses", settings.service.address()).await?,
    })
}

impl Prepared {
    async fn serve(self, telemetry: &Telemetry, stop: &Stop) -> Result<(), Failure> {
        let decided = Decided::new(telemetry.registry())?;
        let route = worker::route(COURSE_COMMANDS, COURSE_EVENTS, COURSE_GROUP);
        let answering = serving::grpc(self.listener, self.routes, telemetry.clone(), stop.clone());
        tokio::try_join!(
            async {
                answering.await;
                Ok::<(), Failure>(())
            },
            async { Ok(worker::work::<Courses>(&self.client, route, &decided, stop).await?) },
            answers::tell_caught_up(&self.view, telemetry, READ_MODEL, stop),
            answers::watch_lost(&self.view, stop),
            self.failing.watch(stop),
        )?;
        Ok(())
    }
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
            small_title TEXT NOT NULL,
            document TEXT NOT NULL CHECK (json_valid(document))
        ) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS titles ON courses (id, deleted, small_title) WHERE NOT deleted;
    ";

    fn take_in(transaction: &Transaction<'_>, id: &str, change: &CourseChange) -> rusqlite::Result<()> {
        match change {
            CourseChange::Created(details) | CourseChange::Updated(details) => {
                let document = serde_json::to_string(details);
                let document = document.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                let upsert = "INSERT INTO courses (id, deleted, small_title, document) VALUES (?1, FALSE, ?2, ?3)
                    ON CONFLICT (id) DO UPDATE
                    SET deleted = FALSE, small_title = excluded.small_title, document = excluded.document";
                transaction.execute(upsert, params![id, small(&details.title), document])?;
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

/// The text in small letters, of any alphabet, letter by letter: so what is a part of a text is one also in small letters.
fn small(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Courses behind an id that are not deleted, with that in their title, at most so many. What is looked through is the index alone; of the
/// documents only those of the page are read.
const PAGE: &str = "SELECT id, deleted, document FROM courses WHERE id IN (
        SELECT id FROM courses INDEXED BY titles
        WHERE id > ?1 AND NOT deleted AND instr(small_title, ?2) > 0
        ORDER BY id LIMIT ?3
    ) ORDER BY id";

fn page(connection: &Connection, after: &str, title_part: &str, limit: u32) -> rusqlite::Result<Vec<Course>> {
    let mut query = connection.prepare(PAGE)?;
    let found = query.query_map(params![after, small(title_part), limit], course_in)?;
    found.collect()
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
        let until = deadline(request.fresh.as_ref());
        wait_fresh(&self.view, request.fresh, until).await?;
        let query = |connection: &Connection| one(connection, &request.id);
        let found = read(&self.view, |database| database.read(query))?;
        let found = found.filter(|course| !course.deleted);
        found.ok_or_else(|| Status::not_found(format!("there is no course {}", request.id)))
    }

    async fn list(&self, request: ListCoursesRequest) -> Result<ListCoursesResponse, Status> {
        let limit = limits::page(request.limit)?;
        limits::no_longer("title_part", &request.title_part, NAME_LETTERS_MAX)?;
        let until = deadline(request.fresh.as_ref());
        wait_fresh(&self.view, request.fresh, until).await?;
        let query = |connection: &Connection| page(connection, &request.after, &request.title_part, limit + 1);
        let mut courses = read(&self.view, |database| database.read(query))?;
        let more = courses.len() > limit as usize;
        courses.truncate(limit as usize);
        Ok(ListCoursesResponse { courses, more })
    }

    async fn several(&self, request: GetCoursesRequest) -> Result<GetCoursesResponse, Status> {
        if request.ids.len() > BATCH_MAX {
            let problem = format!("there are {}; at most {BATCH_MAX}", request.ids.len());
            return Err(Invalid::new("ids", problem).into());
        }
        let until = deadline(request.fresh.as_ref());
        wait_fresh(&self.view, request.fresh, until).await?;
        // In one look, so that the courses are of these positions.
        let (positions, courses) = read(&self.view, |database| {
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

    fn details(title: &str) -> CourseDetails {
        CourseDetails {
            title: title.to_owned(),
            description: String::new(),
            credits: 3,
        }
    }

    fn created(title: &str) -> CourseChange {
        CourseChange::Created(details(title))
    }

    fn tables(changes: &[(&str, CourseChange)]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(CourseTables::SCHEMA).unwrap();
        let transaction = connection.transaction().unwrap();
        for (id, change) in changes {
            CourseTables::take_in(&transaction, id, change).unwrap();
        }
        transaction.commit().unwrap();
        connection
    }

    fn found(tables: &Connection, after: &str, part: &str, limit: u32) -> Vec<String> {
        let courses = page(tables, after, part, limit).unwrap();
        courses.into_iter().map(|course| course.id).collect()
    }

    #[test]
    fn titles_are_found_in_small_and_capital_letters_of_any_alphabet() {
        let connection = tables(&[
            ("ethics", created("ÜBER DIE ÉTHIQUE")),
            ("logos", created("ΛΟΓΟΣ, a beginning")),
            ("other", created("Ökonomie")),
            ("other", CourseChange::Updated(details("Etwas anderes"))),
        ]);
        for part in ["über", "Über", "éthiQUE"] {
            assert_eq!(found(&connection, "", part, 9), ["ethics"], "{part}");
        }
        assert_eq!(found(&connection, "", "λογοσ", 9), ["logos"]);
        assert_eq!(
            found(&connection, "", "ökonomie", 9),
            [""; 0],
            "it is called otherwise now"
        );
        assert_eq!(found(&connection, "", "%", 9), [""; 0]);
        assert_eq!(found(&connection, "ethics", "", 1), ["logos"]);
    }

    #[test]
    fn a_search_looks_through_an_index_and_not_through_documents() {
        let connection = tables(&[]);
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {PAGE}")).unwrap();
        let steps = plan
            .query_map(params!["", "", 9], |row| row.get::<_, String>(3))
            .unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        let is_search = |step: &&String| step.contains("USING COVERING INDEX titles (id>?)");
        assert_eq!(steps.iter().filter(is_search).count(), 1, "{steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{steps:?}");
    }

    #[test]
    fn documents_are_found_by_title_and_stay_when_deleted() {
        let connection = tables(&[
            ("logic", created("Logic")),
            ("magic", created("Magic")),
            ("logic-2", created("More \"logic\"")),
            ("magic", CourseChange::Deleted),
        ]);
        let found = |part: &str| found(&connection, "", part, 9);
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
