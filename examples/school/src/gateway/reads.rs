//! Requests that read: passed on to the services, with what the answer must be made of.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::Reply;
use super::{Gateway, Named, Shared, named};
use crate::limits::Invalid;
use crate::proto::{
    Course, CourseState, Enrolment, GetCourseRequest, GetStudentCoursesRequest, GetStudentRequest, ListCoursesRequest,
    ListStudentsRequest, Student,
};

/// Which page of a list is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: u32,
}

/// The same of courses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CoursePage {
    #[serde(default)]
    after: String,
    #[serde(default)]
    limit: u32,
    #[serde(default)]
    title: String,
}

type Asked<T> = Result<Query<T>, QueryRejection>;

fn asked<T>(query: Asked<T>) -> Result<T, Invalid> {
    query
        .map(|Query(asked)| asked)
        .map_err(|error| Invalid::new("query", error.body_text()))
}

pub(super) async fn get_student(State(gateway): Shared, id: Named<String>) -> Response {
    let answer = async {
        let id = named(id)?;
        let fresh = Some(gateway.student_commands.seen_of(&id));
        let student = gateway
            .students
            .clone()
            .get_student(GetStudentRequest { id, fresh })
            .await?;
        Ok(Reply::ok(student_document(&student.into_inner())))
    };
    gateway.counted("get_student", answer).await
}

pub(super) async fn list_students(State(gateway): Shared, query: Asked<Page>) -> Response {
    let answer = async {
        let Page { after, limit } = asked(query)?;
        let fresh = Some(gateway.student_commands.seen());
        let request = ListStudentsRequest { after, limit, fresh };
        let page = gateway.students.clone().list_students(request).await?.into_inner();
        let students: Vec<Value> = page.students.iter().map(student_document).collect();
        Ok(Reply::ok(json!({ "students": students, "more": page.more })))
    };
    gateway.counted("list_students", answer).await
}

pub(super) async fn get_student_courses(State(gateway): Shared, id: Named<String>) -> Response {
    let answer = async { gateway.enrolments(named(id)?).await };
    gateway.counted("get_student_courses", answer).await
}

pub(super) async fn get_course(State(gateway): Shared, id: Named<String>) -> Response {
    let answer = async {
        let id = named(id)?;
        let fresh = Some(gateway.course_commands.seen_of(&id));
        let course = gateway
            .courses
            .clone()
            .get_course(GetCourseRequest { id, fresh })
            .await?;
        Ok(Reply::ok(course_document(&course.into_inner())))
    };
    gateway.counted("get_course", answer).await
}

pub(super) async fn list_courses(State(gateway): Shared, query: Asked<CoursePage>) -> Response {
    let answer = async {
        let CoursePage { after, limit, title } = asked(query)?;
        let request = ListCoursesRequest {
            after,
            limit,
            title_part: title,
            fresh: Some(gateway.course_commands.seen()),
        };
        let page = gateway.courses.clone().list_courses(request).await?.into_inner();
        let courses: Vec<Value> = page.courses.iter().map(course_document).collect();
        Ok(Reply::ok(json!({ "courses": courses, "more": page.more })))
    };
    gateway.counted("list_courses", answer).await
}

impl Gateway {
    async fn enrolments(&self, id: String) -> Result<Reply, Reply> {
        let request = GetStudentCoursesRequest {
            fresh: Some(self.student_commands.seen_of(&id)),
            courses_fresh: Some(self.course_commands.seen()),
            id,
        };
        let answer = self.students.clone().get_student_courses(request).await?.into_inner();
        let enrolments: Vec<Value> = answer.enrolments.iter().map(enrolment_document).collect();
        Ok(Reply::ok(json!({ "enrolments": enrolments, "cached": answer.cached })))
    }
}

fn student_document(student: &Student) -> Value {
    json!({ "id": student.id, "name": student.name, "email": student.email })
}

fn course_document(course: &Course) -> Value {
    json!({ "id": course.id, "title": course.title, "description": course.description, "credits": course.credits })
}

fn enrolment_document(enrolment: &Enrolment) -> Value {
    let state = match enrolment.state() {
        CourseState::Active => "active",
        CourseState::Deleted => "deleted",
        CourseState::Unknown | CourseState::Unspecified => "unknown",
    };
    json!({ "id": enrolment.course_id, "state": state, "course": enrolment.course.as_ref().map(course_document) })
}
