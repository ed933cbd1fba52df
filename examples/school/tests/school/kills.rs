//! Every command is handled once and in order per key, while a worker is killed again and again and a node of the cluster is killed, too.
//!
//! The proof: the commands that are in the queue at the end are decided about once more, here, one after the other; the events must be
//! exactly what comes out. And all read models must say what the events say: of the service that was killed, of the one that was not, and of one
//! that begins with an empty file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use highwater::{Client, ConsumedRecord, Profile};
use highwater_school::command::{self, Register};
use highwater_school::names::{PARTITIONS, STUDENT_COMMANDS, STUDENT_EVENTS};
use highwater_school::proto::student_service_client::StudentServiceClient;
use highwater_school::proto::{Freshness, GetStudentCoursesRequest, ListStudentsRequest, Student};
use highwater_school::student::{StudentChange, Students};
use highwater_service::transform::source_of;
use highwater_tests::eventually;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::http::{get, waiting, with_key};
use crate::program::{PATIENCE, Program, School};

/// Each key has a client of its own, which sends one command after the other.
const KEYS: usize = 6;
/// Rounds of commands that each client sends at least; it goes on until all has been killed that is to be.
const ROUNDS: usize = 6;
/// A round that deletes the student; so the last one does not.
const DELETING: usize = 1;
const ROUNDS_MAX: usize = 600;
const KILLS: usize = 4;

/// A student's name, and what the student is enrolled in, by id.
type ReadModel = BTreeMap<String, (String, BTreeSet<String>)>;

#[test]
fn each_command_is_handled_once_and_in_order_whatever_is_killed() {
    let mut school = School::open();
    let courses = school.start_courses("courses.sqlite");
    let steady = school.start_students("steady.sqlite", &courses);
    let killed = school.start_students("killed.sqlite", &courses);
    let gateway = school.start_gateway(&steady, &courses);

    let over = AtomicBool::new(false);
    let killed = scope(|scope| {
        for key in 0..KEYS {
            let (over, address) = (&over, gateway.address.as_str());
            scope.spawn(move || send_commands(address, key, over));
        }
        let killed = kill_meanwhile(&mut school, &courses, killed);
        over.store(true, Ordering::Relaxed);
        killed
    });

    let runtime = Runtime::new().unwrap();
    let commands = runtime.block_on(records(&school.students, STUDENT_COMMANDS));
    assert!(commands.iter().map(Vec::len).sum::<usize>() >= KEYS * ROUNDS);
    let events = eventually("every command has an event", PATIENCE, || {
        let events = runtime.block_on(records(&school.gateway, STUDENT_EVENTS));
        let has_all = |(commands, events): (&Vec<_>, &Vec<_>)| events.len() >= commands.len();
        commands.iter().zip(&events).all(has_all).then_some(events)
    });
    let ends: Vec<u64> = events.iter().map(|events| events.len() as u64).collect();
    let wanted = decided_again(&commands, &events);
    assert!(!wanted.is_empty());

    let fresh = school.start_students("fresh.sqlite", &courses);
    for (name, program) in [("steady", &steady), ("killed", &killed), ("fresh", &fresh)] {
        let told = runtime.block_on(read_model(program, &ends));
        assert_eq!(told, wanted, "the read model of {name}");
    }
    // What has not happened yet is waited for, and then said not to be there.
    let beyond = Freshness {
        positions: ends.iter().map(|end| end + 1).collect(),
    };
    let refused = runtime.block_on(list(&fresh, Some(beyond))).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

/// Rounds of what is right and what is wrong, so that the order of a key's commands decides what becomes of them.
fn send_commands(address: &str, key: usize, over: &AtomicBool) {
    for round in 0..ROUNDS_MAX {
        if over.load(Ordering::Relaxed) && round > ROUNDS && round % 3 != DELETING + 1 {
            return;
        }
        for (method, path, body) in round_of(key, round) {
            eventually("a command is taken", PATIENCE, || {
                (with_key(address, method, &path, &body).status == 202).then_some(())
            });
        }
        // Not sent before what was sent so far is decided, so that the queue does not grow while the worker is dead.
        let path = format!("/v1/students/s{key}/courses/none");
        eventually("a round is decided", PATIENCE, || {
            (waiting(address, "DELETE", &path, "").status == 409).then_some(())
        });
    }
    panic!("all is not killed after {ROUNDS_MAX} rounds");
}

fn round_of(key: usize, round: usize) -> Vec<(&'static str, String, String)> {
    let path = format!("/v1/students/s{key}");
    let renamed = json!({"name": format!("Renamed {round}"), "email": "s@example.org"}).to_string();
    let created =
        json!({"id": format!("s{key}"), "name": format!("New {round}"), "email": "s@example.org"}).to_string();
    let mut commands = vec![
        ("POST", "/v1/students".to_owned(), created.clone()),
        ("PUT", format!("{path}/courses/logic"), String::new()),
        ("PUT", format!("{path}/courses/round-{}", round % 7), String::new()),
        ("PUT", path.clone(), renamed),
        ("PUT", format!("{path}/courses/logic"), String::new()),
        ("DELETE", format!("{path}/courses/logic"), String::new()),
        ("POST", "/v1/students".to_owned(), created),
    ];
    if round % 3 == DELETING {
        commands.push(("DELETE", path, String::new()));
    }
    commands
}

/// Kills the worker whenever it has just handled some commands, and in the middle of all that a node, which comes back later.
fn kill_meanwhile(school: &mut School, courses: &Program, mut worker: Program) -> Program {
    let mut node = None;
    for kill in 1..=KILLS {
        eventually("the worker handles commands", PATIENCE, || {
            (handled(&worker) > 5).then_some(())
        });
        worker.kill();
        match node {
            None if kill == KILLS / 2 => {
                // It coordinates the group, and leads a partition of commands.
                let leader = school.cluster.leader("school/student-commands", 0);
                school.cluster.node(leader).kill();
                node = Some(leader);
            }
            Some(node) if kill == KILLS => school.cluster.node(node).start(),
            _ => (),
        }
        worker = school.start_students("killed.sqlite", courses);
    }
    worker
}

/// How many commands a worker says that it has decided about.
fn handled(worker: &Program) -> u64 {
    let told = get(&worker.metrics, "/metrics").text;
    let lines = told
        .lines()
        .filter(|line| line.starts_with("school_students_commands_total{"));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

async fn client(profile: &Path) -> Client {
    Client::from_profile(&Profile::load(profile).unwrap()).await.unwrap()
}

/// By partition, all records of a topic.
async fn records(profile: &Path, topic: &str) -> Vec<Vec<ConsumedRecord>> {
    let mut consumer = client(profile)
        .await
        .consume_topic(topic)
        .stop_at_end()
        .build()
        .await
        .unwrap();
    let mut partitions = vec![Vec::new(); PARTITIONS as usize];
    while let Some(record) = consumer.next_record().await {
        let record = record.unwrap();
        partitions[record.partition as usize].push(record);
    }
    partitions
}

/// Decides about all commands once more, one after the other; the events must be what comes out, each where its command is. What the
/// read models must say at the end.
fn decided_again(commands: &[Vec<ConsumedRecord>], events: &[Vec<ConsumedRecord>]) -> ReadModel {
    let mut model = ReadModel::new();
    for (commands, events) in commands.iter().zip(events) {
        assert_eq!(commands.len(), events.len(), "as many events as commands");
        let mut students = Students::default();
        for (command, event) in commands.iter().zip(events) {
            let wanted = command::event_record(&command::decide(&students, command), command);
            assert_eq!((&event.key, &event.value), (&wanted.key, &wanted.value), "{command:?}");
            assert_eq!(source_of(event), Some(command.offset));
            if let Some((id, change)) = command::change_in::<StudentChange>(event) {
                students.take_in(id, &change);
                take_in(&mut model, id, change);
            }
        }
    }
    model
}

fn take_in(model: &mut ReadModel, id: &str, change: StudentChange) {
    let student = model.entry(id.to_owned()).or_default();
    match change {
        StudentChange::Created(details) | StudentChange::Updated(details) => student.0 = details.name,
        StudentChange::Enrolled { course } => drop(student.1.insert(course)),
        StudentChange::Withdrawn { course } => drop(student.1.remove(&course)),
        StudentChange::Deleted => drop(model.remove(id)),
    }
}

async fn list(program: &Program, fresh: Option<Freshness>) -> Result<Vec<Student>, Status> {
    let mut service = StudentServiceClient::connect(program.url()).await.unwrap();
    let request = ListStudentsRequest {
        fresh,
        ..ListStudentsRequest::default()
    };
    let page = service.list_students(request).await?.into_inner();
    assert!(!page.more);
    Ok(page.students)
}

/// What a service says, once it is made of all below these positions.
async fn read_model(program: &Program, positions: &[u64]) -> ReadModel {
    let fresh = Some(Freshness {
        positions: positions.to_vec(),
    });
    let mut service = StudentServiceClient::connect(program.url()).await.unwrap();
    let mut model = ReadModel::new();
    for student in list(program, fresh.clone()).await.unwrap() {
        let request = GetStudentCoursesRequest {
            id: student.id.clone(),
            fresh: fresh.clone(),
            courses_fresh: None,
        };
        let answer = service.get_student_courses(request).await.unwrap().into_inner();
        let courses = answer.enrolments.into_iter().map(|enrolment| enrolment.course_id);
        model.insert(student.id, (student.name, courses.collect()));
    }
    model
}
