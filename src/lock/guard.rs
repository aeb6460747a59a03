use std::fmt;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::azure::client::MAX_CONTENT;
use crate::callback::no_panic;
use crate::error::LossReason;
use crate::error::{Error, ErrorKind};
use crate::holder::record::Previous;
use crate::lease::hold::Claim;
use crate::lease::ids::LeaseId;
use crate::lock::context::{Acquired, Context};
use crate::lock::event::Event;
use crate::lock::keeper::{Keeper, Shared};
use crate::mutex::azure_mutex::Released;

/// A held lock. Renews its lease from a thread of its own, and releases it when dropped.
///
/// Made by [`Locker::lock`](crate::Locker::lock) and its kin. It borrows nothing and may be sent to
/// another thread; threads that do the work take a [`watch`](Self::watch).
///
/// # What it claims
///
/// While [`is_held`](Self::is_held) answers true, no other client holds the lease. The answer is
/// computed from the clock at the moment it is asked for, and waits for nothing: a renewal thread
/// that hangs cannot make it wrong. When no renewal was confirmed in time the lock is *unproven*:
/// `is_held` answers false and [`check`](Self::check) fails, while renewals go on; if one is
/// confirmed, nobody held the lock in between, and it is held again. (A network that delivers a copy
/// of an unanswered acquire more than a lease late could hide a holder in between; that nobody else
/// holds the lock *now* is true all the same.) *Lost* is final.
///
/// # What it cannot promise
///
/// That the work between a check and its effect is not overtaken: a process can be stopped right
/// after the check, for longer than the lease lasts. Only the resource itself can refuse work that
/// comes too late.
///
/// # When it does not release
///
/// `Drop` does not run on [`process::exit`], on abort, on a signal that ends the process, when a
/// guard is leaked ([`mem::forget`](std::mem::forget), a cycle of `Rc`), or in a forked child. A
/// process that is gone renews nothing, so its lease runs out within its duration. A leaked guard
/// in a process that lives is renewed for ever, unless
/// [`max_hold`](crate::LockerBuilder::max_hold) bounds it. The copy in a forked child hears of no
/// renewal and of no release: it is not to be asked.
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
/// drop(guard); // or guard.release()? to see what became of it
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[must_use = "if unused the lease is released immediately"]
#[clippy::has_significant_drop]
pub struct LeaseGuard {
    context: Arc<Context>,
    keeper: Keeper,
    watch: LeaseWatch,
    fencing_token: Option<u64>,
    previous: Previous,
    /// The process that acquired. A forked child has a copy of the guard, but not the lock.
    process: u32,
    released: bool,
}

impl LeaseGuard {
    pub(crate) fn new(context: Arc<Context>, keeper: Keeper, acquired: Acquired) -> Self {
        let watch = LeaseWatch {
            shared: Arc::clone(keeper.shared()),
            context: Arc::clone(&context),
            id: acquired.granted.id,
        };
        let fencing_token = acquired.fencing_token();
        let previous = acquired.previous.clone();
        keeper.keep(acquired);
        let (process, released) = (process::id(), false);
        Self {
            context,
            keeper,
            watch,
            fencing_token,
            previous,
            process,
            released,
        }
    }

    /// Whether the lock is held now. Never blocks.
    ///
    /// A false answer is final only if the lock is lost; [`check`](Self::check) tells.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.watch.is_held()
    }

    /// Fails unless the lock is held now. Never blocks on the network.
    ///
    /// To be called before each step that must not run twice.
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

    /// When the claim ends unless the lease is renewed before. In the past if it is not held.
    ///
    /// `Instant` stands still while the machine sleeps, and the lease does not: ask again after
    /// waiting, rather than keep the answer.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.watch.deadline()
    }

    /// How long the claim lasts unless the lease is renewed before. Zero if it is not held.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.watch.remaining()
    }

    /// The ID of the lease, for writes to the lock blob that the service is to refuse once the
    /// lease is lost. Not a fencing token: lease IDs have no order.
    #[must_use]
    pub fn lease_id(&self) -> LeaseId {
        self.watch.id
    }

    /// A handle for the threads that do the work: it tells whether the lock is held, and does not
    /// keep it.
    #[must_use]
    pub fn watch(&self) -> LeaseWatch {
        self.watch.clone()
    }

    /// A number greater than any that was handed out for this lock before, for resources that
    /// refuse work with a smaller one than they have seen. `None` unless
    /// [`fencing`](crate::LockerBuilder::fencing) is on.
    #[must_use]
    pub fn fencing_token(&self) -> Option<u64> {
        self.fencing_token
    }

    /// Whether the previous holder released the lock or left without releasing, and who it was.
    ///
    /// Always [`Previous::Unknown`] unless [`fencing`](crate::LockerBuilder::fencing) is on. Work
    /// that can be half done should look here and check or repair it first. A holder whose last
    /// words were lost on the way counts as one that left.
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
    /// [`ErrorKind::LeaseLost`] if the lease is lost; the guard is then lost at once. Others as for
    /// [`AzureMutex::acquire`](crate::AzureMutex::acquire); [`ErrorKind::Transport`] also if the
    /// content is larger than 4 MiB.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob>
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        self.keeper.read_content(self.watch.id)
    }

    /// Replaces the value that the lock guards: the content of the lock blob, up to 4 MiB.
    ///
    /// The *service* refuses it from a holder that has lost the lease, however late it comes: this
    /// is the one write that no pause can bring out of order. Holder information and fencing token
    /// stay. Blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::LeaseLost`] if the lease is lost: nothing was written, and the guard is lost
    ///   at once.
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
        self.keeper.write_content(self.watch.id, value)
    }

    /// Releases the lock and tells what became of it. `Drop` does the same, and logs a failure.
    ///
    /// If the lease was broken this ends its break period, so that nobody waits for a holder that
    /// is done.
    ///
    /// Blocks for at most the [`release_timeout`](crate::LockerBuilder::release_timeout), 5
    /// seconds by default.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Transport`], [`ErrorKind::Service`], [`ErrorKind::Throttled`],
    /// [`ErrorKind::Auth`] or [`ErrorKind::Protocol`] if the service did not confirm. The lease is
    /// no longer renewed and runs out within its duration. [`ErrorKind::System`] in a forked child,
    /// whose copy of the guard holds nothing.
    pub fn release(mut self) -> Result<Released, Error> {
        self.finish()
    }

    /// The one way in which a guard ends. Never panics, also while unwinding.
    fn finish(&mut self) -> Result<Released, Error> {
        self.released = true;
        if self.process != process::id() {
            // Not even its locks can be used here: a thread that is gone may have held them.
            let text = "this is a copy of the guard in a forked process, which holds no lock";
            return Err(Error::new(ErrorKind::System, text));
        }
        let result = self.keeper.release(self.watch.id);
        if matches!(result, Ok(Released::Released)) {
            self.context.notice(&Event::Released);
        }
        result
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let result = self.finish();
        let target = self.context.target();
        // A second panic while unwinding would end the process.
        no_panic(|| match result {
            Ok(Released::Released) => {}
            Ok(Released::AlreadyLost) => {
                log::warn!("the lock `{target}` had been lost before its release");
            }
            Err(error) if error.kind() == ErrorKind::System => {}
            Err(error) => log::warn!("{error}; the lease runs out by itself"),
        });
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.watch.fmt_as("LeaseGuard", f)
    }
}

/// Tells whether a [`LeaseGuard`]'s lock is held, without keeping it.
///
/// Cheap to clone and to share with the threads that do the work. After the guard is gone it
/// answers that the lock was released.
#[derive(Clone)]
pub struct LeaseWatch {
    shared: Arc<Shared>,
    context: Arc<Context>,
    id: LeaseId,
}

impl LeaseWatch {
    /// See [`LeaseGuard::is_held`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.shared.clock.now() < self.shared.deadline()
    }

    /// See [`LeaseGuard::check`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseUnproven`] and [`ErrorKind::LeaseLost`], as there; `LeaseLost` with
    /// [`LossReason::Released`] once the guard is gone.
    pub fn check(&self) -> Result<(), Error> {
        let error = match self.shared.claim() {
            Claim::Held => return Ok(()),
            Claim::Lost(reason) => Error::lost(reason),
            Claim::Unproven => {
                let secs = self.shared.unconfirmed_for().as_secs();
                let text = format!("no renewal was confirmed for {secs} s; it may be lost");
                Error::new(ErrorKind::LeaseUnproven, text)
            }
        };
        Err(error.during("keep the lock", &self.context.target()))
    }

    /// See [`LeaseGuard::deadline`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let (now, deadline) = (self.shared.clock.now(), self.shared.deadline());
        let instant = Instant::now();
        let past = now.since(deadline);
        (instant + deadline.since(now))
            .checked_sub(past)
            .unwrap_or(instant)
    }

    /// See [`LeaseGuard::remaining`].
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.shared.deadline().since(self.shared.clock.now())
    }

    /// See [`LeaseGuard::lease_id`].
    #[must_use]
    pub fn lease_id(&self) -> LeaseId {
        self.id
    }

    /// Why the lock was lost, if it was.
    #[must_use]
    pub fn loss_reason(&self) -> Option<LossReason> {
        match self.shared.claim() {
            Claim::Lost(reason) => Some(reason),
            Claim::Held | Claim::Unproven => None,
        }
    }

    fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("lock", &self.context.target())
            .field("lease_id", &self.id)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_as("LeaseWatch", f)
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
