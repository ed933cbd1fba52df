//! `highwater produce`: records from standard input or a file, one line each.
//!
//! Two halves run side by side: one sends lines as fast as the producer takes them, the other waits for their
//! deliveries in the order of the input. The first line that is not acknowledged ends the sending; what was sent
//! by then is waited for, so that the last sentence of a failed command counts every line: acknowledged, not
//! applied, or unknown.
//!
//! With `-v` the n-th printed line belongs to the n-th line of the input: printing ends at the first line that is
//! not acknowledged. A line is printed after its acknowledgement, never before.

mod compression;
mod tally;

use std::cell::{Cell, RefCell};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use highwater::proto::limits::RECORD_BYTES_MAX;
use highwater::{Delivered, Delivery, ProduceError, Producer, Record, TraceParent, TrySendError};
use tokio::signal::ctrl_c;
use tokio::sync::{Notify, mpsc};

pub(crate) use self::compression::Compression;
use self::tally::Tally;
use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::format;
use crate::json_lines;
use crate::lines::{self, End, Input};
use crate::output;
use crate::profile::{ProfileArgs, failure};
use crate::progress::{Progress, Unit};
use crate::sink::Sink;

/// The longest line that is a value, bytes: the record leaves some room for its key's and its own framing.
const VALUE_LINE_BYTES_MAX: usize = RECORD_BYTES_MAX - 64;
/// How many pieces of the input may wait for their acknowledgements; the producer's own buffer is the real bound.
const PIECES_IN_FLIGHT_MAX: usize = 1024;

const EXAMPLES: &str = "\
Examples:
  seq 1 1000000 | highwater produce numbers
  highwater produce orders --file orders.txt --key-separator :
  highwater produce orders --file orders.jsonl --format json
  find . -name '*.txt' -print0 | highwater produce files --separator '\\0'
  journalctl -f | highwater produce logs -v

Ends with 0 when every line is acknowledged: on the disks of a majority. Otherwise it says how many lines were
acknowledged, how many are surely not in the topic, and of how many that is not known.";

/// Send lines to a topic as records.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic.
    topic: String,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Read from this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What a line is: a value, or a record in JSON with key, headers, time and partition, as `consume --format json` prints it.
    #[arg(long, value_enum, default_value_t)]
    format: LineFormat,
    /// What ends a line: one byte, as it is or as an escape (\\n, \\r, \\t, \\0, \\xHH). The values may then hold newlines.
    #[arg(long, value_name = "BYTE", value_parser = format::parse_separator, default_value = "\\n", allow_hyphen_values = true)]
    separator: u8,
    /// What separates key and value in a line. Without it records have no key.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Send everything to this partition.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// The trace that the records are part of, as W3C Trace Context writes it; those in JSON may have one of their own.
    #[arg(long, value_name = "TRACEPARENT", env = "TRACEPARENT", value_parser = parse_trace)]
    trace: Option<TraceParent>,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// How long to look for the topic, and then how long each batch of lines is tried, at most 10m.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse_delivery_deadline, default_value = "30s")]
    deadline: Duration,
    /// Print `PARTITION OFFSET` for each acknowledged line, in the order of the input.
    #[arg(short, long)]
    verbose: bool,
}

fn parse_trace(text: &str) -> std::result::Result<TraceParent, String> {
    let wrong = || "it is not of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>".to_owned();
    TraceParent::parse(text.as_bytes()).ok_or_else(wrong)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum LineFormat {
    #[default]
    Value,
    Json,
}

impl LineFormat {
    fn line_bytes_max(self) -> usize {
        match self {
            Self::Value => VALUE_LINE_BYTES_MAX,
            Self::Json => json_lines::LINE_BYTES_MAX,
        }
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    if args.format == LineFormat::Json && args.key_separator.is_some() {
        return Err(Failure::usage(
            "--key-separator is for lines that are values; in JSON a record has its key beside the value",
        ));
    }
    if args.format == LineFormat::Json && args.separator != format::NEWLINE {
        return Err(Failure::usage(
            "--separator is for lines that are values; in JSON each line is a record",
        ));
    }
    let (input, bytes) = read_input(args)?;
    let producer = connect(args).await?;
    let progress = match args.verbose {
        true => Progress::hidden(), // what is printed shows it
        false => Progress::new(Unit::Bytes, bytes.into()),
    };
    let sink = args.verbose.then(Sink::stdout).transpose()?;
    let run = Run {
        producer: &producer,
        format: args.format,
        key_separator: args.key_separator.as_deref().map(str::as_bytes),
        trace: args.trace,
        partition: args.partition,
        stopped: Cell::new(false),
        stop: Notify::new(),
        refused: RefCell::new(None),
    };
    let (pieces, in_flight) = mpsc::channel(PIECES_IN_FLIGHT_MAX);
    // What has failed is seen before more is sent.
    let both = async { tokio::join!(run.collect(in_flight, sink, progress), run.send_all(input, pieces)).0 };
    let (tally, printed) = tokio::select! {
        biased;
        collected = both => collected,
        () = run.interrupted_twice() => {
            let message = "interrupted twice; what became of the last lines is unknown";
            return Err(Failure::new(Code::Failure, message));
        }
    };
    report(&tally, run.refused.into_inner(), printed)
}

/// The lines, and how many bytes they are, if that is known.
fn read_input(args: &Args) -> Result<(mpsc::Receiver<Input>, Option<u64>)> {
    let line_bytes_max = args.format.line_bytes_max();
    let Some(path) = &args.file else {
        return Ok((lines::read(std::io::stdin(), args.separator, line_bytes_max)?, None));
    };
    let file = open(path)?;
    // Of what is no ordinary file nobody knows how much there is.
    let metadata = file.metadata().ok().filter(Metadata::is_file);
    let bytes = metadata.map(|metadata| metadata.len());
    Ok((lines::read(file, args.separator, line_bytes_max)?, bytes))
}

fn open(path: &Path) -> Result<File> {
    let is_readable = |file: File| match file.metadata()?.is_dir() {
        true => Err(ErrorKind::IsADirectory.into()),
        false => Ok(file),
    };
    File::open(path).and_then(is_readable).map_err(|error| {
        Failure::new(Code::Failure, format!("cannot read {}: {error}", path.display()))
            .hint("check the path and who may read it; without --file the lines come from standard input")
    })
}

async fn connect(args: &Args) -> Result<Producer> {
    let client = args.profile.connect(args.deadline).await?;
    let producer = client
        .producer(&args.topic)
        .compression(args.compression.into())
        .deadline(args.deadline)
        .build()
        .await
        .map_err(failure)?;
    match args.partition {
        Some(partition) if partition >= producer.partitions() => {
            let count = producer.partitions();
            let message = format!(
                "there is no partition {partition} of {}: it has {count}, numbered from 0",
                args.topic
            );
            Err(Failure::new(Code::NotFound, message).hint("`highwater topic describe NAME` shows the partitions"))
        }
        _ => Ok(producer),
    }
}

/// Why sending ended before the end of the input, other than by a line that was not acknowledged.
enum Refused {
    /// The input itself: reading failed, or a line cannot be a record.
    Input(Failure),
    /// The producer did not take a line.
    Line(u64, ProduceError),
    Interrupted,
}

/// Lines of the input that were sent together.
struct Piece {
    deliveries: Vec<Delivery>,
    /// With what ended them.
    bytes: u64,
}

/// What both halves share. They run on one thread, in turns.
struct Run<'a> {
    producer: &'a Producer,
    format: LineFormat,
    key_separator: Option<&'a [u8]>,
    trace: Option<TraceParent>,
    partition: Option<u32>,
    /// A line was not acknowledged, or nobody wants more, so that nothing more is sent.
    stopped: Cell<bool>,
    /// Wakes the sender when that becomes so.
    stop: Notify,
    refused: RefCell<Option<Refused>>,
}

impl Run<'_> {
    /// The first interrupt ends the sending, the second one the waiting.
    async fn interrupted_twice(&self) {
        // Without a listener there is nothing to wait for, and the default action is gone as well.
        if ctrl_c().await.is_err() {
            return std::future::pending().await;
        }
        *self.refused.borrow_mut() = Some(Refused::Interrupted);
        self.stop();
        if ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }

    /// Nothing more is to be sent.
    fn stop(&self) {
        self.stopped.set(true);
        self.stop.notify_one();
    }

    async fn send_all(&self, input: mpsc::Receiver<Input>, pieces: mpsc::Sender<Piece>) {
        if let Err(refused) = self.send_lines(input, pieces).await {
            *self.refused.borrow_mut() = Some(refused);
        }
    }

    async fn send_lines(
        &self,
        mut input: mpsc::Receiver<Input>,
        pieces: mpsc::Sender<Piece>,
    ) -> std::result::Result<(), Refused> {
        let mut sent = 0;
        while !self.stopped.get() {
            // The input may stay silent for ever after a line has failed.
            let next = tokio::select! {
                biased;
                () = self.stop.notified() => break,
                next = input.recv() => next,
            };
            let lines = match next {
                Some(Input::Lines(lines)) => lines,
                Some(Input::End(end)) => return input_end(end, self.format.line_bytes_max()),
                None => break,
            };
            let mut piece = Piece {
                deliveries: Vec::with_capacity(lines.len()),
                bytes: lines.iter().map(|line| line.len() as u64 + 1).sum(),
            };
            let taken = self.send_piece(lines, &mut sent, &mut piece.deliveries).await;
            // The other half ends only after this one.
            let _ = pieces.send(piece).await;
            taken?;
        }
        Ok(())
    }

    async fn send_piece(
        &self,
        lines: Vec<Bytes>,
        sent: &mut u64,
        deliveries: &mut Vec<Delivery>,
    ) -> std::result::Result<(), Refused> {
        for line in lines {
            if self.stopped.get() {
                break;
            }
            let number = *sent + 1;
            let record = self.record(line, number).map_err(Refused::Input)?;
            let delivery = match self.producer.try_send(record) {
                Ok(delivery) => Ok(delivery),
                Err(TrySendError::Failed(error)) => Err(error),
                // Space may come only with the failure after which nothing more is to be sent.
                Err(TrySendError::Full(record)) => tokio::select! {
                    biased;
                    () = self.stop.notified() => break,
                    delivery = self.producer.send(*record) => delivery,
                },
            };
            deliveries.push(delivery.map_err(|error| Refused::Line(number, error))?);
            *sent = number;
        }
        Ok(())
    }

    fn record(&self, line: Bytes, number: u64) -> Result<Record> {
        if self.format == LineFormat::Json {
            let mut record = json_lines::read(&line).map_err(|why| not_a_record(number, &why))?;
            record.partition = self.partition.or(record.partition);
            return Ok(self.traced(record));
        }
        let (key, value) = match self.key_separator {
            None => (None, line),
            Some(separator) => {
                let place = find(&line, separator).ok_or_else(|| {
                    let separator = String::from_utf8_lossy(separator);
                    Failure::new(
                        Code::Refused,
                        format!("line {number} does not contain the key separator {separator:?}"),
                    )
                    .hint("nothing from that line on was sent; mend it, or leave out --key-separator")
                })?;
                (Some(line.slice(..place)), line.slice(place + separator.len()..))
            }
        };
        Ok(self.traced(Record {
            key,
            value,
            partition: self.partition,
            ..Record::default()
        }))
    }

    /// The record as a part of the trace, unless it says itself of which.
    fn traced(&self, record: Record) -> Record {
        match self.trace {
            Some(trace) if record.trace().is_none() => record.with_trace(&trace),
            _ => record,
        }
    }

    async fn collect(
        &self,
        mut in_flight: mpsc::Receiver<Piece>,
        sink: Option<Sink>,
        progress: Progress,
    ) -> (Tally, Result<()>) {
        let (mut tally, mut printer) = (Tally::default(), Printer { sink });
        let mut bytes = 0;
        loop {
            let piece = match in_flight.try_recv() {
                Ok(piece) => piece,
                Err(_) => {
                    self.stop_unless(printer.flush().await);
                    match in_flight.recv().await {
                        Some(piece) => piece,
                        None => break,
                    }
                }
            };
            for delivery in piece.deliveries {
                let delivered = match printer.await_delivery(delivery).await {
                    Ok(delivered) => delivered,
                    Err(error) => {
                        self.stop();
                        tally.fail(error);
                        continue;
                    }
                };
                tally.acknowledged += 1;
                if tally.failure.is_none() {
                    self.stop_unless(printer.print(&delivered).await);
                }
            }
            bytes += piece.bytes;
            progress.set(bytes);
        }
        (tally, printer.finish().await)
    }

    fn stop_unless(&self, printed: bool) {
        if !printed {
            self.stop();
        }
    }
}

fn input_end(end: End, line_bytes_max: usize) -> std::result::Result<(), Refused> {
    let failure = match end {
        End::Complete => return Ok(()),
        End::TooLong { line } => Failure::new(
            Code::Refused,
            format!("line {line} is longer than {line_bytes_max} bytes, the most that a record can take"),
        )
        .hint("nothing from that line on was sent; split it, or leave it out"),
        End::Failed(error) => Failure::new(Code::Failure, format!("cannot read the input: {error}")),
    };
    Err(Refused::Input(failure))
}

fn not_a_record(line: u64, why: &str) -> Failure {
    Failure::new(Code::Refused, format!("line {line} is not a record in JSON: {why}"))
        .hint("nothing from that line on was sent; mend it, or leave out --format json")
}

fn find(line: &[u8], separator: &[u8]) -> Option<usize> {
    line.windows(separator.len()).position(|window| window == separator)
}

/// Prints acknowledgements if that is wanted.
struct Printer {
    sink: Option<Sink>,
}

impl Printer {
    /// Waits for a delivery; what is acknowledged by then is shown before the wait.
    async fn await_delivery(&mut self, delivery: Delivery) -> std::result::Result<Delivered, ProduceError> {
        if let Some(outcome) = delivery.now() {
            return outcome;
        }
        self.flush().await;
        delivery.await
    }

    /// Returns false when nobody reads the output any more.
    async fn print(&mut self, delivered: &Delivered) -> bool {
        let Some(sink) = &mut self.sink else {
            return true;
        };
        // Writing into memory does not fail.
        let _ = writeln!(sink.buffer(), "{} {}", delivered.partition, delivered.offset);
        sink.relieve().await
    }

    async fn flush(&mut self) -> bool {
        match &mut self.sink {
            Some(sink) => sink.flush().await,
            None => true,
        }
    }

    async fn finish(self) -> Result<()> {
        match self.sink {
            Some(sink) => sink.finish().await,
            None => Ok(()),
        }
    }
}

fn report(tally: &Tally, refused: Option<Refused>, printed: Result<()>) -> Result<()> {
    let sentence = tally.sentence();
    if let Some((line, error)) = &tally.failure {
        return Err(line_failure(*line, error, &sentence));
    }
    match refused {
        Some(Refused::Line(line, error)) => Err(line_failure(line, &error, &sentence)),
        Some(Refused::Input(mut failure)) => {
            failure.message = format!("{}; {sentence}", failure.message);
            Err(failure)
        }
        Some(Refused::Interrupted) => Err(Failure::new(Code::Failure, format!("interrupted; {sentence}"))),
        None => {
            printed?;
            output::note(format!("{sentence}."));
            Ok(())
        }
    }
}

fn line_failure(line: u64, error: &ProduceError, sentence: &str) -> Failure {
    let mut failure = failure(error.cause().clone());
    failure.message = format!("line {line} was not acknowledged: {error}; {sentence}");
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_found_as_a_whole() {
        assert_eq!(find(b"key::value", b"::"), Some(3));
        assert_eq!(find(b"a:b", b"::"), None);
        assert_eq!(find(b"", b":"), None);
    }
}
