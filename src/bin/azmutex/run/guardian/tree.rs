//! The processes of a command, as its guardian signals them. Allocates nothing once it is made.

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use self::linux::Tree;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use self::other::Tree;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::ffi::c_int;

    use rustix::process::{Pid, getpid};
    use signal_hook::consts::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};

    use crate::processes::{self, Process};
    use crate::run::sys;

    /// How many processes are signalled at a time. The rest follow once those are gone.
    const CAPACITY: usize = 1024;

    /// How often the processes are listed for one signal: they may fork in the meantime.
    const ROUNDS: u32 = 8;

    /// All descendants of this process.
    pub(in crate::run) struct Tree {
        command: i32,
        found: Vec<Process>,
        /// Those that were stopped here.
        stopped: Vec<i32>,
    }

    impl Tree {
        /// Call it before the fork: it allocates.
        pub(in crate::run) fn new(_: bool) -> Self {
            Self {
                command: 0,
                found: Vec::with_capacity(CAPACITY),
                stopped: Vec::with_capacity(CAPACITY),
            }
        }

        pub(in crate::run) fn set_command(&mut self, command: Pid) {
            self.command = command.as_raw_nonzero().get();
        }

        /// The command's first process was reaped, so its ID may be reused.
        pub(in crate::run) fn forget_command(&mut self) {
            self.command = 0;
        }

        /// Stops every process that is not stopped yet.
        pub(in crate::run) fn freeze(&mut self) {
            self.stopped.clear();
            for _ in 0..ROUNDS {
                let before = self.stopped.len();
                let stopped = &mut self.stopped;
                // As soon as it is seen: by the end of the list it could have forked and ended.
                list(&mut self.found, |process| {
                    let is_new = !process.is_stopped && !stopped.contains(&process.pid);
                    if is_new && stopped.len() < CAPACITY {
                        let _ = sys::kill(process.pid, SIGSTOP);
                        stopped.push(process.pid);
                    }
                });
                if self.stopped.len() == before {
                    break;
                }
            }
            self.signal_unlisted(SIGSTOP);
        }

        /// Continues the processes that `freeze` stopped.
        pub(in crate::run) fn thaw(&mut self) {
            list(&mut self.found, |_| {});
            for process in &self.found {
                if self.stopped.contains(&process.pid) {
                    let _ = sys::kill(process.pid, SIGCONT);
                }
            }
            self.signal_unlisted(SIGCONT);
        }

        /// Asks all to end, except those that a nested azmutex started: it asks them itself.
        pub(in crate::run) fn terminate(&mut self) {
            list(&mut self.found, |_| {});
            for process in &self.found {
                if !self.is_sheltered(process) {
                    let _ = sys::kill(process.pid, SIGTERM);
                    // A stopped process handles no other signal until it is continued.
                    let _ = sys::kill(process.pid, SIGCONT);
                }
            }
            self.signal_unlisted(SIGTERM);
            self.signal_unlisted(SIGCONT);
        }

        /// Kills all processes that exist now.
        ///
        /// They are stopped first, so that no shell moves on to its next step because a child has
        /// ended. Children are killed before their parents, since the system continues a stopped
        /// group when it becomes orphaned.
        pub(in crate::run) fn kill(&mut self) {
            self.freeze();
            list(&mut self.found, |_| {});
            for process in self.found.iter().rev() {
                let _ = sys::kill(process.pid, SIGKILL);
            }
            self.signal_unlisted(SIGKILL);
        }

        /// Where processes cannot be listed, signals the command's group.
        fn signal_unlisted(&self, signal: c_int) {
            if self.found.is_empty() && self.command > 0 {
                let _ = sys::kill(-self.command, signal);
                let _ = sys::kill(self.command, signal);
            }
        }

        /// Whether another azmutex is between this process and `process`.
        fn is_sheltered(&self, process: &Process) -> bool {
            let parent_of = |child: &Process| {
                let mut all = self.found.iter();
                all.find(|candidate| candidate.pid == child.parent)
            };
            let mut at = process;
            for _ in 0..CAPACITY {
                match parent_of(at) {
                    Some(parent) if parent.is_azmutex => return true,
                    Some(parent) => at = parent,
                    None => return false,
                }
            }
            false
        }
    }

    /// Finds all descendants of this process that have not ended, and calls `show` with each as
    /// soon as it is found.
    fn list(found: &mut Vec<Process>, mut show: impl FnMut(&Process)) {
        let own = getpid().as_raw_nonzero().get();
        found.clear();
        if !processes::are_listed() {
            return;
        }
        let lists_children = processes::children_are_listed();
        loop {
            let before = found.len();
            if lists_children {
                see_children(own, found, &mut show);
                let mut at = 0;
                while let Some(&Process { pid, .. }) = found.get(at) {
                    see_children(pid, found, &mut show);
                    at += 1;
                }
            } else {
                processes::for_each(|process| {
                    let mut all = found.iter();
                    if process.parent == own || all.any(|known| known.pid == process.parent) {
                        see(process, found, &mut show);
                    }
                });
            }
            if found.len() == before {
                return;
            }
        }
    }

    fn see_children(pid: i32, found: &mut Vec<Process>, show: &mut impl FnMut(&Process)) {
        processes::for_each_child(pid, |child| see(child, found, show));
    }

    fn see(process: Process, found: &mut Vec<Process>, show: &mut impl FnMut(&Process)) {
        let is_new = !found.iter().any(|known| known.pid == process.pid);
        if is_new && !process.is_zombie && found.len() < CAPACITY {
            show(&process);
            found.push(process);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod other {
    use std::ffi::c_int;

    use rustix::process::Pid;
    use signal_hook::consts::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};

    use crate::run::sys;

    /// The command's process group, or its first process if it shares a group: the system lists no
    /// others.
    pub(in crate::run) struct Tree {
        has_group: bool,
        target: i32,
    }

    impl Tree {
        pub(in crate::run) fn new(has_group: bool) -> Self {
            Self {
                has_group,
                target: 0,
            }
        }

        pub(in crate::run) fn set_command(&mut self, command: Pid) {
            let number = command.as_raw_nonzero().get();
            self.target = if self.has_group { -number } else { number };
        }

        pub(in crate::run) fn freeze(&mut self) {
            let _ = self.signal(SIGSTOP);
        }

        pub(in crate::run) fn thaw(&mut self) {
            let _ = self.signal(SIGCONT);
        }

        pub(in crate::run) fn terminate(&mut self) {
            let _ = self.signal(SIGTERM);
            let _ = self.signal(SIGCONT);
        }

        pub(in crate::run) fn kill(&mut self) {
            let _ = self.signal(SIGKILL);
        }

        pub(in crate::run) fn is_gone(&self) -> bool {
            let error = self.signal(0).err();
            error.is_some_and(|error| error.raw_os_error() == Some(libc::ESRCH))
        }

        fn signal(&self, signal: c_int) -> std::io::Result<()> {
            sys::kill(self.target, signal)
        }
    }
}
