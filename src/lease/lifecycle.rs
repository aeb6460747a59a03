//! PURE: one lease, from the first request for it to the last.
//!
//! No I/O, no clock, no thread: the time comes in as an argument, and what the service answered as a
//! value. The lease's thread carries out the steps, and so do tests with literal instants and the
//! model checker.

use std::collections::VecDeque;
use std::time::Duration;

use super::acquisition::{self, Acquisition, Progress};
use super::change::Change;
use super::hold::{self, Claim, Hold, Renewal};
use super::release::Release;
use super::step::{Answer, Metadata, Notice, Request, Step};
use super::terms::{Terms, WaitLimit};
use super::writing::{Outcome, Writing};
use crate::error::{Error, ErrorKind, LossReason};
use crate::time::tick::{Moment, Tick};

/// One lease.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    pub(super) terms: Terms,
    pub(super) acquisition: Acquisition,
    pub(super) phase: Phase,
    pub(super) acquire_in_flight: bool,
    pub(super) notices: VecDeque<Notice>,
    /// Why the lease was not acquired, until the caller was told.
    pub(super) failure: Option<Error>,
    /// Why the lease is no longer held.
    pub(super) ended: Option<LossReason>,
}

#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Others in this process are served before.
    InLine,
    Acquiring,
    Held(Box<Held>),
    Releasing {
        release: Release,
        then: Then,
    },
    /// A new ID is to be drawn.
    Restarting,
    Over(Result<(), Error>),
}

/// What follows the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Then {
    /// The user who had the lease learns of the result.
    Report,
    /// The caller who waits for the lease learns that it failed.
    Fail,
    /// Nobody waits any more.
    End,
    /// The lease is still wanted.
    Restart,
}

/// A granted lease, and what has to be written under it.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) writing: Writing,
    pub(super) announced: bool,
    pub(super) handed_over: bool,
    /// Since when this process has the lease.
    pub(super) granted: Tick,
    /// How many users in this process had it before.
    pub(super) hand_overs: u32,
    /// The ID is to be changed before the user may have it.
    pub(super) change: Option<Change>,
    /// It is to be renewed before the user may have it.
    pub(super) short: bool,
}

/// A held lease on its way to its next user in this process.
#[derive(Debug)]
pub(crate) struct PassedLease {
    hold: Hold,
    metadata: Option<Metadata>,
    granted: Tick,
    hand_overs: u32,
}

impl Held {
    fn is_passed_on(&self) -> bool {
        self.hand_overs > 0
    }

    /// The user has it from now on.
    fn hand_over(&mut self, terms: &Terms, now: Moment) {
        self.handed_over = true;
        self.hold.alive(now.lease);
        if let Some(delay) = terms.holder_delay
            && !self.writing.written()
        {
            // With no delay, a first try before the hand-over has failed.
            let delay = if delay.is_zero() {
                terms.renew_every
            } else {
                delay
            };
            self.writing.write_holder(Moment {
                lease: now.lease + delay,
                ..Moment::NEVER
            });
        }
    }

    /// Whether a user in this process who waits for it may have it.
    fn is_ready(&self, now: Tick) -> bool {
        self.change.is_none()
            && !self.short
            && self.writing.due().is_none()
            && self.hold.claim(now) == Claim::Held
    }
}

impl Lifecycle {
    pub(crate) fn new(terms: Terms, limit: WaitLimit, now: Moment) -> Self {
        Self {
            terms,
            acquisition: Acquisition::new(terms, limit, now),
            phase: Phase::Acquiring,
            acquire_in_flight: false,
            notices: VecDeque::new(),
            failure: None,
            ended: None,
        }
    }

    /// A lease that others in this process are served before. [`begin`](Self::begin) or
    /// [`take_over`](Self::take_over) follows.
    pub(crate) fn in_line(terms: Terms, limit: WaitLimit, now: Moment) -> Self {
        Self {
            acquisition: Acquisition::new(terms, limit, now).in_line(),
            phase: Phase::InLine,
            ..Self::new(terms, limit, now)
        }
    }

    pub(crate) fn is_in_line(&self) -> bool {
        matches!(self.phase, Phase::InLine)
    }

    /// It is this one's turn to ask the service.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.acquisition.begin(now);
        self.phase = Phase::Acquiring;
    }

    /// What to do at `now`. Every `Send` is followed by [`answered`](Self::answered), and `Restart`
    /// by [`restart`](Self::restart).
    pub(crate) fn step(&mut self, now: Moment) -> Step {
        if let Some(notice) = self.notices.pop_front() {
            return Step::Announce(notice);
        }
        match &mut self.phase {
            Phase::InLine => match self.acquisition.wait_in_line(now) {
                Ok(notice) => Step::Announce(notice),
                Err(until) => Step::Wait(until),
            },
            Phase::Acquiring => match self.acquisition.step(now) {
                acquisition::Step::Send(request, timeout) => {
                    self.acquire_in_flight = request == Request::Acquire;
                    Step::Send { request, timeout }
                }
                acquisition::Step::Wait(until) => Step::Wait(until),
                acquisition::Step::Fail(error) => {
                    self.fail(error, now);
                    self.step(now)
                }
            },
            Phase::Held(_) => self.step_held(now),
            Phase::Releasing { release, then } => {
                if *then != Then::Fail
                    && let Some(error) = self.failure.take()
                {
                    return Step::Fail(error);
                }
                if self.acquire_in_flight {
                    return Step::Wait(Moment::NEVER);
                }
                match release.step(now) {
                    Ok((request, timeout)) => Step::Send { request, timeout },
                    Err(until) => Step::Wait(until),
                }
            }
            Phase::Restarting => Step::Restart,
            Phase::Over(_) => match self.failure.take() {
                Some(error) => Step::Fail(error),
                None => Step::End,
            },
        }
    }

    fn step_held(&mut self, now: Moment) -> Step {
        let Phase::Held(held) = &mut self.phase else {
            return Step::End;
        };
        if held.is_passed_on() && !held.handed_over && held.hold.claim(now.lease) == Claim::Unproven
        {
            // The service has to say whose it is.
            self.let_go(Then::Restart, now);
            return self.step(now);
        }
        if let Some(change) = &mut held.change {
            let deadline = held.hold.deadline();
            let left = deadline.since(now.lease);
            return match change.step(now, self.terms.attempt_timeout.min(left)) {
                Ok(timeout) => Step::Send {
                    request: Request::Change,
                    timeout,
                },
                Err(real) => Step::Wait(Moment {
                    lease: deadline,
                    real,
                }),
            };
        }
        let until = match held.hold.step(now.lease) {
            hold::Step::Renew { timeout } => {
                let request = Request::Renew;
                return Step::Send { request, timeout };
            }
            hold::Step::Announce(claim) => {
                self.announce(claim);
                return self.step(now);
            }
            hold::Step::End if held.handed_over => return Step::Wait(Moment::NEVER),
            hold::Step::End => {
                self.lost_before_hand_over(now);
                return self.step(now);
            }
            hold::Step::Wait(until) => until,
        };
        // A lease that is ready is handed over however late it came.
        let limit = if held.handed_over {
            Tick::NEVER
        } else {
            self.acquisition.end()
        };
        if now.lease >= limit && held.writing.due().is_some() {
            if self.terms.fencing {
                self.failure = Some(self.acquisition.unmet());
                self.let_go(Then::End, now);
                return self.step(now);
            }
            // Nothing depends on the holder.
            held.writing.stop();
        }
        // While the lease is not held nothing is written, and that must not go on for ever.
        if !held.handed_over && held.writing.is_overdue(now) {
            let error = self.acquisition.unmet();
            self.fail(error, now);
            return self.step(now);
        }
        // Under a lease that ran out a write is refused as lost, where a renewal may succeed.
        let is_held = held.hold.claim(now.lease) == Claim::Held;
        match held.writing.due().filter(|_| is_held) {
            Some(due) if now.lease >= due.lease || now.real >= due.real => {
                let longest = self.terms.attempt_timeout;
                let longest = longest.min(until.min(limit).since(now.lease));
                let (request, timeout) = held.writing.send(now, longest);
                Step::Send { request, timeout }
            }
            // Its user takes it: see `accept`.
            None if held.is_passed_on() && !held.handed_over => Step::Wait(Moment {
                lease: until,
                ..Moment::NEVER
            }),
            None if is_held && !held.announced => {
                held.announced = true;
                let elapsed = now.lease.since(self.acquisition.started().lease);
                Step::Announce(Notice::Acquired { elapsed })
            }
            None if is_held && !held.handed_over => {
                held.hand_over(&self.terms, now);
                let token = held.writing.token();
                Step::HandOver { token }
            }
            due => {
                let due = due.unwrap_or(Moment::NEVER);
                Step::Wait(Moment {
                    lease: until.min(due.lease),
                    real: due.real,
                })
            }
        }
    }

    /// Takes in the answer to a request that was sent at `sent`. `random`: any number.
    pub(crate) fn answered(
        &mut self,
        request: &Request,
        sent: Moment,
        now: Moment,
        result: Result<Answer, Error>,
        random: u64,
    ) {
        if *request == Request::Acquire {
            self.acquire_in_flight = false;
        }
        match &mut self.phase {
            Phase::Acquiring => {
                match self
                    .acquisition
                    .answered(request, sent, now, result, random)
                {
                    Progress::GoesOn(notice) => self.notices.extend(notice),
                    Progress::Failed(error) => self.fail(error, now),
                    Progress::Granted { since, metadata } => {
                        self.granted(since, metadata, now, random);
                    }
                }
            }
            Phase::Held(_) if *request == Request::Renew => {
                self.renewed(sent, now, &result, random);
            }
            Phase::Held(_) if *request == Request::Change => self.changed(now, result, random),
            Phase::Held(held) => {
                let pace = self.terms.renew_every;
                let outcome = held.writing.answered(request, now, pace, result, random);
                self.wrote(outcome, now);
            }
            Phase::Releasing { release, then } => match request {
                Request::Release | Request::ReleaseFormer | Request::WriteReleased => {
                    if let (Request::WriteReleased, Err(error), Then::Report) =
                        (request, &result, *then)
                        && error.loss_reason().is_none()
                    {
                        let error = error.clone();
                        self.notices.push_back(Notice::RecordFailed { error });
                    }
                    if let Some(result) = release.answered(request, now, result, random) {
                        self.released(result);
                    }
                }
                // The acquisition was given up while this was on its way.
                Request::Acquire => {
                    self.phase = Phase::Acquiring;
                    let progress = self
                        .acquisition
                        .answered(request, sent, now, result, random);
                    if let Progress::Granted { since, .. } = progress {
                        self.granted(since, None, now, random);
                    }
                    self.let_go(Then::End, now);
                }
                _ => {}
            },
            Phase::InLine | Phase::Restarting | Phase::Over(_) => {}
        }
    }

    /// Goes on with a new lease ID.
    pub(crate) fn restart(&mut self, now: Moment) {
        self.acquisition.restart(now);
        self.phase = Phase::Acquiring;
    }

    /// The user ends a hold. The release follows, and then [`result`](Self::result).
    pub(crate) fn release(&mut self, now: Moment) {
        let Phase::Held(held) = &mut self.phase else {
            return;
        };
        // A loss that the clock alone has brought, and that nobody has noticed yet.
        if let Claim::Lost(reason) = held.hold.claim(now.lease)
            && held.hold.lose(reason)
        {
            self.notices.push_back(Notice::Lost(reason));
        }
        let held_until = held.hold.deadline();
        let lost = held.hold.release();
        let write = self.terms.fencing && held.writing.recorded() && lost.is_none();
        self.ended = Some(lost.unwrap_or(LossReason::Released));
        // Nothing is announced after the end that is no longer so.
        self.notices
            .retain(|notice| matches!(notice, Notice::Lost(_)));
        self.phase = match lost {
            Some(reason @ (LossReason::Taken | LossReason::Deleted)) => {
                Phase::Over(Err(Error::lost(reason)))
            }
            // A lease that was broken runs until the end of its break period, which a release ends;
            // one that is no longer renewed runs until its own end.
            _ => Phase::Releasing {
                release: Release::new(self.terms.release_timeout, held_until, lost, write, now),
                then: Then::Report,
            },
        };
    }

    /// Whether the user's lease may go to another user of this process who goes by `terms`, at `now`:
    /// only while it is held for certain, and if the service has it on the same terms.
    pub(crate) fn may_pass_on(&self, terms: &Terms, now: Moment) -> bool {
        let Phase::Held(held) = &self.phase else {
            return false;
        };
        let fits = (terms.duration, terms.fencing) == (self.terms.duration, self.terms.fencing);
        fits && held.handed_over && held.hold.claim(now.lease) == Claim::Held
    }

    /// The user ends a hold, and another user of this process who goes by `terms` has the lease from
    /// then on. `None` if it [may not](Self::may_pass_on).
    pub(crate) fn pass_on(&mut self, terms: &Terms, now: Moment) -> Option<PassedLease> {
        if !self.may_pass_on(terms, now) {
            return None;
        }
        let Phase::Held(held) = &self.phase else {
            return None;
        };
        let hand_overs = held.hand_overs + 1;
        let passed = PassedLease {
            hold: held.hold.passed_on(*terms, now.lease),
            metadata: held.writing.passed_on(),
            granted: held.granted,
            hand_overs,
        };
        self.ended = Some(LossReason::Released);
        self.notices.clear();
        self.notices.push_back(Notice::HandedOver {
            hand_overs,
            held: now.lease.since(held.granted),
        });
        self.phase = Phase::Over(Ok(()));
        Some(passed)
    }

    /// A lease that another user of this process had is this one's. `exposed`: others may know its ID,
    /// which is to be changed then. Returns whether it is.
    pub(crate) fn take_over(&mut self, passed: PassedLease, exposed: bool, now: Moment) -> bool {
        let PassedLease {
            mut hold,
            metadata,
            granted,
            hand_overs,
        } = passed;
        self.acquisition.begin(now);
        let short = hold.renew_if_short(now.lease);
        let limit = self.acquisition.fault_wait();
        let change = exposed || self.terms.fencing;
        self.hold(
            Held {
                hold,
                // Whoever knows the ID can have written to the blob.
                writing: Writing::new(limit, metadata.filter(|_| !exposed)),
                announced: true,
                handed_over: false,
                granted,
                hand_overs,
                change: change.then(|| Change::new(limit, now)),
                short,
            },
            now,
        );
        change
    }

    /// The user takes the lease that was passed on to it, if it is ready. Returns the fencing token,
    /// and what to tell.
    pub(crate) fn accept(&mut self, now: Moment) -> Option<(Option<i64>, Notice)> {
        let Phase::Held(held) = &mut self.phase else {
            return None;
        };
        if !held.is_passed_on() || held.handed_over || !held.is_ready(now.lease) {
            return None;
        }
        held.hand_over(&self.terms, now);
        let elapsed = now.lease.since(self.acquisition.started().lease);
        Some((held.writing.token(), Notice::Acquired { elapsed }))
    }

    /// The user keeps the lease, and nobody renews it any more.
    pub(crate) fn detach(&mut self) {
        self.ended = Some(LossReason::Released);
        self.notices.clear();
        self.phase = Phase::Over(Ok(()));
    }

    /// The caller no longer waits for the lease. What may be granted is released.
    pub(crate) fn give_up(&mut self, now: Moment) {
        self.let_go(Then::End, now);
        self.failure = None;
        self.notices.clear();
    }

    /// When the caller's wait is over, and what to report then.
    pub(crate) fn wait_end(&self) -> Tick {
        match self.phase {
            Phase::Acquiring => self.acquisition.end(),
            Phase::InLine => self.acquisition.end_in_line(),
            Phase::Held(ref held)
                if (self.terms.fencing && held.writing.due().is_some())
                    || held.change.is_some()
                    || held.short =>
            {
                self.acquisition.end()
            }
            Phase::Restarting => self.acquisition.end(),
            Phase::Releasing {
                then: Then::Fail | Then::Restart,
                ..
            } => self.acquisition.end(),
            Phase::Held(_) | Phase::Releasing { .. } | Phase::Over(_) => Tick::NEVER,
        }
    }

    /// What to report to a caller whose time is up.
    pub(crate) fn unmet(&self) -> Error {
        if self.is_in_line() {
            return acquisition::others_first();
        }
        let failure = self.failure.clone();
        failure.unwrap_or_else(|| self.acquisition.unmet())
    }

    /// The service said elsewhere that the lease is lost.
    pub(crate) fn lose(&mut self, reason: LossReason) {
        if let Phase::Held(held) = &mut self.phase
            && held.handed_over
            && held.hold.lose(reason)
        {
            self.notices.push_back(Notice::Lost(reason));
        }
    }

    /// The user gives a sign of life. Returns whether the lease is to be renewed again.
    pub(crate) fn alive(&mut self, now: Tick) -> bool {
        match &mut self.phase {
            Phase::Held(held) if held.handed_over => held.hold.alive(now),
            _ => false,
        }
    }

    /// The user wrote to the blob, and the holder with it. `etag`: the blob's now, if the service
    /// answered.
    pub(crate) fn content_written(&mut self, etag: Option<&str>) {
        if let Phase::Held(held) = &mut self.phase {
            held.writing.written_elsewhere(etag);
        }
    }

    /// From this instant on the lease is no longer claimed, unless it is renewed before.
    pub(crate) fn deadline(&self) -> Tick {
        match &self.phase {
            Phase::Held(held) if held.handed_over => held.hold.deadline(),
            _ => Tick::default(),
        }
    }

    /// What may be claimed at `now` by the user of the lease.
    pub(crate) fn claim(&self, now: Tick) -> Claim {
        match (&self.phase, self.ended) {
            (Phase::Held(held), _) => held.hold.claim(now),
            (_, Some(reason)) => Claim::Lost(reason),
            (_, None) => Claim::Unproven,
        }
    }

    /// For how long failures in a row are retried while the lease is asked for.
    pub(crate) fn fault_wait(&self) -> Duration {
        self.acquisition.fault_wait()
    }

    /// For how long the user has had the lease.
    pub(crate) fn held_for(&self, now: Tick) -> Duration {
        match &self.phase {
            Phase::Held(held) => now.since(held.hold.acquired()),
            _ => Duration::ZERO,
        }
    }

    /// How long ago the last confirmed request was sent.
    pub(crate) fn unconfirmed_for(&self, now: Tick) -> Duration {
        match &self.phase {
            Phase::Held(held) => now.since(held.hold.confirmed()),
            _ => Duration::ZERO,
        }
    }

    /// What became of the release, once it is over.
    pub(crate) fn result(&self) -> Option<&Result<(), Error>> {
        match &self.phase {
            Phase::Over(result) => Some(result),
            _ => None,
        }
    }

    fn granted(&mut self, since: Tick, metadata: Option<Metadata>, now: Moment, random: u64) {
        let held = Held {
            hold: Hold::new(self.terms, since, random),
            writing: Writing::new(self.acquisition.fault_wait(), metadata),
            announced: false,
            handed_over: false,
            granted: since,
            hand_overs: 0,
            change: None,
            short: false,
        };
        self.hold(held, now);
    }

    /// Holds a lease from now on, and writes what has to be written before the user may have it.
    fn hold(&mut self, mut held: Held, now: Moment) {
        let outcome = match self.terms.holder_delay {
            _ if self.terms.fencing => held.writing.write_token(now),
            Some(Duration::ZERO) => {
                held.writing.write_holder(now);
                Outcome::GoesOn
            }
            _ => Outcome::GoesOn,
        };
        self.phase = Phase::Held(Box::new(held));
        self.wrote(outcome, now);
    }

    /// Goes on after an attempt to change the ID.
    fn changed(&mut self, now: Moment, result: Result<Answer, Error>, random: u64) {
        let Phase::Held(held) = &mut self.phase else {
            return;
        };
        match result {
            Ok(_) => held.change = None,
            Err(error) => {
                let change = held.change.as_mut();
                let is_lost = error.loss_reason().is_some();
                if !is_lost && change.is_some_and(|change| change.failed(&error, now, random)) {
                    let notice = self.acquisition.not_ready(error, now);
                    self.notices.push_back(notice);
                } else {
                    // Under both IDs; if it was broken, that ends the break period.
                    self.let_go(Then::Restart, now);
                }
            }
        }
    }

    fn renewed(&mut self, sent: Moment, now: Moment, result: &Result<Answer, Error>, random: u64) {
        let Phase::Held(held) = &mut self.phase else {
            return;
        };
        let renewal = match result {
            Ok(_) => Renewal::Confirmed,
            Err(error) => match error.loss_reason() {
                Some(reason) => Renewal::Lost(reason),
                None => Renewal::Unknown {
                    retry_after: error.retry_after(),
                    overload: error.is_overload(),
                },
            },
        };
        held.short &= renewal != Renewal::Confirmed;
        let change = held.hold.renewed(sent.lease, now.lease, renewal, random);
        let remaining = held.hold.deadline().since(now.lease);
        match (result, renewal) {
            (Ok(_), _) if held.handed_over => self.notices.push_back(Notice::Renewed),
            (Err(error), Renewal::Unknown { .. }) => {
                let error = error.clone();
                self.notices
                    .push_back(Notice::RenewalFailed { error, remaining });
            }
            _ => {}
        }
        if let Some(claim) = change {
            self.announce(claim);
        }
    }

    /// Goes on after a read or a write of metadata.
    fn wrote(&mut self, outcome: Outcome, now: Moment) {
        let Phase::Held(held) = &mut self.phase else {
            return;
        };
        match outcome {
            Outcome::GoesOn => {}
            Outcome::Retried(error) => {
                let notice = self.acquisition.not_ready(error, now);
                self.notices.push_back(notice);
            }
            Outcome::HolderFailed(error) => {
                if !held.handed_over {
                    held.writing.stop();
                }
                self.notices.push_back(Notice::RecordFailed { error });
            }
            Outcome::Failed(error) => self.fail(error, now),
            Outcome::Lost(error) => {
                // One that is held for certain has not run out.
                let held_until_now = held.hold.claim(now.lease) == Claim::Held;
                let reason = if held_until_now && error.service_code() == Some("LeaseLost") {
                    Some(LossReason::Broken)
                } else {
                    error.loss_reason()
                };
                if let Some(reason) = reason
                    && held.hold.lose(reason)
                    && held.handed_over
                {
                    self.notices.push_back(Notice::Lost(reason));
                }
            }
        }
    }

    fn announce(&mut self, claim: Claim) {
        let Phase::Held(held) = &self.phase else {
            return;
        };
        // Whoever has not got the lock yet has nothing to lose.
        if held.handed_over {
            self.notices.push_back(match claim {
                Claim::Held => Notice::HeldAgain,
                Claim::Unproven => Notice::Unproven,
                Claim::Lost(reason) => Notice::Lost(reason),
            });
        }
    }

    /// The lease is over before the user had it, and still wanted.
    fn lost_before_hand_over(&mut self, now: Moment) {
        self.notices.clear();
        let claim = self.claim(now.lease);
        if self.acquisition.does_not_wait() {
            let text = "the lease was lost before the lock was acquired";
            return self.fail(Error::new(ErrorKind::WouldBlock, text), now);
        }
        match claim {
            // The release ends the break period, or what is left of a lease that is not renewed.
            Claim::Lost(LossReason::Broken | LossReason::MaxHold | LossReason::Unhealthy) => {
                self.let_go(Then::Restart, now);
            }
            _ => self.phase = Phase::Restarting,
        }
    }

    /// The lease is not acquired, for this reason.
    fn fail(&mut self, error: Error, now: Moment) {
        self.failure = Some(error);
        let then = match self.phase {
            // It is released for certain, so that the caller may try again at once.
            Phase::Held(_) => Then::Fail,
            _ => Then::End,
        };
        self.let_go(then, now);
    }

    /// Releases what nobody has, if it may have been granted.
    fn let_go(&mut self, then: Then, now: Moment) {
        let mut former = false;
        let granted = match &mut self.phase {
            Phase::Acquiring => self.acquisition.may_be_granted() || self.acquire_in_flight,
            Phase::Held(held) => {
                former = held.change.is_some();
                true
            }
            Phase::Releasing { then: before, .. } => {
                *before = then;
                return;
            }
            Phase::InLine | Phase::Restarting | Phase::Over(_) => false,
        };
        self.phase = if granted {
            let timeout = self.terms.release_timeout;
            Phase::Releasing {
                release: Release::new(timeout, Tick::default(), None, false, now)
                    .with_former(former),
                then,
            }
        } else {
            Phase::Over(Ok(()))
        };
    }

    fn released(&mut self, result: Result<(), Error>) {
        let Phase::Releasing { then, .. } = self.phase else {
            return;
        };
        if then == Then::Report && result.is_ok() {
            self.notices.push_back(Notice::Released);
        }
        self.phase = match then {
            Then::Restart => Phase::Restarting,
            _ => Phase::Over(result),
        };
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
