//! Ways into the decoders for the fuzz targets (`tests/fuzz`), each with what must hold for any bytes. Only with the feature `fuzz`.
//!
//! A checksum keeps what is made up away from the code behind it. So everything is tried twice: as it is, and *sealed*, with the
//! checksums put right.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is what is looked for

use bytes::Bytes;

use crate::entry::{Frame, Kind};
use crate::fold::{Item, State};
use crate::format::checkpoint::Checkpoint;
use crate::format::crc32c;
use crate::format::detail::{Detail, Parts};
use crate::format::files::{self, SLOT_BYTES, SegmentHeader, Slot};
use crate::format::frame::{self, HEADER_BYTES};
use crate::ids::{EntryId, GroupId};
use crate::index::{SparseIndex, Target};
use crate::manifest::Manifest;

/// Puts the checksums of the frames that follow each other right, as far as they are whole.
pub fn seal_frames(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        let payload_bytes = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        let head_bytes = HEADER_BYTES + usize::from(u16::from_le_bytes([rest[12], rest[13]]));
        let Some(payload) = rest.get(head_bytes..head_bytes.saturating_add(payload_bytes)) else {
            return;
        };
        let payload_crc = crc32c(payload).to_le_bytes();
        rest[44..48].copy_from_slice(&payload_crc);
        let crc = crc32c(&rest[4..head_bytes]).to_le_bytes();
        rest[..4].copy_from_slice(&crc);
        rest = &mut rest[head_bytes + payload_bytes..];
    }
}

/// Puts the checksum of everything that begins with a magic number right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 12 {
        let crc = crc32c(&bytes[12..]).to_le_bytes();
        bytes[8..12].copy_from_slice(&crc);
    }
    bytes
}

/// Frames: one behind the other, each the same bytes when it is made again.
pub fn frames(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    seal_frames(&mut sealed);
    for bytes in [bytes, &sealed] {
        let mut rest = Bytes::copy_from_slice(bytes);
        loop {
            let before = rest.clone();
            let Ok(frame) = Frame::decode(&mut rest) else {
                assert_eq!(rest, before, "a refused frame was taken off");
                break;
            };
            check_frame(&frame, &before[..before.len() - rest.len()]);
        }
    }
}

fn check_frame(frame: &Frame, bytes: &[u8]) {
    assert_eq!([&frame.head[..], &frame.payload[..]].concat(), bytes);
    assert_eq!(frame.header.frame_bytes(), bytes.len() as u64);
    assert_eq!(frame::encode_head(&frame.header, frame.detail_bytes()), frame.head);
    assert_eq!(frame::claimed_head_bytes(bytes), Ok(frame.head.len()));
    assert_eq!(frame::claimed_index(bytes), Some(frame.header.id.index));
    let Ok(detail) = frame.detail() else {
        assert!(frame.body().is_err());
        return;
    };
    let again = detail.encode();
    assert_eq!(Detail::decode(frame.header.kind, &again).as_ref(), Ok(&detail));
    let parts = Parts::of(frame.body().unwrap());
    assert_eq!((parts.kind, parts.detail), (frame.header.kind, detail));
}

/// The slots of the hard state: what is read is read again from what is written.
pub fn hard_state(bytes: &[u8]) {
    let mut slot = bytes.to_vec();
    slot.resize(SLOT_BYTES, 0);
    for bytes in [bytes.to_vec(), sealed(&slot)] {
        if let Ok(slot) = Slot::decode(&bytes) {
            let again = slot.encode();
            assert_eq!(again.len(), SLOT_BYTES);
            assert_eq!(Slot::decode(&again), Ok(slot));
        }
    }
}

/// Headers of segments and sparse indexes: the same bytes again, and every search ends at a point before its target.
pub fn index(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        if let Ok(header) = SegmentHeader::decode(&bytes) {
            assert_eq!(header.encode(), bytes);
        }
        let field = |at: usize| {
            let field: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(field))
        };
        let (Some(group), Some(first_index)) = (field(16), field(24)) else {
            return;
        };
        let Ok((points, footer)) = files::decode_index(GroupId(group), first_index, &bytes) else {
            continue;
        };
        assert_eq!(
            files::encode_index(GroupId(group), first_index, &points, &footer),
            bytes
        );
        let sparse = SparseIndex {
            points,
            covered_from: 0,
        };
        for target in [first_index, footer.last.index, u64::MAX] {
            for target in [Target::Index(target), Target::Offset(target), Target::Time(target)] {
                assert!(sparse.find(target).is_none_or(|found| sparse.points.contains(&found)));
            }
        }
    }
}

/// Checkpoints and manifests: the same state again, and one that can be folded further.
pub fn states(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), sealed(bytes)] {
        if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
            let again = checkpoint.encode();
            assert!(again.len() <= bytes.len(), "{} from {}", again.len(), bytes.len());
            assert_eq!(Checkpoint::decode(&again).unwrap().encode(), again);
            fold_on(checkpoint.state);
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            let again = manifest.encode();
            assert!(again.len() <= bytes.len(), "{} from {}", again.len(), bytes.len());
            assert_eq!(Manifest::decode(&again).unwrap().encode(), again);
            assert_eq!(manifest.last().index + 1, manifest.state().next_index);
            fold_on(manifest.state().clone());
        }
    }
}

fn fold_on(mut state: State) {
    let next_index = state.next_index;
    let parts = [
        Parts::of(crate::Body::Blank),
        Parts::of(crate::Body::Trim { offset: u64::MAX }),
    ];
    for parts in parts {
        let detail_bytes = parts.detail.encode();
        let id = EntryId {
            term: state.last.term,
            index: state.next_index,
        };
        state.fold(&Item {
            id,
            kind: parts.kind,
            compression: 0,
            append_time_ms: u64::MAX,
            detail: &parts.detail,
            detail_bytes: &detail_bytes,
            payload_bytes: 0,
            payload_crc: 0,
            membership: (parts.kind == Kind::Membership).then_some(&parts.payload),
        });
    }
    assert_eq!(state.next_index, next_index + 2);
}
