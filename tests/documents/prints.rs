//! What a document says that commands print, beside what they print.

use serde_json::Value;

use crate::page::Output;

/// Fields that are different each time.
const TIMES: [&str; 2] = ["append_time_ms", "timestamp_ms"];
/// What may stand behind a number.
const UNITS: [&str; 11] = ["B", "KiB", "MiB", "GiB", "TiB", "MiB/s", "ns", "µs", "ms", "s", "%"];
/// A line of this leaves lines out.
const LEFT_OUT: &str = "…";

/// # Errors
/// What is different.
pub(crate) fn compare(shown: &Output, printed: &str) -> Result<(), String> {
    match shown {
        Output::Json(shown) => compare_json(shown, printed),
        Output::Text(shown) => compare_lines(shown.lines(), printed),
    }
}

fn compare_json(shown: &str, printed: &str) -> Result<(), String> {
    let read = |text: &str| serde_json::from_str(text).map(without_times);
    let wanted = read(shown).map_err(|error| format!("{error}: {shown}"))?;
    let found = read(printed).map_err(|error| format!("no JSON ({error}): {printed}"))?;
    if found == wanted {
        return Ok(());
    }
    Err(format!("it prints {found} and not {wanted}"))
}

/// The same but for the times.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = match TIMES.contains(&name.as_str()) {
                    true => field.is_u64().into(),
                    false => without_times(field.take()),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

/// Each line must be printed, in this order: the words are compared, numbers and the room between them are not.
///
/// # Errors
/// The first line that is not there.
pub(crate) fn compare_lines<'a>(shown: impl Iterator<Item = &'a str>, printed: &str) -> Result<(), String> {
    let mut lines = printed.lines().map(words);
    let wanted = shown.filter(|line| !line.trim().is_empty() && line.trim() != LEFT_OUT);
    for line in wanted {
        let sought = words(line);
        if !lines.any(|found| found == sought) {
            return Err(format!("it does not print {line:?} there, but\n{printed}"));
        }
    }
    Ok(())
}

/// A line without what is different each time: numbers, names with a number in them, and the units behind them.
fn words(line: &str) -> Vec<&str> {
    let has_digit = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    let is_kept = |word: &&str| !has_digit(word) && !UNITS.contains(&word.trim_end_matches([',', '.', ';', ')']));
    line.split_whitespace().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_by_their_words() {
        let printed = "Topic a:\n  n1  12.5 ms\n  n2  leader\nend\n";
        let compare = |shown: &str| compare_lines(shown.lines(), printed);
        for good in ["", "Topic a:\n…\nend", "n3  1.0 ms\n n2 leader"] {
            assert_eq!(compare(good), Ok(()), "{good}");
        }
        for bad in ["Topic b:", "n1 12.5 records", "end\nTopic a:", "n2 leader\nn2 leader"] {
            assert!(compare(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_is_compared_but_for_times() {
        let printed = r#"{"a": [{"timestamp_ms": 5, "b": 1}]}"#;
        assert_eq!(compare_json(r#"{"a":[{"b":1,"timestamp_ms":7}]}"#, printed), Ok(()));
        assert!(compare_json(r#"{"a":[{"b":2,"timestamp_ms":5}]}"#, printed).is_err());
        assert!(compare_json(r#"{"a":[{"b":1,"timestamp_ms":null}]}"#, printed).is_err());
    }
}
