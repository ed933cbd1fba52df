//! What belongs to the cluster itself: the tenant `system`, and the audit topic in it.
//!
//! What stands there is only worth something if nobody but the nodes can write it. So these rules stand above the policy, and no
//! grant changes them: nobody produces there, operators of the cluster may look and set for how long it is kept, and a certificate
//! that claims to be of this tenant is worth nothing. Whom else the operators let read it, they say by grants in that tenant.

use std::fmt;

use highwater_catalog::Domain;
use highwater_catalog::names::{AUDIT_TOPIC, SYSTEM_TENANT};

use super::{Action, Client, Denied, Permit, Principal, Resource, TopicName};
use crate::identity::Identity;

/// Which of these rules decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemRule {
    /// Nobody is a client of this tenant.
    NoClients,
    /// Only nodes write there.
    WrittenByNodes,
    /// Operators may look.
    ReadByOperators,
    /// Operators set it, and nobody else.
    SetByOperators,
}

/// For a person.
impl fmt::Display for SystemRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SystemRule::NoClients => write!(
                out,
                "the tenant `{SYSTEM_TENANT}` is the cluster's own and has no clients"
            ),
            SystemRule::WrittenByNodes => write!(out, "only the nodes write what is in tenant `{SYSTEM_TENANT}`"),
            SystemRule::ReadByOperators => {
                write!(
                    out,
                    "operators of the cluster may read what is in tenant `{SYSTEM_TENANT}`"
                )
            }
            SystemRule::SetByOperators => {
                write!(
                    out,
                    "operators of the cluster, and nobody else, set what is in tenant `{SYSTEM_TENANT}`"
                )
            }
        }
    }
}

/// Whether the client is of the tenant that has none.
pub(super) fn is_of_system(client: Client<'_>) -> bool {
    client.tenant == SYSTEM_TENANT
}

/// What is decided above the policy; None: the policy decides.
pub(super) fn judge(
    client: Client<'_>,
    domain: Domain<'_>,
    action: Action,
    is_operator: impl Fn() -> bool,
) -> Option<(bool, SystemRule)> {
    if is_of_system(client) {
        return Some((false, SystemRule::NoClients));
    }
    if domain != Domain::Tenant(SYSTEM_TENANT) {
        return None;
    }
    match action {
        Action::Produce => Some((false, SystemRule::WrittenByNodes)),
        Action::Manage | Action::Admin => Some((is_operator(), SystemRule::SetByOperators)),
        Action::Describe | Action::Consume => is_operator().then_some((true, SystemRule::ReadByOperators)),
    }
}

/// Who a node is when it writes into the audit topic.
pub(crate) fn audit_writer(cluster: &str, node: &str) -> Principal {
    Principal::new(&Identity::Node {
        cluster: cluster.to_owned(),
        name: node.to_owned(),
    })
}

impl Permit {
    /// For a node, to write into the audit topic; the only way there.
    pub(crate) fn to_audit(writer: &Principal) -> Permit {
        Permit {
            principal: writer.digest,
            action: Action::Produce,
            resource: Resource::Topic(TopicName {
                tenant: SYSTEM_TENANT.to_owned(),
                topic: AUDIT_TOPIC.to_owned(),
            }),
        }
    }

    /// For the console of a node whose settings let whoever reaches it on loopback see records: to consume one topic, in nobody's name. Not
    /// what belongs to the cluster itself: who did what there is for operators, who prove that they are.
    pub(crate) fn for_console(node: &Principal, topic: TopicName) -> Result<Permit, Denied> {
        if topic.tenant == SYSTEM_TENANT {
            return Err(Denied::Forbidden {
                principal: "whoever proves nothing".to_owned(),
                what: format!("consume topic `{topic}`"),
            });
        }
        Ok(Permit {
            principal: node.digest,
            action: Action::Consume,
            resource: Resource::Topic(topic),
        })
    }
}
