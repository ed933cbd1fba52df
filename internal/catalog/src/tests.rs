//! What the catalog promises, told through its public surface.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod golden;
mod nodes;
mod random;
mod replicas;
mod topics;

use crate::{Catalog, CatalogReplica, Command, FoundingNode, Refusal, Reply, Topic};

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
