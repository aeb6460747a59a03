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

    /// How many processes are signalled at a time. Of more, the rest is next.
    const CAPACITY: usize = 1024;

    /// How often the processes are listed for one signal: they may fork while it goes round.
    const ROUNDS: u32 = 8;

    /// All descendants of this process.
    pub(in crate::run) struct Tree {
        command: i32,
        found: Vec<Process>,
        /// Those that were stopped here.
        stopped: Vec<i32>,
    }

    impl Tree {
        /// To be made before the fork.
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

        /// The command's first process was reaped, and its number may be another's.
        pub(in crate::run) fn forget_command(&mut self) {
            self.command = 0;
        }

        /// Stops all that is not stopped already.
        pub(in crate::run) fn freeze(&mut self) {
            self.stopped.clear();
            for _ in 0..ROUNDS {
                let before = self.stopped.len();
                let stopped = &mut self.stopped;
                // At once when it is seen: one that forks and ends could be gone by the end of the
                // list.
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

        /// Lets those go on that were stopped here.
        pub(in crate::run) fn thaw(&mut self) {
            list(&mut self.found, |_| {});
            for process in &self.found {
                if self.stopped.contains(&process.pid) {
                    let _ = sys::kill(process.pid, SIGCONT);
                }
            }
            self.signal_unlisted(SIGCONT);
        }

        /// Asks all to end, but for those that another azmutex started, which asks them itself.
        pub(in crate::run) fn terminate(&mut self) {
            list(&mut self.found, |_| {});
            for process in &self.found {
                if !self.is_sheltered(process) {
                    let _ = sys::kill(process.pid, SIGTERM);
                    // A stopped process takes no other signal before it goes on.
                    let _ = sys::kill(process.pid, SIGCONT);
                }
            }
            self.signal_unlisted(SIGTERM);
            self.signal_unlisted(SIGCONT);
        }

        /// Kills all that there are now.
        ///
        /// They are stopped first, so that nobody goes on with what comes next because a child has
        /// ended; and children are killed before their parents, since the system continues a
        /// stopped group when the last parent that it has in its session ends.
        pub(in crate::run) fn kill(&mut self) {
            self.freeze();
            list(&mut self.found, |_| {});
            for process in self.found.iter().rev() {
                let _ = sys::kill(process.pid, SIGKILL);
            }
            self.signal_unlisted(SIGKILL);
        }

        /// Where processes cannot be listed, the command's group has to do.
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

    /// Finds all descendants of this process that have not ended, and shows each as soon as it is
    /// found.
    fn list(found: &mut Vec<Process>, mut show: impl FnMut(&Process)) {
        let own = getpid().as_raw_nonzero().get();
        found.clear();
        if !processes::are_listed() {
            return;
        }
        loop {
            let before = found.len();
            processes::for_each(|process| {
                let is_ours =
                    process.parent == own || found.iter().any(|known| known.pid == process.parent);
                let is_new = !found.iter().any(|known| known.pid == process.pid);
                if is_ours && is_new && !process.is_zombie && found.len() < CAPACITY {
                    show(&process);
                    found.push(process);
                }
            });
            if found.len() == before {
                return;
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod other {
    use std::ffi::c_int;

    use rustix::process::Pid;
    use signal_hook::consts::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};

    use crate::run::sys;

    /// The command's process group, or its first process where it has none of its own: the system
    /// does not tell of more.
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
