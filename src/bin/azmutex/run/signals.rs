//! Signals as values, with their origin.

use std::ffi::c_int;
use std::io;
use std::iter;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    SIGWINCH,
};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::sys::{self, Queued, RealTimeSignals};

/// What is passed on to the command, besides the real-time signals of Linux.
const FORWARDED: [c_int; 9] = [
    SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGCONT,
];

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) signal: c_int,
    pub(super) origin: Sender,
}

/// Who sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// The system, such as a terminal for a key: to the whole group.
    Kernel,
    /// A process, to this one or to its group.
    Process(i32),
    /// The system does not say.
    Unknown,
}

impl Arrived {
    /// Whether it asks to end, rather than to do or to know something.
    pub(super) fn ends(self) -> bool {
        !matches!(self.signal, SIGCHLD | SIGCONT | SIGTSTP | SIGWINCH)
    }
}

/// The signals that this process takes. What was ignored when it started stays so, for the child
/// to inherit.
pub(super) struct Signals {
    /// Never dropped: to take back one handler after another would be a fifth of all that a short
    /// run computes, and this process takes signals until it ends.
    delivery: ManuallyDrop<SignalDelivery<UnixStream, WithOrigin>>,
    handled: Vec<c_int>,
    real_time: RealTimeSignals,
}

impl Signals {
    /// Handles them from here on.
    pub(super) fn install(real_time: RealTimeSignals) -> io::Result<Self> {
        let handled: Vec<_> = FORWARDED
            .into_iter()
            .filter(|&signal| !sys::is_ignored(signal))
            // An ignored SIGCHLD would have children reaped before their status is read.
            .chain([SIGCHLD])
            .collect();
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), &handled)?;
        Ok(Self {
            delivery: ManuallyDrop::new(delivery),
            handled,
            real_time,
        })
    }

    /// Handles ^Z too, which stops this process by itself before there is a child.
    pub(super) fn install_stop(&mut self) -> io::Result<()> {
        if !sys::is_ignored(SIGTSTP) {
            self.delivery.handle().add_signal(SIGTSTP)?;
            self.handled.push(SIGTSTP);
        }
        Ok(())
    }

    /// The signals with a handler.
    pub(super) fn handled(&self) -> &[c_int] {
        &self.handled
    }

    /// Readable when a signal has arrived: one of them.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [self.delivery.get_read().as_fd()]
            .into_iter()
            .chain(self.real_time.fd())
    }

    /// What has arrived.
    pub(super) fn take(&mut self) -> Vec<Arrived> {
        let handled = self.delivery.pending();
        let mut all: Vec<_> = handled.map(|origin| arrived(&origin)).collect();
        all.extend(iter::from_fn(|| self.real_time.take()).map(queued));
        all
    }
}

fn arrived(origin: &Origin) -> Arrived {
    let process = origin.process.as_ref().map_or(0, |process| process.pid);
    Arrived {
        signal: origin.signal,
        origin: match origin.cause {
            Cause::Kernel => Sender::Kernel,
            Cause::Sent(_) => Sender::Process(process),
            // Systems that give no cause give the sender, or 0 for the system.
            Cause::Unknown if process > 0 => Sender::Process(process),
            _ => Sender::Unknown,
        },
    }
}

fn queued(queued: Queued) -> Arrived {
    Arrived {
        signal: queued.signal,
        origin: match queued.sender {
            _ if queued.is_kernels => Sender::Kernel,
            Some(process) => Sender::Process(process),
            None => Sender::Unknown,
        },
    }
}
