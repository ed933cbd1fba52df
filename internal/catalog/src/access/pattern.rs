//! The words of the policy: domains, resources, clients, actions; and which pattern covers what.
//!
//! A resource is `kind:name`. A pattern is that, or a kind with the beginning of a name and one `*` at the end, or `*` alone. Names are
//! compared byte by byte; nothing is normalised, nothing is a regular expression, and the tenant is never part of the text that is
//! compared.

use crate::access::{Grant, Rule};
use crate::checks;
use crate::limits::NAME_BYTES_MAX;
use crate::names;
use crate::reply::Refusal;

/// The domain of what all tenants share. No tenant can be called so.
pub const CLUSTER_DOMAIN: &str = "@cluster";
/// The role of those who run the cluster.
pub const OPERATOR_ROLE: &str = "operator";
/// Everything of its place.
const ANY: &str = "*";
const ACTIONS: [&str; 6] = ["produce", "consume", "describe", "manage", "admin", ANY];

/// Where something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain<'a> {
    /// In a tenant.
    Tenant(&'a str),
    /// In what all tenants share.
    Cluster,
}

impl<'a> Domain<'a> {
    /// As rules and grants write it.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        match self {
            Domain::Tenant(tenant) => tenant,
            Domain::Cluster => CLUSTER_DOMAIN,
        }
    }
}

/// What something is done to, inside its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// `topic:name`.
    Topic(&'a str),
    /// `group:name`: a consumer group, on whatever topic.
    Group(&'a str),
    /// `tenant:`: the tenant as such: its list of topics, its policy, its use.
    Tenant,
    /// `cluster:`: nodes, leaders, settings.
    Cluster,
}

impl Resource<'_> {
    /// As patterns are compared with it.
    #[must_use]
    pub fn to_text(self) -> String {
        match self {
            Resource::Topic(name) => format!("topic:{name}"),
            Resource::Group(name) => format!("group:{name}"),
            Resource::Tenant => "tenant:".to_owned(),
            Resource::Cluster => "cluster:".to_owned(),
        }
    }
}

/// Whether a pattern of a rule is about a resource, written as by [`Resource::to_text`].
#[must_use]
pub fn covers(pattern: &str, resource: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => resource.starts_with(beginning),
        None => pattern == resource,
    }
}

/// Whether a rule for `of` is about what happens in `domain`.
pub(super) fn applies_in(of: &str, domain: Domain<'_>) -> bool {
    of == domain.as_str() || (of == ANY && domain != Domain::Cluster)
}

pub(super) fn check_rule(rule: &Rule) -> Result<(), Refusal> {
    match rule.subject.split_once('/') {
        Some((tenant, client)) => {
            names::validate("tenant", tenant)?;
            names::validate("client", client)?;
            if rule.domain == ANY {
                let why = "a rule about one client names the tenant that it is for".to_owned();
                return Err(checks::invalid("domain", why));
            }
        }
        None => names::validate("role", &rule.subject)?,
    }
    if rule.domain != ANY {
        check_domain(&rule.domain)?;
    }
    check_resource(&rule.resource)?;
    if !ACTIONS.contains(&rule.action.as_str()) {
        let why = format!("{:?} is none of {}", shortened(&rule.action), ACTIONS.join(", "));
        return Err(checks::invalid("action", why));
    }
    Ok(())
}

pub(super) fn check_grant(grant: &Grant) -> Result<(), Refusal> {
    let Some((tenant, client)) = grant.client.split_once('/') else {
        let why = format!("{:?} is neither tenant/client nor tenant/*", shortened(&grant.client));
        return Err(checks::invalid("client", why));
    };
    names::validate("tenant", tenant)?;
    if client != ANY {
        names::validate("client", client)?;
    }
    names::validate("role", &grant.role)?;
    check_domain(&grant.domain)?;
    let is_whole_tenant_operator = client == ANY && grant.domain == CLUSTER_DOMAIN;
    if is_whole_tenant_operator {
        let why = "roles in the cluster are granted to clients by name".to_owned();
        return Err(checks::invalid("client", why));
    }
    Ok(())
}

fn check_domain(domain: &str) -> Result<(), Refusal> {
    if domain == CLUSTER_DOMAIN {
        return Ok(());
    }
    Ok(names::validate("tenant", domain)?)
}

fn check_resource(pattern: &str) -> Result<(), Refusal> {
    let invalid = |why: String| Err(checks::invalid("resource", why));
    if pattern == ANY {
        return Ok(());
    }
    match pattern.split_once(':') {
        Some(("topic" | "group", name)) => match name.strip_suffix('*') {
            None => Ok(names::validate("resource", name)?),
            Some(beginning) if beginning.len() <= NAME_BYTES_MAX && beginning.bytes().all(is_name_byte) => Ok(()),
            Some(_) => invalid(format!(
                "{:?} is not the beginning of a name and one * at its end",
                shortened(name)
            )),
        },
        Some(("tenant" | "cluster", "")) => Ok(()),
        _ => invalid(format!(
            "{:?} is none of topic:NAME, topic:BEGINNING*, group:NAME, group:BEGINNING*, tenant:, cluster: and *",
            shortened(pattern)
        )),
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
}

fn shortened(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 200;
    text.chars().take(SHOWN_CHARACTERS_MAX).collect()
}
