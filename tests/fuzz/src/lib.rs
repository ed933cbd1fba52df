//! Fuzz targets: every decoder of bytes that a disk, a peer or a client can give, and what must hold for *any* bytes.
//!
//! A target is a plain function of bytes that panics if something is wrong. No decoder may panic, and more than that: what is taken must be the
//! same bytes when it is encoded again, what two sides read from the same bytes must be the same, and nothing may be larger than what it
//! was made from.
//!
//! * **`make test`** runs each over its saved corpus and over a number of mutations of it, always the same ones ([`mutations`]).
//! * **`make fuzz`** looks for new bytes, guided by coverage (`guided/`), and adds those that reach something new to the corpus.
//!
//! The corpus of a target is two text files, an input per line in hexadecimal: made by the real encoders, and found by looking.

use std::path::PathBuf;

use prost::Message;

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its corpus.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frames",
        run: highwater_log::fuzz::frames,
    },
    Target {
        name: "hard-state",
        run: highwater_log::fuzz::hard_state,
    },
    Target {
        name: "index",
        run: highwater_log::fuzz::index,
    },
    Target {
        name: "states",
        run: highwater_log::fuzz::states,
    },
    Target {
        name: "messages",
        run: highwater_partition::fuzz::messages,
    },
    Target {
        name: "link",
        run: highwater_node::fuzz::link,
    },
    Target {
        name: "leaders",
        run: highwater_node::fuzz::leaders,
    },
    Target {
        name: "batches",
        run: batches,
    },
    Target {
        name: "gateway",
        run: highwater_node::fuzz::gateway,
    },
];

/// The target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// What a node lets through, every consumer can read: ours, and one that decodes the whole message.
fn batches(bytes: &[u8]) {
    let ours = highwater::fuzz::records(bytes);
    let whole = highwater_proto::v1::RecordBatch::decode(bytes);
    if let (Ok(ours), Ok(whole)) = (&ours, &whole) {
        assert_eq!(*ours, whole.records, "two consumers read different records");
    }
    let Some(count) = highwater_node::fuzz::batch(bytes) else {
        return;
    };
    match (ours, whole) {
        (Ok(ours), Ok(whole)) => assert_eq!((ours.len(), whole.records.len()), (count as usize, count as usize)),
        (ours, whole) => panic!("{count} records were let through, and cannot be read: {ours:?}, {whole:?}"),
    }
}

impl Target {
    /// Where that part of the corpus lies: `seeds` are made by the real encoders, `found` by looking.
    pub fn corpus_path(&self, part: &str) -> PathBuf {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
        root.join(part).join(self.name).with_extension("hex")
    }

    /// All saved inputs.
    pub fn corpus(&self) -> std::io::Result<Vec<Vec<u8>>> {
        let mut inputs = Vec::new();
        for path in ["seeds", "found"].map(|part| self.corpus_path(part)) {
            let text = std::fs::read_to_string(&path)?;
            let lines: Option<Vec<Vec<u8>>> = text.lines().map(from_hex).collect();
            let broken = || std::io::Error::other(format!("{} is not hexadecimal", path.display()));
            inputs.append(&mut lines.ok_or_else(broken)?);
        }
        Ok(inputs)
    }
}

/// The bytes of a line.
pub fn from_hex(line: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let pairs = line.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(high)? * 16 + digit(low)?) as u8),
            _ => None,
        })
        .collect()
}

/// The line of these bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many mutations of the inputs, the same for the same seed.
pub fn mutations(inputs: &[Vec<u8>], seed: u64, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random(seed | 1);
    (0..count).map(move |_| {
        let mut bytes = random.choose(inputs).cloned().unwrap_or_default();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, inputs, &mut random);
        }
        bytes
    })
}

fn mutate(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Random) {
    const EDGES: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xffff, u32::MAX as u64, u64::MAX];
    let at = random.below(bytes.len() + 1);
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random.next() as u8),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        3 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        4 => {
            let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
            let field = 1 << random.below(4);
            let end = bytes.len().min(at + field);
            bytes[at..end].copy_from_slice(&edge[..end - at]);
        }
        5 => {
            let other = random.choose(inputs).cloned().unwrap_or_default();
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = at + random.below(bytes.len() - at + 1);
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

/// Numbers that look random and are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len().max(1)))
    }
}
