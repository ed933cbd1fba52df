//! `GET /api/v1/groups` and `/api/v1/groups/{tenant}/{topic}/{group}`: consumer groups, how far they are, and who is in them.
//!
//! Partitions keep the offsets of their groups, so this node knows those of partitions that have a replica here, and says of how many it does
//! not. Members are known to the node that coordinates the group; the others know who has claimed each partition.
//!
//! There may be very many groups, and looking through them copies them. So that is done once a second at most ([`super::kept`]), on a thread
//! that may block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use highwater_catalog::Catalog;
use highwater_partition::log::{GroupId, GroupState};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::answer::Wanted;
use super::{Console, Desk, answer};
use crate::coordinator::MemberView;
use crate::replicas::CATALOG_GROUP;
use crate::services::Context;
use crate::status::Problem;

/// How long to wait for the members of a group that is coordinated here.
const MEMBERS_PATIENCE: Duration = Duration::from_secs(1);

/// A group on a topic: tenant, topic, group.
type Key = (String, String, String);

/// All groups of partitions that have a replica here.
pub(super) type Groups = BTreeMap<Key, Vec<Part>>;

/// What a group has of a partition.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Part {
    partition: u32,
    /// Who claimed it last.
    member: String,
    /// The next offset to consume, if one was committed.
    offset: Option<u64>,
    lag_records: u64,
    /// When it last claimed or committed.
    used_ms: u64,
}

pub(super) async fn list(State(console): Desk, RawQuery(query): RawQuery) -> Response {
    answer::answer(console.groups(query.as_deref()).await)
}

pub(super) async fn one(State(console): Desk, Path(key): Path<(String, String, String)>) -> Response {
    answer::answer(console.group(key).await)
}

impl Console {
    async fn groups(&self, query: Option<&str>) -> Result<Value, Problem> {
        let wanted = Wanted::read(query)?;
        let groups = self.known_groups().await?;
        let found = groups
            .iter()
            .filter(|((tenant, topic, group), _)| wanted.matches(&format!("{tenant}/{topic} {group}")));
        let page = wanted.cut(found.collect());
        let rows = page.map(|(key, parts)| self.row(key, parts));
        Ok(json!({ "node": self.context.node, "groups": rows }))
    }

    async fn group(&self, key: Key) -> Result<Value, Problem> {
        let groups = self.known_groups().await?;
        let parts = groups.get(&key).ok_or_else(|| Problem::Invalid {
            field: "group",
            why: format!(
                "node {} knows no group `{}` on topic `{}/{}`",
                self.context.node, key.2, key.0, key.1
            ),
        })?;
        let members = match self.home(&key) {
            Some(home) => self.context.coordinator.members(home, &key.2, MEMBERS_PATIENCE).await,
            None => Vec::new(),
        };
        let mut told = self.row(&key, parts);
        told["node"] = json!(self.context.node);
        told["parts"] = json!(parts);
        told["members"] = members.iter().map(member).collect();
        Ok(told)
    }

    /// The groups as they were a second ago at most.
    async fn known_groups(&self) -> Result<Arc<Groups>, Problem> {
        let context = self.context.clone();
        let looking = async move { spawn_blocking(move || groups_of(&context)).await.ok() };
        let groups = self.groups_here.get((), looking).await;
        groups.ok_or_else(|| Problem::Unavailable {
            why: format!("node {} cannot tell its groups at present", self.context.node),
            hint: None,
        })
    }

    fn row(&self, key: &Key, parts: &[Part]) -> Value {
        let (tenant, topic, group) = key;
        let partitions = |catalog: &Catalog| catalog.topic(tenant, topic).map_or(0, |topic| topic.partitions.len());
        let (here, all) = self.context.host.read(|catalog| {
            let placed = catalog
                .topic(tenant, topic)
                .into_iter()
                .flat_map(|topic| &topic.partitions);
            let here = placed.filter(|partition| self.context.registry.hosted(GroupId(partition.group_id)).is_some());
            (here.count(), partitions(catalog))
        });
        let coordinator = self.home(key).and_then(|home| self.context.leaders.leader(home));
        let mut members: Vec<&str> = parts.iter().map(|part| part.member.as_str()).collect();
        members.retain(|member| !member.is_empty());
        members.sort_unstable();
        members.dedup();
        json!({
            "tenant": tenant,
            "topic": topic,
            "group": group,
            "lag_records": parts.iter().map(|part| part.lag_records).sum::<u64>(),
            "used_ms": parts.iter().map(|part| part.used_ms).max(),
            "claims": parts.len(),
            "members_seen": members.len(),
            "partitions": all,
            "partitions_elsewhere": all - here,
            "coordinator": coordinator.map(|leader| leader.node),
        })
    }

    /// The Raft group of the partition whose leader coordinates a group.
    fn home(&self, (tenant, topic, _): &Key) -> Option<GroupId> {
        self.context.host.read(|catalog| {
            let first = catalog.topic(tenant, topic)?.partitions.first()?;
            Some(GroupId(first.group_id))
        })
    }
}

/// Blocks for as long as there is much to copy.
fn groups_of(context: &Context) -> Groups {
    let mut groups = Groups::new();
    for hosted in context.registry.all() {
        if hosted.group_id == CATALOG_GROUP {
            continue;
        }
        let kept = hosted.groups();
        let place = |catalog: &Catalog| {
            let (topic, partition) = catalog.partition_of_group(hosted.group_id.0)?;
            Some((topic.tenant.clone(), topic.name.clone(), partition.partition))
        };
        let Some((tenant, topic, partition)) = context.host.read(place) else {
            continue;
        };
        let watermark = hosted.status().watermark;
        for (group, state) in kept {
            let group = String::from_utf8_lossy(&group).into_owned();
            let part = part(partition, &state, (watermark.log_start, watermark.high_watermark));
            groups
                .entry((tenant.clone(), topic.clone(), group))
                .or_default()
                .push(part);
        }
    }
    groups
        .values_mut()
        .for_each(|parts| parts.sort_by_key(|part| part.partition));
    groups
}

fn part(partition: u32, state: &GroupState, (log_start, high_watermark): (u64, u64)) -> Part {
    Part {
        partition,
        member: String::from_utf8_lossy(&state.member).into_owned(),
        offset: state.offset,
        lag_records: high_watermark.saturating_sub(state.offset.unwrap_or(0).max(log_start)),
        used_ms: state.append_time_ms,
    }
}

fn member(member: &MemberView) -> Value {
    json!({
        "member": member.member,
        "client": member.client,
        "assigned": member.assigned,
        "held": member.held,
        "silent_ms": member.silence.as_millis() as u64,
    })
}
