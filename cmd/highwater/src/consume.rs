//! `highwater consume`: records to standard output.
//!
//! Values are written in large pieces while records come in, and at once when there are no more for the moment;
//! then the command waits for the cluster's push and uses no CPU. The end for `--exit-at-end` is fixed when the
//! command starts, as the leaders confirm it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use futures::FutureExt;
use highwater::{ConsumedRecord, Consumer, Position, Reason};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::yield_now;

use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::format::{self, RecordFormat};
use crate::output;
use crate::profile::{ProfileArgs, failure};
use crate::progress::{Progress, Unit};
use crate::sink::Sink;

/// After how many records of a busy stream to look whether another node serves it now.
const SERVED_BY_INTERVAL: u64 = 4096;
/// After how many records progress is told.
const PROGRESS_INTERVAL: u64 = 256;
/// How often a busy consumer commits for its group.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// After how many records of a busy stream to look whether that is due.
const COMMIT_LOOK_INTERVAL: u64 = 64;
/// How long an interrupted command waits for a reader that has stopped reading.
const LAST_WRITE_DEADLINE: Duration = Duration::from_secs(1);
const FOREVER: Duration = Duration::MAX;
/// How long it tries to commit what was printed.
const LAST_COMMIT_DEADLINE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  highwater consume numbers --from beginning --exit-at-end
  highwater consume orders --partition 0 --from 1200 --max 10 --format '%o %k %v'
  highwater consume logs --from 2026-01-31T12:00:00Z -v
  highwater consume orders --group billing --from beginning
  highwater consume orders --from beginning --exit-at-end --format json > orders.jsonl

--format json prints whole records, one on each line, which `highwater produce --format json` takes.
Fields of other formats: %k key, %v value, %o offset, %p partition, %t the record's time in ms since 1970, %% a percent
sign; escapes: \\n \\r \\t \\0 \\xHH \\\\. A newline follows each record, or what --separator says.
The order of records holds within a partition; partitions are mixed as they come.";

/// Print the records of a topic.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic.
    topic: String,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Read this partition only.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// Where to begin: `beginning`, `end`, an offset, or a time (RFC 3339).
    #[arg(long, value_name = "POSITION", value_parser = parse_position, default_value = "end", allow_hyphen_values = true)]
    from: Position,
    /// Consume for this group: begin where it left off (where it never was, as --from says), and commit what has been printed. The
    /// members of a group share the partitions of the topic. With --partition, that one is taken from whoever had it.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Who consumes for the group, as `group describe` shows it; no two at the same time. Default: consume-HOST-PID.
    #[arg(long, value_name = "NAME", requires = "group")]
    member: Option<String>,
    /// After what silence of this process others get its partitions; 1s to 5m.
    #[arg(long, value_name = "DURATION", requires = "group", value_parser = durations::parse, default_value = "10s")]
    session: Duration,
    /// End after so many records.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// End at the ends of the partitions, as they are now.
    #[arg(long)]
    exit_at_end: bool,
    /// How to print a record.
    #[arg(long, value_name = "FORMAT", value_parser = RecordFormat::parse, default_value = "%v")]
    format: RecordFormat,
    /// What follows each record: one byte, as it is or as an escape (\\n, \\r, \\t, \\0, \\xHH).
    #[arg(long, value_name = "BYTE", value_parser = format::parse_separator, default_value = "\\n", allow_hyphen_values = true)]
    separator: u8,
    /// How long to look for the topic, and then how long no replica may serve a partition; at most 24h. Waiting for
    /// new records is not limited.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "30s")]
    deadline: Duration,
    /// Tell on standard error which node serves each partition.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn parse_position(text: &str) -> std::result::Result<Position, String> {
    match text {
        "beginning" => return Ok(Position::Beginning),
        "end" => return Ok(Position::End),
        _ => {}
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let offset = text.parse().map_err(|_| format!("{text} is larger than any offset"))?;
        return Ok(Position::Offset(offset));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "write `beginning`, `end`, an offset, or a time such as 2026-01-31T12:00:00Z".to_owned())?;
    let time_ms = u64::try_from(time.unix_timestamp_nanos() / 1_000_000);
    time_ms
        .map(Position::Time)
        .map_err(|_| "times before 1970 hold no records".to_owned())
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    if args.format == RecordFormat::Json && args.separator != format::NEWLINE {
        return Err(Failure::usage(
            "--separator is for formats of fields; in JSON each record is a line",
        ));
    }
    let consumer = connect(args).await?;
    check_offset(args, &consumer).await?;
    let progress = progress(args, &consumer);
    let mut printing = Printing {
        args,
        consumer,
        progress,
        sink: Sink::stdout()?,
        printed: 0,
        commit_due: Instant::now() + COMMIT_INTERVAL,
        served_by: BTreeMap::new(),
    };
    let (outcome, patience) = tokio::select! {
        biased;
        // The reader may have stopped reading: what it does not take now, it does not want.
        interrupted = interrupted() => (interrupted, LAST_WRITE_DEADLINE),
        outcome = printing.print_all() => (outcome, FOREVER),
    };
    match outcome {
        Ok(()) => printing.finish(patience).await,
        Err(failure) => {
            // What was read is written, also before an error; but what lies behind that is not to be committed.
            printing.sink.write_out().await;
            Err(failure)
        }
    }
}

async fn connect(args: &Args) -> Result<Consumer> {
    let client = args.profile.connect(args.deadline).await?;
    let builder = match args.partition {
        Some(partition) => client.consumer(&args.topic, partition),
        None => client.consume_topic(&args.topic),
    };
    let builder = builder.from(args.from).deadline(args.deadline);
    let builder = if args.exit_at_end {
        builder.stop_at_end()
    } else {
        builder
    };
    let builder = match &args.group {
        Some(group) => {
            let member = args.member.clone().unwrap_or_else(default_member);
            builder.group(group, member).session(args.session)
        }
        None => builder,
    };
    builder.build().await.map_err(failure)
}

/// A name that no other process has, by the rule of names.
fn default_member() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .to_ascii_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(40)
        .collect();
    format!("consume-{host}-{}", std::process::id())
}

/// Shown unless the records are printed on the terminal themselves.
fn progress(args: &Args, consumer: &Consumer) -> Progress {
    if std::io::stdout().is_terminal() || args.verbose {
        return Progress::hidden();
    }
    let left = |partition: u32| {
        Some(
            consumer
                .stop_offset(partition)?
                .saturating_sub(consumer.position(partition)?),
        )
    };
    let to_ends: Option<u64> = consumer.partitions().into_iter().map(left).sum();
    // The partitions of a member of a group come and go.
    let to_ends = to_ends.filter(|_| args.group.is_none());
    let total = [to_ends, args.max].into_iter().flatten().min();
    Progress::new(Unit::Records, total.into())
}

/// An offset that no partition has reached would print nothing, which looks like an empty topic.
async fn check_offset(args: &Args, consumer: &Consumer) -> Result<()> {
    let Position::Offset(offset) = args.from else {
        return Ok(());
    };
    if args.group.is_some() {
        return Ok(()); // it begins where the group left off
    }
    let mut end_max = 0;
    for partition in consumer.partitions() {
        let end = match consumer.stop_offset(partition) {
            Some(end) => end,
            None => consumer.end_offset(partition).await.map_err(failure)?,
        };
        end_max = end_max.max(end);
    }
    if offset <= end_max {
        return Ok(());
    }
    let message = format!(
        "offset {offset} of {} does not exist yet: the next record gets {end_max}",
        args.topic
    );
    if args.exit_at_end {
        return Err(Failure::new(Code::NotFound, message)
            .hint("read from `--from beginning`, or leave out --exit-at-end to wait"));
    }
    output::note(format!("{message}; waiting for it."));
    Ok(())
}

/// Ready at SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::new(Code::Failure, format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

struct Printing<'a> {
    args: &'a Args,
    consumer: Consumer,
    progress: Progress,
    sink: Sink,
    printed: u64,
    /// When to commit next, if there is always something to print.
    commit_due: Instant,
    /// What was last told about each partition.
    served_by: BTreeMap<u32, String>,
}

impl Printing<'_> {
    async fn print_all(&mut self) -> Result<()> {
        while self.args.max.is_none_or(|max| self.printed < max) {
            let Some(record) = self.next().await? else {
                break;
            };
            let record = record.map_err(failure)?;
            self.args.format.write(&record, self.args.separator, self.sink.buffer());
            if self.printed.is_multiple_of(SERVED_BY_INTERVAL) {
                self.tell_who_serves();
            }
            self.printed += 1;
            if self.printed.is_multiple_of(PROGRESS_INTERVAL) {
                self.progress.set(self.printed);
            }
            if !self.sink.relieve().await {
                break;
            }
            if self.is_commit_due() && !self.hand_over().await? {
                break;
            }
        }
        self.tell_who_serves();
        Ok(())
    }

    /// The next record. If there is none for the moment, what was printed is handed over before the wait.
    async fn next(&mut self) -> Result<Option<std::result::Result<ConsumedRecord, highwater::Error>>> {
        if let Some(next) = self.consumer.next_record().now_or_never() {
            return Ok(next);
        }
        // A task that has run for long is told "not now" once, although there is more: ask again after a turn.
        yield_now().await;
        if let Some(next) = self.consumer.next_record().now_or_never() {
            return Ok(next);
        }
        self.tell_who_serves();
        if !self.hand_over().await? {
            return Ok(None);
        }
        Ok(self.consumer.next_record().await)
    }

    /// A stream that never pauses has to be interrupted to commit.
    fn is_commit_due(&self) -> bool {
        self.args.group.is_some()
            && self.printed.is_multiple_of(COMMIT_LOOK_INTERVAL)
            && Instant::now() >= self.commit_due
    }

    /// Writes what was printed, and commits it for the group, if it is for one. False if the reader has gone: what it did not
    /// take is not committed.
    async fn hand_over(&mut self) -> Result<bool> {
        if self.args.group.is_none() {
            return Ok(self.sink.flush().await);
        }
        if !self.sink.write_out().await {
            return Ok(false);
        }
        self.commit().await?;
        self.commit_due = Instant::now() + COMMIT_INTERVAL;
        Ok(true)
    }

    async fn commit(&mut self) -> Result<()> {
        match self.consumer.commit().await {
            Ok(()) => Ok(()),
            // Others share the topic; whoever has the partition now goes on from the last commit.
            Err(error) if error.reason() == Some(Reason::StaleClaim) && self.args.partition.is_none() => {
                output::note(
                    "another member has taken a partition; what was printed of it just now is printed there again.",
                );
                Ok(())
            }
            Err(error) => Err(failure(error)),
        }
    }

    async fn finish(mut self, patience: Duration) -> Result<()> {
        self.progress.finish();
        if self.args.group.is_some() {
            let written = tokio::time::timeout(patience, self.sink.write_out()).await;
            if written.unwrap_or(false) {
                self.commit_at_the_end().await?;
            }
            self.consumer.close().await.map_err(failure)?;
        }
        let finished = tokio::time::timeout(patience, self.sink.finish()).await;
        finished.unwrap_or(Ok(()))
    }

    async fn commit_at_the_end(&mut self) -> Result<()> {
        let committed = tokio::time::timeout(LAST_COMMIT_DEADLINE, self.commit()).await;
        committed.unwrap_or_else(|_| {
            let message = format!(
                "what was printed last could not be committed within {} s; it will be printed again",
                LAST_COMMIT_DEADLINE.as_secs()
            );
            Err(Failure::new(Code::Unavailable, message))
        })
    }

    fn tell_who_serves(&mut self) {
        if !self.args.verbose {
            return;
        }
        for partition in self.consumer.partitions() {
            let Some(node) = self.consumer.served_by(partition) else {
                continue;
            };
            if self.served_by.get(&partition) != Some(&node) {
                output::note(format!("{}/{partition} is served by {node}", self.args.topic));
                self.served_by.insert(partition, node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_words_offsets_or_times() {
        assert_eq!(parse_position("beginning"), Ok(Position::Beginning));
        assert_eq!(parse_position("end"), Ok(Position::End));
        assert_eq!(parse_position("17"), Ok(Position::Offset(17)));
        assert_eq!(parse_position("1970-01-01T00:00:01Z"), Ok(Position::Time(1_000)));
        assert_eq!(parse_position("1970-01-01T01:00:00.5+01:00"), Ok(Position::Time(500)));
    }

    #[test]
    fn other_positions_are_refused() {
        for wrong in [
            "",
            "start",
            "-1",
            "+1",
            "1.5",
            "2026-01-31",
            "18446744073709551616",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(parse_position(wrong).is_err(), "{wrong:?} passed");
        }
    }
}
