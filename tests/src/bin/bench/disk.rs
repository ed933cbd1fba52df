//! What the disk does by itself, in files of the log's mode.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::{CHUNK_BYTES, Failure, median};

/// Head and detail of a batch's frame in the log.
const HEAD_BYTES: usize = 124;

/// The median time, µs, of appending a record and syncing it, so many times. The log writes zeros ahead of small
/// appends, so this file is filled with them before.
pub(crate) fn fdatasync_us(directory: &Path, record_bytes: usize, count: usize) -> Result<f64, Failure> {
    let path = directory.join("floor-lone");
    let size = record_bytes + HEAD_BYTES;
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; size * count], 0)?;
    file.sync_all()?;
    let bytes = vec![7; size];
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let start = Instant::now();
        file.write_all_at(&bytes, (number * size) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    Ok(median(times))
}

/// Bytes a second of writing so many chunks to a growing file, each synced.
pub(crate) fn synced_bytes_per_second(directory: &Path, chunks: usize) -> Result<f64, Failure> {
    let path = directory.join("floor-bulk");
    let chunk = vec![7; CHUNK_BYTES];
    let mut file = File::create(&path)?;
    let start = Instant::now();
    for _ in 0..chunks {
        file.write_all(&chunk)?;
        file.sync_data()?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok((chunks * CHUNK_BYTES) as f64 / elapsed)
}
