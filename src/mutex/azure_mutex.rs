use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::lease::Lease;
use super::locks::Locks;
use super::operations::Operations;
use super::options::MutexOptions;
use crate::azure::client::Client;
use crate::azure::status::LeaseStatus;
use crate::azure::validate::{break_period, check_key};
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind};
use crate::holder::record::Holder;
use crate::http::agent::Transport;
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::lock::acquire::{Alone, Patience, Plan, until_answered};
use crate::lock::recorder::{self, Under};

/// Lease operations by key, one REST action per call. No threads.
///
/// For work that fits into one lease, for scripts that keep the lease ID themselves, and for
/// looking at locks. [`Locker`](crate::Locker) stands on it and renews.
///
/// Cheap to clone; clones share their connections, and any number of threads may use them at once.
/// Every call blocks for at most the
/// [`request_timeout`](MutexOptions::request_timeout), 10 seconds by default. An operation that is
/// not answered is sent again within that time where that is safe: all of them but break.
///
/// # Examples
///
/// ```
/// use azmutex::{AzureMutex, LeaseDuration};
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let options = emulator.options("locks")?;
/// let mutex = AzureMutex::new(options)?;
/// let lease = mutex.acquire("migration", LeaseDuration::from_secs(60)?)?;
/// // work that takes well under a minute
/// mutex.release(&lease)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
#[derive(Clone)]
pub struct AzureMutex(Arc<Operations>);

impl AzureMutex {
    /// A client of the account and container that `options` name. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the options contradict each other: a timeout of zero, a SAS that
    /// has ended, `http://` to another machine, `https://` without a TLS feature.
    pub fn new(options: MutexOptions) -> Result<Self, Error> {
        options.check()?;
        let transport = Transport::new(options.endpoint.origin, options.endpoint.loopback);
        let client = Client::new(
            transport,
            options.credential,
            options.clock,
            options.account,
            options.endpoint.base,
            options.container,
        );
        Ok(Self(Arc::new(Operations {
            client,
            // A time without an end would overflow what it is added to.
            request_timeout: options
                .request_timeout
                .min(Duration::from_secs(24 * 60 * 60)),
            create_missing: options.create_missing,
        })))
    }

    /// Acquires the lease on `key` if nobody holds it. Does not wait.
    ///
    /// The lease lasts `duration` from now unless it is renewed; nothing renews it by itself. A
    /// missing container or blob is created, unless
    /// [`create_missing`](MutexOptions::create_missing) is off.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WouldBlock`] if another client holds it.
    /// - [`ErrorKind::Config`] if `key` is no blob name.
    /// - [`ErrorKind::NotFound`] if the container is being deleted, or something is missing and not
    ///   to be created.
    /// - [`ErrorKind::Auth`], [`ErrorKind::Throttled`], [`ErrorKind::Service`],
    ///   [`ErrorKind::Transport`], [`ErrorKind::Protocol`] if the service refused or did not
    ///   answer. A lease that may have been granted all the same is released.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn acquire(&self, key: &str, duration: LeaseDuration) -> Result<Lease, Error> {
        check_key(key)?;
        let timeout = self.0.request_timeout;
        let plan = Plan {
            client: &self.0.client,
            key,
            duration,
            usable: duration.as_duration().unwrap_or(Duration::MAX),
            request_timeout: timeout,
            create_missing: self.0.create_missing,
            poll: (Duration::ZERO, Duration::ZERO),
            // The rest is for taking back what may have been granted.
            fault_wait: timeout / 4 * 3,
        };
        match plan.run(Patience::Once, &Alone) {
            Ok(granted) => Lease::new(key, granted.id),
            Err(refused) => {
                if let Some(id) = refused.stray {
                    self.take_back(key, id, timeout / 4);
                }
                Err(refused.error)
            }
        }
    }

    /// Renews `lease`: its duration starts again.
    ///
    /// Also succeeds after the lease ran out, as long as nobody acquired it or wrote to the blob
    /// in between. An answer that names another lease ID counts as a loss.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease is no longer this one. All other kinds leave open
    /// whether it still is; see [`acquire`](Self::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.0
            .until_answered(|timeout, _| self.0.client.renew(lease.key(), lease.id(), timeout))
    }

    /// Gives the lease another ID, so that whoever knew the old one can no longer use it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease is no longer this one. Other kinds as for
    /// [`acquire`](Self::acquire); then the lease may have either ID.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn change(&self, lease: &Lease, proposed: LeaseId) -> Result<Lease, Error> {
        self.0.until_answered(|timeout, _| {
            self.0
                .client
                .change(lease.key(), lease.id(), proposed, timeout)
        })?;
        Lease::new(lease.key(), proposed)
    }

    /// Releases `lease`, so that others can acquire it at once.
    ///
    /// Tells a lease that was released now from one that had been lost before, which is not an
    /// error.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire), but for `WouldBlock`. The lease then runs out by itself,
    /// unless it is infinite.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn release(&self, lease: &Lease) -> Result<Released, Error> {
        self.release_within(lease.key(), lease.id(), self.0.request_timeout)
    }

    /// Breaks the lease on `key`, whoever holds it. Returns how long it still runs; until then
    /// nobody can acquire it.
    ///
    /// `period`: 0 to 60 whole seconds; a period can only shorten what the lease had left. `None`
    /// lets a lease run out as it would have, so a holder that lives notices in time, and breaks
    /// an infinite lease at once. With a period shorter than what the lease has left, its holder
    /// may go on for a while **after** another client acquired it.
    ///
    /// Unlike other operations it is not sent again if there is no answer: by then another client
    /// may hold the lease. Look at the [`status`](Self::status) before you break again.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotFound`] if there is no lease to break, or no blob or container.
    /// - [`ErrorKind::Config`] if `key` or `period` breaks its rule.
    /// - Others as for [`acquire`](Self::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn break_lease(&self, key: &str, period: Option<Duration>) -> Result<Duration, Error> {
        self.break_matching(key, period, None)
    }

    /// Breaks the lease on `key` as [`break_lease`](Self::break_lease) does, unless the blob was
    /// written to since it had `etag`.
    ///
    /// For a decision that took time, such as a person's: lease operations do not change the
    /// [`etag`](LeaseStatus::etag), but a new holder that writes who it is does, so a holder other
    /// than the one that was looked at is left alone. It cannot tell holders apart that write
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] if the blob was written to; others as for
    /// [`break_lease`](Self::break_lease).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use azmutex::{AzureMutex, LeaseDuration};
    ///
    /// # let emulator = azmutex::emulator::Emulator::start()?;
    /// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
    /// mutex.acquire("migration", LeaseDuration::INFINITE)?;
    /// let seen = mutex.status("migration")?;
    /// // somebody looks at `seen.holder()`, and decides
    /// mutex.break_lease_if_match("migration", Some(Duration::ZERO), seen.etag())?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations>
    pub fn break_lease_if_match(
        &self,
        key: &str,
        period: Option<Duration>,
        etag: &str,
    ) -> Result<Duration, Error> {
        self.break_matching(key, period, Some(etag))
    }

    fn break_matching(
        &self,
        key: &str,
        period: Option<Duration>,
        etag: Option<&str>,
    ) -> Result<Duration, Error> {
        check_key(key)?;
        let period = period.map(break_period).transpose()?;
        self.0.until_answered(|timeout, _| {
            let client = &self.0.client;
            let result = client.break_lease(key, period.clone(), etag, timeout);
            // It may have been broken, and another client may hold it by now: that one's lease is
            // not to be broken by a repetition.
            result.map_err(|error| {
                if error.is_ambiguous() {
                    error.permanent()
                } else {
                    error
                }
            })
        })
    }

    /// Writes who holds `lease`, for [`status`](Self::status) to show, and returns the next
    /// fencing token, which is stored with it.
    ///
    /// A [`Locker`](crate::Locker) does so by itself. It replaces what an earlier holder wrote,
    /// which otherwise seems to be the one that holds the lock now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease is no longer this one. Others as for
    /// [`acquire`](Self::acquire).
    ///
    /// # Examples
    ///
    /// ```
    /// use azmutex::{AzureMutex, Holder, LeaseDuration};
    ///
    /// # let emulator = azmutex::emulator::Emulator::start()?;
    /// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
    /// let duration = LeaseDuration::MAX;
    /// let lease = mutex.acquire("migration", duration)?;
    /// mutex.write_holder(&lease, Holder::current(duration).with_reason("release 812"))?;
    /// assert_eq!(mutex.status("migration")?.holder().unwrap().reason(), Some("release 812"));
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_holder(&self, lease: &Lease, holder: Holder) -> Result<u64, Error> {
        recorder::introduce(self.under(lease), holder, self.0.request_timeout)
    }

    /// Marks the holder that [`write_holder`](Self::write_holder) wrote as one that released, so
    /// that the next does not take it for one that was cut off. Call it before
    /// [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// As for [`write_holder`](Self::write_holder).
    pub fn write_released(&self, lease: &Lease) -> Result<(), Error> {
        recorder::sign_off(self.under(lease), self.0.request_timeout)
    }

    fn under<'a>(&'a self, lease: &'a Lease) -> Under<'a> {
        Under {
            client: &self.0.client,
            key: lease.key(),
            id: lease.id(),
        }
    }

    /// Asks the service whether `lease` is the one that holds its key.
    ///
    /// Changes nothing. Another client may break it a moment later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease is not the one, or no longer, also if it ran out and
    /// could still be renewed. Other kinds leave it open; see [`acquire`](Self::acquire).
    ///
    /// # Examples
    ///
    /// ```
    /// use azmutex::{AzureMutex, Lease, LeaseDuration, LeaseId};
    ///
    /// # let emulator = azmutex::emulator::Emulator::start()?;
    /// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
    /// let lease = mutex.acquire("migration", LeaseDuration::MAX)?;
    /// assert!(mutex.verify(&lease).is_ok());
    /// assert!(mutex.verify(&Lease::new("migration", LeaseId::random())?).is_err());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>
    pub fn verify(&self, lease: &Lease) -> Result<(), Error> {
        self.0.until_answered(|timeout, _| {
            self.0
                .client
                .read_record(lease.key(), lease.id(), timeout)
                .map(drop)
        })
    }

    /// What the service's clock says, to the second. Asks once, and also takes the date of a
    /// refusal, so it needs no permission.
    ///
    /// Signatures are refused when the clocks differ by more than 15 minutes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Transport`] if there is no reply, [`ErrorKind::Protocol`] if it has no date.
    pub fn service_time(&self) -> Result<SystemTime, Error> {
        let time = self.0.client.service_time(self.0.request_timeout)?;
        Ok(SystemTime::from(time))
    }

    /// What the service says of the lock blob `key`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the blob or the container does not exist, as before the first
    /// use of a lock. Others as for [`acquire`](Self::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>
    pub fn status(&self, key: &str) -> Result<LeaseStatus, Error> {
        check_key(key)?;
        self.0
            .until_answered(|timeout, _| self.0.client.status(key, timeout))
    }

    /// The lock blobs whose keys begin with `prefix`, in the order of their names; all of them for
    /// an empty prefix.
    ///
    /// Each call of `next` that needs another page blocks as long as one operation may.
    ///
    /// # Errors
    ///
    /// The iterator yields an error, and then nothing more, if a page cannot be had:
    /// [`ErrorKind::NotFound`] if the container does not exist, others as for
    /// [`acquire`](Self::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/list-blobs>
    pub fn list(&self, prefix: &str) -> Locks {
        Locks::new(Arc::clone(&self.0), prefix)
    }

    /// The storage account.
    #[must_use]
    pub fn account(&self) -> &str {
        self.0.client.account()
    }

    /// The container of the lock blobs.
    #[must_use]
    pub fn container(&self) -> &str {
        self.0.client.container()
    }

    /// The URL of the lock blob `key`, percent-encoded, without a SAS.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        self.0.client.url(key)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.request_timeout
    }

    pub(crate) fn create_missing(&self) -> bool {
        self.0.create_missing
    }

    pub(crate) fn release_within(
        &self,
        key: &str,
        id: LeaseId,
        timeout: Duration,
    ) -> Result<Released, Error> {
        until_answered(timeout, |timeout, may_be_done| {
            match self.0.client.release(key, id, timeout) {
                Ok(()) => Ok(Released::Released),
                Err(error) if error.kind() != ErrorKind::LeaseLost => Err(error),
                // The earlier attempt, whose answer is missing, released it.
                Err(_) if may_be_done => Ok(Released::Released),
                Err(_) => Ok(Released::AlreadyLost),
            }
        })
    }

    /// Releases an ID that may have been granted although nobody was told.
    pub(crate) fn take_back(&self, key: &str, id: LeaseId, timeout: Duration) {
        let result = self.release_within(key, id, timeout);
        no_panic(|| match result {
            Ok(_) => log::debug!("took back what may have been granted on `{key}`"),
            Err(error) => log::warn!("{error}; if it was granted, it runs out by itself"),
        });
    }
}

impl fmt::Debug for AzureMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AzureMutex").field(&self.0.client).finish()
    }
}

/// What a release found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Released {
    /// The lease was held, and is released.
    Released,
    /// The lease had been lost before: broken, taken over, or its blob deleted.
    AlreadyLost,
}
