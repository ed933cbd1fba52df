//! What the records hold: bytes that no method makes smaller, or lines of words.
//!
//! All of it comes from a seed and is made once; a record's value is a slice of it. The pool is larger than what a
//! method could remember of the batch before, so repetition does not help it.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// How much is made, bytes: several of the largest batches.
const POOL_BYTES: usize = 8 * 1024 * 1024;
/// The seed, so that each run sends the same.
const SEED: u64 = 1;

/// The words of the lines.
const WORDS: [&str; 16] = [
    "accepted",
    "balance",
    "customer",
    "delivered",
    "error",
    "from",
    "gateway",
    "held",
    "invoice",
    "level=info",
    "order",
    "payment",
    "received",
    "status=200",
    "to",
    "warehouse",
];

/// What records hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Kind {
    /// Random bytes: nothing compresses them.
    #[default]
    Random,
    /// Lines of words and numbers, which compress as logs do.
    Text,
}

/// Values of records, one after the other.
#[derive(Debug)]
pub(super) struct Payload {
    pool: Bytes,
    record_bytes: usize,
}

impl Payload {
    pub(super) fn new(kind: Kind, record_bytes: usize) -> Self {
        let mut random = StdRng::seed_from_u64(SEED);
        let pool = match kind {
            Kind::Random => random_bytes(&mut random),
            Kind::Text => text(&mut random),
        };
        Self { pool, record_bytes }
    }

    /// The value of the record of that number.
    pub(super) fn value(&self, number: u64) -> Bytes {
        let places = (self.pool.len() - self.record_bytes) as u64 + 1;
        let place = (number.wrapping_mul(self.record_bytes as u64) % places) as usize;
        self.pool.slice(place..place + self.record_bytes)
    }
}

fn random_bytes(random: &mut StdRng) -> Bytes {
    let mut pool = vec![0; POOL_BYTES];
    random.fill_bytes(&mut pool);
    pool.into()
}

fn text(random: &mut StdRng) -> Bytes {
    let mut pool = Vec::with_capacity(POOL_BYTES);
    while pool.len() < POOL_BYTES {
        for _ in 0..8 {
            pool.extend_from_slice(WORDS[random.random_range(0..WORDS.len())].as_bytes());
            pool.push(b' ');
        }
        pool.extend_from_slice(format!("{}\n", random.random_range(0..1_000_000)).as_bytes());
    }
    pool.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::RECORD_BYTES_MAX;

    #[test]
    fn values_have_their_size_differ_and_come_again_in_the_next_run() {
        for kind in [Kind::Random, Kind::Text] {
            let (one, again) = (Payload::new(kind, 100), Payload::new(kind, 100));
            assert_eq!(one.value(7).len(), 100);
            assert_ne!(one.value(7), one.value(8));
            assert_eq!(one.value(7), again.value(7));
            assert_eq!(one.value(u64::MAX).len(), 100);
        }
        let largest = Payload::new(Kind::Random, RECORD_BYTES_MAX as usize);
        assert_eq!(largest.value(1_000_000).len(), RECORD_BYTES_MAX as usize);
        assert!(Payload::new(Kind::Random, 0).value(3).is_empty());
    }
}
