//! What administrative acts are about, in words, for the audit.
//!
//! Names are as the caller gave them, with the tenant that they belong to. They may be anything: they are recorded before anything is
//! checked.

use highwater_proto::v1;

use super::quotas::quota_of;
use crate::access::Principal;

/// A topic in full.
fn topic(principal: &Principal, name: &str) -> String {
    match (name.contains('/'), principal.tenant()) {
        (false, Some(tenant)) => format!("topic {tenant}/{name}"),
        _ => format!("topic {name}"),
    }
}

fn partition(principal: &Principal, topic: &str, partition: u32) -> String {
    format!("partition {partition} of {}", self::topic(principal, topic))
}

/// What is wanted of a thing: those that are given, by name.
fn with(thing: String, wanted: &[(&str, Option<String>)]) -> String {
    let given = wanted
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}")));
    let given: Vec<String> = given.collect();
    match given.is_empty() {
        true => thing,
        false => format!("{thing}: {}", given.join(", ")),
    }
}

fn number(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// A flag that is only worth a word if it is set.
fn flag(is_set: bool) -> Option<String> {
    is_set.then(|| "yes".to_owned())
}

// -------------------------------------------------------------------------------------------------------------- topics

pub(super) fn create_topic(principal: &Principal, request: &v1::CreateTopicRequest) -> String {
    let config = request.config.unwrap_or_default();
    let given = |count: u32| number(Some(count).filter(|count| *count > 0));
    with(
        topic(principal, &request.topic),
        &[
            ("partitions", given(request.partitions)),
            ("replication", given(request.replication)),
            ("retention_ms", number(config.retention_ms)),
            ("retention_bytes", number(config.retention_bytes)),
        ],
    )
}

pub(super) fn update_topic(principal: &Principal, request: &v1::UpdateTopicRequest) -> String {
    with(
        topic(principal, &request.topic),
        &[
            ("partitions", number(request.partitions)),
            ("replication", number(request.replication)),
            ("retention_ms", number(request.retention_ms)),
            ("retention_bytes", number(request.retention_bytes)),
            ("leader_rack", request.leader_rack.clone()),
        ],
    )
}

pub(super) fn delete_topic(principal: &Principal, request: &v1::DeleteTopicRequest) -> String {
    topic(principal, &request.topic)
}

// -------------------------------------------------------------------------------------------------------------- groups

pub(super) fn reset_offset(principal: &Principal, request: &v1::ResetOffsetRequest) -> String {
    let partition = partition(principal, &request.topic, request.partition);
    format!("group {} on {partition}: offset {}", request.group, request.offset)
}

pub(super) fn delete_group(principal: &Principal, request: &v1::DeleteGroupRequest) -> String {
    let partition = partition(principal, &request.topic, request.partition);
    format!("group {} on {partition}", request.group)
}

// ------------------------------------------------------------------------------------------------------------- cluster

pub(super) fn transfer_leader(principal: &Principal, request: &v1::TransferLeaderRequest) -> String {
    let to = Some(request.node.clone()).filter(|node| !node.is_empty());
    with(
        partition(principal, &request.topic, request.partition),
        &[("to node", to)],
    )
}

pub(super) fn move_replica(principal: &Principal, request: &v1::MoveReplicaRequest) -> String {
    with(
        partition(principal, &request.topic, request.partition),
        &[
            ("from node", Some(request.from_node.clone())),
            ("to node", Some(request.to_node.clone())),
        ],
    )
}

pub(super) fn recover_partition(principal: &Principal, request: &v1::RecoverPartitionRequest) -> String {
    with(
        partition(principal, &request.topic, request.partition),
        &[
            ("from node", Some(request.node.clone())),
            ("accept_loss", flag(request.accept_loss)),
        ],
    )
}

pub(super) fn drain_node(_: &Principal, request: &v1::DrainNodeRequest) -> String {
    with(format!("node {}", request.node), &[("undo", flag(request.undo))])
}

pub(super) fn decommission_node(_: &Principal, request: &v1::DecommissionNodeRequest) -> String {
    with(format!("node {}", request.node), &[("undo", flag(request.undo))])
}

pub(super) fn update_settings(_: &Principal, request: &v1::UpdateSettingsRequest) -> String {
    with(
        "settings".to_owned(),
        &[
            ("timer_step", number(request.timer_step)),
            ("replace_after_ms", number(request.replace_after_ms)),
            ("catch_up_bytes_per_second", number(request.catch_up_bytes_per_second)),
            ("balance", number(request.balance)),
            ("groups_kept_ms", number(request.groups_kept_ms)),
        ],
    )
}

// -------------------------------------------------------------------------------------------------------------- access

pub(super) fn create_tenant(_: &Principal, request: &v1::CreateTenantRequest) -> String {
    let role = request.clients_role.clone();
    with(format!("tenant {}", request.tenant), &[("clients_role", role)])
}

pub(super) fn suspend_tenant(_: &Principal, request: &v1::SuspendTenantRequest) -> String {
    let state = if request.suspended { "suspended" } else { "resumed" };
    format!("tenant {}: {state}", request.tenant)
}

pub(super) fn delete_tenant(_: &Principal, request: &v1::DeleteTenantRequest) -> String {
    let with_topics = flag(request.delete_topics);
    with(format!("tenant {}", request.tenant), &[("delete_topics", with_topics)])
}

pub(super) fn change_quota(_: &Principal, request: &v1::ChangeQuotaRequest) -> String {
    let client = request.client.as_ref().map(|client| format!(", client {client}"));
    let set = quota_of(&request.set.unwrap_or_default());
    let set = set.iter().map(|(limit, value)| format!("{limit} {value}"));
    let cleared = request.clear.iter().map(|limit| format!("{limit} none"));
    let changes: Vec<String> = set.chain(cleared).collect();
    let of = format!("quota of tenant {}{}", request.tenant, client.unwrap_or_default());
    format!("{of}: {}", changes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn what_is_given_stands_there_and_the_rest_does_not() {
        let anna = Principal::new(&Identity::Client {
            cluster: "prod".to_owned(),
            tenant: "shop".to_owned(),
            name: "anna".to_owned(),
        });
        let create = |topic: &str, partitions, retention_ms| {
            let config = Some(v1::TopicConfig {
                retention_ms,
                retention_bytes: None,
            });
            let request = v1::CreateTopicRequest {
                topic: topic.to_owned(),
                partitions,
                replication: 0,
                config,
            };
            create_topic(&anna, &request)
        };
        assert_eq!(create("orders", 0, None), "topic shop/orders");
        assert_eq!(
            create("other/orders", 3, Some(0)),
            "topic other/orders: partitions 3, retention_ms 0"
        );
        let transfer = v1::TransferLeaderRequest {
            topic: "orders".to_owned(),
            partition: 2,
            ..Default::default()
        };
        assert_eq!(transfer_leader(&anna, &transfer), "partition 2 of topic shop/orders");
        let drain = v1::DrainNodeRequest {
            node: "b".to_owned(),
            undo: true,
            ..Default::default()
        };
        assert_eq!(drain_node(&anna, &drain), "node b: undo yes");
    }
}
