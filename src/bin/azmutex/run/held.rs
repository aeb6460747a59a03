//! What a run waits for and holds: a lock, one of the permits of a semaphore, or several locks.

use std::time::Duration;

use azmutex::{
    AzureMutex, Done, Error, ErrorKind, Lease, LeaseGuard, LeaseStatus, LeaseWatch, Locker,
    LossReason, Previous, Semaphore, TryLockError, lock_all, try_lock_all_for,
};

use super::timer;
use crate::config::Lock;
use crate::output::clean;

/// How many permits to look at for one that is held.
const LOOKS: u32 = 8;

/// What a run waits for.
#[derive(Clone)]
pub(super) enum Wanted {
    Lock(Locker),
    Permit {
        semaphore: Semaphore,
        /// Records its number of permits if another one is recorded.
        resize: bool,
    },
    /// This one of the permits.
    Slot(Locker, u32),
    /// The lock that is named first, and others, each of another blob.
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
pub(super) struct Watch {
    watches: Vec<(AzureMutex, LeaseWatch)>,
    /// One of several that the same name stands for.
    is_one_of: bool,
}

impl Wanted {
    /// Waits for it, for at most `limit`.
    pub(super) fn acquire(&self, limit: Option<Duration>) -> Result<Got, TryLockError> {
        let started = timer::now();
        let left = || limit.map(|limit| (limit + started).saturating_sub(timer::now()));
        let lock = |locker: &Locker| match left() {
            None => locker.lock().map_err(TryLockError::from),
            Some(left) => locker.try_lock_for(left),
        };
        let held = match (self, limit) {
            (Self::Lock(locker), _) => Held::one(locker, lock(locker)?),
            (Self::Slot(locker, slot), _) => Held {
                slot: Some(*slot),
                ..Held::one(locker, lock(locker)?)
            },
            (Self::Once(locker, every), _) => {
                match locker.done(*every) {
                    Ok(Some(done)) => return Ok(Got::Done(done)),
                    Ok(None) => {}
                    // The wait for the lock asks again, and whether it is done is asked under it.
                    Err(error) if may_pass(&error) => {}
                    Err(error) => return Err(error.into()),
                }
                let guard = lock(locker)?;
                // Somebody may have done it meanwhile.
                if let Some(done) = guard.done(*every)? {
                    return Ok(Got::Done(done));
                }
                Held::one(locker, guard)
            }
            (Self::Permit { semaphore, resize }, _) => {
                let acquire = || match left() {
                    None => semaphore.acquire().map_err(TryLockError::from),
                    Some(left) => semaphore.try_acquire_for(left),
                };
                let guard = match acquire() {
                    Err(TryLockError::Error(error))
                        if *resize && error.kind() == ErrorKind::Config =>
                    {
                        semaphore.resize()?;
                        acquire()?
                    }
                    result => result?,
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

    /// How many permits there are, if it is one of them.
    pub(super) fn permits(&self) -> Option<u32> {
        match self {
            Self::Permit { semaphore, .. } => Some(semaphore.permits()),
            _ => None,
        }
    }

    /// The number of permits that is recorded, if `error` says that another one is.
    pub(super) fn permits_recorded(&self, error: &Error) -> Option<u32> {
        let Self::Permit { semaphore, .. } = self else {
            return None;
        };
        if error.kind() != ErrorKind::Config {
            return None;
        }
        let status = semaphore.mutex().status(semaphore.key()).ok()?;
        let recorded = status.permits()?;
        (recorded != semaphore.permits()).then_some(recorded)
    }

    /// Whether a permit was refused because somebody holds a plain lock with the semaphore's key.
    pub(super) fn is_barred_by_a_lock(&self, error: &Error) -> bool {
        let Self::Permit { semaphore, .. } = self else {
            return false;
        };
        error.kind() == ErrorKind::Config
            && semaphore
                .mutex()
                .status(semaphore.key())
                .is_ok_and(|status| !status.state().is_free())
    }

    /// The client of the lock that is named first.
    pub(super) fn mutex(&self) -> &AzureMutex {
        match self {
            Self::Lock(locker) | Self::Once(locker, _) | Self::Slot(locker, _) => locker.mutex(),
            Self::Permit { semaphore, .. } => semaphore.mutex(),
            Self::All(lockers) => lockers[0].mutex(),
        }
    }

    /// Waits until what abandoned attempts may have left behind is released, for at most `timeout`.
    pub(super) fn settle(&self, timeout: Duration) -> bool {
        match self {
            Self::Lock(locker) | Self::Once(locker, _) | Self::Slot(locker, _) => {
                locker.settle(timeout)
            }
            Self::Permit { semaphore, .. } => semaphore.settle(timeout),
            Self::All(lockers) => lockers.iter().all(|locker| locker.settle(timeout)),
        }
    }

    /// The lease that `error` leaves behind, if it does and is known.
    pub(super) fn left_behind(&self, error: &Error) -> Option<Lease> {
        let (Self::Lock(locker) | Self::Once(locker, _) | Self::Slot(locker, _)) = self else {
            return None;
        };
        Lease::new(locker.key(), error.lease_id()?).ok()
    }

    /// Who holds it, or one of the locks or permits.
    pub(super) fn look(&self) -> Result<LeaseStatus, Error> {
        let look = |locker: &Locker| locker.mutex().status(locker.key());
        match self {
            Self::Lock(locker) | Self::Once(locker, _) | Self::Slot(locker, _) => look(locker),
            Self::Permit { semaphore, .. } => {
                held_one((0..semaphore.permits().min(LOOKS)).map(|slot| {
                    let key = format!("{}.slot{slot}", semaphore.key());
                    semaphore.mutex().status(&key)
                }))
            }
            Self::All(lockers) => held_one(lockers.iter().map(look)),
        }
    }
}

/// Whether the same request may succeed later.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Transport | ErrorKind::Throttled | ErrorKind::Service
    )
}

/// The first that is held, or else whatever is known.
fn held_one(
    statuses: impl Iterator<Item = Result<LeaseStatus, Error>>,
) -> Result<LeaseStatus, Error> {
    let mut known = None;
    for status in statuses {
        let held = status
            .as_ref()
            .is_ok_and(|status| !status.state().is_free());
        if held {
            return status;
        }
        known = match known {
            Some(Ok(free)) => Some(Ok(free)),
            _ => Some(status),
        };
    }
    known.unwrap_or_else(|| unreachable!("there is one at least"))
}

impl Held {
    fn one(locker: &Locker, guard: LeaseGuard) -> Self {
        Self {
            guards: vec![(locker.mutex().clone(), guard)],
            slot: None,
        }
    }

    fn all(lockers: &[Locker], guards: Vec<LeaseGuard>) -> Self {
        let mutexes = lockers.iter().map(|locker| locker.mutex().clone());
        Self {
            guards: mutexes.zip(guards).collect(),
            slot: None,
        }
    }

    fn first(&self) -> &LeaseGuard {
        let (_, guard) = &self.guards[0];
        guard
    }

    fn guards(&self) -> impl Iterator<Item = &LeaseGuard> {
        self.guards.iter().map(|(_, guard)| guard)
    }

    /// The URL of the blob whose lease ID is [`lease_id`](Self::lease_id), for `lock`.
    pub(super) fn url(&self, lock: &Lock) -> String {
        match self.slot {
            Some(slot) => lock.slot(slot).url,
            None => lock.url.clone(),
        }
    }

    pub(super) fn watch(&self) -> Watch {
        let watches = self.guards.iter();
        Watch {
            watches: watches
                .map(|(mutex, guard)| (mutex.clone(), guard.watch()))
                .collect(),
            is_one_of: self.guards.len() > 1 || self.slot.is_some(),
        }
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
        self.watches.iter().map(|(_, watch)| watch)
    }

    /// The place of one that is lost, or else of the one that will be first.
    pub(super) fn weakest(&self) -> usize {
        let lost = self
            .watches()
            .position(|watch| watch.loss_reason().is_some());
        let first = || {
            let all = self.watches().enumerate();
            all.min_by_key(|(_, watch)| watch.remaining())
        };
        lost.or_else(|| first().map(|(place, _)| place))
            .unwrap_or(0)
    }

    /// The name of the one in this place, if it is one of several.
    pub(super) fn name(&self, place: usize) -> Option<String> {
        let (_, watch) = self.watches.get(place)?;
        self.is_one_of.then(|| clean(watch.key()))
    }

    /// The URL of its blob.
    pub(super) fn url(&self, place: usize) -> String {
        let lock = self.watches.get(place);
        lock.map_or(String::new(), |(mutex, watch)| mutex.url(watch.key()))
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

    /// Renews all of it, which the service does only if it is still this process's. A failure comes
    /// with the place of the lock.
    pub(super) fn verification(
        &self,
    ) -> impl FnOnce() -> Result<(), (usize, Error)> + Send + 'static {
        let leases: Vec<_> = self
            .watches
            .iter()
            .map(|(mutex, watch)| {
                let lease = Lease::new(watch.key(), watch.lease_id());
                (mutex.clone(), lease)
            })
            .collect();
        move || {
            let mut leases = leases.into_iter().enumerate();
            leases.try_for_each(|(place, (mutex, lease))| {
                let renewed = lease.and_then(|lease| mutex.renew(&lease));
                renewed.map_err(|error| (place, error))
            })
        }
    }
}
