//! Students: what they are told, what changes by it, and what has to be known to decide.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::command::Register;
use crate::limits::{self, EMAIL_LETTERS_MAX, ENROLMENTS_MAX, Invalid, KNOWN_MAX, NAME_LETTERS_MAX};

/// What is kept of a student beside the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentDetails {
    /// For people.
    pub name: String,
    /// Where letters go.
    pub email: String,
}

/// What can be done about a student.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    Created(StudentDetails),
    /// It has other details.
    Updated(StudentDetails),
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
}

impl Students {
    fn enrolments_of(&self, id: &str) -> Result<&BTreeSet<String>, String> {
        self.enrolments
            .get(id)
            .ok_or_else(|| format!("there is no student {id}"))
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
            StudentCommand::Enrol { course } => match self.enrolments_of(id)? {
                courses if courses.contains(&course) => Err(format!("student {id} is enrolled in {course} already")),
                courses if courses.len() >= ENROLMENTS_MAX => Err(format!(
                    "student {id} is enrolled in {ENROLMENTS_MAX} courses, which is the most"
                )),
                _ => Ok(StudentChange::Enrolled { course }),
            },
            StudentCommand::Withdraw { course } => match self.enrolments_of(id)?.contains(&course) {
                true => Ok(StudentChange::Withdrawn { course }),
                false => Err(format!("student {id} is not enrolled in {course}")),
            },
        }
    }

    fn take_in(&mut self, id: &str, change: &StudentChange) {
        match change {
            StudentChange::Created(_) => {
                self.enrolments.insert(id.to_owned(), BTreeSet::new());
            }
            StudentChange::Updated(_) => (),
            StudentChange::Deleted => {
                self.enrolments.remove(id);
            }
            StudentChange::Enrolled { course } => {
                self.enrolments.entry(id.to_owned()).or_default().insert(course.clone());
            }
            StudentChange::Withdrawn { course } => {
                self.enrolments.entry(id.to_owned()).or_default().remove(course);
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
