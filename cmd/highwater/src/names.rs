//! The charset of names that go into certificates: cluster, tenant, node, client. The cluster checks them
//! again; refusing here spares the user a certificate that nobody accepts.

use crate::exit::{Failure, Result};

/// The longest name, bytes.
const NAME_BYTES_MAX: usize = highwater::proto::limits::NAME_BYTES_MAX;

/// Accepts `[a-z0-9][a-z0-9._-]{0,127}` without `..`; `field` tells the user which name is meant.
pub(crate) fn check(field: &str, name: &str) -> Result<()> {
    let Some(why) = wrong(name) else {
        return Ok(());
    };
    Err(Failure::usage(format!("{field} {name:?} is not a valid name: {why}"))
        .hint("names are 1 to 128 of a-z 0-9 . _ - and begin with a letter or digit, for example `orders-2`"))
}

/// What is wrong with a name, if anything is.
pub(crate) fn wrong(name: &str) -> Option<String> {
    let Some(first) = name.chars().next() else {
        return Some("it is empty".to_owned());
    };
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("it has {} bytes, the limit is {NAME_BYTES_MAX}", name.len()));
    }
    if let Some(other) = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
    {
        return Some(format!("{other:?} is not allowed"));
    }
    if !first.is_ascii_alphanumeric() {
        return Some(format!("it begins with {first:?}"));
    }
    name.contains("..").then(|| "it contains `..`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass_and_bad_ones_say_why() {
        for name in ["a", "0", "orders", "a.b_c-d", &"x".repeat(128)] {
            assert_eq!(wrong(name), None, "{name}");
        }
        for name in [
            "",
            "Orders",
            "-a",
            ".a",
            "a..b",
            "a/b",
            "ä",
            "a b",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(wrong(name).is_some(), "{name:?} passed");
        }
    }
}
