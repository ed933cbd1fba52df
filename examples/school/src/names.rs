//! What topics, groups and clients are called, and who may do what with them. `school init` makes it so.

use highwater_service::access::Needs;

/// Of each topic: a command and its event are in partitions of the same number.
pub const PARTITIONS: u32 = 3;

/// Commands about students, keyed by the student's id.
pub const STUDENT_COMMANDS: &str = "student-commands";
/// An event for each command about students, by the same key.
pub const STUDENT_EVENTS: &str = "students";
/// Commands about courses, keyed by the course's id.
pub const COURSE_COMMANDS: &str = "course-commands";
/// An event for each command about courses, by the same key.
pub const COURSE_EVENTS: &str = "courses";

/// The group of the workers that handle commands about students.
pub const STUDENT_GROUP: &str = "students";
/// The group of the workers that handle commands about courses.
pub const COURSE_GROUP: &str = "courses";

/// The client that `school students` is.
const STUDENTS: &str = "students";
/// The client that `school courses` is.
const COURSES: &str = "courses";
/// The client that `school gateway` is.
const GATEWAY: &str = "gateway";

/// What the application needs.
pub const NEEDS: Needs = Needs {
    tenant: "school",
    topics: &[STUDENT_COMMANDS, STUDENT_EVENTS, COURSE_COMMANDS, COURSE_EVENTS],
    partitions: PARTITIONS,
    rules: &[
        (GATEWAY, "topic", STUDENT_COMMANDS, "describe"),
        (GATEWAY, "topic", STUDENT_COMMANDS, "produce"),
        (GATEWAY, "topic", COURSE_COMMANDS, "describe"),
        (GATEWAY, "topic", COURSE_COMMANDS, "produce"),
        (GATEWAY, "topic", STUDENT_EVENTS, "describe"),
        (GATEWAY, "topic", STUDENT_EVENTS, "consume"),
        (GATEWAY, "topic", COURSE_EVENTS, "describe"),
        (GATEWAY, "topic", COURSE_EVENTS, "consume"),
        (STUDENTS, "topic", STUDENT_COMMANDS, "describe"),
        (STUDENTS, "topic", STUDENT_COMMANDS, "consume"),
        (STUDENTS, "group", STUDENT_GROUP, "consume"),
        (STUDENTS, "topic", STUDENT_EVENTS, "describe"),
        (STUDENTS, "topic", STUDENT_EVENTS, "produce"),
        (STUDENTS, "topic", STUDENT_EVENTS, "consume"),
        (STUDENTS, "topic", COURSE_EVENTS, "describe"),
        (STUDENTS, "topic", COURSE_EVENTS, "consume"),
        (COURSES, "topic", COURSE_COMMANDS, "describe"),
        (COURSES, "topic", COURSE_COMMANDS, "consume"),
        (COURSES, "group", COURSE_GROUP, "consume"),
        (COURSES, "topic", COURSE_EVENTS, "describe"),
        (COURSES, "topic", COURSE_EVENTS, "produce"),
        (COURSES, "topic", COURSE_EVENTS, "consume"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_write_events_and_only_the_gateway_commands() {
        let right = [
            (GATEWAY, STUDENT_COMMANDS),
            (GATEWAY, COURSE_COMMANDS),
            (STUDENTS, STUDENT_EVENTS),
            (COURSES, COURSE_EVENTS),
        ];
        for (client, _, name, _) in NEEDS.rules.iter().filter(|(.., action)| *action == "produce") {
            assert!(right.contains(&(client, name)), "{client} {name}");
        }
    }
}
