//! `GET /api/v1/tenants` and `/api/v1/tenants/{tenant}`: whose topics there are, what they may use and what they use.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use highwater_catalog::{Catalog, Limit, Quota, Tenant};
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::Wanted;
use super::kept::KEPT_MAX;
use super::{Console, Desk, answer};
use crate::quotas::{Usage, Used};
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

/// What a tenant uses in the whole cluster, and the first of its clients.
#[derive(Debug)]
pub(super) struct TenantUse {
    used: Used,
    clients_in_all: usize,
    /// By name.
    clients: Vec<(String, Used)>,
}

impl TenantUse {
    fn of(tenant: &str, mut usage: Usage) -> TenantUse {
        let clients = usage.clients.remove(tenant).unwrap_or_default();
        TenantUse {
            used: usage.tenants.get(tenant).copied().unwrap_or_default(),
            clients_in_all: clients.len(),
            clients: clients.into_iter().take(CLIENTS_SHOWN).collect(),
        }
    }
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
        let told = self.use_of(name).await?;
        let clients: Vec<Value> = told
            .clients
            .iter()
            .map(|(client, used)| json!({ "client": client, "uses": uses(&tenant.client_quota(client), used, None) }))
            .collect();
        Ok(json!({
            "node": self.context.node,
            "tenant": row,
            "uses": uses(&tenant.quota, &told.used, Some(&row)),
            "clients_in_all": told.clients_in_all,
            "clients": clients,
        }))
    }

    /// What a tenant used a second ago at most; all nodes are asked for it.
    async fn use_of(&self, tenant: &str) -> Result<Arc<TenantUse>, Problem> {
        let (context, name) = (self.context.clone(), tenant.to_owned());
        let asking = async move {
            let usage = context.quotas.usage_of(&context.link, &name).await;
            Some(TenantUse::of(&name, usage))
        };
        let told = self.uses.get(tenant.to_owned(), asking).await;
        told.ok_or_else(|| Problem::Unavailable {
            why: format!("the use of more than {KEPT_MAX} tenants was asked for within a second"),
            hint: None,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_tenants_use_its_first_clients_are_kept_and_all_are_counted() {
        let requests = |requests| Used {
            requests,
            ..Used::default()
        };
        let clients = (0..CLIENTS_SHOWN + 3).map(|number| (format!("{number:04}"), requests(number as u64)));
        let usage = Usage {
            tenants: BTreeMap::from([("shop".to_owned(), requests(9)), ("bank".to_owned(), requests(7))]),
            clients: BTreeMap::from([("shop".to_owned(), clients.collect())]),
        };
        let told = TenantUse::of("shop", usage.clone());
        assert_eq!((told.used.requests, told.clients_in_all), (9, CLIENTS_SHOWN + 3));
        assert_eq!(told.clients.len(), CLIENTS_SHOWN);
        assert_eq!(told.clients[1], ("0001".to_owned(), requests(1)));
        let other = TenantUse::of("bank", usage);
        assert_eq!((other.used.requests, other.clients.len()), (7, 0));
    }
}
