//! Looking at a log without opening it: everything is told, nothing is changed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::pair::{MARKED, Pair};
use common::store::{Store, VOTE};
use highwater_log::inspect::{Depth, FrameReport, IndexReport, Inspection, inspect, inspect_frames};
use highwater_log::{Disk, Log};
use std::path::Path;

fn look(store: &Store, depth: Depth) -> Inspection {
    let (operations, files) = (store.disk.operations(), store.disk.files());
    let bytes: Vec<_> = files.iter().map(|path| store.disk.bytes(path)).collect();
    let inspection = inspect(&*store.disk, Path::new("/log"), depth).unwrap();
    assert_eq!(
        (store.disk.operations(), store.disk.files()),
        (operations, files.clone())
    );
    assert_eq!(
        files.iter().map(|path| store.disk.bytes(path)).collect::<Vec<_>>(),
        bytes
    );
    assert!(!inspection.changed);
    inspection
}

#[test]
fn a_whole_log_is_told_in_full() {
    let pair = Pair::new();
    let inspection = look(&pair.store, Depth::Frames);
    assert_eq!(inspection.damage, []);
    let hard_state = inspection.hard_state.unwrap();
    assert_eq!((hard_state.vote, hard_state.good_slots), (Some(VOTE), 2));
    assert_eq!((hard_state.mark.end_index, hard_state.mark.commit_end), (MARKED, 30));
    assert_eq!(inspection.checkpoint.unwrap().last.unwrap().index, 29);
    assert_eq!(inspection.manifest, None);
    let segments = &inspection.segments;
    assert_eq!(
        segments.iter().map(|segment| segment.path.clone()).collect::<Vec<_>>(),
        pair.store.segments()
    );
    assert_eq!(segments.iter().map(|segment| segment.frames.unwrap()).sum::<u64>(), 40);
    let log_end = pair.frames[39].offset_end();
    assert_eq!(
        segments.iter().map(|segment| segment.records.unwrap()).sum::<u64>(),
        log_end
    );
    assert_eq!(segments.last().unwrap().end_offset, Some(log_end));
    assert!(
        segments
            .windows(2)
            .all(|pair| pair[0].end_index == Some(pair[1].first_index))
    );
    assert!(
        segments
            .windows(2)
            .all(|pair| pair[0].end_offset == pair[1].base_offset)
    );
    assert!(
        segments
            .windows(2)
            .all(|pair| matches!(pair[0].index, IndexReport::Good { .. }))
    );
    assert_eq!(segments.last().unwrap().index, IndexReport::Missing);
}

#[test]
fn the_frames_of_a_segment_are_told_one_by_one() {
    let pair = Pair::new();
    let mut all: Vec<FrameReport> = Vec::new();
    for segment in look(&pair.store, Depth::Headers).segments {
        inspect_frames(
            &*pair.store.disk,
            Path::new("/log"),
            segment.first_index,
            &mut |frame| all.push(frame),
        )
        .unwrap();
    }
    let places = pair.places();
    assert_eq!(all.len(), 40);
    for (frame, report) in pair.frames.iter().zip(&all) {
        assert_eq!(frame.header, report.header);
        assert_eq!(report.position, places[frame.id().index as usize].1.start);
    }
}

#[test]
fn any_flipped_byte_below_the_mark_is_told_with_its_entry() {
    let pair = Pair::new();
    for path in pair.store.disk.files() {
        for position in 0..pair.store.disk.bytes(&path).unwrap().len() as u64 {
            let copy = pair.store.fork();
            copy.disk.flip(&path, position, 0x10);
            let what = format!("{} byte {position}", path.display());
            let inspection = look(&copy, Depth::Frames);
            let whole_bytes = pair.whole.get(&path).map_or(0, Vec::len) as u64;
            if path.extension().is_some_and(|end| end == "log") {
                if position >= whole_bytes {
                    assert_eq!(inspection.damage, [], "{what}: prepared space");
                    continue;
                }
                let index = pair.entry_at(&path, position);
                if index >= MARKED && position >= 80 {
                    assert_eq!(inspection.damage, [], "{what}: not certain");
                    assert!(inspection.segments.last().unwrap().unfinished_bytes > 0, "{what}");
                    assert_eq!(inspection.segments.last().unwrap().end_index, Some(index), "{what}");
                    continue;
                }
                let entries = inspection.damage.iter().filter_map(|finding| finding.entries);
                let expected = if index < MARKED {
                    vec![(index, index + 1)]
                } else {
                    vec![]
                };
                assert_eq!(entries.collect::<Vec<_>>(), expected, "{what}: {:?}", inspection.damage);
            }
            let in_gap = path.ends_with("hard-state") && (512..4096).contains(&position);
            assert_eq!(inspection.damage.is_empty(), in_gap, "{what}: {:?}", inspection.damage);
        }
    }
}

#[test]
fn missing_segments_are_told_without_reading_frames() {
    let pair = Pair::new();
    let segments = pair.store.segments();
    for (place, path) in segments[..segments.len() - 1].iter().enumerate() {
        for depth in [Depth::Headers, Depth::Frames] {
            let copy = pair.store.fork();
            copy.disk.remove(path).unwrap();
            let first = |place: usize| {
                segments[place]
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .parse::<u64>()
                    .unwrap()
            };
            let told = look(&copy, depth).damage;
            assert!(
                told.iter()
                    .any(|finding| finding.entries == Some((first(place), first(place + 1)))),
                "{told:?}"
            );
        }
    }
}

#[test]
fn a_running_log_can_be_looked_at() {
    let store = Store::new();
    let log = Log::create(store.options()).unwrap();
    store.append(&log, 1, 0..20);
    log.commit(19).unwrap();
    let manifest = log.fold_manifest(log.floor_for(u64::MAX).unwrap().unwrap()).unwrap();
    store.certain(|done| log.purge(manifest.with_machine("topics".into()), done));
    let inspection = look(&store, Depth::Frames);
    assert_eq!(inspection.damage, []);
    let manifest = inspection.manifest.unwrap();
    assert_eq!((manifest.last, manifest.machine_bytes), (log.floor(), 6));
    assert_eq!(inspection.segments[0].first_index, log.floor().unwrap().index + 1);
}
