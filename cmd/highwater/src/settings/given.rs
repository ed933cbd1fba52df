//! Settings on the command line and in the environment: the flags of `highwater serve`, made from the table.
//!
//! Values are taken as they are. They are judged together with those of the file, so that whatever is wrong is told with where it comes
//! from.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, ValueHint};

use super::table::{SETTINGS, Setting};
use super::values::Kind;
use super::{Settings, default_in_words};

/// What flags and variables say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    by_key: Vec<(&'static str, Text)>,
}

/// One value, as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// By its flag, not by its variable.
    pub(crate) is_flag: bool,
}

impl Given {
    /// What is given for a setting.
    pub(crate) fn get(&self, setting: &Setting) -> Option<&Text> {
        let mut given = self.by_key.iter();
        given.find(|(key, _)| *key == setting.key).map(|(_, text)| text)
    }

    fn read(matches: &ArgMatches) -> Given {
        let text = |setting: &'static Setting| {
            let texts: Vec<String> = matches.get_many(setting.key)?.cloned().collect();
            let is_flag = matches.value_source(setting.key) == Some(ValueSource::CommandLine);
            let text = texts.join(",");
            Some((setting.key, Text { text, is_flag }))
        };
        let by_key = SETTINGS.iter().filter_map(text).collect();
        Given { by_key }
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Given::read(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Given::read(matches);
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        let defaults = Settings::default().to_table();
        command.args(SETTINGS.iter().map(|setting| argument(setting, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(setting: &'static Setting, defaults: &toml::Table) -> Arg {
    let default = match default_in_words(setting, defaults) {
        Some(default) => format!(" Default: {default}."),
        None => String::new(),
    };
    let argument = Arg::new(setting.key)
        .long(setting.flag)
        .env(setting.variable)
        .value_name(setting.placeholder)
        .help(format!("{}{default}", setting.meaning));
    match setting.kind {
        // Given more than once, they are one list.
        Kind::List(..) => argument.action(ArgAction::Append),
        Kind::Switch => argument.num_args(0..=1).default_missing_value("true"),
        Kind::Path => argument.value_hint(ValueHint::AnyPath),
        _ => argument,
    }
}
