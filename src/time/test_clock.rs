//! A clock that tests advance.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::sync::{Condvar, thread};
use crate::time::tick::Tick;

/// How long [`Clock::advance`] waits for threads that it woke.
const LIMIT: Duration = Duration::from_secs(2);
/// How long it waits if all of them were at work before.
const LIMIT_AT_WORK: Duration = Duration::from_millis(100);
/// How often it looks at them.
const LOOK: Duration = Duration::from_micros(200);

/// A clock that a test can advance, shared by an [`Emulator`](crate::emulator::Emulator) and its
/// clients.
///
/// Clones show the same time. With it, a test can let a lease of 60 seconds expire without waiting
/// for a minute.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use azmutex::emulator::Clock;
///
/// let clock = Clock::frozen();
/// let same_clock = clock.clone();
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(same_clock.elapsed(), Duration::from_secs(90));
/// ```
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    real: Instant,
    wall: OffsetDateTime,
    rate: u32,
    /// Nanoseconds.
    advanced: AtomicU64,
    sleepers: Mutex<Vec<Arc<Entry>>>,
}

/// A thread that waits by the clock, now and then.
pub(crate) struct Entry {
    thread: thread::ThreadId,
    /// What it waits on.
    changed: Arc<Condvar>,
    /// Nanoseconds of the tick that it waits for; [`AWAKE`] while it does not wait.
    until: AtomicU64,
}

const AWAKE: u64 = 0;

impl Clock {
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
    /// Two clocks with different rates show what clock drift does to a lease.
    #[must_use]
    pub fn with_rate(rate: u32) -> Self {
        Self(Arc::new(Inner {
            real: Instant::now(),
            wall: OffsetDateTime::now_utc(),
            rate,
            advanced: AtomicU64::new(0),
            sleepers: Mutex::default(),
        }))
    }

    /// Moves the clock forward, and returns once the guards that go by it have acted on the new
    /// time: every renewal that is due has been sent and answered, and observers have been called.
    ///
    /// Waits for at most 2 seconds of real time, so a service that does not answer or an observer
    /// that does not return cannot hold it up for longer. A guard that was waiting for an answer
    /// already when this was called is given a tenth of a second. Does not wait for what is timed by
    /// real time, such as the pause before a failed request is sent again or the polling of a
    /// waiting `lock`, nor for clients in other processes. An observer may call it; then it does not
    /// wait for the guard that is being observed.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        let at_work = self.sleepers(|until| until == AWAKE);
        let add = |advanced: u64| Some(advanced.saturating_add(by));
        let _ = self
            .0
            .advanced
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        let started = Instant::now();
        loop {
            let now = self.now().as_nanos();
            // Also those that are awake: they may be about to wait for a tick that has come.
            let late = self.sleepers(|until| until <= now);
            let was_at_work = |entry| at_work.iter().any(|other| Arc::ptr_eq(other, entry));
            let limit = if late.iter().all(was_at_work) {
                LIMIT_AT_WORK
            } else {
                LIMIT
            };
            if late.is_empty() || started.elapsed() >= limit {
                return;
            }
            // A thread that is about to wait misses this, and is woken the next time.
            for entry in &late {
                entry.changed.notify_all();
            }
            thread::sleep(LOOK);
        }
    }

    /// The other threads that wait for such a tick.
    fn sleepers(&self, waits_for: impl Fn(u64) -> bool) -> Vec<Arc<Entry>> {
        let sleepers = self.0.sleepers.lock();
        if sleepers.is_empty() {
            return Vec::new();
        }
        let this = thread::current().id();
        let is_wanted = |entry: &&Arc<Entry>| {
            entry.thread != this && waits_for(entry.until.load(Ordering::SeqCst))
        };
        sleepers.iter().filter(is_wanted).cloned().collect()
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

    /// How much real time it takes until the clock shows `until`, unless it is advanced.
    pub(crate) fn real_time_to(&self, until: Tick) -> Duration {
        let left = until.since(self.now());
        match self.0.rate {
            _ if left.is_zero() => left,
            0 => Duration::MAX,
            rate => left / rate,
        }
    }

    /// Adds the calling thread to those that [`advance`](Self::advance) waits for.
    pub(crate) fn enter(&self, changed: &Arc<Condvar>) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            thread: thread::current().id(),
            changed: Arc::clone(changed),
            until: AtomicU64::new(AWAKE),
        });
        self.0.sleepers.lock().push(Arc::clone(&entry));
        entry
    }

    pub(crate) fn leave(&self, entry: &Arc<Entry>) {
        let mut sleepers = self.0.sleepers.lock();
        sleepers.retain(|other| !Arc::ptr_eq(other, entry));
    }
}

impl Entry {
    pub(crate) fn waits_for(&self, until: Tick) {
        self.until.store(until.as_nanos(), Ordering::SeqCst);
    }

    pub(crate) fn is_awake(&self) {
        self.until.store(AWAKE, Ordering::SeqCst);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("elapsed", &self.elapsed())
            .field("rate", &self.0.rate)
            .finish_non_exhaustive()
    }
}
