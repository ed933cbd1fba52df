//! Which trace something is part of, as the W3C has it: <https://www.w3.org/TR/trace-context/>, level 1.
//!
//! A `traceparent` stands in the headers of records, in `ProduceRequest`, and in the metadata of calls. It comes from outside, so whatever
//! is not one by its form is none; nothing fails over it.
//!
//! Deliberately absent: `tracestate`, which is passed on in the headers of records as it came and looked at by nobody here.

use std::fmt;

/// The name of the header of a record, and of the metadata of a call.
pub const TRACEPARENT: &str = "traceparent";
/// The name of the header beside it in which tracing systems keep things of their own.
pub const TRACESTATE: &str = "tracestate";

/// How long a `traceparent` of version 0 is, bytes; those of later versions begin like one.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// A place in a trace: something that others may be the children of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// Of the whole trace; not zero.
    pub trace_id: u128,
    /// Of the span; not zero.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, or what a later version may have put behind that.
    pub fn parse(text: &[u8]) -> Option<TraceParent> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let version = hex(&known[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if !is_whole || !has_dashes {
            return None;
        }
        let parent = TraceParent {
            trace_id: hex(&known[3..35])?,
            span_id: u64::try_from(hex(&known[36..52])?).ok()?,
            sampled: hex(&known[53..])? & u128::from(SAMPLED) != 0,
        };
        (parent.trace_id != 0 && parent.span_id != 0).then_some(parent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id)
    }
}

/// The number that lower-case hex digits stand for; there are at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard_is_read_and_written() {
        let parent = TraceParent::parse(EXAMPLE.as_bytes());
        let expected = TraceParent {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
        };
        assert_eq!(parent, Some(expected));
        assert_eq!(expected.to_string(), EXAMPLE);
        let unsampled = TraceParent {
            sampled: false,
            ..expected
        };
        assert_eq!(TraceParent::parse(unsampled.to_string().as_bytes()), Some(unsampled));
    }

    #[test]
    fn what_is_none_by_its_form_is_none() {
        let changed = |from: &str, to: &str| EXAMPLE.replacen(from, to, 1);
        let none = [
            String::new(),
            "00".to_owned(),
            "é".repeat(40),
            changed("00-", "ff-"),
            changed("4bf9", "4BF9"),
            changed("4bf9", "4bg9"),
            changed("-01", "-0"),
            changed("-01", "-+1"),
            changed("-01", "-01-more"),
            changed("-00f0", "_00f0"),
            changed("00f067aa0ba902b7", &"0".repeat(16)),
            changed("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        ];
        for text in none {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn later_versions_may_say_more_behind_it() {
        let later = EXAMPLE.replacen("00-", "cc-", 1);
        for text in [later.clone(), format!("{later}-what-the-future-will-be-like")] {
            assert!(TraceParent::parse(text.as_bytes()).is_some(), "{text}");
        }
        assert_eq!(TraceParent::parse(format!("{later}.what").as_bytes()), None);
    }
}
