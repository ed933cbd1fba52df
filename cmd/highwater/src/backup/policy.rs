//! Tenants, rules, grants and quotas of a backup, beside those of the cluster that it is restored to.
//!
//! Restoring must give nobody a right that its cluster has taken away since. So a tenant that exists is not touched unless that is asked
//! for; what would be different is told, and the restore refused before it has changed anything. Nothing is ever taken away.

use std::collections::BTreeSet;

use highwater::proto::v1;
use highwater::{Access, Error, Reason};

use super::manifest::{Grant, Policy, Quota, Rule, Tenant};
use crate::access::words;
use crate::exit::{Code, Failure, Result};
use crate::profile::failure;
use crate::tenant::quota;

/// How many rules or grants are added in one step; the cluster takes a thousand.
const LINES_AT_ONCE: usize = 500;
/// So many differences are told.
const SHOWN_MAX: usize = 20;
/// For a tenant whose clients have no role but those that are granted.
const NO_ROLE: &str = "";

/// What to do about tenants and policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Mode {
    /// Make tenants that do not exist, with all that they had; refuse if those that exist, or what all tenants share, lack something.
    #[default]
    New,
    /// Also add what those lack, and set quotas to those of the backup; nothing is taken away.
    Merge,
    /// Change nothing of it: only topics, records and offsets.
    Leave,
}

/// The limits of a tenant, or of one of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QuotaChange {
    pub(super) tenant: String,
    pub(super) client: Option<String>,
    pub(super) limits: Quota,
}

/// What is to be changed, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) tenants: Vec<String>,
    pub(super) rules: Vec<Rule>,
    pub(super) grants: Vec<Grant>,
    /// Whether a tenant is to be suspended or resumed.
    pub(super) suspended: Vec<(String, bool)>,
    /// Limits that are lower here than in the backup, before the records: these may need the room.
    pub(super) raised: Vec<QuotaChange>,
    /// All other limits, behind the records.
    pub(super) quotas: Vec<QuotaChange>,
}

/// A backup beside a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) changes: Changes,
    /// What tenants that exist, and what all tenants share, lack: a line each.
    pub(super) lacking: Vec<String>,
    /// What they have and the backup has not: a line each.
    pub(super) beyond: Vec<String>,
}

impl Comparison {
    /// Compares tenants of a backup, and its lines that are about none of them, with those of a cluster.
    pub(super) fn new(
        backup: &[&Tenant],
        backup_shared: Option<&Policy>,
        cluster: &[Tenant],
        cluster_policy: &Policy,
    ) -> Comparison {
        let mut compared = Comparison::default();
        if let Some(shared) = backup_shared {
            // A domain that the backup does not tell apart may be a tenant of its own in this cluster.
            let domains: BTreeSet<&str> = domains(shared).chain([words::CLUSTER, "*"]).collect();
            let here = cluster_policy.only(|domain| domains.contains(domain));
            compared.policy(shared, &here, true);
        }
        for tenant in backup {
            match cluster.iter().find(|there| there.name == tenant.name) {
                Some(there) => compared.existing(tenant, there),
                None => compared.new_tenant(tenant),
            }
        }
        compared
    }

    fn new_tenant(&mut self, tenant: &Tenant) {
        self.changes.tenants.push(tenant.name.clone());
        self.policy(&tenant.policy, &Policy::default(), false);
        self.quota(tenant, None, (&tenant.quota, &Quota::new()), false);
        for (client, quota) in &tenant.client_quotas {
            self.quota(tenant, Some(client), (quota, &Quota::new()), false);
        }
        if tenant.suspended {
            self.changes.suspended.push((tenant.name.clone(), true));
        }
    }

    fn existing(&mut self, tenant: &Tenant, there: &Tenant) {
        let lacking = self.lacking.len();
        self.policy(&tenant.policy, &there.policy, true);
        if tenant.suspended != there.suspended {
            let state = |suspended| if suspended { "suspended" } else { "active" };
            let (was, is) = (state(tenant.suspended), state(there.suspended));
            self.lacking
                .push(format!("tenant {} was {was}, and is {is} here", tenant.name));
            self.changes.suspended.push((tenant.name.clone(), tenant.suspended));
        }
        // Limits come last: a restore that was interrupted has left a tenant without any, and with all else.
        let is_unlimited = there.quota.is_empty() && there.client_quotas.is_empty();
        let is_settled = !is_unlimited || self.lacking.len() > lacking;
        self.quota(tenant, None, (&tenant.quota, &there.quota), is_settled);
        let clients: BTreeSet<&String> = tenant.client_quotas.keys().chain(there.client_quotas.keys()).collect();
        for client in clients {
            let of = |tenant: &Tenant| tenant.client_quotas.get(client).cloned().unwrap_or_default();
            self.quota(tenant, Some(client), (&of(tenant), &of(there)), is_settled);
        }
    }

    fn policy(&mut self, backup: &Policy, here: &Policy, exists: bool) {
        let rule = |rule: &Rule| words::rule_text(&rule.clone().into());
        let grant = |grant: &Grant| words::grant_text(&grant.clone().into());
        let rules: Vec<&Rule> = backup.rules.iter().filter(|rule| !here.rules.contains(rule)).collect();
        let grants: Vec<&Grant> = backup
            .grants
            .iter()
            .filter(|grant| !here.grants.contains(grant))
            .collect();
        if exists {
            self.lacking
                .extend(rules.iter().map(|line| format!("+ {}", rule(line))));
            self.lacking
                .extend(grants.iter().map(|line| format!("+ {}", grant(line))));
        }
        self.changes.rules.extend(rules.into_iter().cloned());
        self.changes.grants.extend(grants.into_iter().cloned());
        let more = here.rules.iter().filter(|rule| !backup.rules.contains(rule));
        self.beyond.extend(more.map(rule));
        let more = here.grants.iter().filter(|grant| !backup.grants.contains(grant));
        self.beyond.extend(more.map(grant));
    }

    /// `is_settled`: what is here was made so, and is not just what a restore has not come to yet.
    fn quota(&mut self, tenant: &Tenant, client: Option<&str>, (had, has): (&Quota, &Quota), is_settled: bool) {
        let whose = client.map_or_else(|| tenant.name.clone(), |client| format!("{}/{client}", tenant.name));
        let differs = had.iter().filter(|(name, limit)| has.get(*name) != Some(limit));
        let limits: Quota = differs.map(|(name, limit)| (name.clone(), *limit)).collect();
        if is_settled {
            self.lacking
                .extend(limits.iter().map(|(name, limit)| match has.get(name) {
                    Some(here) => format!("quota of {whose}: {name} was {limit}, and is {here} here"),
                    None => format!("quota of {whose}: {name} was {limit}, and is not limited here"),
                }));
            let more = has.iter().filter(|(name, _)| !had.contains_key(*name));
            self.beyond
                .extend(more.map(|(name, limit)| format!("quota of {whose}: {name} = {limit}")));
        }
        let is_lower_here = |(name, limit): &(String, u64)| has.get(name).is_some_and(|here| here < limit);
        let (raised, others): (Quota, Quota) = limits.into_iter().partition(is_lower_here);
        let change = |limits| QuotaChange {
            tenant: tenant.name.clone(),
            client: client.map(str::to_owned),
            limits,
        };
        self.changes.raised.extend((!raised.is_empty()).then(|| change(raised)));
        self.changes.quotas.extend((!others.is_empty()).then(|| change(others)));
    }

    /// What is to be done, or why nothing is.
    pub(super) fn decide(self, mode: Mode) -> Result<Changes> {
        if mode == Mode::Merge || self.lacking.is_empty() {
            return Ok(self.changes);
        }
        let told = shown(&self.lacking);
        let message = format!("the cluster has tenants and policy of its own, which lack what the backup has: {told}");
        let hint = "add that with --policy merge, or leave all of it as it is with --policy leave";
        Err(Failure::new(Code::Refused, message).hint(hint))
    }
}

fn domains(policy: &Policy) -> impl Iterator<Item = &str> {
    let of_grants = policy.grants.iter().map(|grant| grant.domain.as_str());
    policy.rules.iter().map(|rule| rule.domain.as_str()).chain(of_grants)
}

/// The first of many.
pub(super) fn shown(lines: &[String]) -> String {
    let mut told: Vec<String> = lines.iter().take(SHOWN_MAX).cloned().collect();
    if lines.len() > told.len() {
        told.push(format!("and {} more", lines.len() - told.len()));
    }
    told.join("; ")
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// A line for each of them.
    pub(super) fn lines(&self) -> Vec<String> {
        let tenants = self.tenants.iter().map(|tenant| format!("tenant {tenant}"));
        let rules = self.rules.iter().map(|rule| words::rule_text(&rule.clone().into()));
        let grants = self.grants.iter().map(|grant| words::grant_text(&grant.clone().into()));
        let quotas = self.raised.iter().chain(&self.quotas).map(|change| {
            let client = change
                .client
                .as_ref()
                .map(|client| format!("/{client}"))
                .unwrap_or_default();
            let limits: Vec<String> = change
                .limits
                .iter()
                .map(|(name, limit)| format!("{name}={limit}"))
                .collect();
            format!("quota of {}{client}: {}", change.tenant, limits.join(", "))
        });
        let suspended = self.suspended.iter().map(|(tenant, suspended)| {
            let what = if *suspended { "suspended" } else { "resumed" };
            format!("tenant {tenant}: {what}")
        });
        tenants
            .chain(rules)
            .chain(grants)
            .chain(suspended)
            .chain(quotas)
            .collect()
    }

    /// Makes those that come before the records. May be given again after it was interrupted.
    pub(super) async fn apply(&self, access: &Access) -> Result<()> {
        for tenant in &self.tenants {
            access.create_tenant(tenant, Some(NO_ROLE)).await.map_err(failure)?;
        }
        for rules in self.rules.chunks(LINES_AT_ONCE) {
            let add_rules = rules.iter().cloned().map(Into::into).collect();
            let change = v1::PolicyChange {
                add_rules,
                ..Default::default()
            };
            change_policy(access, &change).await?;
        }
        for grants in self.grants.chunks(LINES_AT_ONCE) {
            let add_grants = grants.iter().cloned().map(Into::into).collect();
            let change = v1::PolicyChange {
                add_grants,
                ..Default::default()
            };
            change_policy(access, &change).await?;
        }
        for (tenant, suspended) in &self.suspended {
            access.suspend_tenant(tenant, *suspended).await.map_err(failure)?;
        }
        change_quotas(access, &self.raised).await
    }

    /// Makes those that come behind the records, likewise.
    pub(super) async fn apply_quotas(&self, access: &Access) -> Result<()> {
        change_quotas(access, &self.quotas).await
    }
}

async fn change_quotas(access: &Access, changes: &[QuotaChange]) -> Result<()> {
    for change in changes {
        access.change_quota(request_of(change)?).await.map_err(failure)?;
    }
    Ok(())
}

fn request_of(change: &QuotaChange) -> Result<v1::ChangeQuotaRequest> {
    let set = quota::from_names(&change.limits);
    let unknown = |name| {
        Failure::new(
            Code::Refused,
            format!("the backup limits {name}, which this program does not know"),
        )
    };
    Ok(v1::ChangeQuotaRequest {
        tenant: change.tenant.clone(),
        client: change.client.clone(),
        set: Some(set.map_err(unknown)?),
        clear: Vec::new(),
    })
}

/// Changes the policy as it is now: nothing that is added or removed depends on what else is in it.
pub(super) async fn change_policy(access: &Access, change: &v1::PolicyChange) -> Result<()> {
    loop {
        let version = access.policy("").await.map_err(failure)?.version;
        match access.change(version, change.clone()).await {
            Ok(_) => return Ok(()),
            Err(Error::Refused(refusal)) if refusal.reason == Reason::PolicyChanged => {}
            Err(error) => return Err(failure(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn grant(client: &str, domain: &str) -> Grant {
        Grant {
            client: client.to_owned(),
            role: "producer".to_owned(),
            domain: domain.to_owned(),
        }
    }

    fn rule(subject: &str, domain: &str) -> Rule {
        Rule {
            subject: subject.to_owned(),
            domain: domain.to_owned(),
            resource: "topic:*".to_owned(),
            action: "produce".to_owned(),
            deny: true,
        }
    }

    fn tenant(name: &str) -> Tenant {
        Tenant {
            name: name.to_owned(),
            suspended: false,
            quota: Quota::from([("topics".to_owned(), 5)]),
            client_quotas: BTreeMap::from([("web".to_owned(), Quota::from([("streams".to_owned(), 2)]))]),
            policy: Policy {
                rules: vec![rule("shop/web", name)],
                grants: vec![grant("shop/web", name)],
            },
        }
    }

    fn compared(backup: &[&Tenant], shared: Option<&Policy>, cluster: &[Tenant], here: &Policy) -> Comparison {
        Comparison::new(backup, shared, cluster, here)
    }

    #[test]
    fn a_tenant_that_is_new_is_made_with_all_that_it_had() {
        let suspended = Tenant {
            suspended: true,
            ..tenant("shop")
        };
        let compared = compared(&[&suspended], None, &[], &Policy::default());
        assert!(compared.lacking.is_empty() && compared.beyond.is_empty());
        let changes = compared.decide(Mode::New).unwrap();
        assert_eq!(changes.tenants, ["shop"]);
        assert_eq!(
            (changes.rules.len(), changes.grants.len(), changes.quotas.len()),
            (1, 1, 2)
        );
        assert_eq!(changes.suspended, [("shop".to_owned(), true)]);
        assert_eq!(changes.lines().len(), 6);
    }

    #[test]
    fn what_is_alike_is_left_alone() {
        let shared = Policy {
            rules: vec![rule("operator", "@cluster")],
            grants: Vec::new(),
        };
        let compared = compared(&[&tenant("shop")], Some(&shared), &[tenant("shop")], &shared);
        assert_eq!(compared, Comparison::default());
        assert!(compared.decide(Mode::New).unwrap().is_empty());
    }

    #[test]
    fn what_a_tenant_that_exists_lacks_is_added_only_if_that_is_asked_for() {
        let mut there = tenant("shop");
        there.policy.grants = vec![grant("shop/other", "shop")];
        there.quota = Quota::from([("topics".to_owned(), 9), ("groups".to_owned(), 1)]);
        there.client_quotas.clear();
        let again = || {
            compared(
                &[&tenant("shop")],
                None,
                std::slice::from_ref(&there),
                &Policy::default(),
            )
        };
        let refused = again().decide(Mode::New).unwrap_err();
        for word in [
            "g, shop/web, producer, shop",
            "topics was 5, and is 9 here",
            "shop/web: streams was 2, and is not limited here",
        ] {
            assert!(refused.message.contains(word), "{word:?} is not in {refused}");
        }
        assert_eq!(
            again().beyond,
            ["g, shop/other, producer, shop", "quota of shop: groups = 1"]
        );
        let changes = again().decide(Mode::Merge).unwrap();
        assert!(changes.tenants.is_empty() && changes.rules.is_empty());
        assert_eq!(changes.grants, [grant("shop/web", "shop")]);
        assert_eq!(changes.quotas.len(), 2);
    }

    #[test]
    fn a_tenant_without_any_limit_and_equal_otherwise_is_one_that_an_interrupted_restore_has_made() {
        let mut there = tenant("shop");
        there.quota.clear();
        there.client_quotas.clear();
        let decided = |there: &Tenant| {
            let there = std::slice::from_ref(there);
            compared(&[&tenant("shop")], None, there, &Policy::default()).decide(Mode::New)
        };
        let changes = decided(&there).unwrap();
        assert_eq!((changes.quotas.len(), changes.raised.len()), (2, 0));
        assert_eq!(changes.lines().len(), 2, "and nothing else");
        let other_rights = Tenant {
            policy: Policy::default(),
            ..there.clone()
        };
        let with_a_limit = Tenant {
            quota: tenant("shop").quota,
            ..there
        };
        for there in [other_rights, with_a_limit] {
            let refused = decided(&there).unwrap_err();
            assert!(
                refused.message.contains("streams was 2, and is not limited here"),
                "{refused}"
            );
        }
    }

    #[test]
    fn only_limits_that_the_records_may_need_higher_come_before_them() {
        let mut there = tenant("shop");
        there.quota = Quota::from([("topics".to_owned(), 4)]);
        there.client_quotas = BTreeMap::from([("web".to_owned(), Quota::from([("streams".to_owned(), 3)]))]);
        let compared = compared(&[&tenant("shop")], None, &[there], &Policy::default());
        let changes = compared.decide(Mode::Merge).unwrap();
        let limits = |changes: &[QuotaChange]| changes.iter().map(|change| change.limits.clone()).collect::<Vec<_>>();
        assert_eq!(limits(&changes.raised), [Quota::from([("topics".to_owned(), 5)])]);
        assert_eq!(limits(&changes.quotas), [Quota::from([("streams".to_owned(), 2)])]);
        assert_eq!(changes.lines().len(), 2);
    }

    #[test]
    fn who_runs_the_cluster_is_not_changed_unasked() {
        let shared = Policy {
            rules: Vec::new(),
            grants: vec![grant("ops/anna", "@cluster"), grant("shop/auditor", "system")],
        };
        let here = Policy {
            rules: Vec::new(),
            grants: vec![grant("ops/berta", "@cluster"), grant("x/y", "another")],
        };
        let compared = compared(&[], Some(&shared), &[], &here);
        assert_eq!(compared.beyond, ["g, ops/berta, producer, @cluster"]);
        let refused = compared.decide(Mode::New).unwrap_err();
        assert!(
            refused.message.contains("ops/anna") && refused.message.contains("shop/auditor"),
            "{refused}"
        );
    }
}
