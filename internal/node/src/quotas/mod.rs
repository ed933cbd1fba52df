//! Quotas at work: what tenants and their clients use on this node, and holding back what is too much.
//!
//! How much each may use stands in the catalog ([`highwater_catalog::Quota`]). Here every tenant and client that has come has an account
//! ([`account`]) with a meter for each rate ([`meter`]) and a count of what it holds. Whoever makes a call pays from two accounts, its own
//! and its tenant's ([`Payers`]). What is a little too much is delayed; what would have to wait longer than [`meter::DELAY_MAX`] or, on a
//! stream, [`meter::STREAM_DELAY_MAX`], is refused with the time after which it is worth another try.
//!
//! Quotas are for the whole cluster. Nodes tell each other once a second what is used of those that are limited ([`exchange`]), and each
//! gives its share ([`sharing`]). So a quota can be exceeded for some seconds after a change; nothing that could lose data hangs on it.
//!
//! Invariants:
//! * An account that somebody holds is the one in the table: there are never two of one owner in use.
//! * Nothing is counted twice: what was refused is given back.
//!
//! Deliberately absent: quotas by address, by topic and by record, and saving anything up over a restart.

mod account;
mod exchange;
mod groups;
mod meter;
mod metrics;
mod payers;
mod sharing;
mod stock;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_catalog::{Catalog, Limit, Quota, Tenant};
use highwater_partition::log::GroupId;
use tokio::time::Instant;

pub(crate) use account::Account;
pub(crate) use exchange::{Usage, Used};
pub(crate) use groups::NewGroup;
pub(crate) use meter::DELAY_MAX;
pub(crate) use payers::{ConnectionShare, OverQuota, Payers, StreamShare};

use crate::catalog::CatalogHost;
use crate::identity::Identity;
use crate::replicas::{Hosted, Registry};
use account::{Elsewhere, Owner};

/// How many accounts are kept at most. A client that comes when there are so many in use has none, and only its tenant pays.
const ACCOUNTS_MAX: usize = 65_536;

/// The accounts of a node.
pub(crate) struct Quotas {
    own: String,
    host: Arc<CatalogHost>,
    registry: Arc<Registry>,
    accounts: Mutex<HashMap<Owner, Arc<Account>>>,
    /// What the other nodes have said last.
    elsewhere: Mutex<BTreeMap<String, (Instant, Usage)>>,
    /// The bytes of a tenant's partitions that are led here, as they were counted last.
    stored: Mutex<BTreeMap<String, (Instant, u64)>>,
    /// Tenants that have stored as much as they may.
    full: Mutex<BTreeSet<String>>,
    new_groups: groups::Coming,
    stock: stock::Stock,
}

impl Quotas {
    pub(crate) fn new(own: &str, host: Arc<CatalogHost>, registry: Arc<Registry>) -> Arc<Quotas> {
        Arc::new(Quotas {
            own: own.to_owned(),
            host,
            registry,
            accounts: Mutex::default(),
            elsewhere: Mutex::default(),
            stored: Mutex::default(),
            full: Mutex::default(),
            new_groups: groups::Coming::default(),
            stock: stock::Stock::default(),
        })
    }

    /// Who pays for what the caller uses. Nodes pay nothing.
    pub(crate) fn payers(&self, identity: &Identity) -> Payers {
        let Identity::Client { tenant, name, .. } = identity else {
            return Payers::default();
        };
        let client = Owner {
            tenant: tenant.clone(),
            client: Some(name.clone()),
        };
        let accounts = [Some(self.tenant(tenant)), self.account(client)];
        Payers::new(accounts.into_iter().flatten())
    }

    /// The account of a tenant: tenants are few, so it is there in any case.
    pub(crate) fn tenant(&self, tenant: &str) -> Arc<Account> {
        let owner = Owner {
            tenant: tenant.to_owned(),
            client: None,
        };
        let account = self.account(owner.clone());
        account.unwrap_or_else(|| Arc::new(Account::new(owner, Instant::now())))
    }

    fn account(&self, owner: Owner) -> Option<Arc<Account>> {
        if let Some(known) = self.accounts().get(&owner) {
            return Some(known.clone());
        }
        // Opened without the lock, because it looks at the catalog.
        let account = Arc::new(Account::new(owner.clone(), Instant::now()));
        let elsewhere = self.elsewhere_of(&owner);
        self.host.read(|catalog| {
            let leaders = self.leaders_here(catalog, &account.owner.tenant);
            self.limit(catalog, &account, &elsewhere, leaders);
        });
        let mut accounts = self.accounts();
        if accounts.len() >= ACCOUNTS_MAX && owner.client.is_some() {
            return None;
        }
        Some(accounts.entry(owner).or_insert(account).clone())
    }

    /// The replicas here of a tenant's partitions.
    fn hosted_of(&self, tenant: &str) -> Vec<Arc<Hosted>> {
        let groups: Vec<u64> = self.host.read(|catalog| {
            let partitions = catalog.topics(tenant).flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.group_id).collect()
        });
        let groups = groups.into_iter().map(GroupId);
        groups.filter_map(|group| self.registry.hosted(group)).collect()
    }

    /// What counts for a tenant, or one of its clients, on this node.
    #[cfg(test)]
    pub(crate) fn in_force(&self, tenant: &str, client: Option<&str>) -> Quota {
        let owner = Owner {
            tenant: tenant.to_owned(),
            client: client.map(str::to_owned),
        };
        self.account(owner).map(|account| account.quota()).unwrap_or_default()
    }

    /// What this node gives of a tenant's quota for producing, bytes a second.
    #[cfg(test)]
    pub(crate) fn produce_rate(&self, tenant: &str) -> Option<u64> {
        self.tenant(tenant).produce.rate()
    }

    /// Takes over the limits of an account as they are now; `leaders` is as of [`Quotas::leaders_here`].
    fn limit(&self, catalog: &Catalog, account: &Account, elsewhere: &Elsewhere, leaders: Option<f64>) {
        let Owner { tenant, client } = &account.owner;
        let known = catalog.access().tenants().get(tenant);
        let quota = match (known, client) {
            (Some(known), Some(client)) => known.client_quota(client),
            (Some(known), None) => known.quota.clone(),
            (None, _) => Quota::new(),
        };
        let even = 1.0 / catalog.members().count().max(1) as f64;
        account.limit(&quota, elsewhere, leaders.unwrap_or(even), even, Instant::now());
        let is_full = client.is_none() && lock(&self.full).contains(tenant);
        account.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Which part of a tenant's partitions is led here; None if it has none, or no quotas.
    fn leaders_here(&self, catalog: &Catalog, tenant: &str) -> Option<f64> {
        catalog.access().tenants().get(tenant).filter(|it| has_limits(it))?;
        let (mut all, mut here) = (0_u32, 0_u32);
        for partition in catalog.topics(tenant).flat_map(|topic| &topic.partitions) {
            let hosted = self.registry.hosted(GroupId(partition.group_id));
            all += 1;
            here += u32::from(hosted.is_some_and(|hosted| hosted.led_term().is_some()));
        }
        (all > 0).then(|| f64::from(here) / f64::from(all))
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Owner, Arc<Account>>> {
        lock(&self.accounts)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Quotas")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether anything that nodes have to know of each other is limited.
fn has_limits(tenant: &Tenant) -> bool {
    let counted_by_catalog = [Limit::Topics, Limit::Partitions];
    !tenant.client_quotas.is_empty() || tenant.quota.keys().any(|limit| !counted_by_catalog.contains(limit))
}
