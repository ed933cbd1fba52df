//! The authority of a node: the policy in force, and what it decides.
//!
//! Each question looks at the version of the policy as this node's catalog has it, so a change counts on a node as soon as it has
//! applied the commit.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use highwater_catalog::{Access, Domain, Effect, Resource, Rule, Tenant};

use super::Action;
use super::decider::{Client, Decider};
use super::decisions::{Asked, Decisions};
use super::system::{self, SystemRule};
use crate::audit::Audit;
use crate::catalog::InForce;

/// Decides who may do what.
pub(crate) struct Authority {
    policy: Arc<InForce>,
    /// Clients that may do everything to the cluster, whatever the policy says: `tenant/client`, from the node's configuration.
    operators: HashSet<String>,
    /// Is told what is refused.
    pub(super) audit: Audit,
    decisions: Decisions,
}

/// Why a question has the answer that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// This rule decides.
    Rule(Rule),
    /// No rule allows it.
    NoRule,
    /// The node's configuration names the client as an operator.
    ConfiguredOperator,
    /// The client's tenant does not exist.
    UnknownTenant,
    /// The client's tenant, or the one that it is about, is suspended.
    SuspendedTenant,
    /// There is no policy yet: each client may do everything in its own tenant.
    NotSetUp,
    /// What belongs to the cluster itself has a rule of its own.
    System(SystemRule),
}

/// For a person.
impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Rule(rule) => write!(out, "by the rule `{rule}`"),
            Reason::NoRule => out.write_str("no rule allows it"),
            Reason::ConfiguredOperator => out.write_str("the node's configuration names the client as an operator"),
            Reason::UnknownTenant => out.write_str("its tenant does not exist; an operator can make it"),
            Reason::SuspendedTenant => out.write_str("the tenant is suspended"),
            Reason::NotSetUp => {
                out.write_str("there is no policy yet: each client may do everything in its own tenant")
            }
            Reason::System(rule) => rule.fmt(out),
        }
    }
}

impl Authority {
    pub(crate) fn new(policy: Arc<InForce>, operators: &[String], audit: Audit) -> Authority {
        Authority {
            policy,
            operators: operators.iter().cloned().collect(),
            audit,
            decisions: Decisions::default(),
        }
    }

    /// With a policy that no catalog has.
    #[cfg(test)]
    pub(super) fn fixed(access: &Arc<Access>, operators: &[String]) -> Authority {
        let authority = Authority::new(Arc::default(), operators, Audit::default());
        authority.replace(access);
        authority
    }

    #[cfg(test)]
    pub(super) fn replace(&self, access: &Arc<Access>) {
        self.policy.publish(access);
    }

    /// Whether the client may do `action` to `resource`.
    pub(super) fn allows(
        &self,
        client: Client<'_>,
        domain: Domain<'_>,
        resource: Resource<'_>,
        action: Action,
    ) -> bool {
        let access = self.access();
        let is_operator = || self.allows(client, Domain::Cluster, Resource::Cluster, Action::Admin);
        let by_itself = self.without_policy(&access, (client, domain, resource, action), is_operator);
        if let Some((allowed, _)) = by_itself {
            return allowed;
        }
        self.decisions.allows(&access, (client, domain), resource, action)
    }

    /// How often somebody's right was asked for.
    pub(crate) fn asked(&self) -> Asked {
        self.decisions.asked()
    }

    /// The policy in force.
    pub(crate) fn access(&self) -> Arc<Access> {
        self.policy.now()
    }

    /// The client may do everything to the cluster, whatever the policy says.
    pub(crate) fn is_configured_operator(&self, client: Client<'_>) -> bool {
        self.operators.contains(&client.to_text())
    }

    /// Why a client may do nothing at all, if that is so.
    pub(crate) fn shut_out(&self, client: Client<'_>) -> Option<Reason> {
        Authority::shut_out_by(&self.access(), client)
    }

    fn shut_out_by(access: &Access, client: Client<'_>) -> Option<Reason> {
        if system::is_of_system(client) {
            return Some(Reason::System(SystemRule::NoClients));
        }
        if !access.is_set_up() {
            return None;
        }
        match access.tenants().get(client.tenant) {
            None => Some(Reason::UnknownTenant),
            Some(Tenant { suspended: true, .. }) => Some(Reason::SuspendedTenant),
            Some(_) => None,
        }
    }

    /// The answer by a policy, with the reason.
    pub(crate) fn explain(
        &self,
        access: &Access,
        client: Client<'_>,
        domain: Domain<'_>,
        resource: Resource<'_>,
        action: Action,
    ) -> (bool, Reason) {
        let may_admin = || self.explain(access, client, Domain::Cluster, Resource::Cluster, Action::Admin);
        let is_operator = || may_admin().0;
        let answer = self.without_policy(access, (client, domain, resource, action), is_operator);
        // That another tenant is suspended counts only where something would be allowed; nobody else is told of it.
        let of_other = Some((false, Reason::SuspendedTenant));
        let is_of_other = answer == of_other && Authority::shut_out_by(access, client).is_none();
        if let Some(answer) = answer.filter(|_| !is_of_other) {
            return answer;
        }
        let (allowed, reason) = by_rules(access, (client, domain), resource, action);
        match of_other {
            Some(answer) if is_of_other && allowed => answer,
            _ => (allowed, reason),
        }
    }

    /// The same about a client of a tenant that the asker may know nothing of: as if it existed and were not suspended. Only what the rules
    /// of the domain say is told.
    pub(crate) fn explain_foreign(
        &self,
        access: &Access,
        client: Client<'_>,
        domain: Domain<'_>,
        resource: Resource<'_>,
        action: Action,
    ) -> (bool, Reason) {
        match self.explain(access, client, domain, resource, action) {
            (_, Reason::UnknownTenant | Reason::SuspendedTenant) => {
                by_rules(access, (client, domain), resource, action)
            }
            answer => answer,
        }
    }

    /// What is decided without looking at rules.
    fn without_policy(
        &self,
        access: &Access,
        (client, domain, resource, action): (Client<'_>, Domain<'_>, Resource<'_>, Action),
        is_operator: impl Fn() -> bool,
    ) -> Option<(bool, Reason)> {
        if let Some((allowed, rule)) = system::judge(client, domain, action, is_operator) {
            return Some((allowed, Reason::System(rule)));
        }
        if domain == Domain::Cluster && self.is_configured_operator(client) {
            return Some((true, Reason::ConfiguredOperator));
        }
        if !access.is_set_up() {
            let own = domain == Domain::Tenant(client.tenant);
            let look = resource == Resource::Cluster && action == Action::Describe;
            return Some((own || look, Reason::NotSetUp));
        }
        match access.tenants().get(client.tenant) {
            None => return Some((false, Reason::UnknownTenant)),
            Some(Tenant { suspended: true, .. }) => return Some((false, Reason::SuspendedTenant)),
            Some(Tenant { suspended: false, .. }) => {}
        }
        let Domain::Tenant(tenant) = domain else { return None };
        let is_suspended = access.tenants().get(tenant).is_some_and(|tenant| tenant.suspended);
        is_suspended.then_some((false, Reason::SuspendedTenant))
    }
}

/// What casbin says, and the rule by which it does.
fn by_rules(
    access: &Access,
    (client, domain): (Client<'_>, Domain<'_>),
    resource: Resource<'_>,
    action: Action,
) -> (bool, Reason) {
    let decider = Decider::new(access, client, domain);
    let resource = resource.to_text();
    let allowed = decider.allows(&resource, action.name());
    let rule = decider.deciding_rule(&resource, action.name());
    // If casbin cannot decide it denies, and no rule is to be blamed for it.
    let rule = rule.filter(|rule| allowed == (rule.effect == Effect::Allow));
    (allowed, rule.cloned().map_or(Reason::NoRule, Reason::Rule))
}
