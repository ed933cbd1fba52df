//! School: somebody creates courses and students and enrols them, over HTTP, and creates each student once more, which is refused.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Instant;

use highwater_tests::http::{Answer, ask};
use highwater_tests::{Program, TestCluster, beside, run};
use serde_json::{Value, json};

use crate::account::{Account, COMMAND_DEADLINE, PAUSE, count, records};
use crate::shift::Shift;
use crate::{Application, Result};

const KEY: &str = "a-key-for-a-day-at-school";
/// The most that a page has.
const PAGE_MAX: usize = 100;

/// What the gateway said.
pub(crate) struct School {
    gateway: String,
    /// Who may read all topics but that of the commands of the other one.
    students_profile: PathBuf,
    courses_profile: PathBuf,
    gateway_profile: PathBuf,
    /// The commands that it told the fate of.
    decided: BTreeSet<String>,
    /// How many students have been created, and enrolled in one course each.
    students: u64,
}

/// Prepares the cluster, and starts the two services and the gateway.
///
/// # Errors
/// If `school init` fails.
pub(crate) fn start(cluster: &TestCluster, programs: &mut Vec<Program>) -> Result<School> {
    let init = run(
        beside("school").arg("init").arg("--profile").arg(cluster.profile()),
        COMMAND_DEADLINE,
    );
    if !init.status.success() {
        return Err(format!("school init: {}", init.stderr.trim()));
    }
    let keys = cluster.directory().join("api-keys");
    std::fs::write(&keys, format!("{KEY}\n")).map_err(|error| format!("the file of keys: {error}"))?;
    let keys = keys.to_string_lossy();
    let [courses_profile, students_profile, gateway_profile] =
        ["courses", "students", "gateway"].map(|client| cluster.profile_for("school", client));
    let mut service = |name: &str, profile: &PathBuf, arguments: &[&str]| {
        let mut command = beside("school");
        command.arg(name).arg("--profile").arg(profile).args(arguments);
        let mut program = Program::start(&format!("school-{name}"), &mut command, cluster.directory());
        program.wait_ready();
        let address = program.address(name);
        programs.push(program);
        address
    };
    let at = |address: String| format!("http://{address}");
    let courses = at(service("courses", &courses_profile, &["--database", "courses.sqlite"]));
    let database = ["--database", "students.sqlite", "--courses", &courses];
    let students = at(service("students", &students_profile, &database));
    let others = ["--students", &students, "--courses", &courses, "--api-keys", &keys];
    Ok(School {
        gateway: service("gateway", &gateway_profile, &others),
        students_profile,
        courses_profile,
        gateway_profile,
        decided: BTreeSet::new(),
        students: 0,
    })
}

impl Application for School {
    fn name(&self) -> &'static str {
        "school"
    }

    fn work(&mut self, shift: &Shift) -> Result<String> {
        let before = self.students;
        let working = shift.working();
        while working.next().is_some() {
            self.enrol_one()?;
            working.done();
        }
        let enrolled = self.students - before;
        Ok(format!(
            "{enrolled} courses are taught to {enrolled} students, each of whom was sent twice"
        ))
    }

    fn account(&mut self, cluster: &TestCluster, account: &mut Account) -> Result<()> {
        self.account_of_commands(cluster, account)?;
        self.account_of_students(account)?;
        account.none("commands", || {
            let decided = &self.decided - &self.handled(cluster)?;
            Ok(vec![(
                "whose fate was told, and that have no result",
                decided.len() as u64,
            )])
        })
    }
}

impl School {
    fn account_of_commands(&self, cluster: &TestCluster, account: &mut Account) -> Result<()> {
        for (what, commands, profile, events) in [
            (
                "commands about students",
                "student-commands",
                &self.students_profile,
                "students",
            ),
            (
                "commands about courses",
                "course-commands",
                &self.courses_profile,
                "courses",
            ),
        ] {
            account.same(what, || {
                let results = records(cluster, &self.gateway_profile, events, "%v")?;
                let different: BTreeSet<String> = results.iter().filter_map(|event| command_of(event)).collect();
                Ok(vec![
                    ("in the queue", count(&records(cluster, profile, commands, "%p/%o")?)),
                    ("results", count(&results)),
                    ("commands that have one", different.len() as u64),
                ])
            })?;
        }
        Ok(())
    }

    fn account_of_students(&self, account: &mut Account) -> Result<()> {
        account.same("students", || {
            let students = self.listed("students")?;
            let mut enrolled = 0;
            for student in &students {
                enrolled += self.enrolments(student)?;
            }
            Ok(vec![
                ("created", self.students),
                ("listed", count(&students)),
                ("enrolments", enrolled),
                ("courses", count(&self.listed("courses")?)),
            ])
        })
    }

    /// The commands that there are results of, as the gateway calls them.
    fn handled(&self, cluster: &TestCluster) -> Result<BTreeSet<String>> {
        let mut handled = BTreeSet::new();
        for (commands, events) in [("student-commands", "students"), ("course-commands", "courses")] {
            let results = records(cluster, &self.gateway_profile, events, "%v")?;
            let commands = results
                .iter()
                .filter_map(|event| Some(format!("{commands}/{}", command_of(event)?)));
            handled.extend(commands);
        }
        Ok(handled)
    }

    /// A course, a student who attends it, and the student once more.
    fn enrol_one(&mut self) -> Result<()> {
        let number = self.students + 1;
        let (course, student) = (format!("course-{number}"), format!("student-{number}"));
        let created =
            json!({ "id": student, "name": format!("Student {number}"), "email": "s@school.example" }).to_string();
        let taught = json!({ "id": course, "title": format!("Course {number}"), "credits": 3 }).to_string();
        self.command("POST", "/v1/courses", &taught)?;
        self.command("POST", "/v1/students", &created)?;
        self.command("PUT", &format!("/v1/students/{student}/courses/{course}"), "")?;
        let again = self.command("POST", "/v1/students", &created)?;
        if again["state"] != "rejected" {
            return Err(format!("{student} was created twice: {again}"));
        }
        self.students = number;
        Ok(())
    }

    /// Sends a command until its fate is known. Each may be sent again: what has been done is refused then.
    fn command(&mut self, method: &str, path: &str, body: &str) -> Result<Value> {
        let mut said = String::new();
        let until = Instant::now() + COMMAND_DEADLINE;
        while Instant::now() < until {
            let answer = self.ask(method, path, body);
            if matches!(answer.status, 200 | 409) {
                let fate = answer.json();
                self.decided.extend(fate["command"].as_str().map(str::to_owned));
                return Ok(fate);
            }
            said = format!("{}: {}", answer.status, answer.text.trim());
            if matches!(answer.status, 400..=499) {
                break;
            }
            sleep(PAUSE);
        }
        Err(format!("{method} {path}: {said}"))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(
            &self.gateway,
            method,
            path,
            &[("x-api-key", KEY), ("prefer", "wait=20")],
            body,
        )
    }

    /// The ids of all students, or courses.
    fn listed(&self, what: &str) -> Result<Vec<String>> {
        let mut ids: Vec<String> = Vec::new();
        loop {
            let after = ids.last().map_or(String::new(), |last| format!("&after={last}"));
            let answer = self.ask("GET", &format!("/v1/{what}?limit={PAGE_MAX}{after}"), "");
            if answer.status != 200 {
                return Err(format!(
                    "{what} are not listed: {} {}",
                    answer.status,
                    answer.text.trim()
                ));
            }
            let page = answer.json();
            let found = page[what].as_array().cloned().unwrap_or_default();
            ids.extend(found.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())));
            if page["more"] != true {
                return Ok(ids);
            }
        }
    }

    /// In how many courses that are taught the student is enrolled.
    fn enrolments(&self, student: &str) -> Result<u64> {
        let answer = self.ask("GET", &format!("/v1/students/{student}/courses"), "");
        if answer.status != 200 {
            return Err(format!("{student}: {} {}", answer.status, answer.text.trim()));
        }
        let enrolments = answer.json()["enrolments"].as_array().cloned().unwrap_or_default();
        Ok(enrolments.iter().filter(|one| one["state"] == "active").count() as u64)
    }
}

/// The command that an event is about, `PARTITION/OFFSET`.
fn command_of(event: &str) -> Option<String> {
    let event: Value = serde_json::from_str(event).ok()?;
    Some(event["command"].as_str()?.to_owned())
}
