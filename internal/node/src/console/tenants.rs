//! `GET /api/v1/tenants` and `/api/v1/tenants/{tenant}`: whose topics there are, what they may use and what they use.

use std::collections::BTreeMap;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use highwater_catalog::{Catalog, Limit, Quota, Tenant};
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Wanted;
use super::{Console, Desk, answer};
use crate::quotas::Used;
use crate::status::Problem;

/// Clients of a tenant that are shown, by name.
const CLIENTS_SHOWN: usize = 200;

/// A tenant in the list.
#[derive(Debug, Serialize)]
struct TenantRow {
    name: String,
    suspended: bool,
    topics: u64,
    partitions: u64,
    /// How many of its quotas are set.
    limits: usize,
}

pub(super) async fn list(State(console): Desk, RawQuery(query): RawQuery) -> Response {
    answer::answer(console.tenants(query.as_deref()))
}

pub(super) async fn one(State(console): Desk, Path(tenant): Path<String>) -> Response {
    answer::answer(console.tenant(&tenant).await)
}

impl Console {
    fn tenants(&self, query: Option<&str>) -> Result<Value, Problem> {
        let wanted = Wanted::read(query)?;
        let (is_set_up, mut rows) = self.context.host.read(|catalog| {
            let known = known(catalog).into_iter();
            let rows: Vec<TenantRow> = known.map(|(name, tenant)| row(catalog, name, &tenant)).collect();
            (catalog.access().is_set_up(), rows)
        });
        rows.retain(|row| wanted.matches(&row.name));
        Ok(json!({ "node": self.context.node, "has_policy": is_set_up, "tenants": wanted.cut(rows) }))
    }

    async fn tenant(&self, name: &str) -> Result<Value, Problem> {
        let known = self.context.host.read(|catalog| {
            let tenant = known(catalog).remove(name)?;
            Some((row(catalog, name.to_owned(), &tenant), tenant))
        });
        let (row, tenant) = known.ok_or_else(|| Problem::TenantNotFound {
            tenant: name.to_owned(),
        })?;
        let usage = self.context.quotas.usage_of(&self.context.link, name).await;
        let used = usage.tenants.get(name).copied().unwrap_or_default();
        let nobody = BTreeMap::new();
        let clients = usage.clients.get(name).unwrap_or(&nobody);
        let shown = clients.iter().take(CLIENTS_SHOWN);
        let shown: Vec<Value> = shown
            .map(|(client, used)| json!({ "client": client, "uses": uses(&tenant.client_quota(client), used, None) }))
            .collect();
        Ok(json!({
            "node": self.context.node,
            "tenant": row,
            "uses": uses(&tenant.quota, &used, Some(&row)),
            "clients_in_all": clients.len(),
            "clients": shown,
        }))
    }
}

/// All tenants; before there is a policy, those that own topics.
fn known(catalog: &Catalog) -> BTreeMap<String, Tenant> {
    let mut known = catalog.access().tenants().clone();
    for topic in catalog.all_topics() {
        known.entry(topic.tenant.clone()).or_default();
    }
    known
}

fn row(catalog: &Catalog, name: String, tenant: &Tenant) -> TenantRow {
    let (topics, partitions) = catalog.owned(&name);
    TenantRow {
        topics,
        partitions,
        suspended: tenant.suspended,
        limits: tenant.quota.len(),
        name,
    }
}

/// Each limit with what is used of it; `row`: of a tenant, which also owns things.
fn uses(quota: &Quota, used: &Used, row: Option<&TenantRow>) -> Vec<Value> {
    let uses = Limit::ALL.into_iter().filter_map(|limit| {
        let now = match limit {
            Limit::ProduceBytesPerSecond => used.produce_bytes,
            Limit::ConsumeBytesPerSecond => used.consume_bytes,
            Limit::RequestsPerSecond => used.requests,
            Limit::Connections => used.connections,
            Limit::Streams => used.streams,
            Limit::Topics => row?.topics,
            Limit::Partitions => row?.partitions,
            Limit::Groups => row.map(|_| used.groups)?,
            Limit::StoredBytes => row.map(|_| used.stored_bytes)?,
        };
        Some(json!({ "limit": limit.name(), "used": now, "most": quota.get(&limit) }))
    });
    uses.collect()
}
