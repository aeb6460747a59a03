//! Waiting for the lock: on a thread of its own, so that a signal ends it at once.

use std::ffi::c_int;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use azmutex::{Done, Event, LeaseStatus, StopToken, TryLockError};
use rustix::process::getpgrp;

use super::channel::Message;
use super::context::Context;
use super::events;
use super::held::{Got, Held, Wanted};
use super::signals::Arrived;
use super::timer;
use crate::output::{clean, columns, say_object};
use crate::times::span;
use crate::wait_display::{NAME, Since, Style, drawn, line, moment, who_holds};

/// How long leases that may have been granted are waited for after the waiting was given up.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// How often a failure that lasts is reported again.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What the waiting came to.
#[derive(Debug)]
pub(super) enum Waited {
    Granted(Box<Held>),
    /// There is no need for it: the work was done.
    Done(Done),
    Refused(TryLockError),
    /// A signal ended it, and what may have been granted is released.
    Signalled(c_int),
    /// Nobody wants it any more, and what may have been granted is released.
    Abandoned,
}

/// Waits for the lock, for at most `limit`. `heed` is given the signals that do not end it, is called
/// without one whenever something may have happened, and may abandon it.
pub(super) fn wait(
    context: &mut Context<'_>,
    wanted: &Wanted,
    stop: &StopToken,
    limit: Option<Duration>,
    mut heed: impl FnMut(Option<Arrived>) -> ControlFlow<()>,
) -> io::Result<Waited> {
    let there = wanted.clone();
    context
        .worker
        .start(move || Message::Waited(there.acquire(limit).map(Box::new)))?;
    let mut shown = Shown::new(context.args.waiting.limit(), wanted.permits());
    let ended = 'waiting: loop {
        let wait = shown.show(context);
        context.sleep(wait);
        for arrived in context.signals.take() {
            if arrived.ends() {
                break 'waiting Waited::Signalled(arrived.signal);
            }
            if heed(Some(arrived)).is_break() {
                break 'waiting Waited::Abandoned;
            }
        }
        if heed(None).is_break() {
            break 'waiting Waited::Abandoned;
        }
        while let Some(message) = context.channel.take() {
            match message {
                Message::Waited(result) => {
                    return Ok(match result {
                        Ok(got) => match *got {
                            Got::Held(held) => {
                                shown.acquired(context, &held);
                                Waited::Granted(Box::new(held))
                            }
                            Got::Done(done) => {
                                context.reporter.clear();
                                Waited::Done(done)
                            }
                        },
                        Err(error) => {
                            context.reporter.clear();
                            clean_up(context, wanted, Some(&error));
                            Waited::Refused(error)
                        }
                    });
                }
                message => shown.note(context, message),
            }
        }
    };
    context.reporter.clear();
    stop.stop();
    clean_up(context, wanted, None);
    Ok(ended)
}

/// Releases what may have been granted meanwhile, as far as it can be done in a moment. Another
/// signal ends that too. `error`: what the waiting came to, if it is over.
fn clean_up(context: &mut Context<'_>, wanted: &Wanted, error: Option<&TryLockError>) {
    let patience = if error.is_some() {
        CLEAN_UP / 2
    } else {
        CLEAN_UP
    };
    let end = timer::now() + patience;
    let mut waited = error.is_some();
    let mut releasing = error.is_some_and(|error| release_unheard_of(context, wanted, error));
    while timer::now() < end {
        while let Some(message) = context.channel.take() {
            match message {
                Message::Waited(result) => {
                    waited = true;
                    releasing = match result {
                        // Without a thread for the release the lease runs out.
                        Ok(got) => match *got {
                            Got::Held(held) => context.release(held).map(mem::forget).is_none(),
                            Got::Done(_) => false,
                        },
                        Err(error) => release_unheard_of(context, wanted, &error),
                    };
                }
                Message::Released(Ok(())) => return,
                Message::Released(Err(_)) => releasing = false,
                _ => {}
            }
        }
        if waited && !releasing && wanted.settle(Duration::ZERO) {
            return;
        }
        context.sleep(Some(Duration::from_millis(10)));
        if context.signals.take().iter().any(|arrived| arrived.ends()) {
            return;
        }
    }
}

/// Releases the lease that `error` leaves behind, if it does. The locker would do so by itself, but
/// only once the request that it waits for has come to an end. Returns whether a message follows.
fn release_unheard_of(context: &mut Context<'_>, wanted: &Wanted, error: &TryLockError) -> bool {
    let TryLockError::Error(error) = error else {
        return false;
    };
    let Some(lease) = wanted.left_behind(error) else {
        return false;
    };
    let mutex = wanted.mutex().clone();
    let release = move || Message::Released(mutex.release(&lease));
    context.worker.start(release).is_ok()
}

/// What was shown of the waiting so far.
struct Shown {
    started: Duration,
    limit: Option<Duration>,
    /// Of the semaphore, if it is one.
    permits: Option<u32>,
    /// Of several locks, the one that is waited for.
    name: Option<Arc<str>>,
    /// Since when another client is known to hold the lock.
    waiting: bool,
    status: Option<Box<LeaseStatus>>,
    /// How many lines were written.
    lines: u32,
    next: Duration,
    failed: Option<Duration>,
}

impl Shown {
    fn new(limit: Option<Duration>, permits: Option<u32>) -> Self {
        Self {
            started: timer::now(),
            limit,
            permits,
            name: None,
            waiting: false,
            status: None,
            lines: 0,
            next: Duration::ZERO,
            failed: None,
        }
    }

    fn note(&mut self, context: &mut Context<'_>, message: Message) {
        match message {
            Message::Event(Event::Waiting { status, .. }, name) => {
                if name != self.name {
                    self.name = name;
                    self.status = None;
                }
                if !self.waiting {
                    self.waiting = true;
                    self.next = timer::now() + NAME;
                    self.failed = None;
                }
                // The first line has only waited for this.
                if status.is_some() && self.lines == 0 {
                    self.next = timer::now();
                }
                self.status = status.or_else(|| self.status.take());
            }
            Message::Event(Event::AcquireFailed { error, attempt, .. }, _) => {
                context.event(&events::acquire_failed(context.key(), &error, attempt));
                let now = timer::now();
                if self.failed.is_none_or(|last| now >= last + REPORT_EVERY) {
                    self.failed = Some(now);
                    let text = clean(&error.to_string());
                    context.reporter.warn(&format!("{text}; trying again"));
                }
            }
            _ => {}
        }
    }

    /// Shows what is due. Returns how long until the next.
    fn show(&mut self, context: &mut Context<'_>) -> Option<Duration> {
        let heard = context.style != Style::Silent || context.reporter.has_events();
        if !self.waiting || !heard {
            return None;
        }
        let now = timer::now();
        if now < self.next {
            return Some(self.next - now);
        }
        let waited = now - self.started;
        let event = events::waiting(&context.lock.key, self.status.as_deref(), waited);
        if self.lines == 0 || context.style != Style::Drawn {
            context.event(&event);
        }
        let name = self.name.as_deref().unwrap_or(context.name());
        let status = self.status.as_deref();
        match context.style {
            // In the background the terminal shows somebody else's work.
            Style::Drawn if !is_foreground() => {}
            Style::Drawn => {
                let line = drawn(name, self.permits, status, waited, self.limit, columns());
                context.reporter.draw(&line);
            }
            Style::Objects => say_object(&event),
            Style::Lines => {
                let who = who_holds(self.permits, status, Since::Time);
                let line = line(name, &who, waited, self.limit);
                context.reporter.note(&line);
            }
            Style::Silent => {}
        }
        self.lines += 1;
        self.next = match context.style {
            Style::Drawn => now + Duration::from_secs(1),
            _ => self.started + moment(self.lines),
        };
        Some(self.next.saturating_sub(now))
    }

    fn acquired(&self, context: &mut Context<'_>, held: &Held) {
        context.reporter.clear();
        if self.lines == 0 && context.global.verbose == 0 {
            return;
        }
        let waited = timer::now() - self.started;
        if context.style == Style::Objects {
            say_object(&events::acquired(context.lock, held, waited));
        } else {
            let permit = held
                .slot
                .map_or(String::new(), |slot| format!("permit {slot} of "));
            let text = format!("acquired {permit}{} after {}", context.name(), span(waited));
            context.reporter.note(&text);
        }
    }
}

/// Asks on a thread who holds the lock. Returns whether an answer will come.
fn look(context: &Context<'_>, wanted: &Wanted) -> bool {
    let (sender, wanted) = (context.channel.sender(), wanted.clone());
    thread::Builder::new()
        .name("azmutex:look".to_owned())
        .spawn(move || {
            sender.send(Message::Status(wanted.look().map(Box::new)));
        })
        .is_ok()
}

/// Asks who holds the lock, for at most `patience`.
pub(super) fn look_for(
    context: &mut Context<'_>,
    wanted: &Wanted,
    patience: Duration,
) -> Option<Box<LeaseStatus>> {
    let end = timer::now() + patience;
    if !look(context, wanted) {
        return None;
    }
    loop {
        while let Some(message) = context.channel.take() {
            if let Message::Status(status) = message {
                return status.ok();
            }
        }
        let left = end.saturating_sub(timer::now());
        let interrupted = context.signals.take().iter().any(|arrived| arrived.ends());
        if left.is_zero() || interrupted {
            return None;
        }
        context.sleep(Some(left));
    }
}

/// Whether this process may draw on the terminal of stderr.
fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stderr()).map_or(true, |group| group == getpgrp())
}
