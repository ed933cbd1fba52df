//! How each kind of row is written: field after field, little-endian, an enum as one byte and then its fields.
//!
//! The order of fields and the numbers of variants are the format (version 2); the golden file in `testdata` guards them.

use super::{
    Dump, Fault, FaultKind, Freshness, Handout, Healing, Incident, IncidentKind, Leader, LogEntry, Numbering,
    OffsetAnswer, OffsetKind, Poll, PollAnswer, Pooled, Position, Promise, PromiseKind, RECORDS_MAX, RecordId,
    RetentionAllowed, Run, Scan, Seen, Send, SendOutcome, Span,
};

/// The longest text, bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What is still to be decoded.
pub(crate) struct Input<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or_else(|| format!("{bytes} bytes are wanted, {} are left", self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Something with a stored form.
pub(crate) trait Stored: Sized {
    /// Appends the stored form.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes the stored form off the front.
    fn get(input: &mut Input<'_>) -> Result<Self, String>;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Stored for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut Input<'_>) -> Result<Self, String> {
                let bytes = input.take(size_of::<$type>())?;
                bytes.try_into().map(<$type>::from_le_bytes).map_err(|_| "a number is cut".to_owned())
            }
        }
    )*};
}

macro_rules! rows {
    ($($type:ident { $($field:ident),* $(,)? })*) => {$(
        impl Stored for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(input: &mut Input<'_>) -> Result<Self, String> {
                Ok(Self { $($field: Stored::get(input)?),* })
            }
        }
    )*};
}

macro_rules! variants {
    ($($type:ident { $($tag:literal $variant:ident { $($field:ident),* })* })*) => {$(
        impl Stored for $type {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.push($tag);
                        $($field.put(out);)*
                    })*
                }
            }
            fn get(input: &mut Input<'_>) -> Result<Self, String> {
                match u8::get(input)? {
                    $($tag => Ok(Self::$variant { $($field: Stored::get(input)?),* }),)*
                    other => Err(format!("{} has no variant {other}", stringify!($type))),
                }
            }
        }
    )*};
}

numbers!(u8, u32, u64);

rows! {
    Run { title, seed, partitions, nodes }
    RecordId { producer, number }
    Span { process, invoked_ns, returned_ns }
    Send { span, partition, producer, numbering, sequence, first_number, outcome }
    Poll { span, partition, node, from, freshness, answer }
    Seen { offset, id, digest }
    OffsetAnswer { span, partition, kind, offset }
    Scan { span, partition, node, log_start, end }
    RetentionAllowed { at_ns, partition, up_to }
    Fault { kind, node, begin_ns, end_ns, bitten, evidence }
    Incident { at_ns, node, kind, text }
    Dump { at_ns, partition, replica, node, committed_end, last }
    LogEntry { index, term, base_offset, chain, record_count, payload_crc, kind, verdict }
    Promise { at_ns, partition, replica, kind }
    Leader { at_ns, partition, replica, term }
    Handout { at_ns, member, partition, offset }
    Position { span, partition, claim, offset }
    Healing { partition, healed_ns, served_ns, leaders, memberships }
}

variants! {
    Numbering { 0 Wire {} 1 Calls {} }
    SendOutcome { 0 Appended { base_offset } 1 Refused {} 2 Unknown {} }
    Freshness { 0 Committed {} 1 MinOffset { offset } 2 Linearizable {} }
    PollAnswer { 0 Records { high_watermark } 1 OutOfRange { log_start, high_watermark } 2 Failed {} }
    OffsetKind { 0 Earliest {} 1 Latest {} }
    FaultKind {
        0 Kill {} 1 Pause {} 2 PowerCut {} 3 LinkCut {} 4 LinkLossy {} 5 DiskFull {} 6 DiskError {} 7 DiskSlow {}
        8 BitRot {} 9 Wipe {} 10 Clock {} 11 Membership {}
    }
    IncidentKind { 0 Panic {} 1 StorageError {} 2 Restart {} 3 Leak {} }
    PromiseKind {
        0 Acked { index_end, term }
        1 Voted { term, candidate }
        2 Truncated { index_end, leader_term }
        3 Restarted { index_end, last_term, vote_term, voted_for }
        4 Died {}
        5 Published { index_end, quorum }
    }
}

impl Stored for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(input: &mut Input<'_>) -> Result<Self, String> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither yes nor no")),
        }
    }
}

impl Stored for String {
    fn put(&self, out: &mut Vec<u8>) {
        // What is longer is cut at a character; texts are for people.
        let mut end = self.len().min(TEXT_BYTES_MAX);
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        (end as u32).put(out);
        out.extend_from_slice(&self.as_bytes()[..end]);
    }

    fn get(input: &mut Input<'_>) -> Result<Self, String> {
        let bytes = u32::get(input)? as usize;
        if bytes > TEXT_BYTES_MAX {
            return Err(format!("a text of {bytes} bytes; at most {TEXT_BYTES_MAX} are allowed"));
        }
        let text = input.take(bytes)?.to_vec();
        String::from_utf8(text).map_err(|error| error.to_string())
    }
}

impl<T: Stored> Stored for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(input: &mut Input<'_>) -> Result<Self, String> {
        let there = bool::get(input)?;
        there.then(|| T::get(input)).transpose()
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|item| item.put(out));
    }

    fn get(input: &mut Input<'_>) -> Result<Self, String> {
        let count = u64::get(input)?;
        if count > RECORDS_MAX as u64 {
            return Err(format!("{count} rows; at most {RECORDS_MAX} are allowed"));
        }
        // A row takes at least one byte, so a wrong count cannot ask for more memory than a few times the file's size.
        let mut rows = Vec::with_capacity((count as usize).min(input.rest.len() / size_of::<T>().max(1) + 1));
        for _ in 0..count {
            rows.push(T::get(input)?);
        }
        Ok(rows)
    }
}

impl<T: Stored> Stored for Pooled<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.event.put(out);
        self.start.put(out);
        self.count.put(out);
    }

    fn get(input: &mut Input<'_>) -> Result<Self, String> {
        Ok(Self {
            event: T::get(input)?,
            start: u32::get(input)?,
            count: u32::get(input)?,
        })
    }
}
