//! What topics, groups and clients are called, and who may do what with them.

/// The tenant that owns everything here.
pub const TENANT: &str = "school";
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
/// All of them.
pub const TOPICS: [&str; 4] = [STUDENT_COMMANDS, STUDENT_EVENTS, COURSE_COMMANDS, COURSE_EVENTS];

/// The group of the workers that handle commands about students.
pub const STUDENT_GROUP: &str = "students";
/// The group of the workers that handle commands about courses.
pub const COURSE_GROUP: &str = "courses";

/// The client that `school students` is.
pub const STUDENTS: &str = "students";
/// The client that `school courses` is.
pub const COURSES: &str = "courses";
/// The client that `school gateway` is.
pub const GATEWAY: &str = "gateway";

/// Client, kind of resource, name, action: what each client may do, and no more. Whoever uses a topic must be able to find it.
pub const RULES: &[(&str, &str, &str, &str)] = &[
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
];
