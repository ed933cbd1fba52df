//! A terminal borrowed for a while: the other screen, no cursor, keys as they are pressed. Dropping it gives everything back.

use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::{Code, Failure, Result, output_failure};

const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
const END: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// If the terminal does not say how large it is.
const SIZE_DEFAULT: (usize, usize) = (24, 80);

pub(super) struct Terminal {
    before: Termios,
    keys: mpsc::Receiver<u8>,
    interrupt: Signal,
    terminate: Signal,
}

impl Terminal {
    pub(super) fn borrow() -> Result<Terminal> {
        let failed = |error: io::Error| Failure::new(Code::Failure, format!("cannot use the terminal: {error}"));
        let before = tcgetattr(io::stdin()).map_err(|error| failed(error.into()))?;
        let mut now = before.clone();
        // Ctrl-C stays a signal.
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        let terminal = Terminal {
            before,
            keys: keys(),
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        };
        tcsetattr(io::stdin(), OptionalActions::Now, &now).map_err(|error| failed(error.into()))?;
        write(BEGIN)?;
        Ok(terminal)
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(io::stdout())
            .ok()
            .filter(|size| size.ws_row > 0 && size.ws_col > 0);
        size.map_or(SIZE_DEFAULT, |size| {
            (usize::from(size.ws_row), usize::from(size.ws_col))
        })
    }

    /// Shows as much of the text as there is room for. A line is written over the one before, so nothing flickers.
    pub(super) fn show(&self, text: &str) -> Result<()> {
        let (rows, columns) = self.size();
        let mut screen = HOME.to_owned();
        for line in text.lines().take(rows.saturating_sub(1)) {
            // A line with colours is one of sentences, which are broken already.
            let is_cut = !line.contains('\x1b') && line.chars().count() > columns;
            match is_cut {
                true => screen.extend(line.chars().take(columns)),
                false => screen.push_str(line),
            }
            screen.push_str(CLEAR_LINE);
            screen.push_str("\r\n");
        }
        screen.push_str(CLEAR_BELOW);
        write(&screen)
    }

    /// Ready when the person wants to end it.
    pub(super) async fn ended(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                key = self.keys.recv() => if matches!(key, None | Some(b'q' | b'Q')) { return },
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing else can be done for it.
        let _ = write(END);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// What is pressed. The thread waits for a key when the command ends, and ends with it.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for key in io::stdin().lock().bytes() {
            match key {
                Ok(key) if sender.blocking_send(key).is_ok() => {}
                _ => return,
            }
        }
    });
    receiver
}

fn write(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| output_failure(&error))
}
