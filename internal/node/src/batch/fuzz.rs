//! A way in for the fuzz targets (`tests/fuzz`).

use super::*;

/// How many records an uncompressed batch of these bytes holds, if it is let through.
pub fn batch(bytes: &[u8]) -> Option<u32> {
    let content = walk_batch(bytes).ok()?;
    let request = |record_count| ProduceRequest {
        producer_id: Bytes::from_static(&[7; 16]),
        record_count,
        batch: Bytes::copy_from_slice(bytes),
        ..Default::default()
    };
    let principal = PrincipalDigest([1; 16]);
    assert!(
        check(&request(content.records + 1), principal).is_err(),
        "a wrong count was let through"
    );
    let batch = check(&request(content.records), principal).ok()?;
    assert_eq!(batch.payload, bytes);
    Some(batch.record_count)
}
