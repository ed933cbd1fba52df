//! Properties of the text of the source.
//!
//! * Every Rust file opens with a `//!` header that says what it is for.
//! * No file is longer than a person reads in one go.
//! * Nothing is left unfinished, no test is switched off, no file is forgotten by its crate.
//! * Nothing tells of the machine on which it was written.
//!
//! Every rule is also tried on made-up text that breaks it.

use std::collections::BTreeSet;
use std::path::Path;

use highwater_tests::repository::{File, files};

const LINES_MAX: usize = 600;

/// What must not stand in a Rust file, and why. In two parts, so that it does not stand in this one.
const UNFINISHED: &[(&str, &str)] = &[
    (concat!("to", "do!("), "is unfinished"),
    (concat!("unimple", "mented!("), "is unfinished"),
    (concat!("db", "g!("), "is for debugging"),
    (concat!("#[ig", "nore"), "switches a test off"),
    (concat!("FIX", "ME"), "is unfinished"),
    (concat!("XX", "X"), "is unfinished"),
];

/// What must not stand in any file, and why.
const OF_A_MACHINE: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "is a path of one machine"),
    (concat!("/ro", "ot/"), "is a path of one machine"),
    (concat!("/ho", "me/"), "is a path of one machine"),
    (concat!("/Us", "ers/"), "is a path of one machine"),
    (concat!("index", "-url"), "names a registry"),
    (concat!("INDEX", "_URL"), "names a registry"),
    (concat!("replace", "-with"), "names a registry"),
    (concat!("sparse", "+http"), "names a registry"),
    (concat!("artif", "actory"), "names a registry"),
];

fn missing_header(file: &File) -> Option<String> {
    let lacks = file.is_rust() && !file.text.starts_with("//! ");
    lacks.then(|| format!("{} does not open with a //! header", file.path))
}

fn too_long(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    let over = file.is_rust() && lines > LINES_MAX;
    over.then(|| format!("{} has {lines} lines, {LINES_MAX} are allowed: split it", file.path))
}

fn found<'a>(file: &'a File, patterns: &'a [(&str, &str)]) -> impl Iterator<Item = String> + 'a {
    let lines = (1..).zip(file.text.lines());
    lines.flat_map(move |(number, line)| {
        let hits = patterns.iter().filter(move |(pattern, _)| line.contains(pattern));
        hits.map(move |(pattern, why)| format!("{}:{number}: {pattern} {why}", file.path))
    })
}

/// Rust files under a `src` that no file of the same crate declares as a module.
fn forgotten(files: &[File]) -> Vec<String> {
    let sources: Vec<&File> = files
        .iter()
        .filter(|file| file.is_rust() && file.path.contains("src/"))
        .collect();
    let crate_of = |file: &File| file.path.split("src/").next().unwrap_or_default().to_string();
    let is_root = |path: &str| ["src/lib.rs", "src/main.rs"].iter().any(|root| path.ends_with(root));
    let declares = |file: &File, module: &str| {
        let declaration = format!("mod {module};");
        file.text.lines().any(|line| line.trim_end().ends_with(&declaration))
    };
    let is_forgotten = |file: &&&File| {
        let Some(module) = module_of(&file.path) else {
            return false;
        };
        !is_root(&file.path)
            && !file.path.contains("src/bin/")
            && !sources
                .iter()
                .any(|other| crate_of(other) == crate_of(file) && declares(other, &module))
    };
    sources
        .iter()
        .filter(is_forgotten)
        .map(|file| format!("{} is a module of nothing", file.path))
        .collect()
}

/// `a/src/b/c.rs` is module c, `a/src/b/mod.rs` is module b.
fn module_of(path: &str) -> Option<String> {
    let path = Path::new(path);
    let stem = path.file_stem()?.to_str()?;
    if stem != "mod" {
        return Some(stem.to_string());
    }
    Some(path.parent()?.file_name()?.to_str()?.to_string())
}

/// Headings of the third level that come twice below one of the second.
fn repeated_headings(file: &File) -> Vec<String> {
    let (mut release, mut seen, mut repeated) = ("", BTreeSet::new(), Vec::new());
    for (number, line) in file.text.lines().enumerate() {
        if line.starts_with("## ") {
            (release, seen) = (line, BTreeSet::new());
        } else if line.starts_with("### ") && !seen.insert(line) {
            repeated.push(format!("{}:{}: {line} comes twice in {release}", file.path, number + 1));
        }
    }
    repeated
}

fn assert_clean(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    assert_clean(files().iter().filter_map(missing_header).collect());
}

#[test]
fn no_rust_file_is_too_long() {
    assert_clean(files().iter().filter_map(too_long).collect());
}

#[test]
fn nothing_is_left_unfinished() {
    let files = files();
    assert_clean(
        files
            .iter()
            .filter(|file| file.is_rust())
            .flat_map(|file| found(file, UNFINISHED))
            .collect(),
    );
}

#[test]
fn nothing_tells_of_a_machine() {
    assert_clean(
        files()
            .iter()
            .flat_map(|file| found(file, OF_A_MACHINE).collect::<Vec<_>>())
            .collect(),
    );
}

#[test]
fn no_rust_file_is_forgotten() {
    assert_clean(forgotten(&files()));
}

#[test]
fn the_changelog_lists_each_kind_of_change_once_a_release() {
    let changelog = files().into_iter().find(|file| file.path == "CHANGELOG.md");
    assert_clean(changelog.iter().flat_map(repeated_headings).collect());
}

mod of_made_up_text {
    use super::*;

    #[test]
    fn a_heading_that_comes_twice_in_a_release_is_found() {
        let changelog = file("CHANGELOG.md", "## 2\n### A\n### B\n### A\n## 1\n### A\n");
        assert_eq!(
            repeated_headings(&changelog),
            ["CHANGELOG.md:4: ### A comes twice in ## 2"]
        );
    }

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_string(),
            text: text.to_string(),
        }
    }

    #[test]
    fn a_missing_header_is_found() {
        assert!(missing_header(&file("a/src/b.rs", "use std::io;\n//! late\n")).is_some());
        assert!(missing_header(&file("a/src/b.rs", "//!\n")).is_some());
        assert!(missing_header(&file("a/src/b.rs", "//! What it is for.\n")).is_none());
        assert!(missing_header(&file("README.md", "# A\n")).is_none());
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(too_long(&file("a/src/b.rs", &"\n".repeat(LINES_MAX))).is_none());
        assert!(too_long(&file("a/src/b.rs", &"\n".repeat(LINES_MAX + 1))).is_some());
    }

    #[test]
    fn every_pattern_is_found_with_its_line() {
        for (pattern, _) in UNFINISHED.iter().chain(OF_A_MACHINE) {
            let file = file("a/src/b.rs", &format!("//! b\nlet a = {pattern}"));
            let hits: Vec<String> = found(&file, UNFINISHED).chain(found(&file, OF_A_MACHINE)).collect();
            assert_eq!(hits.len(), 1, "{hits:?}");
            assert!(hits[0].starts_with("a/src/b.rs:2: "), "{hits:?}");
        }
    }

    #[test]
    fn a_forgotten_file_is_found() {
        let files = [
            file("a/src/lib.rs", "//! a\nmod b;\npub mod c;\n"),
            file("a/src/b.rs", "//! b\n#[cfg(test)]\nmod tests;\n"),
            file("a/src/b/tests.rs", "//! t\n"),
            file("a/src/c/mod.rs", "//! c\n"),
            file("a/src/d.rs", "//! d\n"),
            file("a/src/bin/e.rs", "//! e\n"),
            file("f/src/lib.rs", "//! f\nmod d;\n"),
            file("f/src/d.rs", "//! d\n"),
        ];
        assert_eq!(forgotten(&files), ["a/src/d.rs is a module of nothing"]);
    }
}
