use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::lease::Lease;
use super::leased_blob::{LeasedBlob, Seen};
use super::locks::Locks;
use super::operations::{Operations, sleep};
use super::options::MutexOptions;
use super::recorder::Recorder;
use super::silence::Silence;
use crate::azure::client::Client;
use crate::azure::status::LeaseStatus;
use crate::azure::validate::{break_period, check_key};
use crate::entra::identity::TokenIdentity;
use crate::error::{Error, ErrorKind, LossReason};
use crate::holder::record::Holder;
use crate::http::agent::Transport;
use crate::http::proxy::Proxy;
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::lease::lifecycle::Lifecycle;
use crate::lease::step::Step;
use crate::lease::terms::{Terms, WaitLimit};
use crate::lease::writing::{Outcome, Writing};
use crate::sync::Mutex;
use crate::time::dates;
use crate::time::jitter::Jitter;
use crate::time::tick::Tick;

/// Lease operations by key, one REST action per call. No threads.
///
/// For work that fits into one lease, for scripts that keep the lease ID themselves, and for
/// looking at locks. [`Locker`](crate::Locker) is built on it and renews.
///
/// Cheap to clone; clones share their connections, and any number of threads may use them at once.
/// Every call blocks for at most the [`request_timeout`](MutexOptions::request_timeout), 10 seconds
/// by default. Within that time a request that failed is sent again where that can do no harm. All
/// of them can be repeated, except for a break that the service may have carried out.
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
    /// has ended, `http://` to another machine, `https://` without a TLS feature; or if the
    /// environment names a proxy in a way that cannot be read. See [`proxy`](Self::proxy).
    pub fn new(options: MutexOptions) -> Result<Self, Error> {
        options.check()?;
        let proxy = Proxy::from_env(&options.endpoint.origin)?;
        let transport = Transport::new(options.endpoint.origin, proxy, &options.ca_certificates)?;
        let client = Client::new(
            transport,
            options.credential.trusting(&options.ca_certificates),
            options.clock,
            options.account,
            options.endpoint.base,
            options.container,
            LeaseId::random()?.bits(),
        )?;
        Ok(Self(Arc::new(Operations {
            client,
            // A time without an end would overflow what it is added to.
            request_timeout: options
                .request_timeout
                .min(Duration::from_secs(24 * 60 * 60)),
            create_missing: options.create_missing,
            silence: Silence::default(),
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
    /// - [`ErrorKind::Config`] if `key` is not a valid blob name.
    /// - [`ErrorKind::NotFound`] if the container is being deleted, or something is missing and not
    ///   to be created.
    /// - [`ErrorKind::Auth`], [`ErrorKind::Throttled`], [`ErrorKind::Service`],
    ///   [`ErrorKind::Transport`], [`ErrorKind::Protocol`] if the service refused or did not
    ///   answer.
    /// - [`ErrorKind::System`] if the system has no random numbers to give.
    ///
    /// If the service may have granted the lease although it did not say so, the lease is released
    /// before this returns. If that release is not confirmed either, [`Error::lease_id`] is the ID of
    /// the lease, which [`release`](Self::release) takes: an infinite lease would stay otherwise.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn acquire(&self, key: &str, duration: LeaseDuration) -> Result<Lease, Error> {
        self.acquire_with_id(key, duration, LeaseId::random()?)
    }

    /// Acquires the lease on `key` with an ID that the caller chose, if nobody holds it. Does not
    /// wait.
    ///
    /// Otherwise the same as [`acquire`](Self::acquire). A program that stores the ID first can
    /// release the lease after a crash in the middle of this call. Use each ID for one acquisition
    /// only: with the ID of a lease that is held, the service grants the lease again.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn acquire_with_id(
        &self,
        key: &str,
        duration: LeaseDuration,
        id: LeaseId,
    ) -> Result<Lease, Error> {
        check_key(key)?;
        let timeout = self.0.request_timeout;
        let terms = Terms {
            duration: duration.as_duration().unwrap_or(Duration::MAX),
            margin: Duration::ZERO,
            renew_every: Duration::MAX,
            max_hold: None,
            health: None,
            attempt_timeout: timeout / 2,
            // The rest is for the release of what may have been granted.
            fault_wait: timeout / 4 * 3,
            release_timeout: timeout / 4,
            poll_interval: Duration::ZERO,
            create_missing: self.0.create_missing,
            fencing: false,
            holder_delay: None,
        };
        let clock = self.0.client.clock();
        let (recorder, seen) = (Recorder::default(), Mutex::default());
        let blob = self.leased_blob(key, id, duration, &recorder, &seen);
        let mut lifecycle = Lifecycle::new(terms, WaitLimit::Once(Tick::NEVER), clock.moment());
        let mut jitter = Jitter::new(id.bits());
        let mut failure = None;
        loop {
            let now = clock.moment();
            match lifecycle.step(now) {
                Step::Send { request, timeout } => {
                    let result = blob.perform(&request, timeout);
                    let heard = clock.moment();
                    lifecycle.answered(&request, now, heard, result, jitter.next());
                }
                Step::Wait(until) => sleep(until.real.since(now.real)),
                Step::Announce(_) => {}
                Step::HandOver { .. } => return Lease::new(key, id),
                Step::Fail(error) => failure = Some(error),
                Step::Restart | Step::End => break,
            }
        }
        let error = failure.unwrap_or_else(|| Error::lost(LossReason::Taken));
        let error = error.during("acquire lease on", &self.0.client.target(key));
        Err(match lifecycle.result() {
            Some(Err(unreleased)) if unreleased.loss_reason().is_none() => error.with_lease_id(id),
            _ => error,
        })
    }

    /// Renews `lease`: its duration starts again.
    ///
    /// Also succeeds after the lease ran out, as long as nobody acquired it or wrote to the blob
    /// in between. A reply that names another lease ID counts as a loss.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if `lease` is no longer the blob's lease. After any other error, for
    /// which see [`acquire`](Self::acquire), it may or may not be.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn renew(&self, lease: &Lease) -> Result<(), Error> {
        self.0
            .until_answered(|timeout| self.0.client.renew(lease.key(), lease.id(), false, timeout))
    }

    /// Gives the lease another ID, so that whoever knew the old one can no longer use it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if `lease` is no longer the blob's lease. Others as for
    /// [`acquire`](Self::acquire); after them the lease may have either ID.
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn change(&self, lease: &Lease, proposed: LeaseId) -> Result<Lease, Error> {
        self.0.until_answered(|timeout| {
            self.0
                .client
                .change(lease.key(), lease.id(), proposed, timeout)
        })?;
        Lease::new(lease.key(), proposed)
    }

    /// Releases `lease`, so that others can acquire it at once.
    ///
    /// A release without a reply is sent again. If the service then says that the lease is gone, the
    /// earlier request is assumed to have released it. [`LeaseGuard::release`] knows better, since it
    /// knows until when the lease was held.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if the lease was lost before. Others as for
    /// [`acquire`](Self::acquire), except for `WouldBlock`; after them the lease runs out by itself,
    /// unless it is infinite.
    ///
    /// [`LeaseGuard::release`]: crate::LeaseGuard::release
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
    pub fn release(&self, lease: &Lease) -> Result<(), Error> {
        let mut unanswered = false;
        self.0.until_answered(|timeout| {
            let result = self.0.client.release(lease.key(), lease.id(), timeout);
            match result {
                Err(error) if unanswered && error.kind() == ErrorKind::LeaseLost => Ok(()),
                result => result.inspect_err(|error| {
                    unanswered |= error.is_ambiguous();
                }),
            }
        })
    }

    /// Breaks the lease on `key`, whoever holds it. Returns how long it still runs; until then
    /// nobody can acquire it.
    ///
    /// `period`: 0 to 60 whole seconds; it can only shorten what the lease has left. With `None` the
    /// lease runs out when it would have anyway, so its holder notices in time; an infinite lease
    /// ends at once. With a period shorter than what the lease has left, its holder may go on for a
    /// while **after** another client acquired it.
    ///
    /// A break that may have been carried out is not sent again, since by then another client may hold
    /// the lease. Look at the [`status`](Self::status) before you break again.
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
    /// For a decision that takes time, such as a person's. Lease operations do not change the
    /// [`etag`](LeaseStatus::etag), but a new holder that writes who it is does, so a holder other
    /// than the one that was looked at is left alone. Holders that write nothing cannot be told
    /// apart.
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
        // If it may have been done, another client may hold the lease by now: that one's is not to be
        // broken by a repetition.
        self.0.at_most_once(|timeout| {
            let client = &self.0.client;
            client.break_lease(key, period.clone(), etag, timeout)
        })
    }

    /// Writes who holds `lease`, for [`status`](Self::status) to show, and returns the next
    /// fencing token, which is stored with it.
    ///
    /// A [`Locker`](crate::Locker) does this by itself. Otherwise the holder before still appears to
    /// hold the lock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if `lease` is no longer the blob's lease. Others as for
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
    pub fn write_holder(&self, lease: &Lease, holder: Holder) -> Result<i64, Error> {
        let timeout = self.0.request_timeout;
        let (recorder, seen) = (Recorder::of(holder), Mutex::default());
        let blob = self.leased_blob(
            lease.key(),
            lease.id(),
            LeaseDuration::default(),
            &recorder,
            &seen,
        );
        let now = || self.0.client.clock().moment();
        let mut jitter = Jitter::new(lease.id().bits());
        let mut writing = Writing::new(timeout, None);
        let mut outcome = writing.write_token(now());
        while let Some(due) = writing.due() {
            if let Outcome::Failed(error) | Outcome::Lost(error) = outcome {
                return Err(error.during("fence", &self.0.client.target(lease.key())));
            }
            sleep(due.real.since(now().real));
            let (request, timeout) = writing.send(now(), timeout / 2);
            let result = blob.perform(&request, timeout);
            let random = jitter.next();
            outcome = writing.answered(&request, now(), Duration::ZERO, result, random);
        }
        Ok(writing.token().unwrap_or_default())
    }

    /// Writes that the holder named by [`write_holder`](Self::write_holder) released the lock, so that
    /// the next holder does not take its work for unfinished. Call it before
    /// [`release`](Self::release).
    ///
    /// # Errors
    ///
    /// As for [`write_holder`](Self::write_holder).
    pub fn write_released(&self, lease: &Lease) -> Result<(), Error> {
        let (client, key, id) = (&self.0.client, lease.key(), lease.id());
        self.0.until_answered(|timeout| {
            let (_, record) = client.read_record(key, id, timeout)?;
            match &record.holder {
                Some(holder) if !holder.released => client
                    .write_record(key, id, &record.released(), None, timeout)
                    .map(drop),
                _ => Ok(()),
            }
        })
    }

    fn leased_blob<'a>(
        &'a self,
        key: &'a str,
        id: LeaseId,
        duration: LeaseDuration,
        recorder: &'a Recorder,
        seen: &'a Mutex<Seen>,
    ) -> LeasedBlob<'a> {
        LeasedBlob {
            operations: &self.0,
            key,
            id,
            former: None,
            duration,
            recorder,
            seen,
        }
    }

    /// Asks the service whether `lease` is the one that holds its key.
    ///
    /// Changes nothing. Another client may break it a moment later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`] if it is not, also if it ran out and could still be renewed. After any
    /// other error, for which see [`acquire`](Self::acquire), it may or may not be.
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
    /// assert!(mutex.verify(&Lease::new("migration", LeaseId::random().expect("random numbers"))?).is_err());
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>
    pub fn verify(&self, lease: &Lease) -> Result<(), Error> {
        self.0.until_answered(|timeout| {
            self.0
                .client
                .read_record(lease.key(), lease.id(), timeout)
                .map(drop)
        })
    }

    /// The time on the service's clock, to the second. Sends one request, and takes the date of a
    /// refusal too, so it needs no permission.
    ///
    /// The service refuses signatures when the clocks differ by more than 15 minutes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Transport`] if there is no reply, [`ErrorKind::Protocol`] if it has no date.
    pub fn service_time(&self) -> Result<SystemTime, Error> {
        let time = self.0.client.service_time(self.0.request_timeout)?;
        dates::to_system(time).ok_or_else(|| {
            let text = "the reply has a date that this system cannot represent";
            Error::new(ErrorKind::Protocol, text)
        })
    }

    /// What the service says about the lock blob `key`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if the blob or the container does not exist, as is so before the first
    /// use of a lock. Others as for [`acquire`](Self::acquire).
    ///
    /// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>
    pub fn status(&self, key: &str) -> Result<LeaseStatus, Error> {
        check_key(key)?;
        self.0
            .until_answered(|timeout| self.0.client.status(key, timeout))
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

    /// Whose access token goes with requests: `None` if a key or a SAS does.
    ///
    /// Gets a token if there is none yet, and blocks for that for at most the
    /// [`request_timeout`](MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// Why no token can be had: [`ErrorKind::Auth`] if it was refused, [`ErrorKind::Transport`],
    /// [`ErrorKind::Service`] or [`ErrorKind::Throttled`] if there was no usable answer,
    /// [`ErrorKind::Config`] if a variable, a file or a program is missing or wrong,
    /// [`ErrorKind::System`] if the system has no thread to give.
    pub fn token_identity(&self) -> Result<Option<TokenIdentity>, Error> {
        self.0
            .until_answered(|timeout| self.0.client.token_identity(timeout))
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

    /// The proxy that the service is reached through, and the variable that names it, without
    /// credentials: `http://proxy:3128 (from HTTPS_PROXY)`. `None` if it is reached directly.
    ///
    /// [`new`](Self::new) reads it from the environment as curl and Go do. Of the variables that are
    /// set and not empty, the first counts: `https_proxy` and `HTTPS_PROXY` for `https://`,
    /// `http_proxy` and `HTTP_PROXY` for `http://`, then `all_proxy` and `ALL_PROXY`. `HTTP_PROXY`
    /// does not count in a CGI program, that is if `REQUEST_METHOD` is set.
    ///
    /// A value is `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`. The scheme is `http` by default, `https`,
    /// `socks4`, `socks4a`, `socks5` or `socks5h`; with `socks4` and `socks5`, this machine looks up
    /// the service's name. The port is 80, 443 or 1080 by default. All requests are tunnelled
    /// (`CONNECT`), those to `http://` too.
    ///
    /// `no_proxy` or `NO_PROXY` lists what is reached directly: names, which stand for everything
    /// below them too, addresses, networks (`10.0.0.0/8`), each with a port if wanted, or `*`. This
    /// machine is always reached directly.
    #[must_use]
    pub fn proxy(&self) -> Option<String> {
        self.0.client.transport().proxy().map(ToString::to_string)
    }

    /// The URL of the lock blob `key`, percent-encoded, without a SAS.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        self.0.client.url(key)
    }

    /// Whether both are clones of one client.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.0
    }
}

impl fmt::Debug for AzureMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AzureMutex").field(&self.0.client).finish()
    }
}
