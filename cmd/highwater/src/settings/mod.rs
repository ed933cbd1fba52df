//! The settings of `highwater serve`, from flags, then the environment, then the file, then the defaults.
//!
//! One tree: what concerns the node is [`highwater_node::Config`], and beside it, on the same level, stands what concerns
//! the process around it ([`Process`]). What can be set at all stands in one table (`table.rs`); from that come the flags (`given.rs`), what
//! a file may say (`file.rs`), and the forms in which settings are told (`print.rs`). Every value is kept with where it comes from, so that a
//! complaint can name it.
//!
//! Invariant: there are no secrets among the settings, only paths to them; so all of them may be printed.

#[cfg(test)]
mod document;
mod file;
mod given;
mod print;
mod table;
#[cfg(test)]
mod tests;
mod unknown;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use highwater_node::Config;
use serde::{Deserialize, Serialize};
use toml::Value;
use tracing_subscriber::EnvFilter;

use crate::exit::{Code, Failure, Result};
use crate::files;
pub(crate) use given::Given;
pub(crate) use print::as_file;
pub(crate) use table::Taken;
use table::{SETTINGS, Setting};
pub(crate) use unknown::check_environment;

/// The most worker threads; more never helped, and thousands would eat the machine.
pub(crate) const WORKERS_MAX: usize = 256;

/// What libraries tell about each heartbeat that a silent peer misses is for those who look for it: with a node down it
/// is dozens of lines a second. That a node is silent, and that it is back, the node says itself, once.
const LOG_FILTER: &str = "info,openraft=error,chitchat=warn";

const HINT: &str = "`highwater serve --print-config` shows all settings, what each may be, and where it comes from";

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Measured on two cores: one thread is fastest. Larger machines gain from a second and third one.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 2 { 0 } else { (cores / 2).min(4) }
}

/// The default where it depends on the machine, in words.
const DEFAULT_WORKERS: &str = "0 on up to two cores, else half as many as there are cores, at most 4";

impl Process {
    /// What to log, in the form that the logging library takes.
    pub(crate) fn filter(&self) -> std::result::Result<EnvFilter, String> {
        values::filter(&self.log)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Flag(&'static str),
    Variable(&'static str),
    /// A file, and the name that the setting has there.
    File(PathBuf, &'static str),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(formatter, "flag --{flag}"),
            Self::Variable(variable) => write!(formatter, "environment variable {variable}"),
            Self::File(path, key) => write!(formatter, "file {}, key {key}", path.display()),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// A setting with the value that it has, and where that comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) setting: &'static Setting,
    pub(crate) value: Value,
    pub(crate) source: Source,
}

/// All settings as they are, in the order of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Effective {
    pub(crate) chosen: Vec<Chosen>,
    pub(crate) settings: Settings,
}

impl Effective {
    /// What came out of flags, environment, file and defaults. What is wrong with a value by itself is refused here; what is missing, or
    /// does not go together, by [`Effective::check`].
    pub(crate) fn load(given: &Given, path: Option<&Path>) -> Result<Self> {
        let file = path.map(file::read).transpose()?;
        let defaults = Settings::default().to_table();
        let mut chosen = Vec::with_capacity(SETTINGS.len());
        for setting in SETTINGS {
            chosen.push(choose(setting, given, file.as_ref(), &defaults)?);
        }
        Self::of(chosen)
    }

    /// With these values.
    pub(crate) fn of(chosen: Vec<Chosen>) -> Result<Self> {
        let mut tree = toml::Table::new();
        for chosen in &chosen {
            file::put(&mut tree, chosen.setting.key, chosen.value.clone());
        }
        // Every value was checked; what fails now is a row of the table that does not fit its field.
        let settings = split(tree).map_err(|error| Failure::new(Code::Failure, format!("configuration: {error}")))?;
        Ok(Self { chosen, settings })
    }

    /// Whether a node can be started with it.
    pub(crate) fn check(&self) -> Result<()> {
        self.settings.node.validate().map_err(|error| {
            let chosen = self.chosen.iter().find(|chosen| chosen.setting.key == error.field);
            match chosen {
                Some(chosen) => chosen.wrong(&error.why),
                None => Failure::setup(&error).hint(HINT),
            }
        })
    }
}

impl Chosen {
    fn wrong(&self, why: &str) -> Failure {
        wrong(self.setting, &self.value, &self.source, why)
    }
}

/// A wrong value: which, of what, from where, and why.
fn wrong(setting: &Setting, value: impl fmt::Display, source: &Source, why: &str) -> Failure {
    let code = match source {
        Source::Flag(_) => Code::Usage,
        _ => Code::Setup,
    };
    let key = setting.key;
    Failure::new(code, format!("setting `{key}` is {value} ({source}): {why}")).hint(HINT)
}

fn choose(
    setting: &'static Setting,
    given: &Given,
    file: Option<&file::File>,
    defaults: &toml::Table,
) -> Result<Chosen> {
    let (value, source) = if let Some(given) = given.get(setting) {
        let source = match given.is_flag {
            true => Source::Flag(setting.flag),
            false => Source::Variable(setting.variable),
        };
        let parsed = setting.kind.parse(&given.text);
        let wrong = |why: String| wrong(setting, format!("{:?}", given.text), &source, &why);
        (parsed.map_err(wrong)?, source)
    } else if let Some((value, source)) = file.and_then(|file| file.get(setting)) {
        let checked = setting.kind.check(&value);
        checked.map_err(|why| wrong(setting, &value, &source, &why))?;
        (value, source)
    } else {
        let value = file::get(defaults, setting.key).cloned();
        let none = || Failure::new(Code::Failure, format!("setting `{}` has no default", setting.key));
        (value.ok_or_else(none)?, Source::Default)
    };
    Ok(Chosen { setting, value, source })
}

/// The default of a setting in words; None if it is empty.
fn default_in_words(setting: &Setting, defaults: &toml::Table) -> Option<String> {
    if setting.key == "workers" {
        return Some(DEFAULT_WORKERS.to_owned());
    }
    match file::get(defaults, setting.key)? {
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

impl Settings {
    fn to_table(&self) -> toml::Table {
        // Its fields are numbers, texts and lists of texts, which TOML has; a test has it fail otherwise.
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// The process' part and the node's part, each of which refuses what it does not know.
fn split(mut node: toml::Table) -> std::result::Result<Settings, toml::de::Error> {
    let mut process = toml::Table::new();
    for field in PROCESS_FIELDS {
        if let Some(value) = node.remove(field) {
            process.insert(field.to_owned(), value);
        }
    }
    Ok(Settings {
        process: process.try_into()?,
        node: node.try_into()?,
    })
}
