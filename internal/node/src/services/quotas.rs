//! What tenants and their clients may use, and what they use: told, and changed by operators.

use std::collections::{BTreeMap, BTreeSet};

use highwater_catalog::{Command, Limit, Quota, QuotaChange, Tenant};
use highwater_proto::v1;
use tokio::time::Instant;

use super::Context;
use super::tenants::check_not_system;
use crate::access::Principal;
use crate::quotas::{Usage, Used};
use crate::status::Problem;

impl Context {
    /// A tenant as all nodes together see it.
    pub(super) async fn describe_tenant(
        &self,
        tenant: &str,
        deadline: Instant,
    ) -> Result<v1::DescribeTenantResponse, Problem> {
        self.know_catalog(deadline).await?;
        let known = self.host.read(|catalog| {
            let known = catalog.access().tenants().get(tenant).cloned();
            known.map(|known| (known, catalog.owned(tenant)))
        });
        let (known, (topics, partitions)) = known.ok_or_else(|| Problem::TenantNotFound {
            tenant: tenant.to_owned(),
        })?;
        let usage = self.quotas.usage_of(&self.link, tenant).await;
        let used = usage.tenants.get(tenant).copied().unwrap_or_default();
        Ok(v1::DescribeTenantResponse {
            tenant: tenant.to_owned(),
            suspended: known.suspended,
            quota: Some(amounts(&known.quota)),
            used: Some(v1::Amounts {
                topics: Some(topics),
                partitions: Some(partitions),
                groups: Some(used.groups),
                stored_bytes: Some(used.stored_bytes),
                ..used_amounts(&used)
            }),
            clients: clients(&known, tenant, &usage),
        })
    }

    pub(super) async fn change_quota(
        &self,
        principal: &Principal,
        request: v1::ChangeQuotaRequest,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let change = QuotaChange {
            set: quota_of(&request.set.unwrap_or_default()),
            clear: cleared(&request.clear)?,
        };
        if let Some(both) = change.set.keys().find(|limit| change.clear.contains(limit)) {
            let why = format!("{both} cannot be set and cleared at once");
            return Err(Problem::Invalid { field: "clear", why });
        }
        check_not_system(&request.tenant)?;
        let command = Command::ChangeQuota {
            tenant: request.tenant,
            client: request.client,
            change,
        };
        self.change_tenant(principal, &command, deadline).await
    }
}

/// Those that use something, and those that have a quota of their own.
fn clients(known: &Tenant, tenant: &str, usage: &Usage) -> Vec<v1::ClientUse> {
    let nobody = BTreeMap::new();
    let using = usage.clients.get(tenant).unwrap_or(&nobody);
    let names: BTreeSet<&String> = known.client_quotas.keys().chain(using.keys()).collect();
    let described = names.into_iter().map(|client| v1::ClientUse {
        client: client.clone(),
        quota: Some(amounts(&known.client_quota(client))),
        used: using.get(client).map(used_amounts),
    });
    described.collect()
}

fn used_amounts(used: &Used) -> v1::Amounts {
    v1::Amounts {
        produce_bytes_per_second: Some(used.produce_bytes),
        consume_bytes_per_second: Some(used.consume_bytes),
        requests_per_second: Some(used.requests),
        connections: Some(used.connections),
        streams: Some(used.streams),
        ..v1::Amounts::default()
    }
}

fn amounts(quota: &Quota) -> v1::Amounts {
    let of = |limit: Limit| quota.get(&limit).copied();
    v1::Amounts {
        produce_bytes_per_second: of(Limit::ProduceBytesPerSecond),
        consume_bytes_per_second: of(Limit::ConsumeBytesPerSecond),
        requests_per_second: of(Limit::RequestsPerSecond),
        connections: of(Limit::Connections),
        streams: of(Limit::Streams),
        topics: of(Limit::Topics),
        partitions: of(Limit::Partitions),
        groups: of(Limit::Groups),
        stored_bytes: of(Limit::StoredBytes),
    }
}

pub(super) fn quota_of(amounts: &v1::Amounts) -> Quota {
    let of = |limit: Limit| match limit {
        Limit::ProduceBytesPerSecond => amounts.produce_bytes_per_second,
        Limit::ConsumeBytesPerSecond => amounts.consume_bytes_per_second,
        Limit::RequestsPerSecond => amounts.requests_per_second,
        Limit::Connections => amounts.connections,
        Limit::Streams => amounts.streams,
        Limit::Topics => amounts.topics,
        Limit::Partitions => amounts.partitions,
        Limit::Groups => amounts.groups,
        Limit::StoredBytes => amounts.stored_bytes,
    };
    let given = Limit::ALL.into_iter();
    given.filter_map(|limit| Some((limit, of(limit)?))).collect()
}

fn cleared(names: &[String]) -> Result<BTreeSet<Limit>, Problem> {
    let known = names.iter().map(|name| {
        Limit::from_name(name).ok_or_else(|| Problem::Invalid {
            field: "clear",
            why: format!("there is no limit {name:?}"),
        })
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_limit_has_its_place_on_the_wire_in_both_directions() {
        for (value, limit) in (1..).zip(Limit::ALL) {
            let quota = Quota::from([(limit, value)]);
            assert_eq!(quota_of(&amounts(&quota)), quota, "{limit}");
            assert_eq!(cleared(&[limit.name().to_owned()]).unwrap(), BTreeSet::from([limit]));
        }
        assert!(cleared(&["everything".to_owned()]).is_err());
    }
}
