//! `highwater audit verify`: all that is kept, against its chains.

use highwater::{Client, ConsumedRecord};
use serde_json::json;

use super::chain::{Checker, Entry, Summary};
use super::{PARTITION, open, reader};
use crate::exit::{Code, Failure, Result};
use crate::log::time;
use crate::output::{self, Format, Table};
use crate::profile::failure;
use crate::progress::{Progress, Unit};

/// After how many records progress is told.
const PROGRESS_INTERVAL: u64 = 256;
/// So many places are shown where something does not follow.
const BREAKS_SHOWN_MAX: u64 = 20;

pub(super) async fn run(client: &Client, format: Format) -> Result<()> {
    let mut consumer = open(reader(client).stop_at_end()).await?;
    let first = consumer.position(PARTITION).unwrap_or(0);
    let total = consumer.stop_offset(PARTITION).map(|end| end.saturating_sub(first));
    let progress = Progress::new(Unit::Records, total.into());
    let mut checker = Checker::new(first);
    let (mut count, mut breaks) = (0, 0);
    while let Some(record) = consumer.next_record().await {
        let record = record.map_err(failure)?;
        if let Err(found) = checker.take(entry(&record)) {
            breaks += 1;
            if breaks <= BREAKS_SHOWN_MAX {
                output::note(format!("the audit does not hold: {found}"));
            }
        }
        count += 1;
        if count % PROGRESS_INTERVAL == 0 {
            progress.set(count);
        }
    }
    progress.finish();
    if breaks > 0 {
        let message = format!(
            "the audit does not hold in {breaks} of {count} records; what stands behind each was looked at all the same"
        );
        return Err(Failure::new(Code::Failure, message));
    }
    let nodes = checker.finish();
    let nodes: Vec<(String, Summary)> = nodes.into_iter().collect();
    tell(&nodes, (first, count), format)
}

fn entry(record: &ConsumedRecord) -> Entry<'_> {
    let hash = record.headers.iter().find(|header| header.name == "hash");
    Entry {
        offset: record.offset,
        key: record.key.as_deref(),
        value: &record.value,
        hash: hash.map(|header| header.value.as_ref()),
    }
}

fn tell(nodes: &[(String, Summary)], (first, count): (u64, u64), format: Format) -> Result<()> {
    if format == Format::Json {
        let nodes = nodes.iter().map(|(name, summary)| {
            json!({
                "node": name,
                "chains": summary.chains,
                "records": summary.records,
                "suppressed": summary.suppressed,
                "first_ms": summary.first_ms,
                "last_ms": summary.last_ms,
                "notices": summary.notices,
            })
        });
        let nodes: Vec<_> = nodes.collect();
        return output::json(&json!({ "first_offset": first, "records": count, "nodes": nodes }));
    }
    let mut table = Table::new(&["NODE", "CHAINS", "RECORDS", "SUPPRESSED", "FIRST", "LAST"]);
    for (name, summary) in nodes {
        table.row([
            name.clone(),
            summary.chains.to_string(),
            summary.records.to_string(),
            summary.suppressed.to_string(),
            time(summary.first_ms),
            time(summary.last_ms),
        ]);
    }
    table.print()?;
    for (name, summary) in nodes {
        for notice in &summary.notices {
            output::note(format!("node {name}: {notice}"));
        }
    }
    output::line(format!(
        "{count} records from offset {first} on follow from each other; none was changed, left out, doubled or put in between."
    ))
}
