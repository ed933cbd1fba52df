//! Every method with what it needs, and a request that is harmless whoever may make it. A method that is added gets a row here.

use prost::Message;

use super::super::*;
use super::reference::{Deed, Needs, Thing};
use super::world::Target;

/// What a request names, and where tricks with names can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Topic,
    Group,
    Tenant,
    Node,
}

/// A kind of request. A method may have several.
pub(super) struct Row {
    pub(super) service: &'static str,
    pub(super) method: &'static str,
    pub(super) needs: Needs,
    pub(super) names: &'static [Name],
    pub(super) request: fn(&Target) -> Vec<u8>,
}

impl Row {
    /// `/package.Service/Method`.
    pub(super) fn path(&self) -> String {
        format!("/highwater.v1.{}/{}", self.service, self.method)
    }

    /// Whether the topic must be there for it.
    pub(super) fn names_topic(&self) -> bool {
        self.names.contains(&Name::Topic) && self.needs != Needs::NewTopic
    }
}

const fn row(
    (service, method): (&'static str, &'static str),
    needs: Needs,
    names: &'static [Name],
    request: fn(&Target) -> Vec<u8>,
) -> Row {
    Row {
        service,
        method,
        needs,
        names,
        request,
    }
}

const CLUSTER: Needs = Needs::All(&[(Deed::Describe, Thing::Cluster)]);
const OPERATOR: Needs = Needs::All(&[(Deed::Admin, Thing::Cluster)]);
const PRODUCE: Needs = Needs::All(&[(Deed::Produce, Thing::Topic)]);
const CONSUME: Needs = Needs::All(&[(Deed::Consume, Thing::Topic)]);
const DESCRIBE: Needs = Needs::All(&[(Deed::Describe, Thing::Topic)]);
const MANAGE: Needs = Needs::All(&[(Deed::Manage, Thing::Topic)]);
const CONSUME_AS_GROUP: Needs = Needs::All(&[(Deed::Consume, Thing::Topic), (Deed::Consume, Thing::Group)]);
const DESCRIBE_GROUP: Needs = Needs::All(&[(Deed::Describe, Thing::Topic), (Deed::Describe, Thing::Group)]);
const MANAGE_GROUP: Needs = Needs::All(&[(Deed::Describe, Thing::Topic), (Deed::Manage, Thing::Group)]);
const NAMELESS: &[Name] = &[];
const TOPIC: &[Name] = &[Name::Topic];
const GROUP: &[Name] = &[Name::Topic, Name::Group];
const TENANT: &[Name] = &[Name::Tenant];
const NODE: &[Name] = &[Name::Node];

/// No topic has it, so nothing is changed or deleted that is asked for under this id.
const NO_ID: Option<u64> = Some(u64::MAX);
/// No node is called so.
const NOWHERE: &str = "nowhere";

pub(super) const ROWS: [Row; 35] = [
    row(("AccessService", "WhoAmI"), Needs::Client, NAMELESS, |_| Vec::new()),
    row(
        ("AccessService", "GetPolicy"),
        Needs::OfTenant(Deed::Describe),
        TENANT,
        get_policy,
    ),
    row(
        ("AccessService", "ChangePolicy"),
        Needs::OfTenant(Deed::Manage),
        TENANT,
        change_policy,
    ),
    row(("AccessService", "Explain"), Needs::Client, TENANT, explain_own),
    row(
        ("AccessService", "Explain"),
        Needs::OfTenant(Deed::Manage),
        TENANT,
        explain_others,
    ),
    row(("AccessService", "ListTenants"), OPERATOR, NAMELESS, |_| Vec::new()),
    row(("AccessService", "CreateTenant"), OPERATOR, TENANT, create_tenant),
    row(("AccessService", "SuspendTenant"), OPERATOR, TENANT, resume_tenant),
    row(("AccessService", "DeleteTenant"), OPERATOR, TENANT, delete_tenant),
    row(
        ("AccessService", "DescribeTenant"),
        Needs::OfTenant(Deed::Describe),
        TENANT,
        describe_tenant,
    ),
    row(("AccessService", "ChangeQuota"), OPERATOR, TENANT, clear_quota),
    row(("ClusterService", "DescribeCluster"), CLUSTER, NAMELESS, |_| Vec::new()),
    row(("ClusterService", "WatchCluster"), CLUSTER, NAMELESS, |_| Vec::new()),
    row(("ClusterService", "TransferLeader"), OPERATOR, TOPIC, transfer_leader),
    row(("ClusterService", "DrainNode"), OPERATOR, NODE, drain_node),
    row(
        ("ClusterService", "DecommissionNode"),
        OPERATOR,
        NODE,
        decommission_node,
    ),
    row(("ClusterService", "MoveReplica"), OPERATOR, TOPIC, move_replica),
    row(
        ("ClusterService", "RecoverPartition"),
        OPERATOR,
        TOPIC,
        recover_partition,
    ),
    row(("ClusterService", "UpdateSettings"), OPERATOR, NAMELESS, |_| Vec::new()),
    row(("GroupService", "JoinGroup"), CONSUME_AS_GROUP, GROUP, join_group),
    row(("GroupService", "DescribeGroup"), DESCRIBE_GROUP, GROUP, describe_group),
    row(
        ("GroupService", "ClaimPartition"),
        CONSUME_AS_GROUP,
        GROUP,
        claim_partition,
    ),
    row(("GroupService", "CommitOffset"), CONSUME_AS_GROUP, GROUP, commit_offset),
    row(("GroupService", "ListGroups"), DESCRIBE, GROUP, list_groups),
    row(("GroupService", "ResetOffset"), MANAGE_GROUP, GROUP, reset_offset),
    row(("GroupService", "DeleteGroup"), MANAGE_GROUP, GROUP, delete_group),
    row(("LogService", "Produce"), PRODUCE, TOPIC, produce),
    row(("LogService", "ProduceStream"), PRODUCE, TOPIC, produce),
    row(("LogService", "Consume"), CONSUME, TOPIC, consume),
    row(("LogService", "ListOffsets"), DESCRIBE, TOPIC, list_offsets),
    row(("TopicService", "CreateTopic"), Needs::NewTopic, TOPIC, create_topic),
    row(("TopicService", "GetTopic"), DESCRIBE, TOPIC, get_topic),
    row(("TopicService", "ListTopics"), CLUSTER, NAMELESS, |_| Vec::new()),
    row(("TopicService", "UpdateTopic"), MANAGE, TOPIC, update_topic),
    row(("TopicService", "DeleteTopic"), MANAGE, TOPIC, delete_topic),
];

fn get_policy(target: &Target) -> Vec<u8> {
    let tenant = target.tenant.clone();
    v1::GetPolicyRequest { tenant }.encode_to_vec()
}

/// For a version that is not in force.
fn change_policy(target: &Target) -> Vec<u8> {
    let grant = v1::Grant {
        client: "shop/owner".to_owned(),
        role: "owner".to_owned(),
        domain: target.tenant.clone(),
    };
    let change = v1::PolicyChange {
        add_grants: vec![grant],
        ..Default::default()
    };
    let request = v1::ChangePolicyRequest {
        expected_version: u64::MAX,
        change: Some(change),
    };
    request.encode_to_vec()
}

fn explain(target: &Target, client: &str) -> Vec<u8> {
    let request = v1::ExplainRequest {
        client: client.to_owned(),
        domain: target.tenant.clone(),
        resource: "topic:orders".to_owned(),
        action: "consume".to_owned(),
        change: None,
    };
    request.encode_to_vec()
}

fn explain_own(target: &Target) -> Vec<u8> {
    explain(target, "")
}

fn explain_others(target: &Target) -> Vec<u8> {
    explain(target, "strangers/somebody")
}

/// With a role that is not there.
fn create_tenant(target: &Target) -> Vec<u8> {
    let request = v1::CreateTenantRequest {
        tenant: target.tenant.clone(),
        clients_role: Some("no-such-role".to_owned()),
    };
    request.encode_to_vec()
}

/// Nobody is suspended.
fn resume_tenant(target: &Target) -> Vec<u8> {
    let request = v1::SuspendTenantRequest {
        tenant: target.tenant.clone(),
        suspended: false,
    };
    request.encode_to_vec()
}

/// All have topics.
fn delete_tenant(target: &Target) -> Vec<u8> {
    let request = v1::DeleteTenantRequest {
        tenant: target.tenant.clone(),
        delete_topics: false,
        confirm_name: target.tenant.clone(),
    };
    request.encode_to_vec()
}

fn describe_tenant(target: &Target) -> Vec<u8> {
    let tenant = target.tenant.clone();
    v1::DescribeTenantRequest { tenant }.encode_to_vec()
}

/// Nobody has one.
fn clear_quota(target: &Target) -> Vec<u8> {
    let request = v1::ChangeQuotaRequest {
        tenant: target.tenant.clone(),
        clear: vec!["streams".to_owned()],
        ..Default::default()
    };
    request.encode_to_vec()
}

fn transfer_leader(target: &Target) -> Vec<u8> {
    let request = v1::TransferLeaderRequest {
        topic: target.topic.clone(),
        partition: 0,
        node: NOWHERE.to_owned(),
    };
    request.encode_to_vec()
}

fn drain_node(target: &Target) -> Vec<u8> {
    let request = v1::DrainNodeRequest {
        node: target.node.clone(),
        undo: false,
        look: true,
    };
    request.encode_to_vec()
}

fn decommission_node(target: &Target) -> Vec<u8> {
    let request = v1::DecommissionNodeRequest {
        node: target.node.clone(),
        undo: false,
        look: true,
    };
    request.encode_to_vec()
}

fn move_replica(target: &Target) -> Vec<u8> {
    let request = v1::MoveReplicaRequest {
        topic: target.topic.clone(),
        partition: 0,
        from_node: NOWHERE.to_owned(),
        to_node: NOWHERE.to_owned(),
    };
    request.encode_to_vec()
}

fn recover_partition(target: &Target) -> Vec<u8> {
    let request = v1::RecoverPartitionRequest {
        topic: target.topic.clone(),
        partition: 0,
        node: NOWHERE.to_owned(),
        accept_loss: false,
    };
    request.encode_to_vec()
}

fn join_group(target: &Target) -> Vec<u8> {
    let join = v1::Join {
        topic: target.topic.clone(),
        group: target.group.clone(),
        member: target.caller.clone(),
        session_ms: 1_000,
        release_ms: 1_000,
        ..Default::default()
    };
    let message = Some(v1::join_group_request::Message::Join(join));
    v1::JoinGroupRequest { message }.encode_to_vec()
}

fn describe_group(target: &Target) -> Vec<u8> {
    let request = v1::DescribeGroupRequest {
        topic: target.topic.clone(),
        topic_id: None,
        group: target.group.clone(),
    };
    request.encode_to_vec()
}

fn claim_partition(target: &Target) -> Vec<u8> {
    let request = v1::ClaimPartitionRequest {
        topic: target.topic.clone(),
        group: target.group.clone(),
        member: target.caller.clone(),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// By a claim that nobody has.
fn commit_offset(target: &Target) -> Vec<u8> {
    let request = v1::CommitOffsetRequest {
        topic: target.topic.clone(),
        group: target.group.clone(),
        claim: u64::MAX,
        ..Default::default()
    };
    request.encode_to_vec()
}

fn list_groups(target: &Target) -> Vec<u8> {
    let request = v1::ListGroupsRequest {
        topic: target.topic.clone(),
        group: Some(target.group.clone()),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// To where nothing is.
fn reset_offset(target: &Target) -> Vec<u8> {
    let request = v1::ResetOffsetRequest {
        topic: target.topic.clone(),
        group: target.group.clone(),
        offset: u64::MAX,
        ..Default::default()
    };
    request.encode_to_vec()
}

/// The group is the test's own, and comes back with the next claim.
fn delete_group(target: &Target) -> Vec<u8> {
    let request = v1::DeleteGroupRequest {
        topic: target.topic.clone(),
        group: target.group.clone(),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// The same batch each time.
fn produce(target: &Target) -> Vec<u8> {
    let producer_id = format!("{:_<16}", target.caller).into_bytes();
    let request = v1::ProduceRequest {
        producer_id: producer_id.into(),
        ..batch_of(&target.topic, 0, &["matrix"])
    };
    request.encode_to_vec()
}

fn consume(target: &Target) -> Vec<u8> {
    let request = v1::ConsumeRequest {
        topic: target.topic.clone(),
        ..Default::default()
    };
    request.encode_to_vec()
}

fn list_offsets(target: &Target) -> Vec<u8> {
    let request = v1::ListOffsetsRequest {
        topic: target.topic.clone(),
        position: Some(v1::list_offsets_request::Position::Earliest(true)),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// With more partitions than there may be.
fn create_topic(target: &Target) -> Vec<u8> {
    let request = v1::CreateTopicRequest {
        topic: target.topic.clone(),
        partitions: u32::MAX,
        ..Default::default()
    };
    request.encode_to_vec()
}

fn get_topic(target: &Target) -> Vec<u8> {
    let topic = target.topic.clone();
    v1::GetTopicRequest { topic }.encode_to_vec()
}

fn update_topic(target: &Target) -> Vec<u8> {
    let request = v1::UpdateTopicRequest {
        topic: target.topic.clone(),
        topic_id: NO_ID,
        ..Default::default()
    };
    request.encode_to_vec()
}

fn delete_topic(target: &Target) -> Vec<u8> {
    let request = v1::DeleteTopicRequest {
        topic: target.topic.clone(),
        topic_id: NO_ID,
    };
    request.encode_to_vec()
}
