//! N permits, each of which is a lock of its own: whoever holds any one of them may go on.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::azure::status::LeaseStatus;
use crate::error::{Error, ErrorKind, TryLockError};
use crate::holder::record::PERMITS;
use crate::http::process::PerProcess;
use crate::lease::acquisition::{Acquisition, Progress, Step};
use crate::lease::ids::LeaseId;
use crate::lease::step::{Answer, Notice, Request};
use crate::lease::terms::{Terms, WaitLimit};
use crate::lock::builder::LockerBuilder;
use crate::lock::event::{Event, Events};
use crate::lock::guard::LeaseGuard;
use crate::lock::line::{Line, Next};
use crate::lock::locker::Locker;
use crate::lock::settings::Settings;
use crate::lock::stop::Wake;
use crate::mutex::azure_mutex::AzureMutex;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::clock::Clock;
use crate::time::jitter::Jitter;
use crate::time::tick::{Moment, Tick};

/// The most permits of a semaphore.
const MAX_PERMITS: u32 = 1000;

/// How many permits a waiter asks for in one interval, once it has asked for all of them.
const PER_INTERVAL: u32 = 4;

/// At most N holders at a time: "at most three deployments".
///
/// Each of the N permits is an ordinary lock, with the key `KEY.slot0` and so on, and whoever holds any
/// one of them holds a permit. A permit is a [`LeaseGuard`], with all that it promises: it is renewed
/// in the background, given back when it is dropped, and free again within its lease's duration if its
/// holder is killed.
///
/// All clients have to agree on the number of permits. It is recorded in the metadata of the blob
/// `KEY`, which nobody leases, and looked at once by each `Semaphore`: one that asks for another number
/// fails. [`resize`](Self::resize) changes it.
///
/// Cheap to clone; clones are the same semaphore with the same settings, and any number of threads may
/// wait.
///
/// # Fairness
///
/// The threads that wait with the clones of one semaphore are served in the order in which they came,
/// and one at a time asks the service. There is no order between processes.
///
/// # Fencing
///
/// With [`fencing`](LockerBuilder::fencing), a token orders the holders of *one* permit, and says
/// nothing about the holders of others. A resource that checks tokens has to keep the last one for
/// each [`slot`](Self::slot).
///
/// # Examples
///
/// ```
/// use azmutex::{AzureMutex, Semaphore};
///
/// # let emulator = azmutex::emulator::Emulator::start()?;
/// # let mutex = AzureMutex::new(emulator.options("locks")?)?;
/// let deployments = Semaphore::new(mutex, "deploy", 3)?;
/// let permit = deployments.acquire()?; // waits while three others deploy
/// assert!(deployments.slot(&permit) < Some(3));
/// permit.release()?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Semaphore(Arc<Inner>);

struct Inner {
    key: String,
    /// Of the wait for a permit. Each permit's lock has its own.
    events: Events,
    /// One for each permit.
    lockers: Vec<Locker>,
    /// The recorded number of permits is this one's.
    agreed: AtomicBool,
    waiters: Arc<PerProcess<Arc<Waiters>>>,
}

/// Those in this process who wait for a permit.
#[derive(Default)]
struct Waiters {
    line: Mutex<Line<u64>>,
    changed: Arc<Condvar>,
    last: AtomicU64,
    released: Mutex<Released>,
}

/// What was released here while somebody here waited.
#[derive(Default)]
struct Released {
    /// The permit, until the one who waits has asked for it.
    slot: Option<u32>,
    /// Since when permits that are released here go to those who wait here.
    since: Option<Tick>,
}

/// One who waits for a permit.
struct Waiter<'a> {
    inner: &'a Inner,
    waiters: Arc<Waiters>,
    place: u64,
    acquisition: Acquisition,
    jitter: Jitter,
    /// The permit that is asked for next, and how many at once.
    slot: u32,
    probes: u32,
    /// Who holds a permit, as last seen.
    seen: Option<LeaseStatus>,
}

impl Semaphore {
    /// A semaphore with the default settings. Sends nothing.
    ///
    /// `permits`: 1 to 1000. `key`: a blob name, which leaves room for `.slot` and a number within the
    /// 1024 characters of a blob name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `key` is no blob name or `permits` is out of range.
    pub fn new(mutex: AzureMutex, key: &str, permits: u32) -> Result<Self, Error> {
        Locker::builder(mutex, key).build_semaphore(permits)
    }

    /// Acquires a permit, waiting for as long as others hold all of them.
    ///
    /// Blocks the calling thread. Asks for one permit after the other, from a random one on; if none is
    /// free it asks again, for up to four in each [`poll_interval`](LockerBuilder::poll_interval). So a
    /// permit that gets free is found within a quarter as many intervals as there are permits. A permit
    /// that a guard in this process holds is not asked for. Failures are retried as by
    /// [`Locker::lock`], and a [`StopToken`](crate::StopToken) ends the wait.
    ///
    /// Acquiring takes one request while most permits are free, and the first use of a `Semaphore` one
    /// more, for the number of permits; that one is not interrupted by a stop token, and blocks for at
    /// most half of the [`request_timeout`](crate::MutexOptions::request_timeout).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if another number of permits is recorded, or somebody holds a plain lock
    /// with the semaphore's own key; others as for [`Locker::lock`].
    pub fn acquire(&self) -> Result<LeaseGuard, Error> {
        self.acquire_within(WaitLimit::Forever)
    }

    /// Acquires a permit if one is free. Asks for each once, and does not wait for a holder.
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if others hold all of them; others as for
    /// [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> Result<LeaseGuard, TryLockError> {
        Ok(self.acquire_within(WaitLimit::Once(Tick::NEVER))?)
    }

    /// Acquires a permit, waiting for at most `timeout`. With zero, the same as
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// # Errors
    ///
    /// [`TryLockError::WouldBlock`] if others held all of them until then, as far as is known; others as
    /// for [`acquire`](Self::acquire).
    pub fn try_acquire_for(&self, timeout: Duration) -> Result<LeaseGuard, TryLockError> {
        if timeout.is_zero() {
            return self.try_acquire();
        }
        let end = self.0.clock().now() + timeout;
        Ok(self.acquire_within(WaitLimit::Until(end))?)
    }

    /// Acquires a permit, waiting until `deadline` at most. With one in the past, the same as
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// # Errors
    ///
    /// As for [`try_acquire_for`](Self::try_acquire_for).
    pub fn try_acquire_until(&self, deadline: Instant) -> Result<LeaseGuard, TryLockError> {
        self.try_acquire_for(deadline.saturating_duration_since(Instant::now()))
    }

    /// The key that was given. The permits have keys of their own: this one's, `.slot` and a number.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The client that this semaphore uses.
    #[must_use]
    pub fn mutex(&self) -> &AzureMutex {
        &self.0.settings().mutex
    }

    /// How many permits there are.
    #[must_use]
    pub fn permits(&self) -> u32 {
        self.0.permits()
    }

    /// Which of the permits a guard holds: from 0, and less than [`permits`](Self::permits). `None` for a
    /// guard of another lock.
    ///
    /// Two holders at a time never have the same one, so it can name a port, a directory or another
    /// thing that each of them needs for itself.
    #[must_use]
    pub fn slot(&self, permit: &LeaseGuard) -> Option<u32> {
        let mut lockers = self.0.lockers.iter();
        let slot = lockers.position(|locker| locker.key() == permit.key())?;
        u32::try_from(slot).ok()
    }

    /// The permits that are held now, with their holders. [`key`](LeaseStatus::key) names the permit.
    ///
    /// Sends one request for each permit. Blocks for at most the
    /// [`request_timeout`](crate::MutexOptions::request_timeout) for each.
    ///
    /// # Errors
    ///
    /// As for [`AzureMutex::status`], but a permit that was never used is no error.
    pub fn holders(&self) -> Result<Vec<LeaseStatus>, Error> {
        let mut held = Vec::new();
        for locker in &self.0.lockers {
            match locker.mutex().status(locker.key()) {
                Ok(status) if status.state().is_free() => {}
                Ok(status) => held.push(status),
                Err(error) if error.service_code() == Some("BlobNotFound") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }

    /// Records this semaphore's number of permits in place of another one.
    ///
    /// More permits can be had at once. When there are to be fewer, those who hold one of the others keep
    /// it until they release it, and other clients fail once they look, which is when they make a new
    /// `Semaphore`. Sends two requests, and two or three more if the semaphore was never used.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire).
    pub fn resize(&self) -> Result<(), Error> {
        let operations = self.0.settings().mutex.operations();
        operations.until_answered(|timeout| self.0.agree(true, timeout))
    }

    /// Waits until leases that abandoned attempts may have left behind are released, for at most
    /// `timeout`. Returns whether all are. See [`Locker::settle`].
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        let end = Instant::now().checked_add(timeout);
        let left = || end.map_or(timeout, |end| end.saturating_duration_since(Instant::now()));
        self.0.lockers.iter().all(|locker| locker.settle(left()))
    }

    fn acquire_within(&self, limit: WaitLimit) -> Result<LeaseGuard, Error> {
        let inner = &*self.0;
        let mut jitter = Jitter::new(LeaseId::random()?.bits());
        let terms = Terms {
            // Each permit's lock does that.
            create_missing: false,
            ..inner.settings().terms
        };
        let acquisition = Acquisition::new(terms, limit, inner.clock().moment());
        let waiters = Arc::clone(inner.waiters.get(Arc::default));
        let place = waiters.last.fetch_add(1, Ordering::Relaxed);
        let mut waiter = Waiter {
            inner,
            waiters,
            place,
            slot: (jitter.next() % u64::from(inner.permits())) as u32,
            acquisition,
            jitter,
            probes: inner.permits(),
            seen: None,
        };
        waiter.wait(limit)
    }
}

impl Inner {
    /// What is the same for all permits, but for the key.
    fn settings(&self) -> &Settings {
        self.lockers[0].settings()
    }

    fn clock(&self) -> &Clock {
        self.lockers[0].clock()
    }

    fn permits(&self) -> u32 {
        self.lockers.len() as u32
    }

    fn error(&self, kind: ErrorKind, text: impl Into<String>) -> Error {
        Error::new(kind, text).during("acquire a permit of", &self.events.target)
    }

    /// Sees to it that this number of permits is the recorded one. `force`: even if another one is.
    fn agree(&self, force: bool, timeout: Duration) -> Result<(), Error> {
        let settings = self.settings();
        let client = &settings.mutex.operations().client;
        let end = Clock::System.now() + timeout;
        let left = || end.since(Clock::System.now());
        let permits = self.permits();
        loop {
            let status = match client.status(&self.key, left()) {
                Err(error)
                    if error.kind() == ErrorKind::NotFound && settings.terms.create_missing =>
                {
                    if error.service_code() != Some("BlobNotFound") {
                        client.create_container(left())?;
                    }
                    client.create_blob(&self.key, left())?;
                    continue;
                }
                status => status?,
            };
            let recorded = status.record.other(PERMITS).map(str::to_owned);
            if let Some(recorded) = recorded {
                if recorded == permits.to_string() {
                    return Ok(());
                }
                if !force {
                    let text = format!(
                        "it has {recorded} permits, and {permits} are asked for: ask for as many, or \
                         resize it"
                    );
                    return Err(self.error(ErrorKind::Config, text));
                }
            }
            let etag = status.etag().to_owned();
            let record = status.record.with_other(PERMITS, permits.to_string());
            match client.write_unleased(&self.key, &record, &etag, left()) {
                // Another client was faster.
                Err(error) if error.service_code() == Some("ConditionNotMet") => {}
                Err(error) if error.service_code() == Some("LeaseIdMissing") => {
                    let text = "somebody holds a plain lock with this key: use another key for the \
                                semaphore";
                    return Err(self.error(ErrorKind::Config, text));
                }
                result => return result,
            }
        }
    }
}

impl Waiter<'_> {
    fn wait(&mut self, limit: WaitLimit) -> Result<LeaseGuard, Error> {
        if let Some(stop) = &self.inner.settings().stop {
            let waiters: Arc<dyn Wake> = Arc::<Waiters>::clone(&self.waiters);
            stop.register(Arc::downgrade(&waiters));
        }
        if !self.acquisition.does_not_wait() {
            self.waiters.line.lock().join(self.place);
            self.stand_in_line(limit.end())?;
        }
        loop {
            let now = self.now();
            match self.acquisition.step(now) {
                Step::Send(Request::ReadHolder, timeout) => {
                    let result = self.look(timeout);
                    self.answered(&Request::ReadHolder, now, result)?;
                }
                Step::Send(request, timeout) => match self.attempt(timeout) {
                    Ok(permit) => return Ok(permit),
                    Err(error) => self.answered(&request, now, Err(error))?,
                },
                Step::Wait(until) => {
                    let waiters = Arc::clone(&self.waiters);
                    let mut line = waiters.line.lock();
                    self.check_stop()?;
                    if let Some(slot) = waiters.released.lock().slot.take() {
                        self.slot = slot;
                        let free = Answer::Looked {
                            held: false,
                            changed: false,
                        };
                        self.answered(&Request::ReadHolder, now, Ok(free))?;
                        continue;
                    }
                    self.inner.clock().wait(&waiters.changed, &mut line, until);
                }
                Step::Fail(error) => return Err(error),
            }
        }
    }

    /// Waits until those are served who came before.
    fn stand_in_line(&mut self, end: Tick) -> Result<(), Error> {
        let waiters = Arc::clone(&self.waiters);
        let mut line = waiters.line.lock();
        loop {
            self.check_stop()?;
            let now = self.now();
            if line.look(&self.place, now, end, |_| false) == Next::Ask {
                self.acquisition.begin(now);
                return Ok(());
            }
            if now.lease >= end {
                let text = "others in this process wait for a permit";
                return Err(self.inner.error(ErrorKind::WouldBlock, text));
            }
            match self.acquisition.wait_in_line(now) {
                Ok(notice) => {
                    let ahead = line.ahead(&self.place);
                    MutexGuard::unlocked(&mut line, || self.tell(notice, ahead));
                }
                Err(until) => self.inner.clock().wait(&waiters.changed, &mut line, until),
            }
        }
    }

    /// Asks for some permits, one after the other.
    fn attempt(&mut self, timeout: Duration) -> Result<LeaseGuard, Error> {
        if !self.inner.agreed.load(Ordering::Acquire) {
            self.inner.agree(false, timeout)?;
            self.inner.agreed.store(true, Ordering::Release);
        }
        for _ in 0..self.probes {
            let locker = &self.inner.lockers[self.slot as usize];
            let end = self.acquisition.end();
            match locker.acquire(WaitLimit::Probe(end)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.slot = (self.slot + 1) % self.inner.permits();
                }
                result => return result,
            }
            // A limited wait gives each lock's first attempt some time beyond.
            if self.now().lease >= end {
                break;
            }
        }
        self.probes = self.probes.min(PER_INTERVAL);
        let permits = self.inner.permits();
        let text = format!("others hold all of its permits ({permits})");
        Err(self.inner.error(ErrorKind::WouldBlock, text))
    }

    /// Looks who holds one of the permits.
    fn look(&mut self, timeout: Duration) -> Result<Answer, Error> {
        let locker = &self.inner.lockers[self.slot as usize];
        let client = &locker.mutex().operations().client;
        let status = client.status(locker.key(), timeout)?;
        let held = !status.state().is_free();
        let before = self.seen.replace(status.clone());
        let changed = before.is_none_or(|before| before.holder() != status.holder());
        Ok(Answer::Looked { held, changed })
    }

    fn answered(
        &mut self,
        request: &Request,
        sent: Moment,
        result: Result<Answer, Error>,
    ) -> Result<(), Error> {
        let (now, random) = (self.now(), self.jitter.next());
        match self
            .acquisition
            .answered(request, sent, now, result, random)
        {
            Progress::Failed(error) => Err(error),
            Progress::GoesOn(Some(notice)) => {
                self.tell(notice, 0);
                Ok(())
            }
            Progress::GoesOn(None) | Progress::Granted { .. } => Ok(()),
        }
    }

    fn tell(&self, notice: Notice, ahead: usize) {
        let events = &self.inner.events;
        let (event, report) = events.event(notice, self.seen.clone(), || (ahead, None));
        events.tell(&event, report);
    }

    fn check_stop(&self) -> Result<(), Error> {
        let stop = self.inner.settings().stop.as_ref();
        if stop.is_some_and(|stop| stop.is_stopped()) {
            return Err(self.inner.error(ErrorKind::Stopped, "waiting was stopped"));
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        self.inner.clock().moment()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let now = self.now();
        let mut line = self.waiters.line.lock();
        line.leave(&self.place);
        line.pass(&self.place, now, Duration::MAX);
        self.waiters.changed.notify_all();
    }
}

impl Waiters {
    /// A permit was released here: the one who waits here asks for it at once, unless that has gone on
    /// for `quantum`. Then others elsewhere have the same chance.
    fn release(&self, slot: u32, now: Tick, quantum: Duration) {
        // Before the line is looked at, whose lock is had first where both are.
        let waits = self.line.lock().turn().is_some();
        let mut released = self.released.lock();
        let since = *released.since.get_or_insert(now);
        *released = if waits && now < since + quantum {
            Released {
                slot: Some(slot),
                since: Some(since),
            }
        } else {
            Released::default()
        };
        drop(released);
        self.wake();
    }
}

impl Wake for Waiters {
    fn wake(&self) {
        let _line = self.line.lock();
        self.changed.notify_all();
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("key", &self.0.key)
            .field("permits", &self.0.permits())
            .finish_non_exhaustive()
    }
}

impl LockerBuilder {
    /// Checks the settings for a [`Semaphore`] with this key and this many permits. Sends nothing.
    ///
    /// The settings apply to each permit. For the time of [`hand_over_for`](Self::hand_over_for), those
    /// who wait here with the clones of the semaphore ask at once for a permit that was released here;
    /// then they go on at their pace, so that others elsewhere get one.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build) and [`Semaphore::new`].
    pub fn build_semaphore(self, permits: u32) -> Result<Semaphore, Error> {
        if !(1..=MAX_PERMITS).contains(&permits) {
            return Err(Error::config(format!(
                "invalid number of permits {permits}: it must be 1 to {MAX_PERMITS}"
            )));
        }
        let settings = self.clone().settings()?;
        let quantum = settings.hand_over_for;
        let clock = settings.mutex.operations().client.clock().clone();
        let waiters = Arc::new(PerProcess::new(Arc::<Waiters>::default()));
        let permit = |slot: u32| {
            let (waiters, clock) = (Arc::clone(&waiters), clock.clone());
            let key = format!("{}.slot{slot}", self.key());
            let release = move |event: &Event| {
                if matches!(event, Event::Released) {
                    let waiters = waiters.get(Arc::default);
                    waiters.release(slot, clock.now(), quantum);
                }
            };
            self.for_key(key).and_observer(release).build()
        };
        Ok(Semaphore(Arc::new(Inner {
            key: self.key().to_owned(),
            lockers: (0..permits).map(permit).collect::<Result<_, _>>()?,
            events: settings.events,
            agreed: AtomicBool::new(false),
            waiters,
        })))
    }
}
