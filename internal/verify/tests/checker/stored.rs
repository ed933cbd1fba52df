//! The file form. The golden file is made anew, for a new version of the format only, by a run of these tests with
//! `HIGHWATER_WRITE_GOLDEN` set.

use std::path::Path;

use highwater_verify::history::{
    Fault, FaultKind, FileError, Freshness, Healing, History, Incident, IncidentKind, Leader, OffsetKind, PollAnswer,
    PromiseKind, RetentionAllowed, SendOutcome,
};
use highwater_verify::value;

use crate::reference::honest_history;
use crate::script::*;

/// One item of each kind, and each variant of each.
fn specimen() -> History {
    let mut items = acknowledged(2);
    items.push(wire(send(1, 0, 2, 70, SendOutcome::Refused)));
    items.push(send(2, 0, 1, 80, SendOutcome::Unknown));
    items.push(poll(30, 0, 2, seen_range(0, 2)));
    for (freshness, answer) in [
        (Freshness::Linearizable, PollAnswer::Failed),
        (
            Freshness::MinOffset { offset: 2 },
            PollAnswer::OutOfRange {
                log_start: 1,
                high_watermark: 2,
            },
        ),
    ] {
        items.push(poll_with(poll(40, 0, 2, vec![]), |poll| {
            (poll.freshness, poll.answer) = (freshness, answer);
        }));
    }
    items.push(offset(50, OffsetKind::Earliest, 0));
    items.push(offset(60, OffsetKind::Latest, 2));
    items.push(scan(1, 0, 2, seen_range(0, 2)));
    items.push(Item::Retention(RetentionAllowed {
        at_ns: 9,
        partition: 1,
        up_to: 7,
    }));
    for kind in [
        PromiseKind::Acked { index_end: 5, term: 1 },
        PromiseKind::Voted { term: 2, candidate: 3 },
        PromiseKind::Truncated {
            index_end: 4,
            leader_term: 2,
        },
        PromiseKind::Restarted {
            index_end: 4,
            last_term: 1,
            vote_term: 2,
            voted_for: Some(3),
        },
        PromiseKind::Died,
        PromiseKind::Published {
            index_end: 4,
            quorum: 2,
        },
    ] {
        items.push(promise(100, 3, kind));
    }
    items.push(Item::Leader(Leader {
        at_ns: 1,
        partition: 0,
        replica: 3,
        term: 2,
    }));
    items.push(Item::Healing(Healing {
        partition: 0,
        healed_ns: 1,
        served_ns: None,
        leaders: 1,
        memberships: 1,
    }));
    items.push(handout(5, 0));
    items.push(position(9, 4, 1));
    for kind in [FaultKind::Kill, FaultKind::BitRot, FaultKind::Membership] {
        items.push(Item::Fault(Fault {
            kind,
            node: 2,
            begin_ns: 1,
            end_ns: 2,
            bitten: 3,
            evidence: "bits flipped, größer".to_owned(),
        }));
    }
    items.push(Item::Incident(Incident {
        at_ns: 1,
        node: 0,
        kind: IncidentKind::Leak,
        text: "a file".to_owned(),
    }));
    let mut whole = history(&items);
    whole.merge(history(&honest_history(1, 12)));
    whole
}

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/history-v2.bin")
}

#[test]
fn the_golden_file_is_read_and_written_as_ever() {
    let specimen = specimen();
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        specimen.save(&golden()).unwrap();
    }
    let loaded = History::load(&golden()).unwrap();
    assert!(loaded == specimen, "the golden file reads differently");
    assert!(
        std::fs::read(golden()).unwrap() == specimen.encode(),
        "the format has changed: give it a new version"
    );
}

#[test]
fn a_history_comes_back_from_a_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.bin");
    let history = history(&honest_history(5, 200));
    history.save(&path).unwrap();
    assert!(History::load(&path).unwrap() == history);
    assert!(matches!(
        History::load(&directory.path().join("none")),
        Err(FileError::Io { .. })
    ));
}

#[test]
fn any_changed_or_missing_byte_is_noticed() {
    let bytes = specimen().encode();
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        assert!(
            matches!(History::decode(&changed), Err(FileError::Damaged { .. })),
            "byte {at}"
        );
        assert!(History::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

/// `body` with a checksum that fits.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = value::digest(&body);
    body.extend_from_slice(&checksum.to_le_bytes());
    body
}

#[test]
fn a_foreign_version_and_nonsense_under_a_right_checksum_are_errors() {
    let bytes = specimen().encode();
    let mut newer = bytes[..bytes.len() - 8].to_vec();
    newer[6] = 3;
    assert!(matches!(
        History::decode(&sealed(newer)),
        Err(FileError::UnknownVersion { found: 3 })
    ));
    for at in (8..bytes.len() - 8).step_by(3) {
        let mut changed = bytes[..bytes.len() - 8].to_vec();
        changed[at] = 0xff;
        // An error or another history, but never a panic, here or in the checker.
        if let Ok(history) = History::decode(&sealed(changed)) {
            let _ = highwater_verify::check(&history, &highwater_verify::Requirements::default()).to_string();
        }
    }
}
