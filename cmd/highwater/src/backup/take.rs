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
use super::unfit::Unfit;
use super::writer::{self, Writer};
use super::{PARTITIONS_AT_ONCE, in_tenant, now_ms};
use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format};
use crate::profile::failure;
use crate::progress::{End, Progress, Unit};

/// Bytes that each partition may have read ahead.
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;
/// How often the file of a partition is begun if retention lets go of records before they are read.
const COPIES_MAX: u64 = 5;

/// A partition to be copied into a file.
struct Job {
    topic: usize,
    name: String,
    partition: u32,
    path: PathBuf,
}

/// How one attempt to copy a partition ended.
#[derive(Debug)]
enum Attempt {
    /// All that it held; and what of that cannot be restored.
    Done(Partition, Unfit),
    /// Retention has let go of records that were still to be read.
    Overtaken(Failure),
}

pub(super) async fn run(client: &Client, directory: &Path, selection: &Selection, format: Format) -> Result<()> {
    check_empty(directory)?;
    let begun_ms = now_ms();
    let found = gather::gather(client, selection).await?;
    let (manifest, topics) = begin(found, begun_ms);
    manifest.check_room(topics.iter().map(|topic| topic.partitions.len()).sum())?;
    let taken = take(client, directory, manifest, &topics, format).await;
    let (manifest, unfit) = taken.inspect_err(|_| {
        output::note(format!(
            "The backup in {} did not come to its end, and is none.",
            directory.display()
        ));
    })?;
    unfit.note();
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

/// All that is known before the records are copied; and the topics, in the same order.
fn begin(found: Found, begun_ms: u64) -> (Manifest, Vec<v1::Topic>) {
    let mut manifest = manifest::new(found.cluster, begun_ms);
    manifest.cluster_policy = found.cluster_policy;
    manifest.tenants = found.tenants;
    let mut topics = Vec::with_capacity(found.topics.len());
    for (topic, groups) in found.topics {
        manifest.topics.push(entry(&topic, groups));
        topics.push(topic);
    }
    (manifest, topics)
}

/// Copies all records, and completes and writes the manifest; answers it, and the records that cannot be restored.
async fn take(
    client: &Client,
    directory: &Path,
    mut manifest: Manifest,
    topics: &[v1::Topic],
    format: Format,
) -> Result<(Manifest, Unfit)> {
    make_directories(directory, topics)?;
    let copied = copy_all(client, directory, topics, format).await?;
    check_same_topics(client, topics).await?;
    let mut unfit = Unfit::default();
    for (topic, partition, found) in copied {
        manifest.topics[topic].partitions.push(partition);
        unfit.add(found);
    }
    for topic in &mut manifest.topics {
        topic.partitions.sort_by_key(|partition| partition.partition);
    }
    sync_directories(directory, &manifest)?;
    manifest.ended_ms = now_ms();
    manifest.write(directory)?;
    Ok((manifest, unfit))
}

fn make_directories(directory: &Path, topics: &[v1::Topic]) -> Result<()> {
    writer::make_directory(&manifest::records_directory(directory))?;
    for topic in topics {
        writer::make_directory(&manifest::topic_directory(directory, &topic.tenant, &topic.name))?;
    }
    Ok(())
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
fn entry(topic: &v1::Topic, groups: Vec<manifest::GroupOffset>) -> Topic {
    let config = topic.config.unwrap_or_default();
    Topic {
        tenant: topic.tenant.clone(),
        name: topic.name.clone(),
        replication: topic.replication,
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        leader_rack: topic.leader_rack.clone(),
        partitions: Vec::new(),
        groups,
    }
}

/// Copies every partition; answers which topic each belongs to, and what of it cannot be restored.
async fn copy_all(
    client: &Client,
    directory: &Path,
    topics: &[v1::Topic],
    format: Format,
) -> Result<Vec<(usize, Partition, Unfit)>> {
    let progress = Progress::beside(format, Unit::Records, End::Open);
    let done = AtomicU64::new(0);
    let jobs = topics.iter().enumerate().flat_map(|(place, topic)| {
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

async fn copy(client: &Client, job: Job, note: impl Fn(u64)) -> Result<(usize, Partition, Unfit)> {
    let (partition, unfit) = unless_overtaken(&job.path, || copy_once(client, &job, &note)).await?;
    Ok((job.topic, partition, unfit))
}

/// Begins the file of a partition anew, at the new log start, when retention has overtaken the copy: nothing that is still there is left out.
async fn unless_overtaken<F: Future<Output = Result<Attempt>>>(
    path: &Path,
    attempt: impl Fn() -> F,
) -> Result<(Partition, Unfit)> {
    let mut begun = 1;
    loop {
        match attempt().await? {
            Attempt::Done(partition, unfit) => return Ok((partition, unfit)),
            Attempt::Overtaken(failure) if begun == COPIES_MAX => return Err(failure),
            Attempt::Overtaken(_) => remove(path)?,
        }
        begun += 1;
    }
}

fn remove(path: &Path) -> Result<()> {
    let failure = |error| Failure::new(Code::Failure, format!("cannot remove {}: {error}", path.display()));
    fs::remove_file(path).map_err(failure)
}

/// Copies the records of a partition from where it begins up to the end that its leader confirms.
async fn copy_once(client: &Client, job: &Job, note: &impl Fn(u64)) -> Result<Attempt> {
    let Job { name, partition, .. } = job;
    let consumer = client
        .consumer(name, *partition)
        .prefetch_bytes(PREFETCH_BYTES)
        .stop_at_end();
    let mut consumer = consumer.build().await.map_err(failure)?;
    let first = consumer.position(*partition).unwrap_or(0);
    let end = consumer.stop_offset(*partition).unwrap_or(first);
    let mut writer = Writer::create(job.path.clone(), name, *partition, first)?;
    let mut unfit = Unfit::default();
    while let Some(batch) = consumer.next_batch().await {
        let batch = match batch {
            Err(error) if error.reason() == Some(Reason::OffsetOutOfRange) => {
                return Ok(Attempt::Overtaken(unread(error)));
            }
            batch => batch.map_err(unread)?,
        };
        let mut count = 0;
        for record in batch {
            let record = record.map_err(unread)?;
            unfit.look_at(name, &record);
            writer.push(&record)?;
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
    Ok(Attempt::Done(writer.finish().await?, unfit))
}

fn unread(error: highwater::Error) -> Failure {
    let reason = error.reason();
    let failure = failure(error);
    match reason {
        Some(Reason::OffsetOutOfRange) => failure.hint(
            "retention has let go of it meanwhile, again and again; let the topic keep more for the time of the backup",
        ),
        Some(Reason::CorruptBatch | Reason::Damaged) => {
            failure.hint("what cannot be read cannot be backed up; the other topics can, with --topic TENANT/TOPIC")
        }
        _ => failure,
    }
}

/// A topic that was deleted and made again meanwhile would have the groups of the one and the records of the other.
async fn check_same_topics(client: &Client, topics: &[v1::Topic]) -> Result<()> {
    for topic in topics {
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
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_partition_that_retention_overtakes_is_begun_anew_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let (path, begun) = (directory.path().join("00000"), Cell::new(0));
        let overtaken = |times: u64| {
            let (path, begun) = (&path, &begun);
            begun.set(0);
            move || async move {
                begun.set(begun.get() + 1);
                // Each finds a later log start, and no file.
                let writer = Writer::create(path.clone(), "shop/orders", 0, begun.get())?;
                let ended = match begun.get() > times {
                    true => Attempt::Done(writer.finish().await?, Unfit::default()),
                    false => Attempt::Overtaken(Failure::new(Code::NotFound, "out of range")),
                };
                Ok::<_, Failure>(ended)
            }
        };
        let (partition, _) = unless_overtaken(&path, overtaken(COPIES_MAX - 1)).await.unwrap();
        assert_eq!(partition.first_offset, COPIES_MAX);
        assert_eq!(partition.file_bytes, path.metadata().unwrap().len());
        fs::remove_file(&path).unwrap();
        let failed = unless_overtaken(&path, overtaken(u64::MAX)).await.unwrap_err();
        assert_eq!((failed.message.as_str(), begun.get()), ("out of range", COPIES_MAX));
    }

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
