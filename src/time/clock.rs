//! The only reader of clocks.
//!
//! Deadlines are counted on a clock that never goes back and that counts time spent in suspend:
//! `std::time::Instant` stops in suspend on Linux and macOS (rust-lang/rust#87906), so a guard
//! built on it would believe in a lease that ended while the machine slept.

use std::time::Duration;

use time::OffsetDateTime;

#[cfg(feature = "emulator")]
use crate::time::test_clock;
use crate::time::tick::Tick;

/// Where the library reads the time: the system, or a clock that a test steps.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "emulator")]
    Test(test_clock::Clock),
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
            Self::System => LONGEST_SLEEP,
            #[cfg(feature = "emulator")]
            Self::Test(_) => Duration::from_millis(1),
        }
    }

    /// How long a thread that can be woken may sleep in one go while it waits for `until`.
    pub(crate) fn sleep_until(&self, until: Tick) -> Duration {
        match self {
            Self::System => until.since(self.now()).min(LONGEST_SLEEP),
            #[cfg(feature = "emulator")]
            Self::Test(clock) => clock.real_time_to(until),
        }
    }
}

/// Condition variables sleep on a clock that stops in suspend: how soon a thread notices that the
/// machine was suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(2);

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
