//! PURE: what a guardian does about the command, and when.
//!
//! While azmutex runs, it ends the command in time, and the guardian acts only if the deadline
//! passes because azmutex is stopped or hangs. Once azmutex is gone, nobody renews the lease, so
//! the guardian ends the command.

use std::time::Duration;

/// The shortest and the longest time between attempts to kill what is left: some processes cannot
/// be killed.
const KILL_AGAIN: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// What to do to the command now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing, until the next step.
    Nothing,
    /// Stop all of it, until azmutex has found out whether the lock is held.
    Freeze,
    /// Continue what was stopped.
    Thaw,
    /// Ask all of it to end.
    Terminate,
    /// Kill all of it.
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Watching,
    Frozen,
    Terminated,
    /// Killed. What is left is killed again after this time.
    Killed(Duration),
}

/// Decides what is done to the command. Instants are times since boot.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// By when the whole command must be gone, unless azmutex moves it.
    deadline: Duration,
    /// How long after the deadline azmutex may still act on it: less than the lease's margin.
    slack: Duration,
    azmutex_is_gone: bool,
    state: State,
}

impl Plan {
    pub(super) fn new(deadline: Duration, slack: Duration) -> Self {
        Self {
            deadline,
            slack,
            azmutex_is_gone: false,
            state: State::Watching,
        }
    }

    /// azmutex moved the deadline.
    pub(super) fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// azmutex ended without saying goodbye.
    pub(super) fn azmutex_ended(&mut self) {
        self.azmutex_is_gone = true;
    }

    pub(super) fn azmutex_is_gone(&self) -> bool {
        self.azmutex_is_gone
    }

    /// Whether the command is stopped because of the lock.
    pub(super) fn is_frozen(&self) -> bool {
        self.state == State::Frozen
    }

    /// What to do at `now`, and how long until the next step at the latest.
    pub(super) fn step(&mut self, now: Duration) -> (Act, Option<Duration>) {
        let act = self.act(now);
        let wait = match self.state {
            State::Watching => Some((self.deadline + self.slack).saturating_sub(now)),
            State::Frozen => None,
            State::Terminated => Some(self.deadline.saturating_sub(now)),
            State::Killed(again) => Some(again),
        };
        (act, wait)
    }

    fn act(&mut self, now: Duration) -> Act {
        match self.state {
            State::Watching | State::Terminated if self.azmutex_is_gone && now >= self.deadline => {
                self.state = State::Killed(KILL_AGAIN[0]);
                Act::Kill
            }
            State::Watching if self.azmutex_is_gone => {
                self.state = State::Terminated;
                Act::Terminate
            }
            State::Watching if now >= self.deadline + self.slack => {
                self.state = State::Frozen;
                Act::Freeze
            }
            // Another holder may have the lock, so it gets no time to clean up.
            State::Frozen if self.azmutex_is_gone => {
                self.state = State::Killed(KILL_AGAIN[0]);
                Act::Kill
            }
            State::Frozen if now < self.deadline => {
                self.state = State::Watching;
                Act::Thaw
            }
            State::Killed(again) => {
                self.state = State::Killed((again * 2).min(KILL_AGAIN[1]));
                Act::Kill
            }
            State::Watching | State::Frozen | State::Terminated => Act::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    /// One with a deadline at 155 s, and 2 s of slack.
    fn plan() -> Plan {
        Plan::new(155 * SEC, 2 * SEC)
    }

    #[test]
    fn nothing_is_done_as_long_as_azmutex_moves_the_deadline() {
        let mut plan = plan();
        assert_eq!(plan.step(100 * SEC), (Act::Nothing, Some(57 * SEC)));
        plan.set_deadline(175 * SEC);
        assert_eq!(plan.step(120 * SEC), (Act::Nothing, Some(57 * SEC)));
        assert_eq!(plan.step(176 * SEC), (Act::Nothing, Some(SEC)));
    }

    #[test]
    fn command_is_asked_to_end_at_once_and_killed_at_the_deadline_when_azmutex_is_gone() {
        let mut plan = plan();
        plan.azmutex_ended();
        assert_eq!(plan.step(120 * SEC), (Act::Terminate, Some(35 * SEC)));
        assert_eq!(plan.step(154 * SEC), (Act::Nothing, Some(SEC)));
        assert_eq!(plan.step(155 * SEC), (Act::Kill, Some(SEC / 50)));
        assert_eq!(plan.step(156 * SEC), (Act::Kill, Some(SEC / 25)));
        for _ in 0..9 {
            plan.step(157 * SEC);
        }
        assert_eq!(plan.step(158 * SEC), (Act::Kill, Some(SEC)));
    }

    #[test]
    fn command_is_killed_at_once_when_azmutex_ends_after_the_deadline() {
        let mut plan = plan();
        plan.azmutex_ended();
        assert_eq!(plan.step(155 * SEC).0, Act::Kill);
    }

    #[test]
    fn command_is_frozen_when_azmutex_does_not_act_on_the_deadline() {
        let mut plan = plan();
        assert_eq!(plan.step(156 * SEC), (Act::Nothing, Some(SEC)));
        assert_eq!(plan.step(157 * SEC), (Act::Freeze, None));
        assert_eq!(plan.step(158 * SEC), (Act::Nothing, None));
        let mut gone = plan.clone();
        plan.set_deadline(200 * SEC);
        assert_eq!(plan.step(159 * SEC), (Act::Thaw, Some(43 * SEC)));
        gone.azmutex_ended();
        assert_eq!(gone.step(159 * SEC).0, Act::Kill);
    }

    #[test]
    fn deadline_that_moves_back_counts() {
        let mut plan = plan();
        plan.set_deadline(110 * SEC);
        assert_eq!(plan.step(112 * SEC).0, Act::Freeze);
    }
}
