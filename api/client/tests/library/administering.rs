//! Administrative calls, and what becomes of them when answers get lost.

use std::time::Duration;

use highwater::{CreateTopic, Error, Reason, TlsFiles, UpdateTopic};

use crate::certificates::Authority;
use crate::cluster::{Cluster, TOPIC};
use crate::within;

fn two_partitions() -> CreateTopic {
    CreateTopic {
        partitions: 2,
        replication: 1,
        retention_ms: Some(1_000),
        ..CreateTopic::default()
    }
}

#[tokio::test]
async fn topics_are_created_listed_found_and_deleted() {
    let cluster = Cluster::start(3, 1);
    let client = within(cluster.client()).await;
    within(async {
        let topics = client.topics();
        let created = topics.create("letters", two_partitions()).await.unwrap();
        assert_eq!(created.partitions.len(), 2);
        assert_eq!(topics.get("letters").await.unwrap(), created);
        let names: Vec<String> = topics
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|topic| topic.name)
            .collect();
        assert_eq!(names, [TOPIC, "letters"]);
        // These nodes do not know the question: what they answer is not taken for somebody else's topics.
        let error = topics.list_of("another").await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::InvalidArgument));
        let error = topics.create("letters", two_partitions()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TopicExists));
        topics.delete("letters").await.unwrap();
        assert_eq!(
            topics.get("letters").await.unwrap_err().reason(),
            Some(Reason::TopicNotFound)
        );
        assert_eq!(
            topics.delete("letters").await.unwrap_err().reason(),
            Some(Reason::TopicNotFound)
        );
    })
    .await;
}

#[tokio::test]
async fn a_creation_and_a_deletion_without_an_answer_still_succeed() {
    let cluster = Cluster::start(3, 1);
    let client = within(cluster.client()).await;
    within(async {
        cluster.shared.lock().unanswered_calls = 1;
        client.topics().create("letters", two_partitions()).await.unwrap();
        cluster.shared.lock().unanswered_calls = 1;
        client.topics().delete("letters").await.unwrap();
        assert_eq!(cluster.shared.lock().unanswered_calls, 0, "both answers were lost");
        let again = client.topics().delete("letters").await.unwrap_err();
        assert_eq!(again.reason(), Some(Reason::TopicNotFound), "nothing was in doubt");
    })
    .await;
}

#[tokio::test]
async fn a_change_of_a_topic_without_an_answer_is_made_again() {
    let cluster = Cluster::start(3, 1);
    let client = within(cluster.client()).await;
    within(async {
        let topics = client.topics();
        topics.create("letters", two_partitions()).await.unwrap();
        cluster.shared.lock().unanswered_calls = 1;
        let change = UpdateTopic {
            leader_rack: Some("east".to_owned()),
            ..UpdateTopic::default()
        };
        let changed = topics.update("letters", change.clone()).await.unwrap();
        assert_eq!(changed.leader_rack, "east");
        let unknown = topics.update("numbers of none", change).await.unwrap_err();
        assert_eq!(unknown.reason(), Some(Reason::TopicNotFound));
        let refused = client.cluster().drain("a", false).await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::PermissionDenied));
    })
    .await;
}

#[tokio::test]
async fn calls_survive_killed_nodes_and_fail_at_their_deadline_when_all_are_gone() {
    let mut cluster = Cluster::start(3, 1);
    let client = within(cluster.client()).await;
    within(async {
        cluster.kill(0);
        cluster.kill(1);
        for _ in 0..10 {
            client.topics().list().await.unwrap();
        }
        cluster.kill(2);
        let error = client
            .topics()
            .deadline(Duration::from_millis(300))
            .list()
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert!(error.to_string().contains("list topics"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_certificate_is_at_fault_fails_no_call_that_others_can_answer() {
    let mut cluster = Cluster::start(3, 1);
    let client = within(cluster.client()).await;
    let foreign = Authority::new(&cluster.path().join("foreign"));
    let files = TlsFiles {
        ca: cluster.authority.client().ca,
        ..foreign.node("b")
    };
    within(async {
        cluster.kill(1);
        cluster.restart_with(1, &files);
        for _ in 0..10 {
            client.topics().list().await.unwrap();
        }
        for number in [0, 2] {
            cluster.kill(number);
            cluster.restart_with(number, &files);
        }
        let error = client.topics().list().await.unwrap_err();
        assert!(error.to_string().contains("not signed by our authority"), "{error}");
        assert!(!error.is_retryable(), "{error}");
    })
    .await;
}

#[tokio::test]
async fn deadlines_longer_than_anybody_waits_are_deadlines_all_the_same() {
    let cluster = Cluster::start(1, 1);
    let client = within(cluster.client()).await.with_deadline(Duration::MAX);
    within(async {
        client.topics().list().await.unwrap();
        let producer = client
            .producer(TOPIC)
            .answer_timeout(Duration::MAX)
            .build()
            .await
            .unwrap();
        producer.send(highwater::Record::new("x")).await.unwrap().await.unwrap();
        let mut consumer = client.consumer(TOPIC, 0).deadline(Duration::MAX).build().await.unwrap();
        assert_eq!(consumer.next_record().await.unwrap().unwrap().value, "x");
    })
    .await;
}
