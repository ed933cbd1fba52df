//! What of a document is to be run.

use highwater_tests::markdown::{Part, parts};
use highwater_tests::repository::root;

/// What blocks of shell are called; nothing else is run.
const SHELL: &str = "sh";
/// Other names of shell, which would be blocks that nobody runs.
const OTHER_SHELLS: [&str; 6] = ["bash", "console", "shell", "shell-session", "terminal", "zsh"];
const NOT_RUN: &str = "not run:";
const RUN: &str = "run";
const PRINTS: &str = "prints";

/// A piece of shell of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where it begins.
    pub(crate) line: usize,
    /// The commands.
    pub(crate) shell: String,
    /// Whether it is run here; if not, something else tests it.
    pub(crate) is_run: bool,
    /// What it is said to print.
    pub(crate) output: Option<Output>,
}

/// What a document says that commands print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Json(String),
    Text(String),
}

/// A document as far as it has commands.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) path: String,
    pub(crate) steps: Vec<Step>,
}

/// What the comment before a block says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    NotRun,
    Prints,
}

impl Page {
    /// # Errors
    /// With the line, if a comment is wrong, stands before nothing that it could be about, or a block cannot be understood.
    pub(crate) fn read(path: &str, text: &str) -> Result<Self, String> {
        let mut page = Self {
            path: path.to_owned(),
            steps: Vec::new(),
        };
        let mut mark: Option<Mark> = None;
        for (line, part) in parts(text)? {
            let at = |why: &str| format!("line {line}: {why}");
            match part {
                // Between a comment and its block there may be empty lines only.
                Part::Line("") => {}
                Part::Line(_) if mark.is_none() => {}
                Part::Line(_) => return Err(at("a comment about a block must stand right before it")),
                Part::Comment(_) if mark.is_some() => return Err(at("two comments are about one block")),
                Part::Comment(comment) => mark = page.obey(line, &comment).map_err(|why| at(&why))?,
                Part::Block { language, text } => {
                    page.take(line, language, text, mark.take()).map_err(|why| at(&why))?;
                }
            }
        }
        match mark {
            Some(_) => Err("the last comment is about a block that is not there".to_owned()),
            None => Ok(page),
        }
    }

    /// What a comment says about the next block.
    fn obey(&mut self, line: usize, comment: &str) -> Result<Option<Mark>, String> {
        if let Some(reason) = comment.strip_prefix(NOT_RUN) {
            names_a_test(reason)?;
            return Ok(Some(Mark::NotRun));
        }
        if comment == PRINTS {
            return Ok(Some(Mark::Prints));
        }
        if let Some(shell) = comment.strip_prefix(RUN).filter(|rest| rest.starts_with('\n')) {
            self.add(line, shell.trim_start(), true);
        }
        Ok(None)
    }

    fn take(&mut self, line: usize, language: &str, text: String, mark: Option<Mark>) -> Result<(), String> {
        match (language, mark) {
            (SHELL, None) => self.add(line, &text, true),
            (SHELL, Some(Mark::NotRun)) => self.add(line, &text, false),
            ("json", Some(Mark::Prints)) => return self.prints(Output::Json(text)),
            ("text", Some(Mark::Prints)) => return self.prints(Output::Text(text)),
            (_, Some(mark)) => return Err(format!("a block of {language} cannot be {mark:?}")),
            (language, None) if OTHER_SHELLS.contains(&language) || language.starts_with("sh ") => {
                return Err(format!("nobody runs a block of {language}: call it {SHELL}"));
            }
            ("", None) => return Err("say what the block is: sh, text, …".to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, line: usize, shell: &str, is_run: bool) {
        self.steps.push(Step {
            line,
            shell: shell.to_owned(),
            is_run,
            output: None,
        });
    }

    fn prints(&mut self, output: Output) -> Result<(), String> {
        match self
            .steps
            .last_mut()
            .filter(|step| step.is_run && step.output.is_none())
        {
            Some(step) => {
                step.output = Some(output);
                Ok(())
            }
            None => Err("no block that is run stands before what it prints".to_owned()),
        }
    }

    /// Whether anything of it is run.
    pub(crate) fn has_commands(&self) -> bool {
        self.steps.iter().any(|step| step.is_run)
    }
}

/// Whether the reason why something is not run says what tests it.
fn names_a_test(reason: &str) -> Result<(), String> {
    let words = reason.split([' ', ',', ';', '\n']);
    let named: Vec<&str> = words.filter(|word| word.contains('/')).collect();
    if named.is_empty() {
        return Err(format!("name the file that tests it: `{NOT_RUN}{reason}`"));
    }
    match named.into_iter().find(|word| !root().join(word).is_file()) {
        Some(missing) => Err(format!("there is no {missing}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    fn steps(text: &str) -> Result<Vec<(usize, bool)>, String> {
        let page = Page::read("a.md", text)?;
        Ok(page.steps.iter().map(|step| (step.line, step.is_run)).collect())
    }

    #[test]
    fn whatever_is_shell_is_run_unless_a_comment_says_what_tests_it() {
        let text = "```sh\na\n```\n<!-- run\nb\n-->\n<!-- not run: it is long; tests/interop/run does it -->\n\n```sh\nc\n```\n```python\nd\n```\n";
        assert_eq!(steps(text), Ok(vec![(1, true), (4, true), (9, false)]));
    }

    #[test]
    fn what_a_block_prints_belongs_to_it() {
        let page = Page::read("a.md", "```sh\na\n```\nIt says:\n<!-- prints -->\n```json\n1\n```\n");
        let output = page.map(|page| page.steps[0].output.clone());
        assert_eq!(output, Ok(Some(Output::Json("1\n".to_owned()))));
    }

    #[test]
    fn nothing_slips_through() {
        for (text, why) in [
            ("```bash\na\n```\n", "call it sh"),
            ("```console\n$ a\n```\n", "call it sh"),
            ("```\na\n```\n", "say what the block is"),
            ("<!-- not run: it is long -->\n```sh\na\n```\n", "name the file"),
            (
                "<!-- not run: tests/nothing.rs -->\n```sh\na\n```\n",
                "there is no tests/nothing.rs",
            ),
            (
                "<!-- not run: tests/interop/run -->\ntext\n```sh\na\n```\n",
                "right before it",
            ),
            ("<!-- not run: tests/interop/run -->\n", "not there"),
            (
                "<!-- not run: tests/interop/run -->\n```python\na\n```\n",
                "python cannot be NotRun",
            ),
            ("<!-- prints -->\n```json\n1\n```\n", "no block that is run"),
        ] {
            let error = steps(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
