//! The students' service: it handles commands about students, keeps a read model of their events, and answers from it.
//!
//! Any number of these may run. Each has a database of its own, made of all events; the commands they share as a group. What a student's
//! courses are called is asked of the courses' service ([`crate::cache`]).

use std::path::PathBuf;

use highwater::Client;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::{Start, View};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::answers::{self, Failing, Failure, deadline, read, wait_fresh};
use crate::cache::{CourseCache, KnownCourses};
use crate::database::{Database, Tables};
use crate::limits;
use crate::names::{COURSE_EVENTS, STUDENT_COMMANDS, STUDENT_EVENTS, STUDENT_GROUP};
use crate::proto::course_service_client::CourseServiceClient;
use crate::proto::student_service_server::{StudentService, StudentServiceServer};
use crate::proto::{
    Course, CourseState, Enrolment, GetStudentCoursesRequest, GetStudentCoursesResponse, GetStudentRequest,
    ListStudentsRequest, ListStudentsResponse, Student,
};
use crate::student::{StudentChange, Students};
use crate::worker::{self, Decided};

/// What readiness waits for.
const READ_MODEL: &str = "students";

/// Settings of `school students`.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service can be told.
    #[command(flatten)]
    pub service: ServiceSettings,
    /// The file of the read model; made if it is not there, and for this process only.
    #[arg(long, env = "DATABASE", value_name = "FILE")]
    pub database: PathBuf,
    /// Where the courses' service answers.
    #[arg(long, env = "COURSES", value_name = "URL")]
    pub courses: String,
}

/// Serves until `stop`.
///
/// # Errors
/// What keeps the service from going on, in words.
pub async fn run(settings: &Settings, stop: &Stop) -> Result<(), Failure> {
    let telemetry = Telemetry::new("school_students", &[READ_MODEL])?;
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
    view: View<Database<StudentTables>>,
    failing: Failing,
    cache: View<CourseCache>,
    routes: Routes,
    listener: TcpListener,
}

async fn prepare(settings: &Settings, telemetry: &Telemetry) -> Result<Prepared, Failure> {
    let courses = CourseServiceClient::new(answers::channel("courses", &settings.courses)?);
    let client = settings.service.connect().await?;
    let (view, failing) = answers::follow::<StudentTables>(&client, STUDENT_EVENTS, &settings.database).await?;
    let cache = CourseCache::new(telemetry.registry())?;
    // Nothing is kept yet, so nothing that has happened matters.
    let cache = View::open(&client, COURSE_EVENTS, Start::LastRecord, cache).await?;
    let answering = Answering {
        view: view.clone(),
        courses: KnownCourses::new(cache.clone(), courses),
        telemetry: telemetry.clone(),
    };
    let mut routes = Routes::builder();
    routes.add_service(StudentServiceServer::new(answering));
    Ok(Prepared {
        client,
        view,
        failing,
        cache,
        routes: answers::described(routes)?,
        listener: serving::listen("students", settings.service.address()).await?,
    })
}

impl Prepared {
    async fn serve(self, telemetry: &Telemetry, stop: &Stop) -> Result<(), Failure> {
        let decided = Decided::new(telemetry.registry())?;
        let route = worker::route(STUDENT_COMMANDS, STUDENT_EVENTS, STUDENT_GROUP);
        let answering = serving::grpc(self.listener, self.routes, telemetry.clone(), stop.clone());
        tokio::try_join!(
            async {
                answering.await;
                Ok::<(), Failure>(())
            },
            async { Ok(worker::work::<Students>(&self.client, route, &decided, stop).await?) },
            answers::tell_caught_up(&self.view, telemetry, READ_MODEL, stop),
            answers::watch_lost(&self.view, stop),
            answers::watch_lost(&self.cache, stop),
            self.failing.watch(stop),
        )?;
        Ok(())
    }
}

/// Students and enrolments, a row each.
#[derive(Debug)]
pub struct StudentTables;

impl Tables for StudentTables {
    type Change = StudentChange;
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS students (id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS enrolments (student TEXT, course TEXT, PRIMARY KEY (student, course)) WITHOUT ROWID;
    ";

    fn take_in(transaction: &Transaction<'_>, id: &str, change: &StudentChange) -> rusqlite::Result<()> {
        match change {
            StudentChange::Created(details) | StudentChange::Updated(details) => {
                let upsert = "INSERT INTO students VALUES (?1, ?2, ?3)
                    ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email";
                transaction.execute(upsert, params![id, details.name, details.email])?;
            }
            StudentChange::Deleted => {
                transaction.execute("DELETE FROM students WHERE id = ?1", [id])?;
                transaction.execute("DELETE FROM enrolments WHERE student = ?1", [id])?;
            }
            StudentChange::Enrolled { course } => {
                transaction.execute("INSERT OR IGNORE INTO enrolments VALUES (?1, ?2)", [id, course])?;
            }
            StudentChange::Withdrawn { course } => {
                transaction.execute(
                    "DELETE FROM enrolments WHERE student = ?1 AND course = ?2",
                    [id, course],
                )?;
            }
        }
        Ok(())
    }
}

fn student_in(row: &Row<'_>) -> rusqlite::Result<Student> {
    Ok(Student {
        id: row.get(0)?,
        name: row.get(1)?,
        email: row.get(2)?,
    })
}

fn one(connection: &Connection, id: &str) -> rusqlite::Result<Option<Student>> {
    let query = "SELECT id, name, email FROM students WHERE id = ?1";
    connection.query_row(query, [id], student_in).optional()
}

/// Students behind an id, at most so many.
fn page(connection: &Connection, after: &str, limit: u32) -> rusqlite::Result<Vec<Student>> {
    let mut query = connection.prepare("SELECT id, name, email FROM students WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    query.query_map(params![after, limit], student_in)?.collect()
}

/// What a student is enrolled in, if there is such a student.
fn enrolled(connection: &Connection, id: &str) -> rusqlite::Result<Option<Vec<String>>> {
    if one(connection, id)?.is_none() {
        return Ok(None);
    }
    let mut query = connection.prepare("SELECT course FROM enrolments WHERE student = ?1 ORDER BY course")?;
    let courses: rusqlite::Result<_> = query.query_map([id], |row| row.get(0))?.collect();
    courses.map(Some)
}

/// What answers.
struct Answering {
    view: View<Database<StudentTables>>,
    courses: KnownCourses,
    telemetry: Telemetry,
}

impl Answering {
    async fn get(&self, request: GetStudentRequest) -> Result<Student, Status> {
        limits::id("id", &request.id)?;
        let until = deadline(request.fresh.as_ref());
        wait_fresh(&self.view, request.fresh, until).await?;
        let query = |connection: &Connection| one(connection, &request.id);
        let found = read(&self.view, |database| database.read(query))?;
        found.ok_or_else(|| no_student(&request.id))
    }

    async fn list(&self, request: ListStudentsRequest) -> Result<ListStudentsResponse, Status> {
        let limit = limits::page(request.limit)?;
        let until = deadline(request.fresh.as_ref());
        wait_fresh(&self.view, request.fresh, until).await?;
        let query = |connection: &Connection| page(connection, &request.after, limit + 1);
        let mut students = read(&self.view, |database| database.read(query))?;
        let more = students.len() > limit as usize;
        students.truncate(limit as usize);
        Ok(ListStudentsResponse { students, more })
    }

    async fn courses(&self, request: GetStudentCoursesRequest) -> Result<GetStudentCoursesResponse, Status> {
        limits::id("id", &request.id)?;
        let until = deadline(request.fresh.as_ref()).min(deadline(request.courses_fresh.as_ref()));
        wait_fresh(&self.view, request.fresh, until).await?;
        wait_fresh(self.courses.view(), request.courses_fresh, until).await?;
        let query = |connection: &Connection| enrolled(connection, &request.id);
        let found = read(&self.view, |database| database.read(query))?;
        let ids = found.ok_or_else(|| no_student(&request.id))?;
        let (mut known, cached) = self.courses.get(&ids, until).await?;
        let enrolments = ids.into_iter().map(|id| enrolment(known.remove(&id), id)).collect();
        Ok(GetStudentCoursesResponse { enrolments, cached })
    }
}

fn enrolment(course: Option<Course>, course_id: String) -> Enrolment {
    let state = match &course {
        None => CourseState::Unknown,
        Some(course) if course.deleted => CourseState::Deleted,
        Some(_) => CourseState::Active,
    };
    Enrolment {
        course_id,
        state: state.into(),
        course,
    }
}

fn no_student(id: &str) -> Status {
    Status::not_found(format!("there is no student {id}"))
}

#[tonic::async_trait]
impl StudentService for Answering {
    async fn get_student(&self, request: Request<GetStudentRequest>) -> Result<Response<Student>, Status> {
        let counted = self.telemetry.request("GetStudent");
        counted.answered(self.get(request.into_inner()).await.map(Response::new))
    }

    async fn list_students(
        &self,
        request: Request<ListStudentsRequest>,
    ) -> Result<Response<ListStudentsResponse>, Status> {
        let counted = self.telemetry.request("ListStudents");
        counted.answered(self.list(request.into_inner()).await.map(Response::new))
    }

    async fn get_student_courses(
        &self,
        request: Request<GetStudentCoursesRequest>,
    ) -> Result<Response<GetStudentCoursesResponse>, Status> {
        let counted = self.telemetry.request("GetStudentCourses");
        counted.answered(self.courses(request.into_inner()).await.map(Response::new))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::student::StudentDetails;

    fn created(name: &str) -> StudentChange {
        StudentChange::Created(StudentDetails {
            name: name.to_owned(),
            email: "x@example.org".to_owned(),
        })
    }

    fn enrolled_in(course: &str) -> StudentChange {
        StudentChange::Enrolled {
            course: course.to_owned(),
        }
    }

    fn tables(changes: &[(&str, StudentChange)]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(StudentTables::SCHEMA).unwrap();
        let transaction = connection.transaction().unwrap();
        for (id, change) in changes {
            StudentTables::take_in(&transaction, id, change).unwrap();
        }
        transaction.commit().unwrap();
        connection
    }

    #[test]
    fn rows_are_what_the_changes_say() {
        let withdrawn = StudentChange::Withdrawn {
            course: "logic".to_owned(),
        };
        let changes = [
            ("ada", created("Ada")),
            ("ada", enrolled_in("logic")),
            ("ada", enrolled_in("algebra")),
            ("ada", withdrawn),
            ("bob", created("Bob")),
            ("bob", enrolled_in("logic")),
            ("bob", StudentChange::Deleted),
            ("bob", created("Bob again")),
        ];
        let tables = tables(&changes);
        assert_eq!(one(&tables, "bob").unwrap().unwrap().name, "Bob again");
        assert_eq!(enrolled(&tables, "ada").unwrap().unwrap(), ["algebra"]);
        assert_eq!(enrolled(&tables, "bob").unwrap().unwrap(), [""; 0]);
        assert_eq!(enrolled(&tables, "eve").unwrap(), None);
    }

    #[test]
    fn pages_follow_each_other() {
        let tables = tables(&[("c", created("C")), ("a", created("A")), ("b", created("B"))]);
        let ids = |after: &str, limit: u32| -> Vec<String> {
            let students = page(&tables, after, limit).unwrap();
            students.into_iter().map(|student| student.id).collect()
        };
        assert_eq!(ids("", 2), ["a", "b"]);
        assert_eq!(ids("b", 2), ["c"]);
    }
}
