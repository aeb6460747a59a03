//! PURE: how long to wait between attempts. Randomness is passed in.

use std::time::Duration;

/// How many times longer than usual an overloaded service makes a waiter's interval at most.
const LONGEST_INTERVAL: u32 = 512;

/// The pace of a waiter: the same interval each time, with a brake.
///
/// The interval doubles whenever the service is overloaded, and shrinks by a twentieth with every
/// other answer. So it stays long for as long as there are too many waiters for the service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pace {
    usual: Duration,
    interval: Duration,
}

impl Pace {
    /// `usual`: the mean interval while the service is not overloaded.
    pub(crate) fn new(usual: Duration) -> Self {
        Self {
            usual,
            interval: usual,
        }
    }

    /// The service answered that it is overloaded. `longest`: the interval does not grow past that.
    pub(crate) fn overloaded(&mut self, longest: Duration) {
        let longest = longest.min(self.usual.saturating_mul(LONGEST_INTERVAL));
        let doubled = self.interval.saturating_mul(2).min(longest);
        self.interval = self.interval.max(doubled);
    }

    /// The service answered anything else.
    pub(crate) fn answered(&mut self) {
        self.interval = (self.interval - self.interval / 20).max(self.usual);
    }

    /// The next delay: the interval, up to 15 % less or more. With the brake on it is up to a third,
    /// so that those who were refused together fill the time in which they ask again.
    ///
    /// `random`: any number; all 64 bits are used.
    pub(crate) fn delay(&self, random: u64) -> Duration {
        let whole = self.interval;
        let part = if whole > self.usual {
            whole / 3
        } else {
            whole / 20 * 3
        };
        (whole - part).saturating_add(share(part.saturating_mul(2), random))
    }

    /// `duration`, as many times longer as the interval is now.
    pub(crate) fn stretched(&self, duration: Duration) -> Duration {
        let times = self.interval.as_nanos() / self.usual.as_nanos().max(1);
        duration.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX).max(1))
    }
}

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
    fn waiter_keeps_its_pace_while_the_service_is_not_overloaded() {
        let mut pace = Pace::new(1000 * MS);
        for _ in 0..10 {
            assert_eq!(pace.delay(0), 850 * MS);
            let longest = pace.delay(u64::MAX);
            assert_eq!(longest, 1150 * MS);
            pace.answered();
        }
        let middle = pace.delay(u64::MAX / 2);
        assert!(middle > 999 * MS && middle < 1001 * MS, "{middle:?}");
    }

    #[test]
    fn overload_slows_a_waiter_down_and_each_answer_speeds_it_up_a_little() {
        let mut pace = Pace::new(1000 * MS);
        pace.overloaded(Duration::MAX);
        pace.overloaded(Duration::MAX);
        assert_eq!(pace.delay(u64::MAX / 2).as_millis(), 3999);
        assert_eq!(pace.delay(0).as_millis(), 2666);
        assert_eq!(pace.stretched(10_000 * MS), 40_000 * MS);
        pace.answered();
        assert_eq!(pace.delay(u64::MAX / 2).as_millis(), 3799);
        for _ in 0..30 {
            pace.answered();
        }
        assert_eq!(pace.delay(0), 850 * MS);
        for _ in 0..30 {
            pace.overloaded(Duration::MAX);
        }
        assert_eq!(pace.delay(u64::MAX / 2).as_secs(), 511);
    }

    #[test]
    fn brake_ends_where_it_is_told_to() {
        let mut pace = Pace::new(1000 * MS);
        for _ in 0..5 {
            pace.overloaded(3000 * MS);
        }
        assert_eq!(pace.delay(0), 2000 * MS);
        pace.overloaded(500 * MS);
        assert_eq!(pace.delay(0), 2000 * MS, "it does not speed up");
    }

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
        for usual in [Duration::ZERO, Duration::MAX] {
            let mut pace = Pace::new(usual);
            pace.overloaded(Duration::MAX);
            pace.answered();
            let _ = (pace.delay(u64::MAX), pace.stretched(usual));
        }
    }
}
