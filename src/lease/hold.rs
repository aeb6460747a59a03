//! PURE: what a client may claim about its lease, and what it has to do next.
//!
//! No I/O, no clock, no thread: the time comes in as an argument and what happened as a value. The
//! renewal thread drives this code, and so do tests with literal instants.
//!
//! Two facts carry the guarantee. The deadline of a lease counts from *before* the request that
//! the service confirmed was sent: the service's own clock for it started later, so its lease ends
//! no earlier. And only a confirmed renew extends it: acquiring again with the same ID would also
//! succeed after somebody else held the lease in between, and so proves nothing.

use std::time::Duration;

use super::terms::Terms;
use crate::error::LossReason;
use crate::time::backoff::share;
use crate::time::tick::Tick;

/// How long after a renewal that an overloaded service refused there is another, and up to twice that.
const OVERLOAD: Duration = Duration::from_millis(500);

/// What a client may claim about its lease at some instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    Unknown {
        retry_after: Option<Duration>,
        /// The service is overloaded.
        overload: bool,
    },
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Hold {
    pub(super) terms: Terms,
    pub(super) acquired: Tick,
    /// The user's last sign of life. `None` until the user has the lease.
    pub(super) alive: Option<Tick>,
    /// When the last confirmed request was sent.
    pub(super) confirmed: Tick,
    /// When the next renewal is due.
    pub(super) due: Tick,
    /// The claim that was last announced.
    pub(super) announced: Claim,
    pub(super) lost: Option<LossReason>,
}

impl Hold {
    /// A lease that the service granted to a request sent at `sent`.
    ///
    /// `random`: any number. The first renewal comes up to a third of the interval early, and later
    /// ones up to a tenth, so that leases acquired together are not renewed together.
    pub(crate) fn new(terms: Terms, sent: Tick, random: u64) -> Self {
        Self {
            terms,
            acquired: sent,
            alive: None,
            confirmed: sent,
            due: sent + (terms.renew_every - share(terms.renew_every / 3, random)),
            announced: Claim::Held,
            lost: None,
        }
    }

    /// The same lease for its next user in this process, who goes by `terms` and has it from `now` on.
    /// Its deadline is still measured from the last confirmed request: nothing was confirmed since.
    pub(crate) fn passed_on(&self, terms: Terms, now: Tick) -> Self {
        Self {
            terms,
            acquired: now,
            alive: None,
            confirmed: self.confirmed,
            due: self.due.min(self.confirmed + terms.renew_every),
            announced: Claim::Held,
            lost: self.lost,
        }
    }

    /// Has the lease renewed at once if less than a quarter of it is left. Returns whether that is so.
    pub(crate) fn renew_if_short(&mut self, now: Tick) -> bool {
        let is_short = self.deadline().since(now) < self.terms.duration / 4;
        if is_short {
            self.due = now;
        }
        is_short
    }

    /// From this instant on the lease is no longer claimed, unless it is renewed before.
    pub(crate) fn deadline(&self) -> Tick {
        match self.lost {
            Some(_) => Tick::default(),
            None => self.confirmed + self.terms.usable(),
        }
    }

    /// Since when its user has the lease.
    pub(crate) fn acquired(&self) -> Tick {
        self.acquired
    }

    /// When the last confirmed request was sent.
    pub(crate) fn confirmed(&self) -> Tick {
        self.confirmed
    }

    /// What may be claimed at `now`.
    pub(crate) fn claim(&self, now: Tick) -> Claim {
        match self.lost {
            Some(reason) => Claim::Lost(reason),
            None if now < self.deadline() => Claim::Held,
            None => match self.renewals_end() {
                (end, reason) if now >= end => Claim::Lost(reason),
                _ => Claim::Unproven,
            },
        }
    }

    /// Records a sign of life of the user at `now`. One that comes after the lease was lost for the
    /// lack of one does not bring it back. Returns whether renewals go on that had ended.
    pub(crate) fn alive(&mut self, now: Tick) -> bool {
        if matches!(self.claim(now), Claim::Lost(_)) {
            return false;
        }
        let had_ended = now >= self.renewals_end().0;
        self.alive = self.alive.max(Some(now));
        had_ended && now < self.renewals_end().0
    }

    /// From when on the lease is not renewed, and why it is lost when it has run out after that.
    fn renewals_end(&self) -> (Tick, LossReason) {
        let end = |start: Option<Tick>, limit: Option<Duration>| match (start, limit) {
            (Some(start), Some(limit)) => start + limit,
            _ => Tick::NEVER,
        };
        let max_hold = end(Some(self.acquired), self.terms.max_hold);
        let health = end(self.alive, self.terms.health);
        if health < max_hold {
            (health, LossReason::Unhealthy)
        } else {
            (max_hold, LossReason::MaxHold)
        }
    }

    /// What to do at `now`.
    pub(crate) fn step(&mut self, now: Tick) -> Step {
        if self.lost.is_some() {
            return Step::End;
        }
        let claim = self.claim(now);
        let (renewals_end, reason) = self.renewals_end();
        if now >= renewals_end {
            if claim == Claim::Held {
                return Step::Wait(self.deadline());
            }
            self.lose(reason);
            return Step::Announce(Claim::Lost(reason));
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
    pub(crate) fn renewed(
        &mut self,
        sent: Tick,
        now: Tick,
        renewal: Renewal,
        random: u64,
    ) -> Option<Claim> {
        if self.lost.is_some() {
            return None;
        }
        // Whoever has asked since was told so, and it is final.
        if let claim @ Claim::Lost(reason) = self.claim(now) {
            self.lose(reason);
            return Some(claim);
        }
        match renewal {
            Renewal::Confirmed => {
                self.confirmed = self.confirmed.max(sent);
                let interval = self.terms.renew_every;
                self.due = self.confirmed + (interval - share(interval / 10, random));
            }
            Renewal::Lost(reason) => {
                self.lose(reason);
            }
            Renewal::Unknown {
                retry_after,
                overload,
            } => {
                let usual = self.retry_delay(now);
                // The many who wait for the lease must not take it from its holder.
                let delay = if overload {
                    usual.min(OVERLOAD + share(OVERLOAD, random))
                } else {
                    usual
                };
                // The service may ask for more, but not for so much that the lease is lost by it.
                let left = self.deadline().since(now);
                let longest = if left.is_zero() {
                    self.terms.duration / 2
                } else {
                    left / 2
                };
                self.due = now + delay.max(retry_after.unwrap_or_default().min(longest));
            }
        }
        let claim = self.claim(now);
        (claim != self.announced).then(|| {
            self.announced = claim;
            claim
        })
    }

    /// The guard ends the hold. Returns why it was lost if it had been lost before.
    pub(crate) fn release(&mut self) -> Option<LossReason> {
        let before = self.lost;
        self.lose(LossReason::Released);
        before
    }

    /// Ends the hold; whatever a late renewal says does not matter any more.
    ///
    /// Returns whether that is news.
    pub(crate) fn lose(&mut self, reason: LossReason) -> bool {
        let before = self.lost.replace(reason);
        self.lost = before.or(self.lost);
        before.is_none()
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
    fn retry_delay(&self, now: Tick) -> Duration {
        let scale = self.terms.duration;
        let left = self.deadline().since(now);
        if left.is_zero() {
            scale / 30
        } else {
            (left / 6).clamp(scale / 120, scale / 6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::terms::tests::terms;

    const SEC: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);
    const UNKNOWN: Renewal = Renewal::Unknown {
        retry_after: None,
        overload: false,
    };

    fn at(secs: u32) -> Tick {
        Tick::default() + SEC * 1000 + SEC * secs
    }

    #[test]
    fn lease_is_claimed_until_the_deadline_and_not_at_it() {
        let hold = Hold::new(terms(), at(0), 0);
        assert_eq!(hold.deadline(), at(55));
        assert_eq!(hold.claim(at(55) - Duration::from_nanos(1)), Claim::Held);
        assert_eq!(hold.claim(at(55)), Claim::Unproven);
    }

    /// README and guide say so.
    #[test]
    fn a_day_takes_some_4_550_renewals() {
        const DAY: u32 = 24 * 60 * 60;
        let mut number = 1_u64;
        let mut random = || {
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            number
        };
        let mut hold = Hold::new(terms(), at(0), random());
        let mut renewals = 0;
        while let Step::Wait(due) = hold.step(hold.confirmed)
            && due < at(DAY)
        {
            hold.renewed(due, due, Renewal::Confirmed, random());
            renewals += 1;
        }
        assert!((4_530..=4_570).contains(&renewals), "{renewals}");
    }

    #[test]
    fn renewal_is_due_after_its_interval() {
        let mut hold = Hold::new(terms(), at(0), 0);
        assert_eq!(hold.step(at(0)), Step::Wait(at(20)));
        assert_eq!(hold.step(at(20)), Step::Renew { timeout: 5 * SEC });
    }

    #[test]
    fn deadline_counts_from_the_send_of_the_renewal_and_not_from_its_reply() {
        let mut hold = Hold::new(terms(), at(0), 0);
        assert_eq!(hold.renewed(at(20), at(24), Renewal::Confirmed, 0), None);
        assert_eq!(hold.deadline(), at(75));
        assert_eq!(hold.step(at(24)), Step::Wait(at(40)));
    }

    #[test]
    fn renewal_confirmed_out_of_order_does_not_move_the_deadline_back() {
        let mut hold = Hold::new(terms(), at(0), 0);
        hold.renewed(at(20), at(20), Renewal::Confirmed, 0);
        hold.renewed(at(10), at(21), Renewal::Confirmed, 0);
        assert_eq!(hold.deadline(), at(75));
    }

    #[test]
    fn failed_renewal_keeps_the_claim_and_the_deadline() {
        let mut hold = Hold::new(terms(), at(0), 0);
        assert_eq!(hold.renewed(at(20), at(25), UNKNOWN, 0), None);
        assert_eq!(hold.claim(at(54)), Claim::Held);
        assert_eq!(hold.deadline(), at(55));
        assert_eq!(hold.step(at(25)), Step::Wait(at(30)));
    }

    #[test]
    fn retries_speed_up_as_the_deadline_nears() {
        let mut hold = Hold::new(terms(), at(0), 0);
        let (mut now, mut delays) = (at(20), Vec::new());
        let end = loop {
            match hold.step(now) {
                Step::Renew { .. } => {
                    hold.renewed(now, now, UNKNOWN, 0);
                }
                Step::Wait(next) => {
                    delays.push(next.since(now));
                    now = next;
                }
                step => break step,
            }
        };
        assert!(delays.len() >= 15, "{delays:?}");
        assert!(
            delays.windows(2).all(|pair| pair[0] >= pair[1]),
            "{delays:?}"
        );
        assert_eq!((now, end), (at(55), Step::Announce(Claim::Unproven)));
    }

    #[test]
    fn renewal_never_outlasts_the_deadline() {
        let mut hold = Hold::new(terms(), at(0), 0);
        hold.renewed(at(20), at(53), UNKNOWN, 0);
        assert_eq!(
            hold.step(at(53) + 500 * MS),
            Step::Renew { timeout: 1500 * MS }
        );
    }

    #[test]
    fn unproven_is_announced_once_and_renewals_go_on() {
        let mut hold = Hold::new(terms(), at(0), 0);
        hold.renewed(at(54), at(54), UNKNOWN, 0);
        assert_eq!(hold.step(at(55)), Step::Announce(Claim::Unproven));
        assert_eq!(hold.step(at(55)), Step::Renew { timeout: 5 * SEC });
        assert_eq!(hold.renewed(at(55), at(56), UNKNOWN, 0), None);
        assert_eq!(hold.step(at(56)), Step::Wait(at(58)));
        assert_eq!(hold.step(at(58)), Step::Renew { timeout: 5 * SEC });
    }

    #[test]
    fn failure_that_ends_at_the_deadline_is_announced_as_unproven() {
        let mut hold = Hold::new(terms(), at(0), 0);
        assert_eq!(
            hold.renewed(at(50), at(55), UNKNOWN, 0),
            Some(Claim::Unproven)
        );
        assert!(matches!(hold.step(at(55)), Step::Wait(_)));
    }

    #[test]
    fn confirmed_renewal_after_the_deadline_is_held_again() {
        let mut hold = Hold::new(terms(), at(0), 0);
        assert_eq!(hold.step(at(80)), Step::Announce(Claim::Unproven));
        assert_eq!(
            hold.renewed(at(80), at(81), Renewal::Confirmed, 0),
            Some(Claim::Held)
        );
        assert_eq!(hold.claim(at(81)), Claim::Held);
        assert_eq!(hold.deadline(), at(135));
    }

    #[test]
    fn confirmation_that_arrives_after_its_own_deadline_proves_nothing_now() {
        let mut hold = Hold::new(terms(), at(0), 0);
        // The process was stopped between the reply and its reading.
        assert_eq!(
            hold.renewed(at(20), at(90), Renewal::Confirmed, 0),
            Some(Claim::Unproven)
        );
        assert_eq!(hold.step(at(90)), Step::Renew { timeout: 5 * SEC });
    }

    #[test]
    fn definite_loss_is_final() {
        let mut hold = Hold::new(terms(), at(0), 0);
        let lost = Claim::Lost(LossReason::Broken);
        assert_eq!(
            hold.renewed(at(20), at(20), Renewal::Lost(LossReason::Broken), 0),
            Some(lost)
        );
        assert_eq!(hold.claim(at(20)), lost);
        assert_eq!(hold.deadline(), Tick::default());
        assert_eq!(hold.step(at(20)), Step::End);
        assert_eq!(hold.renewed(at(20), at(21), Renewal::Confirmed, 0), None);
        assert_eq!(hold.claim(at(21)), lost);
        hold.lose(LossReason::Released);
        assert_eq!(hold.claim(at(21)), lost);
    }

    #[test]
    fn renewal_that_ends_after_the_release_changes_nothing() {
        let mut hold = Hold::new(terms(), at(0), 0);
        hold.lose(LossReason::Released);
        assert_eq!(hold.renewed(at(20), at(21), Renewal::Confirmed, 0), None);
        assert_eq!(hold.claim(at(21)), Claim::Lost(LossReason::Released));
    }

    #[test]
    fn release_tells_what_had_ended_the_hold_before() {
        for reason in [
            None,
            Some(LossReason::MaxHold),
            Some(LossReason::Broken),
            Some(LossReason::Taken),
        ] {
            let mut hold = Hold::new(terms(), at(0), 0);
            reason.inspect(|&reason| assert!(hold.lose(reason)));
            assert_eq!(hold.release(), reason);
            assert!(matches!(hold.claim(at(1)), Claim::Lost(_)));
        }
    }

    #[test]
    fn renewals_come_early_by_a_random_share() {
        let mut hold = Hold::new(terms(), at(0), u64::MAX);
        assert_eq!(
            hold.step(at(0)),
            Step::Wait(at(0) + (20 * SEC - 20 * SEC / 3))
        );
        hold.renewed(at(14), at(14), Renewal::Confirmed, u64::MAX);
        assert_eq!(hold.step(at(14)), Step::Wait(at(32)));
        hold.renewed(at(32), at(32), Renewal::Confirmed, 0);
        assert_eq!(hold.step(at(32)), Step::Wait(at(52)));
    }

    #[test]
    fn max_hold_ends_renewals_and_then_the_claim() {
        let mut hold = Hold::new(
            Terms {
                max_hold: Some(30 * SEC),
                ..terms()
            },
            at(0),
            0,
        );
        assert_eq!(hold.step(at(20)), Step::Renew { timeout: 5 * SEC });
        hold.renewed(at(20), at(20), Renewal::Confirmed, 0);
        assert_eq!(hold.step(at(20)), Step::Wait(at(30)));
        assert_eq!(hold.step(at(30)), Step::Wait(at(75)));
        assert_eq!(hold.claim(at(74)), Claim::Held);
        assert_eq!(
            hold.step(at(75)),
            Step::Announce(Claim::Lost(LossReason::MaxHold))
        );
        assert_eq!(hold.step(at(75)), Step::End);
    }

    fn with_health(within: u32) -> Hold {
        let mut hold = Hold::new(
            Terms {
                health: Some(SEC * within),
                ..terms()
            },
            at(0),
            0,
        );
        assert!(!hold.alive(at(0)));
        hold
    }

    #[test]
    fn lease_is_renewed_only_while_the_last_sign_of_life_is_young_enough() {
        let mut hold = with_health(30);
        assert_eq!(hold.step(at(20)), Step::Renew { timeout: 5 * SEC });
        hold.renewed(at(20), at(20), Renewal::Confirmed, 0);
        assert_eq!(hold.step(at(20)), Step::Wait(at(30)));
        // At its age, and not a moment later.
        assert_eq!(hold.step(at(30)), Step::Wait(at(75)));
        assert_eq!(hold.step(at(40)), Step::Wait(at(75)));
        assert_eq!(hold.claim(at(74)), Claim::Held);
        let lost = Claim::Lost(LossReason::Unhealthy);
        assert_eq!(hold.claim(at(75)), lost);
        assert_eq!(hold.step(at(75)), Step::Announce(lost));
        assert_eq!(hold.step(at(75)), Step::End);
    }

    #[test]
    fn hang_costs_the_time_for_a_sign_of_life_and_a_lease_at_most() {
        // However the last renewal falls, it was sent before 30.
        for due in 20..30 {
            let mut hold = with_health(30);
            hold.renewed(at(due), at(due), Renewal::Confirmed, 0);
            while let Step::Renew { .. } = hold.step(at(29)) {
                hold.renewed(at(29), at(29), Renewal::Confirmed, 0);
            }
            assert_eq!(hold.step(at(30)), Step::Wait(hold.deadline()));
            assert!(hold.deadline() < at(30 + 55), "{due}");
        }
    }

    #[test]
    fn late_sign_of_life_brings_renewals_back_until_the_lease_has_run_out() {
        let mut hold = with_health(30);
        hold.renewed(at(20), at(20), Renewal::Confirmed, 0);
        assert_eq!(hold.step(at(50)), Step::Wait(at(75)));
        let mut late = hold.clone();
        assert!(hold.alive(at(74)));
        assert_eq!(hold.step(at(74)), Step::Renew { timeout: SEC });
        // Nobody has told the loss yet, but it could be seen.
        assert!(!late.alive(at(75)));
        assert_eq!(late.claim(at(75)), Claim::Lost(LossReason::Unhealthy));
    }

    #[test]
    fn sign_of_life_in_time_is_no_news_and_does_not_go_back() {
        let mut hold = with_health(30);
        assert!(!hold.alive(at(10)));
        assert!(!hold.alive(at(5)));
        hold.renewed(at(20), at(20), Renewal::Confirmed, 0);
        assert_eq!(hold.step(at(39)), Step::Wait(at(40)));
        // Without a limit none is needed.
        let mut hold = Hold::new(terms(), at(0), 0);
        assert!(!hold.alive(at(1)));
        assert_eq!(hold.step(at(20)), Step::Renew { timeout: 5 * SEC });
    }

    #[test]
    fn renewal_confirmed_after_the_lease_was_lost_for_lack_of_life_changes_nothing() {
        let mut hold = with_health(30);
        assert_eq!(hold.step(at(29)), Step::Renew { timeout: 5 * SEC });
        // The process was stopped between the reply and its reading.
        let lost = Claim::Lost(LossReason::Unhealthy);
        assert_eq!(hold.claim(at(60)), lost);
        assert_eq!(
            hold.renewed(at(29), at(60), Renewal::Confirmed, 0),
            Some(lost)
        );
        assert_eq!(hold.claim(at(60)), lost);
    }

    #[test]
    fn next_user_of_the_lease_begins_a_new_life() {
        let hold = with_health(30);
        let mut next = hold.passed_on(hold.terms, at(29));
        // It has not got the lease yet.
        assert_eq!(next.step(at(40)), Step::Renew { timeout: 5 * SEC });
        assert!(!next.alive(at(40)));
        next.renewed(at(40), at(40), Renewal::Confirmed, 0);
        assert_eq!(next.step(at(60)), Step::Renew { timeout: 5 * SEC });
        assert_eq!(next.step(at(70)), Step::Wait(at(95)));
    }

    #[test]
    fn shorter_of_max_hold_and_health_ends_the_renewals() {
        for (max_hold, reason) in [(25, LossReason::MaxHold), (35, LossReason::Unhealthy)] {
            let mut hold = with_health(30);
            hold.terms.max_hold = Some(SEC * max_hold);
            hold.alive(at(0));
            assert_eq!(hold.claim(at(55)), Claim::Lost(reason));
        }
    }

    #[test]
    fn retry_after_is_honoured_but_not_past_half_of_the_time_left() {
        let asked = |secs| Renewal::Unknown {
            retry_after: Some(SEC * secs),
            overload: false,
        };
        let mut hold = Hold::new(terms(), at(0), 0);
        hold.renewed(at(25), at(25), asked(8), 0);
        assert_eq!(hold.step(at(25)), Step::Wait(at(33)));
        hold.renewed(at(25), at(25), asked(600), 0);
        assert_eq!(hold.step(at(25)), Step::Wait(at(40)));
        hold.renewed(at(25), at(25), asked(0), 0);
        assert_eq!(hold.step(at(25)), Step::Wait(at(30)));
    }

    #[test]
    fn renewal_that_an_overloaded_service_refused_is_tried_again_within_a_second() {
        let refused = |retry_after| Renewal::Unknown {
            retry_after,
            overload: true,
        };
        // The time of the refusal, what the service asked for, and the bounds of the delay.
        let rows = [
            (20, None, 500 * MS, SEC),
            (50, None, 500 * MS, 5 * SEC / 6),
            (54, None, 500 * MS, 500 * MS),
            (60, None, 500 * MS, SEC),
            (25, Some(8 * SEC), 8 * SEC, 8 * SEC),
            (25, Some(600 * SEC), 15 * SEC, 15 * SEC),
        ];
        for (now, asked, least, most) in rows {
            for (random, delay) in [(0, least), (u64::MAX, most)] {
                let mut hold = Hold::new(terms(), at(0), 0);
                hold.step(at(now)); // may be an announcement
                hold.renewed(at(now), at(now), refused(asked), random);
                assert_eq!(hold.due, at(now) + delay, "at {now}");
            }
        }
    }
}
