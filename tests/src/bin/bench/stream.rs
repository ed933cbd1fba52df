//! The floors of producing and consuming: the same bytes to the same number of replicas, by plain code.
//!
//! ```text
//! client ═► leader ─► disk
//!             ├═► follower ─► disk
//!             └═► follower ─► disk        ═► TLS    ─► a queue of a few chunks
//! ```
//!
//! Each arrow ends in a thread, and a disk syncs once for all chunks that came while it was busy, as the log does. Only
//! the answers go through memory: nothing could be cheaper. No offsets, no checksums, no elections.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Instant;

use crate::tls::{Receiving, Sending, Tls};
use crate::{CHUNK_BYTES, Failure};

/// How many chunks may wait for a disk or a link: as much as the cluster has in flight to a follower.
const WAITING_MAX: usize = 8;
const REPLICAS: usize = 3;

type Chunk = Arc<Vec<u8>>;
/// Which replica has synced how many chunks more.
type Synced = (usize, usize);

/// Bytes a second, until a majority has synced the last chunk.
pub(crate) fn replicated_bytes_per_second(tls: &Tls, directory: &Path, chunks: usize) -> Result<f64, Failure> {
    let ((client, leader), links) = (tls.connect()?, [tls.connect()?, tls.connect()?]);
    let (acks, synced) = channel();
    let mut threads = Vec::new();
    let mut outlets = Vec::new();
    for (place, (near, far)) in links.into_iter().enumerate() {
        let (outlet, chunks_out) = sync_channel(WAITING_MAX);
        threads.push(thread::spawn(move || forward(near, &chunks_out)));
        let disk = start_disk(directory, place + 1, &acks, &mut threads);
        threads.push(thread::spawn(move || receive(far, chunks, &[disk])));
        outlets.push(outlet);
    }
    outlets.push(start_disk(directory, 0, &acks, &mut threads));
    drop(acks);
    threads.push(thread::spawn(move || receive(leader, chunks, &outlets)));
    let start = Instant::now();
    threads.push(thread::spawn(move || send(client, chunks)));
    let complete = await_majority(&synced, chunks);
    let elapsed = start.elapsed().as_secs_f64();
    for thread in threads {
        thread.join().map_err(|_| "a thread of the stream panicked")??;
    }
    (0..REPLICAS).try_for_each(|place| fs::remove_file(file_of(directory, place)))?;
    match complete {
        true => Ok((chunks * CHUNK_BYTES) as f64 / elapsed),
        false => Err("the stream ended before a majority had everything".into()),
    }
}

/// Bytes a second from memory to one reader.
pub(crate) fn read_bytes_per_second(tls: &Tls, chunks: usize) -> Result<f64, Failure> {
    let (sending, receiving) = tls.connect()?;
    let start = Instant::now();
    let sender = thread::spawn(move || send(sending, chunks));
    receive(receiving, chunks, &[])?;
    let elapsed = start.elapsed().as_secs_f64();
    sender.join().map_err(|_| "the sender panicked")??;
    Ok((chunks * CHUNK_BYTES) as f64 / elapsed)
}

fn send(mut stream: Sending, chunks: usize) -> io::Result<()> {
    let chunk = vec![7; CHUNK_BYTES];
    for _ in 0..chunks {
        stream.write_all(&chunk)?;
    }
    stream.flush()
}

fn forward(mut stream: Sending, chunks: &Receiver<Chunk>) -> io::Result<()> {
    for chunk in chunks {
        stream.write_all(&chunk)?;
    }
    stream.flush()
}

fn receive(mut stream: Receiving, chunks: usize, outlets: &[SyncSender<Chunk>]) -> io::Result<()> {
    for _ in 0..chunks {
        let mut chunk = vec![0; CHUNK_BYTES];
        stream.read_exact(&mut chunk)?;
        let chunk = Arc::new(chunk);
        for outlet in outlets {
            // Whoever is gone has failed, and says why.
            let _ = outlet.send(chunk.clone());
        }
    }
    Ok(())
}

fn start_disk(
    directory: &Path,
    place: usize,
    acks: &Sender<Synced>,
    threads: &mut Vec<thread::JoinHandle<io::Result<()>>>,
) -> SyncSender<Chunk> {
    let (outlet, chunks) = sync_channel(WAITING_MAX);
    let (path, acks) = (file_of(directory, place), acks.clone());
    threads.push(thread::spawn(move || write_and_sync(&path, &chunks, place, &acks)));
    outlet
}

fn write_and_sync(path: &Path, chunks: &Receiver<Chunk>, place: usize, acks: &Sender<Synced>) -> io::Result<()> {
    let mut file = File::create(path)?;
    while let Ok(first) = chunks.recv() {
        let mut count = 0;
        for chunk in std::iter::once(first).chain(chunks.try_iter()) {
            file.write_all(&chunk)?;
            count += 1;
        }
        file.sync_data()?;
        // Nobody waits any more once a majority has everything.
        let _ = acks.send((place, count));
    }
    Ok(())
}

/// Whether the leader, place 0, and one follower got everything.
fn await_majority(synced: &Receiver<Synced>, chunks: usize) -> bool {
    let mut counts = [0; REPLICAS];
    while counts[0] < chunks || counts[1..].iter().all(|count| *count < chunks) {
        let Ok((place, count)) = synced.recv() else {
            return false;
        };
        counts[place] += count;
    }
    true
}

fn file_of(directory: &Path, place: usize) -> PathBuf {
    directory.join(format!("floor-replica-{place}"))
}
