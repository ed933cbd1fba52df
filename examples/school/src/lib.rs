//! A school: commands through queues, reads through gRPC.
//!
//! ```text
//!           POST, PUT, DELETE                        group `students`
//! HTTP ──► gateway ──► topic student-commands ──► worker ──► topic students ──► SQLite ──► StudentService
//!             │            (3 partitions,                   (an event for               │  gRPC, and a cache
//!             │             key: student's id)               each command)              ▼  of five minutes
//!             └──────► topic course-commands  ──► worker ──► topic courses  ──► SQLite ──► CourseService
//! ```
//!
//! Who wants something changed sends a command. One worker of a group handles the commands of a partition, one after the other, and
//! appends exactly one event for each: what was done, or why it was not ([`command`], [`worker`]). The services' databases are made of the
//! events ([`database`]) and answer reads ([`students`], [`courses`]); the gateway tells what became of a command ([`gateway`]).
//!
//! Invariants:
//!
//! * for each command there is exactly one event, in the same partition and the same order, whatever is killed;
//! * a database is what the events below its positions make of it, so that any number of them say the same, and one may be thrown away;
//! * each service can do with topics only what it needs ([`names`]).
//!
//! Deliberately absent: whether a course is there when somebody enrols. Students and courses are two logs, and nothing decides on both at
//! once; what has become of the course is shown where the enrolment is read.

mod answers;
pub mod ask;
pub mod cache;
pub mod command;
pub mod course;
pub mod courses;
pub mod database;
pub mod gateway;
pub mod limits;
pub mod names;
pub mod student;
pub mod students;
pub mod worker;

/// The services' contract, from `proto/school.proto`.
pub mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("highwater.examples.school.v1");

    /// For reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/school_descriptor.bin"));
}
