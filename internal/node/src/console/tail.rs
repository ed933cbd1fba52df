//! `GET /api/v1/tail`: records of a topic as they come, as server-sent events.
//!
//! Records are tenants' data, so this is off unless the node's settings turn it on. On loopback whoever comes may then look, except at what
//! belongs to the cluster itself; elsewhere an operator must be one who may consume the topic, and is asked again each second. It reads the
//! replicas that this node has, as a consumer would: committed records, from whatever replica is here.
//!
//! A tail is for looking, not for consuming: it goes slowly, and when it is far behind it leaves records out and says how many. With what
//! it shows, and now and then while it only looks through what does not fit its filter, it tells where it stands as the event's id, so that a
//! browser whose connection ended goes on there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::answer::{self, limited};
use super::record::{Cut, Opened, open};
use super::{Console, Desk, TAILS_MAX};
use crate::access::{Action, Permit, Principal, Resource, TopicName};
use crate::admin::{Caller, Who};
use crate::gateway::Query;
use crate::identity::Identity;
use crate::replicas::{self, Place};
use crate::status::Problem;

/// How long a tail goes on; then the browser comes again.
const TAIL_TIME_MAX: Duration = Duration::from_secs(300);
/// Beyond that its connection is cut off.
const CONNECTION_MARGIN: Duration = Duration::from_secs(10);
/// Partitions that are followed at the same time, the first ones.
const PARTITIONS_MAX: usize = 64;
/// The furthest back that a tail begins, records of each partition.
const BACK_MAX: u64 = 500;
/// Between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Read of a partition in a round, bytes; a single larger batch is read whole.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Shown of a partition in a round, records.
const ROUND_RECORDS_MAX: usize = 100;
/// How far behind the end a tail may be before it leaves records out; one that filters may be further.
const BEHIND_MAX: u64 = 2 * BACK_MAX;
const BEHIND_FILTERING_MAX: u64 = 100_000;
/// How often a tail that gets on but shows nothing tells where it stands.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is asked whether the viewer still may.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn tail(
    State(console): Desk,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let resumed = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .map(read_positions);
    match Tail::begin(
        &console,
        &caller,
        query.as_deref().unwrap_or_default(),
        resumed.unwrap_or_default(),
    ) {
        Ok(tail) => {
            caller.stay(TAIL_TIME_MAX + CONNECTION_MARGIN);
            Sse::new(events(tail)).keep_alive(KeepAlive::default()).into_response()
        }
        Err(problem) => answer::problem(&problem),
    }
}

fn events(tail: Tail) -> impl Stream<Item = Result<Event, Infallible>> {
    let rounds = stream::unfold(Some(tail), |tail| async move {
        let mut tail = tail?;
        let events = tail.next().await?;
        Some((events, Some(tail)))
    });
    rounds.flat_map(|events| stream::iter(events.into_iter().map(Ok)))
}

/// A tail that goes on.
struct Tail {
    console: Arc<Console>,
    who: Who,
    topic: TopicName,
    permit: Permit,
    contains: String,
    /// Where it stands in each partition.
    positions: BTreeMap<u32, u64>,
    /// Where it stood when the browser was last told.
    told: BTreeMap<u32, u64>,
    tell_at: Instant,
    is_begun: bool,
    end: Instant,
    ask_at: Instant,
    _room: OwnedSemaphorePermit,
}

impl Console {
    /// The permit to see records of a topic.
    fn permit(&self, who: &Who, topic: &TopicName) -> Result<Permit, Problem> {
        if !self.records {
            let why = "records are not shown on this node; the setting `console_records` (--console-records) says whether they are";
            return Err(Problem::Denied(why.to_owned()));
        }
        let permit = match who {
            Who::Proven(principal) => {
                let resource = Resource::Topic(topic.clone());
                self.context.authority.authorize(principal, Action::Consume, resource)
            }
            Who::Local => Permit::for_console(&self.node_itself(), topic.clone()),
            Who::Stranger => return Err(Problem::Denied("whoever proves nothing may see no records".to_owned())),
        };
        Ok(permit?)
    }

    fn node_itself(&self) -> Principal {
        Principal::new(&Identity::Node {
            cluster: self.context.cluster.clone(),
            name: self.context.node.clone(),
        })
    }
}

impl Tail {
    fn begin(
        console: &Arc<Console>,
        caller: &Caller,
        query: &str,
        resumed: BTreeMap<u32, u64>,
    ) -> Result<Tail, Problem> {
        let query = Query::read(query, &["tenant", "topic", "partition", "back", "contains"])?;
        let name = format!(
            "{}/{}",
            query.text("tenant").unwrap_or_default(),
            query.text("topic").unwrap_or_default()
        );
        let topic = TopicName::parse(&name, "")?;
        let permit = console.permit(&caller.who, &topic)?;
        let only = query.text("partition").filter(|text| !text.is_empty());
        let only = only
            .map(|_| query.limited("partition", 0, u64::from(u32::MAX)))
            .transpose()?;
        let back = query.limited("back", 0, BACK_MAX)?;
        let room = console.tails.clone().try_acquire_owned();
        let room =
            room.map_err(|_| Problem::Overloaded(format!("{TAILS_MAX} tails are followed on this node already")))?;
        let now = Instant::now();
        let mut tail = Tail {
            console: console.clone(),
            who: caller.who.clone(),
            contains: limited("contains", query.text("contains").unwrap_or_default())?.to_owned(),
            positions: BTreeMap::new(),
            told: BTreeMap::new(),
            tell_at: now,
            is_begun: false,
            end: now + TAIL_TIME_MAX,
            ask_at: now + ASK_INTERVAL,
            _room: room,
            topic,
            permit,
        };
        tail.find_positions(only.map(|only| only as u32), back, &resumed)?;
        tracing::info!(topic = %tail.topic, "the console shows records");
        Ok(tail)
    }

    fn find_positions(&mut self, only: Option<u32>, back: u64, resumed: &BTreeMap<u32, u64>) -> Result<(), Problem> {
        let context = &self.console.context;
        let count = context.host.read(|catalog| {
            let found = catalog.topic(&self.topic.tenant, &self.topic.topic);
            found.map(|topic| topic.partitions.len() as u32)
        });
        let count = count.ok_or_else(|| Problem::TopicNotFound {
            topic: self.topic.to_string(),
        })?;
        for partition in (0..count).filter(|partition| only.is_none_or(|only| only == *partition)) {
            if self.positions.len() >= PARTITIONS_MAX {
                break;
            }
            let Ok(Some(opened)) = self.open(partition) else {
                continue;
            };
            let watermark = opened.partition().status().watermark;
            let from_end = watermark.high_watermark.saturating_sub(back).max(watermark.log_start);
            self.positions
                .insert(partition, resumed.get(&partition).copied().unwrap_or(from_end));
        }
        if self.positions.is_empty() {
            let node = &context.node;
            let why = format!(
                "node {node} has no replica of what is asked for of topic `{}`; open the console of a node that has",
                self.topic
            );
            return Err(Problem::Unavailable { why, hint: None });
        }
        Ok(())
    }

    /// The replica of a partition here, if there is one.
    fn open(&self, partition: u32) -> Result<Option<replicas::Opened>, Problem> {
        let context = &self.console.context;
        let place = context.host.read(|catalog| {
            context
                .registry
                .open(&self.permit, Action::Consume, catalog, None, partition)
        })?;
        Ok(match place {
            Place::Here(opened) => Some(opened),
            Place::Elsewhere { .. } => None,
        })
    }

    /// The events of the next round that has something to tell; None at the end.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            if self.is_over() {
                return None;
            }
            let mut events = Vec::new();
            if !self.is_begun {
                self.is_begun = true;
                events.push(self.begun());
            } else {
                sleep(ROUND_PAUSE).await;
            }
            let partitions: Vec<u32> = self.positions.keys().copied().collect();
            for partition in partitions {
                if let Err(problem) = self.round(partition, &mut events).await {
                    // Nothing is passed over in silence: it ends there, and says why.
                    self.positions.remove(&partition);
                    let told = json!({ "partition": partition, "message": problem.to_string() });
                    events.push(event("trouble", &told));
                }
            }
            if !events.is_empty() || self.is_position_due() {
                events.push(self.position());
                return Some(events);
            }
        }
    }

    /// Whether the browser is to be told how far this got though there is nothing to show: else it would begin again where it last saw something,
    /// and be told that records were left out that were all looked at.
    fn is_position_due(&self) -> bool {
        Instant::now() >= self.tell_at && self.positions != self.told
    }

    fn position(&mut self) -> Event {
        self.told.clone_from(&self.positions);
        self.tell_at = Instant::now() + POSITION_INTERVAL;
        Event::default().event("position").id(self.id()).data("{}")
    }

    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.ask_at;
        if is_due {
            self.ask_at = now + ASK_INTERVAL;
        }
        let may_look = !is_due || self.may_still_look();
        now >= self.end || self.positions.is_empty() || self.console.context.stopping.is_cancelled() || !may_look
    }

    fn may_still_look(&self) -> bool {
        let Who::Proven(principal) = &self.who else {
            return true;
        };
        let context = &self.console.context;
        let topic = Resource::Topic(self.topic.clone());
        let may = |action, resource: &Resource| context.authority.check(principal, action, resource).is_ok();
        context.currency.check().is_ok() && may(Action::Admin, &Resource::Cluster) && may(Action::Consume, &topic)
    }

    /// What is new in a partition.
    async fn round(&mut self, partition: u32, events: &mut Vec<Event>) -> Result<(), Problem> {
        let position = self.positions.get(&partition).copied().unwrap_or_default();
        let Some(opened) = self.open(partition)? else {
            let why = format!("the replica of partition {partition} has left this node");
            return Err(Problem::Unavailable { why, hint: None });
        };
        let watermark = opened.partition().status().watermark;
        let behind_max = if self.contains.is_empty() {
            BEHIND_MAX
        } else {
            BEHIND_FILTERING_MAX
        };
        let earliest = watermark
            .high_watermark
            .saturating_sub(behind_max)
            .max(watermark.log_start);
        let offset = position.max(earliest);
        if offset > position {
            events.push(event(
                "skipped",
                &json!({ "partition": partition, "records": offset - position }),
            ));
        }
        let read = opened
            .partition()
            .read(offset, READ_BYTES_MAX)
            .await
            .map_err(Problem::from_read)?;
        let contains = self.contains.clone().into_bytes();
        let opening = spawn_blocking(move || {
            let cut = Cut {
                partition,
                offset,
                contains: &contains,
                records_max: ROUND_RECORDS_MAX,
            };
            open(read, &cut)
        });
        let Opened {
            records,
            next_offset,
            broken,
        } = opening.await.map_err(|error| Problem::Internal(error.to_string()))?;
        self.positions.insert(partition, next_offset);
        let told = broken
            .iter()
            .map(|why| event("broken", &json!({ "partition": partition, "message": why })));
        events.extend(told);
        if !records.is_empty() {
            events.push(event("records", &json!({ "records": records })));
        }
        Ok(())
    }

    fn begun(&self) -> Event {
        let partitions: Vec<u32> = self.positions.keys().copied().collect();
        let all = self.console.context.host.read(|catalog| {
            let topic = catalog.topic(&self.topic.tenant, &self.topic.topic);
            topic.map_or(0, |topic| topic.partitions.len())
        });
        let told = json!({ "node": self.console.context.node, "partitions": partitions, "partitions_in_all": all });
        event("begun", &told)
    }

    fn id(&self) -> String {
        let pairs = self
            .positions
            .iter()
            .map(|(partition, offset)| format!("{partition}:{offset}"));
        pairs.collect::<Vec<_>>().join(",")
    }
}

fn event(name: &str, data: &serde_json::Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// What a browser gives back of an id; what is no such thing is passed over.
fn read_positions(id: &str) -> BTreeMap<u32, u64> {
    let pairs = id.split(',').take(PARTITIONS_MAX).filter_map(|pair| {
        let (partition, offset) = pair.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_back_and_nonsense_is_passed_over() {
        assert_eq!(read_positions("0:7,3:19"), BTreeMap::from([(0, 7), (3, 19)]));
        assert_eq!(read_positions("x,1:y,:,2:3:4,5:6"), BTreeMap::from([(5, 6)]));
        let many: Vec<String> = (0..1_000).map(|partition| format!("{partition}:1")).collect();
        assert_eq!(read_positions(&many.join(",")).len(), PARTITIONS_MAX);
    }
}
