//! What must have become of all commands, decided once more; and what services say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use highwater::{Client, ConsumedRecord, Profile};
use highwater_school::command::{self, Register};
use highwater_school::course::{CourseChange, Courses};
use highwater_school::names::{COURSE_COMMANDS, COURSE_EVENTS, PARTITIONS, STUDENT_COMMANDS, STUDENT_EVENTS};
use highwater_school::proto::course_service_client::CourseServiceClient;
use highwater_school::proto::student_service_client::StudentServiceClient;
use highwater_school::proto::{Freshness, GetStudentCoursesRequest, ListCoursesRequest, ListStudentsRequest, Student};
use highwater_school::student::{StudentChange, Students};
use highwater_service::transform::source_of;
use highwater_tests::eventually;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{KEYS, ROUNDS};
use crate::program::{PATIENCE, Program, School};

/// By student, the name, and what the student is enrolled in.
type StudentModel = BTreeMap<String, (String, BTreeSet<String>)>;
/// By course, the title and what it counts for.
type CourseModel = BTreeMap<String, (String, u32)>;

/// What must have become of all commands of a kind.
pub(super) struct Decided<M> {
    /// What read models must say.
    pub(super) model: M,
    /// Where the events end, by partition.
    pub(super) ends: Vec<u64>,
}

impl Decided<StudentModel> {
    pub(super) fn students(runtime: &Runtime, school: &School) -> Self {
        let topics = [
            (school.students.as_path(), STUDENT_COMMANDS),
            (&school.gateway, STUDENT_EVENTS),
        ];
        all_again::<Students, _>(runtime, topics, take_in_student)
    }
}

impl Decided<CourseModel> {
    pub(super) fn courses(runtime: &Runtime, school: &School) -> Self {
        let topics = [
            (school.courses.as_path(), COURSE_COMMANDS),
            (&school.gateway, COURSE_EVENTS),
        ];
        all_again::<Courses, _>(runtime, topics, take_in_course)
    }
}

fn take_in_student(model: &mut StudentModel, id: &str, change: StudentChange) {
    let student = model.entry(id.to_owned()).or_default();
    match change {
        StudentChange::Created(details) | StudentChange::Updated(details) => student.0 = details.name,
        StudentChange::Enrolled { course } => drop(student.1.insert(course)),
        StudentChange::Withdrawn { course } => drop(student.1.remove(&course)),
        StudentChange::Deleted => drop(model.remove(id)),
    }
}

fn take_in_course(model: &mut CourseModel, id: &str, change: CourseChange) {
    match change {
        CourseChange::Created(details) | CourseChange::Updated(details) => {
            model.insert(id.to_owned(), (details.title, details.credits));
        }
        CourseChange::Deleted => drop(model.remove(id)),
    }
}

/// Waits until every command has an event, and decides about all of them. `topics`: of commands and of events, and as whom they are read.
fn all_again<R: Register, M: Default + PartialEq>(
    runtime: &Runtime,
    topics: [(&Path, &str); 2],
    take_in: impl Fn(&mut M, &str, R::Change),
) -> Decided<M> {
    let [commands, events] = topics;
    let commands = runtime.block_on(records(commands));
    assert!(commands.iter().map(Vec::len).sum::<usize>() >= KEYS * ROUNDS);
    let events = eventually("every command has an event", PATIENCE, || {
        let events = runtime.block_on(records(events));
        let has_all = |(commands, events): (&Vec<_>, &Vec<_>)| events.len() >= commands.len();
        commands.iter().zip(&events).all(has_all).then_some(events)
    });
    let model = decided_again::<R, M>(&commands, &events, take_in);
    assert!(model != M::default());
    Decided {
        model,
        ends: events.iter().map(|events| events.len() as u64).collect(),
    }
}

/// Decides about all commands once more, one after the other; the events must be what comes out, each where its command is. What the
/// read models must say at the end.
fn decided_again<R: Register, M: Default>(
    commands: &[Vec<ConsumedRecord>],
    events: &[Vec<ConsumedRecord>],
    take_in: impl Fn(&mut M, &str, R::Change),
) -> M {
    let mut model = M::default();
    for (commands, events) in commands.iter().zip(events) {
        assert_eq!(commands.len(), events.len(), "as many events as commands");
        let mut register = R::default();
        for (command, event) in commands.iter().zip(events) {
            let wanted = command::event_record(&command::decide(&register, command), command);
            assert_eq!((&event.key, &event.value), (&wanted.key, &wanted.value), "{command:?}");
            assert_eq!(source_of(event), Some(command.offset));
            if let Some((id, change)) = command::change_in::<R::Change>(event).unwrap() {
                register.take_in(id, &change);
                take_in(&mut model, id, change);
            }
        }
    }
    model
}

/// By partition, all records of a topic, as the client of that profile reads them.
async fn records((profile, topic): (&Path, &str)) -> Vec<Vec<ConsumedRecord>> {
    let client = Client::from_profile(&Profile::load(profile).unwrap()).await.unwrap();
    let mut consumer = client.consume_topic(topic).stop_at_end().build().await.unwrap();
    let mut partitions = vec![Vec::new(); PARTITIONS as usize];
    while let Some(record) = consumer.next_record().await {
        let record = record.unwrap();
        partitions[record.partition as usize].push(record);
    }
    partitions
}

fn all_below(positions: &[u64]) -> Freshness {
    Freshness {
        positions: positions.to_vec(),
        within_ms: None,
    }
}

/// All students that a service knows.
pub(super) async fn list_students(program: &Program, fresh: Freshness) -> Result<Vec<Student>, Status> {
    let mut service = StudentServiceClient::connect(program.url()).await.unwrap();
    let request = ListStudentsRequest {
        fresh: Some(fresh),
        ..ListStudentsRequest::default()
    };
    let page = service.list_students(request).await?.into_inner();
    assert!(!page.more);
    Ok(page.students)
}

/// Asks until there is an answer: a service waits only a little for what it must be made of, and then says that it is not there yet.
async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Err(status) if status.code() == Code::Unavailable => {}
                answer => return answer.unwrap(),
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap()
}

/// What a service says, once it is made of all below these positions.
pub(super) async fn told_about_students(program: &Program, positions: &[u64]) -> StudentModel {
    let mut service = StudentServiceClient::connect(program.url()).await.unwrap();
    let mut model = StudentModel::new();
    for student in patiently(async || list_students(program, all_below(positions)).await).await {
        let request = GetStudentCoursesRequest {
            id: student.id.clone(),
            fresh: Some(all_below(positions)),
            courses_fresh: None,
        };
        let answer = patiently(async || service.get_student_courses(request.clone()).await).await;
        let answer = answer.into_inner();
        let courses = answer.enrolments.into_iter().map(|enrolment| enrolment.course_id);
        model.insert(student.id, (student.name, courses.collect()));
    }
    model
}

/// The same of courses.
pub(super) async fn told_about_courses(program: &Program, positions: &[u64]) -> CourseModel {
    let mut service = CourseServiceClient::connect(program.url()).await.unwrap();
    let request = ListCoursesRequest {
        fresh: Some(all_below(positions)),
        ..ListCoursesRequest::default()
    };
    let page = patiently(async || service.list_courses(request.clone()).await)
        .await
        .into_inner();
    assert!(!page.more);
    let courses = page.courses.into_iter();
    courses
        .map(|course| (course.id, (course.title, course.credits)))
        .collect()
}
