//! Streams of random numbers, one for each purpose, all from one seed.
//!
//! Each purpose has its own stream, so that drawing more for one of them does not change the others. The oracle draws from
//! none: whether it looks must not change what happens.

/// A stream (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of one purpose.
    pub(crate) fn stream(seed: u64, purpose: &str, number: u64) -> Random {
        let mut state = mix(seed ^ 0x5851_f42d_4c95_7f2d);
        for byte in purpose.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Random(mix(state ^ number))
    }

    /// A stream of its own for something that goes on beside.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.any())
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`; 0 for an `end` of 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.any() % end.max(1)
    }

    /// A number from `first` to `last`, both inclusive.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True so many times in a thousand.
    pub(crate) fn permille(&mut self, permille: u64) -> bool {
        self.below(1_000) < permille
    }

    /// A place in something of this length.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }
}

fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
