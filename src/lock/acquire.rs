//! One acquisition: ask for the lease until it is granted, refused for good, or given up.

use std::time::Duration;

use uuid::Uuid;

use crate::azure::client::Client;
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind};
use crate::lease::acquisition::Acquisition;
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::lock::event::Event;
use crate::sync::{Condvar, Mutex};
use crate::time::backoff::Backoff;
use crate::time::tick::Tick;

/// How often a missing container or blob is made again before it counts as deleted on purpose.
const CREATIONS: u32 = 3;

/// How long before the end of a timed wait the last attempt is made: enough for one request.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What an attempt gets at least, also if it outlasts a timed wait: an answer that comes a little late
/// is worth more than none.
const LEAST_ATTEMPT: Duration = Duration::from_secs(1);

/// What to acquire, and how.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) client: &'a Client,
    pub(crate) key: &'a str,
    pub(crate) duration: LeaseDuration,
    /// How long the lease is of use from the send of the acquire.
    pub(crate) usable: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) create_missing: bool,
    /// While somebody else holds the lease: the first delay and the longest.
    pub(crate) poll: (Duration, Duration),
    /// How long failures are put up with before they are reported.
    pub(crate) fault_wait: Duration,
}

/// When to give up while somebody else holds the lease.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    Once,
    Until(Tick),
    Forever,
}

/// A granted lease.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) id: LeaseId,
    /// What its deadline counts from.
    pub(crate) sent: Tick,
    /// The blob's, which no lease operation changes.
    pub(crate) etag: String,
}

/// No lease.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    /// An ID that the service may have granted all the same: to be released, and not used again.
    pub(crate) stray: Option<LeaseId>,
}

/// What the one who waits does meanwhile.
pub(crate) trait Waiter {
    /// Sleeps for `delay`, or until `until` on the client's clock if that is earlier.
    fn sleep(&self, delay: Duration, until: Tick);
    /// Whether somebody wants the waiting to end.
    fn is_stopped(&self) -> bool;
    fn notice(&self, event: Event);
}

impl Plan<'_> {
    pub(crate) fn run(&self, patience: Patience, waiter: &dyn Waiter) -> Result<Granted, Refused> {
        let id = LeaseId::random();
        let mut acquisition = Acquisition::default();
        self.attempts(id, &mut acquisition, patience, waiter)
            .map(|(sent, etag)| Granted { id, sent, etag })
            .map_err(|error| Refused {
                error,
                stray: acquisition.may_be_granted().then_some(id),
            })
    }

    fn attempts(
        &self,
        id: LeaseId,
        acquisition: &mut Acquisition,
        patience: Patience,
        waiter: &dyn Waiter,
    ) -> Result<(Tick, String), Error> {
        let clock = self.client.clock();
        let started = clock.now();
        let until = match patience {
            Patience::Until(until) => until,
            Patience::Once | Patience::Forever => Tick::NEVER,
        };
        let mut busy = Backoff::new(self.poll.0, self.poll.1);
        let mut faults = Faults::new(match patience {
            Patience::Once => self.fault_wait.min(self.request_timeout),
            _ => self.fault_wait,
        });
        let mut creations = 0;
        let mut held_by_another = None;
        for attempt in 1.. {
            if waiter.is_stopped() {
                return Err(stopped(&self.client.target(self.key)));
            }
            let now = clock.now();
            faults.sending();
            let timeout = self.attempt_timeout(now, until).min(faults.left());
            acquisition.sending(now);
            let error = match self.client.acquire(self.key, id, self.duration, timeout) {
                Ok((sent, etag)) => {
                    if let Some(sent) = acquisition.granted(sent, clock.now(), self.usable) {
                        return Ok((sent, etag));
                    }
                    continue;
                }
                Err(error) => error,
            };
            let (last, delay) = match error.kind() {
                ErrorKind::WouldBlock => {
                    acquisition.refused();
                    faults.ended();
                    if matches!(patience, Patience::Once) {
                        return Err(error);
                    }
                    let elapsed = clock.now().since(started);
                    waiter.notice(Event::Waiting { attempt, elapsed });
                    held_by_another = Some(error.clone());
                    (error, busy.delay(random()))
                }
                ErrorKind::NotFound if self.create_missing && creations < CREATIONS => {
                    acquisition.refused();
                    creations += 1;
                    match self.create(&error, || {
                        self.attempt_timeout(clock.now(), until).min(faults.left())
                    }) {
                        Ok(()) => continue,
                        Err(error) => self.failed(error, &mut faults, attempt, waiter)?,
                    }
                }
                _ => {
                    if error.is_ambiguous() {
                        acquisition.unanswered();
                    } else {
                        acquisition.refused();
                    }
                    self.failed(error, &mut faults, attempt, waiter)?
                }
            };
            let left = until.since(clock.now());
            if left <= LAST_LOOK {
                waiter.sleep(left, until);
                // What is known counts for more than a last attempt that time cut short.
                return Err(held_by_another.unwrap_or(last));
            }
            // The last attempt comes shortly before the end, whatever the back-off says.
            waiter.sleep(delay.min(left - LAST_LOOK), until);
        }
        unreachable!("attempts are counted without an end")
    }

    /// Puts up with a failure for a while: what to report if there is no time left, and the delay.
    fn failed(
        &self,
        error: Error,
        faults: &mut Faults,
        attempt: u32,
        waiter: &dyn Waiter,
    ) -> Result<(Error, Duration), Error> {
        if !error.is_transient() {
            return Err(error);
        }
        let Some(delay) = faults.put_up_with(&error) else {
            return Err(error);
        };
        no_panic(|| log::debug!("{error}; trying again in {delay:?}"));
        waiter.notice(Event::AcquireFailed {
            attempt,
            error: error.clone(),
        });
        Ok((error, delay))
    }

    fn create(&self, missing: &Error, timeout: impl Fn() -> Duration) -> Result<(), Error> {
        if missing.service_code() == Some("ContainerBeingDeleted") {
            return Err(missing.clone());
        }
        if missing.service_code() != Some("BlobNotFound") {
            self.client.create_container(timeout())?;
        }
        self.client.create_blob(self.key, timeout())
    }

    /// Half of what an operation may take, so that one that is not answered can be sent again.
    fn attempt_timeout(&self, now: Tick, until: Tick) -> Duration {
        let half = self.request_timeout / 2;
        half.min(until.since(now).max(LEAST_ATTEMPT))
    }
}

/// Failures in a row.
struct Faults {
    backoff: Backoff,
    patience: Duration,
    /// The network's time is real time, whatever clock the leases go by.
    since: Option<Tick>,
}

impl Faults {
    fn new(patience: Duration) -> Self {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        Self {
            backoff,
            patience,
            since: None,
        }
    }

    fn left(&self) -> Duration {
        match self.since {
            Some(since) => self.patience.saturating_sub(now().since(since)),
            None => self.patience,
        }
    }

    /// A request goes out. If it is the first that fails, its own time counts too.
    fn sending(&mut self) {
        self.since.get_or_insert_with(now);
    }

    /// How long to wait before the next attempt; `None` when it has been long enough.
    fn put_up_with(&mut self, error: &Error) -> Option<Duration> {
        let delay = self.backoff.delay_at_least(random(), error.retry_after());
        // An attempt that is cut off at once would hide why the others failed.
        (delay.saturating_mul(2) < self.left()).then_some(delay)
    }

    fn ended(&mut self) {
        self.since = None;
        self.backoff.reset();
    }
}

fn now() -> Tick {
    crate::time::clock::Clock::System.now()
}

pub(crate) fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

pub(crate) fn stopped(target: &str) -> Error {
    Error::new(ErrorKind::Stopped, "waiting was stopped").during("acquire lease on", target)
}

/// Sends a request that can be sent again without harm, until it is answered or `timeout` is over.
///
/// `send` gets the time that the attempt may take and whether an earlier one may have been done
/// already.
pub(crate) fn until_answered<T>(
    timeout: Duration,
    mut send: impl FnMut(Duration, bool) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut faults = Faults::new(timeout);
    faults.sending();
    let mut may_be_done = false;
    loop {
        match send(faults.left().min(timeout / 2), may_be_done) {
            Err(error) if error.is_transient() => {
                may_be_done |= error.is_ambiguous();
                let Some(delay) = faults.put_up_with(&error) else {
                    return Err(error);
                };
                sleep(delay);
            }
            result => return result,
        }
    }
}

fn sleep(delay: Duration) {
    let (lock, never) = (Mutex::new(()), Condvar::new());
    never.wait_for(&mut lock.lock(), delay);
}

/// Waits without anyone to stop it.
pub(crate) struct Alone;

impl Waiter for Alone {
    fn sleep(&self, delay: Duration, _: Tick) {
        sleep(delay);
    }

    fn is_stopped(&self) -> bool {
        false
    }

    fn notice(&self, _: Event) {}
}
