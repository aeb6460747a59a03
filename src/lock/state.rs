//! What a lease's thread shares with the caller who waits, the guard and its watches.

use std::sync::Arc;

use crate::error::Error;
use crate::holder::record::Previous;
use crate::lease::hold::Claim;
use crate::lease::ids::LeaseId;
use crate::lease::lifecycle::Lifecycle;
use crate::mutex::leased_blob::Seen;
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::clock::{Clock, Presence};
use crate::time::jitter::Jitter;
use crate::time::tick::{Moment, Tick};

/// One lease, as its threads share it.
#[derive(Debug)]
pub(crate) struct GuardState {
    clock: Clock,
    /// A copy of the lease's deadline, in nanoseconds, for readers that wait for nobody: one in a
    /// process that was forked off, or one that must not be held up. Zero when it is not held.
    deadline: AtomicU64,
    shared: Mutex<Shared>,
    changed: Arc<Condvar>,
    pub(crate) seen: Mutex<Seen>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: LeaseId,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) jitter: Jitter,
    /// What the caller who waits is to get.
    pub(crate) handed: Option<Result<Granted, Error>>,
    /// The lease's thread has sent a request, and has no answer yet.
    pub(crate) busy: bool,
    /// Another thread carries out the remaining steps.
    pub(crate) taken_over: bool,
    /// Nobody waits for the lease's thread any more.
    pub(crate) abandoned: bool,
}

/// A lease that is held.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) id: LeaseId,
    pub(crate) token: Option<i64>,
    pub(crate) previous: Previous,
}

impl GuardState {
    pub(crate) fn new(clock: Clock, id: LeaseId, lifecycle: Lifecycle) -> Self {
        Self {
            clock,
            deadline: AtomicU64::new(0),
            shared: Mutex::new(Shared {
                id,
                lifecycle,
                jitter: Jitter::new(id.bits()),
                handed: None,
                busy: false,
                taken_over: false,
                abandoned: false,
            }),
            changed: Arc::new(Condvar::new()),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.moment()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    /// Makes what has changed known to all who wait or look.
    pub(crate) fn publish(&self, shared: &Shared) {
        let deadline = shared.lifecycle.deadline();
        self.deadline.store(deadline.as_nanos(), Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits for a change, or until one of the two clocks shows `until`. May also end early.
    pub(crate) fn wait(&self, shared: &mut MutexGuard<'_, Shared>, until: Moment) {
        self.clock.wait(&self.changed, shared, until);
    }

    /// The calling thread carries out the lease's steps: who advances a clock waits for it.
    pub(crate) fn enter(&self) -> Presence {
        self.clock.enter()
    }

    /// Wakes whoever waits for a change, and whoever is about to.
    pub(crate) fn wake(&self) {
        let _shared = self.shared.lock();
        self.changed.notify_all();
    }

    /// From when on the lease is no longer claimed. Waits for nobody.
    pub(crate) fn deadline(&self) -> Tick {
        Tick::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// What may be claimed now. Waits for nobody while the lease is held.
    pub(crate) fn claim(&self) -> Claim {
        let now = self.now().lease;
        if now < self.deadline() {
            return Claim::Held;
        }
        // The clock was read before the lock was had, which can only make the claim weaker.
        match self.lock().lifecycle.claim(now) {
            Claim::Held => Claim::Unproven,
            claim => claim,
        }
    }
}
