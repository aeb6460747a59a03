//! PURE: points in time.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time on a [`Clock`](crate::time::clock::Clock), counted from an arbitrary start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Tick(Duration);

impl Tick {
    /// Later than every instant that a clock can show.
    pub(crate) const NEVER: Self = Self(Duration::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        if nanos == u64::MAX {
            Self::NEVER
        } else {
            Self(Duration::from_nanos(nanos))
        }
    }

    /// Nanoseconds since the clock's start; `u64::MAX` for [`Tick::NEVER`].
    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time since `earlier`; zero if `earlier` is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Tick {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// The same instant on both of the library's clocks. They differ only in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Moment {
    /// On the clock that measures leases, which a test can advance.
    pub(crate) lease: Tick,
    /// On the system's clock, which limits waits for the network.
    pub(crate) real: Tick,
}

impl Moment {
    /// Later than every instant that the clocks can show.
    pub(crate) const NEVER: Self = Self {
        lease: Tick::NEVER,
        real: Tick::NEVER,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_saturate_instead_of_wrapping() {
        assert_eq!(Tick::NEVER + Duration::from_secs(1), Tick::NEVER);
        assert_eq!(Tick::default() - Duration::from_secs(1), Tick::default());
        assert_eq!(Tick::default().since(Tick::NEVER), Duration::ZERO);
        assert_eq!(Tick::from_nanos(Tick::NEVER.as_nanos()), Tick::NEVER);
    }
}
