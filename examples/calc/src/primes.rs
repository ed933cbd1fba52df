//! Primes by their number: the first is 2.
//!
//! A segmented sieve of Eratosthenes over odd numbers. Time grows a little faster than the largest prime wanted; memory is one segment, and
//! the primes up to the square root of an upper bound. Multiples of the smallest primes are not struck out but copied from a pattern.
//!
//! The bound: for n ≥ 6, the n-th prime is below n (ln n + ln ln n) (J. B. Rosser and L. Schoenfeld, "Approximate formulas for some functions
//! of prime numbers", Illinois Journal of Mathematics 6, 1962, formula 3.13).

/// The largest number of a prime that is answered: that prime is 2,038,074,743, found within seconds, in less than half a megabyte.
pub const NUMBER_MAX: u32 = 100_000_000;

/// How many odd numbers a segment has, a byte each: as much as fits into the nearest cache of a core.
const SEGMENT: usize = 32 * 1024;
/// Odd primes whose multiples come from the pattern.
const PATTERN_PRIMES: [u64; 5] = [3, 5, 7, 11, 13];
/// After so many odd numbers the pattern repeats: the product of its primes.
const PATTERN: usize = 3 * 5 * 7 * 11 * 13;

/// The primes of these numbers, in the order of the numbers.
///
/// Numbers below 1 or over [`NUMBER_MAX`] have no answer: all is `None` then.
#[must_use]
pub fn nth(numbers: &[u32]) -> Option<Vec<u64>> {
    if !numbers.iter().all(|number| (1..=NUMBER_MAX).contains(number)) {
        return None;
    }
    let mut wanted: Vec<u32> = numbers.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let found = find(&wanted);
    let prime = |number: &u32| found.get(wanted.binary_search(number).ok()?).copied();
    numbers.iter().map(prime).collect()
}

/// Above the prime of that number.
fn bound(number: u32) -> u64 {
    if number < 6 {
        return 14;
    }
    let n = f64::from(number);
    // One more than the formula says outweighs the rounding.
    (n * (n.ln() + n.ln().ln())) as u64 + 1
}

/// The primes of these numbers, which rise.
fn find(wanted: &[u32]) -> Vec<u64> {
    let Some(last) = wanted.last() else {
        return Vec::new();
    };
    let mut found = Vec::with_capacity(wanted.len());
    let mut missing = wanted.iter().copied().peekable();
    if missing.next_if_eq(&1).is_some() {
        found.push(2);
    }
    let mut sieve = Sieve::up_to(bound(*last));
    // How many primes are below the segment; 2 is.
    let mut below = 1;
    while missing.peek().is_some() {
        sieve.next_segment();
        let here = sieve.count();
        let mut seen = below;
        below += here;
        let mut places = sieve.places();
        while let Some(number) = missing.next_if(|number| *number <= below) {
            // `seen` is below the number, which is at most `below`: the place is there.
            let Some(place) = places.nth((number - seen - 1) as usize) else {
                return found;
            };
            seen = number;
            found.push(sieve.number(place));
        }
    }
    found
}

/// Segment after segment of odd numbers.
struct Sieve {
    /// By place, whether the number is prime. Place 0 is `first`.
    segment: Vec<u8>,
    /// The first number of the segment, odd.
    first: u64,
    /// Odd primes behind those of the pattern, with the place of their next multiple, counted from the segment's first.
    strikers: Vec<(usize, usize)>,
    /// Twice the pattern and a segment's length: it is copied from any place on.
    pattern: Vec<u8>,
    is_begun: bool,
}

impl Sieve {
    /// For numbers below the bound, and no others.
    fn up_to(bound: u64) -> Self {
        let last = PATTERN_PRIMES[PATTERN_PRIMES.len() - 1];
        let roots = small_primes(bound.isqrt() + 1)
            .into_iter()
            .filter(|prime| *prime > last);
        // Multiples below the square have a smaller factor.
        let striker = |prime: u64| (prime as usize, (prime * prime / 2) as usize);
        Self {
            segment: vec![0; SEGMENT],
            first: 1,
            strikers: roots.map(striker).collect(),
            pattern: pattern(),
            is_begun: false,
        }
    }

    fn number(&self, place: usize) -> u64 {
        self.first + 2 * place as u64
    }

    fn count(&self) -> u32 {
        // In chunks that a byte can count, which the compiler does many of at a time.
        let chunks = self.segment.chunks(128);
        chunks.map(|chunk| u32::from(chunk.iter().sum::<u8>())).sum()
    }

    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let places = self.segment.iter().enumerate();
        places.filter_map(|(place, is_prime)| (*is_prime == 1).then_some(place))
    }

    fn next_segment(&mut self) {
        if self.is_begun {
            self.first += 2 * SEGMENT as u64;
        }
        let phase = (self.first / 2) as usize % PATTERN;
        self.segment.copy_from_slice(&self.pattern[phase..phase + SEGMENT]);
        if !self.is_begun {
            self.is_begun = true;
            self.segment[0] = 0; // 1 is no prime
            PATTERN_PRIMES
                .iter()
                .for_each(|prime| self.segment[(prime / 2) as usize] = 1);
        }
        for (prime, next) in &mut self.strikers {
            let mut place = *next;
            while let Some(is_prime) = self.segment.get_mut(place) {
                *is_prime = 0;
                place += *prime;
            }
            *next = place - SEGMENT;
        }
    }
}

/// What the primes of the pattern leave of odd numbers, from 1 on.
fn pattern() -> Vec<u8> {
    let is_left = |place: usize| {
        let number = 2 * place as u64 + 1;
        u8::from(PATTERN_PRIMES.iter().all(|prime| !number.is_multiple_of(*prime)))
    };
    let once: Vec<u8> = (0..PATTERN).map(is_left).collect();
    once.into_iter().cycle().take(PATTERN + SEGMENT).collect()
}

/// All primes up to `last`, which is small.
fn small_primes(last: u64) -> Vec<u64> {
    let mut is_prime = vec![true; last as usize + 1];
    let mut primes = Vec::new();
    for number in 2..=last as usize {
        if is_prime[number] {
            primes.push(number as u64);
            (number * number..=last as usize)
                .step_by(number)
                .for_each(|multiple| is_prime[multiple] = false);
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// By trial division: shares nothing with the sieve.
    fn naive(count: usize) -> Vec<u64> {
        let mut primes: Vec<u64> = Vec::new();
        let mut number = 2;
        while primes.len() < count {
            let divisors = primes.iter().take_while(|prime| *prime * *prime <= number);
            if divisors.into_iter().all(|prime| number % prime != 0) {
                primes.push(number);
            }
            number += 1;
        }
        primes
    }

    /// More than one segment long, and all numbers at once.
    #[test]
    fn it_finds_what_trial_division_finds() {
        let primes = naive(50_000);
        assert!(primes.last().unwrap() > &(4 * SEGMENT as u64));
        let numbers: Vec<u32> = (1..=50_000).collect();
        assert_eq!(nth(&numbers).unwrap(), primes);
    }

    /// Each alone, so that each bound is tried.
    #[test]
    fn each_number_is_found_by_itself() {
        let primes = naive(3_000);
        for (number, prime) in (1..).zip(primes) {
            assert_eq!(nth(&[number]).unwrap(), [prime], "{number}");
        }
    }

    #[test]
    fn known_primes_are_found() {
        let known = [
            (1, 2),
            (2, 3),
            (12, 37),
            (1_000_000, 15_485_863),
            (10_000_000, 179_424_673),
        ];
        for (number, prime) in known {
            assert_eq!(nth(&[number]).unwrap(), [prime], "{number}");
        }
    }

    #[test]
    fn numbers_may_come_in_any_order_and_twice() {
        assert_eq!(nth(&[12, 2, 12, 1]).unwrap(), [37, 3, 37, 2]);
        assert!(nth(&[]).unwrap().is_empty());
    }

    #[test]
    fn no_prime_has_number_0_or_one_over_the_limit() {
        assert_eq!(nth(&[1, 0]), None);
        assert_eq!(nth(&[NUMBER_MAX + 1]), None);
    }

    #[test]
    fn the_bound_is_above_the_prime() {
        for (number, prime) in (1..).zip(naive(3_000)) {
            assert!(bound(number) > prime, "{number}");
        }
        for (number, prime) in [(10_000_000, 179_424_673), (NUMBER_MAX, 2_038_074_743)] {
            assert!(bound(number) > prime, "{number}");
        }
    }
}
