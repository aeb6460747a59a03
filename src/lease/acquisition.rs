//! PURE: asking for a lease until it is granted, refused for good, or given up.

use std::time::Duration;

use super::proposal::Proposal;
use super::step::{Answer, Metadata, Notice, Request};
use super::terms::{Terms, WaitLimit};
use crate::error::{Delivery, Error, ErrorKind, Phase};
use crate::time::backoff::Pace;
use crate::time::retry::Retry;
use crate::time::tick::{Moment, Tick};

/// How often a missing container or blob is created again before it counts as deleted on purpose.
const CREATIONS: u32 = 3;

/// How long before the end of a limited wait the last attempt is made, at most: enough for one
/// request.
const LAST_ATTEMPT: Duration = Duration::from_millis(100);

/// What the first attempt of a limited wait gets at least: a limit of a millisecond still asks once.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// A short wait does not look who holds the lease.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// After so long a wait for others in this process it is told for the first time.
const FIRST_TOLD: Duration = Duration::from_secs(1);

/// How often a waiter looks who holds the lease, or less often if the service is overloaded; and how
/// long after an attempt at most.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// How often it is said again that another client holds the lease, or that attempts fail.
const REPORT_EVERY: Duration = Duration::from_secs(10);
const HELD: usize = 0;
const FAILED: usize = 1;

/// The acquisition of one lease.
#[derive(Debug, Clone)]
pub(crate) struct Acquisition {
    pub(super) terms: Terms,
    pub(super) limit: WaitLimit,
    pub(super) started: Moment,
    /// When it was the caller's turn to ask the service.
    pub(super) begun: Tick,
    pub(super) proposal: Proposal,
    pub(super) next: Request,
    /// When to send `next`, by the system's clock.
    pub(super) due: Tick,
    pub(super) attempts: u32,
    /// Some attempt came to its end.
    pub(super) concluded: bool,
    /// The service has accepted the credential.
    pub(super) accepted: bool,
    pub(super) creations: u32,
    pub(super) pace: Pace,
    pub(super) faults: Retry,
    /// When to look who holds the lease, and how long before the next attempt.
    pub(super) look: Tick,
    pub(super) look_before: Duration,
    /// When it was last said that another client holds the lease, and that an attempt failed.
    pub(super) told: [Option<Tick>; 2],
    pub(super) held_by_another: Option<Error>,
    pub(super) failure: Option<Error>,
}

/// What an acquisition does next.
#[derive(Debug)]
pub(crate) enum Step {
    Send(Request, Duration),
    Wait(Moment),
    /// The time is up.
    Fail(Error),
}

/// What became of an answer.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It goes on, and this is worth telling.
    GoesOn(Option<Notice>),
    /// The lease is granted; its deadline is measured from `since`.
    Granted {
        since: Tick,
        metadata: Option<Metadata>,
    },
    Failed(Error),
}

/// What to report to a caller who does not wait for others in this process any longer.
pub(crate) fn others_first() -> Error {
    let text = "others in this process have the lock or wait for it";
    Error::new(ErrorKind::WouldBlock, text)
}

impl Acquisition {
    pub(crate) fn new(terms: Terms, limit: WaitLimit, now: Moment) -> Self {
        let fault_wait = match limit {
            WaitLimit::Once(_) => terms.fault_wait.min(terms.attempt_timeout * 2),
            _ => terms.fault_wait,
        };
        // A wait that is shorter than a few intervals does not spend most of its time on one.
        let interval = terms.poll_interval.min(limit.end().since(now.lease) / 4);
        Self {
            terms,
            limit,
            started: now,
            begun: now.lease,
            proposal: Proposal::default(),
            next: Request::Acquire,
            due: now.real,
            attempts: 0,
            concluded: false,
            accepted: false,
            creations: 0,
            pace: Pace::new(interval),
            faults: Retry::new(fault_wait),
            look: now.real + FIRST_LOOK,
            look_before: Duration::ZERO,
            told: [None; 2],
            held_by_another: None,
            failure: None,
        }
    }

    /// The caller waits for others in this process, and asks the service from `now` on.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.begun = now.lease;
        self.due = now.real;
        self.look = now.real + FIRST_LOOK;
    }

    /// The caller waits for others in this process first.
    pub(crate) fn in_line(self) -> Self {
        Self {
            look: self.started.real + FIRST_TOLD,
            ..self
        }
    }

    /// The caller waits for others in this process. Returns until when, or what to tell at `now`.
    pub(crate) fn wait_in_line(&mut self, now: Moment) -> Result<Notice, Moment> {
        if now.real < self.look {
            return Err(Moment {
                lease: self.limit.end(),
                real: self.look,
            });
        }
        self.look = now.real + LOOK_EVERY;
        Ok(Notice::InLine {
            elapsed: now.lease.since(self.started.lease),
        })
    }

    /// What to do at `now`.
    pub(crate) fn step(&mut self, now: Moment) -> Step {
        if now.lease >= self.end() {
            return Step::Fail(self.unmet());
        }
        if now.real < self.due {
            let look = self.look.max(self.due - self.look_before);
            let looks = self.held_by_another.is_some() && look < self.due;
            if looks && now.real >= look {
                // The next attempt is not delayed by it.
                let left = self.due.since(now.real);
                let timeout = self.terms.attempt_timeout.min(left);
                return Step::Send(Request::ReadHolder, timeout);
            }
            return Step::Wait(Moment {
                lease: self.end(),
                real: if looks { look } else { self.due },
            });
        }
        let left = self.limit.end().since(now.lease);
        let longest = self.terms.attempt_timeout;
        let longest = if self.concluded {
            longest.min(left)
        } else {
            longest.min(left.max(FIRST_ATTEMPT))
        };
        if self.next == Request::Acquire {
            self.attempts += 1;
            self.proposal.sending(now.lease);
        }
        let timeout = self.faults.attempt(now.real, longest);
        Step::Send(self.next.clone(), timeout)
    }

    /// Takes in the answer to a request that was sent at `sent`.
    pub(crate) fn answered(
        &mut self,
        request: &Request,
        sent: Moment,
        now: Moment,
        result: Result<Answer, Error>,
        random: u64,
    ) -> Progress {
        if *request == Request::ReadHolder {
            return self.looked(now, result, random);
        }
        // To a lease that is granted a token belongs, which gets the same time.
        self.concluded |= !matches!(result, Ok(Answer::Granted { .. }));
        match (request, result) {
            (Request::Acquire, Ok(Answer::Granted { metadata })) => {
                let usable = self.terms.usable();
                match self.proposal.granted(sent.lease, now.lease, usable) {
                    Some(since) => {
                        self.faults.reset();
                        self.failure = None;
                        // Unless time is short, it is not the other client's doing if that is all.
                        if self.limit.end().since(now.lease) > self.last_attempt() {
                            self.held_by_another = None;
                        }
                        Progress::Granted { since, metadata }
                    }
                    None => {
                        let text = "the lease was granted too late to be of use";
                        self.failed(Error::transport(text, Phase::Reply), now, random)
                    }
                }
            }
            (Request::Acquire, Ok(_)) => {
                self.proposal.unanswered();
                self.go_on(Request::Acquire, now)
            }
            (Request::Acquire, Err(error)) => {
                if error.is_ambiguous() {
                    self.proposal.unanswered();
                } else {
                    self.proposal.refused();
                }
                match error.kind() {
                    ErrorKind::WouldBlock => self.held_by_another(error, sent, now, random),
                    ErrorKind::NotFound => self.missing(error, now, random),
                    _ => self.failed(error, now, random),
                }
            }
            (Request::CreateContainer, Ok(_)) => {
                self.faults.reset();
                self.go_on(Request::CreateBlob, now)
            }
            (_, Ok(_)) => {
                self.faults.reset();
                self.go_on(Request::Acquire, now)
            }
            (_, Err(error)) if error.kind() == ErrorKind::NotFound => {
                self.missing(error, now, random)
            }
            (_, Err(error)) => self.failed(error, now, random),
        }
    }

    /// The lease was granted and lost again before anyone had it: asks for it anew, with another ID.
    pub(crate) fn restart(&mut self, now: Moment) {
        self.proposal = Proposal::default();
        self.next = Request::Acquire;
        self.wait(now.real + self.pace.delay(0), now);
    }

    /// Whether the caller does not wait for others.
    pub(crate) fn does_not_wait(&self) -> bool {
        self.limit.does_not_wait()
    }

    /// The lease is not ready yet: its fencing token could not be stored, or its ID not changed. That
    /// is tried again.
    pub(crate) fn not_ready(&mut self, error: Error, now: Moment) -> Notice {
        self.held_by_another = None;
        self.failure = Some(error.clone());
        Notice::AcquireFailed {
            attempt: self.attempts,
            error,
            report: self.is_due(FAILED, now.real),
        }
    }

    /// Whether the service may have granted the lease although nobody has it.
    pub(crate) fn may_be_granted(&self) -> bool {
        self.proposal.may_be_granted()
    }

    /// Since when the lock is waited for.
    pub(crate) fn started(&self) -> Moment {
        self.started
    }

    /// How long failures in a row are retried.
    pub(crate) fn fault_wait(&self) -> Duration {
        self.faults.limit()
    }

    /// When a limited wait for others in this process is over.
    pub(crate) fn end_in_line(&self) -> Tick {
        self.limit.end()
    }

    /// When a limited wait is over.
    pub(crate) fn end(&self) -> Tick {
        let end = self.limit.end();
        if self.concluded {
            end
        } else {
            end.max(self.begun + FIRST_ATTEMPT)
        }
    }

    /// What to report when the time is up: what is known counts for more than a last attempt that
    /// time cut short.
    pub(crate) fn unmet(&self) -> Error {
        let known = self.held_by_another.as_ref().or(self.failure.as_ref());
        known
            .cloned()
            .unwrap_or_else(|| Error::transport("no reply in time", Phase::Reply))
    }

    fn go_on(&mut self, next: Request, now: Moment) -> Progress {
        self.next = next;
        self.due = now.real;
        Progress::GoesOn(None)
    }

    fn held_by_another(
        &mut self,
        error: Error,
        sent: Moment,
        now: Moment,
        random: u64,
    ) -> Progress {
        self.accepted = true;
        self.pace.answered();
        self.faults.reset();
        self.next = Request::Acquire;
        if self.does_not_wait() {
            return Progress::Failed(error);
        }
        self.held_by_another = Some(error);
        let delay = self.pace.delay(random);
        self.wait(now.real + delay, now);
        // Late, because to look is as good as an attempt, but with time enough for an answer.
        let round_trip = now.real.since(sent.real);
        let delay = self.due.since(now.real);
        let time = (delay / 4).max(round_trip * 4);
        self.look_before = time.max(delay.saturating_sub(LOOK_WITHIN));
        let due = self.is_due(HELD, now.real);
        Progress::GoesOn(due.then(|| self.still_held(now)))
    }

    /// Somebody looked who holds the lease. It is no failure if that brought nothing.
    fn looked(&mut self, now: Moment, result: Result<Answer, Error>, random: u64) -> Progress {
        self.look = now.real + self.pace.stretched(LOOK_EVERY);
        match result {
            Ok(Answer::Looked {
                held: true,
                changed,
            }) => {
                // In place of the attempt that was due.
                if !self.proposal.may_be_granted() {
                    self.wait(self.due + self.pace.delay(random), now);
                }
                if changed {
                    self.told[HELD] = Some(now.real);
                    return Progress::GoesOn(Some(self.still_held(now)));
                }
            }
            Ok(Answer::Looked { .. }) => self.due = now.real,
            Err(error) if error.is_overload() => self.pace.overloaded(Duration::MAX),
            _ => {}
        }
        Progress::GoesOn(None)
    }

    fn still_held(&self, now: Moment) -> Notice {
        Notice::HeldByAnother {
            attempt: self.attempts,
            elapsed: now.lease.since(self.started.lease),
        }
    }

    fn missing(&mut self, error: Error, now: Moment, random: u64) -> Progress {
        let create = match error.service_code() {
            Some("BlobNotFound") => Request::CreateBlob,
            Some("ContainerBeingDeleted") => return self.failed(error, now, random),
            _ => Request::CreateContainer,
        };
        if !self.terms.create_missing || self.creations == CREATIONS {
            return self.failed(error, now, random);
        }
        self.creations += 1;
        self.go_on(create, now)
    }

    /// Tries again after a failure that may pass, for a while.
    fn failed(&mut self, error: Error, now: Moment, random: u64) -> Progress {
        if matches!(self.limit, WaitLimit::Probe(_)) {
            return Progress::Failed(error);
        }
        let delivery = match error.delivery() {
            // Roles that are being replicated, and a container that somebody replaces.
            Delivery::Refused
                if self.accepted
                    && (error.kind() == ErrorKind::Auth
                        || error.service_code() == Some("ContainerBeingDeleted")) =>
            {
                Delivery::NotDone
            }
            delivery => delivery,
        };
        let limit = self.faults.limit();
        let mut asked = error.retry_after().map(|asked| asked.min(limit));
        if error.is_overload() {
            // While nobody knows whether the service serves this client at all, there are attempts
            // enough to find out.
            let longest = if self.accepted {
                Duration::MAX
            } else {
                limit / 8
            };
            self.pace.overloaded(longest);
            // What is missing is created once, and not by all who wait.
            if self.next == Request::Acquire {
                asked = asked.max(Some(self.pace.delay(random)));
            }
        } else if error.is_answer() {
            self.pace.answered();
        }
        let due = if self.accepted && error.is_throttling() {
            // As if another client held it: the wait goes on, only slower.
            self.faults.reset();
            Some(now.real + asked.unwrap_or_default())
        } else {
            self.faults.failed(now.real, delivery, true, asked, random)
        };
        let Some(due) = due else {
            let before = self.failure.take();
            return Progress::Failed(self.faults.conclude(now.real, error, before));
        };
        self.failure = Some(error.clone());
        self.wait(due, now);
        Progress::GoesOn(Some(Notice::AcquireFailed {
            attempt: self.attempts,
            error,
            report: self.is_due(FAILED, now.real),
        }))
    }

    /// Waits until `due`, but makes the last attempt of a limited wait shortly before its end.
    fn wait(&mut self, due: Tick, now: Moment) {
        let end = self.limit.end();
        if end == Tick::NEVER {
            self.due = due;
            return;
        }
        let left = end.since(now.lease);
        let last = self.last_attempt();
        self.due = if left > last {
            due.min(now.real + (left - last))
        } else {
            Tick::NEVER
        };
    }

    /// How long before the end of a limited wait its last attempt is made.
    fn last_attempt(&self) -> Duration {
        LAST_ATTEMPT.min(self.limit.end().since(self.started.lease) / 4)
    }

    /// Whether it is time to say something again.
    fn is_due(&mut self, what: usize, now: Tick) -> bool {
        let told = &mut self.told[what];
        let due = told.is_none_or(|told| now.since(told) >= REPORT_EVERY);
        if due {
            *told = Some(now);
        }
        due
    }
}
