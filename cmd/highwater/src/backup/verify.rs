//! `highwater backup verify DIR`: every byte of a backup, against its checksums. No cluster is needed.

use std::path::Path;

use super::manifest::{self, Manifest, Topic};
use super::reader::Reader;
use super::summary;
use super::unfit::Unfit;
use crate::exit::Result;
use crate::output::Format;
use crate::progress::{End, Progress, Unit};

pub(super) fn run(directory: &Path, format: Format) -> Result<()> {
    let manifest = Manifest::read(directory)?;
    check_files(directory, &manifest.topics.iter().collect::<Vec<_>>(), format)?.note();
    summary::print(&manifest, "Every byte is as it was written in", directory, format)
}

/// Reads all records of these topics, and fails at the first thing that is not as it was written; answers those that cannot be restored.
pub(super) fn check_files(directory: &Path, topics: &[&Topic], format: Format) -> Result<Unfit> {
    let total = topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.file_bytes)
        .sum();
    let progress = Progress::beside(format, Unit::Bytes, End::At(total));
    let mut done = 0;
    let mut unfit = Unfit::default();
    for topic in topics {
        let name = topic.full_name();
        for partition in &topic.partitions {
            let path = manifest::file(directory, &topic.tenant, &topic.name, partition.partition);
            let mut reader = Reader::open(path, partition)?;
            while let Some(records) = reader.next_block()? {
                records.iter().for_each(|record| unfit.look_at(&name, record));
                progress.set(done + reader.position());
            }
            done += partition.file_bytes;
        }
    }
    Ok(unfit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater::{ConsumedRecord, Header};

    use super::*;
    use crate::backup::writer::{self, Writer};

    fn record(offset: u64, headers: usize) -> ConsumedRecord {
        let header = Header {
            name: "name".to_owned(),
            value: "value".into(),
        };
        ConsumedRecord {
            partition: 0,
            offset,
            key: None,
            value: "value".into(),
            headers: vec![header; headers],
            timestamp_ms: 1,
            append_time_ms: 2,
        }
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_appended_is_found_before_anything_is_restored() {
        let directory = tempfile::tempdir().unwrap();
        writer::make_directory(&manifest::topic_directory(directory.path(), "shop", "orders")).unwrap();
        let path = manifest::file(directory.path(), "shop", "orders", 0);
        let mut file = Writer::create(path, "shop/orders", 0, 7).unwrap();
        for (offset, headers) in [(7, 64), (8, 65), (9, 0)] {
            file.push(&record(offset, headers)).unwrap();
        }
        let topic = Topic {
            tenant: "shop".to_owned(),
            name: "orders".to_owned(),
            replication: 1,
            retention_ms: None,
            retention_bytes: None,
            leader_rack: String::new(),
            partitions: vec![file.finish().await.unwrap()],
            groups: Vec::new(),
        };
        let unfit = check_files(directory.path(), &[&topic], Format::Json).unwrap();
        let refused = unfit.refuse().unwrap_err();
        assert!(
            refused.message.contains("offset 8 of shop/orders/0 has 65 headers"),
            "{refused}"
        );
        assert!(!refused.message.contains("more"), "{refused}");
    }
}
