//! The settings of `highwater serve`, from flags, then the environment, then the file, then the defaults.
//!
//! One tree: what concerns the node is [`highwater_node::Config`], and beside it, on the same level, stands what concerns
//! the process around it ([`Process`]). `--print-config` shows all of it, in the form that the file has.

use std::path::{Path, PathBuf};

use config::{ConfigError, Map, Value};
use highwater_node::Config;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::exit::{Code, Failure, Result};
use crate::files;
use crate::serve::Args;

/// The most worker threads; more never helped, and thousands would eat the machine.
pub(crate) const WORKERS_MAX: usize = 256;

/// What libraries tell about each heartbeat that a silent peer misses is for those who look for it: with a node down it
/// is dozens of lines a second. That a node is silent, and that it is back, the node says itself, once.
const LOG_FILTER: &str = "info,openraft=error,chitchat=warn";

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Settings {
    #[serde(flatten)]
    pub(crate) process: Process,
    #[serde(flatten)]
    pub(crate) node: Config,
}

/// What concerns the process and not the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Process {
    /// Worker threads beside the disk writer.
    pub(crate) workers: usize,
    /// What to log.
    pub(crate) log: String,
    /// How to log.
    pub(crate) log_format: LogFormat,
}

/// The fields of [`Process`], as in the file.
const PROCESS_FIELDS: [&str; 3] = ["workers", "log", "log_format"];

impl Default for Process {
    fn default() -> Self {
        Self {
            workers: default_workers(),
            log: LOG_FILTER.to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Measured on two cores: one thread is fastest. Larger machines gain from a second and third one.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 2 { 0 } else { (cores / 2).min(4) }
}

impl Settings {
    pub(crate) fn load(args: &Args) -> Result<Self> {
        let wrong = |why: String| {
            let place = match &args.config {
                Some(path) => format!("configuration file {}", path.display()),
                None => "configuration".to_owned(),
            };
            Failure::setup(format!("{place}: {why}")).hint(
                "`highwater serve --print-config` shows what may stand there; `highwater serve --help` explains it",
            )
        };
        let mut builder = config::Config::builder();
        if let Some(path) = &args.config {
            // Read here, so that the failure names the path and the reason.
            let text = files::read_text("the configuration file", path)?;
            files::parse_toml::<toml::Table>(&text).map_err(wrong)?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let settings = apply_flags(builder, args).and_then(|builder| split(builder.build()?.cache));
        let settings = settings.map_err(|error| wrong(error.to_string()))?;
        let process = &settings.process;
        if process.workers > WORKERS_MAX {
            return Err(wrong(format!(
                "`workers` is {}; at most {WORKERS_MAX}",
                process.workers
            )));
        }
        process.filter().map_err(wrong)?;
        Ok(settings)
    }

    /// As a file that says all of it.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|error| Failure::new(Code::Failure, format!("cannot print the configuration: {error}")))
    }
}

impl Process {
    /// What to log, in the form that the logging library takes.
    pub(crate) fn filter(&self) -> std::result::Result<EnvFilter, String> {
        EnvFilter::try_new(&self.log).map_err(|error| format!("`log` {:?} is not a filter: {error}", self.log))
    }
}

/// The process' part and the node's part, each of which refuses what it does not know.
fn split(merged: Value) -> std::result::Result<Settings, ConfigError> {
    let mut node = merged.into_table()?;
    let process: Map<String, Value> = PROCESS_FIELDS
        .iter()
        .filter_map(|field| node.remove_entry(*field))
        .collect();
    Ok(Settings {
        process: Process::deserialize(Value::from(process))?,
        node: Config::deserialize(Value::from(node))?,
    })
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

fn apply_flags(builder: Builder, args: &Args) -> std::result::Result<Builder, ConfigError> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(path_text);
    builder
        .set_override_option("node", args.node.clone())?
        .set_override_option("cluster", args.cluster.clone())?
        .set_override_option("listen", args.listen.clone())?
        .set_override_option("admin_listen", args.admin_listen.clone())?
        .set_override_option("admin_names", args.admin_names.clone().map(without_empty))?
        .set_override_option("admin_open_metrics", args.admin_open_metrics)?
        .set_override_option("console_records", args.console_records)?
        .set_override_option("advertise", args.advertise.clone())?
        .set_override_option("data_dir", path(&args.data_dir))?
        .set_override_option("seeds", args.seeds.clone().map(without_empty))?
        .set_override_option("bootstrap", args.bootstrap.clone().map(without_empty))?
        .set_override_option("rack", args.rack.clone())?
        .set_override_option("operators", args.operators.clone().map(without_empty))?
        .set_override_option("tenants", args.tenants.clone().map(without_empty))?
        .set_override_option("tls.ca", path(&args.ca))?
        .set_override_option("tls.cert", path(&args.cert))?
        .set_override_option("tls.key", path(&args.key))?
        .set_override_option("tls.crl", path(&args.crl))?
        .set_override_option("tail_cache_bytes", args.tail_cache_bytes)?
        .set_override_option("segment_bytes_max", args.segment_bytes_max)?
        .set_override_option("retention_interval_ms", args.retention_interval_ms)?
        .set_override_option("connection_age_max_ms", args.connection_age_max_ms)?
        .set_override_option("workers", args.workers)?
        .set_override_option("log", args.log.clone())?
        .set_override_option("log_format", args.log_format.map(LogFormat::name))
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// An empty variable in the environment means an empty list, not a list of one empty name.
fn without_empty(list: Vec<String>) -> Vec<String> {
    list.into_iter().filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn args(list: &[&str]) -> Args {
        Only::try_parse_from(std::iter::once("serve").chain(list.iter().copied()))
            .unwrap()
            .args
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_string_lossy().into_owned();
        (directory, path)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let (_directory, path) = file("node = 'n1'\nlisten = 'localhost:1'\nseeds = ['a:1']\n[tls]\nca = 'ca.pem'\n");
        let settings = Settings::load(&args(&[
            "--config",
            &path,
            "--listen",
            "localhost:2",
            "--seeds",
            "b:1,c:1",
        ]))
        .unwrap();
        assert_eq!(settings.node.node, "n1");
        assert_eq!(settings.node.listen, "localhost:2");
        assert_eq!(settings.node.seeds, ["b:1", "c:1"]);
        assert_eq!(settings.node.tls.ca, PathBuf::from("ca.pem"));
        assert_eq!(settings.node.cluster, Config::default().cluster);
    }

    /// A flag that nobody reads would be ignored in silence.
    #[test]
    fn every_flag_reaches_its_setting() {
        let default = Settings::load(&args(&[])).unwrap();
        let changes = |flag: &str, value: &str| {
            let parsed = Only::try_parse_from(["serve", flag, value]);
            parsed.is_ok_and(|only| Settings::load(&only.args).is_ok_and(|settings| settings != default))
        };
        let flags = Only::command();
        let flags = flags.get_arguments().filter(|flag| flag.get_action().takes_values());
        let names: Vec<String> = flags
            .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
            .collect();
        for flag in names.iter().filter(|name| *name != "--config") {
            let values = ["7", "n7", "localhost:7", "json", "error", "true"];
            assert!(
                values.iter().any(|value| changes(flag, value)),
                "{flag} changes nothing"
            );
        }
        assert!(names.len() > 15, "{names:?}");
    }

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        let (_directory, path) = file("nodee = 'n1'\n");
        let failure = Settings::load(&args(&["--config", &path])).unwrap_err();
        assert_eq!(failure.code, Code::Setup);
        assert!(failure.message.contains("nodee"), "{failure}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let failure = Settings::load(&args(&["--config", "/nonexistent/node.toml"])).unwrap_err();
        assert!(failure.message.contains("/nonexistent/node.toml"), "{failure}");
    }

    #[test]
    fn printed_settings_can_be_read_back() {
        let settings = Settings::load(&args(&[
            "--node",
            "n1",
            "--cert",
            "x.pem",
            "--workers",
            "3",
            "--log",
            "debug",
            "--log-format",
            "json",
        ]))
        .unwrap();
        let (_directory, path) = file(&settings.to_toml().unwrap());
        assert_eq!(Settings::load(&args(&["--config", &path])).unwrap(), settings);
    }

    #[test]
    fn an_empty_list_is_empty() {
        let settings = Settings::load(&args(&["--bootstrap", ""])).unwrap();
        assert!(settings.node.bootstrap.is_empty());
    }

    #[test]
    fn workers_and_logging_stand_in_the_same_tree() {
        let text = "workers = 7\nlog = 'warn'\nlog_format = 'json'\nnode = 'n1'\n";
        let (_directory, path) = file(text);
        let process = Settings::load(&args(&["--config", &path])).unwrap().process;
        let expected = Process {
            workers: 7,
            log: "warn".to_owned(),
            log_format: LogFormat::Json,
        };
        assert_eq!(process, expected);
        let flags = args(&[
            "--config",
            &path,
            "--workers",
            "0",
            "--log",
            "error",
            "--log-format",
            "text",
        ]);
        let process = Settings::load(&flags).unwrap().process;
        assert_eq!((process.workers, process.log_format), (0, LogFormat::Text));
        assert_eq!(process.log, "error");
        let printed = Settings::load(&args(&[])).unwrap().to_toml().unwrap();
        for field in PROCESS_FIELDS {
            assert!(printed.contains(&format!("{field} = ")), "{printed}");
        }
    }

    #[test]
    fn wrong_values_in_the_file_are_refused_with_their_place() {
        for (text, expected) in [
            ("workers = 1000", "`workers` is 1000; at most 256"),
            ("log = 'x=y=z'", "is not a filter"),
            ("log_format = 'xml'", "xml"),
            ("node = 'n1'\n[tls", "line 2, column 5: unclosed table"),
        ] {
            let (_directory, path) = file(text);
            let failure = Settings::load(&args(&["--config", &path])).unwrap_err();
            assert_eq!(failure.code, Code::Setup);
            assert!(failure.message.contains(expected), "{failure}");
            assert!(failure.message.contains(&path), "{failure}");
        }
    }
}
