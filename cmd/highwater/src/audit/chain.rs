//! Whether records follow from each other: nothing changed, left out, doubled or put in between.
//!
//! Each start of a node begins a chain. A record's hash is SHA-256 over the hash of the record before it and its own value, 32 zero bytes
//! before the first. So one record proves all before it, and the record that a chain begins with names where the node's chain before it
//! had come to.
//!
//! Not provable from the records alone: that the last records of a chain are there that nothing follows, and, once older records have been
//! let go of, that the first one of a chain that is left was not changed.
//!
//! It takes no input but records in the order of their offsets. It keeps 32 bytes for each record of the nodes' latest starts.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::record::{Former, Record};

type Hash = [u8; 32];

/// A record as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) offset: u64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
    /// What its header says.
    pub(super) hash: Option<&'a [u8]>,
}

/// A place where something does not follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {why}")]
pub(super) struct Break {
    pub(super) offset: u64,
    pub(super) why: String,
}

/// What was found of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Summary {
    /// As many starts.
    pub(super) chains: u64,
    pub(super) records: u64,
    /// Events that no record was written of.
    pub(super) suppressed: u64,
    /// Of the first and the last record, milliseconds since 1970.
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
    /// What is no contradiction and worth to know.
    pub(super) notices: Vec<String>,
}

/// Takes records in, in order.
pub(super) struct Checker {
    /// Older records have been let go of, so a chain may have lost its beginning.
    is_trimmed: bool,
    nodes: BTreeMap<String, Node>,
}

#[derive(Default)]
struct Node {
    /// In the order in which they began.
    chains: Vec<Chain>,
    /// The chain that the first one seen follows on, which has been let go of.
    let_go: Option<String>,
    /// Something did not follow: its chains may be taken up where they are.
    is_broken: bool,
    summary: Summary,
}

/// One start of a node, as far as it was seen.
struct Chain {
    boot: String,
    /// Of the first record seen.
    first: u64,
    /// Of the next record.
    next: u64,
    last: Hash,
    /// Of all records seen, for the next start to be compared with; empty once that is done.
    hashes: Vec<Hash>,
}

impl Checker {
    /// `first_offset`: of the first record that is kept.
    pub(super) fn new(first_offset: u64) -> Checker {
        Checker {
            is_trimmed: first_offset > 0,
            nodes: BTreeMap::new(),
        }
    }

    /// Whether the next record follows. After one that does not, its node's chains are taken up with the next.
    pub(super) fn take(&mut self, entry: Entry<'_>) -> Result<(), Break> {
        let broken = |why: String| Break {
            offset: entry.offset,
            why,
        };
        let record = Record::read(entry.value).map_err(broken)?;
        if entry.key != Some(record.node.as_bytes()) {
            return Err(broken(format!("its key is not {}, which it is of", record.node)));
        }
        let hash = entry.hash.and_then(read_hash);
        let hash = hash.ok_or_else(|| broken("it has no hash".to_owned()))?;
        let node = self.nodes.entry(record.node.clone()).or_default();
        let is_trimmed = self.is_trimmed || node.is_broken;
        node.take(&record, entry.value, hash, is_trimmed).map_err(|why| {
            node.is_broken = true;
            node.chains.clear();
            broken(format!("node {}: {why}", record.node))
        })
    }

    /// What was found, by node.
    pub(super) fn finish(self) -> BTreeMap<String, Summary> {
        let nodes = self.nodes.into_iter();
        nodes.map(|(name, node)| (name, node.summary)).collect()
    }
}

impl Node {
    fn take(&mut self, record: &Record, value: &[u8], hash: Hash, is_trimmed: bool) -> Result<(), String> {
        match self.chains.iter_mut().find(|chain| chain.boot == record.boot) {
            Some(chain) => chain.take(record, value, hash)?,
            None => self.begin(record, value, hash, is_trimmed)?,
        }
        let summary = &mut self.summary;
        if summary.records == 0 {
            summary.first_ms = record.time_ms;
        }
        summary.records += 1;
        summary.suppressed += record.suppressed;
        summary.last_ms = record.time_ms;
        Ok(())
    }

    fn begin(&mut self, record: &Record, value: &[u8], hash: Hash, is_trimmed: bool) -> Result<(), String> {
        let has_lost_its_beginning = record.number > 0;
        if has_lost_its_beginning && !(is_trimmed && self.chains.is_empty()) {
            let (boot, number) = (&record.boot, record.number);
            return Err(format!(
                "the chain of start {boot} begins with record {number}; those before are missing"
            ));
        }
        if !has_lost_its_beginning {
            check_hash(&[0; 32], value, hash)?;
            self.check_former(record, is_trimmed)?;
        }
        for chain in &mut self.chains {
            chain.hashes = Vec::new();
        }
        self.chains.push(Chain {
            boot: record.boot.clone(),
            first: record.number,
            next: record.number + 1,
            last: hash,
            hashes: vec![hash],
        });
        self.summary.chains += 1;
        Ok(())
    }

    /// Whether what a chain says of the one before it agrees with what is there.
    fn check_former(&mut self, record: &Record, is_trimmed: bool) -> Result<(), String> {
        let boot = &record.boot;
        let Some(former) = &record.former else {
            if !self.chains.is_empty() {
                let notice = format!(
                    "start {boot} does not know of the one before; its data directory was new, or had lost the note"
                );
                self.summary.notices.push(notice);
            }
            return Ok(());
        };
        match self.chains.iter().rposition(|chain| chain.boot == former.boot) {
            Some(at) if at + 1 == self.chains.len() => self.chains[at].holds(former),
            Some(_) => {
                self.skipped(boot, former);
                Ok(())
            }
            None if is_trimmed && self.chains.is_empty() => {
                self.let_go = Some(former.boot.clone());
                Ok(())
            }
            None if self.let_go.as_ref() == Some(&former.boot) => {
                self.skipped(boot, former);
                Ok(())
            }
            None => Err(format!(
                "start {boot} follows on start {}, of which no record is there",
                former.boot
            )),
        }
    }
}

impl Node {
    fn skipped(&mut self, boot: &str, former: &Former) {
        self.summary.notices.push(format!(
            "start {boot} names {} as the one before, which ended before a later one had noted its end",
            former.boot
        ));
    }
}

impl Chain {
    fn take(&mut self, record: &Record, value: &[u8], hash: Hash) -> Result<(), String> {
        let (number, next) = (record.number, self.next);
        if number > next {
            let last = number - 1;
            return Err(format!(
                "record {number} follows on record {}: {next} to {last} are missing",
                next - 1
            ));
        }
        if number < next {
            return Err(format!(
                "record {number} stands behind record {}: it is there twice, or out of order",
                next - 1
            ));
        }
        check_hash(&self.last, value, hash)?;
        self.next += 1;
        self.last = hash;
        self.hashes.push(hash);
        Ok(())
    }

    /// Whether the record that the next start has named is there.
    fn holds(&self, former: &Former) -> Result<(), String> {
        let Former { boot, number, hash } = former;
        if *number >= self.next {
            let have = self.next - 1;
            return Err(format!(
                "the chain of start {boot} has come to record {number} and ends with {have}: the others are missing"
            ));
        }
        let Some(at) = number.checked_sub(self.first) else {
            return Ok(()); // let go of
        };
        let known = self.hashes.get(usize::try_from(at).unwrap_or(usize::MAX));
        match known.is_some_and(|known| Some(*known) == read_hash(hash.as_bytes())) {
            true => Ok(()),
            false => Err(format!(
                "record {number} of start {boot} is not the one that was written"
            )),
        }
    }
}

fn check_hash(before: &Hash, value: &[u8], found: Hash) -> Result<(), String> {
    let expected: Hash = Sha256::new().chain_update(before).chain_update(value).finalize().into();
    match found == expected {
        true => Ok(()),
        false => Err("its hash does not follow: it, or a record before it, was changed or is missing".to_owned()),
    }
}

/// From 64 lower-case hexadecimal digits.
fn read_hash(text: &[u8]) -> Option<Hash> {
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 64 || !text.iter().all(is_digit) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
