//! Under which licences, and from where, the libraries come.
//!
//! Every package that the lock file resolves must come from the public registry and offer a licence of the list in
//! `deny.toml`. Licences are SPDX expressions (`MIT OR Apache-2.0`); `AND` asks for both sides, `OR` for one, `WITH`
//! names an exception and counts as a licence of its own, and the old `/` means `OR`.

mod metadata;

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use metadata::{Graph, deny_file, root};

const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
const OUR_LICENCE: &str = "Apache-2.0";

/// A licence expression, read while it is evaluated: true if what is allowed satisfies it.
struct Expression<'a> {
    allowed: &'a BTreeSet<String>,
    tokens: Peekable<IntoIter<String>>,
}

/// Whether `text` is satisfied by the allowed licences; an error if it is no expression.
fn is_allowed(text: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<String> = spaced.split_whitespace().map(str::to_string).collect();
    let mut expression = Expression {
        allowed,
        tokens: tokens.into_iter().peekable(),
    };
    let satisfied = expression.either()?;
    match expression.tokens.next() {
        None => Ok(satisfied),
        Some(token) => Err(format!("{token:?} is too much")),
    }
}

impl Expression<'_> {
    fn either(&mut self) -> Result<bool, String> {
        let mut satisfied = self.both()?;
        while self.tokens.next_if(|token| token == "OR").is_some() {
            satisfied |= self.both()?;
        }
        Ok(satisfied)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut satisfied = self.one()?;
        while self.tokens.next_if(|token| token == "AND").is_some() {
            satisfied &= self.one()?;
        }
        Ok(satisfied)
    }

    fn one(&mut self) -> Result<bool, String> {
        let licence = match self.tokens.next() {
            None => return Err("it ends too early".to_string()),
            Some(token) if token == "(" => return self.bracketed(),
            Some(token) if ["OR", "AND", "WITH", ")"].contains(&token.as_str()) => {
                return Err(format!("{token:?} is not a licence"));
            }
            Some(token) => token,
        };
        if self.tokens.next_if(|token| token == "WITH").is_none() {
            // "This version or any later" may be taken as this version.
            let this_version = licence.strip_suffix('+').unwrap_or(&licence);
            return Ok(self.allowed.contains(this_version));
        }
        let exception = self.tokens.next().ok_or("no exception behind WITH")?;
        Ok(self.allowed.contains(&format!("{licence} WITH {exception}")))
    }

    fn bracketed(&mut self) -> Result<bool, String> {
        let satisfied = self.either()?;
        match self.tokens.next() {
            Some(token) if token == ")" => Ok(satisfied),
            other => Err(format!("{other:?} in place of a closing bracket")),
        }
    }
}

fn allow_list() -> BTreeSet<String> {
    let deny = deny_file();
    let list = deny["licenses"]["allow"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter_map(|licence| licence.as_str())
        .map(str::to_string)
        .collect()
}

/// Packages that may have a licence that others may not.
fn exceptions() -> BTreeSet<(String, String)> {
    let deny = deny_file();
    let list = deny["licenses"]["exceptions"].as_array().cloned().unwrap_or_default();
    let of_one = |exception: &toml::Value| {
        let package = exception["crate"].as_str().unwrap_or_default().to_string();
        let allowed = exception["allow"].as_array().cloned().unwrap_or_default();
        let licences = allowed
            .into_iter()
            .filter_map(|licence| licence.as_str().map(str::to_string));
        licences
            .map(move |licence| (package.clone(), licence))
            .collect::<Vec<_>>()
    };
    list.iter().flat_map(of_one).collect()
}

fn wrong_licences(graph: &Graph, generally: &BTreeSet<String>, exceptions: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in graph.packages.values() {
        let who = format!("{} {}", package.name, package.version);
        let own = exceptions.iter().filter(|(name, _)| *name == package.name);
        let own = own.map(|(_, licence)| licence.clone());
        let allowed = &generally.iter().cloned().chain(own).collect();
        match package.license.as_deref().map(|text| (text, is_allowed(text, allowed))) {
            None => wrong.push(format!("{who} names no licence")),
            Some((text, Err(why))) => wrong.push(format!("{who}: {text:?} is no licence expression: {why}")),
            Some((text, Ok(false))) => wrong.push(format!("{who} is under {text:?}, which deny.toml does not allow")),
            Some((_, Ok(true))) => {}
        }
        match package.source.as_deref() {
            None if package.license.as_deref() != Some(OUR_LICENCE) => {
                wrong.push(format!("{who} is ours, but not under {OUR_LICENCE}"));
            }
            None | Some(PUBLIC_REGISTRY) => {}
            Some(other) => wrong.push(format!("{who} comes from {other}, not from the public registry")),
        }
    }
    wrong
}

#[test]
fn every_package_has_an_allowed_licence_and_source() {
    let wrong = wrong_licences(&Graph::of_workspace(), &allow_list(), &exceptions());
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

/// An allowed licence that nothing uses is a hole that nobody asked for.
#[test]
fn every_allowed_licence_is_needed() {
    let graph = Graph::of_workspace();
    let allowed = allow_list();
    for licence in &allowed {
        let fewer: BTreeSet<String> = allowed.iter().filter(|other| *other != licence).cloned().collect();
        assert!(
            !wrong_licences(&graph, &fewer, &exceptions()).is_empty(),
            "deny.toml allows {licence}, but nothing needs it"
        );
    }
}

#[test]
fn every_exception_is_needed() {
    let graph = Graph::of_workspace();
    let all = exceptions();
    for exception in &all {
        let fewer: BTreeSet<_> = all.iter().filter(|other| *other != exception).cloned().collect();
        assert!(
            !wrong_licences(&graph, &allow_list(), &fewer).is_empty(),
            "deny.toml makes the exception {exception:?}, but nothing needs it"
        );
    }
}

#[test]
fn the_licence_of_this_project_is_in_its_root() {
    let text = std::fs::read_to_string(root().join("LICENSE")).unwrap_or_default();
    assert!(
        text.contains("Apache License") && text.contains("Version 2.0"),
        "LICENSE is not the Apache License 2.0"
    );
}

mod of_made_up_packages {
    use super::metadata::Package;
    use super::*;

    fn allowed() -> BTreeSet<String> {
        ["MIT", "Apache-2.0", "ISC"].map(str::to_string).into()
    }

    #[test]
    fn expressions_are_read_as_they_are_meant() {
        for (text, expected) in [
            ("MIT", true),
            ("MIT+", true),
            ("GPL-3.0+", false),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND ISC", true),
            ("GPL-3.0 OR MIT AND GPL-2.0", false),
            ("(GPL-3.0 OR MIT) AND ISC", true),
            ("(GPL-3.0 OR MIT) AND BSL-1.1", false),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ] {
            assert_eq!(is_allowed(text, &allowed()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for text in [
            "", "MIT MIT", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT AND", "MIT WITH", "()", "AND",
        ] {
            assert!(is_allowed(text, &allowed()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_licence_a_missing_one_and_a_wrong_source_are_found() {
        let mut graph = Graph::default();
        let mut add = |name: &str, license: Option<&str>, source: Option<&str>| {
            let (license, source) = (license.map(str::to_string), source.map(str::to_string));
            let package = Package {
                name: name.to_string(),
                license,
                source,
                ..Package::default()
            };
            graph.packages.insert(name.to_string(), package);
        };
        add("a-good", Some("MIT"), Some(PUBLIC_REGISTRY));
        add("b-bad", Some("AGPL-3.0"), Some(PUBLIC_REGISTRY));
        add("c-silent", None, Some(PUBLIC_REGISTRY));
        add("d-elsewhere", Some("MIT"), Some("git+https://example.com/d"));
        add("e-ours", Some("MIT"), None);
        add("f-excepted", Some("MPL-2.0+"), Some(PUBLIC_REGISTRY));
        add("g-not-excepted", Some("MPL-2.0+"), Some(PUBLIC_REGISTRY));
        let exceptions = [("f-excepted".to_string(), "MPL-2.0".to_string())].into();
        let wrong = wrong_licences(&graph, &allowed(), &exceptions);
        let expected = [
            "does not allow",
            "names no licence",
            "not from the public registry",
            "is ours, but not under",
            "g-not-excepted",
        ];
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.contains(expected), "{wrong:?} does not say {expected:?}");
        }
    }
}
