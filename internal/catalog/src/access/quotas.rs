//! Quotas: how much a tenant may use, in all and each of its clients, so that one cannot starve the others.
//!
//! A limit that is not set does not exist; what the whole cluster can hold is bounded by [`limits`](crate::limits) anyway. What is kept
//! here are numbers. Topics and partitions are counted by the catalog itself, which refuses what would be too much; everything else is
//! measured, and held back, by the nodes. A limit below what is in use takes nothing away: it only refuses more.
//!
//! Whoever makes a call pays for it: bytes, requests, connections and streams are those of the caller's tenant. Topics, partitions, groups
//! and stored bytes are those of the tenant that they belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::{Access, Tenant};
use crate::catalog::Catalog;
use crate::checks;
use crate::limits::{CLIENT_QUOTAS_MAX, ID_MAX};
use crate::names;
use crate::reply::{Refusal, Reply};

/// For each client that has no quota of its own.
pub const EACH_CLIENT: &str = "*";

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Bytes of batches taken in, per second.
    ProduceBytesPerSecond,
    /// Bytes of batches given out, per second.
    ConsumeBytesPerSecond,
    /// Calls begun, and batches on streams, per second.
    RequestsPerSecond,
    /// Connections at the same time.
    Connections,
    /// Calls at the same time, those that last among them.
    Streams,
    /// Topics that there are.
    Topics,
    /// Partitions of all topics together.
    Partitions,
    /// Consumer groups that keep offsets.
    Groups,
    /// Bytes of the logs of all partitions, one replica of each.
    StoredBytes,
}

impl Limit {
    /// All of them, in the order in which people are shown them.
    pub const ALL: [Limit; 9] = [
        Limit::ProduceBytesPerSecond,
        Limit::ConsumeBytesPerSecond,
        Limit::RequestsPerSecond,
        Limit::Connections,
        Limit::Streams,
        Limit::Topics,
        Limit::Partitions,
        Limit::Groups,
        Limit::StoredBytes,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::ProduceBytesPerSecond => "produce_bytes_per_second",
            Limit::ConsumeBytesPerSecond => "consume_bytes_per_second",
            Limit::RequestsPerSecond => "requests_per_second",
            Limit::Connections => "connections",
            Limit::Streams => "streams",
            Limit::Topics => "topics",
            Limit::Partitions => "partitions",
            Limit::Groups => "groups",
            Limit::StoredBytes => "stored_bytes",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Limit> {
        Limit::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// Whether it is of something that a single client uses. The rest belongs to tenants.
    #[must_use]
    pub fn is_for_clients(self) -> bool {
        self.is_rate() || matches!(self, Limit::Connections | Limit::Streams)
    }

    /// Whether it is so much in a second. At a rate of nothing nobody could ever be told when to come back, so there is none.
    #[must_use]
    pub fn is_rate(self) -> bool {
        matches!(
            self,
            Limit::ProduceBytesPerSecond | Limit::ConsumeBytesPerSecond | Limit::RequestsPerSecond
        )
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The limits of one tenant or client; what is not in it is not limited.
pub type Quota = BTreeMap<Limit, u64>;

/// What changes of a quota; what is named in neither stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaChange {
    /// Limits that count from now on.
    #[serde(default, skip_serializing_if = "Quota::is_empty")]
    pub set: Quota,
    /// Limits that count no longer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clear: BTreeSet<Limit>,
}

impl Tenant {
    /// What a client of the tenant may use: by its own quota, and else by that for each client.
    #[must_use]
    pub fn client_quota(&self, client: &str) -> Quota {
        let each = self.client_quotas.get(EACH_CLIENT);
        let mut quota = each.cloned().unwrap_or_default();
        quota.extend(self.client_quotas.get(client).into_iter().flatten());
        quota
    }

    /// Whether everything about its quotas can be.
    pub(super) fn check_quotas(&self) -> Result<(), Refusal> {
        check_quota(&self.quota, false)?;
        if self.client_quotas.len() > CLIENT_QUOTAS_MAX {
            return Err(Refusal::PolicyTooLarge {
                what: "clients with quotas in one tenant".to_owned(),
                limit: CLIENT_QUOTAS_MAX,
            });
        }
        for (client, quota) in &self.client_quotas {
            check_client(client)?;
            check_quota(quota, true)?;
        }
        Ok(())
    }
}

impl Access {
    /// The limit of a tenant; None: it has none.
    #[must_use]
    pub fn tenant_limit(&self, tenant: &str, limit: Limit) -> Option<u64> {
        self.tenants.get(tenant)?.quota.get(&limit).copied()
    }
}

impl Catalog {
    pub(crate) fn change_quota(
        &mut self,
        index: u64,
        tenant: &str,
        client: Option<&str>,
        change: &QuotaChange,
    ) -> Result<Reply, Refusal> {
        self.require_access()?;
        let mut access = Access::clone(&self.state.access);
        let Some(of_tenant) = access.tenants.get_mut(tenant) else {
            return Err(Refusal::TenantNotFound {
                tenant: tenant.to_owned(),
            });
        };
        let quota = match client {
            None => &mut of_tenant.quota,
            Some(client) => of_tenant.client_quotas.entry(client.to_owned()).or_default(),
        };
        quota.retain(|limit, _| !change.clear.contains(limit));
        quota.extend(&change.set);
        // An entry without limits says nothing.
        of_tenant.client_quotas.retain(|_, quota| !quota.is_empty());
        of_tenant.check_quotas()?;
        self.put_access(index, access)
    }

    /// Whether a tenant that owns `topics` more, with `partitions` more in all, stays within its quota.
    pub(crate) fn check_tenant_quota(&self, tenant: &str, topics: u64, partitions: u64) -> Result<(), Refusal> {
        let within = |limit: Limit, have: u64, more: u64| match self.state.access.tenant_limit(tenant, limit) {
            Some(most) if more > 0 && have + more > most => Err(Refusal::OverQuota {
                tenant: tenant.to_owned(),
                of: limit,
                limit: most,
            }),
            _ => Ok(()),
        };
        let (have_topics, have_partitions) = self.owned(tenant);
        within(Limit::Topics, have_topics, topics)?;
        within(Limit::Partitions, have_partitions, partitions)
    }

    /// How many topics a tenant owns, and how many partitions they have together.
    #[must_use]
    pub fn owned(&self, tenant: &str) -> (u64, u64) {
        let counted = self.topics(tenant).map(|topic| topic.partitions.len() as u64);
        counted.fold((0, 0), |(topics, partitions), more| (topics + 1, partitions + more))
    }
}

fn check_client(client: &str) -> Result<(), Refusal> {
    match client {
        EACH_CLIENT => Ok(()),
        client => names::validate("client", client).map_err(Refusal::from),
    }
}

fn check_quota(quota: &Quota, is_of_client: bool) -> Result<(), Refusal> {
    for (limit, value) in quota {
        if is_of_client && !limit.is_for_clients() {
            let why = "belongs to the tenant and cannot be limited for one of its clients";
            return Err(checks::invalid(limit.name(), why.to_owned()));
        }
        let least = u64::from(limit.is_rate());
        checks::within(limit.name(), *value, &(least..=ID_MAX))?;
    }
    Ok(())
}
