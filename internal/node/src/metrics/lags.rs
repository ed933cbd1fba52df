//! How far others are behind what is led here: followers, and consumer groups.

use super::Families;
use super::partitions::Told;

/// Offsets of groups that are told of; those of the first partitions.
pub(super) const GROUPS_TOLD_MAX: usize = 5_000;

pub(super) fn tell(families: &mut Families, led: &[&Told]) {
    let mut replicas = families.begin(
        "highwater_replica_lag_entries",
        "Entries of a leader here that another replica has not acknowledged yet.",
    );
    for told in led {
        for (node, entries) in told.hosted.lags() {
            replicas.value(&told.labels_and("node", &node), entries as f64);
        }
    }
    let mut groups = families.begin(
        "highwater_group_lag_records",
        "Records of a partition led here that a consumer group has not consumed yet.",
    );
    let offsets = led.iter().flat_map(|told| {
        let groups = told.hosted.groups();
        let committed = groups
            .into_iter()
            .filter_map(|(group, state)| Some((group, state.offset?)));
        committed.map(move |(group, offset)| (told, group, offset))
    });
    for (told, group, offset) in offsets.take(GROUPS_TOLD_MAX) {
        let watermark = &told.status.watermark;
        let lag = watermark.high_watermark.saturating_sub(offset.max(watermark.log_start));
        let group = String::from_utf8_lossy(&group);
        groups.value(&told.labels_and("group", &group), lag as f64);
    }
}
