//! Who may do what, and how much: tenants with their quotas, the rules of roles and clients, and who has which role.
//!
//! This is what casbin reads: a [`Rule`] is a `p` line and a [`Grant`] a `g` line of its policy, with the tenant as domain. Here they are
//! only kept, checked and changed; who decides by them lives elsewhere. Everything is refused that nobody could mean: unknown actions,
//! patterns in the middle of a name, roles that no rule is about.
//!
//! Changes are compare-and-set on [`Access::version`], so two people who change the policy at once notice each other.
//!
//! Before the catalog has been told how to begin ([`Command::SetUpAccess`](crate::Command::SetUpAccess)) there is nothing of all this, and
//! tenants are whoever has a certificate. Deliberately absent: decisions, and roles in roles.

mod changing;
mod checking;
mod pattern;
mod proposing;
mod quotas;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use pattern::{CLUSTER_DOMAIN, Domain, OPERATOR_ROLE, Resource, covers};
pub use proposing::Proposer;
pub use quotas::{EACH_CLIENT, Limit, Quota, QuotaChange};

use crate::catalog::Catalog;
use crate::reply::Refusal;

/// What the catalog knows of access. Nothing before it has been set up.
///
/// Invariants:
/// * The version is the index of the last command that changed something here, and 0 before the first one.
/// * Once set up, somebody is an operator of the cluster.
/// * Every tenant that owns a topic is listed, and so is every tenant in which a rule or grant counts. Whose client it is about need not
///   be listed: a refusal would tell who manages one tenant which others there are.
/// * Every role that is granted has a rule. A role or client has at most [`SUBJECT_RULES_MAX`](crate::limits::SUBJECT_RULES_MAX) rules in
///   a domain, and as many that count in each tenant. How many roles a client has is only bounded for changes ([`Access::proposed`]);
///   the two together bound what a decision has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    pub(crate) version: u64,
    pub(crate) tenants: BTreeMap<String, Tenant>,
    pub(crate) rules: BTreeSet<Rule>,
    pub(crate) grants: BTreeSet<Grant>,
}

/// A tenant that an operator has made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its clients may do nothing until it is resumed. Its data stays.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspended: bool,
    /// How much all its clients together may use, and what it may own.
    #[serde(default, skip_serializing_if = "Quota::is_empty")]
    pub quota: Quota,
    /// How much single clients may use, by name, or [`EACH_CLIENT`]; never empty ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub client_quotas: BTreeMap<String, Quota>,
}

/// What a role, or one client, may or may not do: a `p` line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A role's name, or a client as `tenant/client`.
    pub subject: String,
    /// A tenant's name, `*` for each tenant that the role is granted in, or [`CLUSTER_DOMAIN`].
    pub domain: String,
    /// What it is about: see [`Resource`]; the name may end with `*`, and then stands for all that begin so.
    pub resource: String,
    /// `produce`, `consume`, `describe`, `manage` or `admin`; `*` for all of them.
    pub action: String,
    /// Who denies wins over all who allow.
    pub effect: Effect,
}

/// Whether a rule allows or denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may, unless another rule denies it.
    Allow,
    /// It may not, whatever other rules say.
    Deny,
}

/// Who has a role, and where: a `g` line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// `tenant/client`, or `tenant/*` for all clients of a tenant.
    pub client: String,
    /// The role's name.
    pub role: String,
    /// A tenant's name, or [`CLUSTER_DOMAIN`].
    pub domain: String,
}

/// What a change of the policy adds and removes. What is there already, or is gone already, is no error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyChange {
    /// Rules that shall be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_rules: Vec<Rule>,
    /// Rules that shall not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_rules: Vec<Rule>,
    /// Grants that shall be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_grants: Vec<Grant>,
    /// Grants that shall not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_grants: Vec<Grant>,
}

impl Access {
    /// Counts the changes, with gaps; 0 before it was set up.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the policy decides; before that, who has a certificate of a tenant may do everything in it.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.version > 0
    }

    /// The tenants, by name.
    #[must_use]
    pub fn tenants(&self) -> &BTreeMap<String, Tenant> {
        &self.tenants
    }

    /// The rules, sorted.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The grants, sorted.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter()
    }

    /// The policy as it would be after a change, whoever makes it; see [`Access::proposed`].
    ///
    /// # Errors
    /// As of [`Command::ChangePolicy`](crate::Command::ChangePolicy).
    pub fn changed(&self, change: &PolicyChange) -> Result<Access, Refusal> {
        let mut access = self.clone();
        access.change(change)?;
        access.check_limits()?;
        Ok(access)
    }

    /// The rules about a role or client that apply in a domain.
    pub fn rules_about<'a>(&'a self, subject: &'a str, domain: Domain<'a>) -> impl Iterator<Item = &'a Rule> + 'a {
        let first = Rule {
            subject: subject.to_owned(),
            domain: String::new(),
            resource: String::new(),
            action: String::new(),
            effect: Effect::Allow,
        };
        let about = self
            .rules
            .range(first..)
            .take_while(move |rule| rule.subject == subject);
        about.filter(move |rule| pattern::applies_in(&rule.domain, domain))
    }

    /// The roles that a client has in a domain.
    pub fn roles_of<'a>(
        &'a self,
        tenant: &'a str,
        client: &'a str,
        domain: Domain<'a>,
    ) -> impl Iterator<Item = &'a str> + 'a {
        let clients = [format!("{tenant}/{client}"), format!("{tenant}/*")];
        clients.into_iter().flat_map(move |client| {
            let first = Grant {
                client: client.clone(),
                role: String::new(),
                domain: String::new(),
            };
            let granted = self
                .grants
                .range(first..)
                .take_while(move |grant| grant.client == client);
            granted
                .filter(move |grant| grant.domain == domain.as_str())
                .map(|grant| grant.role.as_str())
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Access::default()
    }
}

impl Grant {
    /// Whether it is for a client of a tenant.
    #[must_use]
    pub fn includes(&self, tenant: &str, client: &str) -> bool {
        match self.client.split_once('/') {
            Some((of, name)) => of == tenant && (name == client || name == "*"),
            None => false,
        }
    }
}

impl Catalog {
    /// Tenants and policy; this version stays as it is.
    #[must_use]
    pub fn access(&self) -> &Arc<Access> {
        &self.state.access
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        })
    }
}

/// As a line of a casbin policy.
impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule {
            subject,
            domain,
            resource,
            action,
            effect,
        } = self;
        write!(out, "p, {subject}, {domain}, {resource}, {action}, {effect}")
    }
}

/// As a line of a casbin policy.
impl fmt::Display for Grant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "g, {}, {}, {}", self.client, self.role, self.domain)
    }
}

fn is_false(value: &bool) -> bool {
    !value
}
