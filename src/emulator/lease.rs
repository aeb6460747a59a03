//! PURE: the lease of a blob or container, as the service keeps it.
//!
//! Time is an argument. A lease does not change by itself when its time runs out: what it is now
//! follows from what was last asked of it, and when.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>

use std::time::Duration;

use uuid::Uuid;

use crate::clock::Tick;

/// What the service shows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Available,
    Leased,
    Breaking,
    Broken,
    Expired,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Leased => "leased",
            Self::Breaking => "breaking",
            Self::Broken => "broken",
            Self::Expired => "expired",
        }
    }

    /// Whether the lease keeps others out.
    pub(super) fn is_locked(self) -> bool {
        matches!(self, Self::Leased | Self::Breaking)
    }

    pub(super) fn status(self) -> &'static str {
        if self.is_locked() {
            "locked"
        } else {
            "unlocked"
        }
    }
}

/// Why the service refuses a lease operation, or another operation because of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    AlreadyPresent,
    IsBreakingAndCannotBeAcquired,
    IsBreakingAndCannotBeChanged,
    IsBrokenAndCannotBeRenewed,
    IdMismatchWithLeaseOperation,
    NotPresentWithLeaseOperation,
    IdMissing,
    IdMismatch,
    NotPresent,
    Lost,
}

/// How long a lease lasts: `None` is without end.
pub(super) type Term = Option<Duration>;

/// The lease of one blob or container.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lease(Option<Record>);

#[derive(Debug, Clone, Copy)]
struct Record {
    id: Uuid,
    term: Term,
    /// The end of the lease, or of its break period.
    until: Tick,
    is_breaking: bool,
}

impl Record {
    fn new(id: Uuid, term: Term, now: Tick) -> Self {
        Self {
            id,
            term,
            until: term.map_or(Tick::NEVER, |term| now + term),
            is_breaking: false,
        }
    }

    fn state(&self, now: Tick) -> State {
        match (self.is_breaking, now < self.until) {
            (false, true) => State::Leased,
            (false, false) => State::Expired,
            (true, true) => State::Breaking,
            (true, false) => State::Broken,
        }
    }
}

impl Lease {
    pub(super) fn state(&self, now: Tick) -> State {
        self.0.map_or(State::Available, |record| record.state(now))
    }

    /// `fixed` or `infinite`, as shown while leased and in no other state.
    pub(super) fn duration_name(&self, now: Tick) -> Option<&'static str> {
        let record = self.0?;
        let name = if record.term.is_some() {
            "fixed"
        } else {
            "infinite"
        };
        (record.state(now) == State::Leased).then_some(name)
    }

    pub(super) fn acquire(&mut self, id: Uuid, term: Term, now: Tick) -> Result<(), Refusal> {
        if let Some(held) = self.0 {
            match held.state(now) {
                State::Leased if held.id != id => return Err(Refusal::AlreadyPresent),
                State::Breaking if held.id != id => return Err(Refusal::AlreadyPresent),
                State::Breaking => return Err(Refusal::IsBreakingAndCannotBeAcquired),
                _ => {}
            }
        }
        self.0 = Some(Record::new(id, term, now));
        Ok(())
    }

    /// Starts the lease anew, also after it expired: whoever leased or wrote since has made the
    /// ID another's, or forgotten.
    pub(super) fn renew(&mut self, id: Uuid, now: Tick) -> Result<(), Refusal> {
        match &mut self.0 {
            Some(held) if held.id == id && held.is_breaking => {
                Err(Refusal::IsBrokenAndCannotBeRenewed)
            }
            Some(held) if held.id == id => {
                *held = Record::new(id, held.term, now);
                Ok(())
            }
            _ => Err(Refusal::IdMismatchWithLeaseOperation),
        }
    }

    /// Succeeds again when it is repeated, since the ID asked for is then the current one.
    pub(super) fn change(&mut self, id: Uuid, to: Uuid, now: Tick) -> Result<(), Refusal> {
        match &mut self.0 {
            Some(held) => match held.state(now) {
                State::Leased if held.id == id || held.id == to => {
                    held.id = to;
                    Ok(())
                }
                State::Breaking if held.id == id => Err(Refusal::IsBreakingAndCannotBeChanged),
                State::Leased | State::Breaking => Err(Refusal::IdMismatchWithLeaseOperation),
                _ => Err(Refusal::NotPresentWithLeaseOperation),
            },
            None => Err(Refusal::NotPresentWithLeaseOperation),
        }
    }

    pub(super) fn release(&mut self, id: Uuid) -> Result<(), Refusal> {
        match self.0 {
            Some(held) if held.id == id => {
                self.0 = None;
                Ok(())
            }
            _ => Err(Refusal::IdMismatchWithLeaseOperation),
        }
    }

    /// Ends the lease after `period`, or earlier. Returns the time left.
    ///
    /// A break can only shorten. Without a period a fixed lease runs to its end, and one without
    /// end is broken at once.
    pub(super) fn break_lease(&mut self, period: Term, now: Tick) -> Result<Duration, Refusal> {
        let Some(held) = &mut self.0 else {
            return Err(Refusal::NotPresentWithLeaseOperation);
        };
        let until = match period {
            Some(period) => now + period,
            None if held.until == Tick::NEVER => now,
            None => held.until,
        };
        held.until = held.until.min(until);
        held.is_breaking = true;
        Ok(held.until.since(now))
    }

    /// Whether a read that names `id` may go on. One that names none always may.
    pub(super) fn check_read(&self, id: Option<Uuid>, now: Tick) -> Result<(), Refusal> {
        let Some(id) = id else {
            return Ok(());
        };
        match self.0 {
            None => Err(Refusal::NotPresent),
            Some(held) if held.id != id => Err(Refusal::IdMismatch),
            Some(held) if !held.state(now).is_locked() => Err(Refusal::Lost),
            Some(_) => Ok(()),
        }
    }

    /// Whether a write may go on, and under which lease.
    ///
    /// A write without an ID that goes on makes the service forget a lease that has run out.
    pub(super) fn check_write(&self, id: Option<Uuid>, now: Tick) -> Result<(), Refusal> {
        if id.is_none() && self.state(now).is_locked() {
            return Err(Refusal::IdMissing);
        }
        self.check_read(id, now)
    }

    /// Takes note of a write that went on.
    pub(super) fn written(&mut self, now: Tick) {
        if !self.state(now).is_locked() {
            self.0 = None;
        }
    }
}
