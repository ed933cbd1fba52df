//! How the policy is set up and changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::proposing::counted;
use crate::access::{Access, CLUSTER_DOMAIN, Grant, OPERATOR_ROLE, PolicyChange, Rule, Tenant, pattern};
use crate::catalog::Catalog;
use crate::checks;
use crate::limits::{
    DOMAIN_GRANTS_MAX, DOMAIN_RULES_MAX, GRANTS_MAX, POLICY_CHANGE_MAX, RULES_MAX, SUBJECT_RULES_MAX, TENANTS_MAX,
};
use crate::names;
use crate::reply::{Refusal, Reply};

impl Catalog {
    /// The first policy. Repeated, it changes nothing: whoever proposes it second finds it done.
    pub(crate) fn set_up_access(
        &mut self,
        index: u64,
        tenants: &[String],
        first: &PolicyChange,
    ) -> Result<Reply, Refusal> {
        self.cluster()?;
        let now = &self.state.access;
        if now.is_set_up() {
            return Ok(Reply::Policy { version: now.version });
        }
        let mut access = Access::default();
        for tenant in tenants {
            names::validate("tenant", tenant)?;
        }
        let owners = self.state.topics.values().map(|topic| &topic.tenant);
        for tenant in tenants.iter().chain(owners) {
            access.tenants.insert(tenant.clone(), Tenant::default());
        }
        access.change(first)?;
        self.put_access(index, access)
    }

    pub(crate) fn change_policy(
        &mut self,
        index: u64,
        expected_version: u64,
        change: &PolicyChange,
    ) -> Result<Reply, Refusal> {
        self.require_access()?;
        let version = self.state.access.version;
        if expected_version != version {
            return Err(Refusal::PolicyChanged {
                expected: expected_version,
                version,
            });
        }
        let access = self.state.access.changed(change)?;
        self.put_access(index, access)
    }

    pub(crate) fn require_access(&self) -> Result<(), Refusal> {
        self.cluster()?;
        match self.state.access.is_set_up() {
            true => Ok(()),
            false => Err(Refusal::AccessNotSetUp),
        }
    }

    /// Takes over what was changed, if anything was. The answer is the version that is in force then.
    pub(super) fn put_access(&mut self, index: u64, mut access: Access) -> Result<Reply, Refusal> {
        access.check_limits()?;
        access.version = self.state.access.version;
        if access != *self.state.access || !access.is_set_up() {
            access.version = index;
            self.state.access = Arc::new(access);
            self.state.revision = index;
        }
        Ok(Reply::Policy {
            version: self.state.access.version,
        })
    }
}

impl Access {
    pub(super) fn change(&mut self, change: &PolicyChange) -> Result<(), Refusal> {
        let PolicyChange {
            add_rules,
            remove_rules,
            add_grants,
            remove_grants,
        } = change;
        let count = add_rules.len() + remove_rules.len() + add_grants.len() + remove_grants.len();
        if count > POLICY_CHANGE_MAX {
            let why = format!("{count} rules and grants are changed at once, {POLICY_CHANGE_MAX} are allowed");
            return Err(checks::invalid("change", why));
        }
        add_rules.iter().try_for_each(pattern::check_rule)?;
        add_grants.iter().try_for_each(pattern::check_grant)?;
        for rule in remove_rules {
            self.rules.remove(rule);
        }
        for grant in remove_grants {
            self.grants.remove(grant);
        }
        self.rules.extend(add_rules.iter().cloned());
        self.grants.extend(add_grants.iter().cloned());
        self.check_references()
    }

    /// Where a policy counts, and the roles that it grants, must be there, or a misspelled name would be found by nobody.
    pub(super) fn check_references(&self) -> Result<(), Refusal> {
        let roles: BTreeSet<&str> = self.rules.iter().map(|rule| rule.subject.as_str()).collect();
        for rule in &self.rules {
            self.check_domain(&rule.domain)?;
        }
        for grant in &self.grants {
            self.check_domain(&grant.domain)?;
            if !roles.contains(grant.role.as_str()) {
                let role = grant.role.clone();
                return Err(Refusal::RoleNotFound { role });
            }
        }
        match self.grants.iter().any(is_operator) {
            true => Ok(()),
            false => Err(Refusal::LastOperator),
        }
    }

    fn check_domain(&self, domain: &str) -> Result<(), Refusal> {
        match domain {
            CLUSTER_DOMAIN | "*" => Ok(()),
            tenant => self.require_tenant(tenant),
        }
    }

    pub(super) fn require_tenant(&self, tenant: &str) -> Result<(), Refusal> {
        match self.tenants.contains_key(tenant) {
            true => Ok(()),
            false => Err(Refusal::TenantNotFound {
                tenant: tenant.to_owned(),
            }),
        }
    }

    /// As many of everything as there may be.
    pub(super) fn check_limits(&self) -> Result<(), Refusal> {
        let of = |what: &str, count: usize, limit: usize| match count <= limit {
            true => Ok(()),
            false => Err(Refusal::PolicyTooLarge {
                what: what.to_owned(),
                limit,
            }),
        };
        of("tenants", self.tenants.len(), TENANTS_MAX)?;
        of("rules", self.rules.len(), RULES_MAX)?;
        of("grants", self.grants.len(), GRANTS_MAX)?;
        // They are sorted, so those of one subject in one domain stand together.
        let rules: Vec<&Rule> = self.rules.iter().collect();
        let is_together = |one: &&Rule, other: &&Rule| (&one.subject, &one.domain) == (&other.subject, &other.domain);
        for together in rules.chunk_by(is_together) {
            let Rule { subject, domain, .. } = together[0];
            let what = format!("rules about {subject} in {domain}");
            of(&what, together.len(), SUBJECT_RULES_MAX)?;
        }
        // Bounds of what can be stored; changes are asked for more before they are proposed (`proposing`).
        for (domain, count) in counted(self.rules.iter().map(|rule| rule.domain.as_str())) {
            of(&format!("rules in {domain}"), count, DOMAIN_RULES_MAX)?;
        }
        for (domain, count) in counted(self.grants.iter().map(|grant| grant.domain.as_str())) {
            of(&format!("grants in {domain}"), count, DOMAIN_GRANTS_MAX)?;
        }
        Ok(())
    }
}

fn is_operator(grant: &Grant) -> bool {
    grant.role == OPERATOR_ROLE && grant.domain == CLUSTER_DOMAIN
}
