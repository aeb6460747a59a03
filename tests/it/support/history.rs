//! What clients believed in a storm, and the proof that they were right to.
//!
//! All times are nanoseconds of one clock that all clients of a history share.
//!
//! A claim is checked from after the first `check()` that succeeded to before the last that did.
//! The library promises that nobody else holds the lock at any time in between, also not while
//! the claim was unproven for a while. Two things it does not promise, and the history has to
//! know of them:
//!
//! - After a break with a period shorter than what the lease has left, the holder may go on for a
//!   while. A claim is checked up to such a break only.
//! - Work that is not done within the margin after its `check()` may be overtaken: the process may
//!   have been stopped in between. Such an increment is *loose*: it may take the place of others,
//!   and nothing else may.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// All that happened to all locks.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) holds: Vec<Hold>,
    pub(crate) breaks: Vec<Break>,
    pub(crate) increments: Vec<Increment>,
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    /// By lock: the counter file and the guarded value after the storm.
    pub(crate) finals: BTreeMap<usize, Finals>,
    pub(crate) runs: Vec<Run>,
    pub(crate) semaphores: Vec<Permits>,
}

/// Work that is done once in a period, from its start to when it was known to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) lock: usize,
    pub(crate) start: u64,
    /// Not before this it is due again.
    pub(crate) due: u64,
    /// `None` if that it was done could not be recorded, or the process was killed.
    pub(crate) recorded: Option<u64>,
}

/// The locks that are the permits of one semaphore, and any beyond that nobody is to have.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    pub(crate) locks: Range<usize>,
    pub(crate) number: usize,
}

/// The time from a lock's acquisition to the last time that it was known to be held.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) name: String,
    pub(crate) lock: usize,
    pub(crate) token: i64,
    /// The lease cannot have been granted before.
    pub(crate) asked: u64,
    /// Read after the first `check()` that succeeded.
    pub(crate) start: u64,
    /// Read before the last `check()` that succeeded.
    pub(crate) end: u64,
}

/// A break with a period: what the broken holder believes afterwards is not checked.
#[derive(Clone, Debug)]
pub(crate) struct Break {
    pub(crate) lock: usize,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
}

/// One more in a file that any process may write to, while the lock was held.
#[derive(Clone, Debug)]
pub(crate) struct Increment {
    /// The position in `holds`.
    pub(crate) hold: usize,
    /// Read before the `check()` that allowed it.
    pub(crate) start: u64,
    /// Read after the file was written; `None` if the process was killed meanwhile.
    pub(crate) end: Option<u64>,
    /// When the process was known to be gone, if it was killed.
    pub(crate) died: Option<u64>,
    /// What was in the file; one more was written.
    pub(crate) found: u64,
}

/// A write of the guarded value.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) lock: usize,
    pub(crate) value: u64,
    pub(crate) start: u64,
    /// When it was confirmed, if it was.
    pub(crate) confirmed: Option<u64>,
}

/// What the guarded value was.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) lock: usize,
    pub(crate) value: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Finals {
    pub(crate) counter: u64,
    pub(crate) value: u64,
}

/// What a checked history contains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) holds: usize,
    pub(crate) cut_by_break: usize,
    pub(crate) increments: usize,
    pub(crate) loose: usize,
    /// Loose increments that took the place of others.
    pub(crate) overtaken: usize,
    pub(crate) writes_confirmed: usize,
    pub(crate) writes_unanswered: usize,
    pub(crate) reads: usize,
    pub(crate) runs: usize,
    /// How many permits of a semaphore were had at a time.
    pub(crate) most_permits: usize,
}

/// The part of a hold that is checked.
struct Claim<'a> {
    hold: &'a Hold,
    end: u64,
    /// The break that it may have outlived.
    broken: bool,
}

impl History {
    /// Takes in what another client believed.
    pub(crate) fn append(&mut self, mut other: Self) {
        let holds = self.holds.len();
        for increment in &mut other.increments {
            increment.hold += holds;
        }
        self.holds.append(&mut other.holds);
        self.breaks.append(&mut other.breaks);
        self.increments.append(&mut other.increments);
        self.writes.append(&mut other.writes);
        self.reads.append(&mut other.reads);
        self.runs.append(&mut other.runs);
    }

    /// Checks everything. `margin`: how long after its `check()` work is promised not to be
    /// overtaken. Returns what contradicts the promises, in words.
    pub(crate) fn check(&self, margin: u64) -> (Totals, Vec<String>) {
        let mut totals = Totals {
            holds: self.holds.len(),
            increments: self.increments.len(),
            reads: self.reads.len(),
            runs: self.runs.len(),
            ..Totals::default()
        };
        let mut wrong = Vec::new();
        let claims: Vec<_> = self.holds.iter().map(|hold| self.claim(hold)).collect();
        totals.cut_by_break = claims.iter().filter(|claim| claim.broken).count();
        let locks = self.holds.iter().map(|hold| hold.lock);
        let locks: BTreeSet<_> = locks.chain(self.finals.keys().copied()).collect();
        for lock in locks {
            self.check_claims(lock, &claims, &mut wrong);
            self.check_tokens(lock, &claims, &mut wrong);
            self.check_counter(lock, &claims, margin, &mut totals, &mut wrong);
            self.check_value(lock, &mut totals, &mut wrong);
        }
        self.check_permits(&claims, &mut totals, &mut wrong);
        self.check_runs(&mut wrong);
        (totals, wrong)
    }

    fn claim<'a>(&'a self, hold: &'a Hold) -> Claim<'a> {
        let breaks = self.breaks.iter().filter(|each| {
            each.lock == hold.lock && each.sent <= hold.end && each.answered >= hold.asked
        });
        let first = breaks.map(|each| each.sent).min();
        Claim {
            hold,
            end: first.map_or(hold.end, |sent| sent.min(hold.end)),
            broken: first.is_some(),
        }
    }

    /// No two clients claim a lock at a time.
    fn check_claims(&self, lock: usize, claims: &[Claim<'_>], wrong: &mut Vec<String>) {
        // Empty if it began after the break that cuts it.
        let mut claims: Vec<_> = claims
            .iter()
            .filter(|claim| claim.hold.lock == lock && claim.hold.start <= claim.end)
            .collect();
        claims.sort_by_key(|claim| claim.hold.start);
        let mut last: Option<&Claim<'_>> = None;
        for claim in claims {
            if let Some(last) = last
                && claim.hold.start < last.end
            {
                wrong.push(format!(
                    "lock {lock}: {} claimed it from {}, {} claimed it until {}: {:.3} s too long",
                    claim.hold.name,
                    claim.hold.start,
                    last.hold.name,
                    last.end,
                    (last.end - claim.hold.start) as f64 / 1e9
                ));
            }
            if last.is_none_or(|last| claim.end > last.end) {
                last = Some(claim);
            }
        }
    }

    /// No more permits are claimed at a time than there are.
    fn check_permits(&self, claims: &[Claim<'_>], totals: &mut Totals, wrong: &mut Vec<String>) {
        for Permits { locks, number } in &self.semaphores {
            let ours = claims
                .iter()
                .filter(|claim| locks.contains(&claim.hold.lock) && claim.hold.start < claim.end);
            // Whoever ends comes before whoever begins.
            let changes = ours.flat_map(|claim| [(claim.end, -1), (claim.hold.start, 1)]);
            let mut changes: Vec<_> = changes.collect();
            changes.sort_unstable();
            let mut held = 0;
            for (at, change) in changes {
                held += change;
                totals.most_permits = totals.most_permits.max(held as usize);
                if change > 0 && held as usize > *number {
                    wrong.push(format!(
                        "{held} permits of {number} were claimed at {at} (locks {locks:?})"
                    ));
                }
            }
        }
    }

    /// No work begins that is known to be done and not due.
    fn check_runs(&self, wrong: &mut Vec<String>) {
        for run in &self.runs {
            let done = self.runs.iter().find(|other| {
                let recorded = other.recorded.is_some_and(|at| at <= run.start);
                other.lock == run.lock && recorded && run.start < other.due
            });
            if let Some(done) = done {
                wrong.push(format!(
                    "lock {}: work began at {}, and was not due before {}",
                    run.lock, run.start, done.due
                ));
            }
        }
    }

    /// No token is handed out twice, and each is greater than those before it.
    fn check_tokens(&self, lock: usize, claims: &[Claim<'_>], wrong: &mut Vec<String>) {
        let mut claims: Vec<_> = claims
            .iter()
            .filter(|claim| claim.hold.lock == lock)
            .collect();
        claims.sort_by_key(|claim| claim.hold.start);
        let mut greatest = 0;
        let mut all = BTreeSet::new();
        for claim in claims {
            let Hold { name, token, .. } = claim.hold;
            if !all.insert(token) {
                wrong.push(format!("lock {lock}: {name} got the token {token} again"));
            }
            // A broken holder may learn of its lock after the next one did.
            if !claim.broken && *token <= greatest {
                wrong.push(format!(
                    "lock {lock}: {name} got the token {token} after {greatest}"
                ));
            }
            greatest = greatest.max(*token);
        }
    }

    /// No increment is lost, but to a loose one.
    fn check_counter(
        &self,
        lock: usize,
        claims: &[Claim<'_>],
        margin: u64,
        totals: &mut Totals,
        wrong: &mut Vec<String>,
    ) {
        let ours = self.increments.iter().filter(|each| {
            let hold = &self.holds[each.hold];
            hold.lock == lock
        });
        let (mut firm, mut loose) = (Vec::new(), Vec::new());
        for each in ours {
            let claim = &claims[each.hold];
            match each.end {
                Some(end) if end - each.start < margin && (!claim.broken || end <= claim.end) => {
                    firm.push((each.start, end, each));
                }
                end => {
                    let end = end.or(each.died).unwrap_or(u64::MAX);
                    loose.push((each.start, end, each.found + 1));
                }
            }
        }
        totals.loose += loose.len();
        firm.sort_by_key(|each| each.0);
        let taken_by_loose = |found: u64, from: u64, to: u64| {
            loose
                .iter()
                .any(|&(start, end, written)| written == found && start <= to && end >= from)
        };
        let (mut since, mut until, mut expected) = (0, 0, 0);
        for (start, end, each) in firm {
            let name = &self.holds[each.hold].name;
            if start < until {
                wrong.push(format!(
                    "lock {lock}: {name} counted from {start}, and another until {until}"
                ));
            }
            if each.found != expected {
                if taken_by_loose(each.found, since, end) {
                    totals.overtaken += 1;
                } else {
                    wrong.push(format!(
                        "lock {lock}: {name} found the count {} at {start}, expected {expected}",
                        each.found
                    ));
                }
            }
            (since, until, expected) = (start, end, each.found + 1);
        }
        if let Some(finals) = self.finals.get(&lock)
            && finals.counter != expected
        {
            if taken_by_loose(finals.counter, since, u64::MAX) {
                totals.overtaken += 1;
            } else {
                wrong.push(format!(
                    "lock {lock}: the count is {} in the end, expected {expected}",
                    finals.counter
                ));
            }
        }
    }

    /// The guarded value counts exactly and never goes back, without any exception.
    fn check_value(&self, lock: usize, totals: &mut Totals, wrong: &mut Vec<String>) {
        let mut confirmed = BTreeSet::new();
        let mut tried = BTreeSet::new();
        // From when to when somebody knew which value.
        let mut known = Vec::new();
        for write in self.writes.iter().filter(|write| write.lock == lock) {
            tried.insert(write.value);
            let Some(end) = write.confirmed else {
                totals.writes_unanswered += 1;
                continue;
            };
            totals.writes_confirmed += 1;
            known.push((write.start, end, write.value, "written"));
            if !confirmed.insert(write.value) {
                wrong.push(format!("lock {lock}: {} was written twice", write.value));
            }
        }
        for read in self.reads.iter().filter(|read| read.lock == lock) {
            known.push((read.start, read.end, read.value, "read"));
        }
        if let Some(finals) = self.finals.get(&lock) {
            known.push((u64::MAX, u64::MAX, finals.value, "there in the end"));
            // Each number up to the last was written by somebody.
            for value in 1..=finals.value {
                if !tried.contains(&value) {
                    wrong.push(format!("lock {lock}: nobody wrote {value}"));
                }
            }
        }
        let mut ended = known.clone();
        ended.sort_by_key(|each| each.1);
        known.sort_by_key(|each| each.0);
        let mut ended = ended.into_iter().peekable();
        let mut greatest = 0;
        for &(start, _, value, what) in &known {
            while let Some((_, _, before, _)) = ended.next_if(|each| each.1 < start) {
                greatest = greatest.max(before);
            }
            if value < greatest || (what == "written" && value == greatest) {
                wrong.push(format!(
                    "lock {lock}: the value {value} was {what} at {start}, after {greatest}"
                ));
            }
        }
    }
}
