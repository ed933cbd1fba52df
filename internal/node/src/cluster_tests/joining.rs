//! Joining groups on the wire: who is told what, what is refused, and what a change of coordinator does.

use highwater_proto::detail;
use highwater_proto::v1::group_service_client::GroupServiceClient;
use highwater_proto::v1::join_group_request::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::*;

const TENANT: &str = super::OPERATOR_TENANT;

/// A member's stream, from the member's side.
struct Member {
    says: mpsc::Sender<v1::JoinGroupRequest>,
    hears: Streaming<v1::JoinGroupResponse>,
}

fn join(member: &str, partitions: &[u32]) -> v1::Join {
    v1::Join {
        topic: "orders".to_owned(),
        topic_id: None,
        group: "billing".to_owned(),
        member: member.to_owned(),
        session_ms: 60_000,
        release_ms: 60_000,
        partitions: partitions.to_vec(),
    }
}

fn message(message: Message) -> v1::JoinGroupRequest {
    v1::JoinGroupRequest { message: Some(message) }
}

impl Member {
    async fn open(client: &TestClient, first: v1::JoinGroupRequest) -> Result<Member, Status> {
        let (says, said) = mpsc::channel(16);
        says.send(first).await.unwrap();
        let mut groups = GroupServiceClient::new(client.channel.clone());
        let hears = groups.join_group(ReceiverStream::new(said)).await?.into_inner();
        Ok(Member { says, hears })
    }

    async fn join(client: &TestClient, join: v1::Join) -> Member {
        Member::open(client, message(Message::Join(join))).await.unwrap()
    }

    async fn hear(&mut self) -> Result<(u64, Vec<u32>), Status> {
        let heard = self.hears.message().await?.expect("the stream has ended");
        Ok((heard.version, heard.partitions))
    }

    async fn hold(&self, version: u64, partitions: &[u32]) {
        let partitions = partitions.to_vec();
        let holding = v1::Holding { version, partitions };
        self.says.send(message(Message::Holding(holding))).await.unwrap();
    }

    /// Hears until it is told this.
    async fn until(&mut self, wanted: &[u32]) -> u64 {
        loop {
            let (version, partitions) = self.hear().await.unwrap();
            if partitions == wanted {
                return version;
            }
        }
    }
}

async fn describe(client: &TestClient) -> Vec<(String, Vec<u32>, Vec<u32>)> {
    let request = v1::DescribeGroupRequest {
        topic: "orders".to_owned(),
        topic_id: None,
        group: "billing".to_owned(),
    };
    let mut groups = GroupServiceClient::new(client.channel.clone());
    let found = groups.describe_group(request).await.unwrap().into_inner();
    assert!(
        found
            .members
            .iter()
            .all(|it| it.client.starts_with(&format!("{TENANT}/")))
    );
    let members = found.members.into_iter();
    members.map(|it| (it.member, it.assigned, it.holding)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_pass_them_on_one_by_one() {
    let cluster = TestCluster::with_groups(4).await;
    let client = cluster.client(cluster.leader_number().await, TENANT).await;
    let mut one = Member::join(&client, join("one", &[])).await;
    assert_eq!(one.hear().await.unwrap(), (1, vec![0, 1, 2, 3]));
    one.hold(1, &[0, 1, 2, 3]).await;
    let mut two = Member::join(&client, join("two", &[])).await;
    assert_eq!(two.hear().await.unwrap(), (1, vec![]), "nothing is free yet");
    two.hold(1, &[]).await;
    let version = one.until(&[0, 1]).await;
    one.hold(version, &[0, 1, 3]).await;
    let version = two.until(&[2]).await;
    two.hold(version, &[2]).await;
    one.hold(2, &[0, 1]).await;
    two.until(&[2, 3]).await;
    let mut members = describe(&client).await;
    members.sort();
    assert_eq!(members[0], ("one".to_owned(), vec![0, 1], vec![0, 1]));
    assert_eq!(members[1].1, [2, 3]);
    one.says.send(message(Message::Leave(v1::Leave {}))).await.unwrap();
    two.hold(3, &[2, 3]).await;
    two.until(&[0, 1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_coordinator_moves_members_are_sent_on_and_keep_what_they_have() {
    let mut cluster = TestCluster::with_groups(2).await;
    let leader = cluster.leader_number().await;
    let client = cluster.client(leader, TENANT).await;
    let mut groups = GroupServiceClient::new(client.channel.clone());
    let claim = v1::ClaimPartitionRequest {
        topic: "orders".to_owned(),
        group: "billing".to_owned(),
        member: "one".to_owned(),
        ..Default::default()
    };
    groups.claim_partition(claim).await.unwrap();
    let mut one = Member::join(&client, join("one", &[0])).await;
    one.hear().await.unwrap();
    let mut stranger = Member::join(&client, join("stranger", &[])).await;
    stranger.hear().await.unwrap();

    cluster.stop(leader).await;
    let next = cluster.leader_number().await;
    let there = cluster.client(next, TENANT).await;
    let mut two = Member::join(&there, join("two", &[])).await;
    assert_eq!(
        two.hear().await.unwrap(),
        (0, vec![]),
        "it does not know who else is there"
    );
    let mut one = Member::join(&there, join("one", &[0])).await;
    let first = one.hear().await.unwrap();
    assert_eq!(first, (0, vec![0]), "what a member has is its own");
    assert_eq!(one.hear().await.unwrap(), (1, vec![0]));
    two.until(&[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_new_leader_when_the_leadership_is_handed_over() {
    let cluster = TestCluster::with_groups(1).await;
    let leader = cluster.leader_number().await;
    let client = cluster.client(leader, TENANT).await;
    let mut one = Member::join(&client, join("one", &[])).await;
    one.hear().await.unwrap();
    let follower = (leader + 1) % 3;
    let elsewhere = Member::open(
        &cluster.client(follower, TENANT).await,
        message(Message::Join(join("two", &[]))),
    )
    .await;
    let status = elsewhere.err().expect("a follower coordinates nothing");
    assert_eq!(reason(&status), Reason::NotLeader);
    assert_eq!(
        detail::from_status(&status).unwrap().leader.unwrap().node,
        NAMES[leader]
    );
    let transfer = v1::TransferLeaderRequest {
        topic: "orders".to_owned(),
        node: NAMES[follower].to_owned(),
        ..Default::default()
    };
    let mut cluster_client = v1::cluster_service_client::ClusterServiceClient::new(client.channel.clone());
    cluster_client.transfer_leader(transfer).await.unwrap();
    let status = loop {
        match one.hear().await {
            Ok(_) => continue,
            Err(status) => break status,
        }
    };
    assert!(
        matches!(reason(&status), Reason::NotLeader | Reason::NoQuorum),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_join_gets_its_own_reason() {
    let cluster = TestCluster::with_groups(1).await;
    let client = cluster.client(cluster.leader_number().await, TENANT).await;
    let base = || join("one", &[]);
    let long = "x".repeat(100_000);
    for (wrong, field) in [
        (
            v1::Join {
                group: "No name".to_owned(),
                ..base()
            },
            "group",
        ),
        (
            v1::Join {
                member: long.clone(),
                ..base()
            },
            "member",
        ),
        (
            v1::Join {
                member: String::new(),
                ..base()
            },
            "member",
        ),
        (
            v1::Join {
                session_ms: 999,
                ..base()
            },
            "session_ms",
        ),
        (
            v1::Join {
                session_ms: u32::MAX,
                ..base()
            },
            "session_ms",
        ),
        (
            v1::Join {
                release_ms: 0,
                ..base()
            },
            "release_ms",
        ),
        (
            v1::Join {
                partitions: vec![u32::MAX],
                ..base()
            },
            "partitions",
        ),
        (v1::Join { topic: long, ..base() }, "topic"),
    ] {
        let status = Member::open(&client, message(Message::Join(wrong)))
            .await
            .err()
            .unwrap();
        assert_eq!(reason(&status), Reason::InvalidArgument, "{field}");
        assert_eq!(detail::from_status(&status).unwrap().field, field);
    }
    let holding = message(Message::Holding(v1::Holding::default()));
    let status = Member::open(&client, holding).await.err().unwrap();
    assert_eq!(detail::from_status(&status).unwrap().field, "join", "it comes first");
    let nowhere = v1::Join {
        topic: "nowhere".to_owned(),
        ..base()
    };
    let status = Member::open(&client, message(Message::Join(nowhere)))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&status), Reason::TopicNotFound);
    let foreign = v1::Join {
        topic: format!("{TENANT}/orders"),
        ..base()
    };
    let stranger = cluster.client(0, "strangers").await;
    let status = Member::open(&stranger, message(Message::Join(foreign)))
        .await
        .err()
        .unwrap();
    assert_eq!(reason(&status), Reason::TopicNotFound, "others learn nothing");
    assert!(describe(&client).await.is_empty());

    // What is wrong later ends the stream, and the member has its session to come back.
    let absurd = v1::Holding {
        version: 1,
        partitions: vec![u32::MAX],
    };
    let again = message(Message::Join(join("one", &[])));
    for (wrong, field) in [(message(Message::Holding(absurd)), "partitions"), (again, "message")] {
        let mut one = Member::join(&client, join("one", &[])).await;
        one.hear().await.unwrap();
        one.says.send(wrong).await.unwrap();
        let status = one.hear().await.unwrap_err();
        assert_eq!(detail::from_status(&status).unwrap().field, field);
        assert_eq!(describe(&client).await.len(), 1);
    }
}
