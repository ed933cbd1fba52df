//! `highwater backup DIR`: from a cluster into a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use highwater::proto::v1;
use highwater::{Client, Reason};

use super::gather::{self, Found};
use super::manifest::{self, Manifest, Partition, Topic};
use super::selection::Selection;
use super::summary;
use super::writer::{self, Writer};
use super::{PARTITIONS_AT_ONCE, in_tenant, now_ms};
use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format};
use crate::profile::failure;
use crate::progress::{End, Progress, Unit};

/// Bytes that each partition may have read ahead.
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;

/// A partition to be copied into a file.
struct Job {
    topic: usize,
    name: String,
    partition: u32,
    path: PathBuf,
}

pub(super) async fn run(client: &Client, directory: &Path, selection: &Selection, format: Format) -> Result<()> {
    check_empty(directory)?;
    let begun_ms = now_ms();
    let found = gather::gather(client, selection).await?;
    let taken = take(client, directory, found, begun_ms, format).await;
    let manifest = taken.inspect_err(|_| {
        output::note(format!(
            "The backup in {} did not come to its end, and is none.",
            directory.display()
        ));
    })?;
    summary::print(&manifest, "Backed up in", directory, format)
}

/// Nothing is ever written over.
fn check_empty(directory: &Path) -> Result<()> {
    let name = directory.display();
    let entries = match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::setup(format!("cannot look into {name}: {error}"))),
    };
    if entries {
        let failure = Failure::new(Code::Refused, format!("{name} is not empty"));
        return Err(failure.hint("give each backup a directory of its own, such as one with the date in its name"));
    }
    Ok(())
}

async fn take(client: &Client, directory: &Path, found: Found, begun_ms: u64, format: Format) -> Result<Manifest> {
    make_directories(directory, &found)?;
    let copied = copy_all(client, directory, &found, format).await?;
    check_same_topics(client, &found).await?;
    let mut manifest = manifest::new(found.cluster, begun_ms);
    manifest.cluster_policy = found.cluster_policy;
    manifest.tenants = found.tenants;
    manifest.topics = found
        .topics
        .into_iter()
        .map(|(topic, groups)| entry(topic, groups))
        .collect();
    for (topic, partition) in copied {
        manifest.topics[topic].partitions.push(partition);
    }
    for topic in &mut manifest.topics {
        topic.partitions.sort_by_key(|partition| partition.partition);
    }
    sync_directories(directory, &manifest)?;
    manifest.ended_ms = now_ms();
    manifest.write(directory)?;
    Ok(manifest)
}

fn make_directories(directory: &Path, found: &Found) -> Result<()> {
    writer::make_directory(&manifest::records_directory(directory))?;
    found.topics.iter().try_for_each(|(topic, _)| {
        writer::make_directory(&manifest::topic_directory(directory, &topic.tenant, &topic.name))
    })
}

/// From the inside out: what a name leads to is on the disk before the name is.
fn sync_directories(directory: &Path, manifest: &Manifest) -> Result<()> {
    for topic in &manifest.topics {
        let path = manifest::topic_directory(directory, &topic.tenant, &topic.name);
        writer::sync_directory(&path)?;
        path.parent().map_or(Ok(()), writer::sync_directory)?;
    }
    writer::sync_directory(&manifest::records_directory(directory))?;
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    writer::sync_directory(above.unwrap_or(Path::new(".")))
}

/// A topic whose partitions are still to come.
fn entry(topic: v1::Topic, groups: Vec<manifest::GroupOffset>) -> Topic {
    let config = topic.config.unwrap_or_default();
    Topic {
        tenant: topic.tenant,
        name: topic.name,
        replication: topic.replication,
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        leader_rack: topic.leader_rack,
        partitions: Vec::new(),
        groups,
    }
}

/// Copies every partition; answers which topic each belongs to.
async fn copy_all(client: &Client, directory: &Path, found: &Found, format: Format) -> Result<Vec<(usize, Partition)>> {
    let progress = Progress::beside(format, Unit::Records, End::Open);
    let done = AtomicU64::new(0);
    let jobs = found.topics.iter().enumerate().flat_map(|(place, (topic, _))| {
        topic.partitions.iter().map(move |partition| Job {
            topic: place,
            name: in_tenant(&topic.tenant, &topic.name),
            partition: partition.partition,
            path: manifest::file(directory, &topic.tenant, &topic.name, partition.partition),
        })
    });
    let note = |count: u64| progress.set(done.fetch_add(count, Ordering::Relaxed) + count);
    let copied = stream::iter(jobs).map(|job| copy(client, job, &note));
    copied.buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await
}

/// Copies the records of a partition from where it begins up to the end that its leader confirms.
async fn copy(client: &Client, job: Job, note: impl Fn(u64)) -> Result<(usize, Partition)> {
    let Job { name, partition, .. } = &job;
    let consumer = client
        .consumer(name, *partition)
        .prefetch_bytes(PREFETCH_BYTES)
        .stop_at_end();
    let mut consumer = consumer.build().await.map_err(failure)?;
    let first = consumer.position(*partition).unwrap_or(0);
    let end = consumer.stop_offset(*partition).unwrap_or(first);
    let mut writer = Writer::create(job.path.clone(), name, *partition, first)?;
    while let Some(batch) = consumer.next_batch().await {
        let mut count = 0;
        for record in batch.map_err(unread)? {
            writer.push(&record.map_err(unread)?)?;
            count += 1;
        }
        note(count);
    }
    if writer.next_offset() != end {
        let message = format!(
            "{name}/{partition} ended at offset {} instead of {end}",
            writer.next_offset()
        );
        return Err(Failure::new(Code::Failure, message));
    }
    Ok((job.topic, writer.finish().await?))
}

fn unread(error: highwater::Error) -> Failure {
    let reason = error.reason();
    let failure = failure(error);
    match reason {
        Some(Reason::OffsetOutOfRange) => failure.hint("retention has let go of it meanwhile; make the backup anew"),
        Some(Reason::CorruptBatch | Reason::Damaged) => {
            failure.hint("what cannot be read cannot be backed up; the other topics can, with --topic TENANT/TOPIC")
        }
        _ => failure,
    }
}

/// A topic that was deleted and made again meanwhile would have the groups of the one and the records of the other.
async fn check_same_topics(client: &Client, found: &Found) -> Result<()> {
    for (topic, _) in &found.topics {
        let name = in_tenant(&topic.tenant, &topic.name);
        let now = client.topics().get(&name).await.map_err(failure)?;
        if now.topic_id != topic.topic_id {
            let failure = Failure::new(
                Code::Failure,
                format!("topic {name} was deleted and made again meanwhile"),
            );
            return Err(failure.hint("make the backup anew"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_an_empty_directory_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        check_empty(directory.path()).unwrap();
        check_empty(&directory.path().join("new")).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(check_empty(directory.path()).unwrap_err().code, Code::Refused);
        assert_eq!(
            check_empty(&directory.path().join("file")).unwrap_err().code,
            Code::Setup
        );
    }
}
