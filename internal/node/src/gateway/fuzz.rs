//! A way in for the fuzz targets (`tests/fuzz`).
#![allow(clippy::unwrap_used)] // a panic is what is looked for

use ::http::uri::PathAndQuery;
use highwater_partition::log::PrincipalDigest;
use highwater_proto::v1::{ConsumeResponse, StoredBatch};
use serde_json::Value;

use super::batches::{Cut, Encoded, to_json};
use super::json::{AppendBody, Producer};
use super::limits::FETCH_BYTES_MAX;
use super::{fetch, forward, routes};
use crate::batch;
use crate::hex::Id;

/// What a client can send, by the first byte: a target, the body of an append; or what a node can: a forwarded request.
pub fn gateway(bytes: &[u8]) {
    match bytes.split_first() {
        Some((b't', target)) => routed(target),
        Some((b'a', body)) => appended(body),
        Some((b'f', message)) => forward::fuzz(message),
        _ => {}
    }
}

fn routed(bytes: &[u8]) {
    if let Ok(target) = PathAndQuery::try_from(bytes) {
        let _ = routes::find(target.path());
        fetch::fuzz(target.query().unwrap_or_default());
    }
}

/// What is let through comes out as it went in, and is the same batch again when that is appended.
fn appended(bytes: &[u8]) {
    let encode = |body: &[u8]| Encoded::new(&AppendBody::read(body).ok()?.records, 7).ok();
    let Some(encoded) = encode(bytes) else { return };
    let producer = Producer {
        id: Id([7; 16]),
        sequence: 0,
    };
    let request = |encoded: &Encoded| encoded.request("orders", 0, producer, None);
    let Ok(batch) = batch::check(&request(&encoded), PrincipalDigest([1; 16])) else {
        return;
    };
    let response = ConsumeResponse {
        batches: vec![StoredBatch {
            record_count: batch.record_count,
            crc32c: batch.payload_crc,
            batch: batch.payload.clone(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let all = Cut {
        offset: 0,
        records_max: u64::MAX,
        bytes_max: FETCH_BYTES_MAX,
    };
    let mut answer: Value = serde_json::from_slice(&to_json(&response, all).unwrap()).unwrap();
    let mut records = answer["records"].take();
    let count = records.as_array().map_or(0, Vec::len);
    assert_eq!(count, batch.record_count as usize, "records were lost");
    for record in records.as_array_mut().into_iter().flatten() {
        record.as_object_mut().map(|record| record.remove("offset"));
    }
    let again = encode(serde_json::json!({ "records": records }).to_string().as_bytes()).unwrap();
    assert_eq!(request(&again).batch, batch.payload);
}
