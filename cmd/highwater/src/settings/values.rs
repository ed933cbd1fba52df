//! What values of settings look like: from text (flags, variables), in a file, and their limits.

use std::ops::RangeInclusive;

use highwater_node::config::ADDRESS_BYTES_MAX;
use toml::Value;
use tracing_subscriber::EnvFilter;

/// What a value looks like. What needs more than the value itself to be judged is for the node's own validation.
#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    /// A name as certificates have it.
    Name,
    /// host:port.
    Address,
    /// A file or directory.
    Path,
    /// Any text up to so many bytes.
    Text(usize),
    /// At most so many texts; in words, of what.
    List(usize, &'static str),
    /// Yes or no.
    Switch,
    /// A whole number between two, and what it counts.
    Count(RangeInclusive<u64>, &'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// What to log.
    Filter,
}

impl Kind {
    /// The value of a flag or variable, or what would be right. Separators are commas; an empty text is an empty list, not a list of one
    /// empty name.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::List(..) => Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(Value::from)
                    .collect(),
            ),
            Self::Switch => Value::Boolean(text.parse().map_err(|_| self.expected())?),
            Self::Count(..) => Value::Integer(text.trim().parse().map_err(|_| self.expected())?),
            _ => Value::from(text),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Whether a value is of this kind and within its limits; if not, what would be right.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let fits = match (self, value) {
            (Self::Count(range, _), Value::Integer(number)) => {
                u64::try_from(*number).is_ok_and(|number| range.contains(&number))
            }
            (Self::Switch, Value::Boolean(_)) => true,
            (Self::List(most, _), Value::Array(items)) => items.len() <= *most && items.iter().all(Value::is_str),
            (Self::Choice(words), Value::String(text)) => words.contains(&text.as_str()),
            (Self::Text(most), Value::String(text)) => text.len() <= *most,
            (Self::Filter, Value::String(text)) => return check_filter(text),
            (Self::Name | Self::Address | Self::Path, Value::String(_)) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(self.expected()) }
    }

    fn expected(&self) -> String {
        format!("it must be {}", self.limits())
    }

    /// What is right, in words that go on after "must be".
    pub(crate) fn limits(&self) -> String {
        match self {
            Self::Name => "a name".to_owned(),
            Self::Address => format!("host:port, at most {ADDRESS_BYTES_MAX} bytes"),
            Self::Path => "a path".to_owned(),
            Self::Text(most) => format!("a text of at most {most} bytes"),
            Self::List(most, what) => format!("a list of at most {most} {what}"),
            Self::Switch => "true or false".to_owned(),
            Self::Count(range, what) => format!("a number of {what} from {} to {}", range.start(), range.end()),
            Self::Choice(words) => words.join(" or "),
            Self::Filter => "a level or a filter".to_owned(),
        }
    }
}

/// What to log, in the form that the logging library takes.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| format!("it is not a filter: {error}"))
}

fn check_filter(text: &str) -> Result<(), String> {
    filter(text).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_becomes_what_a_file_would_say() {
        let list = Kind::List(2, "names");
        assert_eq!(list.parse("a, b,").unwrap().to_string(), r#"["a", "b"]"#);
        assert_eq!(list.parse("").unwrap().to_string(), "[]");
        assert_eq!(Kind::Switch.parse("true").unwrap(), Value::Boolean(true));
        assert_eq!(Kind::Count(0..=7, "cats").parse("7").unwrap(), Value::Integer(7));
        assert_eq!(Kind::Path.parse("/a b").unwrap(), Value::from("/a b"));
    }

    #[test]
    fn what_is_not_right_is_answered_with_what_would_be() {
        for (kind, text, limit) in [
            (Kind::List(1, "names"), "a,b", "at most 1 names"),
            (Kind::Switch, "yes", "true or false"),
            (Kind::Count(2..=7, "cats"), "8", "cats from 2 to 7"),
            (Kind::Count(2..=7, "cats"), "-3", "cats from 2 to 7"),
            (Kind::Count(2..=7, "cats"), "many", "cats from 2 to 7"),
            (Kind::Choice(&["text", "json"]), "xml", "text or json"),
            (Kind::Text(2), "abc", "at most 2 bytes"),
            (Kind::Filter, "x=y=z", "not a filter"),
        ] {
            let why = kind.parse(text).unwrap_err();
            assert!(why.contains(limit), "{kind:?} of {text:?}: {why}");
        }
        assert!(Kind::Path.check(&Value::Integer(1)).is_err());
        assert!(Kind::List(1, "names").check(&Value::from("a")).is_err());
        assert!(
            Kind::List(1, "names")
                .check(&Value::Array(vec![Value::Integer(1)]))
                .is_err()
        );
    }
}
