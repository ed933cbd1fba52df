//! What the catalog refused, as a problem of the call that asked for it.

use highwater_catalog::{Limit, Refusal};

use super::Problem;

impl Problem {
    /// What the catalog refused.
    pub(crate) fn from_refusal(refusal: &Refusal) -> Problem {
        match refusal {
            Refusal::TopicExists { tenant, name, .. } => Problem::TopicExists {
                topic: format!("{tenant}/{name}"),
            },
            Refusal::TopicNotFound { tenant, name } => Problem::TopicNotFound {
                topic: format!("{tenant}/{name}"),
            },
            Refusal::TopicChanged {
                tenant, name, wanted, ..
            } => Problem::TopicChanged {
                topic: format!("{tenant}/{name}"),
                wanted: *wanted,
            },
            Refusal::NotEnoughNodes { wanted, have } => Problem::NotEnoughNodes {
                wanted: *wanted,
                have: *have,
            },
            Refusal::TooManyTopics { limit, .. } => {
                let limit = *limit as u64;
                Problem::TooLarge {
                    field: "topics",
                    found: limit + 1,
                    limit,
                }
            }
            Refusal::TooManyPartitions { wanted, limit } => Problem::TooLarge {
                field: "partitions",
                found: u64::from(*wanted),
                limit: u64::from(*limit),
            },
            Refusal::TooManyReplicas { wanted, limit } => Problem::TooLarge {
                field: "replication",
                found: u64::from(*wanted),
                limit: u64::from(*limit),
            },
            Refusal::InvalidName { field, why } => Problem::Invalid {
                field: name_field(field),
                why: why.clone(),
            },
            Refusal::InvalidValue { field, why } => Problem::Invalid {
                field: request_field(field),
                why: why.clone(),
            },
            Refusal::NodeNotFound { node } => Problem::NodeNotFound { node: node.clone() },
            Refusal::FewerPartitions { .. } => Problem::Invalid {
                field: "partitions",
                why: refusal.to_string(),
            },
            Refusal::PolicyChanged { version, .. } => Problem::PolicyChanged { version: *version },
            Refusal::OverQuota { tenant, of, limit } => Problem::OverQuota {
                who: format!("tenant {tenant}"),
                limit: of.name(),
                most: *limit,
                retry_after: None,
            },
            Refusal::TenantNotFound { tenant } => Problem::TenantNotFound { tenant: tenant.clone() },
            Refusal::AccessNotSetUp
            | Refusal::PolicyTooLarge { .. }
            | Refusal::RoleNotFound { .. }
            | Refusal::LastOperator
            | Refusal::TenantExists { .. }
            | Refusal::TenantSuspended { .. }
            | Refusal::TenantInUse { .. } => Problem::Refused(refusal.to_string()),
            Refusal::NodeRemoved { .. }
            | Refusal::NodeLeaving { .. }
            | Refusal::NodeNeeded { .. }
            | Refusal::LastNode { .. }
            | Refusal::ReplicaHeld { .. }
            | Refusal::ReplicaDead { .. }
            | Refusal::ReplicaNotFound { .. }
            | Refusal::TooManyReplaced { .. }
            | Refusal::Unfinished { .. } => Problem::Refused(refusal.to_string()),
            Refusal::NotFounded => Problem::Unavailable {
                why: "the cluster is not founded yet".to_owned(),
                hint: None,
            },
            other => Problem::Internal(other.to_string()),
        }
    }

    /// A command to the catalog that its nodes could not read.
    pub(crate) fn from_unreadable_command(error: &highwater_catalog::Error) -> Problem {
        match error {
            highwater_catalog::Error::TooLarge { bytes, limit, .. } => Problem::TooLarge {
                field: "request",
                found: *bytes as u64,
                limit: *limit as u64,
            },
            other => Problem::Internal(other.to_string()),
        }
    }
}

/// The field of a request by its name in the catalog; what is not known by name is part of the configuration.
fn request_field(name: &str) -> &'static str {
    const FIELDS: [&str; 11] = [
        "subject",
        "domain",
        "resource",
        "action",
        "client",
        "change",
        "timer_step",
        "replace_after_ms",
        "catch_up_bytes_per_second",
        "groups_kept_ms",
        "leader_rack",
    ];
    let known = FIELDS.into_iter().find(|field| *field == name);
    let limit = || Limit::from_name(name).map(Limit::name);
    known.or_else(limit).unwrap_or("config")
}

/// The field of a request that a name is of.
fn name_field(name: &str) -> &'static str {
    const FIELDS: [&str; 4] = ["tenant", "client", "role", "resource"];
    let known = FIELDS.into_iter().find(|field| *field == name);
    known.unwrap_or("topic")
}
