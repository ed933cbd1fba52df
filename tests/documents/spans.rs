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

use crate::page::Page;
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

/// A command as it is written somewhere.
struct Written {
    place: String,
    text: String,
}

/// The pieces of code in a document's text.
fn in_text(file: &File) -> Vec<Written> {
    let mut written = Vec::new();
    for (line, text) in prose(&file.text).unwrap_or_default() {
        written.extend(code(text).into_iter().map(|piece| Written {
            place: format!("{}:{line}", file.path),
            text: piece.to_owned(),
        }));
    }
    written
}

/// The lines of a page's blocks that are not run.
fn not_run(page: &Page) -> Vec<Written> {
    let mut written = Vec::new();
    for step in page.steps.iter().filter(|step| !step.is_run) {
        let joined = step.shell.replace("\\\n", " ");
        written.extend(joined.lines().map(|text| Written {
            place: format!("{}:{}", page.path, step.line),
            text: text.to_owned(),
        }));
    }
    written
}

#[test]
fn every_command_in_the_text_is_known() {
    let (mut help, verbs, mut wrong, mut count) = (Help::default(), verbs(), Vec::new(), 0);
    let documents = files().into_iter().filter(File::is_markdown);
    let of_today = documents.filter(|file| !OF_THE_PAST.contains(&file.path.as_str()));
    let in_text = of_today.flat_map(|file| in_text(&file));
    for Written { place, text } in in_text.chain(pages().iter().flat_map(not_run)) {
        let words = words_of_program(&text);
        count += usize::from(words.is_some());
        let of_program = words.and_then(|words| help.judge(words));
        let judged = of_program.or_else(|| unknown_verb(&text, &verbs));
        wrong.extend(judged.map(|why| format!("{place}: {why}: {text}")));
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
