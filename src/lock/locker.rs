use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::azure::validate::check_key;
use crate::error::{Error, TryLockError};
use crate::lease::hold::Terms;
use crate::lease::ids::LeaseDuration;
use crate::lock::acquire::{Patience, Refused};
use crate::lock::context::{Context, Observer};
use crate::lock::event::Event;
use crate::lock::guard::LeaseGuard;
use crate::lock::keeper::Keeper;
use crate::lock::recorder::Recorder;
use crate::lock::stop::StopToken;
use crate::mutex::azure_mutex::AzureMutex;
use crate::sync::{Condvar, Mutex};

/// One lock: a key, and how to wait for it and keep it.
///
/// Cheap to clone; clones are the same lock with the same settings. Any number of threads may wait
/// at once. Not reentrant: a second `lock` waits for the first guard, also in the same thread.
///
/// # Fairness
///
/// None: a lease has no queue. Whoever asks first after a release gets it.
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
pub struct Locker(Arc<Context>);

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

    /// The lock `key` with settings of its own.
    pub fn builder(mutex: AzureMutex, key: &str) -> LockerBuilder {
        LockerBuilder {
            mutex,
            key: key.to_owned(),
            duration: LeaseDuration::default(),
            renewal_interval: None,
            margin: None,
            max_hold: None,
            poll: (Duration::from_millis(50), Duration::from_secs(1)),
            fault_wait: Duration::from_secs(60),
            release_timeout: Duration::from_secs(5),
            owner: None,
            reason: None,
            named: true,
            holder_delay: Duration::from_millis(250),
            fencing: false,
            observer: None,
            stop: None,
        }
    }

    /// Acquires the lock, waiting for as long as another client holds it.
    ///
    /// Blocks the calling thread. The first attempt is made at once; between attempts it sleeps,
    /// 50 milliseconds at first and up to a second later, with a random share. Returns within a
    /// request's time if the lock is free. A [`StopToken`] ends the waiting.
    ///
    /// Failures that may pass (no reply, an overloaded or failing service) are put up with for
    /// [`fault_wait`](LockerBuilder::fault_wait), 60 seconds by default.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Auth`](crate::ErrorKind::Auth) at once if the credential is refused.
    /// - [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the container is being deleted, or
    ///   something is missing and not to be created.
    /// - [`ErrorKind::Transport`](crate::ErrorKind::Transport),
    ///   [`Service`](crate::ErrorKind::Service), [`Throttled`](crate::ErrorKind::Throttled) or
    ///   [`Protocol`](crate::ErrorKind::Protocol) if that goes on for longer than it is put up with.
    /// - [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) if a stop token ended it.
    /// - [`ErrorKind::System`](crate::ErrorKind::System) if there is no thread to renew from.
    pub fn lock(&self) -> Result<LeaseGuard, Error> {
        self.acquire(Patience::Forever).map_err(Error::from)
    }

    /// Acquires the lock if nobody holds it. Does not wait for a holder.
    ///
    /// Blocks for one request, or for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout) if the service does not answer.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if another client holds it; others as for [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<LeaseGuard, TryLockError> {
        self.acquire(Patience::Once)
    }

    /// Acquires the lock, waiting for at most `timeout`. Zero makes one attempt.
    ///
    /// A service that is slow to answer the last attempt can hold it up for a second more.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if another client held it for all that time; others as for
    /// [`lock`](Self::lock), and the last failure if there was no other answer in that time.
    pub fn try_lock_for(&self, timeout: Duration) -> Result<LeaseGuard, TryLockError> {
        if timeout.is_zero() {
            return self.try_lock();
        }
        self.acquire(Patience::Until(self.0.clock().now() + timeout))
    }

    /// Acquires the lock, waiting until `deadline` at most. One in the past makes one attempt.
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
        &self.0.key
    }

    /// The client that this locker uses.
    #[must_use]
    pub fn mutex(&self) -> &AzureMutex {
        &self.0.mutex
    }

    /// Waits until leases that given-up attempts may have left behind are released, for at most
    /// `timeout`. Returns whether all are.
    ///
    /// An attempt that is stopped or runs out of time while the service has not answered may have
    /// been granted the lease all the same. It is released in the background; a process that is
    /// about to exit can wait for that here. Returns at once if there is nothing to wait for.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        self.0.settle(timeout)
    }

    #[cfg(test)]
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.0
    }

    fn acquire(&self, patience: Patience) -> Result<LeaseGuard, TryLockError> {
        let context = &self.0;
        let started = context.clock().now();
        let keeper = Keeper::start(context)?;
        match keeper.acquire(patience) {
            Ok(acquired) => {
                let lease_id = acquired.granted.id;
                let guard = LeaseGuard::new(Arc::clone(context), keeper, acquired);
                let elapsed = context.clock().now().since(started);
                context.notice(&Event::Acquired { lease_id, elapsed });
                Ok(guard)
            }
            Err(Refused { error, stray }) => {
                keeper.give_up(stray);
                Err(error.into())
            }
        }
    }
}

impl fmt::Debug for Locker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locker")
            .field("lock", &self.0.target())
            .field("lease_duration", &self.0.duration)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`Locker`]. Made by [`Locker::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct LockerBuilder {
    mutex: AzureMutex,
    key: String,
    duration: LeaseDuration,
    renewal_interval: Option<Duration>,
    margin: Option<Duration>,
    max_hold: Option<Duration>,
    poll: (Duration, Duration),
    fault_wait: Duration,
    release_timeout: Duration,
    owner: Option<String>,
    reason: Option<String>,
    named: bool,
    holder_delay: Duration,
    fencing: bool,
    observer: Option<Observer>,
    stop: Option<StopToken>,
}

impl LockerBuilder {
    /// How long the service keeps the lease after a process that held it is gone: 15 to 60
    /// seconds. Defaults to 60 seconds.
    ///
    /// Longer leases live through longer outages of the network; shorter ones come back sooner
    /// after a crash.
    pub fn lease_duration(mut self, duration: LeaseDuration) -> Self {
        self.duration = duration;
        self
    }

    /// How often the lease is renewed. Defaults to a third of the lease duration.
    ///
    /// Together with the margin it may take three quarters of the lease duration, so that there is
    /// time to try a failed renewal again.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.renewal_interval = Some(interval);
        self
    }

    /// How long before the end of the lease the guard stops to claim it. Defaults to a twelfth of
    /// the lease duration: 5 seconds at 60.
    ///
    /// It covers clocks that run at different rates, and the time from a check to its effect.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// After this time a guard is no longer renewed, and is lost when its lease runs out. Defaults
    /// to no limit.
    ///
    /// It bounds a guard that was leaked, or whose work hangs.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// How long to sleep between attempts while another client holds the lock: `initial` at first,
    /// then half as long again each time up to `cap`; each drawn at random from its upper half.
    /// Defaults to 50 milliseconds and 1 second.
    ///
    /// Every attempt is a billed request.
    pub fn backoff(mut self, initial: Duration, cap: Duration) -> Self {
        self.poll = (initial, cap);
        self
    }

    /// How long `lock` puts up with failures in a row that may pass. Defaults to 60 seconds.
    ///
    /// `try_lock` puts up with them for no longer than the
    /// [`request_timeout`](crate::MutexOptions::request_timeout).
    pub fn fault_wait(mut self, fault_wait: Duration) -> Self {
        self.fault_wait = fault_wait;
        self
    }

    /// How long [`LeaseGuard::release`] and `Drop` may take. Defaults to 5 seconds.
    pub fn release_timeout(mut self, timeout: Duration) -> Self {
        self.release_timeout = timeout;
        self
    }

    /// Who holds the lock, for the others to see. Defaults to `user@host`.
    ///
    /// Any text; what is longer than about a thousand bytes is cut.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// What the lock is held for, for the others to see. Defaults to nothing.
    ///
    /// Any text; what is longer than about a thousand bytes is cut. Everyone who can read the
    /// container can read it, so it is no place for secrets.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Whether a holder writes who it is into the lock blob's metadata, for
    /// [`AzureMutex::status`] to show. Defaults to true.
    ///
    /// Written by the renewal thread a moment after the lock is held and once more before it is
    /// released, so that a short hold costs no extra request. It replaces what metadata the blob
    /// had. It is never needed to break or release a lock, and a failure loses nothing.
    pub fn holder_info(mut self, on: bool) -> Self {
        self.named = on;
        self
    }

    /// How long the lock is held before its holder writes who it is. Defaults to 250 milliseconds;
    /// less than 20 milliseconds may become as much. Zero writes before `lock` returns, for which
    /// it takes up to half a [`request_timeout`](crate::MutexOptions::request_timeout) more.
    pub fn holder_delay(mut self, delay: Duration) -> Self {
        self.holder_delay = delay;
        self
    }

    /// Whether every hold gets a fencing token, and learns whether the holder before it released.
    /// Defaults to false.
    ///
    /// The token is stored before `lock` returns, together with the holder information. It is
    /// greater than any handed out before, also after the blob was deleted as long as clocks are
    /// right; it is the time in milliseconds where that is greater than the last token plus one.
    /// Costs up to three requests more for a lock and unlock. If the token cannot be stored within
    /// the [`request_timeout`](crate::MutexOptions::request_timeout), the lease is released within
    /// the [`release_timeout`](Self::release_timeout) and `lock` fails; with
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) if it was broken meanwhile. Both are
    /// added to the time that a bounded wait may take.
    ///
    /// All lockers of a key should agree on this setting: one without it that says who it is erases
    /// the last token, and then clocks alone keep the order.
    pub fn fencing(mut self, on: bool) -> Self {
        self.fencing = on;
        self
    }

    /// Hears what happens to the lock, for logs and metrics.
    ///
    /// Called on the thread where it happens: the caller's for acquired and released and for what a
    /// read or write of the guarded value finds, the renewal thread for what concerns renewals, and
    /// either for waiting. It holds that thread up, so one that blocks delays renewals. A panic in it
    /// is caught and logged.
    pub fn observer(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Lets another thread stop a waiting `lock` at once.
    pub fn stop_token(mut self, stop: &StopToken) -> Self {
        self.stop = Some(stop.clone());
        self
    }

    /// Checks the settings. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the key is no blob name, the lease is
    /// infinite, a time is zero, or the renewal interval and the margin leave less than a quarter
    /// of the lease for retries.
    pub fn build(self) -> Result<Locker, Error> {
        check_key(&self.key)?;
        let Some(duration) = self.duration.as_duration() else {
            return Err(Error::config(
                "invalid lease duration infinite: a locker renews its lease, and one without an \
                 end would stay for ever after a crash; use 15 to 60 seconds",
            ));
        };
        let renew_every = self.renewal_interval.unwrap_or(duration / 3);
        let margin = self.margin.unwrap_or(duration / 12);
        for (name, value) in [
            ("renewal interval", renew_every),
            ("margin", margin),
            ("release timeout", self.release_timeout),
            ("back-off", self.poll.0.min(self.poll.1)),
            ("fault wait", self.fault_wait),
            ("max hold", self.max_hold.unwrap_or(Duration::MAX)),
        ] {
            if value.is_zero() {
                return Err(Error::config(format!("invalid {name} 0: it must be more")));
            }
        }
        if renew_every.saturating_add(margin) > duration / 4 * 3 {
            return Err(Error::config(format!(
                "a renewal interval of {renew_every:?} and a margin of {margin:?} leave no room to \
                 retry within a lease of {duration:?}: together they may take {:?}",
                duration / 4 * 3
            )));
        }
        // A time without an end would overflow what it is added to.
        let release_timeout = self.release_timeout.min(Duration::from_secs(24 * 60 * 60));
        let terms = Terms {
            duration,
            margin,
            renew_every,
            attempt_timeout: self.mutex.request_timeout() / 2,
            max_hold: self.max_hold,
        };
        Ok(Locker(Arc::new(Context {
            mutex: self.mutex,
            key: self.key,
            duration: self.duration,
            terms,
            poll: self.poll,
            fault_wait: self.fault_wait,
            release_timeout,
            recorder: Recorder {
                owner: self.owner,
                reason: self.reason,
                lease: Some(duration),
                pid: None,
                named: self.named,
                fencing: self.fencing,
                delay: self.holder_delay,
                last: Mutex::new(None),
            },
            observer: self.observer,
            stop: self.stop,
            stack: Context::STACK,
            spare: Mutex::new(None),
            strays: Mutex::new(0),
            strays_changed: Condvar::new(),
        })))
    }
}

impl fmt::Debug for LockerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockerBuilder")
            .field("key", &self.key)
            .field("lease_duration", &self.duration)
            .finish_non_exhaustive()
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
        Arc::get_mut(&mut locker.0).expect("it is new").stack = usize::MAX / 2;

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
        let rows = [
            (new().renewal_interval(secs(41)), "leave no room to retry"),
            (new().margin(secs(26)), "leave no room to retry"),
            (
                new().renewal_interval(Duration::MAX),
                "leave no room to retry",
            ),
            (
                new()
                    .lease_duration(LeaseDuration::MIN)
                    .renewal_interval(secs(11)),
                "leave no room",
            ),
            (
                new().renewal_interval(Duration::ZERO),
                "invalid renewal interval 0",
            ),
            (new().margin(Duration::ZERO), "invalid margin 0"),
            (
                new().release_timeout(Duration::ZERO),
                "invalid release timeout 0",
            ),
            (new().backoff(Duration::ZERO, secs(1)), "invalid back-off 0"),
            (new().backoff(secs(1), Duration::ZERO), "invalid back-off 0"),
            (new().fault_wait(Duration::ZERO), "invalid fault wait 0"),
            (new().max_hold(Duration::ZERO), "invalid max hold 0"),
            (
                new().lease_duration(LeaseDuration::INFINITE),
                "would stay for ever after a crash",
            ),
            (Locker::builder(new().mutex, ""), "invalid key"),
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
