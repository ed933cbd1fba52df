//! How long unused groups are kept: a setting of the cluster, by which the leader of a partition goes.

use highwater_proto::detail;

use super::groups::{claim, commit, groups, list};
use super::moves::BATCHES;
use super::*;
use crate::clock::now_ms;

const TENANT: &str = super::OPERATOR_TENANT;
const HOUR_MS: u64 = 60 * 60 * 1000;

fn keep_groups(kept_ms: u64) -> v1::UpdateSettingsRequest {
    v1::UpdateSettingsRequest {
        groups_kept_ms: Some(kept_ms),
        ..Default::default()
    }
}

impl TestCluster {
    /// A group that has consumed everything, and one that lags.
    async fn use_groups(&self) {
        let leader = self.leader_number().await;
        let mut client = groups(&self.client(leader, TENANT).await);
        for (group, offset) in [("idle", BATCHES), ("lags", 1)] {
            let claimed = client.claim_partition(claim(group)).await.unwrap().into_inner();
            let commit = v1::CommitOffsetRequest {
                group: group.to_owned(),
                ..commit(claimed.claim, offset)
            };
            client.commit_offset(commit).await.unwrap();
        }
    }

    /// Has every node look once for groups that are unused at that time; what is left, as the leader has it.
    async fn groups_left(&self, now_ms: u64) -> Vec<String> {
        for node in self.nodes.iter().flatten() {
            node.controller().forget_unused_groups(now_ms).await;
        }
        let leader = self.leader_number().await;
        let mut client = groups(&self.client(leader, TENANT).await);
        let found = client.list_groups(list("orders")).await.unwrap().into_inner();
        let mut left: Vec<String> = found.groups.into_iter().map(|group| group.group).collect();
        left.sort();
        left
    }

    async fn until_groups_kept(&self, kept_ms: u64) {
        self.until_everywhere("every node has the setting", |catalog| {
            catalog.settings().groups_kept_ms == kept_ms
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_forgets_unused_groups_when_the_setting_says_and_not_before() {
    let cluster = TestCluster::with_groups(1).await;
    cluster.use_groups().await;
    let used_ms = now_ms();
    cluster.until_groups_kept(7 * 24 * HOUR_MS).await;
    assert_eq!(cluster.groups_left(used_ms + 6 * 24 * HOUR_MS).await, ["idle", "lags"]);
    cluster.client(0, TENANT).await.settings(keep_groups(HOUR_MS)).await;
    cluster.until_groups_kept(HOUR_MS).await;
    assert_eq!(cluster.groups_left(used_ms + HOUR_MS / 2).await, ["idle", "lags"]);
    // A leader that hears of too few clocks looks again later.
    let forgetting = async {
        while cluster.groups_left(used_ms + 2 * HOUR_MS).await != ["idle"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, forgetting).await.expect("it is not forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_groups_are_kept_survives_a_restart_of_all_nodes() {
    let mut cluster = TestCluster::with_groups(1).await;
    let mut client = cluster.client(0, TENANT).await;
    client.settings(keep_groups(48 * HOUR_MS)).await;
    let balance = v1::UpdateSettingsRequest {
        balance: Some(false),
        ..Default::default()
    };
    client.settings(balance).await;
    for number in 0..3 {
        cluster.stop(number).await;
    }
    cluster.found().await;
    cluster.until_groups_kept(48 * HOUR_MS).await;
    let settings = cluster.client(1, TENANT).await.describe().await.settings.unwrap();
    assert_eq!((settings.groups_kept_ms, settings.balance), (Some(48 * HOUR_MS), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_to_keep_groups_that_is_out_of_bounds_is_refused_by_name_and_limit() {
    let cluster = TestCluster::with_groups(1).await;
    let mut client = cluster.client(0, TENANT).await;
    for (kept_ms, limit) in [
        (0, "3600000"),
        (3_599_999, "3600000"),
        (315_360_000_001, "315360000000"),
    ] {
        let status = client.cluster.update_settings(keep_groups(kept_ms)).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidArgument);
        assert_eq!(detail::from_status(&status).unwrap().field, "groups_kept_ms");
        assert!(status.message().contains(limit), "{status:?}");
    }
    let settings = client.describe().await.settings.unwrap();
    assert_eq!(settings.groups_kept_ms, Some(7 * 24 * HOUR_MS));
}
