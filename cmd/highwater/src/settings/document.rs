//! The table of docs/configuration.md is the table of settings. With `HIGHWATER_WRITE_GOLDEN` set, the test writes it.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::table::{SETTINGS, Setting, Taken};
use super::{Settings, default_in_words};

/// What stands before the table and behind it in the document.
const BEGIN: &str = "<!-- settings: written by a test -->\n";
const END: &str = "<!-- end of settings -->\n";

fn rows() -> String {
    let defaults = Settings::default().to_table();
    let head = "| in the file | flag | variable | default | may be | new value | what it is for |\n|---|---|---|---|---|---|---|\n";
    let row = |setting: &Setting| {
        let Setting {
            key,
            flag,
            variable,
            meaning,
            ..
        } = setting;
        let default = default_in_words(setting, &defaults).unwrap_or_else(|| "empty".to_owned());
        let limits = setting.kind.limits();
        let taken = match setting.taken {
            Taken::AtStart => "at a restart",
            Taken::AtSighup => "at SIGHUP",
        };
        format!("| `{key}` | `--{flag}` | `{variable}` | {default} | {limits} | {taken} | {meaning} |\n")
    };
    SETTINGS
        .iter()
        .map(row)
        .fold(head.to_owned(), |text, row| text + row.as_str())
}

#[test]
fn the_document_has_the_table_of_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", rows());
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/configuration.md is not what the settings are: `make fix` mends that"
    );
}
