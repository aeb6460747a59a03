use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::sync::{AtomicBool, Condvar, Mutex, Ordering};
use crate::time::clock::Clock;
use crate::time::tick::{Moment, Tick};

/// Ends waiting for a lock from another thread, such as one that waits for signals.
///
/// Give it to [`LockerBuilder::stop_token`](crate::LockerBuilder::stop_token); one token may serve
/// many lockers. Clones are the same token. Once stopped it stays stopped: every wait and every later
/// `lock` with it fails with [`ErrorKind::Stopped`](crate::ErrorKind::Stopped). Locks that are already
/// held are not affected.
///
/// # Examples
///
/// ```
/// use azmutex::{AzureMutex, ErrorKind, Locker, StopToken};
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
/// let stop = StopToken::new();
/// let locker = Locker::builder(mutex.clone(), "migration").stop_token(&stop).build()?;
/// let _held = Locker::new(mutex, "migration")?.lock()?;
///
/// let waiting = std::thread::spawn(move || locker.lock());
/// stop.stop();
/// assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Stopped);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct StopToken(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    waiting: Mutex<Vec<Weak<dyn Wake>>>,
}

/// One who waits for a lock.
pub(crate) trait Wake: Send + Sync {
    /// Wakes whoever waits for a change, and whoever is about to.
    fn wake(&self);
}

impl StopToken {
    /// A token that is not stopped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every wait with this token at once, even while the service does not answer.
    ///
    /// Does not block. Do not call it *inside* a signal handler: call it from a thread that waits for
    /// signals. A lease that was being acquired is released in the background.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        let waiting = self.0.waiting.lock().drain(..).collect::<Vec<_>>();
        for waiter in waiting.iter().filter_map(Weak::upgrade) {
            waiter.wake();
        }
    }

    /// Whether [`stop`](Self::stop) was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Has `waiter` woken by a stop.
    pub(crate) fn register(&self, waiter: Weak<dyn Wake>) {
        let mut waiting = self.0.waiting.lock();
        waiting.retain(|other| other.strong_count() > 0);
        waiting.push(waiter);
        // A stop that came before has not seen it: those who wait look for themselves first.
    }
}

/// Waits for `time`, or until `stop` is stopped.
pub(crate) fn pause(stop: Option<&StopToken>, time: Duration) {
    let clock = Clock::System;
    let end = Moment {
        lease: Tick::NEVER,
        real: clock.now() + time,
    };
    let bell = Arc::new(Bell::default());
    if let Some(stop) = stop {
        let wake: Arc<dyn Wake> = Arc::<Bell>::clone(&bell);
        stop.register(Arc::downgrade(&wake));
    }
    let mut lock = bell.lock.lock();
    while clock.now() < end.real && !stop.is_some_and(StopToken::is_stopped) {
        clock.wait(&bell.changed, &mut lock, end);
    }
}

/// Ends a pause.
#[derive(Default)]
struct Bell {
    lock: Mutex<()>,
    changed: Arc<Condvar>,
}

impl Wake for Bell {
    fn wake(&self) {
        let _lock = self.lock.lock();
        self.changed.notify_all();
    }
}

impl fmt::Debug for StopToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopToken")
            .field("stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}
