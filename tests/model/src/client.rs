//! A client: the shipped lease machine, and what its threads, its user and its process do to it.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::answers::answer;
use crate::lease::fingerprint;
use crate::lease::hold::Claim;
use crate::lease::lifecycle::Lifecycle;
use crate::lease::step::{Answer, Metadata, Notice, Request as Ask, Step};
use crate::lease::terms::{Terms, WaitLimit};
use crate::lock::line::{Line, Next};
use crate::mistakes::Mistake;
use crate::service::{DURATION, Id, Op, Reply};
use crate::time::tick::{Moment, Tick};

/// One tick on a client's clock: more than all delays between attempts, so that what is due after
/// one is due at the next tick.
const TICK: Duration = Duration::from_secs(1000);
const MARGIN: u8 = 1;
const RENEW_EVERY: u8 = 2;
/// For how long a process hands the lock over.
const QUANTUM: u8 = 2;

/// A clock that gains or loses as much against the service's as the margin allows, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rate {
    Slow,
    Fast,
}

impl Rate {
    /// After so many ticks its gain or loss is the same again.
    pub(crate) const PERIOD: u8 = DURATION;

    /// What the clock shows at the real time `now`.
    pub(crate) fn local(self, now: u8) -> Tick {
        let now = u32::from(now);
        let (duration, margin) = (u32::from(DURATION), u32::from(MARGIN));
        let shown = match self {
            Self::Slow => now * (duration - margin) / duration,
            Self::Fast => now * (duration + margin) / duration,
        };
        Tick::default() + TICK * (1000 + shown)
    }

    fn moment(self, now: u8) -> Moment {
        let now = self.local(now);
        Moment {
            lease: now,
            real: now,
        }
    }
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) mistake: Option<Mistake>,
    pub(crate) fencing: bool,
    /// So many ticks after it has the guard its holder is written.
    pub(crate) holder_delay: Option<u8>,
    pub(crate) max_hold: Option<u8>,
    pub(crate) health: Option<u8>,
    /// For so many ticks it waits for another holder.
    pub(crate) limit: Option<u8>,
    /// The IDs of leases get out.
    pub(crate) exposed: bool,
}

impl Manner {
    fn terms(self) -> Terms {
        let ticks = |ticks: u8| TICK * u32::from(ticks);
        let margin = if self.makes(Mistake::NoMargin) {
            0
        } else {
            MARGIN
        };
        Terms {
            duration: ticks(DURATION),
            margin: ticks(margin),
            renew_every: ticks(RENEW_EVERY),
            max_hold: self.max_hold.map(ticks),
            health: self.health.map(ticks),
            attempt_timeout: ticks(DURATION),
            // So that it makes a difference whether time passes between two attempts.
            fault_wait: TICK,
            release_timeout: TICK,
            // Whoever waits may ask at any time.
            poll_interval: Duration::ZERO,
            create_missing: true,
            fencing: self.fencing,
            holder_delay: self.holder_delay.map(ticks),
        }
    }

    fn makes(self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

/// One request, on its way or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) id: Id,
    /// Since when nobody waits for it, by real time.
    pub(crate) since: u8,
    /// GHOST: the client had already let go when it sent this.
    pub(crate) posthumous: bool,
    pub(crate) op: Op,
}

/// A request that a thread waits for.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    ask: Ask,
    /// By the client's clock.
    sent: Moment,
    pub(crate) reply: Option<Reply>,
}

/// Who carries out the steps of a lease: its thread, and once the user has released it whoever did
/// so, while the thread may still wait for a renewal.
pub(crate) const THREAD: usize = 0;
pub(crate) const RELEASER: usize = 1;

/// What the user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum User {
    WaitsForGuard,
    HasGuard,
    WaitsForRelease,
    /// Gave up, or was told that it failed.
    Gone,
}

/// One lease, from the first request for it to the last.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) machine: Lifecycle,
    pub(crate) user: User,
    pub(crate) waiting: [Option<Waiting>; 2],
    /// The token in the metadata, as it was read or written last under this lease.
    stored: Option<i64>,
    /// GHOST: the tenure that the grant began.
    pub(crate) tenure: u8,
    /// GHOST: somebody else had held before the user released.
    pub(crate) overtaken: bool,
    /// GHOST: the client knew that the lease was lost when the user released it.
    pub(crate) known_lost: bool,
    /// GHOST: until when the lease was held for certain when the user released it.
    held_until: Tick,
    /// What a client that makes a mistake still goes by after the release.
    before: Option<Lifecycle>,
    /// The answer that `HeldIsRemembered` remembers.
    remembered: bool,
    /// Since when the process has the lease.
    granted: Tick,
    /// The user has sent something with the lease's ID.
    exposed: bool,
    /// The ID until the change is confirmed.
    pub(crate) former: Option<Id>,
}

#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Idle,
    Busy(Box<Lease>),
    Dead,
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) rate: Rate,
    pub(crate) phase: Phase,
    /// The ID of the lease, or of the next.
    pub(crate) id: Id,
    /// How many more locks it may ask for.
    left: u8,
    /// The ETag that it gave the blob last, and the token stored then.
    known: Option<(u8, Option<i64>)>,
    /// The token that `TokenReadBeforeLease` read.
    stale: Option<i64>,
}

/// What came of a step of a client, for the properties.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Something was done.
    pub(crate) acted: bool,
    /// The lock is acquired, with this token.
    pub(crate) token: Option<i64>,
    /// What was announced is not so.
    pub(crate) misreported: bool,
    /// A request that goes out beside the one that the machine waits for.
    pub(crate) extra: Option<Request>,
}

impl Client {
    pub(crate) fn new(number: u8, rate: Rate, acquisitions: u8) -> Self {
        Self {
            rate,
            phase: Phase::Idle,
            id: Id::first_of(number),
            left: acquisitions,
            known: None,
            stale: None,
        }
    }

    pub(crate) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Busy(lease) => Some(lease),
            Phase::Idle | Phase::Dead => None,
        }
    }

    fn lease_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.phase {
            Phase::Busy(lease) => Some(lease),
            Phase::Idle | Phase::Dead => None,
        }
    }

    /// The request that one of its threads waits for.
    pub(crate) fn waiting_mut(&mut self, thread: usize) -> Option<&mut Waiting> {
        self.lease_mut()?.waiting[thread].as_mut()
    }

    /// Whether one of its requests has failed without its having heard of it.
    pub(crate) fn has_failed(&self) -> bool {
        let waiting = self.lease().into_iter().flat_map(|lease| &lease.waiting);
        waiting
            .flatten()
            .any(|waiting| waiting.reply == Some(Reply::Busy))
    }

    pub(crate) fn waits_for_answer(&self) -> bool {
        let lease = self.lease();
        lease.is_some_and(|lease| lease.waiting.iter().any(Option::is_some))
    }

    /// Whether it tells its user at `now` that the lock is held.
    pub(crate) fn claims(&self, manner: Manner, now: u8) -> bool {
        let Some(lease) = self.lease() else {
            return false;
        };
        let now = self.rate.local(now);
        match manner.mistake {
            Some(Mistake::HeldIsRemembered) => lease.remembered,
            Some(Mistake::UnprovenIsHeld) => {
                let claim = lease.machine.claim(now);
                lease.user == User::HasGuard && !matches!(claim, Claim::Lost(_))
            }
            Some(Mistake::OutcomeAfterRelease) if lease.before.is_some() => {
                let before = lease.before.as_ref();
                lease.remembered && before.is_some_and(|before| now < before.deadline())
            }
            _ => now < lease.machine.deadline(),
        }
    }

    /// Since when its user has the guard, as a tenure.
    pub(crate) fn holds_since(&self) -> Option<u8> {
        let lease = self.lease()?;
        (lease.user == User::HasGuard).then_some(lease.tenure)
    }

    pub(crate) fn may_start(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.left > 0
    }

    /// Asks for a lock, with a fresh ID.
    pub(crate) fn start(&mut self, manner: Manner, stored: Option<i64>, now: u8) -> Outcome {
        self.left -= 1;
        if manner.makes(Mistake::TokenReadBeforeLease) {
            self.stale = Some(stored.unwrap_or(0));
        }
        let moment = self.rate.moment(now);
        let limit = match manner.limit {
            None => WaitLimit::Forever,
            Some(0) => WaitLimit::Once(Tick::NEVER),
            Some(ticks) => WaitLimit::Until(moment.lease + TICK * u32::from(ticks)),
        };
        self.phase = Phase::Busy(Box::new(Lease {
            machine: Lifecycle::new(manner.terms(), limit, moment),
            user: User::WaitsForGuard,
            waiting: [None, None],
            stored: None,
            tenure: 0,
            overtaken: false,
            known_lost: false,
            held_until: Tick::default(),
            before: None,
            remembered: false,
            granted: Tick::default(),
            exposed: false,
            former: None,
        }));
        self.act(manner, THREAD, now)
    }

    /// Has a thread do what its lease says comes next.
    pub(crate) fn act(&mut self, manner: Manner, thread: usize, now: u8) -> Outcome {
        let mut outcome = Outcome::default();
        let moment = self.rate.moment(now);
        let Phase::Busy(lease) = &mut self.phase else {
            return outcome;
        };
        if lease.waiting[thread].is_some() || !lease.may_act(thread) {
            return outcome;
        }
        if thread == THREAD
            && manner.makes(Mistake::RenewsAfterRelease)
            && let Some(before) = &mut lease.before
        {
            if let Step::Send { request, .. } = before.step(moment) {
                lease.send(manner, self.id, thread, request, moment);
                outcome.acted = true;
            }
            return outcome;
        }
        if manner.makes(Mistake::NeverRenews) && lease.user == User::HasGuard {
            return outcome;
        }
        loop {
            if let Some((token, _)) = lease.machine.accept(moment) {
                lease.user = User::HasGuard;
                lease.remembered = true;
                outcome.token = token;
                outcome.acted = true;
            }
            match lease.machine.step(moment) {
                // It changes nothing, and how long it takes is a pause like any other.
                Step::Send {
                    request: Ask::ReadHolder,
                    ..
                } => {
                    let looked = Ok(Answer::Done);
                    let machine = &mut lease.machine;
                    machine.answered(&Ask::ReadHolder, moment, moment, looked, 0);
                    continue;
                }
                Step::Send { request, .. } => {
                    lease.send(manner, self.id, thread, request, moment);
                    outcome.acted = true;
                    return outcome;
                }
                Step::Wait(_) => return outcome,
                Step::Announce(notice) => {
                    outcome.misreported |= !lease.is_so(&notice, moment.lease);
                    lease.remembered = match notice {
                        Notice::Unproven | Notice::Lost(_) => false,
                        Notice::HeldAgain => true,
                        _ => lease.remembered,
                    };
                }
                Step::HandOver { token } => {
                    lease.user = User::HasGuard;
                    lease.remembered = true;
                    lease.granted = moment.lease;
                    outcome.token = token;
                }
                Step::Fail(_) => lease.user = User::Gone,
                Step::Restart => {
                    self.id = self.id.next();
                    lease.former = None;
                    lease.tenure = 0;
                    lease.machine.restart(moment);
                }
                Step::End => {
                    self.end(manner);
                    outcome.acted = true;
                    return outcome;
                }
            }
            outcome.acted = true;
        }
    }

    /// All is done: the next lock has another ID.
    fn end(&mut self, manner: Manner) {
        let Phase::Busy(lease) = &self.phase else {
            return;
        };
        let still_used = manner.makes(Mistake::RenewsAfterRelease) && lease.before.is_some();
        if lease.waiting.iter().any(Option::is_some) || still_used {
            return;
        }
        self.phase = Phase::Idle;
        if !manner.makes(Mistake::IdReused) {
            self.id = self.id.next();
        }
    }

    /// The user writes to the blob's content under the lease.
    pub(crate) fn write(&mut self, manner: Manner) -> Option<Request> {
        let id = self.id;
        let lease = self.lease_mut()?;
        lease.exposed = true;
        let op = Op::Write {
            under: !manner.makes(Mistake::WriteWithoutId),
            tenure: lease.tenure,
        };
        (lease.user == User::HasGuard).then_some(Request {
            id,
            since: 0,
            posthumous: false,
            op,
        })
    }

    /// The user hears what became of the write `request`, if it still has the guard.
    pub(crate) fn written(&mut self, request: Request, reply: Reply) -> bool {
        let id = self.id;
        let Some(lease) = self.lease_mut() else {
            return false;
        };
        if request.id != id || lease.user != User::HasGuard {
            return false;
        }
        match answer(
            &Ask::WriteHolder {
                if_match: String::new(),
            },
            id,
            Some(reply),
        ) {
            Ok(Answer::Written { etag }) => lease.machine.content_written(Some(&etag)),
            Ok(_) => lease.machine.content_written(None),
            Err(error) => {
                if let Some(reason) = error.loss_reason() {
                    lease.machine.lose(reason);
                }
            }
        }
        true
    }

    /// The user releases the lock, or stops to wait for it. `tenure`: the service's.
    pub(crate) fn let_go(&mut self, manner: Manner, tenure: u8, now: u8) -> bool {
        let moment = self.rate.moment(now);
        let Some(lease) = self.lease_mut() else {
            return false;
        };
        match lease.user {
            User::WaitsForGuard => {
                lease.user = User::Gone;
                lease.machine.give_up(moment);
            }
            User::HasGuard => {
                lease.user = User::WaitsForRelease;
                lease.overtaken = tenure != lease.tenure;
                let claim = lease.machine.claim(moment.lease);
                lease.known_lost = matches!(claim, Claim::Lost(_));
                lease.held_until = lease.machine.deadline();
                lease.remembered = false;
                if let Some(Mistake::OutcomeAfterRelease | Mistake::RenewsAfterRelease) =
                    manner.mistake
                {
                    lease.before = Some(lease.machine.clone());
                }
                lease.machine.release(moment);
            }
            User::WaitsForRelease | User::Gone => return false,
        }
        true
    }

    /// The user ends the hold, and the next one in the process gets the lease. Returns whether it goes
    /// to it with another ID.
    pub(crate) fn hand_over(&mut self, manner: Manner, now: u8) -> Option<bool> {
        let moment = self.rate.moment(now);
        let next_id = self.id.next();
        let id = self.id;
        let lease = self.lease_mut()?;
        let waits = lease.waiting.iter().any(Option::is_some);
        let unbounded = manner.makes(Mistake::UnboundedHandOvers);
        if lease.user != User::HasGuard || waits || !(unbounded || lease.is_in_time(moment)) {
            return None;
        }
        if manner.makes(Mistake::UnprovenHandedOver) {
            // It is renewed in no time.
            let renewed = Ok(Answer::Done);
            lease
                .machine
                .answered(&Ask::Renew, moment, moment, renewed, 0);
        }
        let passed = lease.machine.pass_on(&manner.terms(), moment)?;
        let mut machine = Lifecycle::in_line(manner.terms(), WaitLimit::Forever, moment);
        let exposed = (lease.exposed || manner.exposed) && !manner.makes(Mistake::SameIdHandedOver);
        let changes = machine.take_over(passed, exposed, moment);
        lease.machine = machine;
        lease.user = User::WaitsForGuard;
        lease.remembered = false;
        lease.exposed = false;
        lease.former = changes.then_some(id);
        if changes {
            self.id = next_id;
        }
        Some(changes)
    }

    /// Whether the process has had the lock for its time.
    pub(crate) fn is_overdue(&self, now: u8) -> bool {
        let moment = self.rate.moment(now);
        self.lease().is_some_and(|lease| !lease.is_in_time(moment))
    }

    /// GHOST: the next user in the process has the lease.
    pub(crate) fn tenure_is(&mut self, tenure: u8) {
        if let Some(lease) = self.lease_mut() {
            lease.tenure = tenure;
        }
    }

    /// The process is gone. Returns what was still under way.
    pub(crate) fn die(&mut self) -> impl Iterator<Item = Request> + use<> {
        let under_way = match std::mem::replace(&mut self.phase, Phase::Dead) {
            Phase::Busy(lease) => lease.waiting,
            Phase::Idle | Phase::Dead => [None, None],
        };
        under_way
            .into_iter()
            .flatten()
            .filter(|waiting| waiting.reply.is_none())
            .map(|waiting| waiting.request)
    }

    /// A thread takes in the reply that has come, or that none will come.
    pub(crate) fn hear(&mut self, manner: Manner, thread: usize, now: u8) -> Outcome {
        let mut outcome = Outcome::default();
        let (id, stale) = (self.id, self.stale);
        let moment = self.rate.moment(now);
        let known = self.known;
        let Some(lease) = self.lease_mut() else {
            return outcome;
        };
        let Some(Waiting {
            request,
            ask,
            sent,
            reply,
        }) = lease.waiting[thread].take()
        else {
            return outcome;
        };
        outcome.acted = true;
        let mut result = answer(&ask, id, reply);
        let mut learned = None;
        match (&mut result, reply) {
            (Ok(Answer::Granted { metadata }), Some(Reply::Leased { etag, tenure, .. })) => {
                lease.tenure = tenure;
                let known = match stale {
                    Some(stale) => Some(Some(stale)),
                    None => known.filter(|known| known.0 == etag).map(|known| known.1),
                };
                *metadata = known.map(|token| metadata_of(etag, token, now));
                lease.stored = known.flatten();
            }
            (Ok(Answer::Metadata(metadata)), _) => {
                metadata.wall = wall(now);
                lease.stored = metadata.token;
            }
            (Ok(_), Some(Reply::Changed { tenure })) => {
                lease.tenure = tenure;
                lease.former = None;
            }
            (Ok(_), Some(Reply::Created { etag })) => learned = Some((etag, None)),
            (Ok(_), Some(Reply::Stored { etag })) => {
                lease.stored = request.token();
                learned = Some((etag, lease.stored));
            }
            _ => {}
        }
        let mut fed = (sent, moment);
        match (manner.mistake, &ask, reply) {
            (Some(Mistake::RenewalFromReply), Ask::Renew, _) => fed.0 = moment,
            (Some(Mistake::FailureAsSuccess), Ask::Renew, None) => result = Ok(Answer::Done),
            (Some(Mistake::OtherIdTrusted), Ask::Renew, Some(Reply::Leased { .. })) => {
                result = Ok(Answer::Done);
            }
            (
                Some(from @ (Mistake::DeadlineFromReply | Mistake::DeadlineFromResend)),
                Ask::Acquire,
                Some(Reply::Leased { .. }),
            ) => {
                if from == Mistake::DeadlineFromReply {
                    fed.0 = moment;
                }
                if lease.user == User::WaitsForGuard {
                    lease.forget_earlier_sends(fed.0);
                }
            }
            (Some(Mistake::BreaksWhenInDoubt), Ask::Acquire, None) => {
                outcome.extra = Some(Request {
                    op: Op::Break,
                    ..request
                });
            }
            (Some(Mistake::UnansweredTokenHandedOut), Ask::WriteToken { if_match, .. }, None) => {
                let etag = if_match.clone();
                result = Ok(Answer::Written { etag });
            }
            // However long ago it was asked.
            (Some(Mistake::LateTokenHandedOut), Ask::WriteToken { .. }, Some(_))
            | (Some(Mistake::ProvenOnce), Ask::Renew, Some(_)) => fed.1 = sent,
            (
                Some(Mistake::GoneIsReleased),
                Ask::Release,
                Some(Reply::NotYours | Reply::NotFound),
            ) => result = Ok(Answer::Done),
            (Some(Mistake::UnansweredIsReleased), Ask::Release, _) => {
                fed.1.lease = Tick::default();
            }
            (Some(Mistake::LateGrantForgotten), Ask::Acquire, Some(Reply::Leased { .. })) => {
                if lease.user == User::Gone {
                    result = answer(&ask, id, Some(Reply::NotYours));
                }
            }
            (Some(Mistake::OutcomeAfterRelease | Mistake::RenewsAfterRelease), Ask::Renew, _) => {
                if let Some(before) = &mut lease.before {
                    lease.remembered = reply.is_some();
                    before.answered(&ask, fed.0, fed.1, result.clone(), 0);
                    while let Step::Announce(notice) = before.step(moment) {
                        let renewed = matches!(notice, Notice::Renewed);
                        outcome.misreported |= renewed && lease.user != User::HasGuard;
                    }
                }
            }
            _ => {}
        }
        lease.machine.answered(&ask, fed.0, fed.1, result, 0);
        if ask == Ask::Change && manner.makes(Mistake::ChangeIsRenewal) && reply.is_some() {
            let renewed = Ok(Answer::Done);
            lease
                .machine
                .answered(&Ask::Renew, sent, moment, renewed, 0);
        }
        if let Some(Mistake::LateTokenHandedOut | Mistake::ProvenOnce) = manner.mistake {
            outcome.token = lease.handed_over_at(fed.1);
        }
        if ask == Ask::Renew && manner.makes(Mistake::HeldIsRemembered) {
            lease.remembered &= lease.machine.claim(moment.lease) == Claim::Held;
        }
        self.known = learned.or(self.known);
        outcome
    }
}

impl Lease {
    /// Whether a thread carries out the steps, as long as it does not wait for an answer.
    pub(crate) fn may_act(&self, thread: usize) -> bool {
        match thread {
            RELEASER => self.user == User::WaitsForRelease,
            _ => self.user != User::WaitsForRelease || self.before.is_some(),
        }
    }

    /// Whether the process may hand the lock over, by the line of those who wait in it.
    fn is_in_time(&self, now: Moment) -> bool {
        let granted = Moment {
            lease: self.granted,
            real: self.granted,
        };
        let mut line = Line::default();
        line.join(THREAD);
        line.join(RELEASER);
        assert_eq!(
            line.look(&THREAD, granted, Tick::NEVER, |_| false),
            Next::Ask
        );
        line.granted(&THREAD, granted);
        let quantum = TICK * u32::from(QUANTUM);
        line.hand_over(&THREAD, now, quantum, |_| true).is_some()
    }

    /// Whether the lease would still be held for certain, had the user not released it.
    pub(crate) fn held_for_certain(&self, rate: Rate, now: u8) -> bool {
        rate.local(now) < self.held_until
    }

    /// Whether a request of its own has not reached the service yet.
    pub(crate) fn is_under_way(&self) -> bool {
        let mut waiting = self.waiting.iter().flatten();
        waiting.any(|waiting| waiting.reply.is_none())
    }

    fn send(&mut self, manner: Manner, id: Id, thread: usize, ask: Ask, sent: Moment) {
        let stored = |if_match: Option<&String>, token| Op::Store {
            if_match: if_match.and_then(|etag| etag.parse().ok()),
            token,
        };
        let op = match &ask {
            Ask::Acquire => Op::Acquire,
            Ask::Renew if manner.makes(Mistake::AcquireAsRenew) => Op::Acquire,
            Ask::Renew => Op::Renew,
            Ask::Change => Op::Change {
                from: self.former.unwrap_or(id),
            },
            Ask::Release | Ask::ReleaseFormer => Op::Release {
                tenure: self.tenure,
            },
            Ask::CreateContainer | Ask::CreateBlob => Op::Create,
            Ask::ReadHolder => Op::Look,
            Ask::ReadMetadata => Op::Read,
            Ask::WriteToken { token, if_match } => stored(Some(if_match), Some(*token)),
            Ask::WriteHolder { if_match } => stored(Some(if_match), self.stored),
            Ask::WriteReleased => stored(None, self.stored),
        };
        let id = match ask {
            Ask::ReleaseFormer => self.former.unwrap_or(id),
            _ => id,
        };
        let request = Request {
            id,
            since: 0,
            posthumous: matches!(self.user, User::WaitsForRelease | User::Gone),
            op,
        };
        self.waiting[thread] = Some(Waiting {
            request,
            ask,
            sent,
            reply: None,
        });
    }

    /// Has the machine count the lease from `since`: it is told that all sends before were refused.
    fn forget_earlier_sends(&mut self, since: Moment) {
        let refused = answer(&Ask::Acquire, Id::FRESH, Some(Reply::NotYours));
        self.machine
            .answered(&Ask::Acquire, since, since, refused, 0);
        for _ in 0..3 {
            if let Step::Send { .. } = self.machine.step(since) {
                break;
            }
        }
    }

    /// Has the machine hand the lock over if it would have done so at `then`.
    fn handed_over_at(&mut self, then: Moment) -> Option<i64> {
        let mut machine = self.machine.clone();
        let handed = loop {
            match machine.step(then) {
                Step::Announce(_) => {}
                Step::HandOver { token } => break token,
                _ => return None,
            }
        };
        (self.machine, self.user) = (machine, User::HasGuard);
        handed
    }

    fn is_so(&self, notice: &Notice, now: Tick) -> bool {
        let claim = self.machine.claim(now);
        match notice {
            Notice::Renewed | Notice::HeldAgain => self.user == User::HasGuard,
            Notice::Unproven => self.user == User::HasGuard && !matches!(claim, Claim::Lost(_)),
            Notice::Acquired { .. } => self.user == User::WaitsForGuard,
            Notice::Lost(reason) => claim == Claim::Lost(*reason),
            Notice::Released => self.machine.result().is_some_and(Result::is_ok),
            Notice::InLine { .. }
            | Notice::HandedOver { .. }
            | Notice::HeldByAnother { .. }
            | Notice::AcquireFailed { .. }
            | Notice::RenewalFailed { .. }
            | Notice::RecordFailed { .. } => true,
        }
    }
}

/// What the rest of the world has to know to tell states apart.
pub(crate) struct View<'a> {
    pub(crate) now: u8,
    pub(crate) tenure: u8,
    /// All there are, in order.
    pub(crate) tokens: &'a [i64],
    pub(crate) etags: &'a [u8],
    pub(crate) ids: &'a [Id],
    /// The IDs that clients use.
    pub(crate) used: &'a [Id],
    /// The client that sees them.
    pub(crate) by: u8,
    /// Whether a request may still fail, other than by a refusal.
    pub(crate) failures: bool,
    /// Whether a lease may still go to another user in a process.
    pub(crate) hand_overs: bool,
}

impl View<'_> {
    /// A token's place among the others, and how far it is ahead of the wall clock: new ones are
    /// made from these.
    pub(crate) fn token(&self, token: i64) -> (usize, i64) {
        let ahead = (token + 1).saturating_sub(wall(self.now)).max(0);
        (self.tokens.partition_point(|&other| other < token), ahead)
    }

    /// ETags count by which are the same.
    pub(crate) fn etag(&self, etag: u8) -> usize {
        self.etags.partition_point(|&other| other < etag)
    }

    /// So do IDs, and by whose they are, and whether they are still used.
    pub(crate) fn id(&self, id: Id) -> (bool, u8, usize) {
        let client = id.client();
        let older = |&&other: &&Id| other.client() == client && other < id;
        let place = self.ids.iter().filter(older).count();
        (self.used.contains(&id), client ^ self.by, place)
    }

    /// The IDs that clients use, that of the one who sees them first.
    pub(crate) fn used(&self) -> impl Iterator<Item = Id> {
        let by = usize::from(self.by);
        (0..self.used.len()).map(move |i| self.used[i ^ by])
    }
}

/// How the machine of one client is seen.
struct LocalView<'a> {
    all: &'a View<'a>,
    now: Tick,
}

impl fingerprint::View for LocalView<'_> {
    fn now(&self) -> Tick {
        self.now
    }

    fn ticks(&self, duration: Duration) -> u8 {
        let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
        u8::try_from(ticks).map_or(HORIZON, |ticks| ticks.min(HORIZON))
    }

    fn etag(&self, etag: &str) -> impl Hash {
        etag.parse().ok().map(|etag| self.all.etag(etag))
    }

    fn token(&self, token: i64) -> impl Hash {
        self.all.token(token)
    }

    fn failures(&self) -> bool {
        self.all.failures
    }
}

/// Longer ago, or farther away, than what can make a difference.
const HORIZON: u8 = DURATION + 2;

impl Client {
    /// Tells this state from others, but for the time that it is: only differences matter.
    pub(crate) fn hash(&self, view: &View<'_>, state: &mut impl Hasher) {
        (self.rate, view.id(self.id), self.left).hash(state);
        let known = self.known;
        known
            .map(|(etag, token)| (view.etag(etag), token.map(|token| view.token(token))))
            .hash(state);
        self.stale.map(|token| view.token(token)).hash(state);
        std::mem::discriminant(&self.phase).hash(state);
        if let Some(lease) = self.lease() {
            let now = self.rate.local(view.now);
            lease.hash(&LocalView { all: view, now }, state);
        }
    }

    /// The tokens and ETags that it knows of.
    pub(crate) fn known(&self, tokens: &mut Vec<i64>, etags: &mut Vec<u8>) {
        if let Some((etag, token)) = self.known {
            etags.push(etag);
            tokens.extend(token);
        }
        tokens.extend(self.stale);
        let Some(lease) = self.lease() else { return };
        tokens.extend(lease.stored);
        for machine in [Some(&lease.machine), lease.before.as_ref()]
            .into_iter()
            .flatten()
        {
            let (metadata, token) = machine.known();
            tokens.extend(token);
            if let Some(metadata) = metadata {
                tokens.extend(metadata.token);
                etags.extend(metadata.etag.parse::<u8>());
            }
        }
        for waiting in lease.waiting.iter().flatten() {
            waiting.request.known(tokens, etags);
            match waiting.reply {
                Some(Reply::Found { etag, token }) => {
                    etags.push(etag);
                    tokens.extend(token);
                }
                Some(
                    Reply::Leased { etag, .. } | Reply::Stored { etag } | Reply::Created { etag },
                ) => {
                    etags.push(etag);
                }
                _ => {}
            }
        }
    }
}

impl Lease {
    fn hash(&self, view: &LocalView<'_>, state: &mut impl Hasher) {
        use fingerprint::View as _;

        let Self {
            machine,
            user,
            waiting,
            stored,
            tenure,
            overtaken,
            known_lost,
            held_until,
            before,
            remembered,
            granted,
            exposed,
            former,
        } = self;
        if view.all.hand_overs {
            let age = view.now.since(*granted).min(TICK * u32::from(QUANTUM));
            (view.ticks(age), exposed).hash(state);
        }
        former.map(|id| view.all.id(id)).hash(state);
        machine.fingerprint(view, state);
        before.is_some().hash(state);
        if let Some(before) = before {
            before.fingerprint(view, state);
        }
        (user, remembered).hash(state);
        stored.map(|token| view.all.token(token)).hash(state);
        // Nobody hears more of a lease that its user has given up, or that is over.
        if *user != User::Gone && machine.result().is_none() {
            (overtaken, known_lost, *tenure == view.all.tenure).hash(state);
            view.failures().then(|| view.until(*held_until)).hash(state);
        }
        for waiting in waiting {
            waiting.is_some().hash(state);
            if let Some(waiting) = waiting {
                let counts = matches!(user, User::WaitsForGuard | User::HasGuard);
                waiting.hash(counts || before.is_some(), view, state);
            }
        }
    }
}

impl Waiting {
    /// `counts`: whether a lease may come of it that is claimed.
    fn hash(&self, counts: bool, view: &LocalView<'_>, state: &mut impl Hasher) {
        use fingerprint::View as _;

        let Self {
            request,
            ask,
            sent,
            reply,
        } = self;
        request.hash(view.all, state);
        std::mem::discriminant(ask).hash(state);
        if counts && matches!(ask, Ask::Acquire | Ask::Renew) {
            // What it proves counts from then, for as long as it proves anything.
            let age = view.now.since(sent.lease).min(TICK * u32::from(DURATION));
            view.ticks(age).hash(state);
        }
        match reply {
            Some(Reply::Leased { id, etag, tenure }) => {
                let current = counts && *tenure == view.all.tenure;
                (1, view.all.id(*id), view.all.etag(*etag), current).hash(state);
            }
            Some(Reply::Found { etag, token }) => {
                let token = token.map(|token| view.all.token(token));
                (2, view.all.etag(*etag), token).hash(state);
            }
            Some(Reply::Changed { tenure }) => (6, *tenure == view.all.tenure).hash(state),
            Some(Reply::Stored { etag }) => (3, view.all.etag(*etag)).hash(state),
            Some(Reply::Created { etag }) => (4, view.all.etag(*etag)).hash(state),
            reply => (5, reply).hash(state),
        }
    }
}

impl Request {
    /// Whether the service does nothing for it unless its ID is leased.
    pub(crate) fn needs_lease(&self) -> bool {
        match self.op {
            // A change needs one of another ID.
            Op::Acquire | Op::Break | Op::Create | Op::Change { .. } => false,
            Op::Write { under, .. } => under,
            Op::Renew | Op::Release { .. } | Op::Look | Op::Read | Op::Store { .. } => true,
        }
    }

    /// The token that it stores.
    pub(crate) fn token(&self) -> Option<i64> {
        match self.op {
            Op::Store { token, .. } => token,
            _ => None,
        }
    }

    pub(crate) fn known(&self, tokens: &mut Vec<i64>, etags: &mut Vec<u8>) {
        if let Op::Store { if_match, token } = self.op {
            tokens.extend(token);
            etags.extend(if_match);
        }
    }

    pub(crate) fn hash(&self, view: &View<'_>, state: &mut impl Hasher) {
        let Self {
            id,
            since: _, // For how long it is kept, see the world.
            posthumous,
            op,
        } = self;
        (view.id(*id), posthumous).hash(state);
        match *op {
            Op::Store { if_match, token } => {
                let token = token.map(|token| view.token(token));
                (1, if_match.map(|etag| view.etag(etag)), token).hash(state);
            }
            Op::Write { under, tenure } => (2, under, tenure == view.tenure).hash(state),
            Op::Release { tenure } => (3, tenure == view.tenure).hash(state),
            Op::Change { from } => (5, view.id(from)).hash(state),
            op => (4, op).hash(state),
        }
    }
}

fn metadata_of(etag: u8, token: Option<i64>, now: u8) -> Metadata {
    Metadata {
        etag: etag.to_string(),
        token,
        wall: wall(now),
    }
}

/// The wall clock, in milliseconds.
fn wall(now: u8) -> i64 {
    (1000 + i64::from(now)) * 1_000_000
}
