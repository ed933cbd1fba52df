//! What the documents point to is there: relative links with their anchors, pictures, and the files of the source that they name.
//!
//! Deliberately absent: links to other sites, which need the Internet.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use highwater_tests::markdown::{anchors, code, links, prose};
use highwater_tests::repository::{File, files, root};

/// What the name of a file of ours begins with, where a document names one in its text.
const ROOMS: [&str; 7] = ["api/", "certs/", "cmd/", "deploy/", "docs/", "internal/", "tests/"];
/// What stands in the name of several files, or of one that is only described.
const PATTERNS: [char; 5] = ['*', '…', '<', '{', ' '];
/// It tells of what was, too.
const OF_THE_PAST: &str = "CHANGELOG.md";

fn documents() -> Vec<File> {
    let documents: Vec<File> = files().into_iter().filter(File::is_markdown).collect();
    assert!(documents.len() > 30, "only {} documents", documents.len());
    documents
}

/// A path without `.` and `..`; None if it leads out of the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir if plain.pop() => {}
            _ => return None,
        }
    }
    Some(plain)
}

/// What is wrong with a link of a document.
fn broken(from: &str, target: &str, anchors: &BTreeMap<String, Vec<String>>) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let directory = Path::new(from).parent().unwrap_or(Path::new(""));
    let path = match file {
        "" => PathBuf::from(from),
        file => match plain(&directory.join(file)) {
            Some(path) => path,
            None => return Some(format!("{target} leads out of the repository")),
        },
    };
    if !root().join(&path).exists() {
        return Some(format!("{target}: there is no {}", path.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let known = anchors.get(&*path.to_string_lossy());
    let is_there = known.is_some_and(|known| known.iter().any(|name| name == anchor));
    (!is_there).then(|| format!("{target}: {} has no heading #{anchor}", path.display()))
}

/// A file of ours that a piece of code names and that is not there.
fn missing_file(piece: &str) -> Option<String> {
    let is_ours = ROOMS.iter().any(|room| piece.starts_with(room));
    let names_one = is_ours && piece.contains('.') && !piece.contains(PATTERNS);
    (names_one && !root().join(piece).exists()).then(|| format!("there is no `{piece}`"))
}

#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let of = |file: &File| anchors(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
    let known: BTreeMap<String, Vec<String>> = documents.iter().map(|file| (file.path.clone(), of(file))).collect();
    let (mut count, mut wrong) = (0, Vec::new());
    for file in &documents {
        for (line, text) in prose(&file.text).unwrap_or_default() {
            let found = links(text);
            count += found.len();
            let broken = found.iter().filter_map(|target| broken(&file.path, target, &known));
            wrong.extend(broken.map(|why| format!("{}:{line}: {why}", file.path)));
        }
    }
    assert!(count > 200, "only {count} links were found");
    assert_none(&wrong);
}

#[test]
fn every_file_that_is_named_is_there() {
    let (mut count, mut wrong) = (0, Vec::new());
    for file in documents().iter().filter(|file| file.path != OF_THE_PAST) {
        for (line, text) in prose(&file.text).unwrap_or_default() {
            let pieces = code(text);
            count += pieces.iter().filter(|piece| piece.starts_with("internal/")).count();
            let missing = pieces.into_iter().filter_map(missing_file);
            wrong.extend(missing.map(|why| format!("{}:{line}: {why}", file.path)));
        }
    }
    assert!(count > 30, "only {count} files were found");
    assert_none(&wrong);
}

#[test]
fn a_broken_link_is_noticed() {
    let anchors = BTreeMap::from([("docs/access.md".to_owned(), vec!["roles".to_owned()])]);
    let broken = |target| broken("docs/access.md", target, &anchors);
    for good in [
        "access.md",
        "#roles",
        "access.md#roles",
        "../README.md",
        "../docs",
        "https://nowhere.example",
    ] {
        assert_eq!(broken(good), None, "{good}");
    }
    for bad in [
        "acces.md",
        "#rules",
        "access.md#rules",
        "../../README.md",
        "../README.md#no",
        "/README.md",
    ] {
        assert!(broken(bad).is_some(), "{bad}");
    }
}

#[test]
fn a_file_that_is_not_there_is_noticed() {
    assert!(missing_file("tests/checks/link.rs").is_some());
    for good in [
        "tests/checks/links.rs",
        "tests/*/nothing.rs",
        "nothing.rs",
        "https://tests/a.rs",
    ] {
        assert_eq!(missing_file(good), None, "{good}");
    }
}
