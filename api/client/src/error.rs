//! What can go wrong, and what a caller can do about it.
//!
//! Three questions are answered for every error: is it worth trying again ([`Error::is_retryable`]), what became
//! of the write ([`Error::outcome`]), and which rule of the wire contract spoke ([`Error::reason`]). The library
//! has already retried what it could within its deadline when it returns an error.

mod refusal;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::v1::OffsetRange;

pub use self::refusal::Refusal;
pub use highwater_proto::v1::Reason;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It has not happened and will not happen.
    NotApplied,
    /// It may have happened, or may still happen.
    Unknown,
    /// It has happened, although an error came with it.
    Applied,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::NotApplied => "not applied",
            Outcome::Unknown => "outcome unknown",
            Outcome::Applied => "applied",
        })
    }
}

/// Anything that a call of this library can fail with. Cheap to clone: one failure may concern many records.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A certificate, key or profile file cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },
    /// An argument or option is not valid; nothing was sent.
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// The argument or option.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Something is over a limit of the wire contract; nothing was sent.
    #[error("{field}: {size} {} are over the limit of {limit}", unit(field))]
    TooLarge {
        /// What is too large: `record`, `record.key`, `record.headers`, `record.headers.name`.
        field: &'static str,
        /// How large it is: bytes, or the number of headers.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// None of the known addresses answered as a node of the cluster.
    #[error("no node of the cluster could be reached: {}", list(failures))]
    NoNodeReachable {
        /// Each address that was tried, with its cause.
        failures: Vec<NodeFailure>,
    },
    /// The connection to a node failed or broke.
    #[error("{0}")]
    Connection(NodeFailure),
    /// A node answered with an error.
    #[error("{0}")]
    Refused(Arc<Refusal>),
    /// The deadline passed.
    #[error("{action}: no success within {after:?}{}", because(last))]
    Deadline {
        /// What was attempted.
        action: String,
        /// How long it was attempted.
        after: Duration,
        /// The last error met on the way, if any.
        last: Option<Box<Error>>,
    },
    /// The offset wanted has been trimmed away, or lies beyond the end.
    #[error("{topic}/{partition}: offset {offset} is out of range: readable are {} to {} (exclusive)", range.log_start, range.high_watermark)]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// What can be read: log start (inclusive) to high watermark (exclusive).
        range: OffsetRange,
    },
    /// The bytes of a batch disagree with its checksum or its record count, on every replica that was asked.
    #[error("{topic}/{partition}: batch at offsets {}..{} is corrupt: {problem}", offsets.start, offsets.end)]
    CorruptBatch {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Exactly the offsets that cannot be read (end exclusive).
        offsets: Range<u64>,
        /// What disagrees.
        problem: String,
    },
    /// A batch is compressed in a way that this version of the library cannot read.
    #[error("{topic}/{partition}: offsets {}..{} are compressed by method {compression}, which is not supported", offsets.start, offsets.end)]
    UnsupportedCompression {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offsets that cannot be read (end exclusive).
        offsets: Range<u64>,
        /// The number of the method in the wire contract.
        compression: i32,
    },
    /// The producer has been closed.
    #[error("the producer is closed")]
    Closed,
}

/// An address or node, and why it could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{node}: {problem}")]
pub struct NodeFailure {
    /// The node's name or, before that is known, its address.
    pub node: String,
    /// Why.
    pub problem: ConnectionProblem,
}

/// Why a connection could not be made or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionProblem {
    /// The address is not `host:port`, or the host name is unknown.
    #[error("cannot resolve the address: {0}")]
    Address(String),
    /// TCP failed.
    #[error("cannot connect: {0}")]
    Tcp(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Whatever listens there does not speak TLS.
    #[error("this port does not speak TLS")]
    NotTls,
    /// The node's certificate was not accepted by us.
    #[error("the node's certificate is refused: {0}")]
    NodeCertificate(String),
    /// Our certificate was not accepted by the node.
    #[error("the node refuses our certificate: {0}")]
    OwnCertificate(String),
    /// TLS failed in another way.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// A node answered, but could not serve.
    #[error("{0}")]
    Refused(String),
}

impl ConnectionProblem {
    /// Whether certificates are the cause, so that trying again cannot help until a file is replaced.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        matches!(self, Self::NodeCertificate(_) | Self::OwnCertificate(_))
    }
}

impl Error {
    /// Whether the same call may succeed later. The library itself has stopped trying.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::NoNodeReachable { failures } => failures.iter().any(|failure| !failure.problem.is_certificate()),
            Error::Connection(failure) => !failure.problem.is_certificate(),
            Error::Refused(refusal) => refusal.is_retryable(),
            Error::Deadline { .. } => true,
            Error::File { .. }
            | Error::InvalidArgument { .. }
            | Error::TooLarge { .. }
            | Error::OffsetOutOfRange { .. }
            | Error::CorruptBatch { .. }
            | Error::UnsupportedCompression { .. }
            | Error::Closed => false,
        }
    }

    /// What became of the write, for a call that writes.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Refused(refusal) => refusal.outcome,
            Error::Deadline { .. } | Error::Connection(_) => Outcome::Unknown,
            _ => Outcome::NotApplied,
        }
    }

    /// The reason from the wire contract, also when it stands behind a deadline.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Refused(refusal) => Some(refusal.reason),
            Error::OffsetOutOfRange { .. } => Some(Reason::OffsetOutOfRange),
            Error::CorruptBatch { .. } => Some(Reason::CorruptBatch),
            Error::InvalidArgument { .. } => Some(Reason::InvalidArgument),
            Error::TooLarge { .. } => Some(Reason::TooLarge),
            Error::Deadline { last, .. } => last.as_ref().and_then(|last| last.reason()),
            _ => None,
        }
    }

    /// When to try again, if a node has said so.
    pub(crate) fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Error::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    pub(crate) fn refused(refusal: Refusal) -> Self {
        Error::Refused(Arc::new(refusal))
    }

    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Error::InvalidArgument {
            field,
            problem: problem.into(),
        }
    }
}

/// A record that could not be produced.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{topic}{}: {outcome}: {cause}", at(*partition))]
pub struct ProduceError {
    topic: Arc<str>,
    partition: Option<u32>,
    outcome: Outcome,
    cause: Error,
}

impl ProduceError {
    pub(crate) fn new(topic: &Arc<str>, partition: Option<u32>, outcome: Outcome, cause: Error) -> Self {
        Self {
            topic: topic.clone(),
            partition,
            outcome,
            cause,
        }
    }

    /// Whether the record is in the log: not, surely, or unknown.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether sending the record again may succeed. After an unknown outcome that may store it twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.cause.is_retryable()
    }

    /// The reason from the wire contract.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.cause.reason()
    }

    /// With reason `OFFSET_MISMATCH`: where the log ended when it was decided, which is the offset that would have been right.
    #[must_use]
    pub fn log_end(&self) -> Option<u64> {
        match &self.cause {
            Error::Refused(refusal) if refusal.reason == Reason::OffsetMismatch => {
                refusal.range.as_ref().map(|range| range.high_watermark)
            }
            _ => None,
        }
    }

    /// The partition that the record was meant for, once it had been chosen.
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.partition
    }

    /// What went wrong.
    #[must_use]
    pub fn cause(&self) -> &Error {
        &self.cause
    }
}

fn at(partition: Option<u32>) -> String {
    partition.map(|partition| format!("/{partition}")).unwrap_or_default()
}

fn unit(field: &str) -> &'static str {
    match field {
        "record.headers" => "headers",
        _ => "bytes",
    }
}

fn list(failures: &[NodeFailure]) -> String {
    if failures.is_empty() {
        return "no address of any is known".to_owned();
    }
    let failures: Vec<String> = failures.iter().map(NodeFailure::to_string).collect();
    failures.join("; ")
}

fn because(last: &Option<Box<Error>>) -> String {
    match last {
        Some(last) => format!(" (last: {last})"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use highwater_proto::v1;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_deadline_reports_the_reason_behind_it() {
        let refusal = Refusal::from_detail(
            "a",
            Code::Unavailable,
            v1::ErrorDetail {
                reason: Reason::NoQuorum as i32,
                message: "one of three nodes is there".to_owned(),
                ..Default::default()
            },
        );
        let error = Error::Deadline {
            action: "append".to_owned(),
            after: Duration::from_secs(1),
            last: Some(Box::new(Error::refused(refusal))),
        };
        assert_eq!(error.reason(), Some(Reason::NoQuorum));
        assert!(error.to_string().contains("NO_QUORUM"), "{error}");
        assert!(error.is_retryable());
    }
}
