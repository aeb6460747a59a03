//! The only reader of clocks.
//!
//! Deadlines are measured on a clock that never goes back and includes time spent in suspend.
//! `std::time::Instant` stops in suspend on Linux and macOS (rust-lang/rust#87906), so a guard
//! built on it would still claim a lease that ended while the machine slept.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::sync::{Condvar, MutexGuard};
#[cfg(feature = "emulator")]
use crate::time::test_clock;
use crate::time::tick::{Moment, Tick};

/// Where the library reads the time: the system's clock, or one that a test advances.
#[derive(Debug, Clone, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(feature = "emulator")]
    Test(test_clock::Clock),
}

impl Clock {
    /// Tells this clock from others that exist now.
    pub(crate) fn id(&self) -> usize {
        match self {
            Self::System => 0,
            #[cfg(feature = "emulator")]
            Self::Test(clock) => clock.id(),
        }
    }

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

    /// The wall-clock time, for values sent to the service. Never for deadlines.
    pub(crate) fn wall(&self) -> OffsetDateTime {
        match self {
            Self::System => OffsetDateTime::now_utc(),
            #[cfg(feature = "emulator")]
            Self::Test(clock) => clock.wall(),
        }
    }

    /// Waits until `changed` is notified, or one of the two clocks shows `until`. May end early.
    pub(crate) fn wait<T>(
        &self,
        changed: &Arc<Condvar>,
        guard: &mut MutexGuard<'_, T>,
        until: Moment,
    ) {
        let now = self.moment();
        let real = until.real.since(now.real);
        match self {
            Self::System => {
                let left = until.lease.since(now.lease).min(real);
                changed.wait_for(guard, left.min(LONGEST_SLEEP));
            }
            #[cfg(feature = "emulator")]
            Self::Test(clock) => clock.wait(changed, guard, until.lease, real),
        }
    }

    /// While the returned value exists, advancing a test clock waits until the calling thread has
    /// acted on the new time.
    pub(crate) fn enter(&self) -> Presence {
        Presence {
            #[cfg(feature = "emulator")]
            clock: match self {
                Self::System => None,
                Self::Test(clock) => {
                    clock.enter();
                    Some(clock.clone())
                }
            },
        }
    }
}

/// The longest single sleep. Condition variables use a clock that stops in suspend, so this is how
/// soon a thread notices that the machine was suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Keeps a thread registered with a test clock. See [`Clock::enter`].
#[must_use = "the thread is registered until this is dropped"]
pub(crate) struct Presence {
    #[cfg(feature = "emulator")]
    clock: Option<test_clock::Clock>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        #[cfg(feature = "emulator")]
        if let Some(clock) = &self.clock {
            clock.leave();
        }
    }
}

/// Linux: `CLOCK_BOOTTIME`. Apple: `CLOCK_MONOTONIC`, which on Apple's systems includes sleep.
/// Other Unixes: the monotonic clock, the best they have in common.
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

/// Windows: `Instant` is the performance counter, which includes suspend.
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

    #[test]
    fn thread_that_waits_looks_at_the_clock_now_and_then_although_nobody_wakes_it() {
        use std::sync::mpsc;
        use std::thread;

        use crate::sync::Mutex;

        let (looked, is_up) = mpsc::channel();
        thread::spawn(move || {
            let (changed, lock) = (Arc::new(Condvar::new()), Mutex::new(()));
            let mut guard = lock.lock();
            // As before a renewal that becomes due while the machine is suspended.
            Clock::System.wait(&changed, &mut guard, Moment::NEVER);
            looked.send(())
        });
        let soon = LONGEST_SLEEP + Duration::from_secs(5);
        is_up.recv_timeout(soon).expect("it looks up");
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
