//! Work that is done once, or once in a while, whoever tries and however often.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::holder::record::Done;
use crate::lease::terms::WaitLimit;
use crate::lock::guard::LeaseGuard;
use crate::lock::locker::Locker;
use crate::mutex::azure_mutex::AzureMutex;
use crate::time::dates;
use crate::time::tick::Tick;

/// What became of work that is to be done once: see [`Locker::once`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // it was done now, or before
pub enum Once<T> {
    /// It was done now, and that is recorded.
    Ran(T),
    /// It had been done before.
    AlreadyDone(Done),
}

/// Why work that is to be done once is not known to be done: see [`Locker::once`].
///
/// `T` is what the work returns, and `E` its error. An error of this type can be
/// passed on as a [`std::error::Error`] if `E` can: not if it is a `String`.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_enums)] // before the work, in it, after it
pub enum OnceError<T, E> {
    /// It was not tried: whether it is done could not be told, or the lock not be had.
    Lock(Error),
    /// It was tried and failed. Nothing is recorded, so the next call tries again.
    Work(E),
    /// It was done, and that could not be recorded: the lock was lost, or the service did not answer.
    /// The next call may do it again.
    Unrecorded(T, Error),
}

impl Locker {
    /// Does `work` under the lock, unless it is recorded that it was done.
    ///
    /// With `every`, it counts as done for that long. For something that is due each day, use less than
    /// a day, such as 23 hours, or a key with the date in it.
    ///
    /// The work runs one at a time, whoever calls this, and after a recorded success never again, or not
    /// within `every`. That is *at least once*, not exactly once: if the process is killed after the work
    /// and before the record, the work runs again. So make it such that running it twice does no harm,
    /// or write its result with [`LeaseGuard::write`]. If it fails or panics, nothing is recorded.
    ///
    /// Whether it is done is told by the service's clock alone, so the clocks of the machines play no
    /// part. All callers have to use one key for one work, and the same `every`.
    ///
    /// A call that finds the work done takes one request and no lease. The first takes five, one of them
    /// to look again under the lock, since another caller may have done the work during the wait.
    ///
    /// Blocks while another caller is at work, as [`lock`](Self::lock) does;
    /// [`try_once_for`](Self::try_once_for) waits for a while.
    ///
    /// # Errors
    ///
    /// [`OnceError`] says whether the work was tried. Its `Lock` is as for [`lock`](Self::lock), or says
    /// that the lock was lost or became unproven before the work began; its `Unrecorded` is as for
    /// [`LeaseGuard::record_done`].
    ///
    /// # Examples
    ///
    /// ```
    /// use azmutex::{AzureMutex, Locker, Once};
    ///
    /// # let emulator = azmutex::emulator::Emulator::start()?;
    /// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
    /// let migration = Locker::new(mutex, "migrations/0042")?;
    /// for _ in 0..2 {
    ///     match migration.once(None, |guard| {
    ///         guard.check()?; // before each step
    ///         Ok::<_, azmutex::Error>("migrated")
    ///     })? {
    ///         Once::Ran(result) => println!("{result}"),
    ///         Once::AlreadyDone(done) => println!("done by {}", done.by().unwrap_or("somebody")),
    ///     }
    /// }
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn once<T, E>(
        &self,
        every: Option<Duration>,
        work: impl FnOnce(&LeaseGuard) -> Result<T, E>,
    ) -> Result<Once<T>, OnceError<T, E>> {
        self.once_within(WaitLimit::Forever, every, work)
    }

    /// As [`once`](Self::once), and waits for at most `timeout` while another caller is at work. With
    /// zero it does not wait. To look whether the work is done takes up to the
    /// [`request_timeout`](crate::MutexOptions::request_timeout) besides, if the service does not answer.
    ///
    /// # Errors
    ///
    /// As for [`once`](Self::once). [`OnceError::Lock`] is of kind
    /// [`WouldBlock`](ErrorKind::WouldBlock) if another caller was at work until then.
    pub fn try_once_for<T, E>(
        &self,
        timeout: Duration,
        every: Option<Duration>,
        work: impl FnOnce(&LeaseGuard) -> Result<T, E>,
    ) -> Result<Once<T>, OnceError<T, E>> {
        let limit = match timeout {
            Duration::ZERO => WaitLimit::Once(Tick::NEVER),
            timeout => WaitLimit::Until(self.clock().now() + timeout),
        };
        self.once_within(limit, every, work)
    }

    fn once_within<T, E>(
        &self,
        limit: WaitLimit,
        every: Option<Duration>,
        work: impl FnOnce(&LeaseGuard) -> Result<T, E>,
    ) -> Result<Once<T>, OnceError<T, E>> {
        match self.done(every) {
            Ok(Some(done)) => return Ok(Once::AlreadyDone(done)),
            Ok(None) => {}
            // The wait for the lock asks again, and whether it is done is asked under it.
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(OnceError::Lock(error)),
        }
        let guard = self.acquire(limit).map_err(OnceError::Lock)?;
        if let Some(done) = guard.done(every).map_err(OnceError::Lock)? {
            return Ok(Once::AlreadyDone(done));
        }
        // The look may have taken longer than the lease lasts.
        guard.check().map_err(OnceError::Lock)?;
        let value = work(&guard).map_err(OnceError::Work)?;
        match guard.record_done() {
            Ok(()) => Ok(Once::Ran(value)),
            Err(error) => Err(OnceError::Unrecorded(value, error)),
        }
    }

    /// Whether it is recorded that the work which the lock is for was done, by the service's clock less
    /// than `every` ago if that is given. See [`once`](Self::once).
    ///
    /// Takes one request, and blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// As for [`AzureMutex::status`](crate::AzureMutex::status), but a blob or a container that does not
    /// exist is no error: nothing was done.
    pub fn done(&self, every: Option<Duration>) -> Result<Option<Done>, Error> {
        let status = match self.mutex().status(self.key()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            status => status?,
        };
        not_due(self.mutex(), status.done().cloned(), every)
    }

    /// Removes the record that the work was done, so that it is due again.
    ///
    /// Takes two requests, or two more for each client that writes to the blob meanwhile. Blocks for at
    /// most the [`request_timeout`](crate::MutexOptions::request_timeout) for each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] if somebody holds the lock, who may be at work; others as for
    /// [`done`](Self::done).
    pub fn forget_done(&self) -> Result<(), Error> {
        let operations = self.mutex().operations();
        loop {
            let status = match self.mutex().status(self.key()) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                status => status?,
            };
            if status.done().is_none() {
                return Ok(());
            }
            let etag = status.etag().to_owned();
            let record = status.record.with_done(None);
            let written = operations.until_answered(|timeout| {
                let client = &operations.client;
                client.write_unleased(self.key(), &record, &etag, timeout)
            });
            match written {
                // By an attempt before that got no answer, or by another client.
                Err(error) if error.service_code() == Some("ConditionNotMet") => {}
                Err(error) if error.service_code() == Some("LeaseIdMissing") => {
                    return Err(error.into_busy());
                }
                result => return result,
            }
        }
    }
}

impl LeaseGuard {
    /// As [`Locker::done`], and the service answers only while this guard holds the lease.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn done(&self, every: Option<Duration>) -> Result<Option<Done>, Error> {
        let done = self.lease().read_done(self.lease_id())?;
        not_due(&self.lease().locker.settings.mutex, done, every)
    }

    /// Records, by the service's clock, that the work is done which the lock is for, so that
    /// [`Locker::done`] answers so from now on. [`Locker::once`] does this by itself.
    ///
    /// The service refuses it from a holder that has lost the lease. It stands in the lock blob's
    /// metadata, with the holder, until [`forget_done`](Locker::forget_done). Blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/set-blob-metadata>
    pub fn record_done(&self) -> Result<(), Error> {
        self.lease().write_done(self.lease_id())
    }
}

/// What was done less than `every` ago, if that is given, by the service's clock.
fn not_due(
    mutex: &AzureMutex,
    done: Option<Done>,
    every: Option<Duration>,
) -> Result<Option<Done>, Error> {
    let (Some(done), Some(every)) = (&done, every) else {
        return Ok(done);
    };
    let now = mutex.operations().client.service_now();
    let now = now.and_then(dates::to_system).ok_or_else(|| {
        let text = "the reply has no date, so whether the work is due cannot be told";
        Error::new(ErrorKind::Protocol, text)
    })?;
    let age = now.duration_since(done.at).unwrap_or_default();
    Ok((age < every).then(|| done.clone()))
}

impl<T, E: fmt::Display> fmt::Display for OnceError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(error) => error.fmt(f),
            Self::Work(error) => write!(f, "the work failed: {error}"),
            Self::Unrecorded(_, error) => {
                write!(
                    f,
                    "the work was done, and that could not be recorded: {error}"
                )
            }
        }
    }
}

impl<T: fmt::Debug, E: StdError + 'static> StdError for OnceError<T, E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Lock(error) => error.source(),
            Self::Work(error) => error.source(),
            Self::Unrecorded(_, error) => error.source(),
        }
    }
}
