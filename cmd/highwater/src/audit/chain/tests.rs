//! Every way to tamper with a chain is found where it was done; what is in order is let through.

#![allow(clippy::unwrap_used)]

use super::*;

/// A record with what surrounds it.
#[derive(Debug, Clone)]
struct Written {
    key: String,
    value: String,
    hash: String,
}

/// Writes as a node does.
struct Writer {
    node: &'static str,
    boot: &'static str,
    number: u64,
    hash: Hash,
}

impl Writer {
    fn new(node: &'static str, boot: &'static str) -> Writer {
        Writer {
            node,
            boot,
            number: 0,
            hash: [0; 32],
        }
    }

    fn write(&mut self, kind: &str, rest: &str) -> Written {
        let Writer { node, boot, number, .. } = self;
        let value = format!(
            r#"{{"v":1,"node":"{node}","boot":"{boot}","number":{number},"time_ms":{number},"kind":"{kind}","who":"w","what":"x","target":"t","outcome":"done"{rest}}}"#
        );
        self.hash = Sha256::new()
            .chain_update(self.hash)
            .chain_update(&value)
            .finalize()
            .into();
        self.number += 1;
        Written {
            key: self.node.to_owned(),
            hash: digits(&self.hash),
            value,
        }
    }

    /// The first record of a start that knows where this one has come to.
    fn next_start(&self, boot: &'static str) -> (Writer, Written) {
        let rest = format!(
            r#","former":{{"boot":"{}","number":{},"hash":"{}"}}"#,
            self.boot,
            self.number - 1,
            digits(&self.hash)
        );
        let mut next = Writer::new(self.node, boot);
        let first = next.write("started", &rest);
        (next, first)
    }
}

fn digits(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(first_offset: u64, records: &[Written]) -> Result<BTreeMap<String, Summary>, Break> {
    let mut checker = Checker::new(first_offset);
    for (offset, record) in (first_offset..).zip(records) {
        checker.take(Entry {
            offset,
            key: Some(record.key.as_bytes()),
            value: record.value.as_bytes(),
            hash: Some(record.hash.as_bytes()),
        })?;
    }
    Ok(checker.finish())
}

fn broken_at(first_offset: u64, records: &[Written], offset: u64, words: &str) {
    let found = check(first_offset, records).unwrap_err();
    assert_eq!(found.offset, offset, "{found}");
    assert!(found.why.contains(words), "{found}");
}

/// Two nodes side by side; the first starts twice.
fn honest() -> Vec<Written> {
    let (mut a, mut b) = (Writer::new("a", "a1"), Writer::new("b", "b1"));
    let mut all = vec![a.write("started", ""), b.write("started", "")];
    for _ in 0..3 {
        all.push(a.write("act", ""));
        all.push(b.write("denied", r#","suppressed":2"#));
    }
    let (mut a, started) = a.next_start("a2");
    all.push(started);
    all.push(a.write("act", ""));
    all.push(b.write("act", ""));
    all
}

#[test]
fn honest_chains_pass_and_are_summed_up() {
    let found = check(0, &honest()).unwrap();
    assert_eq!(
        (found["a"].chains, found["a"].records, found["a"].suppressed),
        (2, 6, 0)
    );
    assert_eq!(
        (found["b"].chains, found["b"].records, found["b"].suppressed),
        (1, 5, 6)
    );
    assert_eq!((found["b"].first_ms, found["b"].last_ms), (0, 4));
    assert!(found.values().all(|summary| summary.notices.is_empty()));
}

#[test]
fn every_flipped_byte_of_every_value_and_hash_is_found() {
    let honest = honest();
    for at in 0..honest.len() {
        for position in 0..honest[at].value.len() {
            let mut tampered = honest.clone();
            let mut bytes = tampered[at].value.clone().into_bytes();
            bytes[position] ^= 1;
            let Ok(value) = String::from_utf8(bytes) else { continue };
            tampered[at].value = value;
            assert!(check(0, &tampered).is_err(), "record {at}, byte {position}");
        }
        let mut tampered = honest.clone();
        let flipped = if tampered[at].hash.starts_with('0') { "1" } else { "0" };
        tampered[at].hash.replace_range(..1, flipped);
        broken_at(0, &tampered, at as u64, "its hash does not follow");
    }
}

#[test]
fn every_missing_record_is_found_that_another_one_follows() {
    let honest = honest();
    // The last ones of a2 and b1 are followed by nothing, which only a later start would tell.
    for missing in 0..honest.len() - 2 {
        let mut tampered = honest.clone();
        tampered.remove(missing);
        assert!(check(0, &tampered).is_err(), "record {missing}");
    }
    let mut tampered = honest.clone();
    tampered.remove(2);
    broken_at(0, &tampered, 3, "1 to 1 are missing");
    let mut tampered = honest.clone();
    tampered.drain(6..7);
    broken_at(0, &tampered, 7, "has come to record 3 and ends with 2");
    let is_of_first_start = |record: &&Written| record.value.contains(r#""node":"a","boot":"a1""#);
    let without: Vec<Written> = honest.iter().filter(|it| !is_of_first_start(it)).cloned().collect();
    broken_at(0, &without, 4, "of which no record is there");
}

#[test]
fn doubled_reordered_and_inserted_records_are_found() {
    let honest = honest();
    for at in 0..honest.len() {
        let mut tampered = honest.clone();
        tampered.insert(at, honest[at].clone());
        broken_at(0, &tampered, at as u64 + 1, "it is there twice");
    }
    let mut tampered = honest.clone();
    tampered.swap(2, 4);
    broken_at(0, &tampered, 2, "1 to 1 are missing");
    let mut forger = Writer::new("a", "a1");
    forger.write("started", "");
    let mut tampered = honest.clone();
    tampered.insert(2, forger.write("forged", ""));
    broken_at(0, &tampered, 3, "it is there twice");
    tampered.remove(3);
    broken_at(0, &tampered, 4, "its hash does not follow");
    let mut tampered = honest;
    tampered[3].key = "a".to_owned();
    broken_at(0, &tampered, 3, "its key is not b");
}

#[test]
fn a_chain_made_anew_does_not_agree_with_the_start_after_it() {
    let honest = honest();
    let mut forger = Writer::new("a", "a1");
    let mut forged = honest.clone();
    for (at, rest) in [(0, ""), (2, ""), (4, r#","why":"forged""#), (6, "")] {
        let kind = if at == 0 { "started" } else { "act" };
        forged[at] = forger.write(kind, rest);
    }
    broken_at(0, &forged, 8, "is not the one that was written");
}

#[test]
fn after_retention_a_chain_may_begin_in_the_middle_and_otherwise_not() {
    let honest = honest();
    for kept in 1..honest.len() {
        check(kept as u64, &honest[kept..]).unwrap();
    }
    broken_at(0, &honest[2..], 0, "begins with record 1");
    // A start that lies behind what is kept must be there from its beginning on.
    let mut tampered = honest[2..].to_vec();
    tampered.remove(6);
    broken_at(2, &tampered, 8, "begins with record 1");
}

#[test]
fn what_a_crash_leaves_is_no_break() {
    let mut a = Writer::new("a", "a1");
    let mut all = vec![a.write("started", ""), a.write("act", "")];
    let (_, noted) = a.next_start("a2");
    // More than was noted before the crash.
    all.push(a.write("act", ""));
    all.push(noted);
    // A start that ended before it noted anything: the next one names the one before it.
    let (_, unaware) = a.next_start("a3");
    all.push(unaware);
    // And one whose data directory was new.
    all.push(Writer::new("a", "a4").write("started", ""));
    let found = check(0, &all).unwrap();
    assert_eq!((found["a"].chains, found["a"].notices.len()), (4, 2));
}

#[test]
fn records_without_hash_or_that_are_none_are_breaks() {
    let mut checker = Checker::new(0);
    let entry = Entry {
        offset: 3,
        key: Some(b"a"),
        value: b"{}",
        hash: None,
    };
    assert_eq!(checker.take(entry).unwrap_err().offset, 3);
    let written = Writer::new("a", "a1").write("started", "");
    for hash in [None, Some(&b"00"[..]), Some(&[b'G'; 64][..])] {
        let entry = Entry {
            value: written.value.as_bytes(),
            hash,
            ..entry
        };
        assert!(checker.take(entry).unwrap_err().why.contains("no hash"));
    }
}

#[test]
fn a_start_that_was_skipped_may_be_let_go_of_before_the_one_that_skipped_it() {
    let mut a1 = Writer::new("a", "a1");
    let mut all = vec![a1.write("started", ""), a1.write("act", "")];
    // It dies before its end is noted, so the next start names the one before it.
    let (_, a2_started) = a1.next_start("a2");
    let (mut a3, a3_started) = a1.next_start("a3");
    all.extend([a2_started, a3_started, a3.write("act", "")]);
    assert_eq!(check(0, &all).unwrap()["a"].notices.len(), 1);
    assert_eq!(
        check(2, &all[2..]).unwrap()["a"].notices.len(),
        1,
        "the first is let go of"
    );
    // But one that nobody else has named was not let go of.
    let other = Writer {
        number: 5,
        ..Writer::new("a", "a9")
    };
    let (_, foreign) = other.next_start("a4");
    all.push(foreign);
    broken_at(2, &all[2..], 5, "of which no record is there");
}

#[test]
fn after_a_break_the_others_are_found_as_well() {
    let mut all = honest();
    for (at, letter) in [(2, "act"), (5, "denied")] {
        all[at].value = all[at].value.replace(letter, "cut");
    }
    let mut checker = Checker::new(0);
    let found = (0..).zip(&all).filter_map(|(offset, record)| {
        let entry = Entry {
            offset,
            key: Some(record.key.as_bytes()),
            value: record.value.as_bytes(),
            hash: Some(record.hash.as_bytes()),
        };
        checker.take(entry).err().map(|found| found.offset)
    });
    assert_eq!(found.collect::<Vec<u64>>(), [2, 5]);
}
