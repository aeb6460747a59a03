//! PURE: when the child has to be stopped because the lock may not last.
//!
//! The guard's own deadline ends a margin before the service can give the lease to somebody else.
//! The child gets its first signal a grace before that deadline, and `SIGKILL` at it. Nothing here
//! waits for anything, so a renewal that hangs cannot hold it up.

use std::time::Duration;

/// The longest grace once the lock is lost for good: another holder may already be at work.
const LOST_GRACE: Duration = Duration::from_secs(5);

/// How late a step may come before it means that this process was not running.
const LATE: Duration = Duration::from_secs(1);

/// What to do when the lock does not last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLost {
    /// The signal, and after the grace `SIGKILL`.
    Terminate,
    /// `SIGKILL`.
    Kill,
    /// Nothing but a warning.
    Continue,
}

/// What is known of the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// Until the guard's deadline.
    pub(crate) remaining: Duration,
    /// Whether the service said that the lock is gone.
    pub(crate) lost: bool,
}

/// What to do to the child now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing, until the next step.
    Nothing,
    /// Say that the lock is not held any more, and let the child go on.
    Warn,
    /// Send the first signal. `SIGKILL` follows after the time given.
    Terminate(Duration),
    /// Send `SIGKILL`.
    Kill,
    /// Stop it with `SIGSTOP` until it is known whether the lock is still held.
    Freeze,
    /// Let a frozen child go on.
    Thaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The child runs, and the lock is held.
    Holding,
    /// The child does not run, and may not before the lock is known to be held.
    Frozen { since: Duration },
    /// The first signal was sent.
    Stopping { kill_at: Duration },
    /// `SIGKILL` was sent.
    Killed,
    /// The lock is not held, and the child goes on.
    Warned,
}

/// Decides when the child is stopped. Instants are times since boot.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    on_lost: OnLost,
    grace: Duration,
    /// How long a child is kept frozen.
    patience: Duration,
    state: State,
    /// When the next step is due.
    due: Duration,
}

impl Fence {
    pub(crate) fn new(on_lost: OnLost, grace: Duration, lease: Duration, now: Duration) -> Self {
        let grace = match on_lost {
            OnLost::Terminate => grace,
            OnLost::Kill | OnLost::Continue => Duration::ZERO,
        };
        Self {
            on_lost,
            grace,
            patience: lease,
            state: State::Holding,
            due: now,
        }
    }

    /// Whether the child was or is being stopped because of the lock.
    pub(crate) fn has_struck(&self) -> bool {
        matches!(self.state, State::Stopping { .. } | State::Killed)
    }

    /// Whether the child must not go on for now.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.state, State::Frozen { .. })
    }

    /// When a child that was signalled is killed.
    pub(crate) fn kill_at(&self) -> Option<Duration> {
        match self.state {
            State::Stopping { kill_at } => Some(kill_at),
            _ => None,
        }
    }

    /// The child stands still, and may not go on before the lock is known to be held.
    pub(crate) fn freeze(&mut self, now: Duration) {
        if matches!(self.state, State::Holding | State::Frozen { .. }) {
            self.state = State::Frozen { since: now };
        }
    }

    /// What to do at `now`, and how long until the next step at the latest.
    pub(crate) fn step(&mut self, now: Duration, view: View) -> (Act, Option<Duration>) {
        let late = now > self.due + LATE;
        let act = self.act(now, view, late);
        let wait = match self.state {
            State::Holding | State::Frozen { .. } if self.on_lost == OnLost::Continue => {
                Some(view.remaining)
            }
            State::Holding => Some(view.remaining.saturating_sub(self.grace)),
            State::Frozen { since } => Some((since + self.patience).saturating_sub(now)),
            State::Stopping { kill_at } => Some(kill_at.saturating_sub(now)),
            State::Warned | State::Killed => None,
        };
        self.due = wait.map_or(Duration::MAX - LATE, |wait| now + wait);
        (act, wait)
    }

    fn act(&mut self, now: Duration, view: View, late: bool) -> Act {
        let lost_grace = self.grace.min(LOST_GRACE);
        match self.state {
            // Without the lock the warning is the next step, which is due at once.
            State::Frozen { .. } if self.on_lost == OnLost::Continue => {
                self.state = State::Holding;
                Act::Thaw
            }
            State::Holding if self.on_lost == OnLost::Continue => {
                if view.lost || view.remaining.is_zero() {
                    self.state = State::Warned;
                    Act::Warn
                } else {
                    Act::Nothing
                }
            }
            // What was slept through is no time to end things in: another holder has had it.
            State::Holding if view.lost && late => self.kill(),
            State::Holding if view.lost => self.terminate(now, lost_grace),
            State::Holding if view.remaining > self.grace => Act::Nothing,
            // The time to stop it was slept through. What it did meanwhile cannot be undone; it
            // does no more before this is cleared up.
            State::Holding if view.remaining.is_zero() && late => {
                self.state = State::Frozen { since: now };
                Act::Freeze
            }
            State::Holding => self.terminate(now, view.remaining),
            State::Frozen { .. } if !view.lost && view.remaining > self.grace => {
                self.state = State::Holding;
                Act::Thaw
            }
            State::Frozen { since } if view.lost || now >= since + self.patience => self.kill(),
            State::Stopping { kill_at } => {
                let kill_at = if view.lost {
                    kill_at.min(now + lost_grace)
                } else {
                    kill_at
                };
                self.state = State::Stopping { kill_at };
                if now >= kill_at {
                    self.kill()
                } else {
                    Act::Nothing
                }
            }
            State::Frozen { .. } | State::Killed | State::Warned => Act::Nothing,
        }
    }

    fn terminate(&mut self, now: Duration, grace: Duration) -> Act {
        if grace.is_zero() {
            return self.kill();
        }
        self.state = State::Stopping {
            kill_at: now + grace,
        };
        Act::Terminate(grace)
    }

    fn kill(&mut self) -> Act {
        self.state = State::Killed;
        Act::Kill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn fence(on_lost: OnLost) -> Fence {
        Fence::new(on_lost, 10 * SEC, 60 * SEC, 100 * SEC)
    }

    fn held(secs: u32) -> View {
        View {
            remaining: SEC * secs,
            lost: false,
        }
    }

    const LOST: View = View {
        remaining: Duration::ZERO,
        lost: true,
    };

    #[test]
    fn child_is_signalled_a_grace_before_the_deadline_and_killed_at_it() {
        let mut fence = fence(OnLost::Terminate);
        assert_eq!(
            fence.step(100 * SEC, held(55)),
            (Act::Nothing, Some(45 * SEC))
        );
        let (act, wait) = fence.step(145 * SEC, held(10));
        assert_eq!((act, wait), (Act::Terminate(10 * SEC), Some(10 * SEC)));
        assert_eq!(fence.step(154 * SEC, held(1)), (Act::Nothing, Some(SEC)));
        assert_eq!(fence.step(155 * SEC, held(0)), (Act::Kill, None));
        assert!(fence.has_struck());
    }

    #[test]
    fn renewal_moves_the_deadline() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(55));
        assert_eq!(
            fence.step(120 * SEC, held(54)),
            (Act::Nothing, Some(44 * SEC))
        );
        assert_eq!(
            fence.step(145 * SEC, held(29)),
            (Act::Nothing, Some(19 * SEC))
        );
    }

    #[test]
    fn renewal_after_the_signal_does_not_call_it_back() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(10));
        assert_eq!(
            fence.step(105 * SEC, held(55)),
            (Act::Nothing, Some(5 * SEC))
        );
        assert_eq!(fence.step(110 * SEC, held(50)).0, Act::Kill);
    }

    #[test]
    fn definite_loss_leaves_five_seconds_at_most() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(55));
        assert_eq!(
            fence.step(103 * SEC, LOST),
            (Act::Terminate(5 * SEC), Some(5 * SEC))
        );
        assert_eq!(fence.step(108 * SEC, LOST), (Act::Kill, None));
        assert_eq!(fence.step(109 * SEC, LOST), (Act::Nothing, None));
    }

    #[test]
    fn loss_during_the_grace_shortens_it() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(10));
        assert_eq!(fence.step(101 * SEC, LOST), (Act::Nothing, Some(5 * SEC)));
        assert_eq!(fence.step(106 * SEC, LOST), (Act::Kill, None));
    }

    #[test]
    fn kill_and_no_grace_kill_at_the_deadline() {
        let mut without_grace = Fence::new(OnLost::Terminate, Duration::ZERO, 60 * SEC, 100 * SEC);
        for fence in [&mut fence(OnLost::Kill), &mut without_grace] {
            assert_eq!(
                fence.step(100 * SEC, held(55)),
                (Act::Nothing, Some(55 * SEC))
            );
            assert_eq!(fence.step(155 * SEC, held(0)), (Act::Kill, None));
        }
    }

    #[test]
    fn continue_warns_once() {
        let mut fence = fence(OnLost::Continue);
        assert_eq!(
            fence.step(100 * SEC, held(5)),
            (Act::Nothing, Some(5 * SEC))
        );
        assert_eq!(fence.step(105 * SEC, held(0)), (Act::Warn, None));
        assert_eq!(fence.step(106 * SEC, LOST), (Act::Nothing, None));
        assert!(!fence.has_struck());
    }

    #[test]
    fn continue_lets_a_frozen_child_go_on_and_warns() {
        for view in [held(0), LOST] {
            let mut fence = fence(OnLost::Continue);
            fence.step(100 * SEC, held(55));
            fence.freeze(110 * SEC);
            let thawed = fence.step(900 * SEC, view);
            assert_eq!(thawed, (Act::Thaw, Some(Duration::ZERO)));
            assert_eq!(fence.step(900 * SEC, view), (Act::Warn, None));
            assert_eq!(fence.step(901 * SEC, view), (Act::Nothing, None));
        }
        let mut held_on = fence(OnLost::Continue);
        held_on.freeze(110 * SEC);
        assert_eq!(held_on.step(111 * SEC, held(9)), (Act::Thaw, Some(9 * SEC)));
        assert_eq!(held_on.step(112 * SEC, held(8)).0, Act::Nothing);
    }

    #[test]
    fn deadline_that_was_slept_through_freezes_the_child_until_it_is_cleared_up() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(55));
        assert_eq!(
            fence.step(900 * SEC, held(0)),
            (Act::Freeze, Some(60 * SEC))
        );
        assert_eq!(fence.step(901 * SEC, held(0)).0, Act::Nothing);
        let mut lost = fence.clone();
        assert_eq!(fence.step(902 * SEC, held(54)), (Act::Thaw, Some(44 * SEC)));
        assert_eq!(lost.step(902 * SEC, LOST), (Act::Kill, None));
    }

    #[test]
    fn loss_that_was_slept_through_leaves_no_grace() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(55));
        assert_eq!(fence.step(900 * SEC, LOST), (Act::Kill, None));
    }

    #[test]
    fn frozen_child_is_killed_when_nothing_is_known_for_a_lease() {
        let mut fence = fence(OnLost::Terminate);
        fence.step(100 * SEC, held(55));
        fence.freeze(110 * SEC);
        assert_eq!(fence.step(169 * SEC, held(0)), (Act::Nothing, Some(SEC)));
        assert_eq!(fence.step(170 * SEC, held(0)), (Act::Kill, None));
    }
}
