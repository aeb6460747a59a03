//! The thread of one lease. It carries out the lease's steps, from the first request to the last.
//!
//! It is started before the lease is acquired, so that a machine that has no thread to give cannot
//! leave a lease behind that nobody renews. The caller who wants the lock waits on a condition
//! variable meanwhile, so that a time limit or a stop ends the wait at once, whatever the network does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::line::Next;
use super::state::{Granted, GuardState, LeaseThread, LockerInner, Shared};
use super::stop::Wake;
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind, LossReason, Phase};
use crate::holder::record::Done;
use crate::lease::acquisition::others_first;
use crate::lease::hold::Claim;
use crate::lease::ids::LeaseId;
use crate::lease::lifecycle::Lifecycle;
use crate::lease::step::{Notice, Request, Step};
use crate::lease::terms::WaitLimit;
use crate::mutex::leased_blob::{LeasedBlob, Seen};
use crate::sync::{MutexGuard, thread};
use crate::time::tick::{Moment, Tick};

/// Who carries out the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Thread,
    /// Whoever releases the lease.
    Releaser,
}

impl LeaseThread {
    /// Acquires the lease, and waits for it within `limit`.
    pub(crate) fn acquire(
        locker: &Arc<LockerInner>,
        limit: WaitLimit,
    ) -> Result<(Self, Granted), Error> {
        let settings = &locker.settings;
        let target = &settings.events.target;
        let id = LeaseId::random()?;
        let clock = settings.mutex.operations().client.clock().clone();
        let now = clock.moment();
        let asks = limit.does_not_wait();
        let lifecycle = match asks {
            true => Lifecycle::new(settings.terms, limit, now),
            false => Lifecycle::in_line(settings.terms, limit, now),
        };
        let lease = Self {
            locker: Arc::clone(locker),
            state: Arc::new(GuardState::new(clock, id, lifecycle, now)),
        };
        if let Some(stop) = &settings.stop {
            let state: Arc<dyn Wake> = Arc::<GuardState>::clone(&lease.state);
            stop.register(Arc::downgrade(&state));
            if stop.is_stopped() {
                return Err(stopped(target));
            }
        }
        if !lease.join(limit) {
            let error = others_first();
            return Err(error.during("acquire lease on", target));
        }
        let started = if asks { lease.start() } else { Ok(()) };
        match started.and_then(|()| lease.wait()) {
            Ok(granted) => {
                lease.begin_turn();
                Ok((lease, granted))
            }
            Err(error) => {
                lease.fail_others(limit, &error);
                lease.end_turn();
                // Which may be another one now.
                lease.wake_first();
                Err(error)
            }
        }
    }

    /// Waits for the lease, until the time is up or somebody stops it.
    fn wait(&self) -> Result<Granted, Error> {
        let stop = self.locker.settings.stop.as_ref();
        let target = &self.locker.settings.events.target;
        let mut shared = self.state.lock();
        loop {
            if let Some(result) = shared.handed.take() {
                return result;
            }
            let now = self.state.now();
            if let Some((token, notice)) = shared.lifecycle.accept(now) {
                self.state.publish(&shared);
                let granted = self.granted(&shared, token);
                self.tell(&mut shared, notice);
                return Ok(granted);
            }
            let end = shared.lifecycle.wait_end();
            let mut until = Moment {
                lease: end,
                real: Tick::NEVER,
            };
            let is_stopped = stop.is_some_and(|stop| stop.is_stopped());
            if shared.lifecycle.is_in_line() && !is_stopped {
                match self.look(now, end) {
                    Next::Ask => {
                        shared.lifecycle.begin(now);
                        self.start()?;
                        continue;
                    }
                    Next::Wait(then) => until.real = then,
                }
                match shared.lifecycle.step(now) {
                    Step::Announce(notice) => {
                        self.tell(&mut shared, notice);
                        continue;
                    }
                    Step::Wait(then) => until.real = until.real.min(then.real),
                    _ => {}
                }
            }
            let error = if is_stopped {
                stopped(target)
            } else if now.lease >= end {
                let error = shared.lifecycle.unmet();
                error.during("acquire lease on", target)
            } else {
                self.state.wait(&mut shared, until);
                continue;
            };
            if shared.lifecycle.is_in_line() && !self.leave() {
                // It is being given the lease.
                self.state.wait(&mut shared, Moment::NEVER);
                continue;
            }
            shared.lifecycle.give_up(now);
            self.state.publish(&shared);
            return Err(self.abandon(&mut shared, error));
        }
    }

    /// Starts the lease's thread.
    fn start(&self) -> Result<(), Error> {
        let lease = self.clone();
        thread::Builder::new()
            .name(format!("azmutex:{}", self.locker.settings.key))
            .stack_size(self.locker.settings.stack)
            .spawn(move || lease.run())
            .map(drop)
            .map_err(|error| {
                Error::new(ErrorKind::System, "no thread to renew the lease from")
                    .with_source(error)
                    .during("acquire lease on", &self.locker.settings.events.target)
            })
    }

    /// Releases the lease, all of it within the release timeout.
    ///
    /// `started`: when that began.
    pub(crate) fn release(&self, started: Moment) -> Result<(), Error> {
        let silence = &self.locker.settings.mutex.operations().silence;
        let mut shared = self.state.lock();
        shared.lifecycle.release(Moment {
            lease: self.state.now().lease,
            ..started
        });
        self.state.publish(&shared);
        if shared.lifecycle.result().is_none() && silence.is_known(started.real) {
            let text = "the service has not answered for a while; the lease is released in the \
                        background";
            let error = match shared.lifecycle.claim(started.lease) {
                Claim::Lost(reason) if reason != LossReason::Released => Error::lost(reason),
                _ => Error::transport(text, Phase::Reply),
            };
            let error = error.during("release lease on", &self.locker.settings.events.target);
            return Err(self.abandon(&mut shared, error));
        }
        // From here on there is one who sends, so that no release overtakes another. A renewal that
        // arrives after the release is refused by the service, so waiting for it is for order, not
        // for safety.
        shared.taken_over = true;
        self.wait_for_answer(&mut shared, started);
        drop(shared);
        self.carry_out(Driver::Releaser);
        let shared = self.state.lock();
        let result = shared.lifecycle.result().cloned().unwrap_or(Ok(()));
        if result.as_ref().is_err_and(Error::is_silence) {
            silence.waited_in_vain(started.real, self.state.now().real);
        }
        result
            .map_err(|error| error.during("release lease on", &self.locker.settings.events.target))
    }

    /// Waits until the lease's thread has an answer to what it has sent, for at most half of the release
    /// timeout after `started`.
    pub(crate) fn wait_for_answer(&self, shared: &mut MutexGuard<'_, Shared>, started: Moment) {
        let patience = Moment {
            lease: Tick::NEVER,
            real: started.real + self.locker.settings.terms.release_timeout / 2,
        };
        while shared.busy && self.state.now().real < patience.real {
            self.state.wait(shared, patience);
        }
    }

    /// Tells what there is to tell of a lease that is over.
    pub(crate) fn announce(&self) {
        self.carry_out(Driver::Releaser);
    }

    /// Ends the renewals, and leaves the lease to whoever knows its ID.
    pub(crate) fn detach(&self) {
        let mut shared = self.state.lock();
        shared.lifecycle.detach();
        self.state.publish(&shared);
    }

    /// Replaces the content of the lock blob.
    pub(crate) fn write_content(&self, id: LeaseId, content: &[u8]) -> Result<(), Error> {
        self.write(|timeout| self.blob(id).write_content(content, timeout))
    }

    /// Records that the work is done that the lock is for.
    pub(crate) fn write_done(&self, id: LeaseId) -> Result<(), Error> {
        self.write(|timeout| self.blob(id).write_done(timeout))
    }

    fn write(&self, write: impl FnOnce(Duration) -> Result<String, Error>) -> Result<(), Error> {
        let result = write(self.locker.settings.mutex.operations().request_timeout);
        let mut shared = self.state.lock();
        match &result {
            Ok(etag) => shared.lifecycle.content_written(Some(etag)),
            Err(error) if error.is_ambiguous() => shared.lifecycle.content_written(None),
            Err(error) => self.heed(&mut shared, error),
        }
        result.map(drop)
    }

    /// Reads whether the work is done that the lock is for.
    pub(crate) fn read_done(&self, id: LeaseId) -> Result<Option<Done>, Error> {
        let operations = self.locker.settings.mutex.operations();
        operations
            .until_answered(|timeout| self.blob(id).read(timeout))
            .map(|stored| stored.record.done)
            .inspect_err(|error| self.heed(&mut self.state.lock(), error))
    }

    /// Reads the content of the lock blob.
    pub(crate) fn read_content(&self, id: LeaseId) -> Result<Vec<u8>, Error> {
        let operations = self.locker.settings.mutex.operations();
        let (client, key) = (&operations.client, &self.locker.settings.key);
        operations
            .until_answered(|timeout| client.read_content(key, id, timeout))
            .inspect_err(|error| self.heed(&mut self.state.lock(), error))
    }

    /// If the service says that the lease is lost, it is, at once.
    fn heed(&self, shared: &mut Shared, error: &Error) {
        if let Some(reason) = error.loss_reason() {
            shared.lifecycle.lose(reason);
            self.state.publish(shared);
        }
    }

    /// What the lease's thread does: it goes with the lease from guard to guard.
    fn run(self) {
        let _presence = self.state.enter();
        let keep_fresh = |lease: &Self| {
            let operations = lease.locker.settings.mutex.operations();
            operations.client.keep_token_fresh()
        };
        let mut lease = self;
        let mut _fresh = keep_fresh(&lease);
        loop {
            lease.keep();
            let Some(next) = lease.state.lock().next.lock().take() else {
                break;
            };
            // Before the token of the one before is let go, which may be the same.
            _fresh = keep_fresh(&next);
            lease = next;
        }
        if lease.state.lock().abandoned {
            lease.locker.settings.abandoned.remove();
        }
    }

    fn keep(&self) {
        // Nothing here is known to panic. If something does, the claim still ends at the deadline.
        let carry_out = || self.carry_out(Driver::Thread);
        while catch_unwind(AssertUnwindSafe(carry_out)).is_err() {
            let target = &self.locker.settings.events.target;
            no_panic(|| log::error!("lock `{target}`: the lease's thread panicked; it goes on"));
            let mut shared = self.state.lock();
            (shared.busy, shared.telling) = (false, false);
            let real = self.state.now().real + Duration::from_secs(1);
            let lease = Tick::NEVER;
            self.state.wait(&mut shared, Moment { lease, real });
        }
    }

    /// Does what the lease says comes next, until nothing does.
    fn carry_out(&self, driver: Driver) {
        let mut shared = self.state.lock();
        while driver == Driver::Releaser || !shared.taken_over {
            let step = shared.lifecycle.step(self.state.now());
            self.state.publish(&shared);
            match step {
                Step::Send { request, timeout } => {
                    self.send(&mut shared, driver, &request, timeout);
                }
                Step::Wait(until) => self.state.wait(&mut shared, until),
                Step::Announce(notice) => {
                    shared.telling |= driver == Driver::Thread;
                    self.tell(&mut shared, notice);
                    shared.telling &= driver != Driver::Thread;
                }
                Step::HandOver { token } => {
                    shared.handed = Some(Ok(self.granted(&shared, token)));
                }
                Step::Fail(error) => {
                    let error =
                        error.during("acquire lease on", &self.locker.settings.events.target);
                    let error = self.abandon(&mut shared, error);
                    shared.handed = Some(Err(error));
                }
                Step::Restart => match LeaseId::random() {
                    Ok(id) => {
                        *self.state.seen.lock() = Seen::default();
                        shared.id = id;
                        shared.former = None;
                        shared.lifecycle.restart(self.state.now());
                    }
                    Err(error) => {
                        shared.lifecycle.give_up(self.state.now());
                        shared.handed = Some(Err(error));
                    }
                },
                Step::End => break,
            }
        }
        // Whoever took over waits for this thread's last answer.
        self.state.publish(&shared);
    }

    /// Tells those who listen what happened.
    fn tell(&self, shared: &mut MutexGuard<'_, Shared>, notice: Notice) {
        // Those who wait in this process must not count on it any more.
        let lapsed = matches!(notice, Notice::Unproven | Notice::Lost(_));
        let is_elsewhere = matches!(notice, Notice::HeldByAnother { .. });
        let is_over = shared.lifecycle.result().is_some();
        let events = &self.locker.settings.events;
        let status = self.state.seen.lock().status.clone();
        let (event, report) = events.event(notice, status, || self.before());
        MutexGuard::unlocked(shared, || {
            if lapsed {
                self.wake_first();
            }
            if is_elsewhere {
                self.wait_for_others();
            }
            if is_over {
                // Before an observer hears of it, who may want the lock again.
                self.end_turn();
            }
            events.tell(&event, report);
        });
    }

    fn granted(&self, shared: &Shared, token: Option<i64>) -> Granted {
        Granted {
            id: shared.id,
            token,
            previous: self.state.seen.lock().previous.clone(),
        }
    }

    fn send(
        &self,
        shared: &mut MutexGuard<'_, Shared>,
        driver: Driver,
        request: &Request,
        timeout: Duration,
    ) {
        let blob = LeasedBlob {
            former: shared.former,
            ..self.blob(shared.id)
        };
        shared.busy |= driver == Driver::Thread;
        let sent = self.state.now();
        let result = MutexGuard::unlocked(shared, || blob.perform(request, timeout));
        shared.busy &= driver != Driver::Thread;
        let random = shared.jitter.next();
        let now = self.state.now();
        shared
            .lifecycle
            .answered(request, sent, now, result, random);
    }

    /// Nobody waits for the lease any more: what is left is done in the background. Returns the
    /// error with the lease's ID if the service may have granted it.
    fn abandon(&self, shared: &mut Shared, error: Error) -> Error {
        if shared.lifecycle.result().is_some() {
            return error;
        }
        if !shared.abandoned {
            shared.abandoned = true;
            self.locker.settings.abandoned.add();
        }
        error.with_lease_id(shared.id)
    }

    fn blob(&self, id: LeaseId) -> LeasedBlob<'_> {
        LeasedBlob {
            operations: self.locker.settings.mutex.operations(),
            key: &self.locker.settings.key,
            id,
            former: None,
            duration: self.locker.settings.duration,
            recorder: &self.locker.settings.recorder,
            seen: &self.state.seen,
        }
    }
}

fn stopped(target: &str) -> Error {
    Error::new(ErrorKind::Stopped, "waiting was stopped").during("acquire lease on", target)
}
