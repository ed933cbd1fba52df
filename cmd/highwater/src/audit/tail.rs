//! `highwater audit tail`: records as they are, oldest first.

use highwater::{Client, ConsumedRecord, Position};
use serde::de::IgnoredAny;
use serde_json::json;

use super::record::Record;
use super::{PARTITION, open, reader};
use crate::consume::parse_position;
use crate::exit::Result;
use crate::output::{self, Format};
use crate::profile::failure;

/// How many of the last records are printed unless the command line says more.
const LAST_DEFAULT: u64 = 20;

/// What to print.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what comes, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Where to begin: `beginning`, `end`, an offset, or a time (RFC 3339). Default: with the last 20 records, or as many as --max says.
    #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
    from: Option<Position>,
    /// End after so many records.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
}

pub(super) async fn run(client: &Client, args: &Args, format: Format) -> Result<()> {
    let from = match args.from {
        Some(from) => from,
        None => last(client, args.max.unwrap_or(LAST_DEFAULT)).await?,
    };
    let builder = reader(client).from(from);
    let mut consumer = open(if args.follow { builder } else { builder.stop_at_end() }).await?;
    let mut printed = 0;
    while args.max.is_none_or(|max| printed < max) {
        let Some(record) = consumer.next_record().await else {
            break;
        };
        print(&record.map_err(failure)?, format)?;
        printed += 1;
    }
    Ok(())
}

/// Where the last so many records begin.
async fn last(client: &Client, count: u64) -> Result<Position> {
    let consumer = open(reader(client).stop_at_end()).await?;
    let first = consumer.position(PARTITION).unwrap_or(0);
    let end = consumer.stop_offset(PARTITION).unwrap_or(first);
    Ok(Position::Offset(end.saturating_sub(count).max(first)))
}

fn print(record: &ConsumedRecord, format: Format) -> Result<()> {
    match (format, Record::read(&record.value)) {
        (Format::Json, _) => output::line(json_line(record)),
        (Format::Text, Ok(read)) => output::line(read.line()),
        (Format::Text, Err(why)) => output::line(format!("offset {}: {why}", record.offset)),
    }
}

/// The value as it was written, with what surrounds it.
fn json_line(record: &ConsumedRecord) -> String {
    let header = record.headers.iter().find(|header| header.name == "hash");
    let hash = header.map(|header| String::from_utf8_lossy(&header.value).into_owned());
    let text = String::from_utf8_lossy(&record.value).into_owned();
    let is_object = text.starts_with('{') && !text.contains('\n') && serde_json::from_str::<IgnoredAny>(&text).is_ok();
    let value = if is_object { text } else { json!(text).to_string() };
    let hash = json!(hash);
    format!(r#"{{"offset":{},"hash":{hash},"record":{value}}}"#, record.offset)
}
