//! The command: started, watched, signalled, and known to be gone.

use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, waitid, waitpid};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP};

use super::process::{self, Process};
use super::program::{Program, c_string};
use super::sys::{self, Launch, SignalMask};
use super::terminal::{Group, Place, Terminal};

/// How often the processes of a command are listed for one signal.
const ROUNDS: u32 = 8;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Exited(i32),
    Killed { signal: c_int, dumped: bool },
}

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Stopped(c_int),
    Continued,
    Ended(Status),
}

/// The processes that a command left behind, as far as they can be listed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// There are some in its process group.
    pub(super) in_group: bool,
    /// Those.
    pub(super) group: Vec<i32>,
    /// Those that left the group, such as daemons.
    pub(super) outside: Vec<i32>,
}

impl Left {
    /// All of them.
    pub(super) fn pids(&self) -> Vec<i32> {
        [&*self.group, &*self.outside].concat()
    }
}

/// How a command is started.
pub(super) struct Start<'a> {
    pub(super) program: &'a Program,
    pub(super) environment: Vec<std::ffi::CString>,
    /// The mask from before this process changed its own.
    pub(super) mask: SignalMask,
    /// The signals that this process handles.
    pub(super) handled: Vec<c_int>,
    pub(super) dies_with_parent: bool,
}

/// A command that was started.
pub(super) struct Job {
    child: Child,
    pid: Pid,
    group: Group,
    terminal: Option<Terminal>,
    /// The terminal was given to the command, which may have given it to others.
    lent: bool,
    ended: Option<Status>,
    /// Its status was taken, and its number may be another's soon.
    reaped: bool,
    stopped: bool,
    /// Orphans of the command become children of this process.
    adopts: bool,
    /// Children that this process had before, from the program that it took the place of.
    others: Vec<i32>,
    /// Those outside of the group that were asked to end.
    told: Vec<i32>,
    /// Processes outside of the group that were stopped here.
    frozen: Vec<i32>,
    /// Some child has moved since they were looked at.
    moved: bool,
}

impl Job {
    /// Starts the command. To be called on the main thread: the system watches the thread that
    /// starts a child, not its process.
    pub(super) fn start(start: Start<'_>, place: Place) -> io::Result<Self> {
        let others = if sys::ended_child().is_ok() {
            children()
        } else {
            Vec::new()
        };
        let adopts = adopt_orphans(others.is_empty());
        // Only a foreground group may pass the foreground on.
        let foreground =
            place.hands_over() && place.terminal.as_ref().is_some_and(Terminal::is_ours);
        let terminal: Option<OwnedFd> = match &place.terminal {
            Some(terminal) if foreground => Some(terminal.try_clone()?),
            _ => None,
        };
        let program = start.program;
        let mut command = Command::new(&program.file);
        if place.group == Group::Own {
            use std::os::unix::process::CommandExt as _;
            command.process_group(0);
        }
        let launch = Launch {
            program: c_string(&program.file),
            args: program.args.iter().map(c_string).collect(),
            environment: start.environment,
            mask: start.mask,
            handled: start.handled,
            terminal,
            new_session: place.group == Group::Session,
            dies_with_parent: start.dies_with_parent,
        };
        match sys::spawn(command, launch) {
            Ok(child) => Ok(Self {
                pid: Pid::from_child(&child),
                child,
                group: place.group,
                terminal: place.terminal,
                lent: foreground,
                ended: None,
                reaped: false,
                stopped: false,
                adopts,
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

    /// Whether the terminal decides about stopping and going on.
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

    /// Puts this process in the foreground, if the command is there, or was and left it to nobody.
    pub(super) fn take_terminal(&mut self) {
        if let (Group::Own, Some(terminal)) = (self.group, &self.terminal) {
            self.lent &= !terminal.take_back(self.pid, self.lent);
        }
    }

    /// Passes `signal` on to the command: those that end or stop it to its group, as a terminal
    /// does, the rest to the first process, since helpers may not expect them.
    pub(super) fn signal(&self, signal: c_int) {
        match signal {
            SIGHUP | SIGINT | SIGQUIT | SIGTERM | SIGCONT | SIGTSTP => self.signal_group(signal),
            _ => self.signal_first(signal),
        }
    }

    fn signal_first(&self, signal: c_int) {
        if !self.reaped {
            let _ = sys::kill(self.pid(), signal);
        }
    }

    /// Sends `signal` to the command's group; where that is ours, to the command's processes in it.
    pub(super) fn signal_group(&self, signal: c_int) {
        // A group keeps its number from being used again for as long as it has members: its first
        // process for one, until that is reaped.
        if self.has_group() && !(self.reaped && process::are_listed()) {
            let _ = sys::kill(-self.pid(), signal);
        } else {
            self.signal_first(signal);
            self.signal_listed(signal, |process| self.is_in_group(process));
        }
    }

    /// Sends `signal` to the listed processes that are `wanted`, but for the first. Returns to which.
    fn signal_listed(&self, signal: c_int, wanted: impl Fn(&Process) -> bool) -> Vec<i32> {
        // A process may fork while the signal goes round: again, until nobody is new. But what a
        // handler of another signal starts is to be left alone.
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
            for process in new {
                let _ = sys::kill(process.pid, signal);
                told.push(process.pid);
            }
        }
        told
    }

    /// Asks all of the command to end by `signal`: its group, and outside of that the orphans and
    /// the first of each other group, such as a timeout(1), which passes it on. What a nested
    /// azmutex started is left to that.
    pub(super) fn end(&mut self, signal: c_int) {
        self.signal_group(signal);
        self.told.clear();
        self.end_outside(signal, |process| process.pid == process.group);
        // A stopped process takes no other signal before it goes on.
        self.thaw();
    }

    /// Asks those to end that have become orphans since.
    pub(super) fn end_orphans(&mut self, signal: c_int) {
        self.end_outside(signal, |_| false);
    }

    fn end_outside(&mut self, signal: c_int, wanted: impl Fn(&Process) -> bool) {
        let own = std::process::id() as i32;
        let members = self.members();
        let nested = members.iter().filter(|process| process.is_azmutex);
        let sheltered: Vec<_> = nested
            .flat_map(|nested| process::descendants(&members, nested.pid, &[]))
            .collect();
        for process in members {
            let is_orphan = self.adopts && process.parent == own;
            if (is_orphan || wanted(&process))
                && process.pid != self.pid()
                && !self.is_in_group(&process)
                && !sheltered.contains(&process)
                && !self.told.contains(&process.pid)
            {
                let _ = sys::kill(process.pid, signal);
                let _ = sys::kill(process.pid, SIGCONT);
                self.told.push(process.pid);
            }
        }
    }

    /// Stops all of the command.
    pub(super) fn freeze(&mut self) {
        self.signal_group(SIGSTOP);
        self.freeze_outside();
    }

    /// Stops what the suspend key does not reach.
    pub(super) fn freeze_outside(&mut self) {
        let frozen = self.signal_listed(SIGSTOP, |process| {
            !process.is_stopped && !self.is_in_group(process)
        });
        self.frozen.extend(frozen);
    }

    /// Lets the command go on. What is stopped outside of its group for reasons of its own stays so.
    pub(super) fn thaw(&mut self) {
        self.signal_group(SIGCONT);
        let frozen = mem::take(&mut self.frozen);
        if !frozen.is_empty() {
            self.signal_listed(SIGCONT, |process| frozen.contains(&process.pid));
        }
    }

    /// Kills all processes of the command.
    pub(super) fn kill_all(&self) {
        self.signal_group(SIGKILL);
        self.signal_listed(SIGKILL, |_| true);
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

    /// Whether `pid` is of the command, so that what it sends to this process is no news to it.
    pub(super) fn contains(&self, pid: i32) -> bool {
        let own = pid == self.pid();
        match self.group {
            _ if own => true,
            Group::Own | Group::Session => sys::group_of(pid) == Some(self.pid()),
            Group::Shared => process::descends(pid, self.pid()),
        }
    }

    /// Some child of this process has moved, says the system.
    pub(super) fn child_moved(&mut self) {
        self.moved = true;
    }

    /// What the command did since the last call. Does not wait.
    pub(super) fn poll(&mut self) -> Option<Change> {
        if self.adopts && mem::take(&mut self.moved) {
            self.reap_others();
        }
        if self.ended.is_some() {
            return None;
        }
        // Its status is not taken yet, which keeps its number and its group's from being reused.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Some(status) = self.waitid(ended).and_then(|status| status_of(&status)) {
            self.ended = Some(status);
            self.stopped = false;
            self.take_terminal();
            return Some(Change::Ended(status));
        }
        let moved = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        let status = self.waitid(moved)?;
        if let Some(signal) = status.stopping_signal() {
            self.stopped = true;
            return Some(Change::Stopped(signal));
        }
        self.stopped = false;
        Some(Change::Continued)
    }

    fn waitid(&self, options: WaitIdOptions) -> Option<WaitIdStatus> {
        waitid(WaitId::Pid(self.pid), options).ok().flatten()
    }

    /// Takes the status of the command's first process if it has ended, after which its number is
    /// free.
    pub(super) fn reap(&mut self) {
        if self.ended.is_some() && !self.reaped && self.child.wait().is_ok() {
            self.reaped = true;
        }
    }

    /// What is left of the command, whose first process has ended; `None` if nothing is.
    pub(super) fn left(&mut self) -> Option<Left> {
        self.reap();
        // Without children there are no descendants, so that nobody has to be looked for.
        if self.adopts && !self.reap_others() {
            return None;
        }
        let members = self.members();
        let unseen = members.is_empty()
            && if self.adopts {
                // Some cannot be seen, or have ended since.
                self.others.is_empty() && self.reap_others()
            } else {
                // Zombies are of no consequence. Where there is no list, the group counts.
                self.has_group() && !process::are_listed() && self.group_exists()
            };
        if members.is_empty() && !unseen {
            return None;
        }
        let (group, outside): (Vec<_>, Vec<_>) = members
            .iter()
            .partition(|process| self.is_in_group(process));
        let pids = |processes: Vec<&Process>| processes.iter().map(|process| process.pid).collect();
        Some(Left {
            in_group: !group.is_empty() || (unseen && self.has_group() && self.group_exists()),
            group: pids(group),
            outside: pids(outside),
        })
    }

    fn group_exists(&self) -> bool {
        !is_gone(&sys::kill(-self.pid(), 0))
    }

    /// The processes of the command that run, as far as they can be listed.
    fn members(&self) -> Vec<Process> {
        let all = process::all();
        let (pid, own) = (self.pid(), std::process::id() as i32);
        let root = if self.adopts { own } else { pid };
        let mut found = process::descendants(&all, root, &self.others);
        if !self.adopts && self.has_group() {
            let is_new = |process: &&Process| process.group == pid && !found.contains(process);
            let orphans: Vec<_> = all.iter().filter(is_new).copied().collect();
            found.extend(orphans);
        }
        found.retain(|process| !process.is_zombie);
        found
    }

    /// Takes the status of children other than the first, which are orphans. Returns whether there
    /// are children then.
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

/// Has orphans of descendants become children of this process. Returns whether they do.
///
/// Not if it is not `alone` but has other children, whose orphans are not the command's; the first
/// process has no choice.
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
    let all = process::all().into_iter();
    all.filter(|process| process.parent == own)
        .map(|process| process.pid)
        .collect()
}

fn status_of(status: &WaitIdStatus) -> Option<Status> {
    if let Some(code) = status.exit_status() {
        return Some(Status::Exited(code));
    }
    status.terminating_signal().map(|signal| Status::Killed {
        signal,
        dumped: status.dumped(),
    })
}

/// Whether there was nobody to send a signal to. Not being allowed to means that there was.
fn is_gone(sent: &io::Result<()>) -> bool {
    matches!(sent, Err(error) if error.raw_os_error() == Some(libc::ESRCH))
}
