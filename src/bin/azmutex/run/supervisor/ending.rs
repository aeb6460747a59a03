//! The command's end, and what it leaves behind.

use std::time::Duration;

use signal_hook::consts::SIGTERM;

use super::Supervisor;
use crate::args::Stragglers;
use crate::run::job::{self, Left};
use crate::run::timer;

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// How often to look for processes whose end the system does not report to this one.
const LOOK: Duration = Duration::from_millis(20);

/// How often to repeat what the lock is held for.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What has been done about the processes that the command left behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    Unknown,
    /// They were asked to end.
    Signalled {
        kill_at: Duration,
    },
    /// The lock is kept for them; the user was last told at `said`.
    Awaited {
        said: Duration,
    },
    Done,
}

/// Whether supervision is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Over { dead: bool },
    Look(Option<Duration>),
}

impl Supervisor<'_, '_> {
    /// Whether it is over, and if not, when to look again.
    pub(super) fn finish(&mut self) -> Progress {
        let now = timer::now();
        if self.job.ended().is_none() {
            return unended(self.killed, self.lost, now);
        }
        if self.leftovers != Leftovers::Done {
            if self.fence.has_struck() || self.killed.is_some() {
                if let Some(progress) = self.bury(now) {
                    return progress;
                }
            } else if let Some(progress) = self.clear_up(now) {
                return progress;
            }
            self.leftovers = Leftovers::Done;
            self.end_guard();
        }
        let until = self.acquired + self.context.args.min_hold;
        let keeps = !self.hurried && !self.lost && self.watch.is_held();
        if keeps && now < until {
            return Progress::Look(Some((until - now).min(Duration::from_secs(1))));
        }
        Progress::Over { dead: true }
    }

    /// Sees to the end of what is left of a command that was ended because of the lock.
    fn bury(&mut self, now: Duration) -> Option<Progress> {
        let left = match self.job.left() {
            Left::Nothing => return None,
            Left::Unknown => return Some(Progress::Look(Some(LOOK))),
            Left::Some(left) => left,
        };
        let Some(killed) = self.killed else {
            self.job.end_orphans(self.context.args.signal.0);
            return Some(Progress::Look(Some(LOOK)));
        };
        if now < killed + DEATH {
            // A process may have been forked while the signals were sent.
            let _ = self.job.kill_all();
            return Some(Progress::Look(Some(LOOK)));
        }
        let text = format!("{} of the command cannot be killed", count(&left.pids()));
        self.context.reporter.error(&text);
        Some(Progress::Over { dead: false })
    }

    /// Deals with what a command left behind that ended by itself or was asked to.
    fn clear_up(&mut self, now: Duration) -> Option<Progress> {
        let left = match self.job.left() {
            Left::Nothing => return None,
            Left::Unknown => return Some(Progress::Look(Some(LOOK))),
            // It stays stopped until it is known whether the lock is held, and is killed if not.
            Left::Some(_) if self.fence.is_frozen() => return Some(Progress::Look(Some(LOOK))),
            Left::Some(left) => left,
        };
        match self.context.args.stragglers {
            Stragglers::Kill => self.kill_leftovers(&left, now),
            Stragglers::Wait => Some(self.await_leftovers(&left.pids(), now)),
            // The work was asked to end and has not: what still runs may be part of it.
            Stragglers::Warn if self.asked_to_end.is_some() => {
                Some(self.await_leftovers(&left.pids(), now))
            }
            // What is still in the command's group never left it on purpose.
            Stragglers::Warn if left.in_group => Some(self.await_leftovers(&left.group, now)),
            Stragglers::Warn => {
                let text = format!(
                    "the command left {} behind, which the lock does not cover any more \
                     (--stragglers=wait or kill)",
                    count(&left.outside)
                );
                self.context.reporter.warn(&text);
                None
            }
        }
    }

    /// Keeps the lock for the processes `pids` that are left.
    fn await_leftovers(&mut self, pids: &[i32], now: Duration) -> Progress {
        if let Some(signal) = self.asked_to_end {
            self.job.end_orphans(signal);
        }
        let said = match self.leftovers {
            Leftovers::Awaited { said } => Some(said),
            _ => None,
        };
        if said.is_none_or(|said| now >= said + SAY_AGAIN) {
            let what = match said {
                None => format!("the command left {} behind", count(pids)),
                Some(_) => format!("still at work: {}", count(pids)),
            };
            let name = self.context.name();
            let gone = if pids.len() == 1 { "it is" } else { "they are" };
            let text = format!("{what}; {name} is held and renewed until {gone} gone");
            self.context.reporter.warn(&text);
            self.leftovers = Leftovers::Awaited { said: now };
        }
        Progress::Look(Some(LOOK * 5))
    }

    fn kill_leftovers(&mut self, left: &job::Leftovers, now: Duration) -> Option<Progress> {
        let pids = left.pids();
        let Leftovers::Signalled { kill_at } = self.leftovers else {
            let _ = self.job.end(SIGTERM);
            let text = format!(
                "sent SIGTERM to {} that the command left behind",
                count(&pids)
            );
            self.context.reporter.note(&text);
            let kill_at = now + self.budget.grace;
            self.leftovers = Leftovers::Signalled { kill_at };
            return Some(Progress::Look(Some(LOOK)));
        };
        if now >= kill_at + DEATH {
            let text = format!("{} cannot be killed", count(&pids));
            self.context.reporter.error(&text);
            return Some(Progress::Over { dead: false });
        }
        if now >= kill_at {
            let _ = self.job.kill_all();
        } else {
            self.job.end_orphans(SIGTERM);
        }
        Some(Progress::Look(Some(LOOK)))
    }
}

/// What to do about a command that has not ended.
fn unended(killed: Option<Duration>, lost: bool, now: Duration) -> Progress {
    match killed.map(|at| at + DEATH) {
        Some(end) if now < end => Progress::Look(Some(end - now)),
        // It cannot be killed, and there is no lock to keep for it.
        Some(_) if lost => Progress::Over { dead: false },
        // `SIGCHLD` tells when it ends.
        _ => Progress::Look(None),
    }
}

/// `2 processes (4711, 4712)`.
fn count(pids: &[i32]) -> String {
    const SHOWN: usize = 8;
    let list: Vec<_> = pids.iter().take(SHOWN).map(i32::to_string).collect();
    let more = if pids.len() > SHOWN { ", ..." } else { "" };
    match pids.len() {
        0 => "processes".to_owned(),
        1 => format!("1 process ({})", list[0]),
        n => format!("{n} processes ({}{more})", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_cannot_be_killed_is_left_alone_after_a_while() {
        let sec = Duration::from_secs;
        assert_eq!(unended(None, false, sec(100)), Progress::Look(None));
        for lost in [false, true] {
            let soon = unended(Some(sec(100)), lost, sec(103));
            assert_eq!(soon, Progress::Look(Some(sec(7))));
        }
        for later in [110, 500] {
            let kept = unended(Some(sec(100)), false, sec(later));
            assert_eq!(kept, Progress::Look(None));
            let lost = unended(Some(sec(100)), true, sec(later));
            assert_eq!(lost, Progress::Over { dead: false });
        }
    }

    #[test]
    fn leftovers_are_counted_and_named() {
        assert_eq!(count(&[7]), "1 process (7)");
        assert_eq!(count(&[7, 8]), "2 processes (7, 8)");
        let many: Vec<i32> = (1..20).collect();
        assert!(
            count(&many).starts_with("19 processes (1, 2,") && count(&many).ends_with(", ...)")
        );
    }
}
