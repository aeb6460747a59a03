use std::fmt;
use std::time::Duration;

use super::abandoned::AbandonedLeases;
use super::event::{Event, Events, Observer};
use super::settings::Settings;
use super::stop::StopToken;
use crate::azure::validate::check_key;
use crate::error::Error;
use crate::lease::ids::LeaseDuration;
use crate::lease::terms::Terms;
use crate::mutex::azure_mutex::AzureMutex;
use crate::mutex::recorder::Recorder;

/// The shortest renewal interval, and the shortest delay between attempts.
const LEAST_RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
const LEAST_POLL: Duration = Duration::from_millis(10);

/// A time without an end would overflow what it is added to.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Settings of a [`Locker`]. Made by [`Locker::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct LockerBuilder {
    mutex: AzureMutex,
    key: String,
    duration: Duration,
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
    pub(crate) fn new(mutex: AzureMutex, key: &str) -> Self {
        Self {
            mutex,
            key: key.to_owned(),
            duration: Duration::from_secs(60),
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

    /// How long the service keeps the lease after a process that held it is gone: 15 to 60
    /// seconds. Defaults to 60 seconds.
    ///
    /// In whole seconds; [`build`](Self::build) checks it. Longer leases survive longer outages of the
    /// network; shorter ones come back sooner after a crash.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
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

    /// Checks the settings.
    pub(crate) fn settings(self) -> Result<Settings, Error> {
        check_key(&self.key)?;
        let lease = LeaseDuration::try_from(self.duration)?;
        let duration = self.duration;
        let renew_every = self.renewal_interval.unwrap_or(duration / 3);
        let margin = self.margin.unwrap_or(duration / 12);
        for (name, value, least) in [
            ("renewal interval", renew_every, LEAST_RENEWAL_INTERVAL),
            ("back-off", self.poll.0.min(self.poll.1), LEAST_POLL),
        ] {
            if value < least {
                return Err(Error::config(format!(
                    "invalid {name} {value:?}: it must be at least {least:?}"
                )));
            }
        }
        for (name, value) in [
            ("margin", margin),
            ("release timeout", self.release_timeout),
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
        let operations = self.mutex.operations();
        let terms = Terms {
            duration,
            margin,
            renew_every,
            max_hold: self.max_hold,
            attempt_timeout: operations.request_timeout / 2,
            fault_wait: self.fault_wait,
            release_timeout: self.release_timeout.min(LONGEST),
            poll: self.poll,
            create_missing: operations.create_missing,
            fencing: self.fencing,
            holder_delay: Some(self.holder_delay).filter(|_| self.named),
        };
        let events = Events {
            target: operations.client.target(&self.key),
            observer: self.observer,
        };
        Ok(Settings {
            mutex: self.mutex,
            key: self.key,
            duration: lease,
            terms,
            recorder: Recorder::new(self.owner, self.reason, duration, self.named),
            events,
            stop: self.stop,
            abandoned: AbandonedLeases::default(),
            stack: Settings::STACK,
        })
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
