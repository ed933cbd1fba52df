//! `highwater cluster recover`: the last resort, when the majority of a partition's replicas is gone for good.
//!
//! Without `--accept-loss` it only looks. Both ways it says what is known of the loss, which is never all of it: nobody is left
//! who could tell what only the others had.

use highwater::Cluster;
use highwater::proto::v1::RecoverPartitionResponse;
use serde_json::json;

use crate::exit::Result;
use crate::log::time;
use crate::output::{self, Format};
use crate::profile::failure;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The topic.
    topic: String,
    /// The partition, counted from 0.
    partition: u32,
    /// The node whose replica is gone on from.
    #[arg(long, value_name = "NODE")]
    from: String,
    /// Do it. Without this, only show what would be lost.
    #[arg(long)]
    accept_loss: bool,
}

pub(super) async fn recover(cluster: &Cluster, args: &Args, format: Format) -> Result<()> {
    let Args {
        topic, partition, from, ..
    } = args;
    let recovered = cluster.recover_partition(topic, *partition, from, args.accept_loss);
    let found = recovered.await.map_err(failure)?;
    match format {
        Format::Json => output::json(&json!({
            "topic": topic,
            "partition": partition,
            "from": from,
            "recovered": found.recovered,
            "log_start": found.log_start,
            "high_watermark": found.high_watermark,
            "log_end": found.log_end,
            "last_append_ms": found.last_append_ms,
            "last_term": found.last_term,
            "last_index": found.last_index,
            "entries_missing": found.entries_missing,
            "damaged": found.damaged,
            "given_up": found.given_up,
        })),
        Format::Text => {
            let what = format!("partition {partition} of {topic}");
            text(&what, from, &found).into_iter().try_for_each(output::line)
        }
    }
}

fn text(what: &str, from: &str, found: &RecoverPartitionResponse) -> Vec<String> {
    let has = match found.log_end - found.log_start.min(found.log_end) {
        0 => format!("it holds no records; the log ends at offset {}", found.log_end),
        _ => format!("it holds offsets {} to {}", found.log_start, found.log_end - 1),
    };
    let (term, index) = (found.last_term, found.last_index);
    let appended = match found.last_append_ms {
        0 => String::new(),
        at_ms => format!(", its last entry is {index} of term {term}, appended {}", time(at_ms)),
    };
    let head = match found.recovered {
        true => format!("{what} goes on from {from}"),
        false => format!("{what} can go on from {from}"),
    };
    let mut lines = vec![
        format!("{head}: {has}{appended}."),
        format!(
            "Acknowledged records from offset {} on {} lost, and their offsets are given again.",
            found.log_end,
            if found.recovered { "are" } else { "would be" }
        ),
    ];
    if found.entries_missing > 0 {
        let missing = found.entries_missing;
        lines.push(format!(
            "There are some: at least {missing} committed entries are missing here."
        ));
    }
    if found.damaged {
        lines.push("Some of its records are damaged, and nobody else has them any more.".to_owned());
    }
    let given_up = found.given_up.join(", ");
    match found.recovered {
        true => lines.push(format!(
            "The replicas on {given_up} are given up; new ones are made there, or elsewhere if those nodes are gone."
        )),
        false => lines.push(format!(
            "The replicas on {given_up} would be given up, also if they came back. Nothing is changed yet: wait for \
             those nodes if there is any hope, and give the command again with --accept-loss if there is none."
        )),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(recovered: bool) -> RecoverPartitionResponse {
        RecoverPartitionResponse {
            recovered,
            log_start: 10,
            high_watermark: 18,
            log_end: 20,
            last_append_ms: 0,
            entries_missing: 3,
            damaged: false,
            given_up: vec!["n2".to_owned(), "n3".to_owned()],
            last_term: 4,
            last_index: 31,
        }
    }

    #[test]
    fn it_says_what_is_there_what_is_lost_and_what_comes_next() {
        let looked = text("partition 0 of orders", "n1", &found(false));
        assert_eq!(
            looked[0],
            "partition 0 of orders can go on from n1: it holds offsets 10 to 19."
        );
        assert!(looked[1].contains("from offset 20 on would be lost"), "{looked:?}");
        assert!(looked[2].contains("at least 3"), "{looked:?}");
        assert!(
            looked[3].contains("n2, n3 would be given up") && looked[3].contains("--accept-loss"),
            "{looked:?}"
        );
        let done = text("partition 0 of orders", "n1", &found(true));
        assert!(
            done[0].contains("goes on from n1") && done[1].contains("are lost"),
            "{done:?}"
        );
        assert!(!done.concat().contains("--accept-loss"));
        let dated = RecoverPartitionResponse {
            last_append_ms: 1,
            ..found(false)
        };
        let looked = text("partition 0 of orders", "n1", &dated).remove(0);
        assert!(
            looked.contains("its last entry is 31 of term 4, appended 1970"),
            "{looked}"
        );
    }

    #[test]
    fn an_empty_log_is_not_described_by_a_range() {
        let empty = RecoverPartitionResponse {
            log_start: 20,
            ..found(false)
        };
        assert!(text("partition 0 of orders", "n1", &empty)[0].contains("no records"));
    }
}
