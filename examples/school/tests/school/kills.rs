//! Every command is handled once and in order per key, while a worker of either service is killed again and again and a node of the cluster
//! is killed, too.
//!
//! The proof: the commands that are in the queues at the end are decided about once more, here, one after the other; the events must be
//! exactly what comes out. And all read models must say what the events say: of the services that were killed, of those that were not, and of
//! those that begin with an empty file.

mod again;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use highwater_school::names::PARTITIONS;
use highwater_school::proto::Freshness;
use highwater_tests::eventually;
use highwater_tests::http::get;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::Code;

use self::again::{Decided, list_students, told_about_courses, told_about_students};
use crate::http::{waiting, with_key};
use crate::program::{PATIENCE, Program, School};

/// Each key has a client of its own, which sends one command after the other: so many students, and courses.
const KEYS: usize = 4;
/// Rounds of commands that each client sends at least; it goes on until all has been killed that is to be.
pub(crate) const ROUNDS: usize = 6;
/// A round that deletes; so the last one does not.
const DELETING: usize = 1;
/// By turns a worker for students and one for courses.
const KILLS: usize = 6;
/// What a worker has handled at least before it is killed.
const HANDLED: u64 = 5;
/// How long an answer waits for what it must be made of.
const WAITED: Duration = Duration::from_secs(5);

/// What commands are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Student,
    Course,
}

#[test]
fn each_command_is_handled_once_and_in_order_whatever_is_killed() {
    let mut school = School::open();
    let steady = start(&school, "steady", None);
    let killed = start(&school, "killed", Some(&steady));
    let gateway = school.start_gateway(&steady.students, &steady.courses);

    let over = AtomicBool::new(false);
    let killed = scope(|scope| {
        for (kind, key) in [Kind::Student, Kind::Course]
            .into_iter()
            .flat_map(|kind| (0..KEYS).map(move |key| (kind, key)))
        {
            let (over, address) = (&over, gateway.address.as_str());
            scope.spawn(move || send_commands(address, kind, key, over));
        }
        let _over = TellOver(&over);
        kill_meanwhile(&mut school, &steady, killed)
    });

    let runtime = Runtime::new().unwrap();
    let (students, courses) = (
        Decided::students(&runtime, &school),
        Decided::courses(&runtime, &school),
    );
    let fresh = start(&school, "fresh", Some(&steady));
    for (name, workers) in [("steady", &steady), ("killed", &killed), ("fresh", &fresh)] {
        let told = runtime.block_on(told_about_students(&workers.students, &students.ends));
        assert_eq!(told, students.model, "the read model of students: {name}");
        let told = runtime.block_on(told_about_courses(&workers.courses, &courses.ends));
        assert_eq!(told, courses.model, "the read model of courses: {name}");
    }
    what_has_not_happened_is_waited_for_once(&runtime, &fresh.students, &students.ends);
}

/// A service of each kind.
struct Workers {
    students: Program,
    courses: Program,
}

/// Databases are called by the name. Whoever shows a student's courses asks a service that is not killed.
fn start(school: &School, name: &str, steady: Option<&Workers>) -> Workers {
    let courses = start_courses(school, name);
    let asked = steady.map_or(&courses, |steady| &steady.courses);
    Workers {
        students: start_students(school, name, asked),
        courses,
    }
}

fn start_students(school: &School, name: &str, courses: &Program) -> Program {
    school.start_students(&format!("{name}-students.sqlite"), courses)
}

fn start_courses(school: &School, name: &str) -> Program {
    school.start_courses(&format!("{name}-courses.sqlite"))
}

/// Tells when it is dropped, so also when killing has failed: those who send commands would go on for ever.
struct TellOver<'a>(&'a AtomicBool);

impl Drop for TellOver<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// And then said not to be there; not once for each partition.
fn what_has_not_happened_is_waited_for_once(runtime: &Runtime, service: &Program, ends: &[u64]) {
    let beyond = |within_ms| Freshness {
        positions: ends.iter().map(|end| end + 1).collect(),
        within_ms,
    };
    let begun = Instant::now();
    let refused = runtime.block_on(list_students(service, beyond(None))).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let waited = begun.elapsed();
    assert!(waited >= WAITED, "{waited:?}");
    assert!(waited < WAITED * PARTITIONS, "{waited:?}");

    let refused = runtime.block_on(list_students(service, beyond(Some(0)))).unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

/// Rounds of what is right and what is wrong, so that the order of a key's commands decides what becomes of them.
fn send_commands(address: &str, kind: Kind, key: usize, over: &AtomicBool) {
    for round in 0.. {
        if over.load(Ordering::Relaxed) && round > ROUNDS && round % 3 != DELETING + 1 {
            return;
        }
        let (commands, last) = match kind {
            Kind::Student => about_a_student(key, round),
            Kind::Course => about_a_course(key, round),
        };
        for (method, path, body) in commands {
            eventually("a command is taken", PATIENCE, || {
                (with_key(address, method, &path, &body).status == 202).then_some(())
            });
        }
        // Not sent before what was sent so far is decided, so that the queue does not grow while the worker is dead.
        let (method, path, body) = last;
        eventually("a round is decided", PATIENCE, || {
            (waiting(address, method, &path, &body).status == 409).then_some(())
        });
    }
}

/// Method, path and body.
type Sent = (&'static str, String, String);

/// A round, and a command that is rejected behind it.
fn about_a_student(key: usize, round: usize) -> (Vec<Sent>, Sent) {
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
    let last = ("DELETE", format!("{path}/courses/none"), String::new());
    if round % 3 == DELETING {
        commands.push(("DELETE", path, String::new()));
    }
    (commands, last)
}

/// The same.
fn about_a_course(key: usize, round: usize) -> (Vec<Sent>, Sent) {
    let path = format!("/v1/courses/c{key}");
    let created = json!({"id": format!("c{key}"), "title": format!("New {round}"), "credits": round % 7}).to_string();
    let renamed = json!({"title": format!("Renamed {round}"), "credits": key}).to_string();
    let create = ("POST", "/v1/courses".to_owned(), created);
    let rename = ("PUT", path.clone(), renamed);
    let mut commands = vec![create.clone(), rename.clone(), create.clone()];
    if round % 3 != DELETING {
        return (commands, create);
    }
    let delete = ("DELETE", path, String::new());
    commands.extend([delete.clone(), rename]);
    (commands, delete)
}

/// Kills a worker whenever it has just handled some commands, and in the middle of all that a node, which comes back later.
fn kill_meanwhile(school: &mut School, steady: &Workers, mut killed: Workers) -> Workers {
    let mut node = None;
    for kill in 1..=KILLS {
        let kind = if kill % 2 == 1 { Kind::Student } else { Kind::Course };
        eventually("the worker handles commands", PATIENCE, || {
            (handled(&killed, kind) > HANDLED).then_some(())
        });
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
        let Workers { students, courses } = killed;
        killed = match kind {
            Kind::Student => {
                students.kill();
                let students = start_students(school, "killed", &steady.courses);
                Workers { students, courses }
            }
            Kind::Course => {
                courses.kill();
                let courses = start_courses(school, "killed");
                Workers { students, courses }
            }
        };
    }
    killed
}

/// How many commands a worker says that it has decided about.
fn handled(workers: &Workers, kind: Kind) -> u64 {
    let (worker, name) = match kind {
        Kind::Student => (&workers.students, "school_students_commands_total{"),
        Kind::Course => (&workers.courses, "school_courses_commands_total{"),
    };
    let told = get(&worker.metrics, "/metrics").text;
    let lines = told.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}
