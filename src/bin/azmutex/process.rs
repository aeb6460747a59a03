//! Another process: waits for its end, and sends it signals.

use crate::output::Failure;
use crate::processes;

/// Whether a process with this ID exists.
#[cfg(unix)]
pub(crate) fn is_there(pid: i32) -> bool {
    // A process that this one may not signal exists too.
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
pub(crate) fn is_there(_: i32) -> bool {
    false
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

/// Sends `signal` to a process, unless its ID was reused.
#[cfg(unix)]
pub(crate) fn send(signal: i32, process: &processes::Process) -> std::io::Result<()> {
    let pid = rustix::process::Pid::from_raw(process.pid)
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    let handle = system::Handle::open(pid)?;
    // Checked once there is a handle, which keeps referring to the same process.
    if !process.still_runs() {
        return Ok(());
    }
    handle.signal(named(signal)?)
}

#[cfg(not(unix))]
pub(crate) fn send(_: i32, _: &processes::Process) -> std::io::Result<()> {
    Ok(())
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
