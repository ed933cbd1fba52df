//! `highwater restore DIR`: from a directory into a cluster, in the order of a plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use highwater::{Client, ConsumedRecord, CreateTopic, Error, Outcome, Position, Producer, Reason, Record, UpdateTopic};
use tokio::time::{Instant, sleep};

use super::lent::{self, Lent};
use super::manifest::{self, Manifest, Partition, Topic};
use super::plan::{self, Plan, TopicPlan, Wish};
use super::policy::Mode;
use super::reader::Reader;
use super::report;
use super::selection::Selection;
use super::{PARTITIONS_AT_ONCE, verify};
use crate::exit::{Code, Failure, Result};
use crate::output;
use crate::produce::Compression;
use crate::profile::{CommonArgs, failure};
use crate::progress::{End, Progress, Unit};

/// How long after a change of the policy a node may not know it yet: one that is behind for longer answers nobody.
const POLICY_PATIENCE: Duration = Duration::from_secs(10);
/// How soon such a node is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// A topic without a limit by bytes.
const UNLIMITED: u64 = 0;
/// How many offsets of groups are set at a time.
const OFFSETS_AT_ONCE: usize = 8;

const EXAMPLES: &str = "\
Examples:
  highwater restore /backups/2026-01-31 --dry-run
  highwater restore /backups/2026-01-31
  highwater restore /backups/2026-01-31 --tenant shop
  highwater restore /backups/2026-01-31 --topic shop/orders --replication 1

Nothing is changed before all of the backup was read and compared with the cluster. If it is interrupted, give the same command again.
It needs an operator of the cluster who, in tenants that exist already, may do everything with topics and groups:
  highwater access grant ops/backup operator --cluster
  highwater access grant ops/backup owner --tenant shop
Partitions begin at offset 0: if records had been trimmed, all offsets are lower by as much, those of groups too.";

/// Put what a backup holds into a cluster that does not have it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The backup.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// What to do about tenants, quotas, and who may do what.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    policy: Mode,
    /// How many replicas topics shall have. Default: as many as they had.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    replication: Option<u32>,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t = Compression::Zstd)]
    compression: Compression,
    /// Change nothing; tell what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: CommonArgs,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let format = args.common.output;
    let manifest = Manifest::read(&args.directory)?;
    let wish = Wish::new(
        &args.directory,
        &manifest,
        &args.selection,
        args.policy,
        args.replication,
    )?;
    verify::check_files(&args.directory, &wish.topics, format)?.refuse()?;
    let client = args.common.connect().await?;
    let plan = plan::plan(&client, &wish).await?;
    if args.dry_run {
        return report::print(&plan, &manifest, true, &[], format);
    }
    let left_alone = carry_out(&client, &plan, args).await?;
    report::print(&plan, &manifest, false, &left_alone, format)?;
    match left_alone.len() {
        0 => Ok(()),
        count => {
            let message = format!(
                "all records are restored; {count} offsets of groups are as the cluster had them, not as in the backup"
            );
            Err(Failure::new(Code::Failure, message).hint("`highwater group reset` sets an offset, if that is wanted"))
        }
    }
}

/// Does all that is planned; answers what of the groups was left alone.
async fn carry_out(client: &Client, plan: &Plan<'_>, args: &Args) -> Result<Vec<String>> {
    plan.changes.apply(&client.access()).await?;
    let lent = lent::lend(&client.access(), plan).await?;
    let settled = match plan.changes.is_empty() && lent.is_empty() {
        true => Instant::now(),
        false => Instant::now() + POLICY_PATIENCE,
    };
    let restoring = Restoring { client, args, settled };
    let done = match restoring.topics(plan).await {
        Ok(left_alone) => conclude(client, plan, &lent).await.map(|()| left_alone),
        Err(failure) => Err(failure),
    };
    // Whoever gives the command again needs them.
    done.inspect_err(|_| {
        for command in lent.commands() {
            output::note(format!(
                "The right that was lent for the restore stays until `{command}`"
            ));
        }
    })
}

/// What comes when all records are there. Quotas could have stopped them: they may take more room than they did.
async fn conclude(client: &Client, plan: &Plan<'_>, lent: &Lent) -> Result<()> {
    let access = client.access();
    plan.changes.apply_quotas(&access).await?;
    lent.give_back(&access).await
}

/// What all steps need.
struct Restoring<'a> {
    client: &'a Client,
    args: &'a Args,
    /// From then on every node that answers knows the policy.
    settled: Instant,
}

/// A topic that is being filled.
struct Filling<'a> {
    plan: &'a TopicPlan<'a>,
    producer: Producer,
}

impl Restoring<'_> {
    async fn topics(&self, plan: &Plan<'_>) -> Result<Vec<String>> {
        for topic in plan.topics.iter().filter(|topic| topic.there.is_none()) {
            self.create(topic).await?;
        }
        self.fill(plan).await?;
        let mut left_alone = Vec::new();
        for topic in &plan.topics {
            left_alone.extend(self.offsets(topic.topic).await?);
        }
        for topic in &plan.topics {
            self.limit(topic).await?;
        }
        Ok(left_alone)
    }

    /// Makes a topic that keeps all its records, however many bytes they take, until [`limit`](Self::limit) sets what it is to keep.
    async fn create(&self, plan: &TopicPlan<'_>) -> Result<()> {
        let topic = plan.topic;
        let name = topic.full_name();
        let wanted = CreateTopic {
            partitions: topic.partitions.len() as u32,
            replication: plan.replication,
            retention_ms: topic.retention_ms,
            retention_bytes: Some(UNLIMITED),
        };
        let topics = self.client.topics();
        self.patiently(|| topics.create(&name, wanted.clone()), is_early)
            .await
            .map_err(failure)?;
        if topic.leader_rack.is_empty() {
            return Ok(());
        }
        let change = UpdateTopic {
            leader_rack: Some(topic.leader_rack.clone()),
            ..UpdateTopic::default()
        };
        self.update(&name, change).await
    }

    /// Sets how many bytes a topic keeps, now that its records are there.
    async fn limit(&self, plan: &TopicPlan<'_>) -> Result<()> {
        if plan.retention_bytes.is_none() {
            return Ok(());
        }
        let change = UpdateTopic {
            retention_bytes: plan.retention_bytes,
            ..UpdateTopic::default()
        };
        self.update(&plan.topic.full_name(), change).await
    }

    async fn update(&self, name: &str, change: UpdateTopic) -> Result<()> {
        let topics = self.client.topics();
        let changed = self.patiently(|| topics.update(name, change.clone()), is_early).await;
        changed.map(drop).map_err(failure)
    }

    /// Appends all records that are not there yet.
    async fn fill(&self, plan: &Plan<'_>) -> Result<()> {
        let left = plan.topics.iter().map(TopicPlan::records_left).sum();
        let progress = Progress::beside(self.args.common.output, Unit::Records, End::At(left));
        let done = AtomicU64::new(0);
        let note = |count: u64| progress.set(done.fetch_add(count, Ordering::Relaxed) + count);
        // A topic's producer is made when its turn comes, and lives as long as one of its partitions is filled.
        let topics = stream::iter(plan.topics.iter().filter(|topic| topic.records_left() > 0));
        let filling = topics.then(|plan| self.begin(plan));
        let jobs = filling.map_ok(|filling| {
            let filling = Arc::new(filling);
            let partitions = filling.plan.topic.partitions.iter();
            stream::iter(partitions.map(move |partition| Ok::<_, Failure>((filling.clone(), partition))))
        });
        let filled = jobs.try_flatten().map_ok(|(filling, partition)| {
            let note = &note;
            async move { self.fill_partition(&filling, partition, note).await }
        });
        filled.try_buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await
    }

    async fn begin<'a>(&self, plan: &'a TopicPlan<'a>) -> Result<Filling<'a>> {
        let name = plan.topic.full_name();
        let compression = self.args.compression.into();
        let build = || self.client.producer(&name).compression(compression).build();
        let producer = self.patiently(build, is_early).await.map_err(failure)?;
        Ok(Filling { plan, producer })
    }

    async fn fill_partition(&self, filling: &Filling<'_>, partition: &Partition, note: impl Fn(u64)) -> Result<()> {
        let topic = filling.plan.topic;
        let there = filling.plan.records_there(partition);
        if there == partition.count() {
            return Ok(());
        }
        let path = manifest::file(&self.args.directory, &topic.tenant, &topic.name, partition.partition);
        let mut reader = Reader::open(path, partition)?;
        let mut next = 0;
        while let Some(mut records) = reader.next_block()? {
            let end = next + records.len() as u64;
            let begin = there.clamp(next, end);
            let rest = records.split_off((begin - next) as usize);
            if !rest.is_empty() {
                let count = rest.len() as u64;
                self.append(&filling.producer, partition, begin, rest)
                    .await
                    .map_err(|failure| told(failure, topic))?;
                note(count);
            }
            next = end;
        }
        Ok(())
    }

    /// Appends a block as one batch, exactly where it belongs.
    async fn append(
        &self,
        producer: &Producer,
        partition: &Partition,
        place: u64,
        records: Vec<ConsumedRecord>,
    ) -> Result<()> {
        let number = partition.partition;
        let offset = partition.first_offset + place;
        let records: Vec<Record> = records.into_iter().map(as_sent).collect();
        let append = || producer.append_at(number, place, records.clone());
        let is_early =
            |error: &highwater::ProduceError| error.outcome() == Outcome::NotApplied && is_early(error.cause());
        match self.patiently(append, is_early).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason() == Some(Reason::OffsetMismatch) => {
                let end = error
                    .log_end()
                    .map_or_else(String::new, |end| format!(", and it ends at {end}"));
                let message =
                    format!("partition {number}: offset {place} was to be next{end}: somebody else writes into it");
                let hint =
                    "keep producers away until the restore has ended; what they wrote there is not in the backup";
                Err(Failure::new(Code::Refused, message).hint(hint))
            }
            Err(error) => {
                let code = failure(error.cause().clone()).code;
                let message = format!(
                    "partition {number}: what was at offset {offset} and behind it: {}",
                    error.cause()
                );
                Err(Failure::new(code, message).hint("give the same command again; it goes on where this one stopped"))
            }
        }
    }

    /// Sets how far groups have come, but of those that the cluster knows already; answers what was left alone.
    async fn offsets(&self, topic: &Topic) -> Result<Vec<String>> {
        if topic.groups.is_empty() {
            return Ok(Vec::new());
        }
        let (name, groups) = (topic.full_name(), self.client.groups());
        let known = self.patiently(|| groups.list(&name), is_early).await.map_err(failure)?;
        let known = known
            .into_iter()
            .filter_map(|on| Some(((on.group, on.partition), on.offset?)));
        let known: BTreeMap<(String, u32), u64> = known.collect();
        let mut left_alone = Vec::new();
        let mut wanted = Vec::new();
        for on in &topic.groups {
            let place = topic.partitions[on.partition as usize].place_of(on.offset);
            match known.get(&(on.group.clone(), on.partition)) {
                Some(there) if *there == place => {}
                Some(there) => left_alone.push(format!(
                    "group {} on {name}/{} is at offset {there}; by the backup it would be at {place}",
                    on.group, on.partition
                )),
                None => wanted.push((on, place)),
            }
        }
        let set = stream::iter(wanted).map(|(on, place)| {
            let (groups, name) = (&groups, &name);
            let reset = move || groups.reset(name, &on.group, Some(on.partition), Position::Offset(place));
            async move { self.patiently(reset, is_early).await.map(drop).map_err(failure) }
        });
        set.buffer_unordered(OFFSETS_AT_ONCE).try_collect::<()>().await?;
        Ok(left_alone)
    }

    /// Tries again while a node may not know yet what was changed of the policy.
    async fn patiently<T, E, F: Future<Output = std::result::Result<T, E>>>(
        &self,
        attempt: impl Fn() -> F,
        is_early: impl Fn(&E) -> bool,
    ) -> std::result::Result<T, E> {
        loop {
            match attempt().await {
                Err(error) if is_early(&error) && Instant::now() < self.settled => sleep(RETRY_INTERVAL).await,
                done => return done,
            }
        }
    }
}

/// What a node says that does not know the newest policy.
fn is_early(error: &Error) -> bool {
    let early = [Reason::PermissionDenied, Reason::TopicNotFound, Reason::TenantNotFound];
    error.reason().is_some_and(|reason| early.contains(&reason))
}

fn as_sent(record: ConsumedRecord) -> Record {
    Record {
        key: record.key,
        value: record.value,
        headers: record.headers,
        timestamp_ms: Some(record.timestamp_ms),
        partition: Some(record.partition),
    }
}

fn told(failure: Failure, topic: &Topic) -> Failure {
    Failure {
        message: format!("topic {}, {}", topic.full_name(), failure.message),
        ..failure
    }
}
