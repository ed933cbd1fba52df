//! Whom a client command talks to: the profile with the cluster's addresses and the client's certificate, and how
//! the cluster's errors become failures of a command.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use highwater::{Client, Error, Profile, Reason};

use crate::args::path_or_nothing;
use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::files;
use crate::output::Format;

/// Where profiles lie below the directory of all configuration.
const DIRECTORY: &str = "highwater";
/// The name of the one in use.
const IN_USE: &str = "config";

/// Which profile to use.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ProfileArgs {
    /// The client profile: addresses and certificate paths; a file, or a name that `highwater config` knows. Default:
    /// ~/.config/highwater/config.toml
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CONFIG", global = true, value_parser = path_or_nothing())]
    profile: Option<PathBuf>,
}

impl ProfileArgs {
    /// Reads the profile.
    pub(crate) fn load(&self) -> Result<Profile> {
        Profile::load(self.path()?).map_err(|error| failure(error).hint(PROFILE_HINT))
    }

    /// The profile's file.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        // An empty variable in the environment names no file.
        let Some(given) = self.profile.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(named(&directory()?, IN_USE));
        };
        // A directory of that name is no profile.
        let name = given.to_str().filter(|name| !name.contains('/') && !given.is_file());
        match name
            .zip(directory().ok())
            .map(|(name, directory)| named(&directory, name))
        {
            Some(path) if path.is_file() => Ok(path),
            _ => Ok(given.clone()),
        }
    }

    /// Connects to the profile's cluster. What is left of `deadline` then is the deadline of each of the client's calls.
    pub(crate) async fn connect(&self, deadline: Duration) -> Result<Client> {
        let started = Instant::now();
        let profile = self.load()?;
        files::check_key(&profile.key)?;
        let builder = profile.builder().deadline(deadline);
        let client = builder.connect().await.map_err(failure)?;
        let left = deadline.saturating_sub(started.elapsed());
        // Whole milliseconds are enough to be told of.
        Ok(client.with_deadline(Duration::from_millis(left.as_millis() as u64)))
    }
}

/// What commands take that ask the cluster for one thing.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    /// How long to try, at most 24h.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "30s", global = true)]
    deadline: Duration,
}

impl CommonArgs {
    /// Connects to the profile's cluster, within the deadline.
    pub(crate) async fn connect(&self) -> Result<Client> {
        self.profile.connect(self.deadline).await
    }
}

const PROFILE_HINT: &str = "give --profile FILE or set HIGHWATER_CONFIG; `highwater dev` writes one as profile.toml";

/// Where profiles lie that have a name: below `$XDG_CONFIG_HOME`, else below `~/.config`.
pub(crate) fn directory() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let directory = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let directory = directory.ok_or_else(|| Failure::setup("there is no profile").hint(PROFILE_HINT))?;
    Ok(directory.join(DIRECTORY))
}

/// The file of the profile with this name.
pub(crate) fn named(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.toml"))
}

/// What an error of the client library means for a command.
pub(crate) fn failure(error: Error) -> Failure {
    let code = code(&error);
    let failure = Failure::new(code, &error);
    match hint(&error, code) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn code(error: &Error) -> Code {
    match error {
        Error::File { .. } => Code::Setup,
        Error::InvalidArgument { .. } => Code::Refused,
        Error::NoNodeReachable { failures } if failures.iter().any(|failure| failure.problem.is_certificate()) => {
            Code::Setup
        }
        Error::Connection(failure) if failure.problem.is_certificate() => Code::Setup,
        Error::NoNodeReachable { .. } | Error::Connection(_) | Error::Deadline { .. } => Code::Unavailable,
        Error::OffsetOutOfRange { .. } => Code::NotFound,
        // Found while reading; as an answer to a write, the same reason is a refusal.
        Error::CorruptBatch { .. } | Error::UnsupportedCompression { .. } => Code::Failure,
        _ => error.reason().map_or(Code::Failure, code_of_reason),
    }
}

fn code_of_reason(reason: Reason) -> Code {
    match reason {
        Reason::TopicNotFound
        | Reason::TopicChanged
        | Reason::PartitionNotFound
        | Reason::OffsetOutOfRange
        | Reason::NodeNotFound
        | Reason::TenantNotFound => Code::NotFound,
        Reason::TopicExists
        | Reason::InvalidArgument
        | Reason::TooLarge
        | Reason::CorruptBatch
        | Reason::OffsetMismatch
        | Reason::SequenceGap
        | Reason::UnknownProducer
        | Reason::ProducerConflict
        | Reason::PermissionDenied
        | Reason::NotEnoughNodes
        | Reason::Refused
        | Reason::StaleClaim
        | Reason::PolicyChanged
        | Reason::QuotaExceeded
        | Reason::MemberReplaced => Code::Refused,
        Reason::NotLeader
        | Reason::NoQuorum
        | Reason::UnknownOutcome
        | Reason::Overloaded
        | Reason::ReplicaBehind
        | Reason::Unavailable
        | Reason::SessionOver
        | Reason::Deadline => Code::Unavailable,
        Reason::Unspecified | Reason::Damaged | Reason::Internal => Code::Failure,
    }
}

fn hint(error: &Error, code: Code) -> Option<&'static str> {
    match (error, error.reason()) {
        (Error::File { .. }, _) => Some("check the certificate paths in the profile; `highwater certs` makes new ones"),
        (Error::OffsetOutOfRange { .. }, _) => Some("read from `--from beginning`, or from an offset in that range"),
        (Error::CorruptBatch { .. } | Error::UnsupportedCompression { .. }, _) => {
            Some("what lies behind it can be read with --partition and --from OFFSET")
        }
        (_, Some(Reason::TopicNotFound)) => {
            Some("`highwater topic list` shows the topics; `highwater topic create NAME` makes one")
        }
        (_, Some(Reason::StaleClaim)) => {
            Some("another member goes on for the group; `highwater group describe` shows it")
        }
        (_, Some(Reason::MemberReplaced)) => Some("give each member a name of its own with --member"),
        (_, Some(Reason::NodeNotFound)) => Some("`highwater cluster describe` shows the nodes"),
        (_, Some(Reason::PartitionNotFound)) => Some("`highwater topic describe NAME` shows the partitions"),
        (_, Some(Reason::TopicExists)) => Some("choose another name, or delete the topic first"),
        (_, Some(Reason::NotEnoughNodes)) => {
            Some("ask for fewer replicas; `highwater cluster describe` shows the nodes")
        }
        (_, Some(Reason::TooLarge)) => Some("make it smaller, or leave it out"),
        (_, Some(Reason::PermissionDenied)) => Some(
            "`highwater access whoami` shows who the profile's certificate makes you, and `highwater access explain` why; \
             who manages the tenant, or an operator, can grant it",
        ),
        (_, Some(Reason::PolicyChanged)) => Some("somebody else changed the policy meanwhile: look again, and repeat"),
        (_, Some(Reason::QuotaExceeded)) => Some(
            "`highwater tenant describe` shows quotas and use; an operator can raise them with `highwater tenant quota`",
        ),
        (_, Some(Reason::TenantNotFound)) => Some("`highwater tenant list` shows the tenants"),
        _ => match code {
            Code::Setup => Some("check the profile's certificates: same CA, same cluster, still valid"),
            Code::Unavailable => Some("`highwater health` shows which nodes serve; a majority of them is needed"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater::{ConnectionProblem, NodeFailure};

    #[test]
    fn a_certificate_problem_is_setup_and_a_dead_node_is_unavailable() {
        let unreachable = |problem| Error::NoNodeReachable {
            failures: vec![NodeFailure {
                node: "localhost:1".to_owned(),
                problem,
            }],
        };
        let refused = unreachable(ConnectionProblem::OwnCertificate("expired".to_owned()));
        assert_eq!(failure(refused).code, Code::Setup);
        let dead = unreachable(ConnectionProblem::Tcp("connection refused".to_owned()));
        assert_eq!(failure(dead).code, Code::Unavailable);
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_a_failure_and_says_how_to_go_on() {
        let corrupt = failure(Error::CorruptBatch {
            topic: "numbers".to_owned(),
            partition: 0,
            offsets: 3..4,
            problem: "the checksum differs".to_owned(),
        });
        assert_eq!(corrupt.code, Code::Failure);
        assert!(corrupt.hint.is_some_and(|hint| hint.contains("--from")));
    }

    #[test]
    fn reasons_become_the_documented_codes() {
        assert_eq!(code_of_reason(Reason::TopicNotFound), Code::NotFound);
        assert_eq!(code_of_reason(Reason::TopicExists), Code::Refused);
        assert_eq!(code_of_reason(Reason::NoQuorum), Code::Unavailable);
        assert_eq!(code_of_reason(Reason::Damaged), Code::Failure);
    }
}
