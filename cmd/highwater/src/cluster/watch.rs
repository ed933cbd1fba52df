//! `highwater cluster watch`: what changes, as it happens.

use std::collections::BTreeMap;

use futures::StreamExt;
use highwater::{Cluster, Picture};
use serde_json::json;

use crate::exit::Result;
use crate::output::{self, Format};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End after so many changes.
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
}

/// What a line can be about, and what it says at the moment.
type Facts = BTreeMap<String, String>;

pub(super) async fn watch(cluster: &Cluster, args: &Args, format: Format) -> Result<()> {
    let mut pictures = cluster.watch();
    let mut known: Option<Facts> = None;
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0
        && let Some(picture) = pictures.next().await
    {
        let now = facts(&picture);
        let before = known.replace(now.clone()).unwrap_or_default();
        for (what, text) in changes(&before, &now) {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            match format {
                Format::Json => output::line(json!({ "what": what, "state": text }))?,
                Format::Text => output::line(format!("{what}: {text}"))?,
            }
        }
    }
    Ok(())
}

fn changes(before: &Facts, now: &Facts) -> Vec<(String, String)> {
    let changed = now.iter().filter(|(what, text)| before.get(*what) != Some(text));
    let gone = before.keys().filter(|what| !now.contains_key(*what));
    let changed = changed.map(|(what, text)| (what.clone(), text.clone()));
    changed
        .chain(gone.map(|what| (what.clone(), "gone".to_owned())))
        .collect()
}

fn facts(picture: &Picture) -> Facts {
    let mut facts = Facts::new();
    for node in picture.nodes() {
        let state = match (node.alive, node.leaving, node.drained) {
            (false, _, _) => "away",
            (true, true, _) => "here, leaving",
            (true, false, true) => "here, drained",
            (true, false, false) => "here",
        };
        facts.insert(format!("node {}", node.name), format!("{state}, at {}", node.address));
    }
    for topic in picture.topics() {
        for partition in &topic.partitions {
            let what = format!(
                "topic {}/{} partition {}",
                topic.tenant, topic.name, partition.partition
            );
            let leader = match partition.leader.as_str() {
                "" => "no leader".to_owned(),
                leader => format!("led by {leader} in term {}", partition.term),
            };
            let mut text = format!("{leader}, replicas on {}", partition.replicas.join(", "));
            if !partition.leaving.is_empty() {
                text = format!("{text}, leaving {}", partition.leaving.join(", "));
            }
            facts.insert(what, text);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told_and_what_is_gone() {
        let facts = |facts: &[(&str, &str)]| -> Facts {
            let own = facts
                .iter()
                .map(|(what, text)| ((*what).to_owned(), (*text).to_owned()));
            own.collect()
        };
        let before = facts(&[("node a", "here"), ("node b", "here"), ("node c", "here")]);
        let now = facts(&[("node a", "here"), ("node b", "away")]);
        let told = changes(&before, &now);
        let expected = [("node b", "away"), ("node c", "gone")].map(|(what, text)| (what.to_owned(), text.to_owned()));
        assert_eq!(told, expected);
    }
}
