//! PURE: random numbers, good enough to spread clients out and for nothing else.

/// A SplitMix64 generator.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number; all 64 bits vary.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_spread_whatever_the_seed() {
        for seed in [0, 1, u64::MAX] {
            let mut jitter = Jitter::new(seed);
            let high = (0..1000).filter(|_| jitter.next() > u64::MAX / 2).count();
            assert!((400..600).contains(&high), "{high} of 1000");
        }
        assert_ne!(Jitter::new(1).next(), Jitter::new(2).next());
    }
}
