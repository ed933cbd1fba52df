//! What the JSON gateway asks for: the calls of LogService, one answer each.

use std::sync::Arc;

use highwater_proto::v1;
use highwater_proto::v1::list_offsets_request::Position;
use tokio::time::{Instant, timeout_at};

use super::log::{Reader, find_offset};
use super::revocation::Grounds;
use super::{Context, Wanted};
use crate::access::{Action, Principal, Resource};
use crate::quotas::Payers;
use crate::replicas::Opened;
use crate::status::Problem;

/// A read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) start: Start,
    /// Of batches; a single larger one is given whole.
    pub(crate) bytes_max: u32,
    /// Until when to wait for records that are not there yet.
    pub(crate) wait_until: Instant,
    pub(crate) deadline: Instant,
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Earliest,
    Latest,
    Offset(u64),
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Where it begins. The first batch may begin below.
    pub(crate) offset: u64,
    pub(crate) response: v1::ConsumeResponse,
}

/// Why nothing was read.
#[derive(Debug)]
pub(crate) struct NotRead {
    pub(crate) problem: Problem,
    /// Where it was to begin, once that was known: whoever reads on elsewhere begins there.
    pub(crate) offset: Option<u64>,
}

/// Committed batches from the start on; none if there is none yet and none comes in time.
pub(crate) async fn fetch(
    context: &Arc<Context>,
    (principal, payers): (&Principal, &Payers),
    fetch: &Fetch<'_>,
) -> Result<Fetched, NotRead> {
    let (opened, offset, mut grounds) = begin(context, principal, fetch)
        .await
        .map_err(|problem| NotRead { problem, offset: None })?;
    let read = tokio::select! {
        biased;
        // Who waits for records must still be allowed to see them when they come.
        problem = grounds.lost() => Err(problem),
        read = read(context, opened, payers.clone(), (offset, fetch)) => read,
    };
    read.map(|response| Fetched { offset, response })
        .map_err(|problem| NotRead {
            problem,
            offset: Some(offset),
        })
}

/// The partition, the offset, and what the read stands on for as long as it waits.
async fn begin(
    context: &Arc<Context>,
    principal: &Principal,
    fetch: &Fetch<'_>,
) -> Result<(Opened, u64, Grounds), Problem> {
    let place = Wanted {
        topic: fetch.topic,
        topic_id: None,
        partition: fetch.partition,
    };
    let (opened, _) = context.open(principal, Action::Consume, &place, fetch.deadline).await?;
    let offset = start_offset(context, &opened, fetch).await?;
    let topic = Resource::Topic(context.topic_name(principal, fetch.topic)?);
    let grounds = Grounds::new(context.clone(), principal.clone(), vec![(Action::Consume, topic)]);
    Ok((opened, offset, grounds))
}

async fn read(
    context: &Arc<Context>,
    opened: Opened,
    payers: Payers,
    (offset, fetch): (u64, &Fetch<'_>),
) -> Result<v1::ConsumeResponse, Problem> {
    let wanted = v1::ConsumeRequest {
        offset,
        bytes_max: fetch.bytes_max,
        ..Default::default()
    };
    let mut reader = Reader::new(context.clone(), opened, payers, &wanted)?;
    // The first answer comes at once, the next one with the next commit.
    let response = reader.next().await?;
    if !response.batches.is_empty() || fetch.wait_until <= Instant::now() {
        return Ok(response);
    }
    timeout_at(fetch.wait_until, reader.next())
        .await
        .unwrap_or(Ok(response))
}

async fn start_offset(context: &Context, opened: &Opened, fetch: &Fetch<'_>) -> Result<u64, Problem> {
    let position = match fetch.start {
        Start::Offset(offset) => return Ok(offset),
        Start::Earliest => Position::Earliest(true),
        Start::Latest => Position::Latest(true),
    };
    let found = timeout_at(fetch.deadline, find_offset(context, opened, Some(position))).await;
    found.unwrap_or_else(|_| {
        Err(Problem::NoQuorum {
            what: opened.what.to_string(),
        })
    })
}

/// How many partitions a topic has that the caller may produce to.
pub(crate) async fn partition_count(
    context: &Context,
    principal: &Principal,
    topic: &str,
    deadline: Instant,
) -> Result<u32, Problem> {
    let permit = context.permit_topic(principal, Action::Produce, topic)?;
    let Some(name) = permit.topic(Action::Produce) else {
        return Err(Problem::Internal("a permit that is not for producing".to_owned()));
    };
    let count = || {
        context.host.read(|catalog| {
            let found = catalog.topic(&name.tenant, &name.topic);
            found.map(|topic| topic.partitions.len() as u32)
        })
    };
    if let Some(count) = count() {
        return Ok(count);
    }
    // It may have been created on another node a moment ago.
    context.know_catalog(deadline).await?;
    count().ok_or_else(|| Problem::TopicNotFound {
        topic: name.to_string(),
    })
}
