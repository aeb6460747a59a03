//! The renewal thread of one guard, and the state that it shares with the guard and its watches.
//!
//! The thread is there before the lease is acquired, so that a machine that has no thread to give
//! cannot leave a lease behind that nobody renews. It keeps going through every failure, and is
//! free for another guard when its own is gone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::callback::no_panic;
use crate::error::{Error, ErrorKind};
use crate::holder::record::Record;
use crate::lease::hold::{Claim, Hold, Parting, Renewal, Step};
use crate::lease::ids::LeaseId;
use crate::lock::acquire::{Patience, Refused, Waiter, stopped, until_answered};
use crate::lock::context::{Acquired, Context};
use crate::lock::event::Event;
use crate::lock::recorder::Written;
use crate::lock::seat::Seat;
use crate::lock::stop::StopToken;
use crate::mutex::azure_mutex::Released;
use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::time::clock::Clock;
use crate::time::sleeper::Sleeper;
use crate::time::tick::Tick;

/// One guard's state.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    /// A copy of the hold's deadline, in nanoseconds, for readers that wait for nobody: a thread
    /// that was forked off, or one that must not be held up. Zero when the lease is not held.
    deadline: AtomicU64,
    state: Mutex<State>,
    changed: Arc<Condvar>,
}

struct State {
    task: Task,
    hold: Option<Hold>,
    record: RecordState,
    /// A request is under way.
    busy: bool,
    /// What an acquisition on the thread came to.
    acquired: Option<Result<Acquired, Refused>>,
    /// Nobody waits for that any more.
    abandoned: bool,
    /// The thread has nothing left to do.
    ended: bool,
}

/// How far the holder has said who it is.
#[derive(Debug, Default)]
struct RecordState {
    /// The blob's ETag when the lease was acquired.
    etag: String,
    /// When to write, unless it is done.
    due: Option<Tick>,
    /// What was written.
    written: Option<Written>,
    /// A write was tried whose outcome is not known.
    maybe_written: bool,
}

/// What the thread is there for at the moment.
enum Task {
    Idle,
    Acquire(Patience),
    Keep(LeaseId),
    TakeBack(LeaseId),
    End,
}

impl Shared {
    /// From when on the lease is no longer claimed. Waits for nobody.
    pub(crate) fn deadline(&self) -> Tick {
        Tick::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// What may be claimed now. Waits for nobody while the lease is held.
    pub(crate) fn claim(&self) -> Claim {
        let now = self.clock.now();
        if now < self.deadline() {
            return Claim::Held;
        }
        let state = self.state.lock();
        // The clock was read before the lock was had, which can only make the claim weaker.
        state
            .hold
            .as_ref()
            .map_or(Claim::Unproven, |hold| match hold.claim(now) {
                Claim::Held => Claim::Unproven,
                claim => claim,
            })
    }

    /// How long ago the last confirmed request was sent.
    pub(crate) fn unconfirmed_for(&self) -> Duration {
        let now = self.clock.now();
        self.state
            .lock()
            .hold
            .as_ref()
            .map_or(Duration::ZERO, |hold| now.since(hold.proven()))
    }

    /// Wakes whoever waits for a change, and whoever is about to.
    pub(crate) fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// The thread is done with the guard.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    fn publish(&self, hold: &Hold) {
        self.deadline
            .store(hold.deadline().as_nanos(), Ordering::Release);
    }
}

/// The renewal thread, as its guard sees it.
pub(crate) struct Keeper {
    context: Arc<Context>,
    shared: Arc<Shared>,
    seat: Arc<Seat>,
}

impl Keeper {
    /// Makes sure of a thread. It waits for a lease to keep.
    pub(crate) fn start(context: &Arc<Context>) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            clock: context.clock().clone(),
            deadline: AtomicU64::new(0),
            state: Mutex::new(State {
                task: Task::Idle,
                hold: None,
                record: RecordState::default(),
                busy: false,
                acquired: None,
                abandoned: false,
                ended: false,
            }),
            changed: Arc::new(Condvar::new()),
        });
        let seat = Seat::find(context, &shared).map_err(|error| {
            Error::new(ErrorKind::System, "no thread to renew the lease from")
                .with_source(error)
                .during("acquire lease on", &context.target())
        })?;
        Ok(Self {
            context: Arc::clone(context),
            shared,
            seat,
        })
    }

    /// Has the thread look up now, wherever it waits.
    fn wake(&self) {
        self.seat.wake();
        self.shared.changed.notify_all();
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Acquires: here, or on the thread if somebody may want to stop it, since a thread that
    /// waits for a reply cannot be woken.
    pub(crate) fn acquire(&self, patience: Patience) -> Result<Acquired, Refused> {
        let Some(stop) = &self.context.stop else {
            let thread = Thread {
                context: &self.context,
                shared: &self.shared,
                sleeper: None,
            };
            return self.context.acquire(patience, &thread);
        };
        stop.register(&self.shared);
        let mut state = self.shared.state.lock();
        state.task = Task::Acquire(patience);
        self.wake();
        loop {
            if let Some(result) = state.acquired.take() {
                return result;
            }
            if stop.is_stopped() {
                state.abandoned = true;
                self.context.add_stray();
                return Err(Refused {
                    error: stopped(&self.context.target()),
                    stray: None,
                });
            }
            self.shared.changed.wait(&mut state);
        }
    }

    /// Starts to renew.
    pub(crate) fn keep(&self, acquired: Acquired) {
        let Acquired {
            granted, written, ..
        } = acquired;
        let mut state = self.shared.state.lock();
        let hold = Hold::new(self.context.terms, granted.sent);
        self.shared.publish(&hold);
        state.hold = Some(hold);
        let recorder = &self.context.recorder;
        state.record = RecordState {
            etag: granted.etag,
            due: if recorder.names_later() {
                Some(self.shared.clock.now() + recorder.delay)
            } else if recorder.names_first() && written.is_none() {
                Some(self.shared.clock.now() + self.context.terms.renew_every) // it failed
            } else {
                None
            },
            maybe_written: written.is_some() || recorder.names_first(),
            written,
        };
        state.task = Task::Keep(granted.id);
        self.wake();
    }

    /// Ends the thread without a lease to keep. What may have been granted is released in the
    /// background.
    pub(crate) fn give_up(&self, stray: Option<LeaseId>) {
        let mut state = self.shared.state.lock();
        if state.abandoned {
            return; // The thread sees for itself what it got.
        }
        state.task = match stray {
            Some(id) => {
                self.context.add_stray();
                Task::TakeBack(id)
            }
            None => Task::End,
        };
        drop(state);
        if stray.is_some() || !self.seat.take_back(&self.context, &self.shared) {
            self.wake();
        }
    }

    /// Stops to renew and releases the lease, all within the release timeout.
    pub(crate) fn release(&self, id: LeaseId) -> Result<Released, Error> {
        let started = Instant::now();
        let timeout = self.context.release_timeout;
        let served = !self.seat.take_back(&self.context, &self.shared);
        let mut state = self.shared.state.lock();
        let parting = match &mut state.hold {
            Some(hold) => {
                let parting = hold.release();
                self.shared.publish(hold);
                parting
            }
            None => Parting::Release,
        };
        state.task = Task::End;
        self.shared.changed.notify_all();
        // A renewal that arrives after the release is refused by the service, so waiting for it is
        // for order, not for safety.
        let patience = started + timeout / 2;
        while state.busy
            && !self
                .shared
                .changed
                .wait_until(&mut state, patience)
                .timed_out()
        {}
        let record = std::mem::take(&mut state.record);
        drop(state);
        let left = || timeout.saturating_sub(started.elapsed());
        let (mutex, key) = (&self.context.mutex, &self.context.key);
        let result = match parting {
            Parting::Release => {
                self.mark_released(id, record, left() / 2);
                mutex.release_within(key, id, left())
            }
            Parting::EndBreak => {
                // A favour to whoever waits, and nothing that could fail.
                if let Err(error) = mutex.release_within(key, id, left()) {
                    no_panic(|| log::debug!("{error}; its break period runs out by itself"));
                }
                Ok(Released::AlreadyLost)
            }
            Parting::Nothing => Ok(Released::AlreadyLost),
        };
        // The thread had nothing to do but end, unless a request or an observer holds it up.
        let mut state = self.shared.state.lock();
        while served
            && !state.ended
            && !self
                .shared
                .changed
                .wait_until(&mut state, started + timeout)
                .timed_out()
        {}
        result
    }

    /// Writes that the holder released, if it ever said that it held the lock.
    fn mark_released(&self, id: LeaseId, state: RecordState, timeout: Duration) {
        let context = &*self.context;
        if !context.recorder.records() {
            return; // What is written there is another holder's.
        }
        let record = match state.written {
            Some(written) => written.record,
            None if state.maybe_written => {
                Record::default().held_by(context.recorder.holder(context.clock().wall()))
            }
            None => return,
        };
        if record.holder.is_none() {
            return;
        }
        if let Err(error) = context
            .recorder
            .mark_released(context.under(id), record, timeout)
            && error.kind() != ErrorKind::LeaseLost
        {
            context.notice(&Event::RecordFailed { error });
        }
    }

    /// Replaces the content of the lock blob.
    pub(crate) fn write_content(&self, id: LeaseId, content: &[u8]) -> Result<(), Error> {
        let context = &*self.context;
        let written = self.shared.state.lock().record.written.clone();
        let timeout = context.mutex.request_timeout();
        let result = context
            .recorder
            .write_content(context.under(id), written, content, timeout);
        let mut state = self.shared.state.lock();
        match &result {
            Ok(written) => {
                state.record.maybe_written = true;
                state.record.due = None;
                state.record.written = Some(written.clone());
            }
            Err(error) if error.is_ambiguous() => state.record.maybe_written = true,
            Err(_) => {}
        }
        drop(state);
        result.map(drop).inspect_err(|error| self.heed(error))
    }

    /// Reads the content of the lock blob.
    pub(crate) fn read_content(&self, id: LeaseId) -> Result<Vec<u8>, Error> {
        let (client, key) = (self.context.mutex.client(), &self.context.key);
        until_answered(self.context.mutex.request_timeout(), |timeout, _| {
            client.read_content(key, id, timeout)
        })
        .inspect_err(|error| self.heed(error))
    }

    /// If the service says that the lease is lost, it is, at once.
    fn heed(&self, error: &Error) {
        let thread = Thread {
            context: &self.context,
            shared: &self.shared,
            sleeper: None,
        };
        thread.lose(&mut self.shared.state.lock(), error);
    }
}

/// What the thread does for one guard, until the guard is gone.
pub(crate) fn serve(context: &Context, shared: &Shared) {
    let sleeper = Some(Sleeper::new(&shared.clock, &shared.changed));
    Thread {
        context,
        shared,
        sleeper,
    }
    .run();
}

/// The thread itself; also lends its waiting to an acquisition on the caller's thread.
struct Thread<'a> {
    context: &'a Context,
    shared: &'a Shared,
    /// Not on a caller's thread.
    sleeper: Option<Sleeper>,
}

impl Thread<'_> {
    /// Waits for a change, for at most `delay`, and no later than `until`.
    fn wait(&self, state: &mut MutexGuard<'_, State>, delay: Duration, until: Tick) {
        if let Some(sleeper) = &self.sleeper {
            return sleeper.wait(state, delay, until);
        }
        let clock = &self.shared.clock;
        let left = until.since(clock.now()).min(clock.longest_sleep());
        self.shared.changed.wait_for(state, delay.min(left));
    }

    fn run(&self) {
        // Nothing here is known to panic. If something does, the claim still ends at the deadline.
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            let target = self.context.target();
            no_panic(|| log::error!("the renewal thread of `{target}` panicked; it goes on"));
        }
    }

    fn work(&self) {
        let mut state = self.shared.state.lock();
        state.busy = false;
        loop {
            match state.task {
                Task::Idle => {
                    self.wait(&mut state, self.context.look_up(), Tick::NEVER);
                }
                Task::Acquire(patience) => {
                    state.task = Task::Idle;
                    if self.acquire(&mut state, patience) {
                        return;
                    }
                }
                Task::Keep(id) => self.keep(&mut state, id),
                Task::TakeBack(id) => {
                    state.task = Task::End;
                    MutexGuard::unlocked(&mut state, || self.take_back(id));
                }
                Task::End => return,
            }
        }
    }

    /// Acquires for a caller who waits. Returns whether the caller went away meanwhile.
    fn acquire(&self, state: &mut MutexGuard<'_, State>, patience: Patience) -> bool {
        let result = MutexGuard::unlocked(state, || {
            // Nothing in there is known to panic. If it does, the caller must not wait for ever.
            catch_unwind(AssertUnwindSafe(|| self.context.acquire(patience, self)))
        });
        let result = result.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::System, "the acquisition panicked")
                .during("acquire lease on", &self.context.target());
            Err(Refused { error, stray: None })
        });
        if !state.abandoned {
            state.acquired = Some(result);
            self.shared.changed.notify_all();
            return false;
        }
        let granted = match result {
            Ok(acquired) => Some(acquired.granted.id),
            Err(refused) => refused.stray,
        };
        MutexGuard::unlocked(state, || match granted {
            Some(id) => self.take_back(id),
            None => self.context.end_stray(),
        });
        true
    }

    fn take_back(&self, id: LeaseId) {
        let context = self.context;
        context
            .mutex
            .take_back(&context.key, id, context.release_timeout);
        context.end_stray();
    }

    /// Does what the hold says comes next.
    fn keep(&self, state: &mut MutexGuard<'_, State>, id: LeaseId) {
        let Some(hold) = &mut state.hold else { return };
        let now = self.shared.clock.now();
        let step = hold.step(now);
        // Under a lease that ran out a write is refused as lost, where a renewal may succeed.
        let is_held = hold.claim(now) == Claim::Held;
        match step {
            Step::Wait(until) => match state.record.due.filter(|_| is_held) {
                Some(due) if due <= now => self.name_holder(state, id, until),
                due => {
                    let until = due.map_or(until, |due| due.min(until));
                    self.wait(state, Duration::MAX, until);
                }
            },
            Step::Announce(claim) => {
                self.shared.publish(hold);
                MutexGuard::unlocked(state, || self.announce(claim));
            }
            Step::Renew { timeout } => self.renew(state, id, timeout),
            // Lost: the guard still stands, and ends the thread when it goes.
            Step::End => self.wait(state, Duration::MAX, Tick::NEVER),
        }
    }

    fn renew(&self, state: &mut MutexGuard<'_, State>, id: LeaseId, timeout: Duration) {
        let context = self.context;
        let clock = &self.shared.clock;
        let sent = clock.now();
        state.busy = true;
        let result = MutexGuard::unlocked(state, || {
            context.mutex.client().renew(&context.key, id, timeout)
        });
        state.busy = false;
        self.shared.changed.notify_all();
        // The guard may have been released meanwhile; then the outcome is of no interest.
        if !matches!(state.task, Task::Keep(_)) {
            return;
        }
        let Some(hold) = &mut state.hold else { return };
        let renewal = match &result {
            Ok(()) => Renewal::Confirmed,
            Err(error) => match error.loss_reason() {
                Some(reason) => Renewal::Lost(reason),
                None => Renewal::Unknown {
                    retry_after: error.retry_after(),
                },
            },
        };
        let now = clock.now();
        let change = hold.renewed(sent, now, renewal);
        self.shared.publish(hold);
        let remaining = hold.deadline().since(now);
        MutexGuard::unlocked(state, || {
            match (result, renewal) {
                (Ok(()), _) => context.notice(&Event::Renewed),
                (Err(_), Renewal::Lost(_)) => {}
                (Err(error), _) => context.notice(&Event::RenewalFailed { error, remaining }),
            }
            if let Some(claim) = change {
                self.announce(claim);
            }
        });
    }

    /// Says who holds the lock. Done by `until`, when the hold needs the thread again.
    fn name_holder(&self, state: &mut MutexGuard<'_, State>, id: LeaseId, until: Tick) {
        let context = self.context;
        let clock = &self.shared.clock;
        let timeout = until
            .since(clock.now())
            .min(context.mutex.request_timeout() / 2);
        let etag = state.record.etag.clone();
        state.record.due = None;
        state.record.maybe_written = true;
        state.busy = true;
        let result = MutexGuard::unlocked(state, || {
            context
                .recorder
                .name_holder(context.under(id), &etag, timeout)
        });
        state.busy = false;
        self.shared.changed.notify_all();
        match result {
            Ok(written) => state.record.written = Some(written),
            Err(error) => {
                if !self.lose(state, &error) && matches!(state.task, Task::Keep(_)) {
                    state.record.due = Some(clock.now() + context.terms.renew_every);
                    let event = Event::RecordFailed { error };
                    MutexGuard::unlocked(state, || context.notice(&event));
                }
            }
        }
    }

    /// Ends the hold if the service said that the lease is lost. Returns whether it did.
    fn lose(&self, state: &mut MutexGuard<'_, State>, error: &Error) -> bool {
        let (Some(reason), Some(hold)) = (error.loss_reason(), &mut state.hold) else {
            return false;
        };
        if matches!(hold.claim(self.shared.clock.now()), Claim::Lost(_)) {
            return false;
        }
        hold.lose(reason);
        self.shared.publish(hold);
        self.shared.changed.notify_all();
        MutexGuard::unlocked(state, || self.announce(Claim::Lost(reason)));
        true
    }

    fn announce(&self, claim: Claim) {
        self.context.notice(&match claim {
            Claim::Held => Event::HeldAgain,
            Claim::Unproven => Event::Unproven,
            Claim::Lost(reason) => Event::Lost { reason },
        });
    }
}

impl Waiter for Thread<'_> {
    fn sleep(&self, delay: Duration, until: Tick) {
        let end = Instant::now().checked_add(delay);
        let mut state = self.shared.state.lock();
        while !self.is_stopped() && !state.abandoned && self.shared.clock.now() < until {
            let left = end.map_or(Duration::MAX, |end| {
                end.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return;
            }
            self.wait(&mut state, left, until);
        }
    }

    fn is_stopped(&self) -> bool {
        self.context
            .stop
            .as_ref()
            .is_some_and(StopToken::is_stopped)
    }

    fn notice(&self, event: Event) {
        self.context.notice(&event);
    }
}
