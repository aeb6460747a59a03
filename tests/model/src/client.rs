//! A client: the shipped core, and what the threads and requests around it can do to it.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::lease::{Acquisition, Claim, Hold, LossReason, Parting, Renewal, Step, Terms};
use crate::mistakes::Mistake;
use crate::record::Record;
use crate::service::{DURATION, Id, Op, Reply, Stored};
use crate::tick::Tick;

/// One tick on a client's clock.
const TICK: Duration = Duration::from_secs(1);
const MARGIN: u8 = 1;
const RENEW_EVERY: u8 = 2;

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
}

/// How a client goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) mistake: Option<Mistake>,
    pub(crate) fencing: bool,
    pub(crate) max_hold: Option<u8>,
}

impl Manner {
    pub(crate) fn terms(self) -> Terms {
        let margin = match self.mistake {
            Some(Mistake::NoMargin) => 0,
            _ => MARGIN,
        };
        Terms {
            duration: TICK * u32::from(DURATION),
            margin: TICK * u32::from(margin),
            renew_every: TICK * u32::from(RENEW_EVERY),
            attempt_timeout: TICK * u32::from(DURATION),
            max_hold: self.max_hold.map(|ticks| TICK * u32::from(ticks)),
        }
    }

    fn makes(self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

/// One request, on its way or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) from: u8,
    pub(crate) id: Id,
    /// By real time.
    pub(crate) sent: u8,
    /// GHOST: the client had already let go when it sent this.
    pub(crate) posthumous: bool,
    pub(crate) op: Op,
}

/// The request that a client waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// By the client's clock.
    sent: Tick,
    pub(crate) reply: Option<Reply>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    /// The blob is missing and is made.
    Creating(Acquisition),
    Acquiring(Acquisition),
    /// The lease is granted, and the token is not stored yet.
    Preparing(Preparing),
    /// The user has the guard.
    Holding(Held),
    /// The guard is gone, or what may have been granted is taken back.
    Releasing(Option<Held>),
    Dead,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preparing {
    /// What the deadline counts from.
    since: Tick,
    tenure: u8,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Read,
    Store {
        etag: Option<u8>,
        stored: Stored,
    },
    /// A store found another ETag: was it an earlier attempt of its own that changed it?
    Recognise(Stored),
    /// Storing took so long that the lease has to be proven again.
    Prove(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) hold: Hold,
    /// GHOST: the tenure that the grant began.
    pub(crate) tenure: u8,
    /// The answer that `HeldIsRemembered` remembers.
    remembered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) number: u8,
    pub(crate) rate: Rate,
    pub(crate) phase: Phase,
    pub(crate) waiting: Option<Waiting>,
    /// The ID of the acquisition.
    pub(crate) id: Id,
    /// How many more acquisitions it may start.
    left: u8,
    /// GHOST: the user has let go of what `id` stands for.
    ended: bool,
    /// The token that it stored last, and the ETag that this gave the blob.
    known: Option<(u8, u64)>,
    /// The token that `TokenReadBeforeLease` read.
    stale: Option<u64>,
}

/// What else came of a step of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    /// The lock is acquired, with this token.
    HandedOut(u64),
}

impl Client {
    pub(crate) fn new(number: u8, rate: Rate, acquisitions: u8) -> Self {
        Self {
            number,
            rate,
            phase: Phase::Idle,
            waiting: None,
            id: number * acquisitions,
            left: acquisitions,
            ended: false,
            known: None,
            stale: None,
        }
    }

    /// Whether it tells its user at `now` that the lock is held.
    pub(crate) fn claims(&self, manner: Manner, now: u8) -> bool {
        let (Phase::Holding(held) | Phase::Releasing(Some(held))) = &self.phase else {
            return false;
        };
        match held.hold.claim(self.rate.local(now)) {
            _ if manner.makes(Mistake::HeldIsRemembered) => held.remembered,
            Claim::Unproven => manner.makes(Mistake::UnprovenIsHeld),
            claim => claim == Claim::Held,
        }
    }

    pub(crate) fn held(&self) -> Option<&Held> {
        match &self.phase {
            Phase::Holding(held) => Some(held),
            _ => None,
        }
    }

    /// Whether a request of its own has not reached the service yet.
    pub(crate) fn is_under_way(&self) -> bool {
        let waiting = self.waiting.as_ref();
        waiting.is_some_and(|waiting| waiting.reply.is_none())
    }

    pub(crate) fn may_start(&self) -> bool {
        self.phase == Phase::Idle && self.left > 0
    }

    /// Asks for a lock, with a fresh ID.
    pub(crate) fn start(&mut self, manner: Manner, stored: Option<Stored>, now: u8) {
        self.left -= 1;
        self.ended = false;
        if manner.makes(Mistake::TokenReadBeforeLease) {
            self.stale = Some(stored.map_or(0, |stored| stored.token));
        }
        self.phase = Phase::Acquiring(Acquisition::default());
        self.act(manner, now);
    }

    /// Does what comes next by itself. Returns whether there was something.
    pub(crate) fn act(&mut self, manner: Manner, now: u8) -> bool {
        if self.waiting.is_some() {
            return false;
        }
        let local = self.rate.local(now);
        let op = match &mut self.phase {
            Phase::Idle | Phase::Dead | Phase::Releasing(None) => return false,
            Phase::Creating(_) => Op::Create,
            Phase::Acquiring(acquisition) => {
                acquisition.sending(local);
                Op::Acquire
            }
            Phase::Preparing(Preparing { stage, .. }) => match *stage {
                Stage::Read | Stage::Recognise(_) => Op::Read,
                Stage::Store { etag, stored } => Op::Store {
                    if_match: etag,
                    token: stored.token,
                    wall: stored.wall,
                },
                Stage::Prove(_) => Op::Renew,
            },
            Phase::Releasing(Some(_)) if !manner.makes(Mistake::RenewsAfterRelease) => {
                return false;
            }
            Phase::Holding(held) | Phase::Releasing(Some(held)) => match held.step(local) {
                Step::Renew { .. } if manner.makes(Mistake::AcquireAsRenew) => Op::Acquire,
                Step::Renew { .. } => Op::Renew,
                _ => return false,
            },
        };
        self.send(op, now);
        true
    }

    /// The user writes to the blob's content under the lease.
    pub(crate) fn write(&mut self, manner: Manner, now: u8) -> Option<Request> {
        let held = self.held()?;
        let op = Op::Write {
            under: !manner.makes(Mistake::WriteWithoutId),
            tenure: held.tenure,
        };
        Some(self.request(op, now))
    }

    /// The user drops the guard, or gives up waiting. Returns a request that is still under way.
    pub(crate) fn let_go(&mut self, manner: Manner, now: u8) -> Option<Request> {
        let abandoned = self.waiting.take();
        self.ended = true;
        let under_way = |waiting: &Waiting| waiting.reply.is_none().then_some(waiting.request);
        let late = abandoned.as_ref().and_then(under_way);
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Holding(mut held) => {
                let before = held.hold.clone();
                let parting = held.hold.release();
                held.remembered = false;
                if manner.makes(Mistake::RenewsAfterRelease) {
                    held.hold = before;
                    self.phase = Phase::Releasing(Some(held));
                    return late;
                }
                let answered = abandoned.and_then(|waiting| Some((waiting.sent, waiting.reply?)));
                if manner.makes(Mistake::OutcomeAfterRelease) && answered.is_some() {
                    held.hold = before;
                }
                self.phase = Phase::Releasing(Some(held));
                if let Some((sent, reply)) = answered {
                    // The thread hears of it after the release.
                    self.renewed(manner, sent, now, Some(reply));
                }
                match parting {
                    Parting::Release | Parting::EndBreak => self.send(Op::Release, now),
                    Parting::Nothing => self.over(manner),
                }
            }
            Phase::Creating(acquisition) | Phase::Acquiring(acquisition) => {
                if acquisition.may_be_granted() {
                    self.phase = Phase::Releasing(None);
                    self.send(Op::Release, now);
                } else {
                    self.over(manner);
                }
            }
            Phase::Preparing(_) => {
                self.phase = Phase::Releasing(None);
                self.send(Op::Release, now);
            }
            phase => self.phase = phase,
        }
        late
    }

    /// The process is gone. Returns a request that is still under way.
    pub(crate) fn die(&mut self) -> Option<Request> {
        self.phase = Phase::Dead;
        let waiting = self.waiting.take()?;
        waiting.reply.is_none().then_some(waiting.request)
    }

    /// Takes in the reply that has come, or that none will come. Returns what the user gets.
    pub(crate) fn hear(&mut self, manner: Manner, now: u8) -> Outcome {
        let Some(Waiting { sent, reply, .. }) = self.waiting.take() else {
            return Outcome::Nothing;
        };
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle | Phase::Dead => Outcome::Nothing,
            Phase::Creating(acquisition) => {
                self.phase = match reply {
                    Some(Reply::Done) => Phase::Acquiring(acquisition),
                    _ => Phase::Creating(acquisition),
                };
                Outcome::Nothing
            }
            Phase::Acquiring(acquisition) => self.acquired(manner, acquisition, sent, now, reply),
            Phase::Preparing(preparing) => self.prepared(manner, preparing, sent, now, reply),
            Phase::Holding(held) => {
                self.phase = Phase::Holding(held);
                self.renewed(manner, sent, now, reply);
                Outcome::Nothing
            }
            Phase::Releasing(held) => {
                if manner.makes(Mistake::RenewsAfterRelease) && held.is_some() {
                    self.phase = Phase::Releasing(held);
                    self.renewed(manner, sent, now, reply);
                    return Outcome::Nothing;
                }
                match reply {
                    // Not confirmed: once more, for as long as the user waits.
                    None | Some(Reply::Busy) => {
                        self.phase = Phase::Releasing(held);
                        self.send(Op::Release, now);
                    }
                    Some(_) => self.over(manner),
                }
                Outcome::Nothing
            }
        }
    }

    /// Stops to wait for the release to be confirmed.
    pub(crate) fn leave(&mut self, manner: Manner) -> Option<Request> {
        let waiting = self.waiting.take()?;
        self.over(manner);
        waiting.reply.is_none().then_some(waiting.request)
    }

    fn over(&mut self, manner: Manner) {
        self.phase = Phase::Idle;
        self.waiting = None;
        if self.left > 0 && !manner.makes(Mistake::IdReused) {
            self.id += 1;
        }
    }

    fn acquired(
        &mut self,
        manner: Manner,
        mut acquisition: Acquisition,
        sent: Tick,
        now: u8,
        reply: Option<Reply>,
    ) -> Outcome {
        let local = self.rate.local(now);
        match reply {
            Some(Reply::Leased { id, etag, tenure }) if id == self.id => {
                let sent = match manner.mistake {
                    Some(Mistake::DeadlineFromReply) => local,
                    _ => sent,
                };
                let granted = acquisition.granted(sent, local, manner.terms().usable());
                let granted = match manner.mistake {
                    Some(Mistake::DeadlineFromReply | Mistake::DeadlineFromResend) => Some(sent),
                    _ => granted,
                };
                let Some(since) = granted else {
                    self.phase = Phase::Acquiring(acquisition);
                    return Outcome::Nothing;
                };
                if !manner.fencing {
                    self.keep(manner, since, tenure, now);
                    return Outcome::Nothing;
                }
                let stage = match (self.stale, self.known) {
                    (Some(stale), _) => self.store(Some(stale), None, now),
                    (None, Some((known, token))) if known == etag => {
                        self.store(Some(token), Some(etag), now)
                    }
                    _ => Stage::Read,
                };
                self.phase = Phase::Preparing(Preparing {
                    since,
                    tenure,
                    stage,
                });
            }
            Some(Reply::NotFound) => {
                acquisition.refused();
                self.phase = Phase::Creating(acquisition);
            }
            Some(Reply::NotYours | Reply::Broken | Reply::Busy) => {
                acquisition.refused();
                self.phase = Phase::Acquiring(acquisition);
            }
            _ => {
                acquisition.unanswered();
                self.phase = Phase::Acquiring(acquisition);
                if manner.makes(Mistake::BreaksWhenInDoubt) {
                    self.phase = Phase::Releasing(None);
                    self.send(Op::Break, now);
                }
            }
        }
        Outcome::Nothing
    }

    /// The token that follows `last`, by the shipped rule.
    fn store(&self, last: Option<u64>, etag: Option<u8>, now: u8) -> Stage {
        let mut before = Record::default();
        before.fence = last;
        let token = before.next_fence(wall(now)).unwrap_or(0);
        let stored = Stored {
            token,
            writer: self.number,
            wall: now,
        };
        Stage::Store { etag, stored }
    }

    fn prepared(
        &mut self,
        manner: Manner,
        mut preparing: Preparing,
        sent: Tick,
        now: u8,
        reply: Option<Reply>,
    ) -> Outcome {
        let token = match (preparing.stage.clone(), reply) {
            (Stage::Store { stored, .. }, None)
                if manner.makes(Mistake::UnansweredTokenHandedOut) =>
            {
                stored.token
            }
            // Sent again.
            (_, None | Some(Reply::Busy)) => {
                self.phase = Phase::Preparing(preparing);
                return Outcome::Nothing;
            }
            (Stage::Read, Some(Reply::Found { etag, stored })) => {
                let last = stored.map(|stored| stored.token);
                preparing.stage = self.store(last, Some(etag), now);
                self.phase = Phase::Preparing(preparing);
                return Outcome::Nothing;
            }
            (Stage::Store { stored, .. }, Some(Reply::Stored { etag })) => {
                self.known = Some((etag, stored.token));
                stored.token
            }
            (Stage::Store { stored, .. }, Some(Reply::ConditionNotMet)) => {
                preparing.stage = Stage::Recognise(stored);
                self.phase = Phase::Preparing(preparing);
                return Outcome::Nothing;
            }
            (Stage::Recognise(ours), Some(Reply::Found { etag, stored })) => {
                if stored.is_none_or(|found| found.token != ours.token) {
                    self.phase = Phase::Releasing(None);
                    self.send(Op::Release, now);
                    return Outcome::Nothing;
                }
                self.known = Some((etag, ours.token));
                ours.token
            }
            (Stage::Prove(token), Some(Reply::Leased { id, .. })) if id == self.id => {
                preparing.since = sent;
                token
            }
            // The lease is lost: the lock is not acquired, and what is left is taken back.
            _ => {
                self.phase = Phase::Releasing(None);
                self.send(Op::Release, now);
                return Outcome::Nothing;
            }
        };
        let local = self.rate.local(now);
        let late = local.since(preparing.since) >= manner.terms().usable();
        let proven = matches!(preparing.stage, Stage::Prove(_));
        let passed_over = manner.makes(Mistake::LateTokenHandedOut)
            || manner.makes(Mistake::ProvenOnce) && proven;
        if late && !passed_over {
            preparing.stage = Stage::Prove(token);
            self.phase = Phase::Preparing(preparing);
            return Outcome::Nothing;
        }
        self.keep(manner, preparing.since, preparing.tenure, now);
        Outcome::HandedOut(token)
    }

    fn keep(&mut self, manner: Manner, since: Tick, tenure: u8, now: u8) {
        let hold = Hold::new(manner.terms(), since);
        let mut held = Held {
            hold,
            tenure,
            remembered: false,
        };
        held.remember(self.rate.local(now), manner);
        self.phase = Phase::Holding(held);
    }

    fn renewed(&mut self, manner: Manner, sent: Tick, now: u8, reply: Option<Reply>) {
        let local = self.rate.local(now);
        let id = self.id;
        let (Phase::Holding(held) | Phase::Releasing(Some(held))) = &mut self.phase else {
            return;
        };
        let unknown = Renewal::Unknown { retry_after: None };
        let renewal = match reply {
            Some(Reply::Leased { id: named, .. })
                if named == id || manner.makes(Mistake::OtherIdTrusted) =>
            {
                Renewal::Confirmed
            }
            Some(Reply::Leased { .. } | Reply::NotYours) => Renewal::Lost(LossReason::Taken),
            Some(Reply::Broken) => Renewal::Lost(LossReason::Broken),
            Some(Reply::NotFound) => Renewal::Lost(LossReason::Deleted),
            None if manner.makes(Mistake::FailureAsSuccess) => Renewal::Confirmed,
            _ => unknown,
        };
        let sent = match manner.mistake {
            Some(Mistake::RenewalFromReply) => local,
            _ => sent,
        };
        held.hold.renewed(sent, local, renewal);
        held.remember(local, manner);
    }

    fn send(&mut self, op: Op, now: u8) {
        self.waiting = Some(Waiting {
            request: self.request(op, now),
            sent: self.rate.local(now),
            reply: None,
        });
    }

    fn request(&self, op: Op, now: u8) -> Request {
        Request {
            from: self.number,
            id: self.id,
            sent: now,
            posthumous: self.ended,
            op,
        }
    }
}

impl Held {
    /// What the shipped core says comes next, its announcements heard.
    fn step(&mut self, local: Tick) -> Step {
        loop {
            match self.hold.step(local) {
                Step::Announce(claim) => self.remembered = claim == Claim::Held,
                step => return step,
            }
        }
    }

    fn remember(&mut self, local: Tick, manner: Manner) {
        self.remembered =
            manner.makes(Mistake::HeldIsRemembered) && self.hold.claim(local) == Claim::Held;
    }
}

/// What the rest of the world has to know to tell states apart.
pub(crate) struct View<'a> {
    pub(crate) now: u8,
    pub(crate) tenure: u8,
    /// After so many ticks a request does not arrive any more.
    pub(crate) lateness: Option<u8>,
    /// All tokens there are, in order.
    pub(crate) tokens: &'a [u64],
}

impl View<'_> {
    /// A token's place among the others, and how far it is ahead of the wall clock: new ones are
    /// made from these.
    pub(crate) fn token(&self, token: u64) -> (usize, u64) {
        let wall = wall(self.now).unix_timestamp_nanos() / 1_000_000;
        let ahead = (token + 1).saturating_sub(u64::try_from(wall).unwrap_or(0));
        (self.tokens.partition_point(|&other| other < token), ahead)
    }

    fn stored(&self, stored: Stored) -> (usize, u64, u8) {
        let (place, ahead) = self.token(stored.token);
        (place, ahead, stored.writer)
    }
}

/// The time from then to now, if it makes a difference.
fn age(local: Tick, then: Tick) -> u64 {
    let ticks = local.since(then).as_secs();
    ticks.min(u64::from(DURATION))
}

impl Client {
    /// Tells this state from others, but for the time that it is: only differences matter.
    pub(crate) fn hash(&self, view: &View<'_>, state: &mut impl Hasher) {
        let local = self.rate.local(view.now);
        (self.rate, self.id, self.left, self.ended).hash(state);
        self.known
            .map(|(etag, token)| (etag, view.token(token)))
            .hash(state);
        self.stale.map(|token| view.token(token)).hash(state);
        let waiting = self.waiting.as_ref();
        waiting.is_some().hash(state);
        if let Some(Waiting {
            request,
            sent,
            reply,
        }) = waiting
        {
            request.hash(view, state);
            age(local, *sent).hash(state);
            match reply {
                Some(Reply::Leased { id, etag, tenure }) => {
                    (1, id, etag, *tenure == view.tenure).hash(state);
                }
                Some(Reply::Found { etag, stored }) => {
                    (2, etag, stored.map(|stored| view.stored(stored))).hash(state);
                }
                reply => (3, reply).hash(state),
            }
        }
        std::mem::discriminant(&self.phase).hash(state);
        match &self.phase {
            Phase::Idle | Phase::Dead | Phase::Releasing(None) => {}
            Phase::Creating(acquisition) | Phase::Acquiring(acquisition) => {
                // What it knows shows in what it would make of a grant.
                let mut probe = acquisition.clone();
                let since = probe.granted(local, local, Duration::MAX).unwrap_or(local);
                (age(local, since), acquisition.may_be_granted()).hash(state);
                (*acquisition == Acquisition::default()).hash(state);
            }
            Phase::Preparing(preparing) => preparing.hash(local, view, state),
            Phase::Holding(held) | Phase::Releasing(Some(held)) => {
                held.hash(local, view.tenure, state);
            }
        }
    }

    /// The tokens that it knows of.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u64> {
        let waiting = self.waiting.as_ref();
        let found = waiting.and_then(|waiting| match (waiting.reply, waiting.request.op) {
            (Some(Reply::Found { stored, .. }), _) => Some(stored?.token),
            (_, Op::Store { token, .. }) => Some(token),
            _ => None,
        });
        let staged = match &self.phase {
            Phase::Preparing(preparing) => match preparing.stage {
                Stage::Store { stored, .. } | Stage::Recognise(stored) => Some(stored.token),
                Stage::Prove(token) => Some(token),
                Stage::Read => None,
            },
            _ => None,
        };
        let known = self.known.map(|(_, token)| token);
        [known, self.stale, found, staged].into_iter().flatten()
    }
}

impl Request {
    pub(crate) fn hash(&self, view: &View<'_>, state: &mut impl Hasher) {
        (self.from, self.id, self.posthumous).hash(state);
        let age = view.now - self.sent;
        view.lateness.map(|limit| age.min(limit + 1)).hash(state);
        match self.op {
            Op::Store {
                if_match, token, ..
            } => (1, if_match, view.token(token)).hash(state),
            Op::Write { under, tenure } => (2, under, tenure == view.tenure).hash(state),
            op => (3, op).hash(state),
        }
    }
}

impl Preparing {
    fn hash(&self, local: Tick, view: &View<'_>, state: &mut impl Hasher) {
        age(local, self.since).hash(state);
        (self.tenure == view.tenure).hash(state);
        match &self.stage {
            Stage::Read => 1.hash(state),
            Stage::Store { etag, stored } => (2, etag, view.stored(*stored)).hash(state),
            Stage::Recognise(stored) => (3, view.stored(*stored)).hash(state),
            Stage::Prove(token) => (4, view.token(*token)).hash(state),
        }
    }
}

impl Held {
    /// A hold shows what it is by what it claims and wants, now and at every tick to come.
    fn hash(&self, local: Tick, tenure: u8, state: &mut impl Hasher) {
        (self.tenure == tenure, self.remembered).hash(state);
        for ahead in 0..=u32::from(DURATION) + 1 {
            let then = local + TICK * ahead;
            self.hold.claim(then).hash(state);
            let mut probe = self.hold.clone();
            match probe.step(then) {
                Step::Wait(until) => (1, until.since(then).min(TICK * 9)).hash(state),
                Step::Renew { timeout } => (2, timeout).hash(state),
                Step::Announce(claim) => (3, claim).hash(state),
                Step::End => 4.hash(state),
            }
        }
    }
}

fn wall(now: u8) -> time::OffsetDateTime {
    time::OffsetDateTime::UNIX_EPOCH + TICK * (1000 + u32::from(now))
}
