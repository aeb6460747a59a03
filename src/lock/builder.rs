use std::fmt;
use std::sync::Arc;
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
const LEAST_HEALTH: Duration = Duration::from_secs(1);

/// A time without an end would overflow what it is added to.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Settings of a [`Locker`](crate::Locker), made by [`Locker::builder`](crate::Locker::builder).
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct LockerBuilder {
    mutex: AzureMutex,
    key: String,
    duration: Duration,
    renewal_interval: Option<Duration>,
    margin: Option<Duration>,
    max_hold: Option<Duration>,
    health: Option<Duration>,
    poll_interval: Duration,
    fault_wait: Duration,
    release_timeout: Duration,
    owner: Option<String>,
    reason: Option<String>,
    named: bool,
    holder_delay: Duration,
    fencing: bool,
    hand_over_for: Duration,
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
            health: None,
            poll_interval: Duration::from_millis(625),
            fault_wait: Duration::from_secs(60),
            release_timeout: Duration::from_secs(5),
            owner: None,
            reason: None,
            named: true,
            holder_delay: Duration::from_millis(250),
            fencing: false,
            hand_over_for: Duration::from_secs(15),
            observer: None,
            stop: None,
        }
    }

    /// The same settings for another key.
    pub(crate) fn for_key(&self, key: String) -> Self {
        Self {
            key,
            ..self.clone()
        }
    }

    /// The same settings, with another observer before the one that was given, which may block or panic.
    pub(crate) fn and_observer(mut self, other: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        let observer = self.observer.take();
        self.observer(move |event| {
            other(event);
            if let Some(observer) = &observer {
                observer(event);
            }
        })
    }

    /// The key that was given.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// How long the service keeps the lease if it is not renewed: 15 to 60 whole seconds. Defaults to
    /// 60 seconds.
    ///
    /// [`build`](Self::build) checks it. A longer lease survives a longer network outage; a shorter
    /// one lets others in sooner after a crash.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// How often the lease is renewed: every second at most. Defaults to a third of the lease
    /// duration.
    ///
    /// Guards that were acquired together are not renewed together: the first renewal comes up to a
    /// third of the interval early, and each later one up to a tenth, at random. The interval and the
    /// margin together may take up to three quarters of the lease duration, which leaves time to retry a
    /// failed renewal. A lease that somebody breaks is noticed at the next renewal.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.renewal_interval = Some(interval);
        self
    }

    /// How long before the lease ends the guard stops claiming it. Defaults to a twelfth of the lease
    /// duration: 5 seconds for a lease of 60.
    ///
    /// It covers clocks that run at different rates, and the time between a check and its effect.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// How long a guard is renewed. After that it is lost when its lease runs out. Defaults to no
    /// limit.
    ///
    /// This bounds a guard that was leaked, or whose work hangs.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self
    }

    /// How old the last sign of life may be for the lease to be renewed: a second at least. Defaults to
    /// no limit.
    ///
    /// The work gives signs of life by [`LeaseGuard::alive`](crate::LeaseGuard::alive) or
    /// [`LeaseWatch::alive`](crate::LeaseWatch::alive); acquiring the lock counts as the first. Without
    /// one for this time the lease is not renewed, and a sign that comes while it still runs has it
    /// renewed again. If it runs out, the lock is lost for good, with
    /// [`LossReason::Unhealthy`](crate::LossReason::Unhealthy). So work that hangs loses the lock within
    /// this time and a [`lease_duration`](Self::lease_duration), and a process that is alive does not
    /// keep it from others.
    ///
    /// Nothing here ends the work: if it comes back, it has to [`check`](crate::LeaseGuard::check), as
    /// after any pause.
    pub fn health(mut self, within: Duration) -> Self {
        self.health = Some(within);
        self
    }

    /// How long to wait between attempts while another client holds the lock, on average: each delay
    /// is up to 15 % shorter or longer, at random. Defaults to 625 milliseconds; the minimum is 10
    /// milliseconds.
    ///
    /// A lock that is released is noticed after half of that in the median. Every attempt is a billed
    /// request. Whenever the service answers that it is overloaded (503, 429, or a time-out of its
    /// own), the interval doubles, up to 512 times as long; every other answer shortens it by 5 %
    /// again. So however many wait, they leave room for the holder's renewals. A wait that is limited
    /// to less than four intervals asks about four times.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// How long failures are retried while the lock is acquired, counted from the first of several in
    /// a row. Defaults to 60 seconds.
    ///
    /// A failure is a missing reply, or the reply of a service that is overloaded or fails. Once the
    /// service has answered during this wait that another client holds the lock, a refused credential
    /// and a container that is being deleted count as failures too, because both can pass; and a
    /// refusal by a service that is overloaded does not, because it only slows the wait down. Any other
    /// answer, such as that another client holds the lock, ends the row. The service's `Retry-After` is
    /// honoured, but there is always one more attempt before the time is up. The same rule holds for
    /// reading and storing the fencing token.
    ///
    /// [`try_lock`](crate::Locker::try_lock) retries for no longer than the
    /// [`request_timeout`](crate::MutexOptions::request_timeout), and a limited wait for no longer than
    /// its limit.
    pub fn fault_wait(mut self, fault_wait: Duration) -> Self {
        self.fault_wait = fault_wait;
        self
    }

    /// How long [`LeaseGuard::release`](crate::LeaseGuard::release) and dropping a guard may take.
    /// Defaults to 5 seconds.
    pub fn release_timeout(mut self, timeout: Duration) -> Self {
        self.release_timeout = timeout;
        self
    }

    /// Who holds the lock, for others to see. Defaults to `user@host`.
    ///
    /// Any text; it is cut at about a thousand bytes.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// What the lock is held for, for others to see. Defaults to nothing.
    ///
    /// Any text; it is cut at about a thousand bytes. Everyone who can read the container can read it,
    /// so keep secrets out of it.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Whether a holder writes who it is into the lock blob's metadata, for
    /// [`AzureMutex::status`] to show. Defaults to true.
    ///
    /// It is written once, when the lock has been held for the [`holder_delay`](Self::holder_delay), so
    /// a short hold costs no extra request. Until then the blob still shows the holder before. Nothing
    /// is written on release, unless [`fencing`](Self::fencing) is on: the service itself tells a lease
    /// that was released from one that ran out or was broken. Metadata that others wrote is kept as far
    /// as there is room. Neither locking nor breaking needs this information, and a failure to write it
    /// is harmless: it is reported and retried later.
    pub fn holder_info(mut self, on: bool) -> Self {
        self.named = on;
        self
    }

    /// How long the lock is held before its holder writes who it is. Defaults to 250 milliseconds.
    ///
    /// With zero, the holder is written before `lock` returns. That takes one or two requests, each of
    /// which may take half of the [`request_timeout`](crate::MutexOptions::request_timeout).
    pub fn holder_delay(mut self, delay: Duration) -> Self {
        self.holder_delay = delay;
        self
    }

    /// Whether every hold gets a fencing token, and learns whether the holder before it released.
    /// Defaults to false.
    ///
    /// The token is stored before `lock` returns, together with who the holder is. It is greater than
    /// every token handed out before: the time in milliseconds, or the last token plus one if that is
    /// more. If the blob is deleted, and the last token with it, the order still holds as long as
    /// clocks are right.
    ///
    /// Locking takes one more request, or two if another client wrote to the blob last. The release
    /// takes one more, which writes that the holder released. If the token cannot be read or stored
    /// within the [`fault_wait`](Self::fault_wait), the lease is released, for which the
    /// [`release_timeout`](Self::release_timeout) applies, and `lock` fails. If the lease is lost before
    /// the token is stored, because somebody broke it, `lock` goes back to waiting.
    ///
    /// All lockers of a key should agree on this setting. One without it leaves the last token alone,
    /// but its holds get none, and it does not write that it released.
    pub fn fencing(mut self, on: bool) -> Self {
        self.fencing = on;
        self
    }

    /// For how long threads of this process hand the lock over to each other before other processes
    /// get a chance. Defaults to 15 seconds. With zero they do not: each of them asks the service, as
    /// if it were alone.
    ///
    /// Those who wait in one process for the same lock stand in one line, whatever lockers and mutexes
    /// they use, and only the first of them asks the service. When a guard ends and another thread
    /// waits, that one gets the lease, which takes no request and some microseconds. Once the process
    /// has had the lock for this time the lease is released, and the process does not ask for it again
    /// for 0.75 seconds, if somebody in it still waits; [`try_lock`](crate::Locker::try_lock) and a
    /// limited wait at its end ask meanwhile only if nobody else in it waits. So a client elsewhere
    /// that polls at the default pace waits for about this time and a second at most, unless a single
    /// hold takes longer.
    ///
    /// A hand-over takes one request if somebody may know the lease's ID, which is changed then: after
    /// [`lease_id`](crate::LeaseGuard::lease_id), [`read`](crate::LeaseGuard::read),
    /// [`write`](crate::LeaseGuard::write), [`done`](crate::LeaseGuard::done) or `Debug`. With
    /// [`fencing`](Self::fencing) it takes two.
    ///
    /// The lease is released instead, and the next in line asks for it, if the lock is not held for
    /// certain, if its guard is dropped by a panic or while the lease's thread is in an
    /// [`observer`](Self::observer), or if the next one's locker differs in its
    /// [`lease_duration`](Self::lease_duration) or in [`fencing`](Self::fencing). In all else each guard
    /// goes by the settings of its own locker. While they wait, the first in line asks at its own pace
    /// and with its own patience, for all.
    pub fn hand_over_for(mut self, time: Duration) -> Self {
        self.hand_over_for = time;
        self
    }

    /// Calls `observer` with everything that happens to the lock, for logs and metrics.
    ///
    /// It is called on the lease's own thread, which is named `azmutex:KEY` and has a stack of 2 MiB.
    /// It delays that thread, so an observer that blocks delays renewals. What happens during the
    /// release is reported on the thread that releases, and what happens while the caller of `lock`
    /// waits for others in this process, on that caller's thread: so an observer must not wait for
    /// anything that this caller holds. It may use the guard, and even drop it. A panic in it is caught
    /// and logged.
    pub fn observer(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Lets another thread end a waiting `lock` at once. See [`StopToken`].
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
            ("poll interval", self.poll_interval, LEAST_POLL),
            (
                "time for a sign of life",
                self.health.unwrap_or(Duration::MAX),
                LEAST_HEALTH,
            ),
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
            health: self.health,
            attempt_timeout: operations.request_timeout / 2,
            fault_wait: self.fault_wait,
            release_timeout: self.release_timeout.min(LONGEST),
            poll_interval: self.poll_interval,
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
            hand_over_for: self.hand_over_for,
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
