use std::fmt;
use std::time::{Duration, Instant};

use super::state::LeaseThread;
use crate::error::{Error, ErrorKind, LossReason};
use crate::lease::hold::Claim;
use crate::lease::ids::LeaseId;
use crate::time::tick::Moment;

/// Tells whether the lock of a [`LeaseGuard`](crate::LeaseGuard) is held, and does not keep it held.
///
/// Made by [`LeaseGuard::watch`](crate::LeaseGuard::watch). Cheap to clone and to share with the
/// threads that do the work. Once the guard is gone it answers that the lock was released.
#[derive(Clone)]
pub struct LeaseWatch {
    lease: LeaseThread,
    id: LeaseId,
}

impl LeaseWatch {
    pub(crate) fn new(lease: LeaseThread, id: LeaseId) -> Self {
        Self { lease, id }
    }

    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.lease.locker.settings.key
    }

    /// See [`LeaseGuard::is_held`](crate::LeaseGuard::is_held).
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.lease.state.now().lease < self.lease.state.deadline()
    }

    /// See [`LeaseGuard::check`](crate::LeaseGuard::check).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseUnproven`] and [`ErrorKind::LeaseLost`], as there; `LeaseLost` with
    /// [`LossReason::Released`] once the guard is gone.
    pub fn check(&self) -> Result<(), Error> {
        let error = match self.lease.state.claim() {
            Claim::Held => return Ok(()),
            Claim::Lost(reason) => Error::lost(reason),
            Claim::Unproven => {
                let now = self.lease.state.now().lease;
                let unconfirmed = self.lease.state.lock().lifecycle.unconfirmed_for(now);
                let secs = unconfirmed.as_secs();
                let text = format!("no renewal was confirmed for {secs} s; it may be lost");
                Error::new(ErrorKind::LeaseUnproven, text)
            }
        };
        Err(error.during("keep the lock", &self.lease.locker.settings.events.target))
    }

    /// See [`LeaseGuard::alive`](crate::LeaseGuard::alive). Once the guard is gone it does nothing.
    pub fn alive(&self) {
        if self.lease.locker.settings.terms.health.is_some() {
            self.lease.state.alive();
        }
    }

    /// See [`LeaseGuard::deadline`](crate::LeaseGuard::deadline).
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let (now, deadline) = (self.lease.state.now().lease, self.lease.state.deadline());
        let instant = Instant::now();
        let past = now.since(deadline);
        (instant + deadline.since(now))
            .checked_sub(past)
            .unwrap_or(instant)
    }

    /// See [`LeaseGuard::remaining`](crate::LeaseGuard::remaining).
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let state = &self.lease.state;
        state.deadline().since(state.now().lease)
    }

    /// See [`LeaseGuard::lease_id`](crate::LeaseGuard::lease_id). Once another guard in this process has
    /// the lease, an ID that no lease has, if this one was not asked for before.
    #[must_use]
    pub fn lease_id(&self) -> LeaseId {
        self.lease.state.expose_id(self.id)
    }

    /// Why the lock was lost, if it was.
    #[must_use]
    pub fn loss_reason(&self) -> Option<LossReason> {
        match self.lease.state.claim() {
            Claim::Lost(reason) => Some(reason),
            Claim::Held | Claim::Unproven => None,
        }
    }

    /// Blocks until the lock is no longer held, for at most `timeout`, and returns why it was lost. A
    /// release counts as one: [`LossReason::Released`].
    ///
    /// Returns `None` if the time is up, and also if the lock became unproven;
    /// [`check`](Self::check) tells them apart. It returns as soon as the guard knows: at the release,
    /// at the deadline, and for a lease that was broken at the next renewal.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use azmutex::LossReason;
    ///
    /// # let emulator = azmutex::emulator::Emulator::start()?;
    /// # let mutex = azmutex::AzureMutex::new(emulator.options("locks")?)?;
    /// let guard = azmutex::Locker::new(mutex, "migration")?.lock()?;
    /// let watch = guard.watch();
    /// let watcher = std::thread::spawn(move || watch.wait_lost(Duration::MAX));
    /// guard.release()?;
    /// assert_eq!(watcher.join().unwrap(), Some(LossReason::Released));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn wait_lost(&self, timeout: Duration) -> Option<LossReason> {
        let state = &self.lease.state;
        let end = state.now().real + timeout;
        let mut shared = state.lock();
        loop {
            let now = state.now();
            match shared.lifecycle.claim(now.lease) {
                Claim::Lost(reason) => return Some(reason),
                Claim::Held if now.real < end => {
                    let lease = shared.lifecycle.deadline();
                    state.wait(&mut shared, Moment { lease, real: end });
                }
                Claim::Held | Claim::Unproven => return None,
            }
        }
    }

    pub(crate) fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("lock", &self.lease.locker.settings.events.target)
            .field("lease_id", &self.lease_id())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("LeaseWatch", f)
    }
}
