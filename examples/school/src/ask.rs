//! `school ask`: one request to the gateway for each command, written as the gateway answers it: JSON, an object a line.
//!
//! Deliberately absent: TLS, as the gateway has none.

mod question;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, StatusCode, header};
use clap::value_parser;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use self::question::Question;
use self::question::{Asked, asked, encoded};
use crate::gateway::keys;
use crate::limits::{PAGE_MAX, WAIT_SECONDS_MAX};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what the gateway is to wait: longer than the gateway tries to send a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read, bytes: a page of the longest descriptions, each letter an escape, fits in.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What `school ask` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The gateway, HOST:PORT.
    #[arg(long, env = "ADDRESS", default_value = "127.0.0.1:8080", global = true)]
    pub address: String,
    /// The file of API keys, one a line; the first one is used.
    #[arg(
        long,
        env = "API_KEYS",
        value_name = "FILE",
        default_value = "api-keys",
        global = true
    )]
    pub api_keys: PathBuf,
    /// How long to wait for what becomes of a command, seconds; 0: not at all.
    #[arg(long, env = "WAIT", value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u64).range(..=WAIT_SECONDS_MAX), global = true)]
    pub wait: u64,
    /// What to ask.
    #[command(subcommand)]
    pub question: Question,
}

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The file of the key, without the key.
    #[error("{}: {problem}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing was asked.
    #[error("cannot reach {address}: {problem}")]
    Unreachable {
        /// The gateway.
        address: String,
        /// Why not.
        problem: String,
    },
    /// It was asked, and has not answered.
    #[error("{problem}{}", what_of_it(.changes))]
    Unanswered {
        /// What came instead.
        problem: String,
        /// Whether the request changes something.
        changes: bool,
    },
    /// The gateway says no.
    #[error("{0}")]
    Refused(String),
    /// The answer could not be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

fn what_of_it(changes: &bool) -> &'static str {
    match changes {
        true => "; whether the command was taken is not known: look before you send it again",
        false => "",
    }
}

/// Asks, and writes what is answered.
///
/// # Errors
/// [`AskError`].
pub async fn run(settings: &Settings) -> Result<(), AskError> {
    let gateway = Gateway {
        address: settings.address.clone(),
        key: key(&settings.api_keys)?,
        wait: settings.wait,
    };
    match &settings.question {
        Question::Students => gateway.list("/v1/students?", "students", print).await,
        Question::Courses { title } => {
            let path = format!("/v1/courses?title={}&", encoded(title));
            gateway.list(&path, "courses", print).await
        }
        question => print(&gateway.ask(asked(question)).await?),
    }
}

/// The first key of a file.
fn key(path: &Path) -> Result<HeaderValue, AskError> {
    let wrong = |problem: String| AskError::Key {
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mut lines = text.lines().map(str::trim);
    let key = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let key = key.ok_or_else(|| wrong("there is no key in it".to_owned()))?;
    let mut value = HeaderValue::from_str(key).map_err(|_| wrong("the key cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whom one asks, and with what.
struct Gateway {
    address: String,
    key: HeaderValue,
    wait: u64,
}

impl Gateway {
    /// Shows all of a list, a page after the other; `path` may be gone on with.
    async fn list(
        &self,
        path: &str,
        name: &str,
        mut show: impl FnMut(&Value) -> Result<(), AskError>,
    ) -> Result<(), AskError> {
        let mut after = String::new();
        loop {
            let asked = Asked::get(format!("{path}limit={PAGE_MAX}&after={}", encoded(&after)));
            let page = self.ask(asked).await?;
            let items = page[name].as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().try_for_each(&mut show)?;
            match items.last().and_then(|item| item["id"].as_str()) {
                Some(id) if page["more"] == true => after = id.to_owned(),
                _ => return Ok(()),
            }
        }
    }

    async fn ask(&self, asked: Asked) -> Result<Value, AskError> {
        let unreachable = |problem: String| AskError::Unreachable {
            address: self.address.clone(),
            problem,
        };
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await;
        let stream = connecting.map_err(|_| unreachable(format!("not within {} s", CONNECT_TIMEOUT.as_secs())))?;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        let request = self.request(&asked).map_err(|error| unreachable(error.to_string()))?;

        let within = ANSWER_TIMEOUT + Duration::from_secs(self.wait);
        let answer = timeout(within, exchange(stream, request)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs()).into()));
        let (status, body) = answer.map_err(|error| AskError::Unanswered {
            problem: error.to_string(),
            changes: asked.changes(),
        })?;
        match status.is_success() {
            true => Ok(body),
            false => Err(AskError::Refused(refusal(status, &body))),
        }
    }

    fn request(&self, asked: &Asked) -> Result<Request<Body>, axum::http::Error> {
        let request = Request::builder()
            .method(&asked.method)
            .uri(&asked.path)
            .header(header::HOST, &self.address)
            .header(keys::HEADER, &self.key);
        let request = match self.wait {
            0 => request,
            seconds => request.header("prefer", format!("wait={seconds}")),
        };
        request.body(
            asked
                .body
                .as_ref()
                .map_or_else(Body::empty, |body| Body::from(body.to_string())),
        )
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Status and body of an answer.
async fn exchange(stream: TcpStream, request: Request<Body>) -> Result<(StatusCode, Value), Broken> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answering = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let bytes = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await?;
        let body = serde_json::from_slice(&bytes).map_err(|_| format!("answered {}, and not in JSON", head.status))?;
        Ok((head.status, body))
    };
    let mut answering = std::pin::pin!(answering);
    // Only who looks after the connection hears anything; when that has ended, what was heard is all.
    tokio::select! {
        answer = &mut answering => answer,
        _ = connection => answering.await,
    }
}

/// Why not, in the gateway's words.
fn refusal(status: StatusCode, body: &Value) -> String {
    match (body["error"].as_str(), body["reason"].as_str(), body["state"].as_str()) {
        (Some(error), ..) => error.to_owned(),
        (None, Some(reason), _) => format!("rejected: {reason}"),
        (None, None, Some(state)) => format!("what became of the command is {state}"),
        _ => format!("answered {status}"),
    }
}

/// Writes to standard output; that whoever reads it has gone is no failure.
fn print(answer: &Value) -> Result<(), AskError> {
    match writeln!(io::stdout(), "{answer}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::net::SocketAddr;

    use axum::Router;
    use axum::extract::RawQuery;
    use axum::routing::get;
    use clap::Parser;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        settings: Settings,
    }

    pub(super) fn parse(line: &str) -> Result<Settings, clap::Error> {
        let words = ["school"].into_iter().chain(line.split(' '));
        Program::try_parse_from(words).map(|program| program.settings)
    }

    #[test]
    fn the_first_key_of_the_file_is_used_and_never_shown() {
        let write = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let file = write("# keys\n\n first-key-of-the-file \nsecond\n");
        assert_eq!(key(file.path()).unwrap(), "first-key-of-the-file");
        for (text, words) in [
            ("# none\n", "there is no key"),
            ("secret\u{7f}key\n", "cannot stand in a header"),
        ] {
            let file = write(text);
            let error = key(file.path()).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        }
    }

    fn gateway(address: SocketAddr) -> Gateway {
        Gateway {
            address: address.to_string(),
            key: HeaderValue::from_static("a-key"),
            wait: 0,
        }
    }

    #[tokio::test]
    async fn a_list_is_all_of_its_pages() {
        let page = async |query: RawQuery| {
            let query = query.0.unwrap_or_default();
            let (ids, more) = match query.strip_prefix("title=&limit=100&after=") {
                Some("") => (["a", "b"], true),
                Some("b") => (["c", "d"], false),
                other => panic!("{other:?} of {query}"),
            };
            json!({ "courses": ids.map(|id| json!({ "id": id })), "more": more }).to_string()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/courses", get(page));
        tokio::spawn(axum::serve(listener, routes).into_future());
        let mut shown = Vec::new();
        let show = |item: &Value| {
            shown.push(item["id"].as_str().unwrap().to_owned());
            Ok(())
        };
        let listed = gateway(address).list("/v1/courses?title=&", "courses", show).await;
        listed.unwrap();
        assert_eq!(shown, ["a", "b", "c", "d"]);
    }

    #[tokio::test]
    async fn a_request_that_is_cut_off_may_have_been_taken_if_it_changes_something() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let gateway = gateway(address);
        for (line, is_told) in [("delete-student ada", true), ("student ada", false)] {
            let question = parse(line).unwrap().question;
            let error = gateway.ask(asked(&question)).await.unwrap_err();
            assert!(matches!(error, AskError::Unanswered { .. }), "{error}");
            assert_eq!(error.to_string().contains("is not known"), is_told, "{error}");
        }
    }
}
