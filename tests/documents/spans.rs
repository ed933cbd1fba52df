//! Commands in running text, and in blocks that are not run here: they are read, word by word.
//!
//! A command of `highwater` is looked up in what `--help` says at each of its levels: a subcommand or a flag that is not there is a
//! mistake. A verb of `make` must stand in the Makefile. Several in one (`topic list|create`) are looked up each; what is written in
//! capitals, in brackets or as `…` is for the reader to fill in.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use highwater_tests::markdown::{code, prose};
use highwater_tests::repository::{File, files, root};
use highwater_tests::{binary, run};

use crate::{PATIENCE, pages};

const PROGRAM: &str = "highwater ";
/// These tell of what was, too.
const OF_THE_PAST: [&str; 1] = ["CHANGELOG.md"];

/// What `--help` says, by subcommand.
#[derive(Default)]
struct Help {
    pages: BTreeMap<Vec<String>, String>,
}

impl Help {
    fn of(&mut self, path: &[String]) -> &str {
        let ask = || {
            run(Command::new(binary()).args(path).arg("--help"), PATIENCE)
                .success()
                .stdout()
        };
        self.pages.entry(path.to_vec()).or_insert_with(ask)
    }

    /// The subcommands at a place; empty if it takes none.
    fn subcommands(&mut self, path: &[String]) -> BTreeSet<String> {
        let lines = self.of(path).lines().skip_while(|line| *line != "Commands:").skip(1);
        let listed = lines.take_while(|line| !line.is_empty());
        // What a command does may go on in a line of its own, further to the right.
        let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        named
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    fn has_flag(&mut self, path: &[String], flag: &str) -> bool {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        let mut words = self.of(path).split(|letter| !is_part(letter));
        words.any(|word| word == flag)
    }

    /// What is wrong with the words behind `highwater`.
    fn judge(&mut self, words: &str) -> Option<String> {
        let mut path = Vec::new();
        for word in words
            .split_whitespace()
            .take_while(|word| !matches!(*word, "|" | "#" | "&&" | ">"))
        {
            if word.starts_with('-') {
                let flag = word.split('=').next().unwrap_or(word);
                if !self.has_flag(&path, flag) {
                    return Some(format!("`{}` has no {flag}", path.join(" ")));
                }
                continue;
            }
            let known = self.subcommands(&path);
            if known.is_empty() {
                continue;
            }
            let meant: Vec<&str> = word.split('|').collect();
            if let Some(unknown) = meant.iter().find(|word| !known.contains(**word)) {
                return Some(format!("`highwater {}` has no command {unknown}", path.join(" ")));
            }
            match meant[..] {
                [one] => path.push(one.to_owned()),
                // What follows would be of each of them.
                _ => return None,
            }
        }
        None
    }
}

/// What stands behind `highwater`, in a command or in one that is given within a pod.
fn words_of_program(piece: &str) -> Option<&str> {
    let in_pod = || piece.split_once(&format!(" -- {PROGRAM}")).map(|(_, words)| words);
    piece.strip_prefix(PROGRAM).or_else(in_pod)
}

/// The verbs of the Makefile.
fn verbs() -> BTreeSet<String> {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap_or_default();
    let targets = makefile.lines().filter_map(|line| line.split_once(':'));
    let is_verb = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    targets
        .map(|(name, _)| name.to_owned())
        .filter(|name| is_verb(name))
        .collect()
}

fn unknown_verb(piece: &str, verbs: &BTreeSet<String>) -> Option<String> {
    let verb = piece.strip_prefix("make ")?.split([' ', '`']).next()?;
    (!verbs.contains(verb)).then(|| format!("the Makefile has no verb {verb}"))
}

/// The pieces of code in a document's text, and the lines of its blocks that are not run, each with its line.
fn pieces(file: &File) -> Vec<(usize, String)> {
    let text = prose(&file.text).unwrap_or_default();
    let spans = text
        .iter()
        .flat_map(|(line, text)| code(text).into_iter().map(|piece| (*line, piece.to_owned())));
    spans.collect()
}

fn lines_not_run() -> Vec<(String, usize, String)> {
    let of_page = |page: crate::page::Page| {
        let skipped = page.steps.into_iter().filter(|step| !step.is_run);
        let lines = skipped.flat_map(|step| {
            let joined = step.shell.replace("\\\n", " ");
            joined
                .lines()
                .map(|line| (step.line, line.to_owned()))
                .collect::<Vec<_>>()
        });
        lines
            .map(|(line, text)| (page.path.clone(), line, text))
            .collect::<Vec<_>>()
    };
    pages().into_iter().flat_map(of_page).collect()
}

#[test]
fn every_command_in_the_text_is_known() {
    let (mut help, verbs, mut wrong, mut count) = (Help::default(), verbs(), Vec::new(), 0);
    let documents = files()
        .into_iter()
        .filter(|file| file.is_markdown() && !OF_THE_PAST.contains(&file.path.as_str()));
    let in_text = documents.flat_map(|file| {
        let pieces = pieces(&file).into_iter();
        pieces
            .map(move |(line, piece)| (file.path.clone(), line, piece))
            .collect::<Vec<_>>()
    });
    for (path, line, piece) in in_text.chain(lines_not_run()) {
        let words = words_of_program(&piece);
        count += usize::from(words.is_some());
        let judged = words
            .and_then(|words| help.judge(words))
            .or_else(|| unknown_verb(&piece, &verbs));
        wrong.extend(judged.map(|why| format!("{path}:{line}: {why}: {piece}")));
    }
    assert!(count > 80, "only {count} commands were found");
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

#[test]
fn a_command_that_is_not_known_is_noticed() {
    let mut help = Help::default();
    for good in [
        "topic",
        "topic list|create|delete",
        "topic update TOPIC --retention-ms …",
        "cluster transfer TOPIC PARTITION [NODE]",
        "consume orders --from beginning | sha256sum",
    ] {
        assert_eq!(help.judge(good), None, "{good}");
    }
    for bad in [
        "topics",
        "topic list|make",
        "topic update TOPIC --retention …",
        "--bogus",
        "certs make",
    ] {
        assert!(help.judge(bad).is_some(), "{bad}");
    }
    assert!(unknown_verb("make nothing SEED=1", &verbs()).is_some());
    assert!(unknown_verb("make chaos SEED=1", &verbs()).is_none());
}
