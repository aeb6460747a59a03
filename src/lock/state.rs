//! What a lease's thread shares with the caller who waits, the guard and its watches.

use std::fmt;
use std::sync::Arc;

use super::queue::Queue;
use super::settings::Settings;
use super::stop::Wake;
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

/// What all guards of a locker share.
pub(crate) struct LockerInner {
    pub(crate) settings: Settings,
    /// Those in this process who want the same lock. `None` if it is not handed over.
    pub(crate) queue: Option<Arc<Queue<LeaseThread>>>,
}

/// A guard's lease, or one that is waited for.
#[derive(Clone)]
pub(crate) struct LeaseThread {
    pub(crate) locker: Arc<LockerInner>,
    pub(crate) state: Arc<GuardState>,
}

impl PartialEq for LeaseThread {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

impl fmt::Debug for LeaseThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseThread").finish_non_exhaustive()
    }
}

/// Where a lease's thread goes once it is done.
pub(crate) type Next = Arc<Mutex<Option<LeaseThread>>>;

/// One lease, as its threads share it.
#[derive(Debug)]
pub(crate) struct GuardState {
    clock: Clock,
    /// Since when the lease is waited for.
    pub(crate) started: Moment,
    /// A copy of the lease's deadline, in nanoseconds, for readers that wait for nobody: one in a
    /// process that was forked off, or one that must not be held up. Zero when it is not held.
    deadline: AtomicU64,
    /// Whether somebody outside may know the lease's ID, in this process's memory or elsewhere.
    exposure: AtomicU64,
    shared: Mutex<Shared>,
    changed: Arc<Condvar>,
    pub(crate) seen: Mutex<Seen>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: LeaseId,
    /// The ID that the lease has until its change to `id` is confirmed.
    pub(crate) former: Option<LeaseId>,
    /// Shared with the guards before and after that have the same lease.
    pub(crate) next: Next,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) jitter: Jitter,
    /// What the caller who waits is to get.
    pub(crate) handed: Option<Result<Granted, Error>>,
    /// The lease's thread has sent a request, and has no answer yet.
    pub(crate) busy: bool,
    /// The lease's thread calls the observer, for who knows how long.
    pub(crate) telling: bool,
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

/// Nobody outside knows the ID / somebody may / another guard's lease has it.
const CONCEALED: u64 = 0;
const EXPOSED: u64 = 1;
const HANDED_OVER: u64 = 2;

impl GuardState {
    pub(crate) fn new(clock: Clock, id: LeaseId, lifecycle: Lifecycle, started: Moment) -> Self {
        Self {
            clock,
            started,
            deadline: AtomicU64::new(0),
            exposure: AtomicU64::new(CONCEALED),
            shared: Mutex::new(Shared {
                id,
                former: None,
                next: Next::default(),
                lifecycle,
                jitter: Jitter::new(id.bits()),
                handed: None,
                busy: false,
                telling: false,
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
        self.publish_deadline(shared);
        self.changed.notify_all();
    }

    /// Makes the deadline known to all who look, and wakes nobody.
    pub(crate) fn publish_deadline(&self, shared: &Shared) {
        let deadline = shared.lifecycle.deadline();
        self.deadline.store(deadline.as_nanos(), Ordering::Release);
    }

    /// The lease's ID, `id`, for somebody outside. Once another guard has the lease with the same ID,
    /// an ID that no lease has. Waits for nobody.
    pub(crate) fn expose_id(&self, id: LeaseId) -> LeaseId {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        match self
            .exposure
            .compare_exchange(CONCEALED, EXPOSED, order.0, order.1)
        {
            Err(HANDED_OVER) => id.unused(),
            _ => id,
        }
    }

    /// Another guard gets the lease with the same ID, unless somebody outside may know it. Returns
    /// whether that is so.
    pub(crate) fn conceal_id(&self) -> bool {
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.exposure
            .compare_exchange(CONCEALED, HANDED_OVER, order.0, order.1)
            .is_ok()
    }

    /// Waits for a change, or until one of the two clocks shows `until`. May also end early.
    pub(crate) fn wait(&self, shared: &mut MutexGuard<'_, Shared>, until: Moment) {
        self.clock.wait(&self.changed, shared, until);
    }

    /// The calling thread carries out the lease's steps: who advances a clock waits for it.
    pub(crate) fn enter(&self) -> Presence {
        self.clock.enter()
    }

    /// From when on the lease is no longer claimed. Waits for nobody.
    pub(crate) fn deadline(&self) -> Tick {
        Tick::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// Records a sign of life of the lease's user. Waits for nobody who is in the network.
    pub(crate) fn alive(&self) {
        let mut shared = self.lock();
        let now = self.now().lease;
        if shared.lifecycle.alive(now) {
            // The lease's thread has to renew it.
            self.publish(&shared);
        }
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

impl Wake for GuardState {
    fn wake(&self) {
        let _shared = self.shared.lock();
        self.changed.notify_all();
    }
}
