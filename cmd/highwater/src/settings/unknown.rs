//! Names that nobody knows: in a file any of them is a mistake, in the environment those that look like a setting.
//!
//! The environment is not ours alone. Commands have variables of their own, and Kubernetes gives every pod some about each service, so
//! that one called `highwater` is told as `HIGHWATER_PORT` and the like. What resembles a setting too closely to be any of that is refused;
//! of the rest the log says that it is ignored.

use super::table::SETTINGS;
use super::{Failure, HINT, Result};

/// How variables of settings begin.
const PREFIX: &str = "HIGHWATER_";

/// Variables that are not settings of a node.
const OTHERS: [&str; 2] = ["HIGHWATER_CONFIG", "HIGHWATER_NODE_CONFIG"];

/// Refuses variables that look like a setting and are none; gives the names of others that begin like one.
pub(crate) fn check_environment(names: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let mut ignored: Vec<String> = Vec::new();
    for name in names {
        let is_known = SETTINGS.iter().any(|setting| setting.variable == name) || OTHERS.contains(&name.as_str());
        if !name.starts_with(PREFIX) || is_known || is_of_a_service(&name) {
            continue;
        }
        if let Some(meant) = meant_by(&name) {
            let why = format!("the environment variable {name} is no setting; did you mean {meant}?");
            return Err(Failure::setup(why).hint(HINT));
        }
        ignored.push(name);
    }
    ignored.sort();
    Ok(ignored)
}

/// The names that Kubernetes makes for a service.
fn is_of_a_service(name: &str) -> bool {
    name.ends_with("_PORT")
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"]
            .iter()
            .any(|part| name.contains(part))
}

fn meant_by(name: &str) -> Option<&'static str> {
    // By its place in the file: HIGHWATER_TLS_CA.
    let is_key = |key: &str| format!("{PREFIX}{}", key.replace('.', "_").to_uppercase()) == name;
    let same = SETTINGS.iter().find(|setting| is_key(setting.key));
    let tail = |variable: &'static str| variable.strip_prefix(PREFIX);
    let near = || {
        let found = nearest(
            name.strip_prefix(PREFIX)?,
            SETTINGS.iter().filter_map(|setting| tail(setting.variable)),
        )?;
        SETTINGS.iter().find(|setting| tail(setting.variable) == Some(found))
    };
    same.or_else(near).map(|setting| setting.variable)
}

/// The known name that `name` was probably meant to be: of each three letters one may be wrong.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &&str| strsim::osa_distance(name, candidate);
    let found = known.min_by_key(distance)?;
    (distance(&found) <= name.len().max(3) / 3).then_some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str) -> Result<Vec<String>> {
        check_environment([name.to_owned()])
    }

    #[test]
    fn what_looks_like_a_setting_is_refused_with_the_right_name() {
        for (name, meant) in [
            ("HIGHWATER_NODES", "HIGHWATER_NODE?"),
            ("HIGHWATER_TLS_CA", "HIGHWATER_CA?"),
            ("HIGHWATER_DATADIR", "HIGHWATER_DATA_DIR?"),
            ("HIGHWATER_CONECTION_AGE_MS", "HIGHWATER_CONNECTION_AGE_MAX_MS?"),
        ] {
            let failure = check(name).unwrap_err();
            assert!(
                failure.message.contains(name) && failure.message.ends_with(meant),
                "{failure}"
            );
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for name in [
            "PATH",
            "HIGHWATER_NODE",
            "HIGHWATER_CONFIG",
            "HIGHWATER_PORT",
            "HIGHWATER_SERVICE_HOST",
            "HIGHWATER_SERVICE_PORT_GRPC",
            "HIGHWATER_PORT_7400_TCP_ADDR",
            "HIGHWATER_HEADLESS_SERVICE_HOST",
        ] {
            assert!(check(name).unwrap().is_empty(), "{name}");
        }
        assert_eq!(check("HIGHWATER_BINARY").unwrap(), ["HIGHWATER_BINARY"]);
    }
}
