//! Consumer groups on the wire: what is refused, and why.

use highwater_proto::detail;
use highwater_proto::v1::group_service_client::GroupServiceClient;

use super::moves::BATCHES;
use super::*;

const TENANT: &str = super::OPERATOR_TENANT;

pub(super) fn groups(client: &TestClient) -> GroupServiceClient<Channel> {
    GroupServiceClient::new(client.channel.clone())
}

pub(super) fn claim(group: &str) -> v1::ClaimPartitionRequest {
    v1::ClaimPartitionRequest {
        topic: "orders".to_owned(),
        topic_id: None,
        partition: 0,
        group: group.to_owned(),
        member: "worker".to_owned(),
    }
}

pub(super) fn commit(claim: u64, offset: u64) -> v1::CommitOffsetRequest {
    v1::CommitOffsetRequest {
        topic: "orders".to_owned(),
        topic_id: None,
        partition: 0,
        group: "billing".to_owned(),
        claim,
        offset,
    }
}

pub(super) fn list(topic: &str) -> v1::ListGroupsRequest {
    v1::ListGroupsRequest {
        topic: topic.to_owned(),
        ..Default::default()
    }
}

impl TestCluster {
    /// A topic with so many partitions, and the rules that groups need in force.
    pub(super) async fn with_groups(partitions: u32) -> TestCluster {
        let cluster = TestCluster::with_topic(partitions, 3).await;
        cluster
            .until_everywhere("the rules are raised", |catalog| {
                catalog.feature_level() == highwater_catalog::FEATURE_LEVEL
            })
            .await;
        cluster
    }

    pub(super) async fn leader_number(&self) -> usize {
        let leader = self.leader().await;
        NAMES.iter().position(|name| *name == leader).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_call_about_a_group_gets_its_own_reason() {
    let cluster = TestCluster::with_groups(1).await;
    let leader = cluster.leader_number().await;
    let mut client = groups(&cluster.client(leader, TENANT).await);
    for (wrong, field) in [
        (claim(""), "group"),
        (claim("Not a name"), "group"),
        (claim(&"x".repeat(1_000_000)), "group"),
        (
            v1::ClaimPartitionRequest {
                member: "a\nb".to_owned(),
                ..claim("billing")
            },
            "member",
        ),
    ] {
        let status = client.claim_partition(wrong).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidArgument);
        assert_eq!(detail::from_status(&status).unwrap().field, field);
    }
    let mut nowhere = claim("billing");
    nowhere.partition = 7;
    let status = client.claim_partition(nowhere).await.unwrap_err();
    assert_eq!(reason(&status), Reason::PartitionNotFound);

    let status = client.commit_offset(commit(1, 0)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::StaleClaim, "nobody has claimed it");
    let claimed = client.claim_partition(claim("billing")).await.unwrap().into_inner();
    assert_eq!(claimed.offset, None);
    let status = client
        .commit_offset(commit(claimed.claim, BATCHES + 1))
        .await
        .unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidArgument, "beyond the end");
    client.commit_offset(commit(claimed.claim, BATCHES)).await.unwrap();
    let found = client.list_groups(list("orders")).await.unwrap().into_inner();
    let seen: Vec<_> = found
        .groups
        .iter()
        .map(|group| (group.group.as_str(), group.offset))
        .collect();
    assert_eq!(seen, [("billing", Some(BATCHES))]);

    let beyond = v1::ResetOffsetRequest {
        topic: "orders".to_owned(),
        topic_id: None,
        partition: 0,
        group: "billing".to_owned(),
        offset: BATCHES + 1,
    };
    let status = client.reset_offset(beyond.clone()).await.unwrap_err();
    assert_eq!(reason(&status), Reason::InvalidArgument);
    client
        .commit_offset(commit(claimed.claim, BATCHES))
        .await
        .expect("a reset that was refused shuts nobody out");

    let mut foreign = groups(&cluster.client(leader, "strangers").await);
    let theirs = format!("{TENANT}/orders");
    let status = foreign.list_groups(list(&theirs)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::TopicNotFound, "others learn nothing");
    let mut taken = claim("billing");
    taken.topic = theirs;
    let status = foreign.claim_partition(taken).await.unwrap_err();
    assert_eq!(reason(&status), Reason::TopicNotFound);
    let reset = v1::ResetOffsetRequest { offset: 3, ..beyond };
    client.reset_offset(reset).await.unwrap();
    let status = client.commit_offset(commit(claimed.claim, BATCHES)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::StaleClaim, "a reset shuts out who consumes");
    let again = client.claim_partition(claim("billing")).await.unwrap().into_inner();
    assert_eq!(again.offset, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_to_who_claims_there_and_tells_what_it_knows() {
    let cluster = TestCluster::with_groups(1).await;
    let leader = cluster.leader_number().await;
    let follower = (leader + 1) % 3;
    let mut there = groups(&cluster.client(leader, TENANT).await);
    let mut here = groups(&cluster.client(follower, TENANT).await);
    let status = here.claim_partition(claim("billing")).await.unwrap_err();
    assert_eq!(reason(&status), Reason::NotLeader);
    let hint = detail::from_status(&status).unwrap().leader.unwrap();
    assert_eq!(hint.node, NAMES[leader]);
    there.claim_partition(claim("billing")).await.unwrap();
    let known = async {
        loop {
            let found = here.list_groups(list("orders")).await.unwrap().into_inner();
            if let [group] = &found.groups[..] {
                return group.member.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, known).await.expect("it never knows"), "worker");
}

/// What a leader forgets after a week, with a week that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_groups_that_lag_are_forgotten_however_long_the_others_are_silent() {
    let cluster = TestCluster::with_groups(1).await;
    let leader = cluster.leader_number().await;
    let mut client = groups(&cluster.client(leader, TENANT).await);
    for (group, offset) in [("idle", Some(BATCHES)), ("lags", Some(1)), ("new", None)] {
        let claimed = client.claim_partition(claim(group)).await.unwrap().into_inner();
        if let Some(offset) = offset {
            let commit = v1::CommitOffsetRequest {
                group: group.to_owned(),
                ..commit(claimed.claim, offset)
            };
            client.commit_offset(commit).await.unwrap();
        }
    }
    let all = cluster.nodes[leader].as_ref().unwrap().registry().all();
    let hosted = all
        .iter()
        .find(|hosted| hosted.group_id != crate::replicas::CATALOG_GROUP)
        .unwrap();
    let names = |groups: Vec<(bytes::Bytes, _)>| -> Vec<String> {
        let mut names: Vec<_> = groups
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect();
        names.sort();
        names
    };
    let later_ms = crate::clock::now_ms() + 60_000;
    assert_eq!(names(hosted.unused_groups(later_ms).await.unwrap()), ["lags", "new"]);
    let earlier_ms = crate::clock::now_ms() - 3_600_000;
    assert!(
        hosted.unused_groups(earlier_ms).await.unwrap().is_empty(),
        "they were used since"
    );

    let unused = hosted.unused_groups(later_ms).await.unwrap();
    let (name, seen) = unused.into_iter().find(|(name, _)| name == "lags").unwrap();
    client.claim_partition(claim("lags")).await.unwrap();
    hosted.forget_group(name, &seen).await.unwrap_err();
    let found = client.list_groups(list("orders")).await.unwrap().into_inner();
    assert_eq!(found.groups.len(), 3, "one that comes back to life meanwhile stays");
}
