//! JSON records into batches, and batches into JSON records: the one file of the gateway that knows the messages.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use highwater_proto::trace::{TRACEPARENT, TraceParent};
use highwater_proto::v1::{ConsumeResponse, Header, OffsetRange, ProduceRequest, Record, RecordBatch, StoredBatch};
use highwater_proto::{batches, keys};
use prost::Message;
use serde::Serialize;

use super::json::{JsonHeader, JsonRecord, Producer};
use super::limits::FETCH_BYTES_MAX;
use crate::status::Problem;

/// Records, encoded as their batch.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    batch: Bytes,
    record_count: u32,
    /// The hashes of their keys.
    hashes: BTreeSet<u32>,
    /// The trace that the first of them is part of that is part of one, as its header says; may be empty.
    traceparent: String,
}

impl Encoded {
    pub(super) fn batch_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Encodes records; `timestamp_ms` is the time of those that say none.
    pub(super) fn new(records: &[JsonRecord], timestamp_ms: i64) -> Result<Encoded, Problem> {
        let decoded = (0..)
            .zip(records)
            .map(|(place, record)| decode(place, record, timestamp_ms));
        let records = decoded.collect::<Result<Vec<Record>, Problem>>()?;
        let keys = records.iter().filter_map(|record| record.key.as_ref());
        let hashes = keys.map(|key| keys::hash(key)).collect();
        let record_count = records.len() as u32;
        let parents = records.iter().flat_map(|record| &record.headers);
        let parents = parents.filter(|header| header.name == TRACEPARENT);
        let traceparent = parents
            .filter_map(|header| TraceParent::parse(&header.value))
            .find(|parent| parent.sampled);
        let batch = RecordBatch {
            records,
            compressed_records: Bytes::new(),
        };
        Ok(Encoded {
            batch: batch.encode_to_vec().into(),
            record_count,
            hashes,
            traceparent: traceparent.map_or_else(String::new, |parent| parent.to_string()),
        })
    }

    /// The partition, of `count`, that the keys lead to; None without keys.
    pub(super) fn partition(&self, count: u32) -> Result<Option<u32>, Problem> {
        let partitions: BTreeSet<u32> = self.hashes.iter().map(|hash| hash % count.max(1)).collect();
        let mut partitions = partitions.into_iter();
        match (partitions.next(), partitions.next()) {
            (Some(one), Some(other)) => Err(Problem::Invalid {
                field: "records",
                why: format!(
                    "their keys lead to several partitions, {one} and {other} among them; send a request for each, or say \
                     which `partition`"
                ),
            }),
            (first, _) => Ok(first),
        }
    }

    /// The request that appends them.
    pub(super) fn request(
        &self,
        topic: &str,
        partition: u32,
        producer: Producer,
        expected_offset: Option<u64>,
    ) -> ProduceRequest {
        ProduceRequest {
            topic: topic.to_owned(),
            partition,
            producer_id: Bytes::copy_from_slice(&producer.id.0),
            sequence: producer.sequence,
            record_count: self.record_count,
            expected_offset,
            batch: self.batch.clone(),
            traceparent: self.traceparent.clone(),
            ..Default::default()
        }
    }
}

fn decode(place: usize, record: &JsonRecord, timestamp_ms: i64) -> Result<Record, Problem> {
    let key = record.key.as_ref().map(|key| unbase64("key", place, key)).transpose()?;
    let header = |header: &JsonHeader| {
        Ok(Header {
            name: header.name.clone(),
            value: unbase64("headers", place, &header.value)?,
        })
    };
    Ok(Record {
        key,
        value: unbase64("value", place, &record.value)?,
        headers: record.headers.iter().map(header).collect::<Result<_, Problem>>()?,
        timestamp_ms: record.timestamp_ms.unwrap_or(timestamp_ms),
    })
}

fn unbase64(field: &'static str, place: usize, text: &str) -> Result<Bytes, Problem> {
    let decoded = STANDARD.decode(text).map_err(|error| Problem::Invalid {
        field,
        why: format!("of records[{place}] is not base64: {error}"),
    })?;
    Ok(decoded.into())
}

// ------------------------------------------------------------------------------------------------------ and back

/// Which records of a response are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// The first offset.
    pub(super) offset: u64,
    pub(super) records_max: u64,
    /// Of JSON; a single longer record is given whole.
    pub(super) bytes_max: u64,
}

#[derive(Serialize)]
struct OutRecord<'a> {
    offset: u64,
    timestamp_ms: i64,
    key: Option<String>,
    value: String,
    headers: Vec<OutHeader<'a>>,
}

#[derive(Serialize)]
struct OutHeader<'a> {
    name: &'a str,
    value: String,
}

/// A response as JSON.
pub(super) fn to_json(response: &ConsumeResponse, cut: Cut) -> Result<Vec<u8>, Problem> {
    let mut records = Records::new(cut);
    for batch in &response.batches {
        match records.add_batch(batch) {
            Ok(true) => {}
            Ok(false) => break,
            // What comes before it is given first; whoever asks for the rest learns what is wrong.
            Err(_) if records.count > 0 => break,
            Err(problem) => return Err(problem),
        }
    }
    let mut json = b"{\"records\":[".to_vec();
    json.append(&mut records.json);
    let rest = format!(
        "],\"next_offset\":{},\"high_watermark\":{},\"log_start\":{}}}\n",
        records.next_offset, response.high_watermark, response.log_start
    );
    json.extend_from_slice(rest.as_bytes());
    Ok(json)
}

/// The records given so far.
struct Records {
    cut: Cut,
    json: Vec<u8>,
    count: u64,
    next_offset: u64,
}

impl Records {
    fn new(cut: Cut) -> Records {
        Records {
            cut,
            json: Vec::new(),
            count: 0,
            next_offset: cut.offset,
        }
    }

    /// Whether there is room for more behind this batch.
    fn add_batch(&mut self, batch: &StoredBatch) -> Result<bool, Problem> {
        let end = batch.base_offset + u64::from(batch.record_count);
        let mut rest = batches::open(batch).map_err(|broken| unreadable(batch.base_offset, end, broken))?;
        let mut offset = batch.base_offset;
        while let Some(bytes) = batches::next_record(&mut rest).map_err(|broken| unreadable(offset, end, broken))? {
            if offset >= self.cut.offset {
                if self.count >= self.cut.records_max {
                    return Ok(false);
                }
                // The others of the batch can be read all the same.
                let record = batches::record(bytes).map_err(|broken| unreadable(offset, offset + 1, broken))?;
                if !self.add(offset, &record)? {
                    return Ok(false);
                }
            }
            offset += 1;
        }
        Ok(true)
    }

    /// Whether there was room for it.
    fn add(&mut self, offset: u64, record: &Record) -> Result<bool, Problem> {
        let json = serde_json::to_vec(&out(offset, record)).map_err(|error| Problem::Internal(error.to_string()))?;
        let found = json.len() as u64;
        if self.count > 0 && self.json.len() as u64 + 1 + found > self.cut.bytes_max {
            return Ok(false);
        }
        if found > FETCH_BYTES_MAX {
            return Err(Problem::RecordTooLarge {
                offset,
                found,
                limit: FETCH_BYTES_MAX,
            });
        }
        if self.count > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(&json);
        self.count += 1;
        self.next_offset = offset + 1;
        Ok(true)
    }
}

/// What cannot be read of a batch; whoever goes on at the range's end misses nothing else.
fn unreadable(log_start: u64, high_watermark: u64, broken: batches::BrokenBatch) -> Problem {
    Problem::BrokenBatch {
        why: broken.0,
        range: OffsetRange {
            log_start,
            high_watermark,
        },
    }
}

fn out(offset: u64, record: &Record) -> OutRecord<'_> {
    OutRecord {
        offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_ref().map(|key| STANDARD.encode(key)),
        value: STANDARD.encode(&record.value),
        headers: record.headers.iter().map(out_header).collect(),
    }
}

fn out_header(header: &Header) -> OutHeader<'_> {
    OutHeader {
        name: &header.name,
        value: STANDARD.encode(&header.value),
    }
}
