//! PURE: the lease of a blob or container, as the service keeps it.
//!
//! The time is an argument. A lease does not change by itself when it expires: its state follows
//! from the last action on it and when that was.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>

use std::time::Duration;

use uuid::Uuid;

use crate::time::tick::Tick;

/// A lease's state, as the service shows it.
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

/// How long a lease lasts; `None` is infinite.
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

    /// Starts the lease again, even after it expired: if anybody has leased the blob or written to
    /// it since, the ID is no longer this one.
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

    /// Succeeds again if it is repeated, since the current ID is then the proposed one.
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
    /// A break can only shorten a lease. Without a period, a fixed lease runs to its end and an
    /// infinite one is broken at once.
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

    /// Whether a read that names `id` may go on. A read without an ID always may.
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
    /// A write without an ID makes the service forget a lease that has expired.
    pub(super) fn check_write(&self, id: Option<Uuid>, now: Tick) -> Result<(), Refusal> {
        if id.is_none() && self.state(now).is_locked() {
            return Err(Refusal::IdMissing);
        }
        self.check_read(id, now)
    }

    /// Records a write that was carried out.
    pub(super) fn written(&mut self, now: Tick) {
        if !self.state(now).is_locked() {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal::*;
    use super::State::*;
    use super::*;

    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);
    const C: Uuid = Uuid::from_u128(0xc);
    /// The time at which the tables are checked.
    const NOW: Tick = at(100);

    const fn at(secs: u64) -> Tick {
        Tick::from_nanos(secs * 1_000_000_000)
    }

    const fn secs(secs: u64) -> Term {
        Some(Duration::from_secs(secs))
    }

    fn leased(term: Term, from: u64) -> Lease {
        let mut lease = Lease::default();
        lease.acquire(A, term, at(from)).expect("it is available");
        lease
    }

    fn breaking(period: u64) -> Lease {
        let mut lease = leased(secs(60), 90);
        lease
            .break_lease(secs(period), at(95))
            .expect("it is leased");
        lease
    }

    /// Never leased, released, leased, breaking, broken and expired; all but the first by A.
    fn situations() -> [(Lease, State); 6] {
        let mut released = leased(secs(60), 90);
        released.release(A).expect("it is leased");
        let situations = [
            (Lease::default(), Available),
            (released, Available),
            (leased(secs(60), 90), Leased),
            (breaking(20), Breaking),
            (breaking(0), Broken),
            (leased(secs(15), 80), Expired),
        ];
        for (lease, state) in &situations {
            assert_eq!(lease.state(NOW), *state);
        }
        situations
    }

    type Operation = fn(&mut Lease) -> Result<(), Refusal>;
    /// What is expected in each of the situations.
    type Expected = [Result<State, Refusal>; 6];

    fn check(name: &str, operation: Operation, expected: Expected) {
        for ((mut lease, before), expected) in situations().into_iter().zip(expected) {
            let done = operation(&mut lease).map(|()| lease.state(NOW));
            assert_eq!(done, expected, "{name} when {before:?}");
            if done.is_err() {
                assert_eq!(lease.state(NOW), before, "{name} when {before:?}");
            }
        }
    }

    #[test]
    fn lease_operations_have_the_outcomes_of_the_service() {
        let mismatch = Err(IdMismatchWithLeaseOperation);
        let absent = Err(NotPresentWithLeaseOperation);
        let present = Err(AlreadyPresent);
        let (ok, free) = (Ok(Leased), Ok(Available));
        let cannot_acquire = Err(IsBreakingAndCannotBeAcquired);
        let cannot_change = Err(IsBreakingAndCannotBeChanged);
        let cannot_renew = Err(IsBrokenAndCannotBeRenewed);
        #[rustfmt::skip]
        let table: [(&str, Operation, Expected); 12] = [
            ("acquire by B", |l| l.acquire(B, secs(15), NOW), [ok, ok, present, present, ok, ok]),
            ("acquire by A", |l| l.acquire(A, secs(15), NOW), [ok, ok, ok, cannot_acquire, ok, ok]),
            ("renew by A", |l| l.renew(A, NOW), [mismatch, mismatch, ok, cannot_renew, cannot_renew, ok]),
            ("renew by B", |l| l.renew(B, NOW), [mismatch; 6]),
            ("change A to B", |l| l.change(A, B, NOW), [absent, absent, ok, cannot_change, absent, absent]),
            ("change C to A", |l| l.change(C, A, NOW), [absent, absent, ok, mismatch, absent, absent]),
            ("change C to B", |l| l.change(C, B, NOW), [absent, absent, mismatch, mismatch, absent, absent]),
            ("release by A", |l| l.release(A), [mismatch, mismatch, free, free, free, free]),
            ("release by B", |l| l.release(B), [mismatch; 6]),
            ("break", |l| l.break_lease(None, NOW).map(drop), [absent, absent, Ok(Breaking), Ok(Breaking), Ok(Broken), Ok(Broken)]),
            ("break in 5 s", |l| l.break_lease(secs(5), NOW).map(drop), [absent, absent, Ok(Breaking), Ok(Breaking), Ok(Broken), Ok(Broken)]),
            ("break at once", |l| l.break_lease(secs(0), NOW).map(drop), [absent, absent, Ok(Broken), Ok(Broken), Ok(Broken), Ok(Broken)]),
        ];
        for (name, operation, expected) in table {
            check(name, operation, expected);
        }
    }

    #[test]
    fn reads_and_writes_are_let_through_as_by_the_service() {
        let (lost, mismatch, absent) = (Err(Lost), Err(IdMismatch), Err(NotPresent));
        let unchanged = [Available, Available, Leased, Breaking, Broken, Expired].map(Ok);
        let missing = Err(IdMissing);
        let held = [absent, absent, Ok(Leased), Ok(Breaking), lost, lost];
        let other = [absent, absent, mismatch, mismatch, mismatch, mismatch];
        let free = Ok(Available);
        check("read", |l| l.check_read(None, NOW), unchanged);
        check("read by A", |l| l.check_read(Some(A), NOW), held);
        check("read by B", |l| l.check_read(Some(B), NOW), other);
        fn write(lease: &mut Lease, id: Option<Uuid>) -> Result<(), Refusal> {
            lease.check_write(id, NOW)?;
            lease.written(NOW);
            Ok(())
        }
        check(
            "write",
            |l| write(l, None),
            [free, free, missing, missing, free, free],
        );
        check("write by A", |l| write(l, Some(A)), held);
        check("write by B", |l| write(l, Some(B)), other);
    }

    #[test]
    fn lease_ends_to_the_nanosecond() {
        let lease = leased(secs(15), 100);
        let end = at(115);
        assert_eq!(lease.state(end - Duration::from_nanos(1)), Leased);
        assert_eq!(lease.state(end), Expired);
        let lease = breaking(5);
        assert_eq!(lease.state(at(100) - Duration::from_nanos(1)), Breaking);
        assert_eq!(lease.state(at(100)), Broken);
    }

    #[test]
    fn lease_without_end_never_expires() {
        let lease = leased(None, 0);
        assert_eq!(lease.state(at(10_000_000_000)), Leased);
        assert_eq!(lease.duration_name(NOW), Some("infinite"));
        assert_eq!(leased(secs(60), 90).duration_name(NOW), Some("fixed"));
        assert_eq!(breaking(20).duration_name(NOW), None);
    }

    #[test]
    fn break_shortens_and_never_prolongs() {
        // The lease, the period asked for at 100 s, and the time left.
        let table = [
            (leased(secs(20), 95), None, 15),
            (leased(secs(20), 95), secs(10), 10),
            (leased(secs(20), 95), secs(60), 15),
            (leased(None, 95), None, 0),
            (leased(None, 95), secs(60), 60),
            (breaking(20), None, 15),
            (breaking(20), secs(60), 15),
            (breaking(20), secs(3), 3),
            (breaking(0), secs(60), 0),
            (leased(secs(15), 80), secs(60), 0),
        ];
        for (row, (mut lease, period, left)) in table.into_iter().enumerate() {
            let time = lease.break_lease(period, NOW);
            assert_eq!(time, Ok(Duration::from_secs(left)), "row {row}");
        }
    }

    #[test]
    fn renew_starts_the_whole_duration_again() {
        let mut lease = leased(secs(15), 90);
        lease.renew(A, NOW).expect("it is leased");
        assert_eq!(lease.state(at(114)), Leased);
        assert_eq!(lease.state(at(115)), Expired);
        lease.renew(A, at(500)).expect("nobody came between");
        assert_eq!(lease.state(at(514)), Leased);
    }

    #[test]
    fn acquire_again_takes_the_new_duration() {
        let mut lease = leased(secs(15), 90);
        lease.acquire(A, None, NOW).expect("the ID is its own");
        assert_eq!(lease.duration_name(NOW), Some("infinite"));
    }

    #[test]
    fn write_without_id_after_expiry_forgets_the_holder() {
        let mut lease = leased(secs(15), 80);
        lease.written(NOW);
        assert_eq!(lease.renew(A, NOW), Err(IdMismatchWithLeaseOperation));
        assert_eq!(lease.check_write(Some(A), NOW), Err(NotPresent));
    }
}
