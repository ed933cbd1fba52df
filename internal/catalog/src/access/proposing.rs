//! What is asked of a change of the policy before it is proposed, beyond what the catalog itself demands of it.
//!
//! Who proposes a change counts here, and the catalog does not know that: operators may use all the room, also to restore a backup, and tenants
//! a share of it each; and whoever manages one tenant is not to hear which roles others have. And a limit that is only asked for here may be lowered later: what was
//! stored before stays as it is and goes on counting; a change must not make more of what is too much.
//!
//! A change is applied to exactly the version that it was made for (compare-and-set). So what was found here of that version is true when
//! the change is applied, if the node that proposes it looks at that very version.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::{Access, CLUSTER_DOMAIN, Grant, PolicyChange, Rule};
use crate::limits::{CLIENT_ROLES_MAX, GRANTS_MAX, OPERATORS_SHARE, RULES_MAX, TENANT_GRANTS_MAX, TENANT_RULES_MAX};
use crate::reply::Refusal;

/// Who proposes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proposer {
    /// An operator of the cluster, who may know everything.
    Operator,
    /// Who may change what counts in a tenant, and is to learn nothing of others by that.
    Manager,
}

impl Access {
    /// The policy as it would be after a change that somebody proposes for this version.
    ///
    /// # Errors
    /// As of [`Command::ChangePolicy`](crate::Command::ChangePolicy). To who is no operator also if the policy grows beyond what he may fill,
    /// if a role is granted once more to who has [`CLIENT_ROLES_MAX`] of them there, or one that no rule is about where it is granted.
    pub fn proposed(&self, change: &PolicyChange, by: Proposer) -> Result<Access, Refusal> {
        let after = self.changed(change)?;
        if by == Proposer::Manager {
            self.check_roles_seen(&after, change)?;
            self.check_growth(&after)?;
        }
        Ok(after)
    }

    /// Roles of other tenants are answered like such as nobody has. What was granted before without a rule to see may stay.
    fn check_roles_seen(&self, after: &Access, change: &PolicyChange) -> Result<(), Refusal> {
        let domains: BTreeSet<&str> = change.domains().collect();
        let touched = after
            .grants
            .iter()
            .filter(|grant| domains.contains(grant.domain.as_str()));
        let (before, now) = (self.roles_seen(&domains), after.roles_seen(&domains));
        for grant in touched {
            let role = (grant.domain.as_str(), grant.role.as_str());
            let was_seen = before.contains(&role) || !self.grants.contains(grant);
            if was_seen && !now.contains(&role) {
                let role = grant.role.clone();
                return Err(Refusal::RoleNotFound { role });
            }
        }
        Ok(())
    }

    /// The roles that rules are about, by each of these domains.
    fn roles_seen<'a>(&'a self, domains: &BTreeSet<&'a str>) -> BTreeSet<(&'a str, &'a str)> {
        let mut seen = BTreeSet::new();
        for rule in &self.rules {
            let is_in = |domain: &&&str| rule.domain == **domain || (rule.domain == "*" && **domain != CLUSTER_DOMAIN);
            seen.extend(
                domains
                    .iter()
                    .filter(is_in)
                    .map(|domain| (*domain, rule.subject.as_str())),
            );
        }
        seen
    }

    /// Nothing that is beyond its limit becomes more.
    fn check_growth(&self, after: &Access) -> Result<(), Refusal> {
        let what = |what: &str| format!("{what}, apart from those that are kept for operators,");
        let most = |limit: usize| limit - limit / OPERATORS_SHARE;
        grown(&what("rules"), self.rules.len(), after.rules.len(), most(RULES_MAX))?;
        grown(&what("grants"), self.grants.len(), after.grants.len(), most(GRANTS_MAX))?;
        let (before, now) = (self.rules_by_tenant(), after.rules_by_tenant());
        for (domain, count) in now {
            let had = before.get(domain).copied().unwrap_or_default();
            grown(&format!("rules in {domain}"), had, count, TENANT_RULES_MAX)?;
        }
        let (before, now) = (self.grants_by_tenant(), after.grants_by_tenant());
        for (domain, count) in now {
            let had = before.get(domain).copied().unwrap_or_default();
            grown(&format!("grants in {domain}"), had, count, TENANT_GRANTS_MAX)?;
        }
        let (before, now) = (self.roles_by_client(), after.roles_by_client());
        for (key, count) in now {
            let had = before.get(&key).copied().unwrap_or_default();
            let (client, domain) = key;
            grown(&format!("roles of {client} in {domain}"), had, count, CLIENT_ROLES_MAX)?;
        }
        Ok(())
    }

    fn rules_by_tenant(&self) -> BTreeMap<&str, usize> {
        let domains = self.rules.iter().map(|rule| rule.domain.as_str());
        counted(domains.filter(|domain| ![CLUSTER_DOMAIN, "*"].contains(domain)))
    }

    fn grants_by_tenant(&self) -> BTreeMap<&str, usize> {
        let domains = self.grants.iter().map(|grant| grant.domain.as_str());
        counted(domains.filter(|domain| *domain != CLUSTER_DOMAIN))
    }

    fn roles_by_client(&self) -> BTreeMap<(&str, &str), usize> {
        counted(
            self.grants
                .iter()
                .map(|grant| (grant.client.as_str(), grant.domain.as_str())),
        )
    }
}

impl PolicyChange {
    /// The domains that it is about, as often as they are named.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        let rules = self.add_rules.iter().chain(&self.remove_rules);
        let rules = rules.map(|Rule { domain, .. }| domain.as_str());
        let grants = self.add_grants.iter().chain(&self.remove_grants);
        rules.chain(grants.map(|Grant { domain, .. }| domain.as_str()))
    }
}

pub(super) fn counted<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

fn grown(what: &str, before: usize, after: usize, limit: usize) -> Result<(), Refusal> {
    if after <= limit || after <= before {
        return Ok(());
    }
    let what = what.to_owned();
    Err(Refusal::PolicyTooLarge { what, limit })
}
