//! The file of settings: TOML, with the keys of the table and no others.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::table::{SETTINGS, Setting};
use super::unknown::nearest;
use super::{Failure, HINT, Result, Source, files};

/// A file that was read. Its values are not judged yet.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// What it says of a setting.
    pub(super) fn get(&self, setting: &Setting) -> Option<(Value, Source)> {
        let value = get(&self.table, setting.key)?.clone();
        Some((value, Source::File(self.path.clone(), setting.key)))
    }
}

/// Reads a file; one with a key that is no setting is refused.
pub(super) fn read(path: &Path) -> Result<File> {
    let wrong = |why: String| Failure::setup(format!("configuration file {}: {why}", path.display())).hint(HINT);
    // Read here, so that the failure names the path and the reason.
    let text = files::read_text("the configuration file", path)?;
    let table = files::parse_toml::<Table>(&text).map_err(wrong)?;
    if let Some(key) = keys(&table, "").into_iter().find(|key| !is_known(key)) {
        return Err(wrong(format!("`{key}` is no setting{}", suggestion(&key))));
    }
    Ok(File {
        path: path.to_owned(),
        table,
    })
}

fn is_known(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key == key)
}

fn suggestion(key: &str) -> String {
    let known = SETTINGS.iter().map(|setting| setting.key);
    let in_table = |name: &str| {
        SETTINGS
            .iter()
            .find(|setting| setting.key.ends_with(&format!(".{name}")))
    };
    let found = in_table(key).map(|setting| setting.key).or_else(|| nearest(key, known));
    found.map_or(String::new(), |found| format!("; did you mean `{found}`?"))
}

/// All keys that have a value, those of tables behind the table's name.
pub(super) fn keys(table: &Table, before: &str) -> Vec<String> {
    let of_one = |(name, value): (&String, &Value)| match value {
        Value::Table(inner) if !inner.is_empty() => keys(inner, &format!("{before}{name}.")),
        _ => vec![format!("{before}{name}")],
    };
    table.iter().flat_map(of_one).collect()
}

/// The value of `a.b` in a table.
pub(super) fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((outer, inner)) => get(table.get(outer)?.as_table()?, inner),
        None => table.get(key),
    }
}

/// Makes `value` that of `a.b` in a table.
pub(super) fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((outer, inner)) => {
            let entry = table.entry(outer).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(table) = entry {
                put(table, inner, value);
            }
        }
        None => drop(table.insert(key.to_owned(), value)),
    }
}
