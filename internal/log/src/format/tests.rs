//! Golden bytes: what is on disks today must be read for ever. A failure here is a change of the format.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;

use super::checkpoint::Checkpoint;
use super::detail::{Detail, Parts};
use super::files::{IndexFooter, Mark, Point, SegmentHeader, Slot, decode_index, encode_index};
use super::frame::{chain_of, encode_head};
use super::{chain_origin, crc32c};
use crate::entry::{Batch, Body, Frame, Header, Kind, Verdict, Vote};
use crate::error::FormatError;
use crate::fold::{Item, State};
use crate::ids::{ClusterId, EntryId, GroupId, Identity, PrincipalDigest, ProducerId, ReplicaId};
use crate::manifest::Manifest;

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body(number: u8) -> Body {
    match number {
        0 => Body::Blank,
        1 => Body::Membership(Bytes::from_static(b"members")),
        2 => Body::Command(Bytes::from_static(b"command")),
        3 => Body::Trim { offset: 0x0102 },
        4 => Body::Claim {
            group: Bytes::from_static(b"g1"),
            member: Bytes::from_static(b"m"),
        },
        5 => Body::CommitOffset {
            group: Bytes::from_static(b"g1"),
            claim: 5, // the index of the claim
            offset: 2,
        },
        7 => Body::ForgetGroup {
            group: Bytes::from_static(b"g2"),
            claim: 1,
            append_time_ms: 2,
        },
        _ => Body::Batch(Batch {
            producer_id: ProducerId([0xaa; 16]),
            principal: PrincipalDigest([0xbb; 16]),
            sequence: 0,
            record_count: 3,
            compression: 2,
            expected_offset: Some(0),
            payload_crc: crc32c(b"payload"),
            payload: Bytes::from_static(b"payload"),
        }),
    }
}

fn fold(state: &mut State, body: Body) -> Frame {
    let Parts {
        kind,
        compression,
        detail,
        payload,
    } = Parts::of(body);
    let detail_bytes = detail.encode();
    let (_, header) = state.fold(&Item {
        id: EntryId {
            term: 4,
            index: state.next_index,
        },
        kind,
        compression,
        append_time_ms: 0x0198_0000_0000,
        detail: &detail,
        detail_bytes: &detail_bytes,
        payload_bytes: payload.len() as u32,
        payload_crc: crc32c(&payload),
        membership: (kind == Kind::Membership).then_some(&payload),
    });
    Frame {
        head: encode_head(&header, &detail_bytes),
        header,
        payload,
    }
}

fn all_frames() -> (State, Vec<Frame>) {
    let mut state = State::empty(CLUSTER, GroupId(5));
    let frames = [6, 0, 1, 2, 3, 4, 5, 7]
        .map(|number| fold(&mut state, body(number)))
        .to_vec();
    (state, frames)
}

fn bytes_of(frame: &Frame) -> Bytes {
    Bytes::from([frame.head.clone(), frame.payload.clone()].concat())
}

#[test]
fn frames_have_these_bytes() {
    let frames: Vec<String> = all_frames().1.iter().map(|frame| hex(&bytes_of(frame))).collect();
    assert_eq!(frames, include_str!("golden/frames.hex").lines().collect::<Vec<_>>());
}

#[test]
fn the_chain_starts_with_the_crc64_of_cluster_and_group() {
    let origin = [&[0xc1; 16][..], &5_u64.to_le_bytes()].concat();
    assert_eq!(chain_origin(CLUSTER, GroupId(5)), crc_fast::crc64_nvme(&origin));
    let (_, frames) = all_frames();
    let mut before = chain_origin(CLUSTER, GroupId(5));
    for frame in frames {
        let covered = [&before.to_le_bytes()[..], &frame.head[4..56], &frame.head[64..]].concat();
        assert_eq!(frame.header.chain, crc_fast::crc64_nvme(&covered), "{:?}", frame.header);
        assert_eq!(frame.header.chain, chain_of(before, &frame.header, &frame.head[64..]));
        before = frame.header.chain;
    }
}

#[test]
fn frames_come_back_as_they_went() {
    for (frame, number) in all_frames().1.into_iter().zip([6, 0, 1, 2, 3, 4, 5, 7]) {
        let mut bytes = bytes_of(&frame);
        let decoded = Frame::decode(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        assert_eq!(decoded, frame);
        assert_eq!(decoded.body().unwrap(), body(number));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_frame_is_noticed() {
    for frame in all_frames().1 {
        let good = bytes_of(&frame);
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Frame::decode(&mut Bytes::from(bad)).is_err(),
                "bit {bit} of {:?}",
                frame.header.kind
            );
        }
    }
}

#[test]
fn a_frame_cut_off_anywhere_is_short_and_leaves_its_bytes() {
    let good = bytes_of(&all_frames().1[0]);
    for length in 0..good.len() {
        let mut bytes = good.slice(..length);
        assert!(
            matches!(Frame::decode(&mut bytes), Err(FormatError::Short { .. })),
            "{length} bytes"
        );
        assert_eq!(bytes.len(), length);
    }
}

#[test]
fn zeros_are_no_frame() {
    assert!(Frame::decode(&mut Bytes::from(vec![0; 4096])).is_err());
}

#[test]
fn kinds_verdicts_and_versions_from_the_future_are_refused() {
    let frame = &all_frames().1[1];
    for (place, value) in [(4, 2), (5, 0), (5, 9), (6, 11), (14, 1)] {
        let mut head = frame.head.to_vec();
        head[place] = value;
        let crc = crc32c(&head[4..]);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        let result = Frame::decode(&mut Bytes::from(head));
        assert!(
            matches!(result, Err(FormatError::Invalid { .. })),
            "byte {place} = {value}: {result:?}"
        );
    }
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        cluster_id: CLUSTER,
        group_id: GroupId(5),
        first_index: 7,
        base_offset: 3,
        term_before: 4,
        chain_before: 0x1122_3344_5566_7788,
        append_time_before_ms: 99,
    }
}

fn slot() -> Slot {
    Slot {
        sequence: 12,
        identity: Identity {
            cluster_id: CLUSTER,
            group_id: GroupId(5),
            replica_id: ReplicaId(9),
        },
        vote: Some(Vote {
            term: 4,
            voted_for: Some(9),
            committed: true,
        }),
        mark: Mark {
            segment_first_index: 7,
            position: 80,
            last_term: 4,
            index_end: 7,
            chain: 0x1122_3344_5566_7788,
            commit_end: 6,
        },
    }
}

#[test]
fn segment_headers_have_these_bytes() {
    let bytes = segment_header().encode();
    assert_eq!(hex(&bytes), include_str!("golden/segment.hex").trim());
    assert_eq!(SegmentHeader::decode(&bytes), Ok(segment_header()));
}

#[test]
fn hard_state_slots_have_these_bytes() {
    let bytes = slot().encode();
    assert_eq!(hex(&bytes), include_str!("golden/hard_state.hex").trim());
    assert_eq!(Slot::decode(&bytes), Ok(slot()));
    let without = Slot { vote: None, ..slot() };
    assert_eq!(Slot::decode(&without.encode()), Ok(without));
}

#[test]
fn sparse_indexes_have_these_bytes() {
    let points = [
        Point {
            index: 7,
            base_offset: 3,
            append_time_ms: 99,
            position: 80,
        },
        Point {
            index: 9,
            base_offset: 5,
            append_time_ms: 101,
            position: 70_000,
        },
    ];
    let last = EntryId { term: 4, index: 12 };
    let footer = IndexFooter {
        last,
        log_end: 8,
        chain: 0x0102_0304_0506_0708,
        data_bytes: 90_000,
    };
    let bytes = encode_index(GroupId(5), 7, &points, &footer);
    assert_eq!(hex(&bytes), include_str!("golden/index.hex").trim());
    assert_eq!(decode_index(GroupId(5), 7, &bytes), Ok((points.to_vec(), footer)));
    assert!(decode_index(GroupId(6), 7, &bytes).is_err());
}

#[test]
fn checkpoints_have_these_bytes() {
    let state = all_frames().0;
    let checkpoint = Checkpoint {
        cluster_id: CLUSTER,
        group_id: GroupId(5),
        segment_first_index: 0,
        position: 700,
        state,
    };
    let bytes = checkpoint.encode();
    assert_eq!(hex(&bytes), include_str!("golden/checkpoint.hex").trim());
    assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint));
}

#[test]
fn manifests_have_these_bytes() {
    let state = all_frames().0;
    let manifest = Manifest {
        cluster_id: CLUSTER,
        group_id: GroupId(5),
        state,
        machine: Bytes::from_static(b"machine"),
    };
    let bytes = manifest.encode();
    assert_eq!(hex(&bytes), include_str!("golden/manifest.hex").trim());
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    for place in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[place] ^= 0x10;
        assert!(Manifest::decode(&bad).is_err(), "byte {place}");
        assert!(Manifest::decode(&bytes[..place]).is_err(), "{place} bytes");
    }
}

#[test]
fn a_manifest_of_no_entries_is_refused() {
    let empty = Manifest {
        cluster_id: CLUSTER,
        group_id: GroupId(5),
        state: State::empty(CLUSTER, GroupId(5)),
        machine: Bytes::new(),
    };
    assert!(Manifest::decode(&empty.encode()).is_err());
}

#[test]
fn a_flipped_byte_in_any_file_structure_is_noticed() {
    for place in 0..80 {
        let mut bytes = segment_header().encode();
        bytes[place] ^= 0x10;
        assert!(SegmentHeader::decode(&bytes).is_err(), "segment header, byte {place}");
    }
    for place in 0..512 {
        let mut bytes = slot().encode();
        bytes[place] ^= 0x10;
        assert!(Slot::decode(&bytes).is_err(), "slot, byte {place}");
    }
}

fn header_of(kind: Kind) -> Header {
    let mut header = all_frames().1.remove(1).header;
    header.kind = kind;
    header.verdict = Verdict::Accepted;
    header
}

proptest! {
    #[test]
    fn random_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        prop_assert!(Frame::decode(&mut Bytes::from(bytes.clone())).is_err());
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
        prop_assert!(Slot::decode(&bytes).is_err());
        prop_assert!(Checkpoint::decode(&bytes).is_err());
        prop_assert!(Manifest::decode(&bytes).is_err());
        prop_assert!(decode_index(GroupId(1), 0, &bytes).is_err());
    }

    /// Also behind a right checksum: a peer can compute one.
    #[test]
    fn random_details_are_decoded_or_refused(kind in 0_usize..8, detail in prop::collection::vec(any::<u8>(), 0..120)) {
        let kinds = [
            Kind::Blank,
            Kind::Batch,
            Kind::Membership,
            Kind::Command,
            Kind::Trim,
            Kind::Claim,
            Kind::CommitOffset,
            Kind::ForgetGroup,
        ];
        let header = Header { detail_bytes: detail.len() as u16, ..header_of(kinds[kind]) };
        let frame = Frame::decode(&mut encode_head(&header, &detail)).unwrap();
        if let Ok(decoded) = Detail::decode(kinds[kind], &detail) {
            prop_assert_eq!(decoded.encode(), detail);
            prop_assert!(frame.body().is_ok());
        }
    }
}
