//! Another process: waits for its end, sends it a signal.

use crate::output::Failure;

/// When a running process was started, in ticks since boot, if the system tells. Together with the
/// process ID it identifies a process.
pub(crate) fn started(pid: i32) -> Option<u64> {
    Listed::of(pid).map(|process| process.started)
}

/// The time now, as [`started`] counts it.
#[cfg(target_os = "linux")]
pub(crate) fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // A hundred a second, on every platform, for whoever reads them.
    now.tv_sec.cast_unsigned() * 100 + now.tv_nsec.cast_unsigned() / 10_000_000
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn ticks() -> u64 {
    0
}

/// Whether a process with this ID exists.
#[cfg(unix)]
pub(crate) fn is_there(pid: i32) -> bool {
    // A process that may not be signalled exists, too.
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
pub(crate) fn is_there(_: i32) -> bool {
    false
}

/// A running process, as Linux lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) started: u64,
}

impl Listed {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// All processes; none where they cannot be listed.
    pub(crate) fn all() -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Self::of(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    }

    /// The children of `pid`.
    pub(crate) fn children(pid: i32) -> Vec<Self> {
        // Not all kernels list them.
        if !std::path::Path::new("/proc/thread-self/children").exists() {
            let all = Self::all().into_iter();
            return all.filter(|process| process.parent == pid).collect();
        }
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        let lists = tasks.into_iter().flatten().flatten();
        let lists =
            lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let mut children = Vec::new();
        for list in lists {
            let pids = list.split_ascii_whitespace();
            let of = |pid: &str| Self::of(pid.parse().ok()?);
            children.extend(pids.filter_map(of).filter(|child| child.parent == pid));
        }
        children
    }

    /// Whether it has not ended, and its number is not another's.
    pub(crate) fn still_runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name is in parentheses, and may contain any byte.
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let pid = str::from_utf8(&stat[..open]).ok()?;
        let rest = str::from_utf8(&stat[close + 1..]).ok()?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X" | "x") {
            return None;
        }
        Some(Self {
            pid: pid.trim_ascii().parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    /// The process itself. Its ID may be reused for another process; this handle is not.
    #[derive(Debug, Clone)]
    pub(crate) struct Handle(Arc<OwnedFd>);

    impl Handle {
        pub(crate) fn open(pid: Pid) -> io::Result<Self> {
            Ok(Self(Arc::new(pidfd_open(pid, PidfdFlags::empty())?)))
        }

        pub(crate) fn wait(&self) {
            loop {
                let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(1..) => return,
                    Ok(0) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        }

        pub(crate) fn is_gone(&self) -> bool {
            let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
            matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
        }

        pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
            Ok(pidfd_send_signal(&*self.0, signal)?)
        }
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod system {
    use std::io;
    use std::thread;
    use std::time::Duration;

    use rustix::process::{Pid, Signal, kill_process, test_kill_process};

    #[derive(Debug, Clone)]
    pub(crate) struct Handle(Pid);

    impl Handle {
        pub(crate) fn open(pid: Pid) -> io::Result<Self> {
            match test_kill_process(pid) {
                Ok(()) | Err(rustix::io::Errno::PERM) => Ok(Self(pid)),
                Err(error) => Err(error.into()),
            }
        }

        pub(crate) fn wait(&self) {
            while !self.is_gone() {
                thread::sleep(Duration::from_millis(200));
            }
        }

        pub(crate) fn is_gone(&self) -> bool {
            test_kill_process(self.0) == Err(rustix::io::Errno::SRCH)
        }

        pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
            Ok(kill_process(self.0, signal)?)
        }
    }
}

/// A process that somebody named by its ID.
#[cfg(unix)]
#[derive(Debug, Clone)]
pub(crate) struct Process {
    id: i32,
    handle: system::Handle,
}

#[cfg(unix)]
impl Process {
    pub(crate) fn open(id: i32) -> Result<Self, Failure> {
        let pid = rustix::process::Pid::from_raw(id);
        let handle = pid
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))
            .and_then(system::Handle::open);
        let handle = handle.map_err(|error| {
            Failure::usage(format!("--for-pid {id}: {error}"))
                .hint("pass the ID of a running process, such as $$ in a shell")
        })?;
        Ok(Self { id, handle })
    }

    /// Blocks until it ends.
    pub(crate) fn wait(&self) {
        self.handle.wait();
    }

    pub(crate) fn id(&self) -> i32 {
        self.id
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.handle.is_gone()
    }

    pub(crate) fn signal(&self, signal: i32) -> std::io::Result<()> {
        self.handle.signal(named(signal)?)
    }
}

#[cfg(unix)]
fn named(signal: i32) -> std::io::Result<rustix::process::Signal> {
    rustix::process::Signal::from_named_raw(signal)
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))
}

#[cfg(unix)]
impl Listed {
    /// Sends it a signal, unless its number has become another's.
    pub(crate) fn signal(&self, signal: i32) -> std::io::Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid)
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        let handle = system::Handle::open(pid)?;
        // Asked once there is a handle, which stays this process's.
        if !self.still_runs() {
            return Ok(());
        }
        handle.signal(named(signal)?)
    }
}

#[cfg(not(unix))]
impl Listed {
    pub(crate) fn signal(&self, _: i32) -> std::io::Result<()> {
        Ok(())
    }
}

/// Not supported on this system.
#[cfg(not(unix))]
#[derive(Debug, Clone)]
pub(crate) struct Process;

#[cfg(not(unix))]
impl Process {
    pub(crate) fn open(id: i32) -> Result<Self, Failure> {
        Err(
            Failure::usage(format!("--for-pid {id}: not on this system"))
                .hint("let stdin end instead"),
        )
    }

    pub(crate) fn wait(&self) {}

    pub(crate) fn id(&self) -> i32 {
        0
    }

    pub(crate) fn is_gone(&self) -> bool {
        true
    }

    pub(crate) fn signal(&self, _: i32) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}
