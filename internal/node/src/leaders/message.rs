//! What a node tells another about the groups that it leads: one page, in bytes.
//!
//! ```text
//! version 1 │ kind 1 │ state 1 │ boot 8 │ number 8 │ after 8 │ count 4 │ count × (group 8, term 8)      little endian
//! ```
//!
//! The answer is one byte, see [`Answer`]. A page of another version is refused, and whoever sent it leaves it at that.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_partition::log::GroupId;

use crate::readiness::NodeState;

/// The most groups of a page.
pub(crate) const PAGE_GROUPS_MAX: usize = 4096;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 3 + 3 * 8 + 4;
const GROUP_BYTES: usize = 16;

/// What a page says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// These have changed.
    Change,
    /// Part of a list of everything.
    List { begins: bool, ends: bool },
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) kind: PageKind,
    pub(crate) state: NodeState,
    /// The sender's process start.
    pub(crate) boot: u64,
    /// Grows from page to page of a process.
    pub(crate) number: u64,
    /// The number of the last page that the receiver has acknowledged; without effect where a list begins.
    pub(crate) after: u64,
    /// The groups with the terms that they are led in; 0: not any more.
    pub(crate) led: Vec<(GroupId, u64)>,
}

/// What a receiver makes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Taken,
    /// It lacks what the page follows on, and wants everything.
    WantsList,
}

impl Page {
    pub(crate) fn encode(&self) -> Bytes {
        let mut encoded = BytesMut::with_capacity(HEADER_BYTES + self.led.len() * GROUP_BYTES);
        encoded.put_u8(VERSION);
        encoded.put_u8(match self.kind {
            PageKind::Change => 0,
            PageKind::List { begins, ends } => 1 | u8::from(begins) << 1 | u8::from(ends) << 2,
        });
        encoded.put_u8(match self.state {
            NodeState::Starting => 0,
            NodeState::Ready => 1,
            NodeState::Draining => 2,
        });
        encoded.put_u64_le(self.boot);
        encoded.put_u64_le(self.number);
        encoded.put_u64_le(self.after);
        encoded.put_u32_le(u32::try_from(self.led.len()).unwrap_or(u32::MAX));
        for (group, term) in &self.led {
            encoded.put_u64_le(group.0);
            encoded.put_u64_le(*term);
        }
        encoded.freeze()
    }

    pub(crate) fn decode(mut encoded: Bytes) -> Result<Page, String> {
        if encoded.len() < HEADER_BYTES || encoded[0] != VERSION {
            return Err("a page of leaders that this version cannot read".to_owned());
        }
        encoded.advance(1);
        let kind = match encoded.get_u8() {
            0 => PageKind::Change,
            flags if flags & 1 == 1 && flags < 8 => PageKind::List {
                begins: flags & 2 != 0,
                ends: flags & 4 != 0,
            },
            other => return Err(format!("a page of leaders of unknown kind {other}")),
        };
        let state = match encoded.get_u8() {
            0 => NodeState::Starting,
            1 => NodeState::Ready,
            2 => NodeState::Draining,
            other => return Err(format!("a node in unknown state {other}")),
        };
        let (boot, number, after) = (encoded.get_u64_le(), encoded.get_u64_le(), encoded.get_u64_le());
        let count = encoded.get_u32_le() as usize;
        if count > PAGE_GROUPS_MAX || encoded.len() != count * GROUP_BYTES {
            return Err(format!("a page of {count} leaders in {} bytes", encoded.len()));
        }
        let group = |_| (GroupId(encoded.get_u64_le()), encoded.get_u64_le());
        Ok(Page {
            kind,
            state,
            boot,
            number,
            after,
            led: (0..count).map(group).collect(),
        })
    }
}

impl Answer {
    pub(crate) fn encode(self) -> Bytes {
        Bytes::from_static(match self {
            Answer::Taken => &[0],
            Answer::WantsList => &[1],
        })
    }

    /// Whatever is not understood makes the sender begin again.
    pub(crate) fn decode(encoded: &[u8]) -> Answer {
        match encoded {
            [0] => Answer::Taken,
            _ => Answer::WantsList,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        Page {
            kind: PageKind::List {
                begins: true,
                ends: false,
            },
            state: NodeState::Ready,
            boot: 0x0102,
            number: 7,
            after: 6,
            led: vec![(GroupId(3), 5), (GroupId(4), 0)],
        }
    }

    /// Nodes of different builds read each other: these bytes must stay readable, and stay the same.
    #[test]
    fn a_page_has_these_bytes() {
        let expected = [
            &[1, 3, 1][..],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 0, 0, 0, 0],
            &[6, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(page().encode(), expected.concat());
        assert_eq!(Page::decode(page().encode()), Ok(page()));
        let change = Page {
            kind: PageKind::Change,
            state: NodeState::Draining,
            led: Vec::new(),
            ..page()
        };
        assert_eq!(Page::decode(change.encode()), Ok(change));
        for answer in [Answer::Taken, Answer::WantsList] {
            assert_eq!(Answer::decode(&answer.encode()), answer);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        let whole = page().encode();
        for length in 0..whole.len() {
            assert!(Page::decode(whole.slice(..length)).is_err(), "{length} bytes");
        }
        for (place, value) in [(0, 2), (1, 8), (1, 2), (2, 3), (27, 3), (30, 255)] {
            let mut broken = whole.to_vec();
            broken[place] = value;
            assert!(Page::decode(broken.into()).is_err(), "{value} at {place}");
        }
    }
}
