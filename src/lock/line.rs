//! PURE: whose turn it is among those in one process who want the same lock.
//!
//! First come, first served. One at a time has the turn: it asks the service, or has the lock. The
//! lock goes from one to the next for a limited time; then others, elsewhere, are let in. None of this
//! protects anything: that nobody else has the lock is up to its lease.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::tick::{Moment, Tick};

/// For how long a process does not ask for the lock once its time with it is over: longer than any
/// pause between the attempts of those who wait elsewhere with the default settings.
const STAND_BACK: Duration = Duration::from_millis(750);

/// Those in one process who want the same lock.
#[derive(Debug)]
pub(crate) struct Line<T> {
    turn: Turn<T>,
    waiting: VecDeque<T>,
    /// Since when this process has had the lock without letting others in, by the clock of leases.
    since: Option<Tick>,
    /// Until when it lets others in, by the system's clock.
    not_before: Tick,
}

#[derive(Debug)]
enum Turn<T> {
    Free,
    /// This one asks the service, is being given the lock, or gives it back.
    Busy(T),
    Holds(T),
}

/// What one who waits does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is its turn: ask the service.
    Ask,
    /// Wait until the system's clock shows this, or until it is the first and is woken.
    Wait(Tick),
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            turn: Turn::Free,
            waiting: VecDeque::new(),
            since: None,
            not_before: Tick::default(),
        }
    }
}

impl<T: Clone + PartialEq> Line<T> {
    /// `who` wants the lock, after all others.
    pub(crate) fn join(&mut self, who: T) {
        self.waiting.push_back(who);
    }

    /// `who` asks the service once at `now`, and does not wait. Returns false if it does not ask, since
    /// somebody here holds the lock for certain, or others elsewhere are let in before those who wait
    /// here. It is its turn if it is nobody's.
    pub(crate) fn try_turn(
        &mut self,
        who: &T,
        now: Moment,
        quantum: Duration,
        is_held: impl FnOnce(&T) -> bool,
    ) -> bool {
        let lets_in = now.real < self.not_before || self.is_over(now, quantum);
        let is_free = match &self.turn {
            Turn::Holds(holder) if is_held(holder) => return false,
            Turn::Busy(_) | Turn::Free if lets_in && !self.waiting.is_empty() => return false,
            Turn::Busy(_) => false,
            Turn::Holds(_) | Turn::Free => self.waiting.is_empty(),
        };
        if is_free {
            self.since = None;
            self.turn = Turn::Busy(who.clone());
        }
        true
    }

    /// What `who`, who waits until `end`, does at `now`. `is_held`: whether the one who has the lock
    /// can vouch for it. If not, the first who waits asks the service. So it does at its end, even if
    /// its process stands back, unless others in it wait: it may be free.
    pub(crate) fn look(
        &mut self,
        who: &T,
        now: Moment,
        end: Tick,
        is_held: impl FnOnce(&T) -> bool,
    ) -> Next {
        if self.waiting.front() != Some(who) {
            return Next::Wait(Tick::NEVER);
        }
        match &self.turn {
            Turn::Busy(_) => return Next::Wait(Tick::NEVER),
            Turn::Holds(holder) if is_held(holder) => return Next::Wait(Tick::NEVER),
            Turn::Holds(_) => self.since = None,
            Turn::Free
                if now.real < self.not_before && (now.lease < end || self.waiting.len() > 1) =>
            {
                return Next::Wait(self.not_before);
            }
            Turn::Free => {}
        }
        if let Some(who) = self.waiting.pop_front() {
            self.turn = Turn::Busy(who);
        }
        Next::Ask
    }

    /// How many are served before `who`, who waits.
    pub(crate) fn ahead(&self, who: &T) -> usize {
        let before = self.waiting.iter().take_while(|other| *other != who);
        before.count() + usize::from(!matches!(self.turn, Turn::Free))
    }

    /// `who` does not wait any more. Returns false if it does not, since it is being given the lock.
    pub(crate) fn leave(&mut self, who: &T) -> bool {
        let waited = self.waiting.len();
        self.waiting.retain(|other| other != who);
        self.waiting.len() < waited
    }

    /// Takes those out of the line who `fail` with `who`, if it is its turn.
    pub(crate) fn fail(&mut self, who: &T, fails: impl Fn(&T) -> bool) -> Vec<T> {
        if self.turn() != Some(who) {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (failed, waiting): (Vec<T>, _) = waiting.into_iter().partition(fails);
        self.waiting = waiting.into();
        failed
    }

    /// `who` has the lock. It is its turn unless it is another one's.
    pub(crate) fn granted(&mut self, who: &T, now: Moment) {
        match &self.turn {
            Turn::Busy(one) | Turn::Holds(one) if one != who => {}
            _ => {
                self.turn = Turn::Holds(who.clone());
                self.since.get_or_insert(now.lease);
            }
        }
    }

    /// `who` asks the service and hears that a client elsewhere has the lock.
    pub(crate) fn taken_elsewhere(&mut self, who: &T) {
        if self.turn() == Some(who) {
            self.since = None;
        }
    }

    /// Who gets the lock from `who` at `now`, if this process has not had it for `quantum` and the
    /// lock's lease `fits` the first who waits. It is that one's turn from then on.
    pub(crate) fn hand_over(
        &mut self,
        who: &T,
        now: Moment,
        quantum: Duration,
        fits: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let may = matches!(&self.turn, Turn::Holds(holder) if holder == who)
            && !self.is_over(now, quantum)
            && self.waiting.front().is_some_and(fits);
        if !may {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.turn = Turn::Busy(next.clone());
        Some(next)
    }

    /// `who` is about to give the lock back, if it is its turn.
    pub(crate) fn ending(&mut self, who: &T) {
        if self.turn() == Some(who) {
            self.turn = Turn::Busy(who.clone());
        }
    }

    /// The turn of `who`, if it is its turn, is over at `now`. If others wait although this process has
    /// had the lock for `quantum`, it lets others in first. Returns whether it was its turn.
    pub(crate) fn pass(&mut self, who: &T, now: Moment, quantum: Duration) -> bool {
        if self.turn() != Some(who) {
            return false;
        }
        self.turn = Turn::Free;
        if self.waiting.is_empty() {
            self.since = None;
        } else if self.is_over(now, quantum) {
            self.since = None;
            self.not_before = now.real + STAND_BACK;
        }
        true
    }

    /// The one whose turn it is.
    pub(crate) fn turn(&self) -> Option<&T> {
        match &self.turn {
            Turn::Free => None,
            Turn::Busy(one) | Turn::Holds(one) => Some(one),
        }
    }

    /// The first who waits.
    pub(crate) fn first(&self) -> Option<&T> {
        self.waiting.front()
    }

    fn is_over(&self, now: Moment, quantum: Duration) -> bool {
        self.since.is_some_and(|since| now.lease >= since + quantum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);
    const QUANTUM: Duration = Duration::from_secs(15);

    fn at(secs: u32) -> Moment {
        let now = Tick::default() + SEC * 1000 + SEC * secs;
        Moment {
            lease: now,
            real: now,
        }
    }

    /// Of one who waits without a limit.
    fn look(line: &mut Line<u32>, who: u32, now: Moment, is_held: bool) -> Next {
        line.look(&who, now, Tick::NEVER, |_| is_held)
    }

    /// 1 has had the lock since second 0, and these wait.
    fn held(waiting: &[u32]) -> Line<u32> {
        let mut line = Line::default();
        line.join(1);
        assert_eq!(look(&mut line, 1, at(0), false), Next::Ask);
        line.granted(&1, at(0));
        waiting.iter().for_each(|who| line.join(*who));
        line
    }

    const NEVER: Next = Next::Wait(Tick::NEVER);

    #[test]
    fn one_at_a_time_asks_in_the_order_in_which_they_came() {
        let mut line = Line::default();
        (1..=3).for_each(|who| line.join(who));
        assert_eq!(look(&mut line, 2, at(0), false), NEVER);
        assert_eq!(look(&mut line, 1, at(0), false), Next::Ask);
        assert_eq!(look(&mut line, 2, at(0), false), NEVER);
        line.pass(&1, at(1), QUANTUM);
        assert_eq!(line.first(), Some(&2));
        assert_eq!(look(&mut line, 3, at(1), false), NEVER);
        assert_eq!(look(&mut line, 2, at(1), false), Next::Ask);
    }

    #[test]
    fn lock_goes_to_the_first_who_waits() {
        let mut line = held(&[2, 3]);
        assert_eq!(look(&mut line, 2, at(1), true), NEVER);
        assert_eq!([2, 3].map(|who| line.ahead(&who)), [1, 2]);
        assert_eq!(line.hand_over(&1, at(1), QUANTUM, |_| true), Some(2));
        line.granted(&2, at(1));
        line.pass(&1, at(1), QUANTUM);
        assert_eq!(look(&mut line, 3, at(1), true), NEVER, "it is 2's turn");
        assert_eq!(line.hand_over(&2, at(2), QUANTUM, |_| true), Some(3));
        line.granted(&3, at(2));
        assert_eq!(line.hand_over(&3, at(3), QUANTUM, |_| true), None);
    }

    #[test]
    fn lock_that_does_not_fit_the_first_goes_to_nobody_else() {
        let mut line = held(&[2, 3]);
        assert_eq!(line.hand_over(&1, at(1), QUANTUM, |who| *who != 2), None);
        line.pass(&1, at(1), QUANTUM);
        assert_eq!(look(&mut line, 2, at(1), false), Next::Ask);
    }

    #[test]
    fn others_are_let_in_once_the_quantum_is_over() {
        let mut line = held(&[2, 3]);
        assert_eq!(line.hand_over(&1, at(14), QUANTUM, |_| true), Some(2));
        line.granted(&2, at(14));
        assert_eq!(line.hand_over(&2, at(15), QUANTUM, |_| true), None);
        line.pass(&2, at(15), QUANTUM);
        let back = at(15).real + STAND_BACK;
        assert_eq!(look(&mut line, 3, at(15), false), Next::Wait(back));
        let then = Moment {
            real: back,
            ..at(15)
        };
        assert_eq!(look(&mut line, 3, then, false), Next::Ask);
        line.granted(&3, at(16));
        line.join(4);
        assert_eq!(line.hand_over(&3, at(30), QUANTUM, |_| true), Some(4));
    }

    #[test]
    fn leases_that_do_not_fit_do_not_make_the_quantum_longer() {
        let mut line = held(&[2, 3]);
        assert_eq!(line.hand_over(&1, at(14), QUANTUM, |_| false), None);
        line.pass(&1, at(14), QUANTUM);
        assert_eq!(look(&mut line, 2, at(14), false), Next::Ask);
        line.granted(&2, at(14));
        assert_eq!(line.hand_over(&2, at(15), QUANTUM, |_| true), None);
        line.pass(&2, at(15), QUANTUM);
        assert_ne!(look(&mut line, 3, at(15), false), Next::Ask);
    }

    #[test]
    fn process_stands_back_for_nobody_if_nobody_waits_in_it() {
        let mut line = held(&[]);
        line.pass(&1, at(60), QUANTUM);
        line.join(2);
        assert_eq!(look(&mut line, 2, at(60), false), Next::Ask);
    }

    #[test]
    fn process_that_stands_back_does_so_for_whoever_comes_then() {
        let mut line = held(&[2]);
        line.pass(&1, at(60), QUANTUM);
        assert!(line.leave(&2));
        line.join(3);
        let back = at(60).real + STAND_BACK;
        assert_eq!(look(&mut line, 3, at(60), false), Next::Wait(back));
    }

    #[test]
    fn last_waiter_whose_time_is_up_asks_once_although_its_process_stands_back() {
        let mut line = held(&[2, 3]);
        line.pass(&1, at(60), QUANTUM);
        let end = at(60).lease;
        assert_eq!(
            line.look(&3, at(60), end, |_| false),
            NEVER,
            "it is not first"
        );
        let back = at(60).real + STAND_BACK;
        assert_eq!(line.look(&2, at(60), end, |_| false), Next::Wait(back));
        assert!(line.leave(&2));
        assert_eq!(line.look(&3, at(60), end, |_| false), Next::Ask);
    }

    #[test]
    fn one_who_does_not_wait_lets_others_in_before_those_who_wait_here() {
        let try_turn =
            |line: &mut Line<u32>, now, is_held| line.try_turn(&9, now, QUANTUM, |_| is_held);
        let mut line = held(&[2]);
        assert!(
            try_turn(&mut line, at(15), false),
            "nobody can vouch for it"
        );
        line.ending(&1);
        assert!(try_turn(&mut line, at(14), false));
        assert!(!try_turn(&mut line, at(15), false), "it goes to the others");
        line.pass(&1, at(15), QUANTUM);
        assert!(!try_turn(&mut line, at(15), false));
        assert!(try_turn(&mut line, at(16), false));
        line.pass(&9, at(16), QUANTUM);

        let mut line = held(&[2]);
        line.pass(&1, at(15), QUANTUM);
        assert!(line.leave(&2));
        assert!(try_turn(&mut line, at(15), false), "nobody waits here");
        assert_eq!(line.turn(), Some(&9));
    }

    #[test]
    fn time_of_a_process_begins_anew_when_others_have_had_the_lock() {
        let mut line = held(&[2, 3]);
        line.pass(&1, at(1), QUANTUM);
        assert_eq!(look(&mut line, 2, at(1), false), Next::Ask);
        line.taken_elsewhere(&2);
        line.granted(&2, at(60));
        assert_eq!(line.hand_over(&2, at(61), QUANTUM, |_| true), Some(3));
    }

    #[test]
    fn first_asks_the_service_when_the_holder_cannot_vouch_for_the_lock() {
        let mut line = held(&[2, 3]);
        assert_eq!(look(&mut line, 3, at(1), false), NEVER);
        assert_eq!(look(&mut line, 2, at(1), false), Next::Ask);
        assert_eq!(line.hand_over(&1, at(1), QUANTUM, |_| true), None);
        line.pass(&1, at(1), QUANTUM);
        assert_eq!(look(&mut line, 3, at(1), false), NEVER, "it is 2's turn");
    }

    #[test]
    fn nobody_asks_while_the_lock_is_given_back() {
        let mut line = held(&[2]);
        line.ending(&1);
        assert_eq!(look(&mut line, 2, at(1), false), NEVER);
        line.pass(&1, at(2), QUANTUM);
        assert_eq!(look(&mut line, 2, at(2), false), Next::Ask);
        line.ending(&1);
        assert_eq!(line.turn(), Some(&2));
    }

    #[test]
    fn one_who_does_not_wait_asks_unless_the_lock_is_held_here() {
        let mut line = held(&[]);
        let try_turn = |line: &mut Line<u32>, who: u32, is_held| {
            line.try_turn(&who, at(1), QUANTUM, |_| is_held)
        };
        assert!(!try_turn(&mut line, 2, true));
        assert!(try_turn(&mut line, 2, false), "nobody can vouch for it");
        line.granted(&2, at(1));
        assert_eq!(line.turn(), Some(&2));

        let mut line = Line::default();
        assert!(try_turn(&mut line, 1, false));
        assert!(try_turn(&mut line, 2, false), "nobody is known to have it");
        line.granted(&2, at(1));
        assert_eq!(line.turn(), Some(&1));
        line.pass(&1, at(1), QUANTUM);
        line.granted(&2, at(1));
        assert_eq!(line.turn(), Some(&2), "it is nobody else's");
    }

    #[test]
    fn those_who_fail_with_the_one_who_asks_do_not_wait_any_more() {
        let mut line = Line::default();
        (1..=4).for_each(|who| line.join(who));
        assert_eq!(look(&mut line, 1, at(0), false), Next::Ask);
        assert!(line.fail(&2, |_| true).is_empty(), "it has not asked");
        assert_eq!(line.fail(&1, |who| *who != 3), [2, 4]);
        line.pass(&1, at(1), QUANTUM);
        assert_eq!(look(&mut line, 3, at(1), false), Next::Ask);
    }

    #[test]
    fn one_who_leaves_is_not_served_unless_it_is_too_late_to_leave() {
        let mut line = held(&[2, 3]);
        assert!(line.leave(&2));
        assert_eq!(line.hand_over(&1, at(1), QUANTUM, |_| true), Some(3));
        assert!(!line.leave(&3));
    }
}
