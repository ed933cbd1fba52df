//! Lines from standard input or a file, read in large pieces on a thread of its own.
//!
//! A line ends with a separator, `\n` unless told otherwise, which is not part of it; everything else is, `\r` included, and bytes need not be
//! UTF-8. A last line without it counts. A line over the limit ends the reading: nothing behind it is passed on.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::exit::{Code, Failure, Result};

/// How much is read at once, bytes.
const READ_BYTES: usize = 128 * 1024;
/// How many pieces may wait to be sent.
const PIECES_WAITING_MAX: usize = 4;

/// What the thread passes on; the last one is an [`Input::End`] of whatever kind.
#[derive(Debug)]
pub(crate) enum Input {
    /// Complete lines, in order.
    Lines(Vec<Bytes>),
    /// There is no more, because of this.
    End(End),
}

/// Why there are no more lines.
#[derive(Debug)]
pub(crate) enum End {
    /// Everything has been read.
    Complete,
    /// This line, counted from 1, is longer than it may be.
    TooLong { line: u64 },
    /// Reading failed.
    Failed(io::Error),
}

/// Reads `input` to its end on a thread of its own. No line may be longer than `line_bytes_max`.
pub(crate) fn read(
    input: impl Read + Send + 'static,
    separator: u8,
    line_bytes_max: usize,
) -> Result<mpsc::Receiver<Input>> {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    let pass_on = move || {
        let mut lines = Lines::new(input, separator, line_bytes_max);
        loop {
            let next = lines.next();
            let ended = matches!(next, Input::End(_));
            // Nobody listens any more when the command has failed.
            if sender.blocking_send(next).is_err() || ended {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(pass_on)
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

struct Lines<R> {
    input: R,
    separator: u8,
    line_bytes_max: usize,
    /// Read and not passed on: the beginning of a line, without separator.
    rest: BytesMut,
    /// How many lines were passed on.
    passed: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    fn new(input: R, separator: u8, line_bytes_max: usize) -> Self {
        Self {
            input,
            separator,
            line_bytes_max,
            rest: BytesMut::new(),
            passed: 0,
            ended: false,
        }
    }

    fn next(&mut self) -> Input {
        while !self.ended {
            let begun = self.rest.len();
            match self.fill() {
                Ok(0) => self.ended = true,
                Ok(_) => {
                    // What was there before holds no end of a line.
                    let Some(end) = self.rest[begun..].iter().rposition(|byte| *byte == self.separator) else {
                        if self.rest.len() > self.line_bytes_max {
                            return Input::End(End::TooLong { line: self.passed + 1 });
                        }
                        continue;
                    };
                    let complete = self.rest.split_to(begun + end + 1).freeze();
                    return self.split(&complete);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Input::End(End::Failed(error)),
            }
        }
        if self.rest.is_empty() {
            return Input::End(End::Complete);
        }
        let last = self.rest.split().freeze();
        self.split(&last)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let begun = self.rest.len();
        self.rest.resize(begun + READ_BYTES, 0);
        let read = self.input.read(&mut self.rest[begun..]);
        self.rest.truncate(begun + read.as_ref().map_or(0, |count| *count));
        read
    }

    /// Splits complete lines. Those before one that is too long are passed on, and that one is met again.
    fn split(&mut self, complete: &Bytes) -> Input {
        let mut lines = Vec::new();
        let mut begin = 0;
        for line in complete.split_inclusive(|byte| *byte == self.separator) {
            let end = begin + line.len();
            let length = line.strip_suffix(&[self.separator]).unwrap_or(line).len();
            if length > self.line_bytes_max {
                return self.stop_before_too_long(lines, &complete[begin..]);
            }
            lines.push(complete.slice(begin..begin + length));
            begin = end;
        }
        self.passed += lines.len() as u64;
        Input::Lines(lines)
    }

    fn stop_before_too_long(&mut self, lines: Vec<Bytes>, rest: &[u8]) -> Input {
        if lines.is_empty() {
            return Input::End(End::TooLong { line: self.passed + 1 });
        }
        self.passed += lines.len() as u64;
        self.rest = BytesMut::from(rest);
        self.ended = true;
        Input::Lines(lines)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Cursor;

    const LINE_BYTES_MAX: usize = 1 << 20;

    /// Gives at most `step` bytes at a time, as a pipe does.
    struct Trickle<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(self.bytes.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn all(input: impl Read) -> (Vec<Vec<u8>>, End) {
        all_separated(input, b'\n')
    }

    fn all_separated(input: impl Read, separator: u8) -> (Vec<Vec<u8>>, End) {
        let mut lines = Lines::new(input, separator, LINE_BYTES_MAX);
        let mut collected = Vec::new();
        loop {
            match lines.next() {
                Input::Lines(some) => collected.extend(some.iter().map(|line| line.to_vec())),
                Input::End(end) => return (collected, end),
            }
        }
    }

    #[test]
    fn lines_are_bytes_and_lose_only_the_newline() {
        let text = b"one\r\n\n\xff\xfe\ntail";
        for step in [1, 2, 3, 100] {
            let (lines, end) = all(Trickle { bytes: text, step });
            assert_eq!(lines, [&b"one\r"[..], b"", b"\xff\xfe", b"tail"], "step {step}");
            assert!(matches!(end, End::Complete));
        }
    }

    #[test]
    fn with_another_separator_newlines_belong_to_the_values() {
        let (values, _) = all_separated(Cursor::new(b"a\nb\0\0c"), 0);
        assert_eq!(values, [&b"a\nb"[..], b"", b"c"]);
    }

    #[test]
    fn an_empty_input_has_no_lines_and_a_lone_newline_one() {
        assert!(all(Cursor::new(b"")).0.is_empty());
        assert_eq!(all(Cursor::new(b"\n")).0, [b""]);
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_stops_before_it() {
        let longest = vec![b'x'; LINE_BYTES_MAX];
        for ending in [&b"\n"[..], b""] {
            let text = [b"first\n", &longest[..], ending].concat();
            let (lines, end) = all(Cursor::new(text));
            assert_eq!(lines.len(), 2);
            assert!(matches!(end, End::Complete));

            let text = [b"first\nsecond\n", &longest[..], b"x", ending].concat();
            for step in [1 << 16, 1 << 22] {
                let (lines, end) = all(Trickle { bytes: &text, step });
                assert_eq!(lines, [b"first".to_vec(), b"second".to_vec()]);
                assert!(matches!(end, End::TooLong { line: 3 }), "{end:?}");
            }
        }
    }

    #[test]
    fn nothing_behind_a_line_that_is_too_long_is_passed_on() {
        let text = [b"first\n", &vec![b'x'; LINE_BYTES_MAX + 1][..], b"\nafter\n"].concat();
        let (lines, end) = all(Cursor::new(text));
        assert_eq!(lines, [b"first"]);
        assert!(matches!(end, End::TooLong { line: 2 }), "{end:?}");
    }

    #[test]
    fn an_endless_line_does_not_fill_the_memory() {
        let (lines, end) = all(io::repeat(b'x'));
        assert!(lines.is_empty());
        assert!(matches!(end, End::TooLong { line: 1 }));
    }
}
