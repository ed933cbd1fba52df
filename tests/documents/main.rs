//! The commands of the documents, run as they stand there.
//!
//! Every block of shell in every document of the repository is **run**, unless a comment before it says why not and what tests it instead.
//! The blocks of a page are one script of bash (`set -euo pipefail`), run from top to bottom in a new directory with the built
//! `highwater` first in the path; the first command that fails fails the page. What a page needs beside what its reader sees stands in the
//! page, too, in comments that a browser does not show:
//!
//! | comment | what it means |
//! |---|---|
//! | `<!-- not run: WHY; tests/FILE -->` | the next block is not run; the file, which must exist, tests it instead |
//! | `<!-- run` … `-->` | more shell, run at that place: what must be there before, or a check of what came out |
//! | `<!-- prints -->` | the next block is what the block before it prints: JSON but for times, text but for numbers and what it leaves out |
//!
//! A line `highwater …` whose comment says `Ctrl-C` stays: it runs beside the others until the page is done, and then must end in order
//! when it is interrupted ([`script`]). What it says is in `$NOTES/stay-0`, that of the next one in `$NOTES/stay-1`. All other commands must
//! come to their end.
//!
//! Commands in running text (`highwater topic list`, `make demo`) are not run, but every word of them must be known ([`spans`]). The picture
//! of a terminal in README.md is compared with what its commands print ([`picture`]).
//!
//! Rules: loopback only; `highwater dev` takes any free ports (`--port 0`, the one thing that is added to a command), other nodes those in
//! `$PORT` and `$ADMIN_PORT`; the home directory is the page's own. A page that needs a tool that the machine lacks is skipped, loudly, and on
//! CI fails.

mod page;
mod picture;
mod prints;
mod script;
mod spans;
mod stage;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread::scope;
use std::time::Duration;

use highwater_tests::repository::{File, files};

use crate::page::Page;

/// Longer than the commands of a page take unless one hangs, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// How many pages are run at the same time.
const PAGES_AT_ONCE: usize = 3;

/// All documents that have blocks of shell.
#[track_caller]
fn pages() -> Vec<Page> {
    let documents = files().into_iter().filter(File::is_markdown);
    let read = |file: File| {
        let page = Page::read(&file.path, &file.text);
        page.unwrap_or_else(|error| panic!("{}, {error}", file.path))
    };
    documents.map(read).filter(|page| !page.steps.is_empty()).collect()
}

#[test]
fn the_commands_of_every_document_do_what_it_says() {
    let pages = pages();
    assert!(pages.len() > 15, "only {} pages have commands", pages.len());
    let waiting: Mutex<VecDeque<Page>> = Mutex::new(pages.into_iter().filter(Page::has_commands).collect());
    let failures = Mutex::new(Vec::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    scope(|threads| {
        for _ in 0..PAGES_AT_ONCE {
            threads.spawn(|| {
                while let Some(page) = next() {
                    let failed = stage::run(&page).err();
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    failures.extend(failed.map(|why| format!("{}{why}", page.path)));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}
