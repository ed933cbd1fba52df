//! Records that no producer may append. A node does not open a compressed batch, so a client that is not ours can have stored them: with a
//! key, headers or a size beyond the limits of the wire contract.
//!
//! They are read and backed up like any others. But a restore appends as a producer does, and would end in the middle; so it looks for them
//! before it changes anything, and a backup tells of them while there is still somebody who can do something about it.
//!
//! The limits are those of the client library's producers, which refuse a record before it is sent.

use bytes::Bytes;
use highwater::ConsumedRecord;
use highwater::proto::limits::{HEADER_NAME_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX, RECORD_KEY_BYTES_MAX};

use crate::exit::{Code, Failure, Result};
use crate::output;

/// Those that were met.
#[derive(Debug, Default)]
pub(super) struct Unfit {
    count: u64,
    /// Where the first of them is, and why it is one.
    first: Option<String>,
}

impl Unfit {
    /// Notes a record of `topic` (`TENANT/TOPIC`) if it is one of them.
    pub(super) fn look_at(&mut self, topic: &str, record: &ConsumedRecord) {
        let Some(why) = beyond_limits(record) else {
            return;
        };
        self.count += 1;
        if self.first.is_none() {
            let (partition, offset) = (record.partition, record.offset);
            self.first = Some(format!("the record at offset {offset} of {topic}/{partition} {why}"));
        }
    }

    /// Those of another partition as well.
    pub(super) fn add(&mut self, other: Unfit) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }

    /// Tells of them whoever makes or checks a backup.
    pub(super) fn note(&self) {
        if let Some(told) = self.told() {
            output::note(format!(
                "It is in the backup, but cannot be restored, nor can its topic: {told}."
            ));
        }
    }

    /// Refuses to restore them.
    pub(super) fn refuse(&self) -> Result<()> {
        let Some(told) = self.told() else {
            return Ok(());
        };
        let hint = "the other topics can be restored, with --topic TENANT/TOPIC; nothing was changed";
        Err(Failure::new(Code::Refused, format!("it cannot be restored: {told}")).hint(hint))
    }

    fn told(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.count {
            0 | 1 => first.clone(),
            count => format!("{first}; and {} more are like it", count - 1),
        })
    }
}

/// What of the record is beyond a limit; `None` for one that a producer may append.
fn beyond_limits(record: &ConsumedRecord) -> Option<String> {
    let key = record.key.as_ref().map_or(0, Bytes::len);
    let name = record.headers.iter().map(|header| header.name.len()).max();
    let sizes = [
        ("bytes of key", key, RECORD_KEY_BYTES_MAX),
        ("headers", record.headers.len(), RECORD_HEADERS_MAX),
        (
            "bytes in the name of a header",
            name.unwrap_or(0),
            HEADER_NAME_BYTES_MAX,
        ),
        ("bytes in all", encoded_bytes(record), RECORD_BYTES_MAX),
    ];
    let (what, size, most) = sizes.into_iter().find(|(_, size, most)| size > most)?;
    Some(format!("has {size} {what}, and a producer may append at most {most}"))
}

/// How many bytes it takes as a `Record` of the wire contract.
fn encoded_bytes(record: &ConsumedRecord) -> usize {
    let headers = record.headers.iter();
    let headers = headers.map(|header| field(unless_empty(header.name.len()) + unless_empty(header.value.len())));
    let key = record.key.as_ref().map_or(0, |key| field(key.len()));
    let timestamp = match record.timestamp_ms {
        0 => 0,
        // Those before 1970 take ten bytes.
        timestamp_ms => 1 + varint_bytes(timestamp_ms as u64),
    };
    key + unless_empty(record.value.len()) + headers.sum::<usize>() + timestamp
}

/// A field of so many bytes, with its number and its length.
fn field(bytes: usize) -> usize {
    1 + varint_bytes(bytes as u64) + bytes
}

/// The same for a field that is left out if it is empty.
fn unless_empty(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { field(bytes) }
}

/// A number of seven bits a byte.
fn varint_bytes(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater::Header;
    use highwater::proto::batches;

    use super::*;

    fn record(value_bytes: usize) -> ConsumedRecord {
        ConsumedRecord {
            partition: 3,
            offset: 41,
            key: None,
            value: vec![b'x'; value_bytes].into(),
            headers: Vec::new(),
            timestamp_ms: 1,
            append_time_ms: 2,
        }
    }

    fn header(name: &str, value: &'static str) -> Header {
        Header {
            name: name.to_owned(),
            value: value.into(),
        }
    }

    #[test]
    fn sizes_are_those_of_the_wire_contract() {
        let encoded: &[u8] = b"\x0a\x01k\x12\x01v\x1a\x06\x0a\x01n\x12\x01w\x1a\x00\x20\xac\x02";
        let decoded = batches::record(Bytes::from_static(encoded)).unwrap();
        let wanted = ConsumedRecord {
            key: Some("k".into()),
            value: "v".into(),
            headers: vec![header("n", "w"), header("", "")],
            timestamp_ms: 300,
            ..record(0)
        };
        assert_eq!((&decoded.key, &decoded.value), (&wanted.key, &wanted.value));
        assert_eq!(
            (&decoded.headers, decoded.timestamp_ms),
            (&wanted.headers, wanted.timestamp_ms)
        );
        assert_eq!(encoded_bytes(&wanted), encoded.len());
        let lengths = [0, 127, 128, 16_383, 16_384, u64::MAX].map(varint_bytes);
        assert_eq!(lengths, [1, 1, 2, 2, 3, 10]);
    }

    #[test]
    fn the_largest_that_may_be_appended_is_fit_and_the_next_larger_one_is_not() {
        // Its timestamp takes two bytes, and number and length of its value four.
        let most = RECORD_BYTES_MAX - 6;
        assert_eq!(beyond_limits(&record(most)), None);
        let told = beyond_limits(&record(most + 1)).unwrap();
        assert!(told.contains("bytes in all"), "{told}");
    }

    #[test]
    fn each_limit_is_told_by_its_name() {
        let with = |change: fn(&mut ConsumedRecord)| {
            let mut record = record(5);
            change(&mut record);
            beyond_limits(&record)
        };
        let headers = |count| vec![header("n", ""); count];
        assert_eq!(
            with(|record| record.key = Some(vec![0; RECORD_KEY_BYTES_MAX].into())),
            None
        );
        let told = with(|record| record.key = Some(vec![0; RECORD_KEY_BYTES_MAX + 1].into())).unwrap();
        assert!(told.contains("65537 bytes of key"), "{told}");
        let many = |count| {
            beyond_limits(&ConsumedRecord {
                headers: headers(count),
                ..record(5)
            })
        };
        assert_eq!(many(RECORD_HEADERS_MAX), None);
        assert!(many(RECORD_HEADERS_MAX + 1).unwrap().contains("65 headers"));
        let told = with(|record| record.headers = vec![header(&"n".repeat(HEADER_NAME_BYTES_MAX + 1), "")]).unwrap();
        assert!(told.contains("256 bytes in the name of a header"), "{told}");
    }

    #[test]
    fn the_first_is_named_and_the_others_are_counted() {
        let mut unfit = Unfit::default();
        unfit.look_at("shop/orders", &record(5));
        unfit.refuse().unwrap();
        unfit.look_at("shop/orders", &record(RECORD_BYTES_MAX));
        let mut other = Unfit::default();
        other.look_at("shop/returns", &record(RECORD_BYTES_MAX));
        unfit.add(other);
        let refused = unfit.refuse().unwrap_err();
        for word in ["offset 41 of shop/orders/3", "and 1 more"] {
            assert!(refused.message.contains(word), "{word:?} is not in {refused}");
        }
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.hint.unwrap().contains("--topic TENANT/TOPIC"));
    }
}
