//! What nodes tell each other of the use of quotas, and what follows from it.
//!
//! Once a second each node looks what was used here since, and, as long as anything is limited anywhere, asks all others the same. Nodes
//! that do not answer count with their last answer for a while, and then not at all: a quota is about the living. The same question, about
//! one tenant, answers those who want to see it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use highwater_catalog::{Catalog, Limit};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::account::{Account, Elsewhere, Owner, Rates};
use super::{Quotas, has_limits};
use crate::link::Link;
use crate::peer_calls::{USAGE, decode_json, encode_json};

/// How often nodes look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long another node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// How long an answer counts.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// How long a count of stored bytes is good: files have to be asked for.
const COUNT_AGE_MAX: Duration = Duration::from_secs(3);
/// How many accounts an answer holds at most, those that use the most first.
const ANSWER_ACCOUNTS_MAX: usize = 4_096;
/// How many bytes these take at most, and the tenants whose partitions are counted as much again: together less than is read of an answer.
const ANSWER_BYTES_MAX: usize = 480 * 1024;
const _: () = assert!(2 * ANSWER_BYTES_MAX < crate::peer_calls::JSON_BYTES_MAX);
/// What one takes at most without its names.
const USED_BYTES_MAX: usize = 256;

/// Which accounts are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    /// Those with a quota.
    Limited,
    /// A tenant and its clients.
    Tenant(String),
}

/// What is used on one node, or on several together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// By tenant.
    pub(crate) tenants: BTreeMap<String, Used>,
    /// By tenant and client.
    pub(crate) clients: BTreeMap<String, BTreeMap<String, Used>>,
}

/// What one tenant or client uses. Rates are per second, lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Used {
    pub(crate) produce_bytes: u64,
    pub(crate) consume_bytes: u64,
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) streams: u64,
    /// Of the partitions that the node leads; only of tenants.
    pub(crate) stored_bytes: u64,
    /// That the node knows of; only of tenants.
    pub(crate) groups: u64,
}

impl Used {
    /// Together with what another node says.
    fn add(&mut self, other: &Used) {
        self.produce_bytes += other.produce_bytes;
        self.consume_bytes += other.consume_bytes;
        self.requests += other.requests;
        self.connections += other.connections;
        self.streams += other.streams;
        self.stored_bytes += other.stored_bytes;
        // The same groups, mostly.
        self.groups = self.groups.max(other.groups);
    }

    fn of(account: &Account) -> Used {
        let Rates {
            produce,
            consume,
            requests,
        } = account.rates();
        Used {
            produce_bytes: produce as u64,
            consume_bytes: consume as u64,
            requests: requests as u64,
            connections: account.connections.here(),
            streams: account.streams.here(),
            ..Used::default()
        }
    }

    fn as_elsewhere(&self) -> Elsewhere {
        Elsewhere {
            rates: Rates {
                produce: self.produce_bytes as f64,
                consume: self.consume_bytes as f64,
                requests: self.requests as f64,
            },
            connections: self.connections,
            streams: self.streams,
        }
    }
}

impl Usage {
    pub(crate) fn add(&mut self, other: &Usage) {
        for (tenant, used) in &other.tenants {
            self.tenants.entry(tenant.clone()).or_default().add(used);
        }
        for (tenant, clients) in &other.clients {
            let of_tenant = self.clients.entry(tenant.clone()).or_default();
            for (client, used) in clients {
                of_tenant.entry(client.clone()).or_default().add(used);
            }
        }
    }

    fn of(&self, owner: &Owner) -> Option<&Used> {
        match &owner.client {
            None => self.tenants.get(&owner.tenant),
            Some(client) => self.clients.get(&owner.tenant)?.get(client),
        }
    }

    fn put(&mut self, owner: &Owner, used: Used) {
        match &owner.client {
            None => self.tenants.insert(owner.tenant.clone(), used),
            Some(client) => {
                let clients = self.clients.entry(owner.tenant.clone()).or_default();
                clients.insert(client.clone(), used)
            }
        };
    }
}

impl Quotas {
    /// Looks once a second, until the node stops. What is decided about quotas counts at once.
    pub(crate) async fn keep(self: Arc<Self>, link: Link) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut applied = self.host.progress();
        let mut version = 0;
        loop {
            let is_time = tokio::select! {
                biased;
                _ = looks.tick() => true,
                changed = applied.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return, // the node stops
                },
            };
            let now = self.host.read(|catalog| catalog.access().version());
            if !is_time && now == version {
                continue;
            }
            version = now;
            if is_time {
                self.look(&link).await;
            }
            self.limit_all();
        }
    }

    async fn look(&self, link: &Link) {
        let accounts: Vec<Arc<Account>> = self.accounts().values().cloned().collect();
        accounts.iter().for_each(|account| account.measure(Instant::now()));
        drop(accounts);
        self.forget_idle();
        let is_limited = self
            .host
            .read(|catalog| catalog.access().tenants().values().any(has_limits));
        if is_limited {
            self.ask_others(link).await;
        }
        self.judge_stored().await;
    }

    /// What another node asks.
    pub(crate) async fn answer(&self, question: &[u8]) -> Result<Bytes, String> {
        let usage = self.usage_here(&decode_json(question)?).await;
        encode_json(&usage)
    }

    /// What a tenant and its clients use in the whole cluster, as far as its nodes answer.
    pub(crate) async fn usage_of(&self, link: &Link, tenant: &str) -> Usage {
        let wanted = Wanted::Tenant(tenant.to_owned());
        let (mut usage, others) = tokio::join!(self.usage_here(&wanted), self.ask(link, &wanted));
        others.iter().for_each(|(_, other)| usage.add(other));
        usage
    }

    /// What all other nodes together use of the same.
    pub(super) fn elsewhere_of(&self, owner: &Owner) -> Elsewhere {
        let mut all = Used::default();
        for (_, usage) in super::lock(&self.elsewhere).values() {
            usage.of(owner).into_iter().for_each(|used| all.add(used));
        }
        all.as_elsewhere()
    }

    /// Accounts that nobody holds, that have used nothing lately and owe nothing say nothing. Those of tenants are few, and count on.
    fn forget_idle(&self) {
        let now = Instant::now();
        let tenants: BTreeSet<String> = self
            .host
            .read(|catalog| catalog.access().tenants().keys().cloned().collect());
        self.accounts().retain(|owner, account| {
            let counts_on = owner.client.is_none() && tenants.contains(&owner.tenant);
            counts_on || Arc::strong_count(account) > 1 || !account.is_idle(now)
        });
    }

    fn limit_all(&self) {
        let accounts: Vec<Arc<Account>> = self.accounts().values().cloned().collect();
        let mut leaders: HashMap<&str, Option<f64>> = HashMap::new();
        for account in &accounts {
            let elsewhere = self.elsewhere_of(&account.owner);
            let tenant = account.owner.tenant.as_str();
            self.host.read(|catalog| {
                let leaders = leaders.entry(tenant);
                let leaders = *leaders.or_insert_with(|| self.leaders_here(catalog, tenant));
                self.limit(catalog, account, &elsewhere, leaders);
            });
        }
    }

    async fn ask_others(&self, link: &Link) {
        let answers = self.ask(link, &Wanted::Limited).await;
        let now = Instant::now();
        let mut elsewhere = super::lock(&self.elsewhere);
        elsewhere.extend(answers.into_iter().map(|(node, usage)| (node, (now, usage))));
        elsewhere.retain(|_, (at, _)| now.saturating_duration_since(*at) <= ANSWER_AGE_MAX);
    }

    async fn ask(&self, link: &Link, wanted: &Wanted) -> Vec<(String, Usage)> {
        let Ok(question) = encode_json(wanted) else {
            return Vec::new();
        };
        let others: Vec<String> = self.host.read(|catalog| {
            let names = catalog.members().map(|node| node.name.clone());
            names.filter(|name| *name != self.own).collect()
        });
        let connected = others.into_iter().filter(|node| link.is_connected(node));
        let asked = connected.map(|node| {
            let question = vec![question.clone()];
            async move {
                let answer = link.call_node(&node, USAGE, question, ANSWER_TIMEOUT).await;
                // A node of an earlier version does not know the question.
                let usage = decode_json(&answer.ok()?);
                let usage =
                    usage.inspect_err(|why| tracing::warn!(node, why, "what a node uses of quotas is not known"));
                Some((node, usage.ok()?))
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn usage_here(&self, wanted: &Wanted) -> Usage {
        let mut used: Vec<(Owner, Used)> = {
            let accounts = self.accounts();
            let wanted = accounts.values().filter(|account| is_wanted(account, wanted));
            wanted
                .map(|account| (account.owner.clone(), Used::of(account)))
                .collect()
        };
        let weight = |used: &Used| used.produce_bytes + used.consume_bytes + used.requests + used.connections;
        used.sort_by_key(|(_, used)| std::cmp::Reverse(weight(used)));
        used.truncate(ANSWER_ACCOUNTS_MAX);
        let mut usage = Usage::default();
        for (owner, used) in within_answer(used, |(owner, _)| bytes_of(owner)) {
            usage.put(&owner, used);
        }
        let of_tenant = |tenant: &String| USED_BYTES_MAX + 6 * tenant.len();
        for tenant in within_answer(self.tenants_counted(wanted), of_tenant) {
            let stored_bytes = self.stored_here(&tenant).await;
            // Only told, and much work: nodes do not need it of each other.
            let groups = match wanted {
                Wanted::Tenant(_) => self.group_names(&tenant).len() as u64,
                Wanted::Limited => 0,
            };
            let used = usage.tenants.entry(tenant).or_default();
            *used = Used {
                stored_bytes,
                groups,
                ..*used
            };
        }
        usage
    }

    /// The tenants whose files are counted.
    fn tenants_counted(&self, wanted: &Wanted) -> Vec<String> {
        match wanted {
            Wanted::Tenant(tenant) => vec![tenant.clone()],
            Wanted::Limited => self.host.read(limited_in_bytes),
        }
    }

    /// Bytes of the logs of the tenant's partitions that this node leads.
    pub(super) async fn stored_here(&self, tenant: &str) -> u64 {
        let now = Instant::now();
        if let Some((at, bytes)) = super::lock(&self.stored).get(tenant)
            && now.saturating_duration_since(*at) < COUNT_AGE_MAX
        {
            return *bytes;
        }
        let mut bytes = 0;
        for hosted in self.hosted_of(tenant) {
            if hosted.led_term().is_some() {
                bytes += hosted.bytes().await.unwrap_or_default();
            }
        }
        let mut stored = super::lock(&self.stored);
        stored.retain(|_, (at, _)| now.saturating_duration_since(*at) < COUNT_AGE_MAX);
        stored.insert(tenant.to_owned(), (now, bytes));
        bytes
    }

    /// Notes which tenants have stored as much as they may.
    async fn judge_stored(&self) {
        let mut full = BTreeSet::new();
        for tenant in self.host.read(limited_in_bytes) {
            let here = self.stored_here(&tenant).await;
            let others: u64 = {
                let elsewhere = super::lock(&self.elsewhere);
                let told = elsewhere.values().filter_map(|(_, usage)| usage.tenants.get(&tenant));
                told.map(|used| used.stored_bytes).sum()
            };
            let most = self
                .host
                .read(|catalog| catalog.access().tenant_limit(&tenant, Limit::StoredBytes));
            if most.is_some_and(|most| here + others >= most) {
                full.insert(tenant);
            }
        }
        *super::lock(&self.full) = full;
    }
}

fn limited_in_bytes(catalog: &Catalog) -> Vec<String> {
    let tenants = catalog.access().tenants().iter();
    let limited = tenants.filter(|(_, tenant)| tenant.quota.contains_key(&Limit::StoredBytes));
    limited.map(|(name, _)| name.clone()).collect()
}

/// How many bytes of an answer an account takes at most; a character of a name takes six, if it is written as a number.
fn bytes_of(owner: &Owner) -> usize {
    USED_BYTES_MAX + 6 * (owner.tenant.len() + owner.client.as_ref().map_or(0, String::len))
}

/// As many as fit into their part of an answer.
fn within_answer<T>(all: Vec<T>, bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = T> {
    let mut left = ANSWER_BYTES_MAX;
    all.into_iter().map_while(move |one| {
        left = left.checked_sub(bytes(&one))?;
        Some(one)
    })
}

fn is_wanted(account: &Account, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Tenant(tenant) => account.owner.tenant == *tenant,
        Wanted::Limited => account.is_limited(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_holds_what_fits_and_can_be_read() {
        let mut usage = Usage::default();
        let owners = (0..10_000).map(|number| Owner {
            tenant: format!("tenant-with-a-name-{number}"),
            client: None,
        });
        let owners = owners.map(|owner| (owner, Used::default())).collect();
        for (owner, used) in within_answer(owners, |(owner, _)| bytes_of(owner)) {
            usage.put(&owner, used);
        }
        assert!(
            (1_000..10_000).contains(&usage.tenants.len()),
            "{}",
            usage.tenants.len()
        );
        assert!(decode_json::<Usage>(&encode_json(&usage).unwrap()).is_ok());
    }

    #[test]
    fn an_account_takes_no_more_of_an_answer_than_is_reckoned() {
        let most = Used {
            produce_bytes: u64::MAX,
            consume_bytes: u64::MAX,
            requests: u64::MAX,
            connections: u64::MAX,
            streams: u64::MAX,
            stored_bytes: u64::MAX,
            groups: u64::MAX,
        };
        for client in [None, Some("\u{1}".repeat(40))] {
            let tenant = "t".repeat(30);
            let owner = Owner { tenant, client };
            let mut usage = Usage::default();
            usage.put(&owner, most);
            let bytes = encode_json(&usage).unwrap().len();
            assert!(bytes <= bytes_of(&owner), "{bytes}");
        }
    }
}
