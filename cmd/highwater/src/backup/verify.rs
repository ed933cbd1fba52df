//! `highwater backup verify DIR`: every byte of a backup, against its checksums. No cluster is needed.

use std::path::Path;

use super::manifest::{self, Manifest, Topic};
use super::reader::Reader;
use super::summary;
use crate::exit::Result;
use crate::output::Format;
use crate::progress::{End, Progress, Unit};

pub(super) fn run(directory: &Path, format: Format) -> Result<()> {
    let manifest = Manifest::read(directory)?;
    check_files(directory, &manifest.topics.iter().collect::<Vec<_>>(), format)?;
    summary::print(&manifest, "Every byte is as it was written in", directory, format)
}

/// Reads all records of these topics, and fails at the first thing that is not as it was written.
pub(super) fn check_files(directory: &Path, topics: &[&Topic], format: Format) -> Result<()> {
    let total = topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.file_bytes)
        .sum();
    let progress = Progress::beside(format, Unit::Bytes, End::At(total));
    let mut done = 0;
    for topic in topics {
        for partition in &topic.partitions {
            let path = manifest::file(directory, &topic.tenant, &topic.name, partition.partition);
            let mut reader = Reader::open(path, partition)?;
            while reader.next_block()?.is_some() {
                progress.set(done + reader.position());
            }
            done += partition.file_bytes;
        }
    }
    Ok(())
}
