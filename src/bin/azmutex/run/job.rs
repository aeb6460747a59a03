//! The command: started, watched, signalled, and known to be gone.

use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, waitid, waitpid};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP};

use super::guardian::{self, Duty, Guardian, Report, Surroundings};
use super::program::{Program, c_string};
use super::status::Status;
use super::sys::{self, Launch, SignalMask, Way};
use super::terminal::{Group, Place, Terminal};
use super::timer;
use crate::processes::{self, Process};

/// How often the processes of a command are listed for one signal.
const ROUNDS: u32 = 8;

/// How long to wait for the guardian to say what is left of a command.
const ANSWER: Duration = Duration::from_secs(1);

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Stopped(c_int),
    Continued,
    Ended(Status),
}

/// What is left of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// The guardian was asked, and answers in a moment.
    Unknown,
    Some(Leftovers),
}

/// The processes that a command left behind, as far as they can be listed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftovers {
    /// Whether any are in its process group.
    pub(super) in_group: bool,
    /// Those in the group.
    pub(super) group: Vec<i32>,
    /// Those that left the group, such as daemons.
    pub(super) outside: Vec<i32>,
}

impl Leftovers {
    /// All of them.
    pub(super) fn pids(&self) -> Vec<i32> {
        [&*self.group, &*self.outside].concat()
    }
}

/// How a command is started.
pub(super) struct Start<'a> {
    pub(super) program: &'a Program,
    pub(super) environment: Vec<std::ffi::CString>,
    /// This process's signal mask before it changed it.
    pub(super) mask: SignalMask,
    /// The signals that this process handles.
    pub(super) handled: Vec<c_int>,
    pub(super) dies_with_parent: bool,
    /// What to tell the guardian, if there is to be one.
    pub(super) guardian: Option<Duty>,
}

/// A running command.
pub(super) struct Job {
    pid: Pid,
    guardian: Option<Guardian>,
    /// The guardian was killed, and [`Job::lost_guardian`] has not said so yet.
    lost_guardian: bool,
    group: Group,
    terminal: Option<Terminal>,
    /// The terminal was given to the command, which may have passed it on.
    lent: bool,
    ended: Option<Status>,
    /// Its status was collected, so its process ID may be reused.
    reaped: bool,
    stopped: bool,
    /// Orphans of the command become children of this process, if the guardian does not adopt them.
    adopts: bool,
    /// Whether the guardian said that processes other than the first are left.
    others_left: Option<bool>,
    /// When the guardian was first asked what is left, without an answer yet.
    asked: Option<Duration>,
    /// Children of this process from before: those of the program that exec'd azmutex.
    others: Vec<i32>,
    /// The processes that received the latest signal that asks the command to end.
    told: Vec<i32>,
    /// Processes outside the group that azmutex stopped.
    frozen: Vec<i32>,
    /// A child has changed state since the last look.
    moved: bool,
}

impl Job {
    /// Starts the command. Call it on the main thread: the parent-death signal is tied to the
    /// thread that starts a child, not to its process.
    pub(super) fn start(start: Start<'_>, place: Place) -> io::Result<Self> {
        let others = if sys::ended_child().is_ok() {
            children()
        } else {
            Vec::new()
        };
        let adopts = adopt_orphans(others.is_empty());
        // Only the foreground group may hand the foreground over.
        let foreground =
            place.hands_over() && place.terminal.as_ref().is_some_and(Terminal::is_ours);
        let terminal: Option<OwnedFd> = match &place.terminal {
            Some(terminal) if foreground => Some(terminal.try_clone()?),
            _ => None,
        };
        let program = start.program;
        let way = Way {
            mask: start.mask,
            handled: start.handled,
            terminal,
            new_group: place.group == Group::Own,
            new_session: place.group == Group::Session,
            dies_with_parent: start.dies_with_parent,
            core_limit: crate::cores::limit_before(),
        };
        let launch = Launch::new(
            c_string(&program.file),
            program.args.iter().map(c_string).collect(),
            start.environment,
            way,
        );
        let surroundings = Surroundings {
            // With its parent in the session, the command's group is not an orphaned one, and a
            // terminal can stop it. Without a terminal there is no need, and in a shared group it does
            // harm: when the command ends, the group may become an orphaned one, and if anything in
            // it is stopped, the system hangs up on all of it.
            stays_in_session: place.is_controlled,
            has_group: place.group != Group::Shared,
        };
        let started = match start.guardian {
            Some(duty) => Guardian::start(duty, &launch, surroundings)
                .map(|(guardian, pid)| (Some(guardian), pid)),
            None => sys::start(&launch).map(|pid| (None, pid)),
        };
        match started {
            Ok((guardian, pid)) => Ok(Self {
                pid,
                guardian,
                lost_guardian: false,
                group: place.group,
                terminal: place.terminal,
                lent: foreground,
                ended: None,
                reaped: false,
                stopped: false,
                adopts,
                others_left: None,
                asked: None,
                others,
                told: Vec::new(),
                frozen: Vec::new(),
                moved: false,
            }),
            Err(error) => {
                // A child that failed to execute may have taken the terminal with it.
                if let Some(terminal) = place.terminal.filter(|_| foreground) {
                    terminal.reclaim();
                }
                Err(error)
            }
        }
    }

    /// A child of this process that is no part of the command, nor is what it starts.
    pub(super) fn leave_out(&mut self, pid: i32) {
        self.others.push(pid);
    }

    /// The guardian, if it is the command's parent.
    fn parent(&self) -> Option<&Guardian> {
        self.guardian.as_ref().filter(|_| guardian::IS_PARENT)
    }

    /// The process whose descendants are exactly the command's processes, if there is one. It is
    /// this process even while there is a guardian, since that may be killed at any moment.
    fn root(&self) -> Option<i32> {
        let own = std::process::id() as i32;
        let guardian = self.parent().map(Guardian::pid);
        if self.adopts { Some(own) } else { guardian }
    }

    /// Whether the parent of `process` is one that adopts orphans.
    fn is_orphan(&self, process: &Process) -> bool {
        let guardian = self.parent().map(Guardian::pid);
        let own = std::process::id() as i32;
        guardian == Some(process.parent) || (self.adopts && process.parent == own)
    }

    /// Tells the guardian by when the whole command must be gone: a time since boot.
    pub(super) fn set_deadline(&mut self, deadline: Duration) {
        if let Some(guardian) = &mut self.guardian {
            guardian.set_deadline(deadline);
        }
    }

    /// The same, but only if that is sooner than what it was told before.
    pub(super) fn bring_deadline_forward(&mut self, deadline: Duration) {
        if let Some(guardian) = &mut self.guardian {
            let sooner = deadline.min(guardian.deadline());
            guardian.set_deadline(sooner);
        }
    }

    /// Whether the guardian was killed. Says so once.
    pub(super) fn lost_guardian(&mut self) -> bool {
        mem::take(&mut self.lost_guardian)
    }

    /// Ends the guardian, if there is one.
    pub(super) fn dismiss_guardian(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            guardian.dismiss();
        }
    }

    /// Readable when the guardian has news. Can be taken once.
    pub(super) fn take_guardian_fd(&mut self) -> Option<OwnedFd> {
        self.guardian.as_mut()?.take_fd()
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn group(&self) -> Group {
        self.group
    }

    /// How it ended, once it has.
    pub(super) fn ended(&self) -> Option<Status> {
        self.ended
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a terminal controls when it stops and continues.
    pub(super) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Whether this process's group is in the foreground of the terminal.
    pub(super) fn is_foreground(&self) -> bool {
        self.terminal.as_ref().is_some_and(Terminal::is_ours)
    }

    /// Puts the command in the foreground, if this process is there and the command has not ended.
    pub(super) fn give_terminal(&mut self) {
        if let (Group::Own, Some(terminal), None) = (self.group, &self.terminal, self.ended) {
            self.lent |= terminal.give(self.pid);
        }
    }

    /// Puts this process in the foreground, if the command is there, or was and passed it to
    /// nobody.
    pub(super) fn take_terminal(&mut self) {
        if let (Group::Own, Some(terminal)) = (self.group, &self.terminal) {
            self.lent &= !terminal.take_back(self.pid, self.lent);
        }
    }

    /// Forwards `signal` to the command. Signals that end or stop it go to its group, as from a
    /// terminal; others go to the first process alone, since helpers may not expect them.
    pub(super) fn signal(&mut self, signal: c_int) {
        match signal {
            SIGHUP | SIGINT | SIGQUIT | SIGTERM => {
                let _ = self.end_group(signal);
            }
            SIGCONT | SIGTSTP => {
                let _ = self.signal_group(signal);
            }
            _ => {
                let _ = self.signal_first(signal);
            }
        }
    }

    fn signal_first(&self, signal: c_int) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        sys::kill(self.pid(), signal)
    }

    /// Sends `signal` to the command's group, or, if it shares azmutex's group, to its processes in
    /// that. Fails if the first process did not get it.
    pub(super) fn signal_group(&self, signal: c_int) -> io::Result<()> {
        // A group's ID is not reused while the group has members. The first process is one until it
        // is reaped.
        if self.has_group() && !(self.reaped && processes::are_listed()) {
            return sys::kill(-self.pid(), signal);
        }
        let first = self.signal_first(signal);
        self.signal_listed(signal, |process| self.is_in_group(process));
        first
    }

    /// Sends `signal` to those listed processes that are `wanted`, except the first. Returns which.
    fn signal_listed(&self, signal: c_int, wanted: impl Fn(&Process) -> bool) -> Vec<i32> {
        // A process may fork in the middle of this, so repeat until nothing is new. But for other
        // signals, leave alone what their handlers start.
        let rounds = match signal {
            SIGKILL | SIGSTOP => ROUNDS,
            _ => 1,
        };
        let mut told = Vec::new();
        for _ in 0..rounds {
            let mut new = self.members();
            new.retain(|process| {
                let is_first = process.pid == self.pid() && !self.reaped;
                !is_first && wanted(process) && !told.contains(&process.pid)
            });
            if new.is_empty() {
                break;
            }
            if signal == SIGKILL {
                // Children before parents.
                new.reverse();
            }
            for process in new {
                let _ = sys::kill(process.pid, signal);
                told.push(process.pid);
            }
        }
        told
    }

    /// Asks the command's group to end with `signal`, and notes which processes got it. Fails if
    /// the first process did not.
    fn end_group(&mut self, signal: c_int) -> io::Result<()> {
        if self.has_group() && !self.reaped {
            // Before, not after: by the end of the list, one that handled the signal could have started
            // another. What is forked in between has the signal, and may get it again as an orphan.
            self.told_by_system();
            self.signal_group(signal)
        } else {
            let sent = self.signal_first(signal);
            self.told = self.signal_listed(signal, |process| self.is_in_group(process));
            sent
        }
    }

    /// Notes that the system sends the whole group a signal that asks it to end. Processes that
    /// appear from here on were started by one that handled the signal: a fork does not complete
    /// while a signal is pending.
    pub(super) fn told_by_system(&mut self) {
        let mut told = self.members();
        told.retain(|process| self.is_in_group(process));
        self.told = told.iter().map(|process| process.pid).collect();
    }

    /// Asks the whole command to end with `signal`: its group, and outside the group each orphan
    /// and each group leader, such as timeout(1), which forwards it. A nested azmutex ends what it
    /// started itself. Fails if the signal is refused.
    pub(super) fn end(&mut self, signal: c_int) -> io::Result<()> {
        let sent = self.end_group(signal);
        self.end_untold(signal, |process| process.pid == process.group);
        // A stopped process handles no other signal until it is continued.
        self.thaw();
        unless_missing(sent)
    }

    /// Sends `signal` to the orphans that have not had it: they were forked while it was being
    /// sent, or were left behind later. A process whose parent is still cleaning up is left to its
    /// parent.
    pub(super) fn end_orphans(&mut self, signal: c_int) {
        self.end_untold(signal, |_| false);
    }

    fn end_untold(&mut self, signal: c_int, wanted: impl Fn(&Process) -> bool) {
        let members = self.members();
        let nested = members.iter().filter(|process| process.is_azmutex);
        let sheltered: Vec<_> = nested
            .flat_map(|nested| processes::descendants(&members, nested.pid, &[]))
            .collect();
        for process in members {
            if (self.is_orphan(&process) || wanted(&process))
                && process.pid != self.pid()
                && !sheltered.contains(&process)
                && !self.told.contains(&process.pid)
            {
                let _ = sys::kill(process.pid, signal);
                let _ = sys::kill(process.pid, SIGCONT);
                self.told.push(process.pid);
            }
        }
    }

    /// Stops the whole command.
    pub(super) fn freeze(&mut self) {
        let _ = self.signal_group(SIGSTOP);
        self.freeze_outside();
    }

    /// Stops the processes that the suspend key does not reach.
    pub(super) fn freeze_outside(&mut self) {
        let frozen = self.signal_listed(SIGSTOP, |process| {
            !process.is_stopped && !self.is_in_group(process)
        });
        self.frozen.extend(frozen);
    }

    /// Continues the command. Processes outside its group that stopped on their own stay stopped.
    pub(super) fn thaw(&mut self) {
        let _ = self.signal_group(SIGCONT);
        let frozen = mem::take(&mut self.frozen);
        if !frozen.is_empty() {
            self.signal_listed(SIGCONT, |process| frozen.contains(&process.pid));
        }
    }

    /// Kills all processes of the command. Fails if that is refused.
    ///
    /// They are stopped first, so that no shell moves on to its next step because a child has
    /// ended. Children are killed before their parents, since the system continues a stopped group
    /// when it becomes orphaned.
    pub(super) fn kill_all(&self) -> io::Result<()> {
        let _ = self.signal_group(SIGSTOP);
        self.signal_listed(SIGSTOP, |_| true);
        self.signal_listed(SIGKILL, |_| true);
        unless_missing(self.signal_group(SIGKILL))
    }

    fn is_in_group(&self, process: &Process) -> bool {
        if self.has_group() {
            process.group == self.pid()
        } else {
            Some(process.group) == sys::group_of(0)
        }
    }

    fn has_group(&self) -> bool {
        self.group != Group::Shared
    }

    /// Whether `pid` belongs to the command, so that a signal it sends must not be sent back to it.
    pub(super) fn contains(&self, pid: i32) -> bool {
        let own = pid == self.pid();
        match self.group {
            _ if own => true,
            Group::Own | Group::Session => sys::group_of(pid) == Some(self.pid()),
            Group::Shared => processes::descends(pid, self.pid()),
        }
    }

    /// A child of this process has changed state (`SIGCHLD`).
    pub(super) fn child_moved(&mut self) {
        self.moved = true;
    }

    /// What the command has done since the last call. Does not block.
    pub(super) fn poll(&mut self) -> Option<Change> {
        let moved = mem::take(&mut self.moved);
        if let Some(change) = self.take_report() {
            // There may be more reports.
            self.moved = moved;
            return Some(change);
        }
        if moved && self.guardian.as_ref().is_some_and(Guardian::has_ended) {
            // What it guarded is now a child of this process, or of nobody here.
            self.guardian = None;
            self.lost_guardian = true;
            self.moved = true;
            return self.poll();
        }
        if self.parent().is_some() {
            return None;
        }
        if self.adopts && moved {
            self.reap_others();
        }
        if self.ended.is_some() {
            return None;
        }
        // Its status is not collected yet, so neither its ID nor its group's can be reused.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match self.waitid(ended) {
            Ok(Some(status)) => {
                if let Some(status) = Status::of(&status) {
                    return Some(self.has_ended(status));
                }
            }
            Ok(None) => {}
            // Its guardian was killed and another process adopted it, so its status is unknown.
            Err(Errno::CHILD) if processes::of(self.pid()).is_none() => {
                self.reaped = true;
                return Some(self.has_ended(Status::Killed {
                    signal: SIGKILL,
                    dumped: false,
                }));
            }
            Err(_) => {}
        }
        let moved = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let status = self.waitid(moved).ok().flatten()?;
        if let Some(signal) = status.stopping_signal() {
            self.stopped = true;
            return Some(Change::Stopped(signal));
        }
        self.stopped = false;
        Some(Change::Continued)
    }

    /// The next change that the guardian reports.
    fn take_report(&mut self) -> Option<Change> {
        loop {
            return Some(match self.guardian.as_mut()?.take_report()? {
                Report::Others(any) => {
                    self.others_left = Some(any);
                    continue;
                }
                Report::Running => {
                    self.stopped = false;
                    Change::Continued
                }
                // Out of date if it was continued meanwhile, perhaps by this process.
                Report::Stopped(_)
                    if processes::of(self.pid()).is_some_and(|command| !command.is_stopped) =>
                {
                    continue;
                }
                Report::Stopped(signal) => {
                    self.stopped = true;
                    Change::Stopped(signal)
                }
                Report::Ended(status) => self.has_ended(status),
            });
        }
    }

    fn has_ended(&mut self, status: Status) -> Change {
        self.ended = Some(status);
        self.stopped = false;
        self.take_terminal();
        Change::Ended(status)
    }

    fn waitid(&self, options: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
        waitid(WaitId::Pid(self.pid), options)
    }

    /// Collects the status of the command's first process if it has ended, which frees its ID.
    pub(super) fn reap(&mut self) {
        if self.ended.is_none() || self.reaped {
            return;
        }
        match &mut self.guardian {
            Some(guardian) if guardian::IS_PARENT => guardian.reap(),
            _ => drop(waitpid(Some(self.pid), WaitOptions::empty())),
        }
        self.reaped = true;
    }

    /// What is left of the command, whose first process has ended. Does not block.
    pub(super) fn left(&mut self) -> Left {
        self.reap();
        // Without children there are no descendants, so there is nothing to look for.
        let any = match self.parent() {
            Some(_) => self.others_left,
            None if self.adopts => Some(self.reap_others()),
            None => Some(true),
        };
        // To list all processes costs more than the rest of a short run.
        match any {
            Some(false) => return Left::Nothing,
            None if self.waits_for_answer() => return Left::Unknown,
            _ => {}
        }
        let members = self.members();
        // There are children, but none is listed: they are hidden, or have ended since.
        let unseen = members.is_empty()
            && if self.root().is_some() {
                self.others.is_empty() || self.parent().is_some()
            } else {
                // Zombies do not count. Without a list of processes, the group decides.
                self.has_group() && !processes::are_listed() && self.group_exists()
            };
        if members.is_empty() && !unseen {
            return Left::Nothing;
        }
        if unseen && self.root().is_some() {
            if self.waits_for_answer() {
                return Left::Unknown;
            }
        } else if any.is_some() {
            self.asked = None;
        }
        let (group, outside): (Vec<_>, Vec<_>) = members
            .iter()
            .partition(|process| self.is_in_group(process));
        let pids = |processes: Vec<&Process>| processes.iter().map(|process| process.pid).collect();
        Left::Some(Leftovers {
            in_group: !group.is_empty() || (unseen && self.has_group() && self.group_exists()),
            group: pids(group),
            outside: pids(outside),
        })
    }

    /// Whether what is left may still become known, if that is asked now at the latest.
    fn waits_for_answer(&mut self) -> bool {
        let now = timer::now();
        now < *self.asked.get_or_insert(now) + ANSWER
    }

    /// Whether the guardian is about to say what is left: usually nothing.
    pub(super) fn awaits_answer(&self) -> bool {
        self.asked
            .is_some_and(|asked| timer::now() < asked + ANSWER)
    }

    fn group_exists(&self) -> bool {
        !is_gone(&sys::kill(-self.pid(), 0))
    }

    /// The command's running processes, as far as they can be listed.
    fn members(&self) -> Vec<Process> {
        let pid = self.pid();
        let root = self.root();
        let mut found = processes::below(root.unwrap_or(pid), &self.others);
        if root.is_none() && self.has_group() {
            let is_new = |process: &Process| process.group == pid && !found.contains(process);
            let orphans: Vec<_> = processes::all().into_iter().filter(is_new).collect();
            found.extend(orphans);
        }
        let guardian = self.guardian.as_ref().map(Guardian::pid);
        found.retain(|process| !process.is_zombie && Some(process.pid) != guardian);
        found
    }

    /// Collects the status of ended children other than the first: orphans. Returns whether any
    /// children are left.
    fn reap_others(&mut self) -> bool {
        loop {
            let pid = match sys::ended_child() {
                Ok(Some(pid)) if pid != self.pid() || self.reaped => pid,
                Ok(_) => return true,
                Err(error) => return error.raw_os_error() != Some(libc::ECHILD),
            };
            if waitpid(Pid::from_raw(pid), WaitOptions::NOHANG).is_err() {
                return true;
            }
            self.others.retain(|&other| other != pid);
        }
    }
}

/// Makes this process adopt the orphans among its descendants. Returns whether it does.
///
/// It does not if it has other children (`alone` is false), whose orphans are not the command's;
/// process 1 adopts all in any case.
fn adopt_orphans(alone: bool) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{getpid, set_child_subreaper};
        getpid().is_init() || (alone && set_child_subreaper(Some(getpid())).is_ok())
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = alone;
        false
    }
}

/// The children of this process.
fn children() -> Vec<i32> {
    let own = std::process::id() as i32;
    let children = processes::children(own);
    children.iter().map(|process| process.pid).collect()
}

/// Whether there was no process to signal. If it was not permitted, there was one.
fn is_gone(sent: &io::Result<()>) -> bool {
    matches!(sent, Err(error) if error.raw_os_error() == Some(libc::ESRCH))
}

/// Turns the failure to find any process into a success.
fn unless_missing(sent: io::Result<()>) -> io::Result<()> {
    if is_gone(&sent) { Ok(()) } else { sent }
}
