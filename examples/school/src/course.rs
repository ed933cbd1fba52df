//! Courses: what is told about them, what changes by it, and what has to be known to decide.
//!
//! As with students, a field that is not known is refused in a command and passed over in an event ([`crate::student`]).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::command::Register;
use crate::limits::{self, CREDITS_MAX, DESCRIPTION_LETTERS_MAX, Invalid, KNOWN_MAX, NAME_LETTERS_MAX};

/// A course's document: what is kept of it beside the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CourseDetails {
    /// For people.
    pub title: String,
    /// More about it.
    #[serde(default)]
    pub description: String,
    /// What it counts for.
    #[serde(default)]
    pub credits: u32,
}

/// The same as an event has it: with fields that this program does not know.
#[derive(Deserialize)]
#[serde(remote = "CourseDetails")]
struct DetailsInEvent {
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    credits: u32,
}

/// What can be done about a course.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CourseCommand {
    /// A new course.
    Create(CourseDetails),
    /// Other details of one that there is.
    Update(CourseDetails),
    /// It is given no longer. Who is enrolled stays so, and is shown that it is deleted. The id may be used again.
    Delete,
}

/// What has changed about a course.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CourseChange {
    /// There is one.
    Created(#[serde(deserialize_with = "DetailsInEvent::deserialize")] CourseDetails),
    /// It has other details.
    Updated(#[serde(deserialize_with = "DetailsInEvent::deserialize")] CourseDetails),
    /// It is there no longer.
    Deleted,
}

impl CourseDetails {
    /// Whether they can be kept.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn check(&self) -> Result<(), Invalid> {
        limits::text("title", &self.title, NAME_LETTERS_MAX)?;
        limits::no_longer("description", &self.description, DESCRIPTION_LETTERS_MAX)?;
        match self.credits {
            0..=CREDITS_MAX => Ok(()),
            credits => Err(Invalid::new("credits", format!("are {credits}; at most {CREDITS_MAX}"))),
        }
    }
}

impl CourseCommand {
    /// Whether it can be sent.
    ///
    /// # Errors
    /// Names the field and the limit.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Create(details) | Self::Update(details) => details.check(),
            Self::Delete => Ok(()),
        }
    }
}

/// The least that has to be known to decide: which courses there are.
#[derive(Debug, Default)]
pub struct Courses(HashSet<String>);

impl Courses {
    fn known(&self, id: &str) -> Result<(), String> {
        self.0
            .contains(id)
            .then_some(())
            .ok_or_else(|| format!("there is no course {id}"))
    }
}

impl Register for Courses {
    type Command = CourseCommand;
    type Change = CourseChange;

    fn decide(&self, id: &str, command: CourseCommand) -> Result<CourseChange, String> {
        // The gateway has looked, too; but a queue may hold what others have sent.
        command.check().map_err(|invalid| invalid.to_string())?;
        match command {
            CourseCommand::Create(_) if self.0.contains(id) => Err(format!("there is a course {id} already")),
            CourseCommand::Create(_) if self.0.len() >= KNOWN_MAX => {
                Err(format!("there are {KNOWN_MAX} courses, and no room for more"))
            }
            CourseCommand::Create(details) => Ok(CourseChange::Created(details)),
            CourseCommand::Update(details) => self.known(id).map(|()| CourseChange::Updated(details)),
            CourseCommand::Delete => self.known(id).map(|()| CourseChange::Deleted),
        }
    }

    fn take_in(&mut self, id: &str, change: &CourseChange) {
        match change {
            CourseChange::Created(_) => {
                self.0.insert(id.to_owned());
            }
            CourseChange::Updated(_) => (),
            CourseChange::Deleted => {
                self.0.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn details(title: &str, credits: u32) -> CourseDetails {
        CourseDetails {
            title: title.to_owned(),
            description: String::new(),
            credits,
        }
    }

    fn tell(courses: &mut Courses, command: CourseCommand) -> Result<(), String> {
        let change = courses.decide("logic", command)?;
        courses.take_in("logic", &change);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_rejected_with_why() {
        let mut courses = Courses::default();
        for command in [CourseCommand::Update(details("Logic", 1)), CourseCommand::Delete] {
            assert_eq!(tell(&mut courses, command).unwrap_err(), "there is no course logic");
        }
        tell(&mut courses, CourseCommand::Create(details("Logic", 1))).unwrap();
        let twice = tell(&mut courses, CourseCommand::Create(details("Logic", 1))).unwrap_err();
        assert_eq!(twice, "there is a course logic already");
        tell(&mut courses, CourseCommand::Update(details("Logic II", 1))).unwrap();
        tell(&mut courses, CourseCommand::Delete).unwrap();
        tell(&mut courses, CourseCommand::Create(details("Logic", 1))).unwrap();
    }

    #[test]
    fn an_event_may_say_more_than_is_known_and_a_command_may_not() {
        let change = serde_json::from_str(r#"{"updated":{"title":"Logic","credits":1,"room":7}}"#);
        assert_eq!(change.ok(), Some(CourseChange::Updated(details("Logic", 1))));
        let refused = serde_json::from_str::<CourseCommand>(r#"{"update":{"title":"Logic","room":7}}"#).unwrap_err();
        assert!(refused.to_string().contains("unknown field `room`"), "{refused}");
    }

    #[test]
    fn details_are_checked_by_field() {
        assert!(details("", 1).check().unwrap_err().to_string().starts_with("title:"));
        let credits = details("Logic", CREDITS_MAX + 1).check().unwrap_err();
        assert_eq!(credits.to_string(), "credits: are 61; at most 60");
    }
}
