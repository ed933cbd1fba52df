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
//! * What is refused to a call is told to the audit, once. Whoever only looks what may be shown uses [`Authority::check`], which
//!   tells nobody.
//! * What belongs to the cluster itself has rules above the policy (`system`).
//!
//! Deliberately absent: addresses, headers and times of day, which decide nothing.

mod authority;
mod decider;
mod decisions;
mod defaults;
mod system;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use highwater_catalog::names::{self, InvalidName};
use highwater_catalog::{self as catalog, Domain};
use highwater_partition::log::PrincipalDigest;
use sha2::{Digest, Sha256};

pub(crate) use authority::{Authority, Reason};
pub(crate) use decider::Client;
pub(crate) use defaults::{FirstPolicy, OWNER_ROLE};
pub(crate) use system::audit_writer;

use crate::identity::Identity;
use crate::port::Peer;

/// Who calls, as proven by the connection's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    identity: Identity,
    digest: PrincipalDigest,
    /// Where it calls from, if that is at hand; for the audit, and decides nothing.
    remote: Option<SocketAddr>,
    /// What became of it so far, if it carries out an act. Otherwise what is refused is recorded by itself.
    act: Option<Arc<Course>>,
}

/// What the record of an act has to know.
#[derive(Debug, Default, PartialEq, Eq)]
struct Course {
    /// Managing or administrating something was permitted.
    permitted: OnceLock<()>,
    refused: OnceLock<Refused>,
    /// Something was changed, though perhaps not all.
    begun: OnceLock<()>,
}

/// What was refused to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) action: Action,
    pub(crate) resource: Resource,
    /// It was answered as if it did not exist.
    is_hidden: bool,
}

impl Refused {
    pub(crate) fn new(action: Action, resource: &Resource, denied: &Denied) -> Refused {
        Refused {
            action,
            resource: resource.clone(),
            is_hidden: matches!(denied, Denied::Hidden(_)),
        }
    }
}

impl Principal {
    pub(crate) fn new(identity: &Identity) -> Principal {
        let hash = Sha256::digest(identity.to_string().as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Principal {
            identity: identity.clone(),
            digest: PrincipalDigest(digest),
            remote: None,
            act: None,
        }
    }

    /// Who is at the other end of a connection.
    pub(crate) fn of(peer: &Peer) -> Principal {
        Principal {
            remote: Some(peer.remote_addr),
            ..Principal::new(&peer.identity)
        }
    }

    /// Somebody who has proven an identity in another way than on the port.
    pub(crate) fn calling(identity: &Identity, remote: SocketAddr) -> Principal {
        Principal {
            remote: Some(remote),
            ..Principal::new(identity)
        }
    }

    /// The same, as one who carries out an act: what is refused to it is noted here, and told with the act.
    pub(crate) fn in_an_act(self) -> Principal {
        Principal {
            act: Some(Arc::default()),
            ..self
        }
    }

    /// What was refused to who carries out an act, if anything was.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        self.act.as_ref()?.refused.get()
    }

    /// Whether an act is one that anybody can try: nothing was permitted that acts need.
    pub(crate) fn is_outsider(&self) -> bool {
        let permitted = |act: &Arc<Course>| act.refused.get().is_none() && act.permitted.get().is_some();
        !self.act.as_ref().is_some_and(permitted)
    }

    /// From now on an act that fails has changed something all the same.
    pub(crate) fn note_begun(&self) {
        if let Some(act) = &self.act {
            let _ = act.begun.set(()); // it may be noted more than once
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.act.as_ref().is_some_and(|act| act.begun.get().is_some())
    }

    /// Where it calls from, if that is at hand.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote
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
    /// The same without the pretence, for who does not ask whether there is such a topic, but may no longer do `action` to it.
    pub(crate) fn openly(self, action: Action) -> Denied {
        match self {
            Denied::Hidden(name) => Denied::Forbidden {
                principal: "this client".to_owned(),
                what: format!("{} topic `{name}`", action.name()),
            },
            forbidden => forbidden,
        }
    }
}

impl Authority {
    /// Whether `principal` may do `action` to `resource`. That it may not is told to the audit.
    pub(crate) fn authorize(
        &self,
        principal: &Principal,
        action: Action,
        resource: Resource,
    ) -> Result<Permit, Denied> {
        if let Err(denied) = self.check(principal, action, &resource) {
            self.tell_audit(principal, action, &resource, &denied);
            return Err(denied);
        }
        if matches!(action, Action::Manage | Action::Admin)
            && let Some(act) = &principal.act
        {
            let _ = act.permitted.set(()); // once is enough
        }
        Ok(Permit {
            principal: principal.digest,
            action,
            resource,
        })
    }

    /// The same for who only looks what may be shown: it permits nothing, and nobody is told.
    pub(crate) fn check(&self, principal: &Principal, action: Action, resource: &Resource) -> Result<(), Denied> {
        let Some(client) = principal.client() else {
            return Err(Denied::Forbidden {
                principal: principal.to_string(),
                what: NOT_A_CLIENT.to_owned(),
            });
        };
        let (domain, named) = resource.in_policy();
        if self.allows(client, domain, named, action) {
            return Ok(());
        }
        if let Some(why) = self.shut_out(client) {
            return Err(Denied::Forbidden {
                principal: principal.to_string(),
                what: format!("do anything here: {why}"),
            });
        }
        let may_know = action != Action::Describe && self.allows(client, domain, named, Action::Describe);
        match resource {
            Resource::Topic(name) if !may_know => Err(Denied::Hidden(name.clone())),
            resource => Err(Denied::Forbidden {
                principal: principal.to_string(),
                what: format!("{} {resource}", action.name()),
            }),
        }
    }

    fn tell_audit(&self, principal: &Principal, action: Action, resource: &Resource, denied: &Denied) {
        let refused = Refused::new(action, resource, denied);
        match &principal.act {
            // The first refusal ends the act.
            Some(act) => drop(act.refused.set(refused)),
            None => self
                .audit
                .denied(principal, &refused, || self.reason(principal, &refused)),
        }
    }

    /// Why it was refused, for the audit: the true reason, also where the caller does not hear it. As slow
    /// as a decision that nobody has made before.
    pub(crate) fn reason(&self, principal: &Principal, refused: &Refused) -> String {
        let Some(client) = principal.client() else {
            return format!("may not {NOT_A_CLIENT}");
        };
        let (domain, named) = refused.resource.in_policy();
        let (_, reason) = self.explain(&self.access(), client, domain, named, refused.action);
        match refused.is_hidden {
            true => format!("{reason}; answered as if it did not exist"),
            false => reason.to_string(),
        }
    }
}

/// What is refused to nodes.
const NOT_A_CLIENT: &str = "use the services for clients: it has a node's certificate";

#[cfg(test)]
mod tests;
