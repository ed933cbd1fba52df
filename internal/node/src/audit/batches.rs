//! Records of the audit as the batch that they are stored in.
//!
//! The one place of the audit that knows the wire's messages: to its readers, this topic is one like any other. A record's key is the
//! name of the node that wrote it, its header `hash` the place in that node's chain.

use bytes::Bytes;
use highwater_proto::v1::{Header, ProduceRequest, Record, RecordBatch};
use prost::Message;

use crate::hex::Id;

/// The header that a record's hash stands in.
const HASH_HEADER: &str = "hash";

/// A record that has its place in the chain.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) time_ms: u64,
    pub(super) value: Bytes,
    pub(super) hash: String,
}

/// The batch of these records, for the audit's partition.
pub(super) fn request(node: &str, producer: Id, sequence: u64, records: &[Sealed]) -> ProduceRequest {
    let batch = RecordBatch {
        records: records.iter().map(|sealed| record(node, sealed)).collect(),
        compressed_records: Bytes::new(),
    };
    ProduceRequest {
        producer_id: Bytes::copy_from_slice(&producer.0),
        sequence,
        record_count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        batch: batch.encode_to_vec().into(),
        ..Default::default()
    }
}

fn record(node: &str, sealed: &Sealed) -> Record {
    Record {
        key: Some(Bytes::copy_from_slice(node.as_bytes())),
        value: sealed.value.clone(),
        headers: vec![Header {
            name: HASH_HEADER.to_owned(),
            value: Bytes::copy_from_slice(sealed.hash.as_bytes()),
        }],
        timestamp_ms: i64::try_from(sealed.time_ms).unwrap_or(i64::MAX),
    }
}

/// As it travels to the node that leads.
pub(super) fn encode(request: &ProduceRequest) -> Bytes {
    request.encode_to_vec().into()
}

/// A batch that another node has sent. A node writes about itself alone, and nothing that its readers could not read.
pub(super) fn decode(from: &str, body: Bytes) -> Result<ProduceRequest, String> {
    let request = ProduceRequest::decode(body).map_err(|error| format!("a batch that cannot be read: {error}"))?;
    let batch =
        RecordBatch::decode(request.batch.clone()).map_err(|error| format!("a batch of no records: {error}"))?;
    let is_own = |record: &Record| record.key.as_deref() == Some(from.as_bytes());
    if batch.records.is_empty() || !batch.records.iter().all(is_own) {
        return Err(format!(
            "{from} may write into the audit what it did itself, and nothing else"
        ));
    }
    if request.expected_offset.is_some() {
        return Err("a batch of the audit is appended wherever it comes".to_owned());
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(node: &str) -> ProduceRequest {
        let sealed = Sealed {
            time_ms: 5,
            value: Bytes::from_static(b"{}"),
            hash: "00".repeat(32),
        };
        request(node, Id([1; 16]), 3, &[sealed.clone(), sealed])
    }

    #[test]
    fn what_a_node_sends_is_read_as_it_was() {
        let request = sent("b");
        assert_eq!(decode("b", encode(&request)).unwrap(), request);
        assert_eq!((request.record_count, request.sequence), (2, 3));
    }

    #[test]
    fn a_node_writes_in_no_other_nodes_name() {
        for wrong in [
            sent("a"),
            request("b", Id([1; 16]), 0, &[]),
            ProduceRequest {
                expected_offset: Some(0),
                ..sent("b")
            },
            ProduceRequest {
                batch: Bytes::from_static(b"\xff"),
                ..sent("b")
            },
        ] {
            assert!(decode("b", encode(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(decode("b", Bytes::from_static(b"\xff\xff")).is_err());
    }
}
