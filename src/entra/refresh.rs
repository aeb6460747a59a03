//! PURE: until when a token is used, and when the next one is asked for.
//!
//! A token is kept by the clock that counts suspend, from the moment it came: so it ends in time
//! although the machine slept, and stays although somebody set the wall clock. A wall clock that
//! says that it is time only brings the next request for a token forward.

use std::time::{Duration, SystemTime};

use crate::time::backoff::{Backoff, share};
use crate::time::tick::{Moment, Tick};

/// A token that lives so long is replaced at half its life, any other this long before its end, but
/// not before half its life.
const LONG_LIFE: Duration = Duration::from_secs(2 * 60 * 60);
const BEFORE_THE_END: Duration = Duration::from_secs(5 * 60);

/// A new token is not replaced sooner than this.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// How long a token is used that has expired by the wall clock when it comes. More likely that clock
/// is wrong, and the service decides.
const DOUBTFUL_LIFE: Duration = Duration::from_secs(60);

/// The delay after the first failure, and the longest. While somebody waits for a token, the longest
/// is shorter.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const LONGEST_AWAITED: Duration = Duration::from_secs(5);

/// A second refusal by the service so soon does not bring the next request for a token forward.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(30);

/// The time on all clocks. Tokens are measured by `moment.lease`, attempts by `moment.real`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) moment: Moment,
    pub(crate) wall: SystemTime,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for a token.
    Fetch,
    /// Nothing, until the first of the two clocks shows this.
    Wait(Moment),
}

/// When tokens of one source are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Refresh {
    life: Option<Life>,
    /// Set if the service refused the token in hand: from when on another one is asked for.
    refused: Option<Tick>,
    /// When a refusal last brought a request for a token forward.
    hurried: Option<Tick>,
    failure: Option<Failure>,
    backoff: Backoff,
}

/// The token in hand.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// When the next one is asked for, on both clocks.
    due: (Tick, Option<SystemTime>),
    end: Tick,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    at: Tick,
    delay: Duration,
    /// The delay that the source asked for.
    asked: Duration,
}

impl Refresh {
    pub(crate) fn new() -> Self {
        Self {
            life: None,
            refused: None,
            hurried: None,
            failure: None,
            backoff: Backoff::new(DELAYS.0, DELAYS.1),
        }
    }

    /// What to do at `now`, for those who hold or want a lease. `awaited`: somebody waits for a
    /// token.
    pub(crate) fn step(&self, now: Now, awaited: bool) -> Step {
        let moment = now.moment;
        let paced = self.failure.map_or(Tick::default(), |failure| {
            let longest = if awaited { LONGEST_AWAITED } else { DELAYS.1 };
            failure.at + failure.delay.min(longest).max(failure.asked)
        });
        let once_paced = Moment {
            real: paced,
            ..Moment::NEVER
        };
        let is_ahead = |life: &Life| {
            let (due, wall_due) = life.due;
            moment.lease < due && wall_due.is_none_or(|due| now.wall < due)
        };
        match (self.life.filter(is_ahead), self.refused) {
            (None, _) => Step::at(moment, once_paced),
            (Some(life), Some(from)) => Step::at(
                moment,
                Moment {
                    real: from.max(paced),
                    lease: life.due.0,
                },
            ),
            (Some(life), None) => Step::Wait(Moment {
                lease: life.due.0,
                ..Moment::NEVER
            }),
        }
    }

    /// Whether the token in hand is still used at `now`.
    pub(crate) fn is_valid(&self, now: Moment) -> bool {
        self.life.is_some_and(|life| now.lease < life.end)
    }

    /// Whether the service refused the token in hand and another one may be had by now.
    pub(crate) fn is_to_be_replaced(&self, now: Moment) -> bool {
        self.refused.is_some_and(|from| now.real >= from)
    }

    /// How long the token in hand is still used.
    pub(crate) fn left(&self, now: Moment) -> Duration {
        self.life
            .map_or(Duration::ZERO, |life| life.end.since(now.lease))
    }

    /// A token came. `wanted`: from when on whoever issued it wants it replaced. `random`: any
    /// number; it brings the next request forward by up to a tenth, so that programs that started
    /// together do not ask together. Returns whether it had expired by the wall clock.
    pub(crate) fn received(
        &mut self,
        now: Now,
        expires: SystemTime,
        wanted: Option<SystemTime>,
        random: u64,
    ) -> bool {
        let until = |at: SystemTime| at.duration_since(now.wall).unwrap_or_default();
        let left = until(expires);
        let is_doubtful = left.is_zero();
        let life = if is_doubtful { DOUBTFUL_LIFE } else { left };
        let age = match wanted {
            Some(wanted) if !is_doubtful => until(wanted).min(life),
            _ if life >= LONG_LIFE => life / 2,
            _ => (life / 2).max(life.saturating_sub(BEFORE_THE_END)),
        };
        let age = (age - share(age / 10, random)).max(LEAST_AGE);
        self.life = Some(Life {
            due: (now.moment.lease + age, now.wall.checked_add(age)),
            end: now.moment.lease + life,
        });
        self.refused = None;
        self.failure = None;
        self.backoff = Backoff::new(DELAYS.0, DELAYS.1);
        is_doubtful
    }

    /// No token came. `asked`: the source's `Retry-After`.
    pub(crate) fn failed(&mut self, now: Now, asked: Option<Duration>, random: u64) {
        // The source may ask for more, but not for so much that the token ends by it.
        let longest = (self.left(now.moment) / 2).max(DELAYS.1);
        self.failure = Some(Failure {
            at: now.moment.real,
            delay: self.backoff.delay(random),
            asked: asked.unwrap_or_default().min(longest),
        });
    }

    /// The service refused the token in hand, whatever its end. Another one is asked for at once,
    /// unless the last one was refused just now, too.
    pub(crate) fn refuse(&mut self, now: Moment) {
        if self.refused.is_some() {
            return;
        }
        let from = match self.hurried {
            Some(hurried) if now.real < hurried + BETWEEN_REFUSALS => hurried + BETWEEN_REFUSALS,
            _ => now.real,
        };
        self.hurried = Some(from);
        self.refused = Some(from);
    }
}

impl Step {
    /// Fetch once the first of the two clocks shows `when`.
    fn at(now: Moment, when: Moment) -> Self {
        if now.real >= when.real || now.lease >= when.lease {
            Self::Fetch
        } else {
            Self::Wait(when)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    /// So many seconds after the start, on all clocks.
    fn at(secs: u64) -> Now {
        Now {
            moment: Moment {
                lease: tick(secs),
                real: tick(secs),
            },
            wall: wall(secs),
        }
    }

    fn tick(secs: u64) -> Tick {
        Tick::default() + Duration::from_secs(1000 + secs)
    }

    fn wall(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs)
    }

    /// With a token that came at second 0 and lives for so long.
    fn with_token(life: Duration) -> Refresh {
        let mut refresh = Refresh::new();
        refresh.received(at(0), wall(0) + life, None, 0);
        refresh
    }

    /// When the next fetch is due, in seconds, if nothing else happens.
    fn due(refresh: &Refresh, from: u64, awaited: bool) -> u64 {
        let is_fetch = |secs: &u64| refresh.step(at(*secs), awaited) == Step::Fetch;
        (from..from + 100_000).find(is_fetch).expect("it is due")
    }

    #[test]
    fn first_token_is_fetched_at_once() {
        assert_eq!(Refresh::new().step(at(0), true), Step::Fetch);
        assert!(!Refresh::new().is_valid(at(0).moment));
    }

    #[test]
    fn token_is_replaced_in_time_whatever_its_life() {
        // Life, and what the issuer said, in seconds; when the next one is due.
        let rows = [
            (24 * HOUR, None, 12 * 3600),
            (2 * HOUR, None, 3600),
            (2 * HOUR - SEC, None, 7199 - 300),
            (90 * MINUTE, None, 85 * 60),
            (60 * MINUTE, None, 55 * 60),
            (10 * MINUTE, None, 5 * 60),
            (8 * MINUTE, None, 4 * 60),
            (10 * SEC, None, 5),
            (SEC, None, 1),
            (24 * HOUR, Some(40_000), 40_000),
            (HOUR, Some(0), 1),
            (HOUR, Some(9999), 3600),
        ];
        for (life, wanted, expected) in rows {
            let mut refresh = Refresh::new();
            refresh.received(at(0), wall(0) + life, wanted.map(wall), 0);
            assert_eq!(due(&refresh, 0, false), expected, "{life:?} {wanted:?}");
            let end = life.as_secs();
            assert!(refresh.is_valid(at(end - 1).moment), "{life:?}");
            assert!(!refresh.is_valid(at(end).moment), "{life:?}");
        }
    }

    #[test]
    fn programs_that_started_together_do_not_ask_together() {
        let mut refresh = Refresh::new();
        refresh.received(at(0), wall(0) + 24 * HOUR, None, u64::MAX);
        assert_eq!(due(&refresh, 0, false), 12 * 3600 * 9 / 10);
    }

    #[test]
    fn stepped_wall_clock_drops_no_token() {
        let refresh = with_token(HOUR);
        // Ahead: asks for another one, and uses this one meanwhile.
        let mut ahead = at(60);
        ahead.wall = wall(0) + 10 * HOUR;
        assert_eq!(refresh.step(ahead, false), Step::Fetch);
        assert!(refresh.is_valid(ahead.moment));
        // Behind: the other clock knows.
        let mut behind = at(55 * 60);
        behind.wall = wall(0) - 10 * HOUR;
        assert_eq!(refresh.step(behind, false), Step::Fetch);
        assert!(!refresh.is_valid(at(60 * 60).moment));
    }

    #[test]
    fn suspended_machine_finds_its_token_expired() {
        let refresh = with_token(HOUR);
        let woken = at(8 * 3600);
        assert!(!refresh.is_valid(woken.moment));
        assert_eq!(refresh.step(woken, false), Step::Fetch);
        // Where no clock counts suspend but the wall's.
        let mut woken = at(60);
        woken.wall = wall(8 * 3600);
        assert_eq!(refresh.step(woken, false), Step::Fetch);
    }

    #[test]
    fn token_that_expired_before_it_came_is_used_for_a_minute() {
        let mut refresh = Refresh::new();
        assert!(refresh.received(at(0), wall(0) - HOUR, None, 0));
        assert!(refresh.is_valid(at(59).moment));
        assert!(!refresh.is_valid(at(60).moment));
        assert_eq!(due(&refresh, 0, false), 30);
        assert!(!refresh.received(at(30), wall(30) + HOUR, None, 0));
    }

    #[test]
    fn failures_are_retried_quickly_at_first_and_every_half_minute_in_the_end() {
        let mut refresh = with_token(24 * HOUR);
        let mut now = 12 * 3600;
        let mut delays = Vec::new();
        for _ in 0..12 {
            assert_eq!(refresh.step(at(now), false), Step::Fetch);
            refresh.failed(at(now), None, u64::MAX);
            let next = due(&refresh, now, false);
            delays.push(next - now);
            now = next;
        }
        assert_eq!(delays, [1, 2, 3, 4, 6, 8, 12, 18, 26, 30, 30, 30]);
        refresh.received(at(now), wall(now) + HOUR, None, 0);
        refresh.failed(at(now), None, u64::MAX);
        assert_eq!(due(&refresh, now, false), now + 55 * 60);
    }

    #[test]
    fn whoever_waits_does_not_wait_for_half_a_minute() {
        let mut refresh = Refresh::new();
        for _ in 0..12 {
            refresh.failed(at(0), None, u64::MAX);
        }
        assert_eq!(due(&refresh, 0, true), 5);
        assert_eq!(due(&refresh, 0, false), 30);
    }

    #[test]
    fn retry_after_is_honoured_unless_the_token_would_end_by_it() {
        let mut refresh = Refresh::new();
        refresh.failed(at(0), Some(20 * SEC), 0);
        assert_eq!(due(&refresh, 0, true), 20);
        refresh.failed(at(0), Some(HOUR), 0);
        assert_eq!(due(&refresh, 0, true), 30);
        let mut refresh = with_token(HOUR);
        refresh.failed(at(55 * 60), Some(HOUR), 0);
        assert_eq!(due(&refresh, 55 * 60, false), 55 * 60 + 150);
    }

    #[test]
    fn refused_token_is_replaced_at_once_and_its_successor_after_a_while() {
        let mut refresh = with_token(HOUR);
        refresh.refuse(at(10).moment);
        assert_eq!(refresh.step(at(10), false), Step::Fetch);
        assert!(refresh.is_to_be_replaced(at(10).moment));
        assert!(refresh.is_valid(at(10).moment), "there is no other");
        refresh.received(at(11), wall(11) + HOUR, None, 0);
        assert!(!refresh.is_to_be_replaced(at(11).moment));

        refresh.refuse(at(12).moment);
        refresh.refuse(at(13).moment);
        assert!(!refresh.is_to_be_replaced(at(39).moment));
        assert_eq!(due(&refresh, 12, true), 40);
        refresh.received(at(41), wall(41) + HOUR, None, 0);
        refresh.refuse(at(71).moment);
        assert_eq!(refresh.step(at(71), false), Step::Fetch);
    }

    #[test]
    fn failure_after_a_refusal_keeps_to_the_pace() {
        let mut refresh = with_token(HOUR);
        refresh.refuse(at(10).moment);
        refresh.failed(at(10), None, u64::MAX);
        assert_eq!(due(&refresh, 10, false), 11);
    }
}
