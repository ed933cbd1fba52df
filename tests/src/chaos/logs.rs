//! The logs of stopped nodes, read without the product: an independent reader of the layouts in `internal/log/README.md`.
//!
//! At rest every replica of a group must hold the same entries, byte for byte, however differently they lie in segments.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use highwater_log::crc32c;
use highwater_verify::history::LogEntry;
use highwater_verify::value;

use super::storage::{files_of, has_ending, logs};

const SEGMENT_HEADER_BYTES: usize = 80;
const FRAME_HEADER_BYTES: usize = 64;
const CRC_BYTES: usize = 4;
/// The two slots of the hard state, and what is read of them.
const SLOTS: [usize; 2] = [0, 4096];
const SLOT_BYTES: usize = 512;
const SLOT_CRC_START: usize = 12;
const SLOT_SEQUENCE: usize = 16;
const SLOT_COMMIT_END: usize = 120;

/// One replica's log.
#[derive(Debug)]
pub(crate) struct ReplicaLog {
    pub(crate) group: u64,
    pub(crate) replica: u64,
    /// Entries below are noted as committed.
    pub(crate) committed_end: u64,
    pub(crate) entries: Vec<LogEntry>,
    /// Of each entry, a digest of all its bytes on disk.
    digests: Vec<u64>,
}

/// All logs of a stopped node.
pub(crate) fn read_node(data_dir: &Path) -> Result<Vec<ReplicaLog>, String> {
    let found = logs(data_dir).map_err(|error| format!("cannot read {}: {error}", data_dir.display()))?;
    found.iter().map(|log| read_log(log)).collect()
}

fn read_log(directory: &Path) -> Result<ReplicaLog, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", directory.display());
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ids = name
        .split_once('-')
        .and_then(|(group, replica)| Some((group.parse().ok()?, replica.parse().ok()?)));
    let (group, replica) = ids.ok_or_else(|| at(&"is not named GROUP-REPLICA"))?;
    let hard_state = fs::read(directory.join("hard-state")).map_err(|error| at(&error))?;
    let mut log = ReplicaLog {
        group,
        replica,
        committed_end: committed_end(&hard_state).ok_or_else(|| at(&"no slot of the hard state is whole"))?,
        entries: Vec::new(),
        digests: Vec::new(),
    };
    let files = files_of(directory).map_err(|error| at(&error))?;
    let segments: Vec<_> = files.iter().filter(|file| has_ending(file, "log")).collect();
    for (place, file) in segments.iter().enumerate() {
        let bytes = fs::read(file).map_err(|error| at(&error))?;
        let end = log.read_segment(&bytes);
        let rest = &bytes[end.min(bytes.len())..];
        let is_last = place + 1 == segments.len();
        if rest.iter().any(|byte| *byte != 0) || (!is_last && !rest.is_empty()) {
            let (file, rest) = (file.display(), rest.len());
            return Err(format!("{file}: no frame at byte {end}, {rest} bytes before the end"));
        }
    }
    Ok(log)
}

impl ReplicaLog {
    /// Takes in the frames of a segment; gives the position behind the last whole one.
    fn read_segment(&mut self, bytes: &[u8]) -> usize {
        let mut position = SEGMENT_HEADER_BYTES;
        while let Some((entry, frame)) = bytes.get(position..).and_then(read_frame) {
            self.entries.push(entry);
            self.digests.push(value::digest(frame));
            position += frame.len();
        }
        position
    }

    fn end(&self) -> Option<(u64, u64, u64)> {
        let last = self.entries.last()?;
        Some((last.index, last.term, last.chain))
    }
}

/// The position behind the last whole frame of a segment; `None` if it has none.
pub(crate) fn frames_end(bytes: &[u8]) -> Option<usize> {
    let mut position = SEGMENT_HEADER_BYTES;
    while let Some((_, frame)) = bytes.get(position..).and_then(read_frame) {
        position += frame.len();
    }
    (position > SEGMENT_HEADER_BYTES).then_some(position)
}

/// The frame at the beginning of `bytes`, if there is a whole one.
fn read_frame(bytes: &[u8]) -> Option<(LogEntry, &[u8])> {
    let u64_at = |at| number(bytes, at, 8);
    let u32_at = |at| number(bytes, at, 4).map(|value| value as u32);
    let (payload_bytes, detail_bytes) = (u32_at(8)? as usize, number(bytes, 12, 2)? as usize);
    let head = bytes.get(CRC_BYTES..FRAME_HEADER_BYTES + detail_bytes)?;
    let kind = *bytes.get(5)?;
    if kind == 0 || crc32c(head) != u32_at(0)? {
        return None;
    }
    let frame = bytes.get(..FRAME_HEADER_BYTES + detail_bytes + payload_bytes)?;
    let entry = LogEntry {
        index: u64_at(24)?,
        term: u64_at(16)?,
        base_offset: u64_at(32)?,
        chain: u64_at(56)?,
        record_count: u32_at(40)?,
        payload_crc: u32_at(44)?,
        kind,
        verdict: bytes[6],
    };
    let payload = &frame[FRAME_HEADER_BYTES + detail_bytes..];
    (payload.is_empty() || crc32c(payload) == entry.payload_crc).then_some((entry, frame))
}

/// A little-endian number of `count` bytes.
fn number(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..count].copy_from_slice(bytes.get(at..at + count)?);
    Some(u64::from_le_bytes(wide))
}

fn committed_end(hard_state: &[u8]) -> Option<u64> {
    let slots = SLOTS
        .iter()
        .filter_map(|start| hard_state.get(*start..start + SLOT_BYTES));
    let whole = slots.filter(|slot| {
        number(slot, SLOT_CRC_START - CRC_BYTES, CRC_BYTES) == Some(crc32c(&slot[SLOT_CRC_START..]).into())
    });
    let newest = whole.max_by_key(|slot| number(slot, SLOT_SEQUENCE, 8))?;
    number(newest, SLOT_COMMIT_END, 8)
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Entries that are on at least two replicas and the same.
    pub(crate) equal: u64,
    /// Differences, in words.
    pub(crate) divergent: Vec<String>,
}

/// Compares all replicas of every group, entry for entry.
pub(crate) fn compare(nodes: &[(String, Vec<ReplicaLog>)]) -> Compared {
    let mut groups: BTreeMap<u64, Vec<(&str, &ReplicaLog)>> = BTreeMap::new();
    for (node, logs) in nodes {
        logs.iter()
            .for_each(|log| groups.entry(log.group).or_default().push((node.as_str(), log)));
    }
    let mut compared = Compared::default();
    for replicas in groups.values() {
        let (Some((first, rest)), true) = (replicas.split_first(), replicas.len() > 1) else {
            continue;
        };
        for other in rest {
            compare_two(*first, *other, &mut compared);
        }
    }
    compared
}

fn compare_two(one: (&str, &ReplicaLog), other: (&str, &ReplicaLog), compared: &mut Compared) {
    let start = |log: &ReplicaLog| log.entries.first().map_or(0, |entry| entry.index);
    let floor = start(one.1).max(start(other.1));
    let from = |log: &ReplicaLog| (floor - start(log)) as usize;
    let ours = one.1.digests.iter().skip(from(one.1));
    let theirs = other.1.digests.iter().skip(from(other.1));
    let differs = ours.clone().zip(theirs.clone()).position(|(one, other)| one != other);
    let both = ours.len().min(theirs.len()) as u64;
    compared.equal += differs.map_or(both, |place| place as u64);
    let pair = || format!("group {} on {} and {}", one.1.group, one.0, other.0);
    if let Some(place) = differs {
        compared
            .divergent
            .push(format!("{}: entry {} differs", pair(), floor + place as u64));
    } else if one.1.end() != other.1.end() {
        let text = format!(
            "{}: one log ends with {:?}, the other with {:?} (index, term, chain)",
            pair(),
            one.1.end(),
            other.1.end()
        );
        compared.divergent.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(index: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        (bytes[4], bytes[5]) = (1, 2);
        bytes[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&1u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&index.to_le_bytes());
        bytes[44..48].copy_from_slice(&crc32c(payload).to_le_bytes());
        let crc = crc32c(&bytes[CRC_BYTES..]);
        bytes[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn log(payloads: &[&[u8]]) -> ReplicaLog {
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        (0..)
            .zip(payloads)
            .for_each(|(index, payload)| bytes.extend(frame(index, payload)));
        let mut log = ReplicaLog {
            group: 1,
            replica: 1,
            committed_end: 0,
            entries: Vec::new(),
            digests: Vec::new(),
        };
        assert_eq!(log.read_segment(&bytes), bytes.len());
        assert_eq!(log.entries.len(), payloads.len());
        log
    }

    fn compared(one: &[&[u8]], other: &[&[u8]]) -> Compared {
        compare(&[("a".to_owned(), vec![log(one)]), ("b".to_owned(), vec![log(other)])])
    }

    #[test]
    fn equal_logs_are_equal() {
        let found = compared(&[b"x", b"y"], &[b"x", b"y"]);
        assert_eq!((found.equal, found.divergent), (2, Vec::new()));
    }

    #[test]
    fn one_changed_byte_and_a_missing_entry_are_found() {
        let found = compared(&[b"x", b"y", b"z"], &[b"x", b"Y", b"z"]);
        assert_eq!(found.equal, 1);
        assert!(found.divergent[0].contains("entry 1 differs"), "{:?}", found.divergent);
        let found = compared(&[b"x", b"y"], &[b"x"]);
        assert!(found.divergent[0].contains("ends with"), "{:?}", found.divergent);
    }

    #[test]
    fn a_damaged_frame_ends_the_frames() {
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        bytes.extend(frame(0, b"whole\0\0"));
        let end = bytes.len();
        bytes.extend(frame(1, b"damaged"));
        bytes.extend([0; 100]);
        *bytes.iter_mut().skip(end).nth(FRAME_HEADER_BYTES).unwrap_or(&mut 0) ^= 1;
        assert_eq!(frames_end(&bytes), Some(end));
    }
}
