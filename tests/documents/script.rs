//! The script of a page.

use crate::page::{Page, Step};

/// What the script begins with: how a command stays, and how those that stay are ended.
const PROLOGUE: &str = include_str!("prologue.sh");
/// What the comment of a command says that stays.
const UNTIL: &str = "Ctrl-C";
/// The only program that may stay.
const PROGRAM: &str = "highwater ";

/// The file below `$NOTES` that has what a step printed.
pub(crate) fn note(step: &Step) -> String {
    // So wide that names sort as lines do.
    format!("line-{:05}", step.line)
}

/// All that is run of a page, as one script of bash.
pub(crate) fn script(page: &Page) -> String {
    let steps = page.steps.iter().filter(|step| step.is_run);
    let pieces = steps.map(|step| {
        let lines: String = step.shell.lines().map(|line| staying(line) + "\n").collect();
        format!("exec >\"$NOTES/{}\" 2>&1\n{lines}", note(step))
    });
    let body: String = pieces.collect();
    format!("{PROLOGUE}\n{body}\nexec >\"$NOTES/line-end\" 2>&1\ninterrupt_all\n")
}

/// A line as it is, or with `stay` before a command that stays until Ctrl-C.
fn staying(line: &str) -> String {
    let Some((command, comment)) = line.split_once(" #") else {
        return line.to_owned();
    };
    match comment.contains(UNTIL) && command.starts_with(PROGRAM) {
        true => format!("stay {}", command.trim_end()),
        false => line.to_owned(),
    }
}

#[test]
fn a_command_until_ctrl_c_stays_and_no_other() {
    assert_eq!(staying("highwater dev   # until Ctrl-C"), "stay highwater dev");
    for line in [
        "highwater dev",
        "highwater topic list # all",
        "seq 3 # until Ctrl-C",
        "echo Ctrl-C",
    ] {
        assert_eq!(staying(line), line);
    }
}
