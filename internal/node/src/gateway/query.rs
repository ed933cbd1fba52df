//! The parameters of a request's target.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::status::Problem;

/// Parameters by name, each of them one that is known.
#[derive(Debug, Default)]
pub(crate) struct Query {
    values: BTreeMap<&'static str, String>,
}

impl Query {
    /// Reads `name=value&…`; names other than `known`, and names that come twice, are refused.
    pub(crate) fn read(text: &str, known: &[&'static str]) -> Result<Query, Problem> {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = known
                .iter()
                .find(|known| **known == name)
                .ok_or_else(|| unknown(name, known))?;
            let decoded = percent_decode_str(value).decode_utf8();
            let value = decoded.map_err(|_| invalid(name, "is not UTF-8"))?;
            if query.values.insert(*name, value.into_owned()).is_some() {
                return Err(invalid(name, "is given twice"));
            }
        }
        Ok(query)
    }

    pub(crate) fn text(&self, name: &'static str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A number, or `default` if it is not given.
    pub(crate) fn number(&self, name: &'static str, default: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse().map_err(|_| invalid(name, "is not a whole number"))
    }

    /// The same with a limit.
    pub(crate) fn limited(&self, name: &'static str, default: u64, limit: u64) -> Result<u64, Problem> {
        match self.number(name, default)? {
            found if found > limit => Err(Problem::TooLarge {
                field: name,
                found,
                limit,
            }),
            number => Ok(number),
        }
    }
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let why = match known {
        [] => format!("there are no parameters here, also not {name:?}"),
        known => format!("there is no parameter {name:?}, there are {}", known.join(", ")),
    };
    invalid("query", &why)
}

fn invalid(field: &'static str, why: &str) -> Problem {
    Problem::Invalid {
        field,
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KNOWN: [&str; 2] = ["offset", "max"];

    #[test]
    fn parameters_are_read_and_absent_ones_have_defaults() {
        let query = Query::read("offset=l%61test&", &KNOWN).unwrap();
        assert_eq!(query.text("offset"), Some("latest"));
        assert_eq!(query.limited("max", 7, 10).unwrap(), 7);
        assert!(Query::read("", &[]).unwrap().text("offset").is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_name() {
        for (text, expected) in [
            (
                "offest=1",
                "`query`: there is no parameter \"offest\", there are offset, max",
            ),
            ("max=1&max=2", "`max`: is given twice"),
            ("max=%ff", "`max`: is not UTF-8"),
            ("max", "`max`: is not a whole number"),
            ("max=-1", "`max`: is not a whole number"),
            ("max=99999999999999999999", "`max`: is not a whole number"),
            ("max=11", "`max` is 11, at most 10 is accepted"),
        ] {
            let read = Query::read(text, &KNOWN).and_then(|query| query.limited("max", 1, 10));
            assert_eq!(read.unwrap_err().to_string(), expected, "{text}");
        }
        let refused = Query::read("max=1", &[]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`query`: there are no parameters here, also not \"max\""
        );
    }
}
