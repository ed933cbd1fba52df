//! Settings from all their sources, wrong ones, and what is printed of them.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use super::*;
use crate::serve::Args;

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

fn load(list: &[&str]) -> Result<Effective> {
    args(list).load()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_string_lossy().into_owned();
    (directory, path)
}

fn source(effective: &Effective, key: &str) -> String {
    let chosen = effective.chosen.iter().find(|chosen| chosen.setting.key == key);
    chosen.unwrap().source.to_string()
}

#[test]
fn every_row_has_a_field_with_a_default_and_every_field_a_row() {
    let defaults = Settings::default().to_table();
    assert!(!defaults.is_empty());
    for setting in SETTINGS {
        let default = file::get(&defaults, setting.key);
        let default = default.unwrap_or_else(|| panic!("{} is no field", setting.key));
        assert_eq!(setting.kind.check(default), Ok(()), "{}", setting.key);
        let named = format!("HIGHWATER_{}", setting.flag.replace('-', "_").to_uppercase());
        assert_eq!(setting.variable, named);
    }
    assert_eq!(file::keys(&defaults, "").len(), SETTINGS.len());
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults_and_each_says_so() {
    let (_directory, path) = file("node = 'n1'\nlisten = 'localhost:1'\nseeds = ['a:1']\n[tls]\nca = 'ca.pem'\n");
    let effective = load(&["--config", &path, "--listen", "localhost:2", "--seeds", "b:1,c:1"]).unwrap();
    let node = &effective.settings.node;
    assert_eq!(node.node, "n1");
    assert_eq!(node.listen, "localhost:2");
    assert_eq!(node.seeds, ["b:1", "c:1"]);
    assert_eq!(node.tls.ca, PathBuf::from("ca.pem"));
    assert_eq!(node.cluster, Config::default().cluster);
    assert_eq!(source(&effective, "listen"), "flag --listen");
    assert_eq!(source(&effective, "tls.ca"), format!("file {path}, key tls.ca"));
    assert_eq!(source(&effective, "cluster"), "default");
}

/// A flag that nobody reads would be ignored in silence.
#[test]
fn every_flag_reaches_its_setting() {
    let default = load(&[]).unwrap().settings;
    let changes = |flag: &str, value: &str| {
        let parsed = Only::try_parse_from(["serve", flag, value]);
        parsed.is_ok_and(|only| only.args.load().is_ok_and(|effective| effective.settings != default))
    };
    let flags = Only::command();
    let flags = flags.get_arguments().filter(|flag| flag.get_action().takes_values());
    let names: Vec<String> = flags
        .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
        .collect();
    for flag in names.iter().filter(|name| *name != "--config") {
        let values = [
            "7",
            "5000",
            "5000000",
            "n7",
            "localhost:7",
            "json",
            "http",
            "error",
            "true",
        ];
        assert!(
            values.iter().any(|value| changes(flag, value)),
            "{flag} changes nothing"
        );
    }
    assert_eq!(names.len(), SETTINGS.len() + 1, "{names:?}");
}

#[test]
fn a_key_that_is_no_setting_is_refused_with_the_nearest_one() {
    for (text, key, meant) in [
        ("nodee = 'n1'\n", "`nodee`", "`node`"),
        ("[tls]\ncert-file = 'x'\nkey = 'k'\n", "`tls.cert-file`", ""),
        ("[tls]\nkeys = 'x'\n", "`tls.keys`", "`tls.key`"),
        ("ca = 'x'\n", "`ca`", "`tls.ca`"),
        ("[node]\nname = 'x'\n", "`node.name`", ""),
    ] {
        let (_directory, path) = file(text);
        let failure = load(&["--config", &path]).unwrap_err();
        assert_eq!(failure.code, Code::Setup);
        for expected in [key, meant, &path] {
            assert!(failure.message.contains(expected), "{text:?}: {failure}");
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let failure = load(&["--config", "/nonexistent/node.toml"]).unwrap_err();
    assert!(failure.message.contains("/nonexistent/node.toml"), "{failure}");
}

#[test]
fn printed_settings_are_a_file_that_says_the_same() {
    let effective = load(&[
        "--node",
        "n1",
        "--cert",
        "x \"y\"\\#.pem",
        "--workers",
        "3",
        "--log",
        "debug",
        "--log-format",
        "json",
        "--client-name-from-cn",
        "--operators",
        "ops/anna,ops/ben",
    ])
    .unwrap();
    let printed = as_file(&effective);
    let (_directory, path) = file(&printed);
    let read = load(&["--config", &path]).unwrap();
    assert_eq!(read.settings, effective.settings);
    assert!(
        read.chosen
            .iter()
            .all(|chosen| matches!(chosen.source, Source::File(..)))
    );
    for expected in [
        "node = \"n1\" # flag --node",
        "cluster = \"highwater\" # default",
        "[tls]",
        "cannot start",
    ] {
        assert!(printed.contains(expected), "{expected} is not in\n{printed}");
    }
    assert!(
        printed
            .lines()
            .filter(|line| line.starts_with('#'))
            .all(|line| line.len() <= 100)
    );
}

#[test]
fn an_empty_list_is_empty() {
    let effective = load(&["--tenants", ""]).unwrap();
    assert!(effective.settings.node.tenants.is_empty());
    let more = load(&["--seeds", "a:1", "--seeds", "b:1"]).unwrap();
    assert_eq!(more.settings.node.seeds, ["a:1", "b:1"]);
}

#[test]
fn wrong_values_are_refused_with_name_value_place_and_limit() {
    for (text, expected) in [
        ("workers = 1000", "`workers` is 1000"),
        ("workers = 1000", "from 0 to 256"),
        ("workers = '3'", "a number of threads"),
        ("log = 'x=y=z'", "is not a filter"),
        ("log_format = 'xml'", "text or json"),
        ("seeds = 'a:1'", "a list of at most 64 addresses"),
        ("connection_age_max_ms = 1", "from 1000 to 604800000"),
        ("[tls]\nclient_name_from_cn = 1", "true or false"),
        ("node = 'n1'\n[tls", "line 2, column 5: unclosed table"),
    ] {
        let (_directory, path) = file(text);
        let failure = load(&["--config", &path]).unwrap_err();
        assert_eq!(failure.code, Code::Setup);
        assert!(failure.message.contains(expected), "{failure}");
        assert!(failure.message.contains(&path), "{failure}");
    }
    let failure = load(&["--workers", "many"]).unwrap_err();
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("\"many\" (flag --workers)"), "{failure}");
}

#[test]
fn what_the_node_refuses_is_told_with_its_place_too() {
    let (_directory, path) = file("node = 'n1'\nlisten = 'localhost'\n");
    let effective = load(&["--config", &path]).unwrap();
    let failure = effective.check().unwrap_err();
    assert_eq!(failure.code, Code::Setup);
    for expected in ["`listen` is \"localhost\"", &path, "host:port"] {
        assert!(failure.message.contains(expected), "{failure}");
    }
}
