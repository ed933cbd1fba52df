//! Helpers of the tests: small batches whose payloads are told apart.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod hooked;
pub(crate) mod pair;
pub(crate) mod rig;
pub(crate) mod store;
pub(crate) mod world;

use bytes::Bytes;
use highwater_log::{
    Batch, Body, ClusterId, Entry, EntryId, GroupId, Identity, Log, PrincipalDigest, ProducerId, ReplicaId, crc32c,
};

pub(crate) fn identity() -> Identity {
    Identity {
        cluster_id: ClusterId([7; 16]),
        group_id: GroupId(5),
        replica_id: ReplicaId(9),
    }
}

pub(crate) fn ids(term: u64, index: u64) -> EntryId {
    EntryId { term, index }
}

pub(crate) fn batch_of(producer: u8, sequence: u64, payload: Bytes) -> Batch {
    Batch {
        producer_id: ProducerId([producer; 16]),
        principal: PrincipalDigest([1; 16]),
        sequence,
        record_count: 1,
        compression: 0,
        expected_offset: None,
        payload_crc: crc32c(&payload),
        payload,
    }
}

pub(crate) fn batch(term: u64, index: u64, sequence: u64, producer: u8) -> Entry {
    let payload = Bytes::from(format!("record {term}.{index} ").repeat(1 + (index as usize * 7) % 11));
    Entry::Proposed {
        id: ids(term, index),
        body: Body::Batch(batch_of(producer, sequence, payload)),
    }
}

/// What was sent so far, by one producer per log.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) term: u64,
    pub(crate) payloads: Vec<Bytes>,
}

impl Default for Sent {
    fn default() -> Self {
        Sent {
            term: 1,
            payloads: Vec::new(),
        }
    }
}

impl Sent {
    pub(crate) fn batch(&mut self, index: u64) -> Entry {
        let entry = batch(self.term, index, self.payloads.len() as u64, 1);
        if let Entry::Proposed {
            body: Body::Batch(batch),
            ..
        } = &entry
        {
            self.payloads.push(batch.payload.clone());
        }
        entry
    }

    pub(crate) fn cut(mut self, count: usize) -> Sent {
        self.payloads.truncate(count);
        self
    }
}

/// The payloads of all frames, read in small steps.
pub(crate) fn payloads(log: &Log) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    let mut start = 0;
    loop {
        let frames = log.read(start, u64::MAX, 700).unwrap();
        let Some(last) = frames.last() else {
            return payloads;
        };
        start = last.id().index + 1;
        payloads.extend(frames.into_iter().map(|frame| frame.payload));
    }
}
