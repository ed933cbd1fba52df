//! Why a command has failed, in words.
//!
//! Of the write it matters whether it may have happened all the same. That is so whenever the server itself has not said what became of it:
//! no answer in time, a connection that broke, a proxy that answered instead.

use std::error::Error;
use std::io;

use tonic::{Code, Status, TimeoutExpired};

use super::ANSWER_DEADLINE;
use crate::server::{NOT_CREATED, PERHAPS_CREATED};

/// Why a command has failed, for the user.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is nobody at the address.
    #[error("cannot reach {address}: {problem}")]
    Unreachable {
        /// The server.
        address: String,
        /// Why not.
        problem: String,
    },
    /// A read was not answered, or not as it was hoped.
    #[error("{}", told(.0))]
    Read(Box<Status>),
    /// The same of the write.
    #[error("{}", told_of_create(.0))]
    Create(Box<Status>),
    /// The answer could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// What the server says, or why it did not say anything.
fn told(status: &Status) -> String {
    let mut cause = Error::source(status);
    let mut why = status.message().to_owned();
    while let Some(error) = cause {
        if error.is::<TimeoutExpired>() {
            return format!("no answer within {} s", ANSWER_DEADLINE.as_secs());
        }
        why = match why.is_empty() || error.to_string() == why {
            true => error.to_string(),
            false => format!("{why}: {error}"),
        };
        cause = error.source();
    }
    match why.is_empty() {
        true => status.code().to_string(),
        false => why,
    }
}

/// The same; and that the user may be there, unless the server itself has said what became of it.
fn told_of_create(status: &Status) -> String {
    let told = told(status);
    match is_settled(status) {
        true => told,
        false => format!("{PERHAPS_CREATED}: {told}"),
    }
}

/// Whether the server says what became of a write. What has a source did not come from it, whatever its code is.
fn is_settled(status: &Status) -> bool {
    if Error::source(status).is_some() {
        return false;
    }
    match status.code() {
        Code::InvalidArgument | Code::AlreadyExists | Code::ResourceExhausted | Code::Unimplemented => true,
        Code::Unavailable => [NOT_CREATED, PERHAPS_CREATED]
            .iter()
            .any(|word| status.message().starts_with(word)),
        _ => false,
    }
}

pub(super) fn unread(status: Status) -> Failure {
    Failure::Read(Box::new(status))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsString;

    use highwater_service::settings::parse_from;

    use super::*;
    use crate::cli::Cli;

    #[derive(Debug, thiserror::Error)]
    #[error("broken")]
    struct Broken(#[source] Status);

    fn late() -> Status {
        Status::from_error(Box::new(TimeoutExpired(())))
    }

    #[test]
    fn only_a_write_says_that_something_may_have_happened_and_only_if_the_server_does_not_know_better() {
        let told = |status| Failure::Create(Box::new(status)).to_string();
        for settled in [
            Status::already_exists("there is a user"),
            Status::invalid_argument("email: has no @"),
            Status::resource_exhausted("users: there are 3"),
            Status::unavailable("the user has not been created: no leader"),
            Status::unavailable("the user may have been created: no answer"),
        ] {
            let words = settled.message().to_owned();
            assert_eq!(told(settled), words);
        }
        assert_eq!(told(late()), "the user may have been created: no answer within 60 s");
        for (unsettled, words) in [
            (Status::cancelled("stopped"), "the user may have been created: stopped"),
            (
                Status::unavailable("503 of a proxy"),
                "the user may have been created: 503 of a proxy",
            ),
            (Status::internal(""), "the user may have been created: Internal error"),
            // Not an answer of the server, though its code could be one.
            (
                Status::from_error(Box::new(Broken(Status::already_exists("?")))),
                "the user may have been created: ?",
            ),
        ] {
            let told = told(unsettled);
            assert!(told.starts_with(words), "{told}");
        }
    }

    #[test]
    fn a_read_says_what_has_failed() {
        let told = |status| Failure::Read(Box::new(status)).to_string();
        assert_eq!(told(late()), "no answer within 60 s");
        assert_eq!(told(Status::cancelled("stopped")), "stopped");
        assert_eq!(told(Status::not_found("there is no user")), "there is no user");
        let broken = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        assert_eq!(told(Status::from_error(Box::new(broken))), "reset");
    }

    /// A server that hangs up as soon as it is asked something.
    #[tokio::test]
    async fn a_write_that_is_cut_off_may_have_happened() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move { hang_up(&mut stream).await });
            }
        });
        let create =
            format!("users-cli create --address {address} --email a@b --firstname A --lastname B --postaladdress C");
        for (line, is_write) in [(create, true), (format!("users-cli list --address {address}"), false)] {
            let told = parse(&line).run().await.unwrap_err().to_string();
            assert_eq!(told.starts_with(PERHAPS_CREATED), is_write, "{told}");
            assert!(!told.contains("within"), "{told}");
        }
    }

    fn parse(line: &str) -> Cli {
        parse_from(line.split(' ').map(OsString::from), None).unwrap()
    }

    /// Answers HTTP/2's greeting, reads up to the request, and ends.
    async fn hang_up(stream: &mut tokio::net::TcpStream) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // More than what comes before the request, and less than that with it.
        const BEFORE_BYTES: usize = 100;
        stream.write_all(&EMPTY_SETTINGS).await.unwrap();
        let (mut heard, mut bytes) = (0, [0; 1024]);
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            heard += count;
            if heard > BEFORE_BYTES {
                return;
            }
        }
    }
}
