//! Students: what they are told, what changes by it, and what has to be known to decide.
//!
//! In a command a field that is not known is refused, for nobody would do what it says. In an event it is passed over, for it is of a newer
//! program, and what else the event says holds all the same.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::command::Register;
use crate::limits::{
    self, EMAIL_LETTERS_MAX, ENROLMENTS_MAX, ENROLMENTS_TOTAL_MAX, Invalid, KNOWN_MAX, NAME_LETTERS_MAX,
};

/// What is kept of a student beside the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentDetails {
    /// For people.
    pub name: String,
    /// Where letters go.
    pub email: String,
}

/// The same as an event has them: with fields that this program does not know.
#[derive(Deserialize)]
#[serde(remote = "StudentDetails")]
struct DetailsInEvent {
    name: String,
    email: String,
}

/// What can be done about a student.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StudentCommand {
    /// A new student.
    Create(StudentDetails),
    /// Other details of one that there is.
    Update(StudentDetails),
    /// The student leaves, and all enrolments with it. The id may be used again.
    Delete,
    /// The student takes a course; whether there is one is not looked at.
    Enrol {
        /// The course's id.
        course: String,
    },
    /// The student takes it no longer.
    Withdraw {
        /// The course's id.
        course: String,
    },
}

/// What has changed about a student.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StudentChange {
    /// There is one, enrolled in nothing.
    Created(#[serde(deserialize_with = "DetailsInEvent::deserialize")] StudentDetails),
    /// It has other details.
    Updated(#[serde(deserialize_with = "DetailsInEvent::deserialize")] StudentDetails),
    /// It is there no longer, nor are its enrolments.
    Deleted,
    /// It takes a course.
    Enrolled {
        /// The course's id.
        course: String,
    },
    /// It takes it no longer.
    Withdrawn {
        /// The course's id.
        course: String,
    },
}

impl StudentDetails {
    /// Whether they can be kept.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn check(&self) -> Result<(), Invalid> {
        limits::text("name", &self.name, NAME_LETTERS_MAX)?;
        limits::text("email", &self.email, EMAIL_LETTERS_MAX)?;
        match self.email.split_once('@') {
            Some((to, at)) if !to.is_empty() && !at.is_empty() => Ok(()),
            _ => Err(Invalid::new("email", "is not NAME@HOST")),
        }
    }
}

impl StudentCommand {
    /// Whether it can be sent.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Create(details) | Self::Update(details) => details.check(),
            Self::Enrol { course } | Self::Withdraw { course } => limits::id("course", course),
            Self::Delete => Ok(()),
        }
    }
}

/// The least that has to be known to decide: which students there are, and what they are enrolled in.
#[derive(Debug, Default)]
pub struct Students {
    enrolments: HashMap<String, BTreeSet<String>>,
    /// Of all students.
    enrolments_total: usize,
}

impl Students {
    fn enrolments_of(&self, id: &str) -> Result<&BTreeSet<String>, String> {
        self.enrolments
            .get(id)
            .ok_or_else(|| format!("there is no student {id}"))
    }

    fn may_enrol(&self, id: &str, course: &str) -> Result<(), String> {
        let courses = self.enrolments_of(id)?;
        if courses.contains(course) {
            return Err(format!("student {id} is enrolled in {course} already"));
        }
        if courses.len() >= ENROLMENTS_MAX {
            let problem = format!("student {id} is enrolled in {ENROLMENTS_MAX} courses, which is the most");
            return Err(problem);
        }
        match self.enrolments_total {
            0..ENROLMENTS_TOTAL_MAX => Ok(()),
            _ => Err(format!(
                "there are {ENROLMENTS_TOTAL_MAX} enrolments, and no room for more"
            )),
        }
    }

    fn forget(&mut self, id: &str) {
        let enrolments = self.enrolments.remove(id).unwrap_or_default();
        self.enrolments_total -= enrolments.len();
    }
}

impl Register for Students {
    type Command = StudentCommand;
    type Change = StudentChange;

    fn decide(&self, id: &str, command: StudentCommand) -> Result<StudentChange, String> {
        // The gateway has looked, too; but a queue may hold what others have sent.
        command.check().map_err(|invalid| invalid.to_string())?;
        match command {
            StudentCommand::Create(_) if self.enrolments.contains_key(id) => {
                Err(format!("there is a student {id} already"))
            }
            StudentCommand::Create(_) if self.enrolments.len() >= KNOWN_MAX => {
                Err(format!("there are {KNOWN_MAX} students, and no room for more"))
            }
            StudentCommand::Create(details) => Ok(StudentChange::Created(details)),
            StudentCommand::Update(details) => self.enrolments_of(id).map(|_| StudentChange::Updated(details)),
            StudentCommand::Delete => self.enrolments_of(id).map(|_| StudentChange::Deleted),
            StudentCommand::Enrol { course } => {
                self.may_enrol(id, &course).map(|()| StudentChange::Enrolled { course })
            }
            StudentCommand::Withdraw { course } => match self.enrolments_of(id)?.contains(&course) {
                true => Ok(StudentChange::Withdrawn { course }),
                false => Err(format!("student {id} is not enrolled in {course}")),
            },
        }
    }

    fn take_in(&mut self, id: &str, change: &StudentChange) {
        match change {
            StudentChange::Created(_) => {
                self.forget(id);
                self.enrolments.insert(id.to_owned(), BTreeSet::new());
            }
            StudentChange::Updated(_) => (),
            StudentChange::Deleted => self.forget(id),
            StudentChange::Enrolled { course } => {
                let is_new = self.enrolments.entry(id.to_owned()).or_default().insert(course.clone());
                self.enrolments_total += usize::from(is_new);
            }
            StudentChange::Withdrawn { course } => {
                let was_there = self
                    .enrolments
                    .get_mut(id)
                    .is_some_and(|courses| courses.remove(course));
                self.enrolments_total -= usize::from(was_there);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tell(students: &mut Students, command: StudentCommand) -> Result<(), String> {
        let change = students.decide("ada", command)?;
        students.take_in("ada", &change);
        Ok(())
    }

    fn details(name: &str) -> StudentDetails {
        StudentDetails {
            name: name.to_owned(),
            email: "ada@example.org".to_owned(),
        }
    }

    fn enrol(course: &str) -> StudentCommand {
        StudentCommand::Enrol {
            course: course.to_owned(),
        }
    }

    fn withdraw(course: &str) -> StudentCommand {
        StudentCommand::Withdraw {
            course: course.to_owned(),
        }
    }

    #[test]
    fn what_does_not_fit_is_rejected_with_why() {
        let mut students = Students::default();
        let none = "there is no student ada";
        for command in [
            StudentCommand::Update(details("Ada")),
            StudentCommand::Delete,
            enrol("logic"),
            withdraw("logic"),
        ] {
            assert_eq!(tell(&mut students, command).unwrap_err(), none);
        }
        tell(&mut students, StudentCommand::Create(details("Ada"))).unwrap();
        let twice = tell(&mut students, StudentCommand::Create(details("Ada"))).unwrap_err();
        assert_eq!(twice, "there is a student ada already");
        tell(&mut students, enrol("logic")).unwrap();
        assert_eq!(
            tell(&mut students, enrol("logic")).unwrap_err(),
            "student ada is enrolled in logic already"
        );
        tell(&mut students, withdraw("logic")).unwrap();
        assert_eq!(
            tell(&mut students, withdraw("logic")).unwrap_err(),
            "student ada is not enrolled in logic"
        );
    }

    #[test]
    fn who_comes_back_is_enrolled_in_nothing() {
        let mut students = Students::default();
        tell(&mut students, StudentCommand::Create(details("Ada"))).unwrap();
        tell(&mut students, enrol("logic")).unwrap();
        tell(&mut students, StudentCommand::Delete).unwrap();
        tell(&mut students, StudentCommand::Create(details("Ada"))).unwrap();
        tell(&mut students, withdraw("logic")).unwrap_err();
    }

    #[test]
    fn enrolments_are_bounded() {
        let mut students = Students::default();
        tell(&mut students, StudentCommand::Create(details("Ada"))).unwrap();
        for number in 0..ENROLMENTS_MAX {
            tell(&mut students, enrol(&format!("c{number}"))).unwrap();
        }
        assert!(tell(&mut students, enrol("more")).unwrap_err().contains("64 courses"));
    }

    #[test]
    fn an_enrolment_that_ends_makes_room() {
        let mut students = Students::default();
        for round in 1..=3 {
            tell(&mut students, StudentCommand::Create(details("Ada"))).unwrap();
            for course in ["a", "b", "c"] {
                tell(&mut students, enrol(course)).unwrap();
            }
            tell(&mut students, withdraw("b")).unwrap();
            students.take_in("ada", &StudentChange::Enrolled { course: "a".to_owned() });
            students.take_in("ada", &StudentChange::Withdrawn { course: "b".to_owned() });
            assert_eq!(students.enrolments_total, 2, "round {round}");
            tell(&mut students, StudentCommand::Delete).unwrap();
            assert_eq!(students.enrolments_total, 0, "round {round}");
        }
    }

    /// As many of everything as there may be, with ids as long as they may be; and what is more is rejected.
    #[test]
    fn the_most_that_is_known_fits_into_its_memory() {
        let id = |number: usize| format!("{number:0>64}");
        let before = resident_bytes();
        let mut students = Students::default();
        for number in 0..KNOWN_MAX {
            students.take_in(&id(number), &StudentChange::Created(details("x")));
        }
        for number in 0..ENROLMENTS_TOTAL_MAX {
            let course = id(number);
            students.take_in(&id(number % KNOWN_MAX), &StudentChange::Enrolled { course });
        }
        let taken = resident_bytes().saturating_sub(before);
        assert!(
            (limits::KNOWN_BYTES_MAX / 8..limits::KNOWN_BYTES_MAX).contains(&taken),
            "{taken} bytes"
        );

        let enrolled = students.decide(&id(0), enrol("more")).unwrap_err();
        assert_eq!(enrolled, "there are 1000000 enrolments, and no room for more");
        let created = students
            .decide("more", StudentCommand::Create(details("x")))
            .unwrap_err();
        assert_eq!(created, "there are 100000 students, and no room for more");
    }

    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn an_event_may_say_more_than_is_known_and_a_command_may_not() {
        let details = r#"{"name":"Ada","email":"ada@example.org","born":1815}"#;
        let change: StudentChange = serde_json::from_str(&format!(r#"{{"created":{details}}}"#)).unwrap();
        assert_eq!(change, StudentChange::Created(self::details("Ada")));
        let change: StudentChange = serde_json::from_str(r#"{"enrolled":{"course":"logic","since":1}}"#).unwrap();
        assert!(matches!(change, StudentChange::Enrolled { .. }));
        for command in [
            format!(r#"{{"create":{details}}}"#),
            r#"{"enrol":{"course":"logic","since":1}}"#.to_owned(),
        ] {
            let refused = serde_json::from_str::<StudentCommand>(&command).unwrap_err();
            assert!(refused.to_string().contains("unknown field"), "{refused}");
        }
    }

    #[test]
    fn details_are_checked_by_field() {
        let email = |email: &str| StudentDetails {
            email: email.to_owned(),
            ..details("Ada")
        };
        for (wrong, field) in [
            (details(""), "name:"),
            (email(""), "email:"),
            (email("@x"), "email:"),
            (email("x@"), "email:"),
        ] {
            assert!(wrong.check().unwrap_err().to_string().starts_with(field));
        }
        enrol("No").check().unwrap_err();
    }
}
