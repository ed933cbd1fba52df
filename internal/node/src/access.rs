//! Who may do what: the one place that answers it, and the proof that it was asked.
//!
//! [`authorize`] turns a question into a [`Permit`], and nothing else can make one: its fields are private to this
//! module. Everything that touches a topic takes a permit, so a forgotten check does not compile.
//!
//! The rule at present: a client may do everything inside its own tenant, and look at the cluster; the clients that a
//! node's configuration calls operators may change the cluster, too; a node is not a client and may do nothing here (nodes
//! talk over the peer link). A topic of another tenant is answered exactly like
//! one that does not exist, so that nobody can learn by trying what others have.
//!
//! Deliberately absent: roles, grants and a cache of decisions; they come behind the same function.

use std::collections::BTreeSet;
use std::fmt;

use highwater_catalog::names::{self, InvalidName};
use highwater_partition::log::PrincipalDigest;
use sha2::{Digest, Sha256};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// What it is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Nodes, leaders and their addresses; nothing of any tenant.
    Cluster,
    /// The set of a tenant's topics.
    Tenant(String),
    Topic(TopicName),
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

    /// The tenant whose topics may be seen, if it is a permit to describe one.
    pub(crate) fn described_tenant(&self) -> Option<&str> {
        match &self.resource {
            Resource::Tenant(tenant) if self.action == Action::Describe => Some(tenant),
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

/// The clients that may change the cluster, as a node's configuration names them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operators {
    /// Tenant and name.
    clients: BTreeSet<(String, String)>,
}

impl Operators {
    /// From `tenant/client` each; the configuration has been checked.
    pub(crate) fn new(clients: &[String]) -> Operators {
        let split = clients.iter().filter_map(|client| client.split_once('/'));
        Operators {
            clients: split
                .map(|(tenant, name)| (tenant.to_owned(), name.to_owned()))
                .collect(),
        }
    }

    /// Whether `principal` may change the cluster.
    pub(crate) fn authorize(&self, principal: &Principal) -> Result<Permit, Denied> {
        let is_operator = match &principal.identity {
            Identity::Client { tenant, name, .. } => self.clients.contains(&(tenant.clone(), name.clone())),
            Identity::Node { .. } => false,
        };
        if !is_operator {
            return authorize(principal, Action::Admin, Resource::Cluster);
        }
        Ok(Permit {
            principal: principal.digest,
            action: Action::Admin,
            resource: Resource::Cluster,
        })
    }
}

/// Whether `principal` may do `action` to `resource`.
pub(crate) fn authorize(principal: &Principal, action: Action, resource: Resource) -> Result<Permit, Denied> {
    let forbidden = |what: String| Denied::Forbidden {
        principal: principal.to_string(),
        what,
    };
    let Some(own_tenant) = principal.tenant() else {
        return Err(forbidden(
            "use the services for clients: it has a node's certificate".to_owned(),
        ));
    };
    match (&resource, action) {
        (Resource::Cluster, Action::Describe) => {}
        (Resource::Cluster, _) => return Err(forbidden("change the cluster: it is no operator".to_owned())),
        (Resource::Tenant(tenant), _) if tenant == own_tenant => {}
        (Resource::Tenant(tenant), _) => return Err(forbidden(format!("use tenant `{tenant}`"))),
        (Resource::Topic(name), _) if name.tenant == own_tenant => {}
        (Resource::Topic(name), _) => return Err(Denied::Hidden(name.clone())),
    }
    Ok(Permit {
        principal: principal.digest,
        action,
        resource,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(tenant: &str, name: &str) -> Principal {
        Principal::new(&Identity::Client {
            cluster: "prod".to_owned(),
            tenant: tenant.to_owned(),
            name: name.to_owned(),
        })
    }

    fn node() -> Principal {
        Principal::new(&Identity::Node {
            cluster: "prod".to_owned(),
            name: "a".to_owned(),
        })
    }

    fn topic(tenant: &str) -> Resource {
        Resource::Topic(TopicName {
            tenant: tenant.to_owned(),
            topic: "orders".to_owned(),
        })
    }

    const ACTIONS: [Action; 4] = [Action::Produce, Action::Consume, Action::Describe, Action::Manage];

    #[test]
    fn only_operators_may_change_the_cluster() {
        let operators = Operators::new(&["ops/anna".to_owned()]);
        assert!(operators.authorize(&client("ops", "anna")).is_ok());
        for other in [client("ops", "bert"), client("shop", "anna"), node()] {
            let denied = operators.authorize(&other);
            assert!(matches!(denied, Err(Denied::Forbidden { .. })), "{denied:?}");
        }
        assert!(Operators::default().authorize(&client("ops", "anna")).is_err());
    }

    #[test]
    fn a_client_may_do_everything_in_its_own_tenant() {
        for action in ACTIONS {
            for resource in [topic("shop"), Resource::Tenant("shop".to_owned())] {
                assert!(
                    authorize(&client("shop", "web"), action, resource).is_ok(),
                    "{action:?}"
                );
            }
        }
    }

    #[test]
    fn a_foreign_topic_is_hidden_for_every_action() {
        for action in ACTIONS {
            for tenant in ["shopx", "sho", "other"] {
                let denied = authorize(&client("shop", "web"), action, topic(tenant)).unwrap_err();
                assert!(matches!(denied, Denied::Hidden(_)), "{action:?} {tenant}");
            }
        }
    }

    #[test]
    fn a_foreign_tenant_is_forbidden_and_the_cluster_can_only_be_looked_at() {
        let web = client("shop", "web");
        for action in ACTIONS {
            let denied = authorize(&web, action, Resource::Tenant("other".to_owned()));
            assert!(matches!(denied, Err(Denied::Forbidden { .. })));
            assert_eq!(
                authorize(&web, action, Resource::Cluster).is_ok(),
                action == Action::Describe
            );
        }
    }

    #[test]
    fn a_node_certificate_is_not_a_client() {
        for action in ACTIONS {
            for resource in [Resource::Cluster, Resource::Tenant("a".to_owned()), topic("a")] {
                assert!(matches!(
                    authorize(&node(), action, resource),
                    Err(Denied::Forbidden { .. })
                ));
            }
        }
    }

    #[test]
    fn a_permit_serves_for_its_own_action_only() {
        let permit = authorize(&client("shop", "web"), Action::Consume, topic("shop")).unwrap();
        assert!(permit.topic(Action::Consume).is_some());
        assert!(permit.topic(Action::Produce).is_none());
        assert!(permit.described_tenant().is_none());
    }

    #[test]
    fn topic_names_belong_to_the_own_tenant_unless_they_say_otherwise() {
        let name = TopicName::parse("orders", "shop").unwrap();
        assert_eq!(name.to_string(), "shop/orders");
        assert_eq!(TopicName::parse("other/orders", "shop").unwrap().tenant, "other");
        for wrong in ["", "/", "a/", "/a", "a/b/c", "Orders", "a..b", "../x", "a b"] {
            assert!(TopicName::parse(wrong, "shop").is_err(), "{wrong}");
        }
    }

    #[test]
    fn principals_have_distinct_digests() {
        assert_eq!(client("shop", "web").digest, client("shop", "web").digest);
        assert_ne!(client("shop", "web").digest, client("shop", "app").digest);
        assert_ne!(client("shop", "a").digest, node().digest);
    }
}
