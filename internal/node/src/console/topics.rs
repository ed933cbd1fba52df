//! `GET /api/v1/topics` and `/api/v1/topics/{tenant}/{topic}`: what topics there are, and how their partitions and replicas are.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Wanted;
use super::picture::{PartitionPicture, Rates, TopicPicture, sum};
use super::sampler::Sample;
use super::{Console, Desk, answer};
use crate::status::Problem;

/// A topic in the list.
#[derive(Serialize)]
struct TopicRow<'a> {
    tenant: &'a str,
    name: &'a str,
    partitions: usize,
    replication: u32,
    /// That can be read.
    records: u64,
    /// Of all replicas together.
    stored_bytes: u64,
    /// The most that a replica lacks.
    lag_records: u64,
    leaderless: usize,
    incomplete: usize,
    damaged: usize,
    #[serde(flatten)]
    rates: Rates,
}

/// A partition in the list of its topic.
#[derive(Serialize)]
struct PartitionRow<'a> {
    #[serde(flatten)]
    partition: &'a PartitionPicture,
    #[serde(flatten)]
    rates: Rates,
}

pub(super) async fn list(State(console): Desk, RawQuery(query): RawQuery) -> Response {
    answer::answer(console.topics(query.as_deref()).await)
}

pub(super) async fn one(
    State(console): Desk,
    Path((tenant, topic)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    answer::answer(console.topic(&tenant, &topic, query.as_deref()).await)
}

impl Console {
    async fn topics(&self, query: Option<&str>) -> Result<Value, Problem> {
        let wanted = Wanted::read(query)?;
        let sample = self.sample().await?;
        let topics = sample.picture.topics.iter();
        let found: Vec<&TopicPicture> = topics
            .filter(|topic| wanted.matches(&format!("{}/{}", topic.tenant, topic.name)))
            .collect();
        let page = wanted.cut(found).map(|topic| row(&sample, topic));
        Ok(json!({ "node": sample.picture.by, "at_ms": sample.picture.at_ms, "topics": page }))
    }

    async fn topic(&self, tenant: &str, name: &str, query: Option<&str>) -> Result<Value, Problem> {
        let wanted = Wanted::read(query)?;
        let sample = self.sample().await?;
        let mut topics = sample.picture.topics.iter();
        let topic = topics.find(|topic| topic.tenant == tenant && topic.name == name);
        let topic = topic.ok_or_else(|| Problem::TopicNotFound {
            topic: format!("{tenant}/{name}"),
        })?;
        let found: Vec<&PartitionPicture> = topic
            .partitions
            .iter()
            .filter(|partition| wanted.search.is_empty() || partition.partition.to_string() == wanted.search)
            .collect();
        let page = wanted.cut(found).map(|partition| PartitionRow {
            partition,
            rates: sample.rates(tenant, name, partition.partition),
        });
        Ok(json!({
            "node": sample.picture.by,
            "at_ms": sample.picture.at_ms,
            "topic": row(&sample, topic),
            "retention_ms": topic.retention_ms,
            "retention_bytes": topic.retention_bytes,
            "partitions": page,
        }))
    }
}

fn row<'a>(sample: &Sample, topic: &'a TopicPicture) -> TopicRow<'a> {
    let count =
        |is_so: fn(&PartitionPicture) -> bool| topic.partitions.iter().filter(|partition| is_so(partition)).count();
    let replicas = || topic.partitions.iter().flat_map(|partition| &partition.replicas);
    let rates: Vec<Rates> = topic
        .partitions
        .iter()
        .map(|partition| sample.rates(&topic.tenant, &topic.name, partition.partition))
        .collect();
    TopicRow {
        tenant: &topic.tenant,
        name: &topic.name,
        partitions: topic.partitions.len(),
        replication: topic.replication,
        records: topic.partitions.iter().map(PartitionPicture::records).sum(),
        stored_bytes: replicas().map(|replica| replica.bytes).sum(),
        lag_records: replicas().filter_map(|replica| replica.lag_records).max().unwrap_or(0),
        leaderless: count(|partition| partition.leader.is_empty()),
        incomplete: count(|partition| !partition.is_complete()),
        damaged: count(|partition| partition.replicas.iter().any(|replica| replica.damaged_entries > 0)),
        rates: sum(rates.iter()),
    }
}
