//! The system calls that have no safe wrapper: all `unsafe` of the program is in this file.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};
use std::fs::File;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::{io, ptr};

/// Whether `signal` is ignored now, as it is for a command that `nohup` started.
pub(super) fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction only writes the present one to `action`, which is
    // large enough for it; all zeroes are a valid value if it fails.
    let action = unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Sends `signal` to a process, or to a group if `target` is negative.
///
/// Real-time signals have no name that a safe wrapper would take.
pub(super) fn kill(target: i32, signal: c_int) -> io::Result<()> {
    // 0, 1 and -1 would mean others than our own: a mistake here must not reach them.
    if matches!(target, -1..=1) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: kill takes two integers and touches no memory.
    match unsafe { libc::kill(target, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process group of `pid`, or of this process for 0. It is 0 itself if it has no number in this
/// process's namespace, which a safe wrapper does not expect.
pub(super) fn group_of(pid: i32) -> Option<i32> {
    // SAFETY: getpgid takes an integer and touches no memory.
    Some(unsafe { libc::getpgid(pid) }).filter(|&group| group >= 0)
}

/// A child of this process that has ended and whose status nobody has taken, if there is one; it
/// stays so. `ECHILD` if there are no children at all.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn ended_child() -> io::Result<Option<i32>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid writes nothing but `info`, which all zeroes are a valid value of. It holds the
    // number of a child, or zeroes still.
    let pid = unsafe {
        if libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) != 0 {
            return Err(io::Error::last_os_error());
        }
        info.assume_init().si_pid()
    };
    Ok(Some(pid).filter(|&pid| pid > 0))
}

/// Of no use where orphans do not become children of this process.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn ended_child() -> io::Result<Option<i32>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A signal that was read from a descriptor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) signal: c_int,
    /// The process that sent it, unless the system did.
    pub(super) sender: Option<i32>,
    pub(super) is_kernels: bool,
}

/// The real-time signals of Linux, read from a descriptor. To handle each would take a table that is
/// copied for every one of them. Other systems have none that anybody uses.
pub(super) struct RealTimeSignals(Option<File>);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl RealTimeSignals {
    /// Blocks those that are not ignored, in this thread and in those that it starts; another
    /// thread would take them. They are read here from then on.
    pub(super) fn block() -> io::Result<Self> {
        let mut fd = -1;
        SignalMask::change(libc::SIG_BLOCK, |set| {
            let all = libc::SIGRTMIN()..=libc::SIGRTMAX();
            for signal in all.filter(|&signal| !is_ignored(signal)) {
                // SAFETY: `set` is an initialised set, and the number is a signal's.
                unsafe { libc::sigaddset(set, signal) };
            }
            // SAFETY: signalfd only reads the set, which is initialised.
            fd = unsafe { libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        });
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Some(fd.into())))
    }

    /// The next one that has arrived. Never blocks.
    pub(super) fn take(&self) -> Option<Queued> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        if !matches!(self.0.as_ref()?.read(&mut info), Ok(length) if length == info.len()) {
            return None;
        }
        // SAFETY: the structure is made of integers alone, so any bytes are a value of it, and
        // there are as many as it takes.
        let info = unsafe { ptr::read_unaligned(info.as_ptr().cast::<libc::signalfd_siginfo>()) };
        Some(Queued {
            signal: info.ssi_signo.cast_signed(),
            // A timer, for one, has none.
            sender: Some(info.ssi_pid.cast_signed()).filter(|&pid| pid > 0),
            is_kernels: info.ssi_code == libc::SI_KERNEL,
        })
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl RealTimeSignals {
    pub(super) fn block() -> io::Result<Self> {
        Ok(Self(None))
    }

    pub(super) fn take(&self) -> Option<Queued> {
        None
    }
}

impl RealTimeSignals {
    /// Readable when one has arrived.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }
}

/// A descriptor that was inherited by number, for writing to. Children do not get it.
pub(super) fn inherited_file(number: c_int) -> io::Result<File> {
    // SAFETY: fcntl with these commands takes integers and touches no memory; a number that is no
    // descriptor is an error. The descriptor that F_DUPFD_CLOEXEC returns is new and ours.
    unsafe {
        let fd = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        if number > 2 {
            libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

/// Which signals a thread does not take.
#[derive(Clone, Copy)]
pub(super) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Blocks `SIGTTOU` in this thread and in those that it starts. Returns the mask from before.
    ///
    /// A background process may then write to the terminal and hand it over, instead of being
    /// stopped for it.
    pub(super) fn block_terminal_output() -> Self {
        Self::change(libc::SIG_BLOCK, |set| {
            // SAFETY: `set` is an initialised set, and the number is a signal's.
            unsafe { libc::sigaddset(set, libc::SIGTTOU) };
        })
    }

    /// Blocks all signals in this thread. Returns the mask from before.
    fn block_all() -> Self {
        Self::change(libc::SIG_BLOCK, |set| {
            // SAFETY: `set` points to a set.
            unsafe { libc::sigfillset(set) };
        })
    }

    fn change(how: c_int, fill: impl FnOnce(*mut libc::sigset_t)) -> Self {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises `set`, and once more `before`, so that it is a set also
        // if pthread_sigmask should fail; that writes nothing but `before`.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigemptyset(before.as_mut_ptr());
            fill(set.as_mut_ptr());
            libc::pthread_sigmask(how, set.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Makes this the thread's mask. Safe to call between fork and exec.
    fn restore(&self) {
        // SAFETY: pthread_sigmask only reads the set, which is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

/// What a child does to itself between fork and exec.
pub(super) struct Launch {
    /// The program's file.
    pub(super) program: CString,
    /// Its arguments, its name first.
    pub(super) args: Vec<CString>,
    /// Its environment, as `NAME=value`.
    pub(super) environment: Vec<CString>,
    /// The mask that it starts with.
    pub(super) mask: SignalMask,
    /// Signals that this process handles, which the child takes as by default.
    pub(super) handled: Vec<c_int>,
    /// The terminal that it makes its own group's.
    pub(super) terminal: Option<OwnedFd>,
    /// Whether it leaves the session for one of its own.
    pub(super) new_session: bool,
    /// Whether it is sent `SIGTERM` when the thread that starts it ends.
    pub(super) dies_with_parent: bool,
}

/// Pointers into strings that live as long, with a null at the end.
struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the strings are owned, never changed, and on the heap: moving this moves none of them.
unsafe impl Send for Pointers {}
// SAFETY: as above; nothing here can be changed through a shared reference.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr());
        Self {
            pointers: pointers.chain([ptr::null()]).collect(),
            _strings: strings,
        }
    }
}

/// Starts the child. Signals that arrive meanwhile reach this process afterwards, and a child that
/// is already its own process group takes them as by default.
pub(super) fn spawn(mut command: Command, launch: Launch) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let args = Pointers::new(launch.args);
    let environment = Pointers::new(launch.environment);
    let before = SignalMask::block_all();
    let prepare = move || {
        // Captured whole, and not field by field: only the whole may be sent to the child.
        let (args, environment) = (&args, &environment);
        if launch.new_session {
            rustix::process::setsid()?;
        }
        if let Some(terminal) = &launch.terminal {
            // SIGTTOU is blocked, so a background group may do this.
            let own = rustix::process::getpid();
            rustix::termios::tcsetpgrp(terminal, own)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if launch.dies_with_parent {
            use rustix::process::{Signal, getppid, set_parent_process_death_signal};
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() != Some(parent) {
                // It died before it could be heard of.
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (parent, launch.dies_with_parent);
        for &signal in &launch.handled {
            // SAFETY: sets the default action, which needs no handler; async-signal-safe.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        launch.mask.restore();
        // SAFETY: the path and both arrays end with a null, and live until the exec or the return.
        // Not execvp, which would run a file of unknown format with sh.
        unsafe {
            libc::execve(
                launch.program.as_ptr(),
                args.pointers.as_ptr(),
                environment.pointers.as_ptr(),
            );
        }
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and exec `prepare` only makes system calls that are async-signal-safe
    // (setsid, tcsetpgrp, prctl, getppid, sigaction, sigprocmask, execve), on memory that was
    // prepared before. It allocates nothing: errors are built from numbers.
    let child = unsafe { command.pre_exec(prepare) }.spawn();
    before.restore();
    child
}

/// Ends this process by `signal`, so that whoever waits for it sees what ended the child. Returns
/// if the signal does not end a process.
pub(super) fn raise_default(signal: c_int) {
    // The core, if any, is the child's.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: setrlimit reads the limits; signal sets the default action, which needs no handler;
    // the set is initialised before it is used; raise touches no memory.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
        libc::raise(signal);
    }
}
