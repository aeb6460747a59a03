//! Several locks at once, all of them or none.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, TryLockError};
use crate::lease::ids::LeaseId;
use crate::lease::terms::WaitLimit;
use crate::lock::guard::LeaseGuard;
use crate::lock::locker::Locker;
use crate::lock::stop::pause;
use crate::time::jitter::Jitter;
use crate::time::tick::Tick;

/// The most locks at once. Each has a thread, and is renewed by itself.
const MAX_LOCKS: usize = 16;

/// A pause after a round in vain is at most this many intervals, and an interval counts as this at most.
const LONGEST_PAUSE: u32 = 8;
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// Acquires all of several locks, or none. Waits while others hold some of them.
///
/// It never waits for one while it holds another: if one of them is busy it releases what it has, waits
/// for the busy one alone, and then tries the others again, with a random pause after each round in
/// vain. So callers cannot wait for each other for ever, in whatever order they name the locks, and a
/// thread that waits keeps nobody else out. On the other hand, no order is kept: while others take one
/// of the locks again and again, a caller of this may wait for long.
///
/// Lockers of the same blob count as one, and the first of them is used. Two that reach it through
/// different hosts, such as an address and a name, count as two locks: a call with both never succeeds.
///
/// Each lock has the settings of its own locker, and a [`StopToken`](crate::StopToken) of the one that is
/// waited for ends the wait. None of the locks may be held by the caller: see [`Locker`].
///
/// Takes one request for each lock if all are free, and one for each to release it.
///
/// # Errors
///
/// [`ErrorKind::Config`] if `lockers` is empty or has more than 16 locks; others as for [`Locker::lock`].
/// What was acquired is released.
///
/// # Examples
///
/// ```
/// use azmutex::{AzureMutex, Locker, lock_all};
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
/// let locker = |key| Locker::new(mutex.clone(), key);
/// let accounts = [locker("accounts/12")?, locker("accounts/7")?];
/// let guards = lock_all(&accounts)?;
/// guards.check()?; // both still held?
/// // move money
/// guards.release()?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn lock_all(lockers: &[Locker]) -> Result<GuardSet, Error> {
    lock_within(lockers, |_| WaitLimit::Forever)
}

/// Acquires all of several locks if nobody holds any of them. Does not wait for a holder. See
/// [`lock_all`].
///
/// # Errors
///
/// [`TryLockError::WouldBlock`] if somebody holds one of them; others as for [`lock_all`].
pub fn try_lock_all(lockers: &[Locker]) -> Result<GuardSet, TryLockError> {
    Ok(lock_within(lockers, |_| WaitLimit::Once(Tick::NEVER))?)
}

/// Acquires all of several locks, or none, waiting for at most `timeout`. With zero, the same as
/// [`try_lock_all`]. See [`lock_all`].
///
/// # Errors
///
/// [`TryLockError::WouldBlock`] if somebody held one of them at every attempt; others as for
/// [`lock_all`].
pub fn try_lock_all_for(lockers: &[Locker], timeout: Duration) -> Result<GuardSet, TryLockError> {
    if timeout.is_zero() {
        return try_lock_all(lockers);
    }
    let started = Instant::now();
    let limit = |locker: &Locker| {
        // Each locker has a clock of its own.
        let left = timeout.saturating_sub(started.elapsed());
        WaitLimit::Until(locker.clock().now() + left)
    };
    Ok(lock_within(lockers, limit)?)
}

fn lock_within(
    lockers: &[Locker],
    limit: impl Fn(&Locker) -> WaitLimit,
) -> Result<GuardSet, Error> {
    let mut all: Vec<_> = lockers
        .iter()
        .enumerate()
        .map(|(named, locker)| (locker.mutex().url(locker.key()), locker, named))
        .collect();
    // The same order for all callers, so that those who want the same locks meet at the first.
    all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    all.dedup_by(|(one, ..), (other, ..)| one == other);
    if all.is_empty() || all.len() > MAX_LOCKS {
        let text = format!(
            "invalid number of locks {}: it must be 1 to {MAX_LOCKS}",
            all.len()
        );
        return Err(Error::config(text));
    }
    let mut jitter = Jitter::new(LeaseId::random()?.bits());
    let mut first = 0;
    let mut rounds = 0_u32;
    loop {
        let (_, locker, named) = all[first];
        let within = limit(locker);
        let mut guards = vec![(named, locker.acquire(within)?)];
        let others = (0..all.len()).filter(|place| *place != first);
        let busy = others.into_iter().find_map(|place| {
            let (_, locker, named) = all[place];
            match locker.acquire(WaitLimit::Once(limit(locker).end())) {
                Ok(guard) => {
                    guards.push((named, guard));
                    None
                }
                Err(error) => Some((place, error)),
            }
        });
        let lost = || {
            let text = "a lock was lost before all were acquired";
            let is_lost = !guards.iter().all(|(_, guard)| guard.is_held());
            is_lost.then(|| (first, Error::new(ErrorKind::WouldBlock, text)))
        };
        let Some((place, error)) = busy.or_else(lost) else {
            guards.sort_by_key(|(named, _)| *named);
            return Ok(GuardSet(
                guards.into_iter().map(|(_, guard)| guard).collect(),
            ));
        };
        let is_over = within.does_not_wait() || locker.clock().now() >= within.end();
        if error.kind() != ErrorKind::WouldBlock || is_over {
            return Err(error);
        }
        drop(guards);
        first = place;
        let settings = all[first].1.settings();
        rounds = LONGEST_PAUSE.min(rounds + 1);
        let longest = settings.terms.poll_interval.min(LONGEST_INTERVAL) * rounds;
        let longest = longest.min(within.end().since(locker.clock().now()));
        let nanos = jitter.next() % (longest.as_nanos() as u64 + 1);
        pause(settings.stop.as_ref(), Duration::from_nanos(nanos));
    }
}

/// Several held locks, from [`lock_all`]. Dropping it releases all of them.
#[derive(Debug)]
#[must_use = "if unused the leases are released immediately"]
pub struct GuardSet(Vec<LeaseGuard>);

impl GuardSet {
    /// Whether all locks are held now. Never blocks.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.iter().all(LeaseGuard::is_held)
    }

    /// Fails unless all locks are held now. Never blocks on the network.
    ///
    /// # Errors
    ///
    /// As for [`LeaseGuard::check`], for the first that is not held.
    pub fn check(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(LeaseGuard::check)
    }

    /// How much longer all locks are held, unless their leases are renewed before that. Zero if one is
    /// not held.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let remaining = self.0.iter().map(LeaseGuard::remaining);
        remaining.min().unwrap_or_default()
    }

    /// The guard of the lock with this key. If locks of several containers have the same key, the first
    /// of them.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&LeaseGuard> {
        self.0.iter().find(|guard| guard.key() == key)
    }

    /// All guards, one for each lock, in the order in which the lockers were given. Threads that do the
    /// work take a [`watch`](LeaseGuard::watch) of each.
    pub fn guards(&self) -> &[LeaseGuard] {
        &self.0
    }

    /// All [`guards`](Self::guards), each of which is released by itself from now on.
    #[must_use]
    pub fn into_guards(self) -> Vec<LeaseGuard> {
        self.0
    }

    /// Releases all locks. Dropping this does the same, and logs failures.
    ///
    /// Blocks for at most the [`release_timeout`](crate::LockerBuilder::release_timeout) for each; if the
    /// service does not answer, for one of them.
    ///
    /// # Errors
    ///
    /// As for [`LeaseGuard::release`], for the first that fails; the others are released all the same.
    pub fn release(self) -> Result<(), Error> {
        let results: Vec<_> = self.0.into_iter().map(LeaseGuard::release).collect();
        results.into_iter().collect()
    }
}
