//! What the library's threads share, in the hands of a scheduler.
//!
//! In the form of `parking_lot`, as far as the library uses it. A short wait never blocks: it lets the
//! others go on, and then has ended in time or not, as the scheduler pleases. A long one, as all by a
//! clock that stands still, blocks until somebody wakes it, so that a wait that nobody wakes is found.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync as shuttled;

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) mod thread {
    use std::io;

    use shuttle::rand::{Rng, thread_rng};
    pub(crate) use shuttle::thread::*;

    /// A lease's thread with this in its name is started or not, as the scheduler pleases.
    const UNSURE: &str = "no-thread";

    /// As `std::thread::Builder`.
    #[derive(Debug, Default)]
    pub(crate) struct Builder {
        name: String,
        stack: usize,
    }

    impl Builder {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self { name, ..self }
        }

        pub(crate) fn stack_size(self, stack: usize) -> Self {
            Self { stack, ..self }
        }

        pub(crate) fn spawn<F, T>(self, run: F) -> io::Result<JoinHandle<T>>
        where
            F: FnOnce() -> T + Send + 'static,
            T: Send + 'static,
        {
            if self.name.contains(UNSURE) && thread_rng().gen_bool(0.5) {
                return Err(io::Error::from(io::ErrorKind::WouldBlock));
            }
            let builder = shuttle::thread::Builder::new().name(self.name);
            // Of no size it would be too small, for the next thread that gets this stack, too.
            match self.stack {
                0 => builder.spawn(run),
                stack => builder.stack_size(stack).spawn(run),
            }
        }
    }
}

/// The longest pause between attempts in a scene.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Nobody in a scene needs a wait for so long to end by itself.
const LONG: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttled::Mutex<T>);

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a shuttled::Mutex<T>,
    guard: ManuallyDrop<Option<shuttled::MutexGuard<'a, T>>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttled::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard::new(&self.0, relock(&self.0))
    }
}

/// Without poisoning, as `parking_lot` has it.
fn relock<T>(mutex: &shuttled::Mutex<T>) -> shuttled::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<'a, T> MutexGuard<'a, T> {
    fn new(mutex: &'a shuttled::Mutex<T>, guard: shuttled::MutexGuard<'a, T>) -> Self {
        Self {
            mutex,
            guard: ManuallyDrop::new(Some(guard)),
        }
    }

    pub(crate) fn unlocked<R>(guard: &mut Self, run: impl FnOnce() -> R) -> R {
        struct Relock<'g, 'a, T>(&'g mut MutexGuard<'a, T>);
        impl<T> Drop for Relock<'_, '_, T> {
            fn drop(&mut self) {
                *self.0.guard = Some(relock(self.0.mutex));
            }
        }
        drop(guard.guard.take());
        let _relock = Relock(guard);
        run()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.guard.take());
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("locked but in `unlocked`")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("locked but in `unlocked`")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttled::Condvar);

#[derive(Debug)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        if timeout >= LONG {
            let locked = guard.guard.take().expect("locked but in `unlocked`");
            let locked = self.0.wait(locked);
            *guard.guard = Some(locked.unwrap_or_else(|poisoned| poisoned.into_inner()));
            return WaitTimeoutResult(false);
        }
        MutexGuard::unlocked(guard, || {
            thread::yield_now();
            // A pause between attempts is over once the system's clock says so.
            if timeout <= LONGEST_PAUSE {
                std::thread::sleep(timeout / 2);
            }
        });
        WaitTimeoutResult(thread_rng().gen_ratio(1, 4))
    }
}
