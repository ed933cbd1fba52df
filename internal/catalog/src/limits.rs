//! Every bound and default of the catalog.
//!
//! They take part in [`Catalog::apply`](crate::Catalog::apply), so every replica must use the same: they are constants
//! of the format version, and a change of one is a change of the format, used only once every node knows it. Those that say so are
//! asked for only before a change is proposed ([`Access::proposed`](crate::Access::proposed)), and may be changed at any time.

use std::ops::RangeInclusive;

/// The longest name of a topic, tenant, node, client or cluster, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest address (`host:port`) of a node, bytes: the longest host name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;
/// The longest rack label, bytes.
pub const RACK_BYTES_MAX: usize = 128;
/// The longest version string of a node, bytes.
pub const VERSION_BYTES_MAX: usize = 128;
/// The most nodes of a cluster; those that have left it do not count.
pub const NODES_MAX: usize = 256;
/// The most nodes that are known, those that have left the cluster among them: their names are never forgotten.
pub const NODES_KNOWN_MAX: usize = 4_096;
/// How many earlier incarnations of one node are remembered; the oldest is forgotten first.
pub const NODE_PAST_LIVES_MAX: usize = 64;
/// The most partitions of a topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 1_024;
/// The most topics a tenant may have.
pub const TENANT_TOPICS_MAX: usize = 10_000;
/// The most tenants.
pub const TENANTS_MAX: usize = 10_000;
/// The most clients of one tenant that have quotas of their own.
pub const CLIENT_QUOTAS_MAX: usize = 1_000;
/// The most rules of the policy.
pub const RULES_MAX: usize = 20_000;
/// The most rules about one role or client in one domain. A decision looks at those in its tenant and at those in all tenants, of the client
/// and of each of its roles.
pub const SUBJECT_RULES_MAX: usize = 64;
/// The most roles that one client, or all clients of a tenant together, are granted in one domain; so a client has twice as many there. For
/// changes by who is no operator.
pub const CLIENT_ROLES_MAX: usize = 16;
/// The most rules of one tenant: a quarter of all. For changes by who is no operator.
pub const TENANT_RULES_MAX: usize = RULES_MAX / 4;
/// The most grants of one tenant: a fifth of all. For changes by who is no operator.
pub const TENANT_GRANTS_MAX: usize = GRANTS_MAX / 5;
/// One in so many of all rules, and of all grants, is kept for changes by operators.
pub const OPERATORS_SHARE: usize = 10;
/// The most rules of one domain that can be stored.
pub const DOMAIN_RULES_MAX: usize = 10_000;
/// The most grants of one domain that can be stored.
pub const DOMAIN_GRANTS_MAX: usize = 10_000;
/// The most grants of the policy.
pub const GRANTS_MAX: usize = 50_000;
/// The most rules and grants that one change names.
pub const POLICY_CHANGE_MAX: usize = 1_000;
/// The most partitions of all topics together; since each topic has one, also the most topics and tenants.
pub const CLUSTER_PARTITIONS_MAX: usize = 100_000;
/// The most replicas of a partition.
pub const REPLICATION_MAX: u32 = 7;
/// The most replaced replicas of a partition that wait for their group to let go of them.
pub const REPLACED_REPLICAS_MAX: usize = 8;
/// The most replicas that one command reports as started.
pub const STARTED_REPLICAS_MAX: usize = 1_024;
/// The partitions of a topic whose creator did not say.
pub const PARTITIONS_DEFAULT: u32 = 1;
/// The replicas of a partition whose creator did not say, if there are as many nodes.
pub const REPLICATION_DEFAULT: u32 = 3;
/// How long records are kept if the topic's creator did not say, milliseconds: seven days.
pub const RETENTION_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1000;
/// How many bytes each partition keeps if the topic's creator did not say; 0: no bound.
pub const RETENTION_BYTES_DEFAULT: u64 = 0;
/// The timer steps that a cluster may use; see [`Settings`](crate::Settings).
pub const TIMER_STEPS: RangeInclusive<u32> = 1..=3;
/// The timer step of a cluster whose operator did not say.
pub const TIMER_STEP_DEFAULT: u32 = 1;
/// How long a node may be away before its replicas are placed elsewhere, milliseconds: a second to thirty days.
pub const REPLACE_AFTER_MS: RangeInclusive<u64> = 1_000..=30 * 24 * 60 * 60 * 1000;
/// How long that is if the operator did not say, milliseconds: ten minutes.
pub const REPLACE_AFTER_MS_DEFAULT: u64 = 10 * 60 * 1000;
/// How fast one node sends to replicas that are new or far behind, bytes per second: 1 MB to 100 GB.
pub const CATCH_UP_BYTES_PER_SECOND: RangeInclusive<u64> = 1_000_000..=100_000_000_000;
/// How fast that is if the operator did not say, bytes per second: 20 MB.
pub const CATCH_UP_BYTES_PER_SECOND_DEFAULT: u64 = 20_000_000;
/// How long a consumer group is kept that lags and is not used, milliseconds: an hour to ten years. Not less than an hour,
/// because a member may take that long over one record, and its group must not be forgotten under it.
pub const GROUPS_KEPT_MS: RangeInclusive<u64> = 60 * 60 * 1000..=10 * 365 * 24 * 60 * 60 * 1000;
/// How long that is if the operator did not say, milliseconds: seven days.
pub const GROUPS_KEPT_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1000;
/// The largest id of a topic, group or replica: the largest whole number that every JSON reader keeps exact.
pub const ID_MAX: u64 = (1 << 53) - 1;
/// The largest `next` id that a checkpoint may hold: at one id a microsecond, the rest lasts for a century.
pub const NEXT_ID_MAX: u64 = ID_MAX / 2;
/// The largest replica id that a founder may choose; founders count from 1.
pub const FOUNDING_REPLICA_ID_MAX: u64 = 1 << 20;
/// The largest encoded command or reply, bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest encoded checkpoint, bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 512 * 1024 * 1024;

const _: () = assert!(TENANT_RULES_MAX <= DOMAIN_RULES_MAX && TENANT_GRANTS_MAX <= DOMAIN_GRANTS_MAX);
const _: () = assert!(NODES_MAX <= NODES_KNOWN_MAX);
const _: () = assert!(REPLICATION_DEFAULT <= REPLICATION_MAX);
const _: () = assert!(PARTITIONS_DEFAULT >= 1 && PARTITIONS_DEFAULT <= TOPIC_PARTITIONS_MAX);
const _: () = assert!(TOPIC_PARTITIONS_MAX as usize <= CLUSTER_PARTITIONS_MAX);
// A topic of the greatest size fits into one reply, whatever its nodes are called.
const _: () = assert!(
    TOPIC_PARTITIONS_MAX as usize * ((REPLICATION_MAX as usize + REPLACED_REPLICAS_MAX) * (NAME_BYTES_MAX + 112) + 128)
        < MESSAGE_BYTES_MAX
);
