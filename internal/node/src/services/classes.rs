//! Every method has a class, which says who may call it at all.
//!
//! Each handler asks the policy about what it is to do; this asks before any of them, by the name of the method alone. A method that is
//! not in the table is refused, so that one that somebody adds and forgets here is found by its first call, and by a test.
//!
//! Whatever asks the policy needs one that is current: a node that is cut off from the catalog refuses all of it here.
//!
//! Deliberately absent: calls between nodes. They are no gRPC methods, and no client's connection reaches them.

use std::sync::Arc;

use http::Request;

use crate::port::Peer;
use crate::services::Context;
use crate::status::Problem;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Whoever has a certificate of the cluster: health, and the description of the services.
    Public,
    /// Clients; what they may do there is the policy's.
    Client,
    /// Clients that may `admin` the cluster.
    Operator,
}

/// Services of which every method is public.
const PUBLIC_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The methods of our own services.
pub(crate) const METHODS: [(&str, &str, Class); 34] = [
    ("AccessService", "WhoAmI", Class::Client),
    ("AccessService", "GetPolicy", Class::Client),
    ("AccessService", "ChangePolicy", Class::Client),
    ("AccessService", "Explain", Class::Client),
    ("AccessService", "ListTenants", Class::Operator),
    ("AccessService", "CreateTenant", Class::Operator),
    ("AccessService", "SuspendTenant", Class::Operator),
    ("AccessService", "DeleteTenant", Class::Operator),
    ("AccessService", "DescribeTenant", Class::Client),
    ("AccessService", "ChangeQuota", Class::Operator),
    ("ClusterService", "DescribeCluster", Class::Client),
    ("ClusterService", "WatchCluster", Class::Client),
    ("ClusterService", "TransferLeader", Class::Operator),
    ("ClusterService", "DrainNode", Class::Operator),
    ("ClusterService", "DecommissionNode", Class::Operator),
    ("ClusterService", "MoveReplica", Class::Operator),
    ("ClusterService", "RecoverPartition", Class::Operator),
    ("ClusterService", "UpdateSettings", Class::Operator),
    ("GroupService", "JoinGroup", Class::Client),
    ("GroupService", "DescribeGroup", Class::Client),
    ("GroupService", "ClaimPartition", Class::Client),
    ("GroupService", "CommitOffset", Class::Client),
    ("GroupService", "ListGroups", Class::Client),
    ("GroupService", "ResetOffset", Class::Client),
    ("GroupService", "DeleteGroup", Class::Client),
    ("LogService", "Produce", Class::Client),
    ("LogService", "ProduceStream", Class::Client),
    ("LogService", "Consume", Class::Client),
    ("LogService", "ListOffsets", Class::Client),
    ("TopicService", "CreateTopic", Class::Client),
    ("TopicService", "GetTopic", Class::Client),
    ("TopicService", "ListTopics", Class::Client),
    ("TopicService", "UpdateTopic", Class::Client),
    ("TopicService", "DeleteTopic", Class::Client),
];

/// The class of `/package.Service/Method`; None for what is not known here.
fn class_of(path: &str) -> Option<Class> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    if PUBLIC_SERVICES.contains(&service) {
        return Some(Class::Public);
    }
    let service = service.strip_prefix("highwater.v1.")?;
    let mut methods = METHODS.iter();
    let found = methods.find(|(known, name, _)| *known == service && *name == method);
    found.map(|(_, _, class)| *class)
}

/// Whether a call of a method that was admitted costs nothing of any quota.
pub(super) fn is_free(path: &str) -> bool {
    matches!(class_of(path), Some(Class::Public | Class::Operator))
}

/// Whether the request's caller may call its method at all.
pub(super) fn admit<B>(context: &Context, request: &Request<B>) -> Result<(), Problem> {
    let path = request.uri().path();
    let Some(class) = class_of(path) else {
        return Err(Problem::NoSuchMethod(path.to_owned()));
    };
    if class == Class::Public {
        return Ok(());
    }
    let peer = request.extensions().get::<Arc<Peer>>();
    let peer = peer.ok_or_else(|| Problem::Internal("a call without a proven caller".to_owned()))?;
    if peer.identity.node_name().is_some() {
        let who = &peer.identity;
        let why = format!("{who} may not use the services for clients: it has a node's certificate");
        context.audit_node(peer);
        return Err(Problem::Denied(why));
    }
    context.currency.check()?;
    // Only here: a principal is a hash, and each handler makes its own.
    match class {
        Class::Operator => context.admit_operator(peer, path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use highwater_proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// All methods of a set of descriptors, as they are called.
    fn paths(descriptors: &[u8]) -> BTreeSet<String> {
        let set = FileDescriptorSet::decode(descriptors).unwrap();
        let mut paths = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    paths.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        paths
    }

    #[test]
    fn every_method_has_a_class_and_every_class_a_method() {
        let paths = paths(FILE_DESCRIPTOR_SET);
        let classed = METHODS.map(|(service, method, _)| format!("/highwater.v1.{service}/{method}"));
        assert_eq!(BTreeSet::from(classed), paths);
        let health = self::paths(tonic_health::pb::FILE_DESCRIPTOR_SET);
        assert!(!health.is_empty() && health.iter().all(|path| class_of(path) == Some(Class::Public)));
    }

    #[test]
    fn only_the_exact_name_has_a_class() {
        assert_eq!(class_of("/highwater.v1.LogService/Produce"), Some(Class::Client));
        for path in [
            "",
            "/",
            "highwater.v1.LogService/Produce",
            "/highwater.v1.LogService/produce",
            "/highwater.v1.LogService/Produce/",
            "/highwater.v1.LogService//Produce",
            "//highwater.v1.LogService/Produce",
            "/highwater.v1.LogService/UpdateSettings",
            "/highwater.v2.LogService/Produce",
            "/LogService/Produce",
            "/grpc.health.v1.Health.x/Check",
        ] {
            assert_eq!(class_of(path), None, "{path}");
        }
    }
}
