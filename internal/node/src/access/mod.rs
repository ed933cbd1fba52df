//! Who may do what: the one place that answers it, and the proof that it was asked.
//!
//! [`Authority::authorize`] turns a question into a [`Permit`], and nothing else can make one: its fields are private to this
//! module. Everything that touches a topic takes a permit, so a forgotten check does not compile.
//!
//! * The policy (`certs/policy.csv` at first) lives in the catalog; casbin reads it (`decider`) by the model in `certs/model.conf`;
//!   `authority` keeps what it has decided.
//! * A topic that the caller may not even look at is answered exactly like one that does not exist, so that nobody can learn by trying
//!   what others have.
//! * A node is not a client and may do nothing here: nodes talk over the peer link.
//!
//! Deliberately absent: addresses, headers and times of day, which decide nothing.

mod authority;
mod decider;
mod defaults;

use std::fmt;

use highwater_catalog::names::{self, InvalidName};
use highwater_catalog::{self as catalog, Domain};
use highwater_partition::log::PrincipalDigest;
use sha2::{Digest, Sha256};

pub(crate) use authority::{Authority, Reason};
pub(crate) use decider::Client;
pub(crate) use defaults::{FirstPolicy, OWNER_ROLE};

use crate::identity::Identity;

/// Who calls, as proven by the connection's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    identity: Identity,
    digest: PrincipalDigest,
}

impl Principal {
    pub(crate) fn new(identity: &Identity) -> Principal {
        let hash = Sha256::digest(identity.to_string().as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Principal {
            identity: identity.clone(),
            digest: PrincipalDigest(digest),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What stands for the principal where its name would take too much room.
    pub(crate) fn digest(&self) -> PrincipalDigest {
        self.digest
    }

    /// The tenant of a client; nodes have none.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match &self.identity {
            Identity::Client { tenant, .. } => Some(tenant),
            Identity::Node { .. } => None,
        }
    }
}

impl Principal {
    /// As the policy names it; nodes are not named there.
    pub(crate) fn client(&self) -> Option<Client<'_>> {
        match &self.identity {
            Identity::Client { tenant, name, .. } => Some(Client { tenant, name }),
            Identity::Node { .. } => None,
        }
    }

    /// Inside its cluster: tenant/client.
    pub(crate) fn short_name(&self) -> String {
        match &self.identity {
            Identity::Client { tenant, name, .. } => format!("{tenant}/{name}"),
            Identity::Node { name, .. } => name.clone(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(formatter)
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Produce,
    Consume,
    /// Look at.
    Describe,
    /// Create, change, delete.
    Manage,
    /// Move, drain and remove what all tenants share.
    Admin,
}

impl Action {
    const ALL: [Action; 5] = [
        Action::Produce,
        Action::Consume,
        Action::Describe,
        Action::Manage,
        Action::Admin,
    ];

    pub(crate) fn from_name(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.name() == name)
    }

    /// As rules write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Produce => "produce",
            Action::Consume => "consume",
            Action::Describe => "describe",
            Action::Manage => "manage",
            Action::Admin => "admin",
        }
    }
}

/// What it is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Nodes, leaders and their addresses; nothing of any tenant.
    Cluster,
    /// The tenant as such: the set of its topics, its policy, its use.
    Tenant(String),
    Topic(TopicName),
    /// A consumer group, on whatever topic of the tenant.
    Group {
        tenant: String,
        group: String,
    },
}

impl Resource {
    /// As the policy names it: where, and what.
    fn in_policy(&self) -> (Domain<'_>, catalog::Resource<'_>) {
        match self {
            Resource::Cluster => (Domain::Cluster, catalog::Resource::Cluster),
            Resource::Tenant(tenant) => (Domain::Tenant(tenant), catalog::Resource::Tenant),
            Resource::Topic(name) => (Domain::Tenant(&name.tenant), catalog::Resource::Topic(&name.topic)),
            Resource::Group { tenant, group } => (Domain::Tenant(tenant), catalog::Resource::Group(group)),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Cluster => write!(formatter, "the cluster"),
            Resource::Tenant(tenant) => write!(formatter, "tenant `{tenant}`"),
            Resource::Topic(name) => write!(formatter, "topic `{name}`"),
            Resource::Group { tenant, group } => write!(formatter, "group `{group}` of tenant `{tenant}`"),
        }
    }
}

/// A topic in full: whose it is and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TopicName {
    pub(crate) tenant: String,
    pub(crate) topic: String,
}

impl TopicName {
    /// Reads `topic` or `tenant/topic`; the first belongs to `own_tenant`.
    pub(crate) fn parse(text: &str, own_tenant: &str) -> Result<TopicName, InvalidName> {
        let (tenant, topic) = text.split_once('/').unwrap_or((own_tenant, text));
        names::validate("tenant", tenant)?;
        names::validate("topic", topic)?;
        Ok(TopicName {
            tenant: tenant.to_owned(),
            topic: topic.to_owned(),
        })
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.tenant, self.topic)
    }
}

/// The proof that somebody may do something to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permit {
    principal: PrincipalDigest,
    action: Action,
    resource: Resource,
}

impl Permit {
    /// Who was permitted, for what remembers it.
    pub(crate) fn principal(&self) -> PrincipalDigest {
        self.principal
    }

    /// The topic, if it is a permit for `action` on one.
    pub(crate) fn topic(&self, action: Action) -> Option<&TopicName> {
        match &self.resource {
            Resource::Topic(name) if self.action == action => Some(name),
            _ => None,
        }
    }
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// To be answered as if the topic did not exist.
    #[error("topic `{0}` does not exist")]
    Hidden(TopicName),
    #[error("{principal} may not {what}")]
    Forbidden { principal: String, what: String },
}

impl Denied {
    /// The same without the pretence, for who does not ask whether there is such a topic.
    pub(crate) fn openly(self) -> Denied {
        match self {
            Denied::Hidden(name) => Denied::Forbidden {
                principal: "this client".to_owned(),
                what: format!("manage topic `{name}`"),
            },
            forbidden => forbidden,
        }
    }
}

impl Authority {
    /// Whether `principal` may do `action` to `resource`.
    pub(crate) fn authorize(
        &self,
        principal: &Principal,
        action: Action,
        resource: Resource,
    ) -> Result<Permit, Denied> {
        let Some(client) = principal.client() else {
            return Err(Denied::Forbidden {
                principal: principal.to_string(),
                what: "use the services for clients: it has a node's certificate".to_owned(),
            });
        };
        let (domain, named) = resource.in_policy();
        if self.allows(client, domain, named, action) {
            return Ok(Permit {
                principal: principal.digest,
                action,
                resource,
            });
        }
        if let Some(why) = self.shut_out(client) {
            return Err(Denied::Forbidden {
                principal: principal.to_string(),
                what: format!("do anything here: {why}"),
            });
        }
        let may_know = action != Action::Describe && self.allows(client, domain, named, Action::Describe);
        match resource {
            Resource::Topic(name) if !may_know => Err(Denied::Hidden(name)),
            resource => Err(Denied::Forbidden {
                principal: principal.to_string(),
                what: format!("{} {resource}", action.name()),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
