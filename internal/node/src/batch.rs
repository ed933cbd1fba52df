//! Checking a batch before it is proposed, without decoding it.
//!
//! The bytes of a batch are an encoded `RecordBatch` (api/proto). They are stored and served as they came, so what is
//! wrong with them must be found here: an uncompressed batch is walked over tag by tag, its records are counted and
//! measured, and nothing is allocated. A compressed one is not opened; its consumer checks it. The CRC is computed here
//! in any case and compared if the producer gave one.
//!
//! Invariant: an uncompressed batch that is let through can be decoded by every consumer.
//! Deliberately absent: anything about sequences.

use bytes::Bytes;
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use highwater_partition::log::{Batch, PrincipalDigest, ProducerId};
use highwater_proto::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX,
    RECORD_KEY_BYTES_MAX,
};
use highwater_proto::v1::{Compression, ProduceRequest};

use crate::status::Problem;

/// The fields of the messages that are looked at, as in log.proto.
const BATCH_RECORDS: u32 = 1;
const BATCH_COMPRESSED: u32 = 2;
const RECORD_KEY: u32 = 1;
const RECORD_VALUE: u32 = 2;
const RECORD_HEADERS: u32 = 3;
const RECORD_TIMESTAMP: u32 = 4;
const HEADER_NAME: u32 = 1;
const HEADER_VALUE: u32 = 2;

/// Turns a request's batch into one that can be proposed, or says what is wrong with it.
pub(crate) fn check(request: &ProduceRequest, principal: PrincipalDigest) -> Result<Batch, Problem> {
    let producer_id = <[u8; 16]>::try_from(request.producer_id.as_ref()).map_err(|_| Problem::Invalid {
        field: "producer_id",
        why: format!(
            "is {} bytes long; 16 random bytes are needed",
            request.producer_id.len()
        ),
    })?;
    let payload = &request.batch;
    limit("batch", payload.len(), BATCH_BYTES_MAX)?;
    limit(
        "record_count",
        request.record_count as usize,
        BATCH_RECORDS_MAX as usize,
    )?;
    if request.record_count == 0 {
        let why = "is 0; a batch holds at least one record".to_owned();
        return Err(Problem::Invalid {
            field: "record_count",
            why,
        });
    }
    let compression = Compression::try_from(request.compression).map_err(|_| Problem::Invalid {
        field: "compression",
        why: format!("{} is not known", request.compression),
    })?;
    let payload_crc = checksum(payload);
    if let Some(given) = request.crc32c.filter(|given| *given != payload_crc) {
        let why = format!("its CRC-32C is {payload_crc:08x}, but {given:08x} was given");
        return Err(Problem::Corrupt(why));
    }
    check_content(payload, compression, request.record_count)?;
    Ok(Batch {
        producer_id: ProducerId(producer_id),
        principal,
        sequence: request.sequence,
        record_count: request.record_count,
        compression: compression as u8,
        expected_offset: request.expected_offset,
        payload_crc,
        payload: payload.clone(),
    })
}

fn checksum(payload: &Bytes) -> u32 {
    // A 32-bit CRC comes in the low half.
    crc_fast::checksum(Crc32Iscsi, payload) as u32
}

fn limit(field: &'static str, found: usize, limit: usize) -> Result<(), Problem> {
    if found <= limit {
        return Ok(());
    }
    Err(Problem::TooLarge {
        field,
        found: found as u64,
        limit: limit as u64,
    })
}

fn check_content(payload: &[u8], compression: Compression, record_count: u32) -> Result<(), Problem> {
    let content = walk_batch(payload)?;
    let (wanted, unwanted) = match compression {
        Compression::None => (content.records > 0, content.compressed_fields > 0),
        _ => (content.compressed_fields == 1, content.records > 0),
    };
    if !wanted || unwanted {
        let why = format!(
            "compression is {}, but it holds {} records and {} compressed fields",
            compression.as_str_name(),
            content.records,
            content.compressed_fields
        );
        return Err(Problem::Corrupt(why));
    }
    if compression == Compression::None && content.records != record_count {
        let why = format!(
            "it holds {} records, but record_count is {record_count}",
            content.records
        );
        return Err(Problem::Corrupt(why));
    }
    Ok(())
}

/// What was found in a batch.
#[derive(Debug, Default, PartialEq, Eq)]
struct Content {
    records: u32,
    compressed_fields: u32,
}

fn walk_batch(payload: &[u8]) -> Result<Content, Problem> {
    let mut content = Content::default();
    let mut fields = Fields { rest: payload };
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (BATCH_RECORDS, Value::Bytes(record)) => {
                check_record(record)?;
                content.records += 1;
            }
            (BATCH_COMPRESSED, Value::Bytes(_)) => content.compressed_fields += 1,
            (number, _) => return Err(corrupt(format!("field {number} does not belong into a batch"))),
        }
    }
    Ok(content)
}

fn check_record(record: &[u8]) -> Result<(), Problem> {
    limit("record", record.len(), RECORD_BYTES_MAX)?;
    let mut headers = 0;
    let mut fields = Fields { rest: record };
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (RECORD_KEY, Value::Bytes(key)) => limit("key", key.len(), RECORD_KEY_BYTES_MAX)?,
            (RECORD_HEADERS, Value::Bytes(header)) => {
                headers += 1;
                limit("headers", headers, RECORD_HEADERS_MAX)?;
                check_header(header)?;
            }
            (RECORD_VALUE, Value::Bytes(_)) | (RECORD_TIMESTAMP, Value::Number) => {}
            (RECORD_KEY | RECORD_VALUE | RECORD_HEADERS | RECORD_TIMESTAMP, _) => {
                return Err(corrupt(format!(
                    "field {} of a record is of the wrong kind",
                    field.number
                )));
            }
            _ => {} // of a later version
        }
    }
    Ok(())
}

fn check_header(header: &[u8]) -> Result<(), Problem> {
    let mut fields = Fields { rest: header };
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (HEADER_NAME, Value::Bytes(name)) => {
                limit("header name", name.len(), HEADER_NAME_BYTES_MAX)?;
                std::str::from_utf8(name).map_err(|_| corrupt("the name of a header is not UTF-8"))?;
            }
            (HEADER_VALUE, Value::Bytes(_)) => {}
            (HEADER_NAME | HEADER_VALUE, _) => {
                return Err(corrupt(format!(
                    "field {} of a header is of the wrong kind",
                    field.number
                )));
            }
            _ => {} // of a later version
        }
    }
    Ok(())
}

fn corrupt(why: impl Into<String>) -> Problem {
    Problem::Corrupt(why.into())
}

/// One field of an encoded message.
struct Field<'a> {
    number: u32,
    value: Value<'a>,
}

/// What a field holds, as far as its tag tells.
enum Value<'a> {
    Bytes(&'a [u8]),
    Number,
    Fixed,
}

/// Walks over the fields of an encoded message.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next_field(&mut self) -> Result<Option<Field<'a>>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| corrupt("it holds a field number that cannot be"))?;
        let value = match key & 7 {
            0 => {
                self.varint()?;
                Value::Number
            }
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            wire_type => return Err(corrupt(format!("it holds wire type {wire_type}"))),
        };
        Ok(Some(Field { number, value }))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Problem> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| corrupt("it ends inside a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0u64;
        for (position, byte) in self.rest.iter().take(10).enumerate() {
            if position == 9 && *byte > 1 {
                return Err(corrupt("it holds a number of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[position + 1..];
                return Ok(value);
            }
        }
        Err(corrupt("it ends inside a number"))
    }
}

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_proto::v1::{Header, Record, RecordBatch};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    const PRINCIPAL: PrincipalDigest = PrincipalDigest([1; 16]);

    fn record(value: &'static [u8]) -> Record {
        Record {
            key: Some(Bytes::from_static(b"key")),
            value: Bytes::from_static(value),
            headers: vec![Header {
                name: "trace".to_owned(),
                value: Bytes::from_static(b"\x01"),
            }],
            timestamp_ms: -1,
        }
    }

    fn request(records: Vec<Record>) -> ProduceRequest {
        let record_count = records.len() as u32;
        let batch = RecordBatch {
            records,
            compressed_records: Bytes::new(),
        };
        ProduceRequest {
            producer_id: Bytes::from_static(&[7; 16]),
            record_count,
            batch: batch.encode_to_vec().into(),
            ..Default::default()
        }
    }

    fn problem(request: &ProduceRequest) -> Problem {
        check(request, PRINCIPAL).unwrap_err()
    }

    #[test]
    fn a_sound_batch_keeps_its_bytes_and_gets_a_checksum() {
        let request = request(vec![record(b"a"), Record::default(), record(b"")]);
        let batch = check(&request, PRINCIPAL).unwrap();
        assert_eq!((batch.record_count, batch.payload.clone()), (3, request.batch.clone()));
        assert_eq!(batch.payload_crc, checksum(&request.batch));
        // The check value that every description of CRC-32C gives.
        assert_eq!(checksum(&Bytes::from_static(b"123456789")), 0xe306_9283);
    }

    #[test]
    fn fields_of_the_wrong_kind_and_names_that_are_no_text_are_refused() {
        let cases: [&[u8]; 5] = [
            &[0x0a, 2, 0x10, 1],                // a value that is a number
            &[0x0a, 3, 0x22, 1, 0],             // a time that is bytes
            &[0x0a, 4, 0x1a, 2, 0x10, 1],       // a header's value that is a number
            &[0x0a, 4, 0x1a, 2, 0x08, 1],       // a header's name that is a number
            &[0x0a, 5, 0x1a, 3, 0x0a, 1, 0xff], // a header's name that is not UTF-8
        ];
        for case in cases {
            assert!(RecordBatch::decode(case).is_err(), "{case:x?}");
            assert!(matches!(walk_batch(case), Err(Problem::Corrupt(_))), "{case:x?}");
        }
    }

    #[test]
    fn a_wrong_count_and_a_wrong_checksum_are_refused() {
        let mut wrong = request(vec![record(b"a"), record(b"b")]);
        wrong.record_count = 3;
        assert!(matches!(problem(&wrong), Problem::Corrupt(why) if why.contains("2 records")));
        let mut wrong = request(vec![record(b"a")]);
        wrong.crc32c = Some(1);
        assert!(matches!(problem(&wrong), Problem::Corrupt(why) if why.contains("CRC-32C")));
        let mut right = request(vec![record(b"a")]);
        right.crc32c = Some(checksum(&right.batch));
        assert!(check(&right, PRINCIPAL).is_ok());
    }

    #[test]
    fn an_empty_batch_and_a_short_producer_id_are_refused() {
        assert!(matches!(
            problem(&request(vec![])),
            Problem::Invalid {
                field: "record_count",
                ..
            }
        ));
        let mut wrong = request(vec![record(b"a")]);
        wrong.producer_id = Bytes::from_static(b"short");
        assert!(matches!(
            problem(&wrong),
            Problem::Invalid {
                field: "producer_id",
                ..
            }
        ));
    }

    #[test]
    fn compression_and_content_must_agree() {
        let mut wrong = request(vec![record(b"a")]);
        wrong.compression = Compression::Zstd as i32;
        assert!(matches!(problem(&wrong), Problem::Corrupt(_)));
        wrong.compression = 99;
        assert!(matches!(
            problem(&wrong),
            Problem::Invalid {
                field: "compression",
                ..
            }
        ));
        let batch = RecordBatch {
            records: vec![],
            compressed_records: Bytes::from_static(b"opaque"),
        };
        let mut compressed = request(vec![]);
        compressed.record_count = 5;
        compressed.batch = batch.encode_to_vec().into();
        assert!(matches!(problem(&compressed), Problem::Corrupt(_)));
        compressed.compression = Compression::Lz4 as i32;
        assert_eq!(check(&compressed, PRINCIPAL).unwrap().record_count, 5);
    }

    #[test]
    fn each_limit_is_kept() {
        let field = |request: &ProduceRequest| match problem(request) {
            Problem::TooLarge { field, .. } => field,
            other => panic!("{other:?}"),
        };
        let key = Bytes::from(vec![0; RECORD_KEY_BYTES_MAX + 1]);
        assert_eq!(
            field(&request(vec![Record {
                key: Some(key),
                ..Default::default()
            }])),
            "key"
        );
        let headers = vec![Header::default(); RECORD_HEADERS_MAX + 1];
        assert_eq!(
            field(&request(vec![Record {
                headers,
                ..Default::default()
            }])),
            "headers"
        );
        let name = "n".repeat(HEADER_NAME_BYTES_MAX + 1);
        let headers = vec![Header {
            name,
            ..Default::default()
        }];
        assert_eq!(
            field(&request(vec![Record {
                headers,
                ..Default::default()
            }])),
            "header name"
        );
        let value = Bytes::from(vec![0; BATCH_BYTES_MAX]);
        assert_eq!(
            field(&request(vec![Record {
                value,
                ..Default::default()
            }])),
            "batch"
        );
        let mut many = request(vec![Record::default()]);
        many.record_count = BATCH_RECORDS_MAX + 1;
        assert_eq!(field(&many), "record_count");
    }

    #[test]
    fn every_cut_of_a_batch_is_refused() {
        let whole = request(vec![record(b"abc"), record(b"def")]);
        for length in 0..whole.batch.len() {
            let cut = ProduceRequest {
                batch: whole.batch.slice(..length),
                ..whole.clone()
            };
            assert!(check(&cut, PRINCIPAL).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn malformed_tags_are_refused() {
        let cases: [&[u8]; 8] = [
            b"\x00",                                             // field number 0
            b"\x0b",                                             // a group
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",     // a length beyond everything
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",     // a length of more than 64 bits
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", // an endless key
            b"\x08\x01",                                         // records as a number
            b"\x1a\x00",                                         // an unknown field
            b"\x0a\x02\x08\x01",                                 // a key that is a number
        ];
        for case in cases {
            let mut wrong = request(vec![record(b"a")]);
            wrong.record_count = 1;
            wrong.batch = Bytes::from_static(case);
            assert!(matches!(problem(&wrong), Problem::Corrupt(_)), "{case:x?}");
        }
    }

    proptest! {
        #[test]
        fn the_walk_never_panics_and_agrees_with_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let (Ok(content), Ok(decoded)) = (walk_batch(&bytes), RecordBatch::decode(bytes.as_slice())) {
                prop_assert_eq!(content.records as usize, decoded.records.len());
            }
        }

        #[test]
        fn what_is_let_through_can_be_decoded(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = request(vec![record(b"a"), record(b"b")]).batch.to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if walk_batch(&bytes).is_ok() {
                prop_assert!(RecordBatch::decode(bytes.as_slice()).is_ok());
            }
        }

        #[test]
        fn encoded_records_are_counted(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..40)) {
            let records: Vec<Record> = values.into_iter().map(|value| Record { value: value.into(), ..Default::default() }).collect();
            let request = request(records.clone());
            prop_assert_eq!(check(&request, PRINCIPAL).unwrap().record_count as usize, records.len());
        }
    }
}
