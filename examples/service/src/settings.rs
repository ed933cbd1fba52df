//! Settings from flags, environment variables and a file, in this order of precedence, and what every service has of them.
//!
//! A program declares its settings once, for clap; each has a flag and mostly a variable. The file is TOML and names settings as flags do
//! (`log-format = "json"`, or with underscores): what it says takes the place of clap's defaults, so that flag and variable win, and
//! `--help` shows what is in force. A name that no flag has is an error that says so.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Arg, Command, Error, Parser};
use highwater::{Client, Profile};
use tokio::time::sleep;
use toml::{Table, Value};

use crate::logs::LogFormat;

/// How long to wait before a cluster that cannot be reached is looked for again. To look takes some seconds, too.
const PAUSE: Duration = Duration::from_secs(1);

/// What every service can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct ServiceSettings {
    /// The profile of the cluster: addresses and certificates.
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE")]
    pub profile: PathBuf,
    /// Where to listen.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// The port; 0 takes a free one, which the log tells.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// The port of metrics and health over HTTP; 0 takes a free one.
    #[arg(long, env = "METRICS_PORT", default_value_t = 9090)]
    pub metrics_port: u16,
    /// How lines of the log look.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives of parts.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

impl ServiceSettings {
    /// Where the service listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// Where metrics and health are.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.metrics_port)
    }

    /// A client of the cluster, as soon as one of its nodes answers. However long that takes: it says so in the log, and goes on. Cancel safe.
    ///
    /// # Errors
    /// What waiting does not help against: a profile or certificate that cannot be used, or that is refused.
    pub async fn connect(&self) -> Result<Client, highwater::Error> {
        let profile = Profile::load(&self.profile)?;
        loop {
            match Client::from_profile(&profile).await {
                Err(error) if error.is_retryable() => tracing::warn!(%error, "trying again"),
                ended => return ended,
            }
            sleep(PAUSE).await;
        }
    }
}

/// The settings of this process. Shows help, the version or what is wrong, and ends the process then.
///
/// The file is named by the flag `--config` or the variable `CONFIG`.
#[must_use]
pub fn parse<P: Parser>() -> P {
    parse_from(std::env::args_os(), std::env::var_os("CONFIG")).unwrap_or_else(|error| error.exit())
}

/// As [`parse`], from given arguments, the program's name first.
///
/// # Errors
/// As clap has them, to be shown to the user.
pub fn parse_from<P: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    file: Option<OsString>,
) -> Result<P, Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = P::command().arg(config_flag());
    if let Some(path) = named_file(&arguments).or(file.filter(|path| !path.is_empty())) {
        command = with_file(command, Path::new(&path))?;
    }
    let mut matches = command.clone().try_get_matches_from(arguments)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn config_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .global(true)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("TOML file of settings, named as the flags are [env: CONFIG]")
}

/// The value of `--config`, wherever it stands: it is needed before the arguments can be understood.
fn named_file(arguments: &[OsString]) -> Option<OsString> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().cloned();
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn with_file(command: Command, path: &Path) -> Result<Command, Error> {
    let fail = |problem: String| Error::raw(ErrorKind::Io, format!("{}: {problem}\n", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
    let mut defaults = Vec::new();
    for (name, value) in table {
        let flag = name.replace('_', "-");
        if flag == "config" || !has_flag(&command, &flag) {
            return Err(fail(format!("there is no setting {name:?}")));
        }
        defaults.push((flag, values(&name, value).map_err(fail)?));
    }
    Ok(with_defaults(command, &defaults))
}

fn has_flag(command: &Command, flag: &str) -> bool {
    let own = command
        .get_arguments()
        .any(|argument| argument.get_long() == Some(flag));
    own || command.get_subcommands().any(|command| has_flag(command, flag))
}

/// What the file says about one setting, as a flag would say it.
fn values(name: &str, value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Integer(number) => Ok(vec![number.to_string()]),
        Value::Float(number) => Ok(vec![number.to_string()]),
        Value::Boolean(truth) => Ok(vec![truth.to_string()]),
        Value::Array(several) => several.into_iter().try_fold(Vec::new(), |mut all, value| {
            all.extend(values(name, value)?);
            Ok(all)
        }),
        Value::Datetime(_) | Value::Table(_) => Err(format!("{name}: a text, a number or a list of them is wanted")),
    }
}

fn with_defaults(command: Command, defaults: &[(String, Vec<String>)]) -> Command {
    let found = |argument: &Arg| {
        let (_, values) = defaults.iter().find(|(flag, _)| argument.get_long() == Some(flag))?;
        Some(values.clone())
    };
    command
        .mut_args(|argument| match found(&argument) {
            Some(values) => argument.required(false).default_values(values),
            None => argument,
        })
        .mut_subcommands(|command| with_defaults(command, defaults))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        service: ServiceSettings,
        #[arg(long)]
        topics: Vec<String>,
    }

    fn parse(arguments: &[&str], file: &str) -> Result<Program, Error> {
        let directory = std::env::temp_dir().join(format!("settings-{}-{:p}", std::process::id(), &raw const file));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("service.toml");
        std::fs::File::create(&path)
            .unwrap()
            .write_all(file.as_bytes())
            .unwrap();
        let arguments = std::iter::once("program").chain(arguments.iter().copied());
        let parsed = parse_from(arguments.map(OsString::from), Some(path.into()));
        std::fs::remove_dir_all(directory).unwrap();
        parsed
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "port = 1\nmetrics_port = 2\nprofile = \"a.toml\"\ntopics = [\"x\", \"y\"]";
        let program = parse(&["--port", "3"], file).unwrap();
        assert_eq!((program.service.port, program.service.metrics_port), (3, 2));
        assert_eq!(program.service.profile, Path::new("a.toml"));
        assert_eq!(program.topics, ["x", "y"]);
        assert_eq!(program.service.host, IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn what_the_file_gets_wrong_is_named() {
        for (file, word) in [
            ("prot = 1", "\"prot\""),
            ("port = 70000", "70000"),
            ("port = {}", "port: a text"),
            ("port", "key with no value"),
        ] {
            let error = parse(&["--profile", "a.toml"], file).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let nowhere = parse_from::<Program>(["program", "--config=nowhere.toml"].map(OsString::from), None);
        assert!(nowhere.unwrap_err().to_string().contains("nowhere.toml"));
    }
}
