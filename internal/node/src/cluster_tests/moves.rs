//! Replicas move, nodes join and leave, leaders go where they should; and what was acknowledged stays.

use highwater_catalog::{Catalog, Command};

use super::*;

pub(super) const BATCHES: u64 = 20;
/// The tenant of the client that may change the cluster.
pub(super) const TENANT: &str = super::OPERATOR_TENANT;

impl TestCluster {
    /// Waits until the catalog, as a running node knows it, is as `is_so` says.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Catalog) -> bool) {
        let waiting = async {
            while !self.nodes.iter().flatten().any(|node| node.host().read(&is_so)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    /// The same on every running node.
    pub(super) async fn until_everywhere(&self, what: &str, is_so: impl Fn(&Catalog) -> bool) {
        let waiting = async {
            while !self.nodes.iter().flatten().all(|node| node.host().read(&is_so)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("in vain: {what}"));
    }

    /// Three nodes that know the newer rules, with a topic.
    pub(super) async fn with_topic(partitions: u32, replication: u32) -> TestCluster {
        let mut cluster = TestCluster::founded().await;
        cluster.until("the rules are raised", is_raised).await;
        cluster.create(partitions, replication).await;
        cluster.fill(0..BATCHES).await;
        cluster
    }

    async fn create(&mut self, partitions: u32, replication: u32) {
        let request = v1::CreateTopicRequest {
            topic: "orders".to_owned(),
            partitions,
            replication,
            config: None,
        };
        let mut client = self.client(0, TENANT).await;
        timeout(PATIENCE, client.topics.create_topic(request))
            .await
            .unwrap()
            .unwrap();
    }

    pub(super) async fn fill(&self, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            let batch = batch_of("orders", sequence, &[&format!("kept {sequence}")]);
            let answer = self.produce(TENANT, batch).await.unwrap();
            assert_eq!(answer.base_offset, sequence);
        }
    }

    /// Waits until the node's own replica of partition 0 has everything and serves it, and reads it there.
    pub(super) async fn assert_serves(&self, number: usize, count: u64) {
        let reading = async {
            loop {
                let mut client = self.client(number, TENANT).await;
                if let Some(values) = client.read_all("orders", count).await {
                    return values;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let read = timeout(PATIENCE, reading).await;
        let read = read.unwrap_or_else(|_| panic!("{} does not serve", NAMES[number]));
        let expected: Vec<String> = (0..count).map(|sequence| format!("kept {sequence}")).collect();
        assert_eq!(read, expected);
    }

    pub(super) async fn leader(&self) -> String {
        let finding = async {
            loop {
                for number in self.running() {
                    let mut client = self.client(number, TENANT).await;
                    let replicas = client.describe().await.replicas;
                    if let Some(leader) = replicas.iter().find(|it| it.role == "leader" && it.partition == 0) {
                        return leader.node.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, finding).await.expect("nobody leads")
    }

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..NAMES.len()).filter(|number| self.nodes[*number].is_some())
    }
}

impl TestClient {
    /// `count` values from the beginning of partition 0 from the very node that is asked; None if it cannot yet.
    async fn read_all(&mut self, topic: &str, count: u64) -> Option<Vec<String>> {
        let request = v1::ConsumeRequest {
            topic: topic.to_owned(),
            ..Default::default()
        };
        let mut stream = self.log.consume(request).await.ok()?.into_inner();
        let mut values = Vec::new();
        while (values.len() as u64) < count {
            let next = timeout(Duration::from_secs(2), stream.message()).await.ok()?;
            values.extend(values_of(&next.ok()??));
        }
        Some(values)
    }

    /// Asks again and again until the node has left. In between there may be no leader of the catalog for a moment.
    async fn until_removed(&mut self, request: v1::DecommissionNodeRequest) {
        let removed = async {
            loop {
                match self.cluster.decommission_node(request.clone()).await {
                    Ok(answer) if answer.get_ref().removed => return,
                    Err(status) if status.code() != tonic::Code::Unavailable => panic!("{status:?}"),
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        };
        timeout(PATIENCE, removed).await.expect("the node is not removed");
    }

    pub(super) async fn settings(&mut self, change: v1::UpdateSettingsRequest) {
        let changed = timeout(PATIENCE, self.cluster.update_settings(change)).await;
        changed.unwrap().unwrap();
    }
}

fn is_raised(catalog: &Catalog) -> bool {
    catalog.feature_level() >= 2
}

/// The nodes of partition 0's replicas, if nothing moves at the moment.
fn settled(catalog: &Catalog) -> Option<Vec<String>> {
    let topic = catalog.topic(TENANT, "orders")?;
    let moving = topic.partitions.iter().any(|partition| !partition.replaced.is_empty());
    let partition = &topic.partitions[0];
    let mut nodes: Vec<String> = partition.replicas.iter().map(|replica| replica.node.clone()).collect();
    nodes.sort();
    (!moving).then_some(nodes)
}

pub(super) fn are(catalog: &Catalog, nodes: &[&str]) -> bool {
    settled(catalog).is_some_and(|settled| settled == nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_to_another_node_with_all_its_records() {
    let mut cluster = TestCluster::with_topic(1, 3).await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let leader = cluster.leader().await;
    let request = v1::MoveReplicaRequest {
        topic: "orders".to_owned(),
        partition: 0,
        from_node: leader.clone(),
        to_node: "d".to_owned(),
    };
    let mut client = cluster.client(0, TENANT).await;
    timeout(PATIENCE, client.cluster.move_replica(request))
        .await
        .unwrap()
        .unwrap();
    let without_leader: Vec<&str> = NAMES.into_iter().filter(|name| *name != leader).collect();
    cluster
        .until("the replica has moved", |catalog| are(catalog, &without_leader))
        .await;
    cluster.assert_serves(3, BATCHES).await;
    cluster.fill(BATCHES..BATCHES + 5).await;
    cluster.assert_serves(3, BATCHES + 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_decommissioned_is_emptied_and_removed_and_stays_away() {
    let mut cluster = TestCluster::with_topic(2, 3).await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let mut client = cluster.client(1, TENANT).await;
    let request = v1::DecommissionNodeRequest {
        node: "a".to_owned(),
        undo: false,
        look: false,
    };
    client.until_removed(request).await;
    cluster
        .until("d stands in", |catalog| are(catalog, &["b", "c", "d"]))
        .await;
    let names: Vec<String> = client
        .describe()
        .await
        .nodes
        .into_iter()
        .map(|node| node.name)
        .collect();
    assert_eq!(names, ["b", "c", "d"]);
    cluster.stop(0).await;
    cluster.fill(BATCHES..BATCHES + 5).await;
    cluster.assert_serves(3, BATCHES + 5).await;
    cluster.start(0).await;
    let failed = cluster.nodes[0].as_ref().unwrap().failed();
    let failure = timeout(PATIENCE, failed).await.expect("it runs on").to_string();
    assert!(failure.contains("removed"), "{failure}");
}

/// It still has its certificate, and may run on.
async fn changes_nothing_any_more(cluster: &TestCluster, removed: usize) {
    let is_removed = |catalog: &Catalog| catalog.node(NAMES[removed]).is_some_and(|node| node.removed);
    let others = || cluster.nodes.iter().take(3).flatten();
    let known = async {
        while !others().all(|node| node.host().read(is_removed)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, known).await.unwrap();
    let link = cluster.nodes[removed].as_ref().unwrap().link();
    outsiders::assert_changes_nothing(cluster, link, NAMES[removed]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_comes_back_with_an_empty_directory() {
    let mut cluster = TestCluster::with_topic(1, 1).await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let mut client = cluster.client(1, TENANT).await;
    let request = v1::DecommissionNodeRequest {
        node: "d".to_owned(),
        undo: false,
        look: false,
    };
    client.until_removed(request).await;
    changes_nothing_any_more(&cluster, 3).await;
    cluster.stop(3).await;
    cluster.wipe(3);
    cluster.start(3).await;
    cluster.ready(3).await;
    let nodes = client.describe().await.nodes;
    let back = nodes.iter().find(|node| node.name == "d").unwrap();
    assert!(!back.leaving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_of_a_node_that_stays_away_are_given_to_another_one() {
    let mut cluster = TestCluster::with_topic(1, 3).await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let change = v1::UpdateSettingsRequest {
        replace_after_ms: Some(2_000),
        ..Default::default()
    };
    cluster.client(0, TENANT).await.settings(change).await;
    cluster.stop(2).await;
    cluster
        .until("d stands in for c", |catalog| are(catalog, &["a", "b", "d"]))
        .await;
    cluster.assert_serves(3, BATCHES).await;
    // It is back with a replica that is nobody's any more, and lets go of it.
    cluster.start(2).await;
    cluster.ready(2).await;
    cluster.fill(BATCHES..BATCHES + 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_spare_node_nothing_is_taken_from_one_that_is_away() {
    let mut cluster = TestCluster::with_topic(1, 3).await;
    let change = v1::UpdateSettingsRequest {
        replace_after_ms: Some(1_000),
        ..Default::default()
    };
    cluster.client(0, TENANT).await.settings(change).await;
    cluster.stop(2).await;
    cluster.fill(BATCHES..BATCHES + 2).await;
    cluster.start(2).await;
    cluster.ready(2).await;
    cluster
        .until("all is as before", |catalog| are(catalog, &["a", "b", "c"]))
        .await;
    let catalog_voters = cluster.client(0, TENANT).await.describe().await.nodes;
    assert!(
        catalog_voters.iter().all(|node| node.catalog_role == "voter"),
        "{catalog_voters:?}"
    );
    cluster.assert_serves(2, BATCHES + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_gets_more_replicas_and_partitions_and_fewer_replicas_again() {
    let cluster = TestCluster::with_topic(1, 1).await;
    let mut client = cluster.client(0, TENANT).await;
    let mut update = async |change: v1::UpdateTopicRequest| {
        let request = v1::UpdateTopicRequest {
            topic: "orders".to_owned(),
            ..change
        };
        let updated = timeout(PATIENCE, client.topics.update_topic(request)).await.unwrap();
        updated.map(|updated| updated.into_inner().topic.unwrap())
    };
    let grown = update(v1::UpdateTopicRequest {
        replication: Some(3),
        partitions: Some(2),
        retention_ms: Some(0),
        ..Default::default()
    });
    let grown = grown.await.unwrap();
    assert_eq!((grown.replication, grown.partitions.len()), (3, 2));
    assert_eq!(grown.config.unwrap().retention_ms, Some(0));
    for number in 0..3 {
        cluster.assert_serves(number, BATCHES).await;
    }
    let fewer = update(v1::UpdateTopicRequest {
        partitions: Some(1),
        ..Default::default()
    });
    assert_eq!(reason(&fewer.await.unwrap_err()), Reason::InvalidArgument);
    let shrunk = update(v1::UpdateTopicRequest {
        replication: Some(1),
        ..Default::default()
    });
    assert_eq!(shrunk.await.unwrap().replication, 1);
    cluster
        .until("the others are let go of", |catalog| {
            settled(catalog).is_some_and(|nodes| nodes.len() == 1)
        })
        .await;
    cluster.fill(BATCHES..BATCHES + 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_decided_is_no_error_when_it_is_asked_for_again() {
    let mut cluster = TestCluster::with_topic(1, 3).await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let mut client = cluster.client(0, TENANT).await;
    let request = v1::MoveReplicaRequest {
        topic: "orders".to_owned(),
        partition: 0,
        from_node: "b".to_owned(),
        to_node: "d".to_owned(),
    };
    for _ in 0..2 {
        let moved = timeout(PATIENCE, client.cluster.move_replica(request.clone())).await;
        moved.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_change_the_cluster() {
    let cluster = TestCluster::founded().await;
    let mut client = cluster.client(0, "shop").await;
    let request = v1::DrainNodeRequest {
        node: "a".to_owned(),
        undo: false,
        look: false,
    };
    let refused = client.cluster.drain_node(request).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_newer_rules_waits_until_every_node_knows_them() {
    let cluster = TestCluster::founded().await;
    let node = cluster.nodes[0].as_ref().unwrap();
    cluster.until("the rules are raised", is_raised).await;
    let level = node.host().read(Catalog::feature_level);
    assert_eq!(level, highwater_catalog::FEATURE_LEVEL);
    let told = |catalog: &Catalog| {
        catalog
            .members()
            .all(|node| node.feature_level == highwater_catalog::FEATURE_LEVEL)
    };
    cluster.until("every node has told its level", told).await;
    let command = Command::DrainNode {
        node: "a".to_owned(),
        drained: true,
    };
    assert_eq!(command.feature_level(), 2);
}
