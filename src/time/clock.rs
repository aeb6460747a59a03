//! The only reader of clocks.
//!
//! Deadlines are counted on a clock that never goes back and that counts time spent in suspend:
//! `std::time::Instant` stops in suspend on Linux and macOS (rust-lang/rust#87906), so a guard
//! built on it would believe in a lease that ended while the machine slept.

use std::time::Duration;

use time::OffsetDateTime;

use crate::time::tick::{Moment, Tick};

/// Where the library reads the time: the system, or a clock that a test steps.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "emulator")]
    Test(TestClock),
}

impl Clock {
    /// The time now, for deadlines.
    pub(crate) fn now(&self) -> Tick {
        match self {
            Self::System => system_now(),
            #[cfg(feature = "emulator")]
            Self::Test(clock) => clock.now(),
        }
    }

    /// The time now, on both clocks.
    pub(crate) fn moment(&self) -> Moment {
        match self {
            Self::System => {
                let now = system_now();
                Moment {
                    lease: now,
                    real: now,
                }
            }
            #[cfg(feature = "emulator")]
            Self::Test(clock) => Moment {
                lease: clock.now(),
                real: system_now(),
            },
        }
    }

    /// The wall clock now, for what goes on the wire. Never for deadlines.
    pub(crate) fn wall(&self) -> OffsetDateTime {
        match self {
            Self::System => OffsetDateTime::now_utc(),
            #[cfg(feature = "emulator")]
            Self::Test(clock) => clock.wall(),
        }
    }

    /// The longest that a thread may sleep in one go while it waits for a [`Tick`].
    ///
    /// Condition variables sleep on a clock that stops in suspend, so a sleeper has to look up now
    /// and then to notice that the machine was away. A stepped clock is looked at more often.
    pub(crate) fn longest_sleep(&self) -> Duration {
        match self {
            Self::System => Duration::from_secs(2),
            #[cfg(feature = "emulator")]
            Self::Test(_) => Duration::from_millis(1),
        }
    }
}

/// Linux: `CLOCK_BOOTTIME`. Apple: `CLOCK_MONOTONIC`, which there is the time since boot, sleep
/// included. Other Unixes: the monotonic clock, the best that is common to them.
#[cfg(unix)]
fn system_now() -> Tick {
    use rustix::time::{ClockId, clock_gettime};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;

    let now = clock_gettime(CLOCK);
    let (secs, nanos) = (now.tv_sec as u64, now.tv_nsec as u32);
    Tick::default() + Duration::new(secs, nanos)
}

/// Windows: `Instant` is the performance counter, which counts suspend.
#[cfg(not(unix))]
fn system_now() -> Tick {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    Tick::default() + START.get_or_init(Instant::now).elapsed()
}

#[cfg(feature = "emulator")]
pub use test_clock::TestClock;

#[cfg(feature = "emulator")]
mod test_clock {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use time::OffsetDateTime;

    use crate::time::tick::Tick;

    /// A clock that a test can advance, shared by an [`Emulator`](crate::emulator::Emulator) and
    /// the clients that talk to it.
    ///
    /// Clones show the same time. With it a test can let a lease of 60 seconds expire without
    /// waiting for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use azmutex::emulator::Clock;
    ///
    /// let clock = Clock::frozen();
    /// let seen_by_another = clock.clone();
    /// clock.advance(Duration::from_secs(90));
    /// assert_eq!(seen_by_another.elapsed(), Duration::from_secs(90));
    /// ```
    #[derive(Debug, Clone)]
    pub struct TestClock(Arc<Inner>);

    #[derive(Debug)]
    struct Inner {
        real: Instant,
        wall: OffsetDateTime,
        rate: u32,
        advanced: AtomicU64,
    }

    impl TestClock {
        /// A clock that runs with real time, and can be advanced.
        #[must_use]
        pub fn new() -> Self {
            Self::with_rate(1)
        }

        /// A clock that stands still until it is advanced.
        #[must_use]
        pub fn frozen() -> Self {
            Self::with_rate(0)
        }

        /// A clock that runs `rate` times as fast as real time, and can be advanced.
        ///
        /// Two clocks with different rates show what drifting clocks do to a lease.
        #[must_use]
        pub fn with_rate(rate: u32) -> Self {
            Self(Arc::new(Inner {
                real: Instant::now(),
                wall: OffsetDateTime::now_utc(),
                rate,
                advanced: AtomicU64::new(0),
            }))
        }

        /// Moves the clock forward. Waiting threads notice within a few milliseconds.
        pub fn advance(&self, by: Duration) {
            let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            self.0.advanced.fetch_add(nanos, Ordering::SeqCst);
        }

        /// How much time has passed on this clock since it was made.
        #[must_use]
        pub fn elapsed(&self) -> Duration {
            let advanced = Duration::from_nanos(self.0.advanced.load(Ordering::SeqCst));
            advanced + self.0.real.elapsed() * self.0.rate
        }

        pub(crate) fn now(&self) -> Tick {
            // Not from zero, so that a test can look at times before the clock was made.
            Tick::default() + Duration::from_secs(1_000_000) + self.elapsed()
        }

        pub(crate) fn wall(&self) -> OffsetDateTime {
            self.0.wall + self.elapsed()
        }
    }

    impl Default for TestClock {
        fn default() -> Self {
            Self::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_does_not_go_back() {
        let first = Clock::System.now();
        assert!(Clock::System.now() >= first);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn system_clock_counts_suspend() {
        use rustix::time::{ClockId, clock_gettime};

        let before = clock_gettime(ClockId::Boottime).tv_sec as u64;
        let ours = Clock::System.now().as_nanos() / 1_000_000_000;
        let after = clock_gettime(ClockId::Boottime).tv_sec as u64;
        assert!((before..=after).contains(&ours));
    }
}
