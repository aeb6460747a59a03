//! A clock that tests advance.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, MutexGuard};
use crate::time::tick::Tick;

/// How long [`Clock::advance`] waits while none of the threads finishes its work.
const LIMIT: Duration = Duration::from_millis(250);
/// How long it waits if all of them were already busy.
const LIMIT_BUSY: Duration = Duration::from_millis(100);
/// How often it checks them.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

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
    /// The threads that use it. Never held while waiting for another lock.
    threads: Mutex<HashMap<ThreadId, ClockThread>>,
}

/// A thread that uses the clock.
struct ClockThread {
    /// Whether it called [`Clock::enter`], so that it is listed even while it does not wait.
    entered: bool,
    waiting: Option<Waiting>,
}

struct Waiting {
    until: Tick,
    changed: Arc<Condvar>,
}

impl ClockThread {
    /// Whether the clock has to assume that it has something to do at `now`.
    fn is_due(&self, now: Tick) -> bool {
        let waiting = self.waiting.as_ref();
        waiting.is_none_or(|waiting| waiting.until <= now)
    }
}

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
            threads: Mutex::default(),
        }))
    }

    /// Moves the clock forward, and returns once the guards that use it have acted on the new time:
    /// every renewal that is due has been sent and answered, and observers have been called.
    ///
    /// It gives up on a guard whose request is not answered or whose observer does not return: a
    /// quarter of a second after the last of the others is done, or a tenth if that guard was
    /// already busy. It does not wait for anything timed by real time, such as the pause before a
    /// retry or the polling of a waiting `lock`, nor for clients in other processes. An observer
    /// may call it; it then does not wait for the guard being observed.
    pub fn advance(&self, by: Duration) {
        let busy = self.threads(|thread| thread.waiting.is_none());
        let add = |advanced: u64| Some(advanced.saturating_add(nanos(by)));
        let _ = self
            .0
            .advanced
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        let mut since = Instant::now();
        let mut left = 0;
        loop {
            let now = self.now();
            let due = self.threads(|thread| thread.is_due(now));
            let limit = if due.keys().all(|id| busy.contains_key(id)) {
                LIMIT_BUSY
            } else {
                LIMIT
            };
            if due.len() != left {
                left = due.len();
                since = Instant::now();
            }
            if left == 0 || since.elapsed() >= limit {
                return;
            }
            // A thread that is just about to wait misses this, and is woken in the next round.
            for changed in due.values().flatten() {
                changed.notify_all();
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The matching threads, except the calling one, and what they wait on.
    fn threads(
        &self,
        wanted: impl Fn(&ClockThread) -> bool,
    ) -> HashMap<ThreadId, Option<Arc<Condvar>>> {
        let threads = self.0.threads.lock();
        if threads.is_empty() {
            return HashMap::new();
        }
        let this = thread::current().id();
        let wanted = threads
            .iter()
            .filter(|(id, thread)| **id != this && wanted(thread));
        wanted
            .map(|(id, thread)| {
                let waiting = thread.waiting.as_ref();
                (*id, waiting.map(|waiting| Arc::clone(&waiting.changed)))
            })
            .collect()
    }

    /// How much time has passed on this clock since it was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let advanced = Duration::from_nanos(self.0.advanced.load(Ordering::SeqCst));
        advanced + self.0.real.elapsed() * self.0.rate
    }

    /// Tells this clock from others that exist now.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn now(&self) -> Tick {
        // Not from zero, so that a test can look at times before the clock was made.
        Tick::default() + Duration::from_secs(1_000_000) + self.elapsed()
    }

    pub(crate) fn wall(&self) -> OffsetDateTime {
        self.0.wall + self.elapsed()
    }

    /// Waits until `changed` is notified, for at most `real`, or until the clock shows `until`.
    pub(crate) fn wait<T>(
        &self,
        changed: &Arc<Condvar>,
        guard: &mut MutexGuard<'_, T>,
        until: Tick,
        real: Duration,
    ) {
        let this = thread::current().id();
        let waiting = Waiting {
            until,
            changed: Arc::clone(changed),
        };
        let not_entered = ClockThread {
            entered: false,
            waiting: None,
        };
        let mut threads = self.0.threads.lock();
        threads.entry(this).or_insert(not_entered).waiting = Some(waiting);
        drop(threads);
        changed.wait_for(guard, self.real_time_to(until).min(real));
        let mut threads = self.0.threads.lock();
        match threads.get_mut(&this) {
            Some(thread) if thread.entered => thread.waiting = None,
            _ => drop(threads.remove(&this)),
        }
    }

    /// How much real time it takes until the clock shows `until`, unless it is advanced.
    fn real_time_to(&self, until: Tick) -> Duration {
        let left = until.since(self.now());
        match self.0.rate {
            _ if left.is_zero() => left,
            0 => Duration::MAX,
            rate => left / rate,
        }
    }

    /// Makes [`advance`](Self::advance) wait for the calling thread even while that does not wait.
    pub(crate) fn enter(&self) {
        let acting = ClockThread {
            entered: true,
            waiting: None,
        };
        let this = thread::current().id();
        self.0.threads.lock().insert(this, acting);
    }

    /// The calling thread has nothing left to do by this clock.
    pub(crate) fn leave(&self) {
        let this = thread::current().id();
        self.0.threads.lock().remove(&this);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::sync;
    use crate::time::clock;
    use crate::time::tick::Moment;

    const SECOND: Duration = Duration::from_secs(1);

    /// A thread that acts every ten seconds, and ends after `times`.
    struct Actor {
        thread: JoinHandle<()>,
        acted: Receiver<Tick>,
    }

    impl Actor {
        fn start(clock: &Clock, times: u32, act: impl Fn() + Send + 'static) -> Self {
            let (started, is_started) = mpsc::channel();
            let (tell, acted): (Sender<Tick>, _) = mpsc::channel();
            let clock = clock::Clock::Test(clock.clone());
            let thread = thread::spawn(move || {
                let (state, changed) = (sync::Mutex::new(()), Arc::new(Condvar::new()));
                let _presence = clock.enter();
                let mut due = clock.now() + 10 * SECOND;
                started.send(()).unwrap();
                let mut state = state.lock();
                for _ in 0..times {
                    while clock.now() < due {
                        let until = Moment {
                            lease: due,
                            real: Tick::NEVER,
                        };
                        clock.wait(&changed, &mut state, until);
                    }
                    act();
                    tell.send(clock.now()).unwrap();
                    due = due + 10 * SECOND;
                }
            });
            is_started.recv().unwrap();
            Self { thread, acted }
        }

        fn acted(&self) -> usize {
            self.acted.try_iter().count()
        }
    }

    #[test]
    fn advance_returns_when_what_it_caused_is_done() {
        for _ in 0..200 {
            let clock = Clock::frozen();
            let slow = || thread::sleep(Duration::from_millis(2));
            let actors = [(); 3].map(|()| Actor::start(&clock, 3, slow));
            clock.advance(9 * SECOND);
            assert_eq!(actors.each_ref().map(Actor::acted), [0; 3]);
            clock.advance(SECOND);
            assert_eq!(actors.each_ref().map(Actor::acted), [1; 3]);
            clock.advance(20 * SECOND);
            assert_eq!(actors.each_ref().map(Actor::acted), [2; 3]);
            for actor in actors {
                actor.thread.join().unwrap();
            }
            assert!(clock.0.threads.lock().is_empty());
        }
    }

    #[test]
    fn advance_does_not_wait_for_itself() {
        let clock = Clock::frozen();
        let (tell, took) = mpsc::channel();
        let actor = Actor::start(&clock, 1, {
            let clock = clock.clone();
            move || {
                let started = Instant::now();
                clock.advance(SECOND);
                tell.send(started.elapsed()).unwrap();
            }
        });
        clock.advance(10 * SECOND);
        assert_eq!(actor.acted(), 1);
        assert_eq!(clock.elapsed(), 11 * SECOND);
        let took = took.recv().unwrap();
        assert!(took < LIMIT_BUSY, "{took:?}");
    }

    #[test]
    fn advance_gives_up_on_a_thread_that_hangs() {
        let clock = Clock::frozen();
        let (release, held) = mpsc::channel::<()>();
        let held = sync::Mutex::new(held);
        let actor = Actor::start(&clock, 1, move || {
            let _ = held.lock().recv(); // Until `release` is dropped.
        });
        let advance = |by| {
            let started = Instant::now();
            clock.advance(by);
            started.elapsed()
        };
        advance(9 * SECOND); // It waits now.
        let waited = advance(SECOND);
        assert!(waited >= LIMIT, "{waited:?}");
        let waited = advance(10 * SECOND);
        assert!(waited >= LIMIT_BUSY, "it was busy already: {waited:?}");
        assert_eq!(actor.acted(), 0);
        drop(release);
        assert!(actor.acted.recv().is_ok());
    }

    #[test]
    fn thread_wakes_on_a_running_clock_without_advance() {
        let clock = Clock::with_rate(1000);
        let actor = Actor::start(&clock, 2, || {});
        let next = || actor.acted.recv_timeout(60 * SECOND).unwrap();
        assert!(next() < next());
    }

    #[test]
    fn time_that_is_advanced_saturates() {
        let clock = Clock::frozen();
        clock.advance(Duration::MAX);
        clock.advance(SECOND);
        assert_eq!(clock.elapsed(), Duration::from_nanos(u64::MAX));
    }
}
