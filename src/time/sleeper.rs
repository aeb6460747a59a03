//! How a thread waits by a clock.

use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, MutexGuard};
use crate::time::clock::Clock;
#[cfg(feature = "emulator")]
use crate::time::test_clock::Entry;
use crate::time::tick::Tick;

/// A thread that acts when its clock shows a certain time, for as long as it does.
///
/// Made by that thread before anybody may advance the clock, and dropped when it ends: who advances
/// a clock waits until its sleepers have acted.
pub(crate) struct Sleeper {
    clock: Clock,
    changed: Arc<Condvar>,
    #[cfg(feature = "emulator")]
    entry: Option<Arc<Entry>>,
}

impl Sleeper {
    /// For the calling thread, which waits on `changed`.
    pub(crate) fn new(clock: &Clock, changed: &Arc<Condvar>) -> Self {
        Self {
            clock: clock.clone(),
            changed: Arc::clone(changed),
            #[cfg(feature = "emulator")]
            entry: match clock {
                Clock::System => None,
                Clock::Test(clock) => Some(clock.enter(changed)),
            },
        }
    }

    /// Waits until `changed` is notified, for at most `delay` of real time, and no longer than until
    /// the clock shows `until`. May return early.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>, delay: Duration, until: Tick) {
        #[cfg(feature = "emulator")]
        if let Some(entry) = &self.entry {
            entry.waits_for(until);
        }
        let longest = self.clock.sleep_until(until).min(delay);
        if !longest.is_zero() {
            self.changed.wait_for(guard, longest);
        }
        #[cfg(feature = "emulator")]
        if let Some(entry) = &self.entry {
            entry.is_awake();
        }
    }
}

#[cfg(feature = "emulator")]
impl Drop for Sleeper {
    fn drop(&mut self) {
        if let (Clock::Test(clock), Some(entry)) = (&self.clock, &self.entry) {
            clock.leave(entry);
        }
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::thread::{self, JoinHandle};
    use std::time::Instant;

    use super::*;
    use crate::sync::Mutex;
    use crate::time::test_clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// A thread that acts every ten seconds, and ends after `times`.
    struct Acting {
        thread: JoinHandle<()>,
        acted: Receiver<Tick>,
    }

    impl Acting {
        fn start(clock: &test_clock::Clock, times: u32, act: impl Fn() + Send + 'static) -> Self {
            let (started, is_started) = mpsc::channel();
            let (tell, acted): (Sender<Tick>, _) = mpsc::channel();
            let clock = Clock::Test(clock.clone());
            let thread = thread::spawn(move || {
                let (state, changed) = (Mutex::new(()), Arc::new(Condvar::new()));
                let sleeper = Sleeper::new(&clock, &changed);
                let mut due = clock.now() + 10 * SECOND;
                started.send(()).unwrap();
                let mut state = state.lock();
                for _ in 0..times {
                    while clock.now() < due {
                        sleeper.wait(&mut state, Duration::MAX, due);
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
            let clock = test_clock::Clock::frozen();
            let slow = || thread::sleep(Duration::from_millis(2));
            let threads = [(); 3].map(|()| Acting::start(&clock, 3, slow));
            clock.advance(9 * SECOND);
            assert_eq!(threads.each_ref().map(Acting::acted), [0; 3]);
            clock.advance(SECOND);
            assert_eq!(threads.each_ref().map(Acting::acted), [1; 3]);
            clock.advance(20 * SECOND);
            assert_eq!(threads.each_ref().map(Acting::acted), [2; 3]);
            for one in threads {
                one.thread.join().unwrap();
            }
        }
    }

    #[test]
    fn advance_does_not_wait_for_itself() {
        let clock = test_clock::Clock::frozen();
        let started = Instant::now();
        let thread = Acting::start(&clock, 1, {
            let clock = clock.clone();
            move || clock.advance(SECOND)
        });
        clock.advance(10 * SECOND);
        assert_eq!(thread.acted(), 1);
        assert_eq!(clock.elapsed(), 11 * SECOND);
        assert!(started.elapsed() < 4 * SECOND, "{:?}", started.elapsed());
    }

    #[test]
    fn advance_gives_up_on_a_thread_that_is_held_up() {
        let clock = test_clock::Clock::frozen();
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let thread = Acting::start(&clock, 1, move || {
            let _ = held.lock().recv(); // Until `release` is dropped.
        });
        let advance = |by| {
            let started = Instant::now();
            clock.advance(by);
            started.elapsed()
        };
        let waited = advance(10 * SECOND);
        assert!(waited >= 2 * SECOND, "{waited:?}");
        let waited = advance(10 * SECOND);
        assert!(waited < 2 * SECOND, "it was at work already: {waited:?}");
        assert_eq!(thread.acted(), 0);
        drop(release);
        assert!(thread.acted.recv().is_ok());
    }

    #[test]
    fn sleeper_wakes_by_itself_on_a_clock_that_runs() {
        let clock = test_clock::Clock::with_rate(1000);
        let thread = Acting::start(&clock, 2, || {});
        let first = thread.acted.recv_timeout(60 * SECOND).unwrap();
        let second = thread.acted.recv_timeout(60 * SECOND).unwrap();
        assert!(second > first);
    }

    #[test]
    fn time_that_is_advanced_saturates() {
        let clock = test_clock::Clock::frozen();
        clock.advance(Duration::MAX);
        clock.advance(SECOND);
        assert_eq!(clock.elapsed(), Duration::from_nanos(u64::MAX));
    }
}
