//! Limits that two crates state because neither may import the other must be the same.

use highwater_catalog::limits as catalog;
use highwater_proto::limits as wire;

#[test]
fn the_catalog_accepts_exactly_what_the_wire_publishes() {
    assert_eq!(catalog::NAME_BYTES_MAX, wire::NAME_BYTES_MAX);
    assert_eq!(catalog::TOPIC_PARTITIONS_MAX, wire::TOPIC_PARTITIONS_MAX);
    assert_eq!(catalog::TENANT_TOPICS_MAX, wire::TENANT_TOPICS_MAX);
    assert_eq!(catalog::REPLICATION_MAX, wire::REPLICATION_MAX);
}

#[test]
fn no_group_is_forgotten_while_a_member_takes_its_time_over_a_record() {
    let (_, longest_ms) = wire::GROUP_RELEASE_MS;
    assert!(*catalog::GROUPS_KEPT_MS.start() >= u64::from(longest_ms));
}
