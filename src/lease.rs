//! PURE: what a client may claim about its lease, and what it has to do next.
//!
//! No I/O, no clock, no thread: the time comes in as an argument and what happened as a value. The
//! renewal thread drives this code, and so do tests with literal instants.
//!
//! Two facts carry the guarantee. The deadline of a lease counts from *before* the request that
//! the service confirmed was sent: the service's own clock for it started later, so its lease ends
//! no earlier. And only a confirmed renew extends it: acquiring again with the same ID would also
//! succeed after somebody else held the lease in between, and so proves nothing.

use std::fmt;
use std::time::Duration;

use crate::clock::Tick;

/// The figures that a hold goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How long the service keeps the lease after an acquire or a renew.
    pub(crate) duration: Duration,
    /// How long before the service's own end the client stops to claim the lease.
    pub(crate) margin: Duration,
    /// From one confirmed renewal's send to the next.
    pub(crate) renew_every: Duration,
    /// The longest that one renewal may take.
    pub(crate) attempt_timeout: Duration,
    /// Renewals end this long after the lease was acquired.
    pub(crate) max_hold: Option<Duration>,
}

impl Terms {
    fn deadline(&self, sent: Tick) -> Tick {
        sent + self.duration.saturating_sub(self.margin)
    }
}

/// Why a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// Somebody broke the lease.
    Broken,
    /// The lease has another ID now, or none: it ran out and another client acquired it or wrote
    /// to the blob, or somebody released or changed it by its ID.
    Taken,
    /// The blob or its container was deleted.
    Deleted,
    /// The guard was held for longer than [`max_hold`](crate::LockerBuilder::max_hold), so it was
    /// no longer renewed and ran out.
    MaxHold,
    /// The guard released it.
    Released,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the lease was broken by another client",
            Self::Taken => "the lease ID is no longer the blob's: it ran out or was taken over",
            Self::Deleted => "the lock blob was deleted",
            Self::MaxHold => "the lock was held for longer than max_hold and not renewed any more",
            Self::Released => "the lock was released",
        })
    }
}

/// What a client may claim about its lease at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// No other client holds the lease.
    Held,
    /// Nobody knows: the deadline passed without an answer.
    Unproven,
    /// It is over.
    Lost(LossReason),
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The service renewed the lease and echoed our ID.
    Confirmed,
    /// The service said that the lease is not ours.
    Lost(LossReason),
    /// Anything else, no answer included: the lease may or may not have been renewed.
    Unknown { retry_after: Option<Duration> },
}

/// What a holder has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing until then.
    Wait(Tick),
    /// Send a renewal that takes no longer than this.
    Renew { timeout: Duration },
    /// The claim changed because time passed: tell those who listen.
    Announce(Claim),
    /// Nothing, ever: the hold is over.
    End,
}

/// One acquired lease, from the acquire on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    terms: Terms,
    acquired: Tick,
    /// When the last confirmed request was sent.
    proven: Tick,
    /// When the next renewal is due.
    due: Tick,
    /// The claim that was last announced.
    announced: Claim,
    lost: Option<LossReason>,
}

impl Hold {
    /// A lease that the service granted to a request sent at `sent`.
    pub(crate) fn new(terms: Terms, sent: Tick) -> Self {
        Self {
            terms,
            acquired: sent,
            proven: sent,
            due: sent + terms.renew_every,
            announced: Claim::Held,
            lost: None,
        }
    }

    /// From this instant on the lease is no longer claimed, unless it is renewed before.
    pub(crate) fn deadline(&self) -> Tick {
        match self.lost {
            Some(_) => Tick::default(),
            None => self.terms.deadline(self.proven),
        }
    }

    /// When the last confirmed request was sent.
    pub(crate) fn proven(&self) -> Tick {
        self.proven
    }

    /// What may be claimed at `now`.
    pub(crate) fn claim(&self, now: Tick) -> Claim {
        match self.lost {
            Some(reason) => Claim::Lost(reason),
            None if now < self.deadline() => Claim::Held,
            None => Claim::Unproven,
        }
    }

    /// What to do at `now`.
    pub(crate) fn step(&mut self, now: Tick) -> Step {
        if self.lost.is_some() {
            return Step::End;
        }
        let claim = self.claim(now);
        let renewals_end = self
            .terms
            .max_hold
            .map_or(Tick::NEVER, |max| self.acquired + max);
        if now >= renewals_end {
            if claim == Claim::Held {
                return Step::Wait(self.deadline());
            }
            self.lose(LossReason::MaxHold);
            return Step::Announce(Claim::Lost(LossReason::MaxHold));
        }
        if claim == Claim::Unproven && self.announced == Claim::Held {
            self.announced = Claim::Unproven;
            return Step::Announce(Claim::Unproven);
        }
        if now >= self.due {
            return Step::Renew {
                timeout: self.renewal_timeout(now),
            };
        }
        let look_up = if claim == Claim::Held {
            self.deadline()
        } else {
            Tick::NEVER
        };
        Step::Wait(self.due.min(look_up).min(renewals_end))
    }

    /// Takes in what became of the renewal sent at `sent`. Returns the claim if it changed.
    pub(crate) fn renewed(&mut self, sent: Tick, now: Tick, renewal: Renewal) -> Option<Claim> {
        if self.lost.is_some() {
            return None;
        }
        match renewal {
            Renewal::Confirmed => {
                self.proven = self.proven.max(sent);
                self.due = self.proven + self.terms.renew_every;
            }
            Renewal::Lost(reason) => self.lose(reason),
            Renewal::Unknown { retry_after } => self.due = now + self.retry_delay(now, retry_after),
        }
        let claim = self.claim(now);
        (claim != self.announced).then(|| {
            self.announced = claim;
            claim
        })
    }

    /// Ends the hold; whatever a late renewal says does not matter any more.
    pub(crate) fn lose(&mut self, reason: LossReason) {
        if self.lost.is_none() {
            self.lost = Some(reason);
            self.announced = Claim::Lost(reason);
        }
    }

    /// A renewal never outlasts the deadline, so that the loss of the claim is noticed in time.
    fn renewal_timeout(&self, now: Tick) -> Duration {
        let left = self.deadline().since(now);
        let timeout = self.terms.attempt_timeout;
        if left.is_zero() {
            timeout
        } else {
            timeout.min(left)
        }
    }

    /// After a failure: a sixth of the time left, so that retries speed up as the deadline nears.
    /// Past the deadline a steady pace.
    fn retry_delay(&self, now: Tick, retry_after: Option<Duration>) -> Duration {
        let scale = self.terms.duration;
        let left = self.deadline().since(now);
        let (delay, longest) = if left.is_zero() {
            (scale / 30, scale / 2)
        } else {
            ((left / 6).clamp(scale / 120, scale / 6), left / 2)
        };
        // The service may ask for more, but not for so much that the lease is lost by it.
        retry_after.map_or(delay, |asked| delay.max(asked.min(longest)))
    }
}

/// The acquires of one lease ID, from the first send until the service grants the lease or the
/// client gives up.
///
/// While a request of this ID is unanswered, the service may have granted it. The same ID is then
/// sent again: granted twice is granted once. An ID is never used again after giving up, since a
/// late copy of a request may still arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acquisition {
    /// The first send since the service last said that it had not granted the lease.
    first_unanswered: Option<Tick>,
    /// Whether some request was never answered, so that a copy of it may still be under way.
    ambiguous: bool,
}

impl Acquisition {
    /// An acquire goes out at `now`.
    pub(crate) fn sending(&mut self, now: Tick) {
        self.first_unanswered.get_or_insert(now);
    }

    /// The service said that it did not grant the lease.
    pub(crate) fn refused(&mut self) {
        self.first_unanswered = None;
    }

    /// No answer, or none that says whether the lease was granted.
    pub(crate) fn unanswered(&mut self) {
        self.ambiguous = true;
    }

    /// The service granted the lease. Returns the instant that its deadline counts from.
    pub(crate) fn granted(&mut self, sent: Tick) -> Tick {
        self.first_unanswered.take().unwrap_or(sent).min(sent)
    }

    /// Whether giving up now has to try to release the ID.
    pub(crate) fn may_be_granted(&self) -> bool {
        self.ambiguous
    }
}
