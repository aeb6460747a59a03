//! PURE: the retry policy. What may be sent again, when, and for how long.
//!
//! A request that was *not done* (never sent, or turned away because the service was too busy) may
//! always be sent again. One whose outcome is *unknown* (sent, but with no usable answer) may be
//! sent again if doing it twice does no harm. One that was *refused* is not sent again: the answer
//! would be the same.

use std::time::Duration;

use super::backoff::Backoff;
use super::tick::Tick;
use crate::error::{Delivery, Error};

/// The delay after the first failure, and the longest.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// A port of this machine where nobody ever listened is given up after this share of the time for
/// failures, and not before this time: somebody may be about to listen there, but more probably it is
/// the wrong one.
const UNHEARD: (u32, Duration) = (10, Duration::from_secs(1));

/// The time kept for the last attempt: one that is cut off at once would hide why the others
/// failed.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);

/// What an attempt gets whose time is over before it begins.
const LATE_ATTEMPT: Duration = Duration::from_millis(100);

/// Attempts at one operation, until one succeeds or the time is up. There are at least two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Retry {
    limit: Duration,
    backoff: Backoff,
    /// When the first attempt since the last success was sent.
    since: Option<Tick>,
    attempts: u32,
    /// How many attempts there are at least.
    least: u32,
    /// The next attempt is the last.
    last: bool,
    /// The last attempt had less time than usual.
    cut_short: bool,
}

impl Retry {
    /// Retries failures for `limit`, counted from the first attempt that fails.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            backoff: Backoff::new(DELAYS.0, DELAYS.1),
            since: None,
            attempts: 0,
            least: 2,
            last: false,
            cut_short: false,
        }
    }

    /// Retries failures until `limit` after `now`, and not a moment longer.
    pub(crate) fn started(limit: Duration, now: Tick) -> Self {
        Self {
            since: Some(now),
            least: 1,
            ..Self::new(limit)
        }
    }

    /// Starts an attempt at `now`. Returns how long it may take: at most `longest`.
    pub(crate) fn attempt(&mut self, now: Tick, longest: Duration) -> Duration {
        self.since.get_or_insert(now);
        self.attempts += 1;
        let timeout = match self.left(now) {
            // The first attempt outlasted the limit, for example because the process was stopped.
            // The second still gets its full time.
            left if left.is_zero() && self.least > 1 => longest,
            left if left.is_zero() => longest.min(LATE_ATTEMPT),
            left => longest.min(left),
        };
        self.cut_short = timeout < longest;
        timeout
    }

    /// Records that an attempt failed. Returns when to make the next one, or `None` to give up.
    ///
    /// `repeatable`: whether doing it twice does no harm. `asked`: the shortest delay wanted, such as
    /// the service's `Retry-After`. It is kept if there is time for it; it is never a reason to give
    /// up.
    pub(crate) fn failed(
        &mut self,
        now: Tick,
        delivery: Delivery,
        repeatable: bool,
        asked: Option<Duration>,
        random: u64,
    ) -> Option<Tick> {
        let again = match delivery {
            Delivery::NotDone | Delivery::Unheard => true,
            Delivery::Unknown => repeatable,
            Delivery::Refused => false,
        };
        let left = match delivery {
            Delivery::Unheard => {
                let limit = (self.limit / UNHEARD.0).max(UNHEARD.1).min(self.limit);
                limit.saturating_sub(self.elapsed(now))
            }
            _ => self.left(now),
        };
        if !again || self.last || (left.is_zero() && self.attempts >= self.least) {
            return None;
        }
        let delay = self.backoff.delay_at_least(random, asked);
        let longest = left.saturating_sub(LAST_ATTEMPT.min(left / 2));
        self.last = delay > longest;
        Some(now + delay.min(longest))
    }

    /// The error to report: the last attempt's, or the service's answer to the one before if the
    /// last attempt had too little time to get one.
    pub(crate) fn conclude(&self, now: Tick, last: Error, before: Option<Error>) -> Error {
        let hides = |before: &Error| self.cut_short && last.is_silence() && before.is_answer();
        let error = before.filter(hides).unwrap_or(last);
        error.spent(self.attempts(), self.elapsed(now))
    }

    /// An attempt was answered: the next failure counts as the first.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Whether the attempts so far have taken all of their time.
    pub(crate) fn is_over(&self, now: Tick) -> bool {
        self.attempts >= self.least && self.left(now).is_zero()
    }

    /// How long failures are retried.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// How many attempts were made since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long ago the first of them was sent.
    pub(crate) fn elapsed(&self, now: Tick) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.since(since))
    }

    fn left(&self, now: Tick) -> Duration {
        self.limit.saturating_sub(self.elapsed(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Phase};

    const MS: Duration = Duration::from_millis(1);
    const SEC: Duration = Duration::from_secs(1);

    fn at(ms: u32) -> Tick {
        Tick::default() + SEC * 1000 + MS * ms
    }

    /// An attempt at `sent` fails at `now`; the longest delay is drawn.
    fn fail(retry: &mut Retry, sent: u32, now: u32, asked: Option<Duration>) -> Option<Tick> {
        retry.attempt(at(sent), 5 * SEC);
        retry.failed(at(now), Delivery::Unknown, true, asked, u64::MAX)
    }

    #[test]
    fn delays_grow_from_failure_to_failure() {
        let mut retry = Retry::new(60 * SEC);
        assert_eq!(fail(&mut retry, 0, 0, None), Some(at(50)));
        assert_eq!(fail(&mut retry, 50, 50, None), Some(at(125)));
        retry.reset();
        assert_eq!(fail(&mut retry, 500, 500, None), Some(at(550)));
    }

    #[test]
    fn what_may_be_sent_again_depends_on_what_may_have_been_done() {
        let rows = [
            (Delivery::NotDone, false, true),
            (Delivery::NotDone, true, true),
            (Delivery::Unheard, false, true),
            (Delivery::Unheard, true, true),
            (Delivery::Unknown, false, false),
            (Delivery::Unknown, true, true),
            (Delivery::Refused, false, false),
            (Delivery::Refused, true, false),
        ];
        for (delivery, repeatable, again) in rows {
            let mut retry = Retry::new(10 * SEC);
            retry.attempt(at(0), 5 * SEC);
            let next = retry.failed(at(10), delivery, repeatable, None, 0);
            assert_eq!(next.is_some(), again, "{delivery:?} {repeatable}");
        }
    }

    #[test]
    fn attempt_takes_no_longer_than_what_is_left() {
        let mut retry = Retry::new(10 * SEC);
        assert_eq!(retry.attempt(at(0), 5 * SEC), 5 * SEC);
        retry.failed(at(5000), Delivery::Unknown, true, None, u64::MAX);
        assert_eq!(retry.attempt(at(5050), 5 * SEC), 4950 * MS);
        assert_eq!((retry.attempts(), retry.elapsed(at(5050))), (2, 5050 * MS));
    }

    #[test]
    fn retry_after_is_a_floor_and_no_reason_to_give_up() {
        let mut retry = Retry::new(60 * SEC);
        let next = fail(&mut retry, 0, 100, Some(30 * SEC)).expect("there are 59.9 s left");
        assert!(next >= at(30_100), "{next:?}");
        // There is no time for another 30 s: the last attempt comes early enough to finish.
        assert_eq!(
            fail(&mut retry, 34_000, 34_000, Some(30 * SEC)),
            Some(at(59_000))
        );
        assert_eq!(retry.attempt(at(59_000), 5 * SEC), SEC);
        let end = retry.failed(at(59_100), Delivery::Unknown, true, Some(30 * SEC), 0);
        assert_eq!(end, None, "that was the last");
    }

    #[test]
    fn there_are_two_attempts_however_long_the_first_one_took() {
        let mut retry = Retry::new(60 * SEC);
        assert_eq!(fail(&mut retry, 0, 65_000, None), Some(at(65_000)));
        assert_eq!(retry.attempt(at(65_000), 5 * SEC), 5 * SEC);
        assert_eq!(
            retry.failed(at(65_010), Delivery::Unknown, true, None, 0),
            None
        );
    }

    #[test]
    fn port_where_nobody_ever_listened_is_given_up_soon_but_tried_twice() {
        let attempts = |limit, took: u32| {
            let (mut retry, mut now, mut attempts) = (Retry::new(limit), 0, 0);
            loop {
                attempts += 1;
                retry.attempt(at(now), 5 * SEC);
                now += took;
                match retry.failed(at(now), Delivery::Unheard, true, None, u64::MAX) {
                    Some(due) => now += u32::try_from(due.since(at(now)).as_millis()).unwrap(),
                    None => return (attempts, now),
                }
            }
        };
        let (count, end) = attempts(10 * SEC, 0);
        assert!(
            (3..8).contains(&count) && end <= 1000,
            "{count} in {end} ms"
        );
        assert_eq!(attempts(10 * SEC, 2000), (2, 4000));
        assert!((3000..=6000).contains(&attempts(60 * SEC, 0).1));
        assert!((500..=1000).contains(&attempts(SEC, 0).1));
    }

    #[test]
    fn limit_without_an_end_has_none() {
        let mut retry = Retry::new(Duration::MAX);
        for ms in [0, 1_000_000, 4_000_000_000] {
            assert!(fail(&mut retry, ms, ms, None).is_some());
        }
    }

    #[test]
    fn attempt_that_was_cut_short_hides_no_answer() {
        let code = Some("ServerBusy".to_owned());
        let busy =
            || Error::new(ErrorKind::Throttled, "").with_reply(503, code.clone(), None, None);
        let silent = || Error::transport("no reply in time", Phase::Reply);
        // How long an attempt may take, the last error, the one before, and what is reported.
        let rows = [
            (4, silent(), Some(busy()), ErrorKind::Throttled),
            (2, silent(), Some(busy()), ErrorKind::Transport),
            (4, silent(), Some(silent()), ErrorKind::Transport),
            (4, silent(), None, ErrorKind::Transport),
            (4, busy(), Some(silent()), ErrorKind::Throttled),
        ];
        for (number, (longest, last, before, kind)) in rows.into_iter().enumerate() {
            let mut retry = Retry::new(10 * SEC);
            retry.attempt(at(0), longest * SEC);
            retry.attempt(at(7000), longest * SEC);
            let error = retry.conclude(at(10_000), last, before);
            assert_eq!(error.kind(), kind, "row {number}");
        }
    }
}
