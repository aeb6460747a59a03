use std::fmt;
use std::process;
use std::time::{Duration, Instant};

use super::state::{Granted, LeaseThread};
use super::watch::LeaseWatch;
use crate::azure::client::MAX_CONTENT;
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind, LossReason};
use crate::holder::record::Previous;
use crate::lease::ids::LeaseId;
use crate::mutex::lease::Lease;

/// A held lock. A thread of its own renews the lease, and dropping the guard releases it.
///
/// Made by [`Locker::lock`](crate::Locker::lock), [`try_lock`](crate::Locker::try_lock) and its timed
/// forms. It borrows nothing and can be sent to another thread. Threads that do the work take a
/// [`watch`](Self::watch).
///
/// # Held, unproven and lost
///
/// The lock is *held* until the deadline: the moment at which the last confirmed request was sent,
/// plus the lease duration, less the [`margin`](crate::LockerBuilder::margin). While
/// [`is_held`](Self::is_held) answers true, no other client holds the lease, unless somebody broke it
/// with a period shorter than what it had left, or deleted the blob. The answer is computed from the
/// clock when it is asked for and waits for nothing, so a renewal that hangs cannot make it wrong.
///
/// When the deadline passes without a confirmed renewal, the lock is *unproven*: `is_held` answers
/// false and [`check`](Self::check) fails, while renewals go on. If one is confirmed, nobody held the
/// lock in between, and it is held again. (A network that delivers a copy of an unanswered acquire
/// more than a lease late could hide a holder in between; that nobody else holds the lock *now* is
/// true all the same.)
///
/// *Lost* is final: the lease was broken or taken, or the blob was deleted. The guard learns that at
/// its next renewal, up to a [`renewal_interval`](crate::LockerBuilder::renewal_interval) later, which
/// is 20 seconds by default. Work that must learn sooner calls [`read`](Self::read), which asks the
/// service. [`wait_lost`](Self::wait_lost) waits for the end of the hold.
///
/// # What it cannot promise
///
/// That work is not overtaken between a check and its effect: a process can be stopped right after
/// the check, for longer than the lease lasts. Only the resource itself can refuse work that comes
/// too late.
///
/// # When it does not release
///
/// `Drop` does not run on [`process::exit`], on abort, on a signal that ends the process, when a
/// guard is leaked ([`mem::forget`](std::mem::forget), a cycle of `Rc`), or in a forked child. A
/// process that is gone renews nothing, so its lease runs out within its duration. A leaked guard
/// in a process that lives is renewed for ever, unless
/// [`max_hold`](crate::LockerBuilder::max_hold) or [`health`](crate::LockerBuilder::health) bounds it.
/// The copy in a forked child hears of no
/// renewal and no release: do not use it.
///
/// # Examples
///
/// ```
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let mutex = azmutex::AzureMutex::new(emulator.options("locks")?)?;
/// # let locker = azmutex::Locker::new(mutex, "migration")?;
/// let guard = locker.lock()?;
/// for _step in 0..3 {
///     guard.check()?; // before each step that must not run twice
/// }
/// guard.release()?; // fails if the lock was lost; dropping the guard would only log it
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lease is released immediately"]
#[clippy::has_significant_drop]
pub struct LeaseGuard {
    lease: LeaseThread,
    watch: LeaseWatch,
    fencing_token: Option<i64>,
    previous: Previous,
    /// The process that acquired. A forked child has a copy of the guard, but not the lock.
    process: u32,
    released: bool,
}

impl LeaseGuard {
    pub(crate) fn new(lease: LeaseThread, granted: Granted) -> Self {
        let watch = LeaseWatch::new(lease.clone(), granted.id);
        Self {
            lease,
            watch,
            fencing_token: granted.token,
            previous: granted.previous,
            process: process::id(),
            released: false,
        }
    }

    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        self.watch.key()
    }

    /// Whether the lock is held now. Never blocks.
    ///
    /// If it is not, [`check`](Self::check) tells whether it is lost for good.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.watch.is_held()
    }

    /// Fails unless the lock is held now. Never blocks on the network.
    ///
    /// Call it before each step that must not run twice.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LeaseUnproven`] if no renewal was confirmed in time. It may become held
    ///   again.
    /// - [`ErrorKind::LeaseLost`] if the lock is lost for good;
    ///   [`loss_reason`](Error::loss_reason) says why.
    pub fn check(&self) -> Result<(), Error> {
        self.watch.check()
    }

    /// A sign of life of the work, for [`health`](crate::LockerBuilder::health); without that it does
    /// nothing. Cheap, and never blocks on the network.
    ///
    /// Call it where the work gets on, and not on a timer of its own: a timer goes on while the work
    /// hangs.
    pub fn alive(&self) {
        self.watch.alive();
    }

    /// Until when the lock is held, unless the lease is renewed before that. In the past if it is not
    /// held.
    ///
    /// On some systems `Instant` stands still while the machine is suspended, and the lease does not:
    /// after waiting, ask again.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.watch.deadline()
    }

    /// How much longer the lock is held, unless the lease is renewed before that. Zero if it is not
    /// held.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.watch.remaining()
    }

    /// The ID of the lease. The service refuses writes to the lock blob that carry it once the lease
    /// is lost. Not a fencing token: lease IDs have no order.
    ///
    /// A lease whose ID was asked for gets another one before the next guard in this process has it.
    #[must_use]
    pub fn lease_id(&self) -> LeaseId {
        self.watch.lease_id()
    }

    /// Why the lock was lost, if it was. Never blocks on the network.
    #[must_use]
    pub fn loss_reason(&self) -> Option<LossReason> {
        self.watch.loss_reason()
    }

    /// Blocks until the lock no longer counts as held, for at most `timeout`. See
    /// [`LeaseWatch::wait_lost`].
    #[must_use]
    pub fn wait_lost(&self, timeout: Duration) -> Option<LossReason> {
        self.watch.wait_lost(timeout)
    }

    /// A handle for the threads that do the work. It tells whether the lock is held, and does not
    /// keep it held.
    #[must_use]
    pub fn watch(&self) -> LeaseWatch {
        self.watch.clone()
    }

    /// A number greater than every one that was handed out for this lock before, for resources that
    /// refuse work with a smaller number than they have seen. `None` unless
    /// [`fencing`](crate::LockerBuilder::fencing) is on.
    #[must_use]
    pub fn fencing_token(&self) -> Option<i64> {
        self.fencing_token
    }

    /// Whether the previous holder released the lock, and who it was.
    ///
    /// Always [`Previous::Unknown`] unless [`fencing`](crate::LockerBuilder::fencing) is on, and only
    /// meaningful if it is on for all holders: the others do not write that they release. Work that
    /// can be left half done should look here first, and check or repair it. A holder whose final
    /// update was lost counts as one that did not release; and so may one that handed the lease over to
    /// a thread of its own process which then could not have it.
    #[must_use]
    pub fn previous(&self) -> &Previous {
        &self.previous
    }

    /// Reads the value that the lock guards: the content of the lock blob, empty at first.
    ///
    /// The service answers only while this guard holds the lease. Blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LeaseLost`] if the service says that the lease is lost. So is the lock, from
    ///   then on.
    /// - [`ErrorKind::Transport`] also if the content is larger than 4 MiB.
    /// - Others as for [`AzureMutex::acquire`](crate::AzureMutex::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob>
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        self.lease.read_content(self.watch.lease_id())
    }

    /// Replaces the value that the lock guards: the content of the lock blob, up to 4 MiB.
    ///
    /// The *service* refuses it from a holder that has lost the lease, however late it arrives: no
    /// pause can bring this write out of order. The metadata stays, and if the holder was not written
    /// yet, it is written with it. Blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LeaseLost`] if the service says that the lease is lost. The lock is lost from
    ///   then on, and nothing was written, unless an attempt before got no answer.
    /// - [`ErrorKind::Config`] if `value` is larger than 4 MiB.
    /// - Others as for [`AzureMutex::acquire`](crate::AzureMutex::acquire). If the service did not
    ///   answer, the value may have been written; writing it again does no harm.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/put-blob>
    pub fn write(&self, value: &[u8]) -> Result<(), Error> {
        if value.len() > MAX_CONTENT {
            let size = value.len();
            return Err(Error::config(format!(
                "a guarded value of {size} bytes is too large: it may have {MAX_CONTENT} (4 MiB)"
            )));
        }
        self.lease.write_content(self.watch.lease_id(), value)
    }

    /// The lease, for what is made of locks.
    pub(crate) fn lease(&self) -> &LeaseThread {
        &self.lease
    }

    /// Releases the lock. Dropping the guard does the same, and logs a failure.
    ///
    /// Succeeds only if the lock was not lost before and the service confirmed the release, so work
    /// that lost its lock does not end as a success by accident. If the lease was broken, this ends
    /// the break period, so that nobody waits for a holder that is done. A break that the guard has
    /// not noticed yet is no loss as long as nobody else has acquired the lock since: the service
    /// confirms the release only then. (If the reply to a first attempt is lost, a break *and* an
    /// acquisition by another client between the two attempts cannot be told from a success.)
    ///
    /// If another thread of this process waits for the lock, it gets the lease as it is, and the service is
    /// not asked: the result is `Ok` if the lock was held until then, as [`check`](Self::check) tells. See
    /// [`hand_over_for`](crate::LockerBuilder::hand_over_for).
    ///
    /// Blocks for at most the [`release_timeout`](crate::LockerBuilder::release_timeout), 5 seconds
    /// by default. If another release has just waited that long in vain for a service that does not
    /// answer, this one does not wait: the lease is released in the background, and the error is
    /// `Transport`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LeaseLost`] if the lock was lost before; [`loss_reason`](Error::loss_reason)
    ///   says why. Also if it was unproven, and another client has had the lease since.
    /// - [`ErrorKind::Transport`], [`ErrorKind::Service`], [`ErrorKind::Throttled`],
    ///   [`ErrorKind::Auth`] or [`ErrorKind::Protocol`] if the service did not confirm the release.
    ///   The lease is no longer renewed and runs out within its duration.
    /// - [`ErrorKind::System`] in a forked child, whose copy of the guard holds nothing.
    pub fn release(mut self) -> Result<(), Error> {
        self.finish()
    }

    /// Gives up the guard and keeps the lease: it is no longer renewed, and not released.
    ///
    /// For handing the lock to another process, which renews and releases the lease with
    /// [`AzureMutex`](crate::AzureMutex) and the key and ID in the returned [`Lease`]. Its duration
    /// counts from the last renewal. Watches of this guard answer that the lock was released. Sends
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] and [`ErrorKind::LeaseUnproven`] as for [`check`](Self::check): then
    /// there is nothing to hand over, and the lock is released as by dropping the guard.
    /// [`ErrorKind::System`] in a forked child.
    ///
    /// # Examples
    ///
    /// ```
    /// # let emulator = azmutex::emulator::Emulator::start()?;
    /// # let mutex = azmutex::AzureMutex::new(emulator.options("locks")?)?;
    /// let guard = azmutex::Locker::new(mutex.clone(), "migration")?.lock()?;
    /// let lease = guard.into_lease()?;
    /// // somewhere else, within a minute
    /// mutex.release(&lease)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_lease(mut self) -> Result<Lease, Error> {
        self.check_process()?;
        self.check()?;
        let lease = Lease::new(self.key(), self.lease_id())?;
        self.released = true;
        self.lease.detach();
        self.lease.end_turn();
        Ok(lease)
    }

    /// The one way in which a guard ends. Never panics, also while unwinding.
    fn finish(&mut self) -> Result<(), Error> {
        self.released = true;
        self.check_process()?;
        let started = self.lease.state.now();
        if self.lease.hand_over(started) {
            return Ok(());
        }
        self.lease.prepare_end();
        let result = self.lease.release(started);
        self.lease.end_turn();
        result
    }

    /// In a forked child not even the locks of its copy can be used: a thread that is gone may have
    /// held them.
    fn check_process(&self) -> Result<(), Error> {
        if self.process == process::id() {
            return Ok(());
        }
        let text = "this is a copy of the guard in a forked process, which holds no lock";
        Err(Error::new(ErrorKind::System, text))
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let Err(error) = self.finish() else { return };
        let target = &self.lease.locker.settings.events.target;
        // A second panic while unwinding would end the process.
        no_panic(|| match error.kind() {
            ErrorKind::System => {}
            ErrorKind::LeaseLost => {
                log::warn!("lock `{target}`: it had been lost before it was released: {error}");
            }
            _ => log::warn!("lock `{target}`: {error}; the lease runs out by itself"),
        });
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.watch.fmt_as("LeaseGuard", f)
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use crate::emulator::Emulator;
    use crate::{AzureMutex, ErrorKind, LeaseState, Locker};

    #[test]
    fn copy_in_a_forked_child_does_not_release() {
        let emulator = Emulator::start().unwrap();
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        let mut guard = Locker::new(mutex.clone(), "migration")
            .unwrap()
            .lock()
            .unwrap();
        guard.process = 0;
        assert_eq!(guard.release().unwrap_err().kind(), ErrorKind::System);
        assert_eq!(
            mutex.status("migration").unwrap().state(),
            LeaseState::Leased
        );
    }
}
