//! The terminal, and which process group a command gets because of it.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, getpgrp, test_kill_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use crate::args::ProcessGroup;

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// In a process group of its own.
    Own,
    /// In this process's group.
    Shared,
    /// In a session of its own.
    Session,
}

/// What decides.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// There is a controlling terminal.
    controlled: bool,
    stdin: bool,
    /// All of stdin, stdout and stderr are terminals.
    all: bool,
    /// This process's group is the terminal's foreground group.
    foreground: bool,
}

/// The group, and whether the terminal is handed over to it.
fn choose(wanted: ProcessGroup, facts: Facts) -> (Group, bool) {
    let interactive = facts.controlled && facts.all;
    match wanted {
        ProcessGroup::Session => (Group::Session, false),
        ProcessGroup::Shared => (Group::Shared, false),
        ProcessGroup::Own => (Group::Own, interactive),
        ProcessGroup::Auto if !facts.controlled => (Group::Own, false),
        ProcessGroup::Auto if interactive => (Group::Own, true),
        // Nothing there concerns the terminal.
        ProcessGroup::Auto if !facts.stdin && !facts.foreground => (Group::Own, false),
        // In a pipeline the terminal is for all of its processes.
        ProcessGroup::Auto => (Group::Shared, false),
    }
}

/// A place for the command.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) group: Group,
    /// The controlling terminal, if the command uses it at all.
    pub(super) terminal: Option<Terminal>,
    /// There is a controlling terminal.
    pub(super) is_controlled: bool,
}

impl Place {
    pub(super) fn find(wanted: ProcessGroup) -> Self {
        let terminal = Terminal::open();
        let stdin = io::stdin().is_terminal();
        let facts = Facts {
            controlled: terminal.is_some(),
            stdin,
            all: stdin && io::stdout().is_terminal() && io::stderr().is_terminal(),
            foreground: terminal.as_ref().is_some_and(Terminal::is_ours),
        };
        let (group, hand_over) = choose(wanted, facts);
        let uses = hand_over || (group == Group::Shared && facts.controlled);
        Self {
            group,
            terminal: terminal.filter(|_| uses),
            is_controlled: facts.controlled,
        }
    }

    /// Whether the command's group is to be the terminal's foreground group.
    pub(super) fn hands_over(&self) -> bool {
        self.group == Group::Own && self.terminal.is_some()
    }
}

/// The controlling terminal.
#[derive(Debug)]
pub(super) struct Terminal(OwnedFd);

impl Terminal {
    fn open() -> Option<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        // A terminal that has no foreground group any more has hung up.
        tcgetpgrp(&file).ok()?;
        Some(Self(file.into()))
    }

    pub(super) fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Whether this process's group is in the foreground.
    pub(super) fn is_ours(&self) -> bool {
        self.is_of(getpgrp())
    }

    fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.0) == Ok(group)
    }

    /// Whether the foreground group has no processes any more.
    fn is_deserted(&self) -> bool {
        tcgetpgrp(&self.0).is_ok_and(|group| test_kill_process_group(group) == Err(Errno::SRCH))
    }

    /// Puts `group` in the foreground, if this process's group is there. Returns whether it was.
    pub(super) fn give(&self, group: Pid) -> bool {
        self.is_ours() && tcsetpgrp(&self.0, group).is_ok()
    }

    /// Puts this process's group back, if `group` is there, or, with `lent`, a group of which nobody
    /// is left. Returns whether it did.
    pub(super) fn take_back(&self, group: Pid, lent: bool) -> bool {
        (self.is_of(group) || (lent && self.is_deserted())) && tcsetpgrp(&self.0, getpgrp()).is_ok()
    }

    /// Puts this process's group back, whoever is there.
    pub(super) fn reclaim(&self) {
        let _ = tcsetpgrp(&self.0, getpgrp());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_follows_the_terminal() {
        let facts = |controlled, stdin, all, foreground| Facts {
            controlled,
            stdin,
            all,
            foreground,
        };
        let rows = [
            (
                "cron, CI, a container",
                facts(false, false, false, false),
                (Group::Own, false),
            ),
            (
                "interactive",
                facts(true, true, true, true),
                (Group::Own, true),
            ),
            (
                "interactive, in the background",
                facts(true, true, true, false),
                (Group::Own, true),
            ),
            (
                "nohup, in the background",
                facts(true, false, false, false),
                (Group::Own, false),
            ),
            (
                "in a pipeline",
                facts(true, false, false, true),
                (Group::Shared, false),
            ),
            (
                "redirected",
                facts(true, true, false, true),
                (Group::Shared, false),
            ),
            (
                "redirected, in the background",
                facts(true, true, false, false),
                (Group::Shared, false),
            ),
        ];
        for (case, facts, expected) in rows {
            assert_eq!(choose(ProcessGroup::Auto, facts), expected, "{case}");
            assert_eq!(choose(ProcessGroup::Shared, facts), (Group::Shared, false));
            assert_eq!(
                choose(ProcessGroup::Session, facts),
                (Group::Session, false)
            );
        }
        assert_eq!(
            choose(ProcessGroup::Own, facts(true, false, false, true)),
            (Group::Own, false)
        );
    }
}
