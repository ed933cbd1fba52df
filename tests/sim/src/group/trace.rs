//! What happened, as one number: two runs with the same are the same run.

use std::fmt::Write;

/// The digest of all events so far, and if wanted the events themselves.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    digest: u64,
    events: u64,
    text: String,
    print: bool,
}

impl Trace {
    /// An empty trace; `print` writes each event to standard error.
    pub(crate) fn new(print: bool) -> Trace {
        Trace {
            print,
            ..Trace::default()
        }
    }

    /// Takes in an event.
    pub(crate) fn record(&mut self, at_ms: u64, event: std::fmt::Arguments<'_>) {
        self.text.clear();
        let _ = write!(self.text, "{at_ms} {event}"); // writing to a String does not fail
        for byte in self.text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.digest = self.digest.rotate_left(17).wrapping_add(self.events);
        self.events += 1;
        if self.print {
            eprintln!("{}", self.text);
        }
    }

    /// Digest and number of the events.
    pub(crate) fn sum(&self) -> (u64, u64) {
        (self.digest, self.events)
    }
}
