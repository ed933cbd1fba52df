//! Lines of standard input: edited and remembered if it is a terminal, plain if not.
//!
//! Reading a terminal blocks, so it happens on a thread of its own, which reads a line when it is asked for one and not before: the prompt
//! comes when the answer to the last command has been shown.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::thread;

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use tokio::sync::mpsc;

use crate::command::TEXT_BYTES_MAX;

/// How many lines the history keeps.
const HISTORY_LINES: usize = 1_000;
/// How much of a line is read, bytes: more than a command may have, so that it is refused and not cut.
const LINE_BYTES_MAX: u64 = TEXT_BYTES_MAX as u64 + 1_024;
const PROMPT: &str = "calc> ";

type Line = io::Result<Option<String>>;

/// Standard input.
#[derive(Debug)]
pub struct Input {
    ask: blocking::Sender<()>,
    lines: mpsc::Receiver<Line>,
}

impl Input {
    /// Takes standard input. What is typed is kept in the file, if one is given and a person types.
    #[must_use]
    pub fn open(history: Option<PathBuf>) -> Self {
        let (ask, asked) = blocking::channel();
        let (sender, lines) = mpsc::channel(1);
        thread::spawn(move || match io::stdin().is_terminal() {
            true => edit(history, &asked, &sender),
            false => serve(&asked, &sender, || read_plain(&mut io::stdin().lock())),
        });
        Self { ask, lines }
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn next(&mut self) -> Line {
        if self.ask.send(()).is_err() {
            return Ok(None); // the thread has ended, and so has the input
        }
        self.lines.recv().await.unwrap_or(Ok(None))
    }
}

fn serve(asked: &blocking::Receiver<()>, lines: &mpsc::Sender<Line>, mut read: impl FnMut() -> Line) {
    while asked.recv().is_ok() {
        if lines.blocking_send(read()).is_err() {
            return;
        }
    }
}

fn edit(history: Option<PathBuf>, asked: &blocking::Receiver<()>, lines: &mpsc::Sender<Line>) {
    let mut editor = match editor() {
        Ok(editor) => editor,
        Err(error) => return serve(asked, lines, || Err(io::Error::other(error.to_string()))),
    };
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    serve(asked, lines, || match editor.readline(PROMPT) {
        Ok(line) => {
            if let Some(Err(error)) = history.as_ref().map(|path| editor.append_history(path)) {
                tracing::warn!(%error, "the history is not kept");
            }
            Ok(Some(line))
        }
        // Ctrl-C gives up a line, Ctrl-D ends.
        Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
        Err(ReadlineError::Eof) => Ok(None),
        Err(error) => Err(io::Error::other(error.to_string())),
    });
}

fn editor() -> rustyline::Result<DefaultEditor> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES)?
        .auto_add_history(true);
    DefaultEditor::with_config(config.build())
}

/// The next line without its end. Of one that is too long only the beginning, which is too long as well.
fn read_plain(input: &mut impl BufRead) -> Line {
    let mut line = Vec::new();
    input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
        input.skip_until(b'\n')?;
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_input_is_read_line_by_line_and_one_that_is_too_long_is_skipped() {
        let text = format!("add 2 5\r\n\n{}\nmax 1", "x".repeat(2 * LINE_BYTES_MAX as usize));
        let mut input = text.as_bytes();
        let mut next = || read_plain(&mut input).unwrap();
        assert_eq!(next().as_deref(), Some("add 2 5"));
        assert_eq!(next().as_deref(), Some(""));
        assert!(next().unwrap().len() > TEXT_BYTES_MAX);
        assert_eq!(next().as_deref(), Some("max 1"));
        assert_eq!(next(), None);
    }
}
