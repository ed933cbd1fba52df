//! The final scan: every partition from its start to its confirmed end, on each of its replicas.
//!
//! The library reads from whichever replica it likes, so each replica is read through a client whose picker knows only
//! that one for reads. A replica that lags is waited for, up to the deadline; one that cannot be read is reported as not
//! scanned, never as empty.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use highwater::proto::v1;
use highwater::{Client, ClientBuilder, DefaultPicker, Error, Picker, Picture, Position, Purpose};
use tokio::time::timeout;

use super::{Clock, node_number, seen, unreadable};
use crate::History;
use crate::history::{Scan, Seen, Span};

/// How many replicas are read at a time.
const AT_ONCE: usize = 3;
/// Scans are clients apart from all others.
const PROCESSES_BEFORE: u32 = 1 << 31;

/// Sends reads to one node, everything else where it belongs.
#[derive(Debug)]
struct OnlyFrom {
    node: String,
}

impl Picker for OnlyFrom {
    fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a v1::Node> {
        match purpose {
            Purpose::Read { .. } => picture.node(&self.node).filter(|node| !node.address.is_empty()),
            _ => DefaultPicker::default().pick(picture, purpose, avoid),
        }
    }
}

/// What came of the scans.
#[derive(Debug, Default)]
pub struct Scans {
    /// How many replicas were read to their ends.
    pub done: u64,
    /// Which replicas were not, and why.
    pub problems: Vec<String>,
}

/// One replica to be read.
struct Task {
    topic: String,
    partition: u32,
    node: String,
    process: u32,
}

/// Reads each partition of a topic on each of its replicas, and records it. `settings` are those of a client that can
/// reach the whole cluster; `deadline` holds for each replica.
///
/// # Errors
/// If the topic cannot be found. A replica that cannot be read is a problem in the result, not an error.
pub async fn scan_replicas(
    settings: &ClientBuilder,
    topic: &str,
    clock: Clock,
    deadline: Duration,
    history: &mut History,
) -> Result<Scans, Error> {
    let found = settings.clone().connect().await?.topics().get(topic).await?;
    let replicas = found.partitions.iter().flat_map(|partition| {
        let node = |node: &String| (partition.partition, node.clone());
        partition.replicas.iter().map(node).collect::<Vec<_>>()
    });
    let tasks = (PROCESSES_BEFORE..)
        .zip(replicas)
        .map(|(process, (partition, node))| Task {
            topic: topic.to_owned(),
            partition,
            node,
            process,
        });
    let nodes = history.run().nodes.clone();
    let mut scans = Scans::default();
    let mut results = stream::iter(tasks.collect::<Vec<_>>())
        .map(|task| {
            let settings = settings.clone();
            async move {
                let result = timeout(deadline, task.scan(settings, clock, deadline)).await;
                (task, result)
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some((task, result)) = results.next().await {
        match result {
            Ok(Ok((scan, records))) => {
                let node = node_number(&nodes, Some(&task.node));
                history.record_scan(Scan { node, ..scan }, records);
                scans.done += 1;
            }
            Ok(Err(error)) => scans.problems.push(format!("{task}: {error}")),
            Err(_) => scans
                .problems
                .push(format!("{task}: not read to its end within {deadline:?}")),
        }
    }
    Ok(scans)
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.topic, self.partition, self.node)
    }
}

impl Task {
    /// Reads from start to end; again, if a trim has overtaken the reading.
    async fn scan(
        &self,
        settings: ClientBuilder,
        clock: Clock,
        deadline: Duration,
    ) -> Result<(Scan, Vec<Seen>), Error> {
        let node = self.node.clone();
        let client = settings.picker(Arc::new(OnlyFrom { node })).connect().await?;
        loop {
            match self.scan_once(&client, clock, deadline).await {
                Err(Error::OffsetOutOfRange { .. }) => {}
                scanned => return scanned,
            }
        }
    }

    async fn scan_once(&self, client: &Client, clock: Clock, deadline: Duration) -> Result<(Scan, Vec<Seen>), Error> {
        let invoked_ns = clock.now_ns();
        let builder = client.consumer(self.topic.clone(), self.partition);
        let mut consumer = builder
            .from(Position::Beginning)
            .stop_at_end()
            .deadline(deadline)
            .build()
            .await?;
        let log_start = consumer.position(self.partition).unwrap_or(0);
        let end = consumer.stop_offset(self.partition).unwrap_or(log_start);
        let mut records = Vec::new();
        while let Some(result) = consumer.next_record().await {
            match result {
                Ok(record) => records.push(seen(&record)),
                Err(Error::CorruptBatch { offsets, .. }) => records.extend(unreadable(&offsets)),
                Err(error) => return Err(error),
            }
        }
        let scan = Scan {
            span: Span {
                process: self.process,
                invoked_ns,
                returned_ns: clock.now_ns(),
            },
            partition: self.partition,
            node: crate::history::NODE_UNKNOWN,
            log_start,
            end,
        };
        Ok((scan, records))
    }
}
