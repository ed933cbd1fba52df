//! Ports that stay ours while a node is down.
//!
//! They are taken from below the range that the system hands out by itself, so that no outgoing connection sits on
//! the port of a node that is to come back; and each is reserved by a locked file, so that test processes that run
//! at the same time do not choose the same one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

/// First port tried (inclusive).
const PORT_FIRST: u16 = 12_000;
/// Behind the last port tried.
const PORT_END: u16 = 30_000;

/// A port that nobody else takes while this lives.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _lock: File,
}

impl ReservedPort {
    /// Reserves a free port.
    pub fn take() -> Self {
        let directory = std::env::temp_dir().join("highwater-test-ports");
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        // Different processes begin at different places.
        let span = u32::from(PORT_END - PORT_FIRST);
        let begin = std::process::id().wrapping_mul(97) % span;
        for step in 0..span {
            let port = PORT_FIRST + u16::try_from((begin + step) % span).unwrap_or(0);
            let path = directory.join(port.to_string());
            let Ok(lock) = File::options().create(true).append(true).open(&path) else {
                continue;
            };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Self { port, _lock: lock };
            }
        }
        panic!("no free port between {PORT_FIRST} and {PORT_END}");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.port
    }
}
