//! PURE: how long to wait between attempts. Randomness is passed in.

use std::time::Duration;

/// Delays that grow by half from `initial` to `cap`, each drawn from its upper half.
///
/// The random part keeps waiters that started together from asking in step forever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Backoff {
    initial: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, cap: Duration) -> Self {
        let initial = initial.min(cap);
        Self {
            initial,
            cap,
            next: initial,
        }
    }

    /// The next delay. `random`: any number; all 64 bits are used.
    pub(crate) fn delay(&mut self, random: u64) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_add(whole / 2).min(self.cap);
        let half = whole / 2;
        half + share(whole - half, random)
    }

    /// The next delay, no shorter than the one the service asked for, if it did.
    pub(crate) fn delay_at_least(&mut self, random: u64, asked: Option<Duration>) -> Duration {
        let delay = self.delay(random);
        match asked {
            // Spread this delay too: the service asks all its clients for the same one.
            Some(asked) => delay.max(asked.saturating_add(share(asked / 8, random))),
            None => delay,
        }
    }
}

/// A share of `whole`: from none to all of it, as `random` goes from zero to its maximum.
pub(crate) fn share(whole: Duration, random: u64) -> Duration {
    let parts = u128::from(u32::MAX);
    let nanos = whole.as_nanos() / parts * u128::from(random >> 32)
        + whole.as_nanos() % parts * u128::from(random >> 32) / parts;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_grow_from_initial_to_cap() {
        let mut backoff = Backoff::new(50 * MS, 1000 * MS);
        let longest: Vec<_> = (0..12)
            .map(|_| backoff.delay(u64::MAX).as_millis())
            .collect();
        assert_eq!(
            longest,
            [50, 75, 112, 168, 253, 379, 569, 854, 1000, 1000, 1000, 1000]
        );
    }

    #[test]
    fn delay_is_never_less_than_half() {
        let mut backoff = Backoff::new(100 * MS, 100 * MS);
        assert_eq!(backoff.delay(0), 50 * MS);
        assert_eq!(backoff.delay(u64::MAX), 100 * MS);
        let middle = backoff.delay(u64::MAX / 2);
        assert!(middle > 70 * MS && middle < 80 * MS, "{middle:?}");
    }

    #[test]
    fn delay_honours_what_the_service_asked_for() {
        let mut backoff = Backoff::new(50 * MS, 1000 * MS);
        assert!(backoff.delay_at_least(0, Some(7000 * MS)) >= 7000 * MS);
        assert!(backoff.delay_at_least(0, Some(Duration::ZERO)) >= 37 * MS);
    }

    #[test]
    fn huge_values_do_not_panic() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        let _ = backoff.delay(u64::MAX);
    }
}
