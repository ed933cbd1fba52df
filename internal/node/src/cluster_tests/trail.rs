//! The audit as a reader gets it, and whether its records follow from each other.

use std::collections::BTreeMap;

use highwater_catalog::Catalog;
use highwater_catalog::names::{AUDIT_TOPIC, SYSTEM_TENANT};
use highwater_partition::log::GroupId;
use highwater_proto::v1::list_offsets_request::Position;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::*;

pub(super) const AUDIT: &str = "system/audit";

/// A record of the audit as a reader gets it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) value: Bytes,
    pub(super) hash: String,
    pub(super) json: Value,
}

impl Line {
    pub(super) fn text(&self, field: &str) -> &str {
        self.json[field].as_str().unwrap_or_default()
    }

    pub(super) fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap_or_default()
    }

    pub(super) fn is(&self, kind: &str, what: &str) -> bool {
        self.text("kind") == kind && self.text("what") == what
    }
}

pub(super) fn has_audit(catalog: &Catalog) -> bool {
    catalog.topic(SYSTEM_TENANT, AUDIT_TOPIC).is_some()
}

impl TestCluster {
    /// Three nodes that write an audit.
    pub(super) async fn audited() -> TestCluster {
        let cluster = TestCluster::founded().await;
        cluster.until_everywhere("the topic of the audit", has_audit).await;
        cluster
            .until_trail("every node has started", |lines| count(lines, "started", "start") == 3)
            .await;
        cluster
    }

    /// All records that are committed now.
    pub(super) async fn trail(&self) -> Vec<Line> {
        let reading = async {
            loop {
                for number in (0..4).filter(|number| self.nodes[*number].is_some()) {
                    if let Ok(lines) = self.try_trail(number).await {
                        return lines;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, reading).await.expect("the audit cannot be read")
    }

    async fn try_trail(&self, number: usize) -> Result<Vec<Line>, Status> {
        let mut client = self.client(number, OPERATOR_TENANT).await;
        let latest = v1::ListOffsetsRequest {
            topic: AUDIT.to_owned(),
            position: Some(Position::Latest(true)),
            ..Default::default()
        };
        let end = client.log.list_offsets(latest).await?.into_inner().offset;
        let request = v1::ConsumeRequest {
            topic: AUDIT.to_owned(),
            ..Default::default()
        };
        let mut stream = client.log.consume(request).await?.into_inner();
        let mut lines = Vec::new();
        while (lines.len() as u64) < end {
            let Some(response) = stream.message().await? else { break };
            lines.extend(response.batches.iter().flat_map(lines_of));
        }
        Ok(lines)
    }

    /// The records, as soon as they are as expected.
    pub(super) async fn until_trail(&self, what: &str, is_so: impl Fn(&[Line]) -> bool) -> Vec<Line> {
        let waiting = async {
            loop {
                let lines = self.trail().await;
                if is_so(&lines) {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(lines) => lines,
            Err(_) => panic!("in vain: {what}; {:#?}", self.trail().await),
        }
    }

    fn audit_group(&self) -> GroupId {
        let host = self.nodes.iter().flatten().next().unwrap().host();
        let topic = host.read(|catalog| catalog.topic(SYSTEM_TENANT, AUDIT_TOPIC).cloned());
        GroupId(topic.unwrap().partitions[0].group_id)
    }

    /// The node that leads the audit's partition.
    pub(super) async fn audit_leader(&self) -> usize {
        let group = self.audit_group();
        let leader = async {
            loop {
                let mut nodes = self.nodes.iter().flatten();
                let leads = |node: &NodeHandle| node.registry().hosted(group).and_then(|it| it.led_term()).is_some();
                if let Some(node) = nodes.find(|node| leads(node)) {
                    let port = node.address().port();
                    return self.ports.iter().position(|own| *own == port).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, leader).await.expect("nobody leads")
    }
}

fn lines_of(batch: &v1::StoredBatch) -> Vec<Line> {
    let decoded = v1::RecordBatch::decode(batch.batch.clone()).unwrap();
    let line = |record: v1::Record| Line {
        key: String::from_utf8(record.key.unwrap().to_vec()).unwrap(),
        hash: String::from_utf8(record.headers[0].value.to_vec()).unwrap(),
        json: serde_json::from_slice(&record.value).unwrap(),
        value: record.value,
    };
    decoded.records.into_iter().map(line).collect()
}

pub(super) fn count(lines: &[Line], kind: &str, what: &str) -> usize {
    lines.iter().filter(|line| line.is(kind, what)).count()
}

/// Each boot of a node is a chain of its own; each number is there once, in order, and each hash follows from the one before.
pub(super) fn assert_chained(lines: &[Line]) {
    let mut chains: BTreeMap<(&str, &str), (u64, Vec<u8>)> = BTreeMap::new();
    for line in lines {
        assert_eq!(line.key, line.text("node"));
        let chain = (line.text("node"), line.text("boot"));
        let (number, hash) = chains.entry(chain).or_insert((0, vec![0; 32]));
        assert_eq!(line.number("number"), *number, "{line:?}");
        let next = Sha256::new()
            .chain_update(&hash)
            .chain_update(&line.value)
            .finalize()
            .to_vec();
        assert_eq!(line.hash, crate::hex::encode(&next), "{line:?}");
        (*number, *hash) = (*number + 1, next);
    }
}
