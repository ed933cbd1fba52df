//! The prompt.
//!
//! With a terminal it is a line editor with a history; without one it reads plain lines, so that a script may pipe commands. Either way it
//! waits for the answer to a command before it reads the next. Answers go to standard output, one line each (that to `help` has several);
//! what is wrong is a line that begins with `error:`, and does not end the session. Notices go to standard error.

use std::io::{self, Write};
use std::path::PathBuf;

use highwater::{Client, Profile};
use highwater_service::logs::{self, LogFormat};

use crate::command::{Command, HELP};
use crate::input::Input;
use crate::service::{Failed, ensure_topics};
use crate::session::Session;
use crate::wire::{self, Outcome};

/// What the prompt can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectSettings {
    /// The profile of the cluster: addresses and certificates.
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE")]
    profile: PathBuf,
    /// The file that keeps what was typed [default: .calc_history in the home directory].
    #[arg(long, env = "CALC_HISTORY", value_name = "FILE")]
    history: Option<PathBuf>,
    /// How lines of the log look, on standard error.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives of parts.
    #[arg(long, env = "LOG_LEVEL", default_value = "error")]
    log_level: String,
}

/// Asks what standard input says, until that ends or says `exit`.
///
/// # Errors
/// [`Failed`].
pub async fn run(settings: ConnectSettings) -> Result<(), Failed> {
    logs::init(settings.log_format, &settings.log_level).map_err(Failed::Telemetry)?;
    let client = Client::from_profile(&Profile::load(&settings.profile)?).await?;
    ensure_topics(&client).await?;
    let mut session = Session::open(&client).await?;
    notice(&format!("session {}; help explains, exit ends", session.name()));
    let mut input = Input::open(settings.history.or_else(history));
    while let Some(line) = input.next().await? {
        match line.trim() {
            "" => {}
            "exit" => break,
            "help" => print(HELP)?,
            text => print(&answer(&mut session, text).await)?,
        }
    }
    Ok(())
}

fn history() -> Option<PathBuf> {
    Some(std::env::home_dir()?.join(".calc_history"))
}

/// What there is to say to a command, on one line.
async fn answer(session: &mut Session, text: &str) -> String {
    if let Err(problem) = Command::read(text) {
        return format!("error: {problem}");
    }
    match session.ask(text, &mut notice).await {
        Ok(answer) => match answer.outcome {
            Outcome::Ok => wire::shown(&answer.text),
            Outcome::Error => format!("error: {}", wire::shown(&answer.text)),
        },
        Err(unanswered) => format!("error: {unanswered}"),
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()
}

fn notice(text: &str) {
    // Whoever closes standard error does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}
