//! What the catalog promises, told through its public surface.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod golden;
mod golden_2;
mod golden_4;
mod golden_access;
mod leaving;
mod moves;
mod nodes;
mod planning;
mod planning_random;
mod proposing;
mod quotas;
mod random;
mod recovery;
mod replicas;
mod settings;
mod topics;
mod updates;

use crate::{Catalog, CatalogReplica, Command, FoundingNode, Partition, Refusal, Reply, Topic};

const CLUSTER_ID: [u8; 16] = [0xc1; 16];

/// A catalog and the index of its next command. Every refusal is checked to change nothing.
struct Fixture {
    catalog: Catalog,
    index: u64,
}

impl Fixture {
    fn unfounded() -> Fixture {
        Fixture {
            catalog: Catalog::new(),
            index: 0,
        }
    }

    /// A cluster founded by `n0`, `n1`, …
    fn founded(nodes: usize) -> Fixture {
        let mut fixture = Fixture::unfounded();
        assert_eq!(
            fixture.apply(found(CLUSTER_ID, nodes)),
            Reply::Founded { cluster_id: CLUSTER_ID }
        );
        fixture
    }

    /// The same at feature level 2; node `n`'s rack is `racks[n]`.
    fn level_2(racks: &[&str]) -> Fixture {
        let mut fixture = Fixture::founded(racks.len());
        assert_eq!(fixture.apply(Command::RaiseFeatureLevel { level: 2 }), Reply::Done);
        for (number, rack) in racks.iter().enumerate() {
            let replica_id = number as u64 + 1;
            let held = Some(CatalogReplica::Runs(replica_id));
            fixture.replica_id(register_2(&format!("n{number}"), number as u8, rack, held));
        }
        fixture
    }

    /// Another node, which has run.
    fn join(&mut self, number: usize, rack: &str) {
        let name = format!("n{number}");
        let replica_id = self.replica_id(register_2(&name, number as u8, rack, None));
        let held = Some(CatalogReplica::Runs(replica_id));
        self.replica_id(register_2(&name, number as u8, rack, held));
    }

    fn done(&mut self, command: Command) {
        assert_eq!(self.apply(command.clone()), Reply::Done, "{command:?}");
    }

    /// Accepted twice, the second time without any change; what the first one answered.
    fn done_twice(&mut self, command: Command) {
        self.done(command.clone());
        let after = self.catalog.clone();
        self.done(command);
        assert_eq!(self.catalog, after, "a repetition changed something");
    }

    /// Lets every group go of its former replicas, and every replica have run.
    fn settle(&mut self) {
        let partitions = self.catalog.all_topics().flat_map(|topic| topic.partitions.clone());
        for partition in partitions.collect::<Vec<_>>() {
            self.settle_group(&partition);
        }
    }

    fn settle_group(&mut self, partition: &Partition) {
        let group = partition.group_id;
        for replica in &partition.replaced {
            self.done(replicas::retire(group, replica.replica_id));
        }
        let all: Vec<(u64, u64)> = partition.replicas.iter().map(|it| (group, it.replica_id)).collect();
        self.done(replicas::started(&all));
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        let before = self.catalog.clone();
        let reply = self.catalog.apply(self.index, &command);
        if matches!(reply, Reply::Refused(_)) {
            assert_eq!(self.catalog, before, "{command:?} was refused, yet changed the state");
        }
        if self.catalog != before {
            assert_eq!(
                self.catalog.revision(),
                self.index,
                "{command:?} changed the state, but not the revision"
            );
        }
        reply
    }

    fn refused(&mut self, command: Command) -> Refusal {
        match self.apply(command) {
            Reply::Refused(refusal) => refusal,
            other => panic!("{other:?} is not a refusal"),
        }
    }

    fn topic(&mut self, command: Command) -> Topic {
        match self.apply(command) {
            Reply::Topic(topic) => topic,
            other => panic!("{other:?} is not a topic"),
        }
    }

    fn replica_id(&mut self, command: Command) -> u64 {
        match self.apply(command) {
            Reply::Node { replica_id } => replica_id,
            other => panic!("{other:?} is not a node"),
        }
    }
}

fn founding_node(number: usize) -> FoundingNode {
    FoundingNode {
        name: format!("n{number}"),
        incarnation: [number as u8; 16],
        address: format!("n{number}.example:9000"),
        rack: String::new(),
        replica_id: number as u64 + 1,
    }
}

fn found(cluster_id: [u8; 16], nodes: usize) -> Command {
    let nodes = (0..nodes).map(founding_node).collect();
    Command::Found {
        cluster_id,
        cluster_name: "test".to_string(),
        nodes,
    }
}

fn register(name: &str, incarnation: u8) -> Command {
    Command::RegisterNode {
        name: name.to_string(),
        incarnation: [incarnation; 16],
        address: format!("{name}.example:9000"),
        rack: String::new(),
        version: "0.1.0".to_string(),
        feature_level: 1,
        catalog_replica: None,
    }
}

fn register_2(name: &str, incarnation: u8, rack: &str, catalog_replica: Option<CatalogReplica>) -> Command {
    Command::RegisterNode {
        name: name.to_string(),
        incarnation: [incarnation; 16],
        address: format!("{name}.example:9000"),
        rack: rack.to_string(),
        version: "0.2.0".to_string(),
        feature_level: 2,
        catalog_replica,
    }
}

fn decommission(node: &str, leaving: bool) -> Command {
    let node = node.to_string();
    Command::DecommissionNode { node, leaving }
}

fn drain(node: &str, drained: bool) -> Command {
    let node = node.to_string();
    Command::DrainNode { node, drained }
}

fn remove(node: &str) -> Command {
    let node = node.to_string();
    Command::RemoveNode { node }
}

fn move_to(group_id: u64, replica_id: u64, node: &str) -> Command {
    let node = node.to_string();
    Command::MoveReplica {
        group_id,
        replica_id,
        node,
    }
}

fn recover(group_id: u64, replica_id: u64) -> Command {
    Command::RecoverPartition { group_id, replica_id }
}

fn prefer(group_id: u64, replica_id: u64) -> Command {
    Command::PreferLeader { group_id, replica_id }
}

/// An update of `acme/name`.
#[derive(Default)]
struct Change<'a> {
    topic_id: Option<u64>,
    partitions: Option<u32>,
    replication: Option<u32>,
    retention_ms: Option<u64>,
    leader_rack: Option<&'a str>,
    avoid: &'a [&'a str],
}

fn update(name: &str, change: Change) -> Command {
    Command::UpdateTopic {
        tenant: "acme".to_string(),
        name: name.to_string(),
        topic_id: change.topic_id,
        partitions: change.partitions,
        replication: change.replication,
        retention_ms: change.retention_ms,
        retention_bytes: None,
        leader_rack: change.leader_rack.map(str::to_string),
        avoid: change.avoid.iter().map(|name| name.to_string()).collect(),
    }
}

fn resize(name: &str, replication: u32) -> Command {
    let replication = Some(replication);
    update(
        name,
        Change {
            replication,
            ..Change::default()
        },
    )
}

fn nodes_of(partition: &Partition) -> Vec<&str> {
    partition.replicas.iter().map(|replica| replica.node.as_str()).collect()
}

fn register_holding(held: CatalogReplica, name: &str, incarnation: u8) -> Command {
    match register(name, incarnation) {
        Command::RegisterNode {
            name,
            incarnation,
            address,
            rack,
            version,
            feature_level,
            ..
        } => Command::RegisterNode {
            name,
            incarnation,
            address,
            rack,
            version,
            feature_level,
            catalog_replica: Some(held),
        },
        other => panic!("{other:?}"),
    }
}

fn create(name: &str, partitions: u32, replication: u32) -> Command {
    create_in("acme", name, partitions, replication)
}

fn create_in(tenant: &str, name: &str, partitions: u32, replication: u32) -> Command {
    let (tenant, name) = (tenant.to_string(), name.to_string());
    Command::CreateTopic {
        tenant,
        name,
        partitions,
        replication,
        retention_ms: None,
        retention_bytes: None,
        avoid: Vec::new(),
    }
}

fn delete(name: &str, topic_id: Option<u64>) -> Command {
    Command::DeleteTopic {
        tenant: "acme".to_string(),
        name: name.to_string(),
        topic_id,
    }
}
