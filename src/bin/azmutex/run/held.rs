//! What a run waits for and holds: a lock, one of the permits of a semaphore, or several locks.

use std::time::Duration;

use azmutex::{
    AzureMutex, Done, Error, Lease, LeaseGuard, LeaseStatus, LeaseWatch, Locker, LossReason,
    Previous, Semaphore, TryLockError, lock_all, try_lock_all_for,
};

/// What a run waits for.
#[derive(Clone)]
pub(super) enum Wanted {
    Lock(Locker),
    Permit {
        semaphore: Semaphore,
        /// Records its number of permits first.
        resize: bool,
    },
    /// The lock that is named first, and others.
    All(Vec<Locker>),
    /// The lock, unless its work was done, less than this time ago if that is given.
    Once(Locker, Option<Duration>),
}

/// What the waiting brought.
#[derive(Debug)]
pub(super) enum Got {
    Held(Held),
    /// There is no need for the lock: its work was done.
    Done(Done),
}

/// What a run holds.
#[derive(Debug)]
pub(super) struct Held {
    /// The first is that of the lock that is named first.
    guards: Vec<(AzureMutex, LeaseGuard)>,
    /// Which of the permits it is.
    pub(super) slot: Option<u32>,
}

/// Tells whether all of it is held.
pub(super) struct Watch(Vec<(AzureMutex, LeaseWatch)>);

impl Wanted {
    /// Waits for it, for at most `limit`.
    pub(super) fn acquire(&self, limit: Option<Duration>) -> Result<Got, TryLockError> {
        let lock = |locker: &Locker| match limit {
            None => locker.lock().map_err(TryLockError::from),
            Some(limit) => locker.try_lock_for(limit),
        };
        let held = match (self, limit) {
            (Self::Lock(locker), _) => Held::one(locker, lock(locker)?),
            (Self::Once(locker, every), _) => {
                if let Some(done) = locker.done(*every)? {
                    return Ok(Got::Done(done));
                }
                let guard = lock(locker)?;
                // Somebody may have done it meanwhile.
                if let Some(done) = guard.done(*every)? {
                    return Ok(Got::Done(done));
                }
                Held::one(locker, guard)
            }
            (Self::Permit { semaphore, resize }, limit) => {
                if *resize {
                    semaphore.resize()?;
                }
                let guard = match limit {
                    None => semaphore.acquire()?,
                    Some(limit) => semaphore.try_acquire_for(limit)?,
                };
                Held {
                    slot: semaphore.slot(&guard),
                    guards: vec![(semaphore.mutex().clone(), guard)],
                }
            }
            (Self::All(lockers), limit) => {
                let guards = match limit {
                    None => lock_all(lockers)?,
                    Some(limit) => try_lock_all_for(lockers, limit)?,
                };
                Held::all(lockers, guards.into_guards())
            }
        };
        Ok(Got::Held(held))
    }

    /// The client of the lock that is named first.
    pub(super) fn mutex(&self) -> &AzureMutex {
        match self {
            Self::Lock(locker) | Self::Once(locker, _) => locker.mutex(),
            Self::Permit { semaphore, .. } => semaphore.mutex(),
            Self::All(lockers) => lockers[0].mutex(),
        }
    }

    /// Waits until what abandoned attempts may have left behind is released, for at most `timeout`.
    pub(super) fn settle(&self, timeout: Duration) -> bool {
        match self {
            Self::Lock(locker) | Self::Once(locker, _) => locker.settle(timeout),
            Self::Permit { semaphore, .. } => semaphore.settle(timeout),
            Self::All(lockers) => lockers.iter().all(|locker| locker.settle(timeout)),
        }
    }

    /// The lease that `error` leaves behind, if it does and is known.
    pub(super) fn left_behind(&self, error: &Error) -> Option<Lease> {
        let (Self::Lock(locker) | Self::Once(locker, _)) = self else {
            return None;
        };
        Lease::new(locker.key(), error.lease_id()?).ok()
    }

    /// Who holds it, or one of the locks.
    pub(super) fn look(&self) -> Result<LeaseStatus, Error> {
        let look = |locker: &Locker| locker.mutex().status(locker.key());
        match self {
            Self::Lock(locker) | Self::Once(locker, _) => look(locker),
            Self::Permit { semaphore, .. } => {
                let key = format!("{}.slot0", semaphore.key());
                semaphore.mutex().status(&key)
            }
            Self::All(lockers) => {
                let held = |status: &LeaseStatus| !status.state().is_free();
                let mut others = lockers[1..].iter().filter_map(|locker| look(locker).ok());
                let first = look(&lockers[0])?;
                if held(&first) {
                    return Ok(first);
                }
                Ok(others.find(held).unwrap_or(first))
            }
        }
    }
}

impl Held {
    fn one(locker: &Locker, guard: LeaseGuard) -> Self {
        Self {
            guards: vec![(locker.mutex().clone(), guard)],
            slot: None,
        }
    }

    fn all(lockers: &[Locker], guards: Vec<LeaseGuard>) -> Self {
        let url = |locker: &Locker| locker.mutex().url(locker.key());
        let first = url(&lockers[0]);
        let mut all: Vec<_> = lockers.iter().map(|locker| (url(locker), locker)).collect();
        // As the guards are.
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all.dedup_by(|(one, _), (other, _)| one == other);
        let place = all.iter().position(|(url, _)| *url == first);
        let lockers = all.into_iter().map(|(_, locker)| locker.mutex().clone());
        let mut guards: Vec<_> = lockers.zip(guards).collect();
        guards.swap(0, place.unwrap_or(0));
        Self { guards, slot: None }
    }

    fn first(&self) -> &LeaseGuard {
        let (_, guard) = &self.guards[0];
        guard
    }

    fn guards(&self) -> impl Iterator<Item = &LeaseGuard> {
        self.guards.iter().map(|(_, guard)| guard)
    }

    pub(super) fn watch(&self) -> Watch {
        let watches = self.guards.iter();
        Watch(
            watches
                .map(|(mutex, guard)| (mutex.clone(), guard.watch()))
                .collect(),
        )
    }

    /// By which the work gives signs of life.
    pub(super) fn sign(&self) -> LeaseWatch {
        self.first().watch()
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.guards().try_for_each(LeaseGuard::check)
    }

    pub(super) fn remaining(&self) -> Duration {
        let remaining = self.guards().map(LeaseGuard::remaining);
        remaining.min().unwrap_or_default()
    }

    /// Of the lock that is named first.
    pub(super) fn fencing_token(&self) -> Option<i64> {
        self.first().fencing_token()
    }

    /// Of the lock that is named first.
    pub(super) fn lease_id(&self) -> azmutex::LeaseId {
        self.first().lease_id()
    }

    /// The holder before who did not release it, or one of the locks.
    pub(super) fn abandoned(&self) -> Option<&Previous> {
        let mut before = self.guards().map(LeaseGuard::previous);
        before.find(|previous| previous.is_abandoned())
    }

    /// Records that the work is done.
    pub(super) fn record(&self) -> Result<(), Error> {
        self.first().record_done()
    }

    /// Releases all of it. Returns the first failure.
    pub(super) fn release(self) -> Result<(), Error> {
        let guards = self.guards.into_iter();
        let results: Vec<_> = guards.map(|(_, guard)| guard.release()).collect();
        results.into_iter().collect()
    }
}

impl Watch {
    fn watches(&self) -> impl Iterator<Item = &LeaseWatch> {
        self.0.iter().map(|(_, watch)| watch)
    }

    pub(super) fn is_held(&self) -> bool {
        self.watches().all(LeaseWatch::is_held)
    }

    pub(super) fn remaining(&self) -> Duration {
        let remaining = self.watches().map(LeaseWatch::remaining);
        remaining.min().unwrap_or_default()
    }

    pub(super) fn loss_reason(&self) -> Option<LossReason> {
        self.watches().find_map(LeaseWatch::loss_reason)
    }

    /// Renews all of it, which the service does only if it is still this process's.
    pub(super) fn verification(&self) -> impl FnOnce() -> Result<(), Error> + Send + 'static {
        let leases: Vec<_> = self
            .0
            .iter()
            .map(|(mutex, watch)| {
                let lease = Lease::new(watch.key(), watch.lease_id());
                (mutex.clone(), lease)
            })
            .collect();
        move || {
            let mut leases = leases.into_iter();
            leases.try_for_each(|(mutex, lease)| mutex.renew(&lease?))
        }
    }
}
