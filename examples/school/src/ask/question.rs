//! What can be asked, as one says it and as it is asked over HTTP.

use axum::http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// What can be asked.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Question {
    /// Create a student.
    CreateStudent {
        /// The id, which stays.
        id: String,
        /// What is told of it.
        #[command(flatten)]
        student: Student,
    },
    /// Give a student another name and address.
    UpdateStudent {
        /// The student's id.
        id: String,
        /// What is told of it.
        #[command(flatten)]
        student: Student,
    },
    /// Have a student leave, with all enrolments.
    DeleteStudent {
        /// The student's id.
        id: String,
    },
    /// Have a student take a course.
    Enrol {
        /// The student's id.
        student: String,
        /// The course's id.
        course: String,
    },
    /// Have a student take a course no longer.
    Withdraw {
        /// The student's id.
        student: String,
        /// The course's id.
        course: String,
    },
    /// Show a student.
    Student {
        /// The student's id.
        id: String,
    },
    /// Show all students.
    Students,
    /// Show what a student is enrolled in.
    CoursesOf {
        /// The student's id.
        student: String,
    },
    /// Create a course.
    CreateCourse {
        /// The id, which stays.
        id: String,
        /// What is told of it.
        #[command(flatten)]
        course: Course,
    },
    /// Give a course another title, description and credits.
    UpdateCourse {
        /// The course's id.
        id: String,
        /// What is told of it.
        #[command(flatten)]
        course: Course,
    },
    /// Delete a course.
    DeleteCourse {
        /// The course's id.
        id: String,
    },
    /// Show a course.
    Course {
        /// The course's id.
        id: String,
    },
    /// Show the courses with that in their titles, or all.
    Courses {
        /// A part of the title, in any case.
        #[arg(long, default_value = "")]
        title: String,
    },
    /// Show what became of a command.
    Command {
        /// As it was told when the command was taken.
        #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
        command: String,
    },
}

/// What is told of a student.
#[derive(Debug, Clone, clap::Args)]
pub struct Student {
    /// For people.
    #[arg(long)]
    name: String,
    /// Where letters go.
    #[arg(long)]
    email: String,
}

/// What is told of a course.
#[derive(Debug, Clone, clap::Args)]
pub struct Course {
    /// For people.
    #[arg(long)]
    title: String,
    /// More about it.
    #[arg(long, default_value = "")]
    description: String,
    /// What it counts for.
    #[arg(long, default_value_t = 0)]
    credits: u32,
}

/// A request, without what all have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

impl Asked {
    pub(super) fn get(path: String) -> Self {
        Self::new(Method::GET, path, None)
    }

    fn new(method: Method, path: String, body: Option<Value>) -> Self {
        Self { method, path, body }
    }

    pub(super) fn changes(&self) -> bool {
        self.method != Method::GET
    }
}

/// What one request asks; of lists the first page.
pub(super) fn asked(question: &Question) -> Asked {
    let student = |id: &str| format!("/v1/students/{}", encoded(id));
    let course = |id: &str| format!("/v1/courses/{}", encoded(id));
    let enrolment = |id: &str, course: &str| format!("{}/courses/{}", student(id), encoded(course));
    match question {
        Question::CreateStudent { id, student } => {
            let body = with_id(student.document(), id);
            Asked::new(Method::POST, "/v1/students".to_owned(), Some(body))
        }
        Question::UpdateStudent { id, student: told } => Asked::new(Method::PUT, student(id), Some(told.document())),
        Question::DeleteStudent { id } => Asked::new(Method::DELETE, student(id), None),
        Question::Enrol { student, course } => Asked::new(Method::PUT, enrolment(student, course), None),
        Question::Withdraw { student, course } => Asked::new(Method::DELETE, enrolment(student, course), None),
        Question::Student { id } => Asked::get(student(id)),
        Question::Students => Asked::get("/v1/students".to_owned()),
        Question::CoursesOf { student: id } => Asked::get(format!("{}/courses", student(id))),
        Question::CreateCourse { id, course } => {
            let body = with_id(course.document(), id);
            Asked::new(Method::POST, "/v1/courses".to_owned(), Some(body))
        }
        Question::UpdateCourse { id, course: told } => Asked::new(Method::PUT, course(id), Some(told.document())),
        Question::DeleteCourse { id } => Asked::new(Method::DELETE, course(id), None),
        Question::Course { id } => Asked::get(course(id)),
        Question::Courses { title } => Asked::get(format!("/v1/courses?title={}", encoded(title))),
        Question::Command { command } => {
            let parts: Vec<String> = command.split('/').map(encoded).collect();
            Asked::get(format!("/v1/commands/{}", parts.join("/")))
        }
    }
}

impl Student {
    fn document(&self) -> Value {
        json!({ "name": self.name, "email": self.email })
    }
}

impl Course {
    fn document(&self) -> Value {
        json!({ "title": self.title, "description": self.description, "credits": self.credits })
    }
}

fn with_id(mut document: Value, id: &str) -> Value {
    document["id"] = id.into();
    document
}

/// A text as a part of a path or a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn each_command_is_the_request_that_it_says() {
        for (line, method, path, body) in [
            (
                "create-student ada --name A --email a@b",
                Method::POST,
                "/v1/students",
                Some(json!({"id": "ada", "name": "A", "email": "a@b"})),
            ),
            (
                "update-student ada --name A --email a@b",
                Method::PUT,
                "/v1/students/ada",
                Some(json!({"name": "A", "email": "a@b"})),
            ),
            ("delete-student ada", Method::DELETE, "/v1/students/ada", None),
            ("enrol ada logic", Method::PUT, "/v1/students/ada/courses/logic", None),
            (
                "withdraw ada logic",
                Method::DELETE,
                "/v1/students/ada/courses/logic",
                None,
            ),
            ("student a/b", Method::GET, "/v1/students/a%2Fb", None),
            ("courses-of ada", Method::GET, "/v1/students/ada/courses", None),
            (
                "create-course logic --title L --credits 3",
                Method::POST,
                "/v1/courses",
                Some(json!({"id": "logic", "title": "L", "description": "", "credits": 3})),
            ),
            (
                "update-course logic --title L --description D",
                Method::PUT,
                "/v1/courses/logic",
                Some(json!({"title": "L", "description": "D", "credits": 0})),
            ),
            ("delete-course logic", Method::DELETE, "/v1/courses/logic", None),
            ("course logic", Method::GET, "/v1/courses/logic", None),
            (
                "command course-commands/1/0",
                Method::GET,
                "/v1/commands/course%2Dcommands/1/0",
                None,
            ),
        ] {
            let settings = parse(line).unwrap();
            assert_eq!(
                asked(&settings.question),
                Asked::new(method, path.to_owned(), body),
                "{line}"
            );
        }
        assert_eq!(parse("students --wait 30").unwrap().wait, 30);
        assert!(parse("students --wait 31").unwrap_err().to_string().contains("30"));
    }
}
