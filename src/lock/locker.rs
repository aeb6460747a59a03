use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::race::OnceBox;

use super::builder::LockerBuilder;
use super::guard::LeaseGuard;
use super::queue::Queues;
use super::settings::Settings;
use super::state::{LeaseThread, LockerInner};
use crate::error::{Error, TryLockError};
use crate::lease::terms::WaitLimit;
use crate::mutex::azure_mutex::AzureMutex;
use crate::mutex::options::MutexOptions;
use crate::time::clock::Clock;
use crate::time::tick::Tick;

/// One lock: a key, and how to wait for it and keep it.
///
/// Cheap to clone; clones are the same lock with the same settings. Any number of threads may wait
/// at once. Not reentrant: a second `lock` waits for the first guard, even in the same thread.
///
/// # Fairness
///
/// First come, first served within a process; see
/// [`hand_over_for`](LockerBuilder::hand_over_for). None between processes: a lease has no queue, and
/// whoever asks first after a release gets it.
///
/// # Examples
///
/// ```
/// use azmutex::{AzureMutex, Locker, TryLockError};
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let options = emulator.options("locks")?;
/// let mutex = AzureMutex::new(options)?;
/// let locker = Locker::new(mutex, "migration")?;
/// {
///     let _guard = locker.lock()?;
///     // nobody else is here
/// } // released
/// match locker.try_lock() {
///     Ok(_guard) => println!("mine"),
///     Err(TryLockError::WouldBlock) => println!("somebody else's"),
///     Err(TryLockError::Error(error)) => return Err(error.into()),
/// }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Locker(Arc<LockerInner>);

/// Set without a lock, since a forked child could wait for one for ever.
static QUEUES: OnceBox<Queues<LeaseThread>> = OnceBox::new();

impl Locker {
    /// The lock `key` with the default settings. Sends nothing.
    ///
    /// `key`: a blob name, 1 to 1024 characters, slashes allowed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `key` is no blob name.
    pub fn new(mutex: AzureMutex, key: &str) -> Result<Self, Error> {
        Self::builder(mutex, key).build()
    }

    /// The lock `key` with the default settings, in the account that the environment names: see
    /// [`MutexOptions::from_env`](crate::MutexOptions::from_env). Sends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the environment names no account and
    /// credential, or a value breaks its rule.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use azmutex::Locker;
    ///
    /// let guard = Locker::from_env("locks", "migration")?.lock()?;
    /// // nobody else is here
    /// guard.release()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_env(container: &str, key: &str) -> Result<Self, Error> {
        Self::new(AzureMutex::new(MutexOptions::from_env(container)?)?, key)
    }

    /// The lock `key` with settings of its own.
    pub fn builder(mutex: AzureMutex, key: &str) -> LockerBuilder {
        LockerBuilder::new(mutex, key)
    }

    /// Acquires the lock, waiting for as long as another client holds it.
    ///
    /// Blocks the calling thread. Those who wait in one process are served in the order in which they
    /// came, and only the first of them asks the service; see
    /// [`hand_over_for`](LockerBuilder::hand_over_for). It asks at once. While another client holds the
    /// lock there is another attempt about every 625 milliseconds; see
    /// [`poll_interval`](LockerBuilder::poll_interval). A [`StopToken`](crate::StopToken) ends the
    /// wait. A wait is logged at `info` when it begins, when the holder changes, and then about every
    /// 10 seconds, with the holder if it is known.
    ///
    /// Failures that may pass, such as a missing reply or an overloaded service, are retried for
    /// [`fault_wait`](LockerBuilder::fault_wait), 60 seconds by default. Those who have waited in line
    /// behind a thread that asks in vain for about as long fail with it.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Auth`](crate::ErrorKind::Auth) if the credential is refused: at once if that is
    ///   the first answer, and otherwise if it goes on for longer than `fault_wait`.
    /// - [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the container is being deleted, under
    ///   the same rule, or if something is missing and not to be created.
    /// - [`ErrorKind::Transport`](crate::ErrorKind::Transport),
    ///   [`Service`](crate::ErrorKind::Service), [`Throttled`](crate::ErrorKind::Throttled) or
    ///   [`Protocol`](crate::ErrorKind::Protocol) if failures go on for longer than `fault_wait`.
    /// - [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) if a stop token ended the wait.
    /// - [`ErrorKind::System`](crate::ErrorKind::System) if the system has no thread or no random
    ///   numbers to give.
    ///
    /// A lease that the service may have granted all the same is released in the background; see
    /// [`settle`](Self::settle) and [`Error::lease_id`].
    pub fn lock(&self) -> Result<LeaseGuard, Error> {
        self.acquire(WaitLimit::Forever)
    }

    /// Acquires the lock if nobody holds it. Does not wait for a holder, nor in line.
    ///
    /// Answers at once, and asks nothing, while a guard in this process holds the lock, and while the
    /// process lets others in before the threads that wait in it; see
    /// [`hand_over_for`](LockerBuilder::hand_over_for). Otherwise
    /// blocks for one request if the service answers, and otherwise for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout); with
    /// [`fencing`](LockerBuilder::fencing), for at most as long again to store the token.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if another client holds it; others as for [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<LeaseGuard, TryLockError> {
        Ok(self.acquire(WaitLimit::Once(Tick::NEVER))?)
    }

    /// Acquires the lock, waiting for at most `timeout`. With zero, the same as
    /// [`try_lock`](Self::try_lock).
    ///
    /// There is a last attempt shortly before the time is up. The first attempt is given a second even
    /// if `timeout` is less. Whoever waits in line until then asks nothing, unless it is the first in
    /// line, nobody in this process has the lock, and the process does not let others in before those
    /// behind it.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if somebody else held it until then, as far as is known, or others
    /// in this process were served before; others as for [`lock`](Self::lock). If the service never
    /// answered, the last failure.
    pub fn try_lock_for(&self, timeout: Duration) -> Result<LeaseGuard, TryLockError> {
        if timeout.is_zero() {
            return self.try_lock();
        }
        Ok(self.acquire(WaitLimit::Until(self.clock().now() + timeout))?)
    }

    /// Acquires the lock, waiting until `deadline` at most. With one in the past, the same as
    /// [`try_lock`](Self::try_lock).
    ///
    /// # Errors
    ///
    /// As for [`try_lock_for`](Self::try_lock_for).
    pub fn try_lock_until(&self, deadline: Instant) -> Result<LeaseGuard, TryLockError> {
        self.try_lock_for(deadline.saturating_duration_since(Instant::now()))
    }

    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.settings.key
    }

    /// The client that this locker uses.
    #[must_use]
    pub fn mutex(&self) -> &AzureMutex {
        &self.0.settings.mutex
    }

    /// Waits until leases that abandoned attempts may have left behind are released, for at most
    /// `timeout`. Returns whether all are.
    ///
    /// When a wait is stopped or runs out of time before the service has answered, the service may have
    /// granted the lease all the same. It is released in the background, as is that of a guard whose
    /// release did not wait for a silent service. A process that is about to exit can wait for that
    /// here. Returns at once if there is nothing to wait for. A release that fails is not retried for
    /// ever: such a lease runs out by itself.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        self.0.settings.abandoned.settle(timeout)
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.mutex().operations().client.clock()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Acquires the lock within `limit`.
    pub(crate) fn acquire(&self, limit: WaitLimit) -> Result<LeaseGuard, Error> {
        let (lease, granted) = LeaseThread::acquire(&self.0, limit)?;
        Ok(LeaseGuard::new(lease, granted))
    }
}

impl fmt::Debug for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker")
            .field("lock", &self.0.settings.events.target)
            .field("lease_duration", &self.0.settings.duration)
            .finish_non_exhaustive()
    }
}

impl LockerBuilder {
    /// Checks the settings. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the key is no blob name, the lease is
    /// infinite, a time is zero, or the renewal interval and the margin leave less than a quarter
    /// of the lease for retries.
    pub fn build(self) -> Result<Locker, Error> {
        let settings = self.settings()?;
        let client = &settings.mutex.operations().client;
        let queue = (!settings.hand_over_for.is_zero()).then(|| {
            let queues = QUEUES.get_or_init(|| Box::new(Queues::new()));
            queues.of((client.url(&settings.key), client.clock().id()))
        });
        Ok(Locker(Arc::new(LockerInner { settings, queue })))
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::emulator::Emulator;

    fn builder(emulator: &Emulator) -> LockerBuilder {
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        Locker::builder(mutex, "migration")
    }

    #[test]
    fn thread_that_cannot_be_started_strands_no_lease() {
        let emulator = Emulator::start().unwrap();
        drop(builder(&emulator).build().unwrap().lock().unwrap());
        let requests = emulator.requests();
        let mut locker = builder(&emulator).build().unwrap();
        Arc::get_mut(&mut locker.0)
            .expect("it is new")
            .settings
            .stack = usize::MAX / 2;

        let error = locker.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System);
        assert!(
            error
                .to_string()
                .contains("no thread to renew the lease from"),
            "{error}"
        );
        assert_eq!(
            emulator.requests(),
            requests,
            "nothing was asked of the service"
        );
    }

    #[test]
    fn settings_that_leave_no_room_are_refused_with_the_rule() {
        let emulator = Emulator::start().unwrap();
        let secs = Duration::from_secs;
        let new = || builder(&emulator);
        let locker = new().build().unwrap();
        let rows = [
            (new().renewal_interval(secs(41)), "leave no room to retry"),
            (new().margin(secs(26)), "leave no room to retry"),
            (
                new().renewal_interval(Duration::MAX),
                "leave no room to retry",
            ),
            (
                new()
                    .lease_duration(Duration::from_secs(15))
                    .renewal_interval(secs(11)),
                "leave no room",
            ),
            (
                new().renewal_interval(Duration::ZERO),
                "invalid renewal interval 0ns",
            ),
            (new().margin(Duration::ZERO), "invalid margin 0"),
            (
                new().release_timeout(Duration::ZERO),
                "invalid release timeout 0",
            ),
            (
                new().renewal_interval(Duration::from_nanos(1)),
                "it must be at least 1s",
            ),
            (
                new().poll_interval(Duration::from_micros(9_999)),
                "invalid poll interval 9.999ms: it must be at least 10ms",
            ),
            (new().fault_wait(Duration::ZERO), "invalid fault wait 0"),
            (new().max_hold(Duration::ZERO), "invalid max hold 0"),
            (
                new().health(Duration::from_millis(999)),
                "invalid time for a sign of life 999ms: it must be at least 1s",
            ),
            (new().lease_duration(secs(61)), "15 to 60 seconds"),
            (Locker::builder(locker.mutex().clone(), ""), "invalid key"),
        ];
        for (builder, rule) in rows {
            let error = builder.build().expect_err(rule);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(rule), "{error}");
        }
        new()
            .renewal_interval(secs(40))
            .build()
            .expect("40 + 5 of 60 is three quarters");
        assert_eq!(emulator.requests(), 0);
    }
}
