//! The thread of one lease. It carries out the lease's steps, from the first request to the last.
//!
//! It is started before the lease is acquired, so that a machine that has no thread to give cannot
//! leave a lease behind that nobody renews. The caller who wants the lock waits on a condition
//! variable meanwhile, so that a time limit or a stop ends the wait at once, whatever the network does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::settings::Settings;
use super::state::{Granted, GuardState, Shared};
use crate::azure::status::LeaseStatus;
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind, LossReason, Phase};
use crate::lease::hold::Claim;
use crate::lease::ids::LeaseId;
use crate::lease::lifecycle::Lifecycle;
use crate::lease::step::{Notice, Request, Step};
use crate::lease::terms::WaitLimit;
use crate::mutex::leased_blob::{LeasedBlob, Seen};
use crate::sync::{MutexGuard, thread};
use crate::time::tick::{Moment, Tick};

/// A lease and its thread.
#[derive(Debug, Clone)]
pub(crate) struct LeaseThread {
    pub(crate) settings: Arc<Settings>,
    pub(crate) state: Arc<GuardState>,
}

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
        settings: &Arc<Settings>,
        limit: WaitLimit,
    ) -> Result<(Self, Granted), Error> {
        let target = &settings.events.target;
        let id = LeaseId::random()?;
        let clock = settings.mutex.operations().client.clock().clone();
        let lifecycle = Lifecycle::new(settings.terms, limit, clock.moment());
        let lease = Self {
            settings: Arc::clone(settings),
            state: Arc::new(GuardState::new(clock, id, lifecycle)),
        };
        if let Some(stop) = &settings.stop {
            stop.register(&lease.state);
            if stop.is_stopped() {
                return Err(stopped(target));
            }
        }
        let thread = lease.clone();
        thread::Builder::new()
            .name(format!("azmutex:{}", settings.key))
            .stack_size(settings.stack)
            .spawn(move || thread.run())
            .map_err(|error| {
                Error::new(ErrorKind::System, "no thread to renew the lease from")
                    .with_source(error)
                    .during("acquire lease on", target)
            })?;
        let granted = lease.wait()?;
        Ok((lease, granted))
    }

    /// Waits for the thread to acquire the lease, until the time is up or somebody stops it.
    fn wait(&self) -> Result<Granted, Error> {
        let stop = self.settings.stop.as_ref();
        let target = &self.settings.events.target;
        let mut shared = self.state.lock();
        loop {
            if let Some(result) = shared.handed.take() {
                return result;
            }
            let end = shared.lifecycle.wait_end();
            let now = self.state.now();
            let error = if stop.is_some_and(|stop| stop.is_stopped()) {
                stopped(target)
            } else if now.lease >= end {
                let error = shared.lifecycle.unmet();
                error.during("acquire lease on", target)
            } else {
                let until = Moment {
                    lease: end,
                    real: Tick::NEVER,
                };
                self.state.wait(&mut shared, until);
                continue;
            };
            shared.lifecycle.give_up(now);
            self.state.publish(&shared);
            return Err(self.abandon(&mut shared, error));
        }
    }

    /// Releases the lease, all of it within the release timeout.
    pub(crate) fn release(&self) -> Result<(), Error> {
        let timeout = self.settings.terms.release_timeout;
        let silence = &self.settings.mutex.operations().silence;
        let mut shared = self.state.lock();
        let started = self.state.now();
        shared.lifecycle.release(started);
        self.state.publish(&shared);
        if shared.lifecycle.result().is_none() && silence.is_known(started.real) {
            let text = "the service has not answered for a while; the lease is released in the \
                        background";
            let error = match shared.lifecycle.claim(started.lease) {
                Claim::Lost(reason) if reason != LossReason::Released => Error::lost(reason),
                _ => Error::transport(text, Phase::Reply),
            };
            let error = error.during("release lease on", &self.settings.events.target);
            return Err(self.abandon(&mut shared, error));
        }
        // From here on there is one who sends, so that no release overtakes another. A renewal that
        // arrives after the release is refused by the service, so waiting for it is for order, not
        // for safety.
        shared.taken_over = true;
        let patience = Moment {
            lease: Tick::NEVER,
            real: started.real + timeout / 2,
        };
        while shared.busy && self.state.now().real < patience.real {
            self.state.wait(&mut shared, patience);
        }
        drop(shared);
        self.carry_out(Driver::Releaser);
        let shared = self.state.lock();
        let result = shared.lifecycle.result().cloned().unwrap_or(Ok(()));
        if result.as_ref().is_err_and(Error::is_silence) {
            silence.waited_in_vain(started.real, self.state.now().real);
        }
        result.map_err(|error| error.during("release lease on", &self.settings.events.target))
    }

    /// Ends the renewals, and leaves the lease to whoever knows its ID.
    pub(crate) fn detach(&self) {
        let mut shared = self.state.lock();
        shared.lifecycle.detach();
        self.state.publish(&shared);
    }

    /// Replaces the content of the lock blob.
    pub(crate) fn write_content(&self, id: LeaseId, content: &[u8]) -> Result<(), Error> {
        let timeout = self.settings.mutex.operations().request_timeout;
        let result = self.blob(id).write_content(content, timeout);
        let mut shared = self.state.lock();
        match &result {
            Ok(etag) => shared.lifecycle.content_written(Some(etag)),
            Err(error) if error.is_ambiguous() => shared.lifecycle.content_written(None),
            Err(error) => self.heed(&mut shared, error),
        }
        result.map(drop)
    }

    /// Reads the content of the lock blob.
    pub(crate) fn read_content(&self, id: LeaseId) -> Result<Vec<u8>, Error> {
        let operations = self.settings.mutex.operations();
        let (client, key) = (&operations.client, &self.settings.key);
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

    fn run(&self) {
        let _presence = self.state.enter();
        let client = &self.settings.mutex.operations().client;
        let _fresh = client.keep_token_fresh();
        // Nothing here is known to panic. If something does, the claim still ends at the deadline.
        let carry_out = || self.carry_out(Driver::Thread);
        while catch_unwind(AssertUnwindSafe(carry_out)).is_err() {
            let target = &self.settings.events.target;
            no_panic(|| log::error!("lock `{target}`: the lease's thread panicked; it goes on"));
            let mut shared = self.state.lock();
            shared.busy = false;
            let real = self.state.now().real + Duration::from_secs(1);
            let lease = Tick::NEVER;
            self.state.wait(&mut shared, Moment { lease, real });
        }
        if self.state.lock().abandoned {
            self.settings.abandoned.remove();
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
                    let (event, report) = self.event(&shared, notice);
                    MutexGuard::unlocked(&mut shared, || {
                        self.settings.events.tell(&event, report);
                    });
                }
                Step::HandOver { token } => {
                    let previous = self.state.seen.lock().previous.clone();
                    let id = shared.id;
                    shared.handed = Some(Ok(Granted {
                        id,
                        token,
                        previous,
                    }));
                }
                Step::Fail(error) => {
                    let error = error.during("acquire lease on", &self.settings.events.target);
                    let error = self.abandon(&mut shared, error);
                    shared.handed = Some(Err(error));
                }
                Step::Restart => match LeaseId::random() {
                    Ok(id) => {
                        *self.state.seen.lock() = Seen::default();
                        shared.id = id;
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

    fn send(
        &self,
        shared: &mut MutexGuard<'_, Shared>,
        driver: Driver,
        request: &Request,
        timeout: Duration,
    ) {
        let id = shared.id;
        shared.busy |= driver == Driver::Thread;
        let sent = self.state.now();
        let result = MutexGuard::unlocked(shared, || self.blob(id).perform(request, timeout));
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
            self.settings.abandoned.add();
        }
        error.with_lease_id(shared.id)
    }

    fn blob(&self, id: LeaseId) -> LeasedBlob<'_> {
        LeasedBlob {
            operations: self.settings.mutex.operations(),
            key: &self.settings.key,
            id,
            duration: self.settings.duration,
            recorder: &self.settings.recorder,
            seen: &self.state.seen,
        }
    }

    fn event(&self, shared: &Shared, notice: Notice) -> (Event, bool) {
        let mut worth_a_line = true;
        let event = match notice {
            Notice::HeldByAnother { attempt, elapsed } => {
                let status = self.state.seen.lock().status.clone();
                Event::Waiting {
                    attempt,
                    elapsed,
                    holder: status.as_ref().and_then(LeaseStatus::holder).cloned(),
                    status: status.map(Box::new),
                }
            }
            Notice::AcquireFailed {
                attempt,
                error,
                report,
            } => {
                worth_a_line = report;
                let error = error.during("acquire lease on", &self.settings.events.target);
                Event::AcquireFailed { attempt, error }
            }
            Notice::Acquired { elapsed } => Event::Acquired {
                lease_id: shared.id,
                elapsed,
            },
            Notice::Renewed => Event::Renewed,
            Notice::RenewalFailed { error, remaining } => Event::RenewalFailed { error, remaining },
            Notice::RecordFailed { error } => Event::RecordFailed { error },
            Notice::Unproven => Event::Unproven,
            Notice::HeldAgain => Event::HeldAgain,
            Notice::Lost(reason) => Event::Lost { reason },
            Notice::Released => Event::Released,
        };
        (event, worth_a_line)
    }
}

fn stopped(target: &str) -> Error {
    Error::new(ErrorKind::Stopped, "waiting was stopped").during("acquire lease on", target)
}
