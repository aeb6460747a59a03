//! The system calls that have no safe wrapper: all `unsafe` of the program is in this file.

#![allow(unsafe_code)]

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::ffi::CStr;
use std::ffi::{CString, c_char, c_int, c_uint};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::{io, ptr};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions};

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
        let flags = libc::fcntl(number, libc::F_GETFL);
        if flags >= 0 && flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(io::Error::other("it is open for reading only"));
        }
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
    program: CString,
    args: Pointers,
    environment: Pointers,
    /// How it is started apart from that.
    way: Way,
}

/// How a command is started.
pub(super) struct Way {
    /// The mask that it starts with.
    pub(super) mask: SignalMask,
    /// Signals that this process handles, which the child takes as by default.
    pub(super) handled: Vec<c_int>,
    /// The terminal that it makes its own group's.
    pub(super) terminal: Option<OwnedFd>,
    /// Whether it leaves the process group for one of its own.
    pub(super) new_group: bool,
    /// Whether it leaves the session for one of its own.
    pub(super) new_session: bool,
    /// Whether it is sent `SIGTERM` when the thread that starts it ends.
    pub(super) dies_with_parent: bool,
    /// The limit for cores from before this process changed its own.
    pub(super) core_limit: Option<Rlimit>,
}

/// Pointers into strings that live as long, with a null at the end.
struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr());
        Self {
            pointers: pointers.chain([ptr::null()]).collect(),
            _strings: strings,
        }
    }
}

impl Launch {
    /// `args` begin with the program's name; `environment` is `NAME=value`.
    pub(super) fn new(
        program: CString,
        args: Vec<CString>,
        environment: Vec<CString>,
        way: Way,
    ) -> Self {
        Self {
            program,
            args: Pointers::new(args),
            environment: Pointers::new(environment),
            way,
        }
    }

    /// Becomes the command. Returns why it could not.
    ///
    /// Called in a child that was forked from a process with threads: it only makes system calls
    /// that are async-signal-safe (setsid, setpgid, tcsetpgrp, prctl, getppid, sigaction,
    /// setrlimit, sigprocmask, execve), on memory that was prepared before, and allocates nothing.
    fn exec(&self, parent: Pid) -> Errno {
        match self.prepare(parent) {
            Ok(()) => {}
            Err(error) => return error,
        }
        // SAFETY: the path and both arrays end with a null, and live until the exec or the return.
        // Not execvp, which would run a file of unknown format with sh.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                self.args.pointers.as_ptr(),
                self.environment.pointers.as_ptr(),
            );
        }
        Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
    }

    fn prepare(&self, parent: Pid) -> Result<(), Errno> {
        let way = &self.way;
        if way.new_session {
            rustix::process::setsid()?;
        } else if way.new_group {
            rustix::process::setpgid(None, None)?;
        }
        if let Some(terminal) = &way.terminal {
            // SIGTTOU is blocked, so a background group may do this.
            let own = rustix::process::getpid();
            rustix::termios::tcsetpgrp(terminal, own)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if way.dies_with_parent {
            use rustix::process::{Signal, getppid, set_parent_process_death_signal};
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() != Some(parent) {
                // It died before it could be heard of.
                return Err(Errno::SRCH);
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (parent, way.dies_with_parent);
        // Rust's own start made this process ignore it.
        for signal in way.handled.iter().copied().chain([libc::SIGPIPE]) {
            // SAFETY: sets the default action, which needs no handler; async-signal-safe.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        if let Some(limit) = &way.core_limit {
            // A command whose cores are kept from it is started all the same.
            let _ = rustix::process::setrlimit(Resource::Core, *limit);
        }
        way.mask.restore();
        Ok(())
    }
}

/// A forked process, which ends here whatever becomes of what it does.
struct Forked;

impl Drop for Forked {
    fn drop(&mut self) {
        // SAFETY: ends the process; no code of it runs any more.
        unsafe { libc::_exit(101) }
    }
}

/// Forks. The child calls `then` and ends with what that returns, and never returns from here.
///
/// `then` may only do what is allowed between fork and exec: the threads of this process are not
/// there, and a lock that one of them held (of the allocator, of stdout) stays locked.
fn fork(then: impl FnOnce() -> c_int) -> io::Result<Pid> {
    // SAFETY: the child only runs `then`, which keeps to the rule above, and ends; a panic ends it
    // too, so that it never goes on as if it were this process.
    match unsafe { libc::fork() } {
        0 => {
            let _forked = Forked;
            let code = then();
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// What comes of a start, sent through a pipe: a process ID, or an error's number.
struct Outcome(PipeWriter);

impl Outcome {
    fn send(&self, pid: i32, errno: i32) {
        let mut record = [0; 8];
        record[..4].copy_from_slice(&pid.to_ne_bytes());
        record[4..].copy_from_slice(&errno.to_ne_bytes());
        let _ = rustix::io::write(&self.0, &record);
    }

    /// Reads until the command runs or cannot be executed: then nobody has the pipe any more.
    /// Returns its process ID, if that was sent.
    fn receive(mut from: PipeReader) -> io::Result<Option<Pid>> {
        let mut pid = None;
        let mut record = [0; 8];
        while from.read_exact(&mut record).is_ok() {
            let number = |half: &[u8]| half.try_into().map_or(0, i32::from_ne_bytes);
            match number(&record[4..]) {
                0 => pid = Pid::from_raw(number(&record[..4])),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(pid)
    }
}

/// Starts the command as a child of this process.
///
/// Signals that arrive meanwhile reach this process afterwards, and a child that is already its own
/// process group takes them as by default.
pub(super) fn start(launch: &Launch) -> io::Result<Pid> {
    let own = rustix::process::getpid();
    let (receiver, sender) = io::pipe()?;
    let before = SignalMask::block_all();
    let outcome = Outcome(sender);
    let child = fork(|| {
        outcome.send(0, launch.exec(own).raw_os_error());
        127
    });
    before.restore();
    drop(outcome);
    let child = child?;
    match Outcome::receive(receiver) {
        Ok(_) => Ok(child),
        Err(error) => {
            reap(child);
            Err(error)
        }
    }
}

/// Starts a guardian, and the command as a child of that where orphans can be adopted, or of this
/// process. Returns both.
///
/// `guard` is what the guardian does, once it has started the command; it keeps the descriptors
/// `keep` and those up to 2. It may only do what is allowed between fork and exec.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn start_guarded(
    launch: &Launch,
    keep: [RawFd; 2],
    guard: impl FnOnce(Pid) -> c_int,
) -> io::Result<(Pid, Pid)> {
    let (receiver, sender) = io::pipe()?;
    let before = SignalMask::block_all();
    let outcome = Outcome(sender);
    let guardian = fork(|| {
        let own = rustix::process::getpid();
        if let Err(error) = rustix::process::set_child_subreaper(Some(own)) {
            outcome.send(0, error.raw_os_error());
            return 1;
        }
        let child = fork(|| {
            outcome.send(0, launch.exec(own).raw_os_error());
            127
        });
        match child {
            Ok(child) => {
                outcome.send(child.as_raw_nonzero().get(), 0);
                // The pipe is closed as well.
                close_all_but(keep);
                guard(child)
            }
            Err(error) => {
                outcome.send(0, error.raw_os_error().unwrap_or(libc::EAGAIN));
                1
            }
        }
    });
    before.restore();
    drop(outcome);
    let guardian = guardian?;
    let started = Outcome::receive(receiver)
        .and_then(|child| child.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH)));
    match started {
        Ok(child) => Ok((guardian, child)),
        Err(error) => {
            let _ = kill(guardian.as_raw_nonzero().get(), libc::SIGKILL);
            reap(guardian);
            Err(error)
        }
    }
}

/// As above.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn start_guarded(
    launch: &Launch,
    keep: [RawFd; 2],
    guard: impl FnOnce(Pid) -> c_int,
) -> io::Result<(Pid, Pid)> {
    let child = start(launch)?;
    let before = SignalMask::block_all();
    let guardian = fork(|| {
        close_all_but(keep);
        guard(child)
    });
    before.restore();
    match guardian {
        Ok(guardian) => Ok((guardian, child)),
        Err(error) => {
            let _ = kill(child.as_raw_nonzero().get(), libc::SIGKILL);
            reap(child);
            Err(error)
        }
    }
}

fn reap(child: Pid) {
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
}

/// Closes all descriptors from 3 on but for `keep`.
fn close_all_but(keep: [RawFd; 2]) {
    let [a, b] = keep.map(RawFd::cast_unsigned);
    let (first, last) = (a.min(b), a.max(b));
    for (from, to) in [
        (3, first.saturating_sub(1)),
        (first + 1, last.saturating_sub(1)),
        (last + 1, c_uint::MAX),
    ] {
        if from <= to {
            close_range(from, to);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn close_range(from: c_uint, to: c_uint) {
    // SAFETY: the descriptors belong to values of a process that was forked, which are not used
    // or dropped any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, from, to, 0) != 0 {
            // Linux before 5.9. Nobody has more of them open than a start takes.
            for fd in from..=to.min(1023) {
                libc::close(fd.cast_signed());
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn close_range(from: c_uint, to: c_uint) {
    for fd in from..=to.min(1023) {
        // SAFETY: as above.
        unsafe { libc::close(fd.cast_signed()) };
    }
}

/// Puts nothing in the place of stdin and stdout. Allocates nothing.
pub(super) fn leave_input_and_output() {
    use rustix::fs::{Mode, OFlags, open};
    if let Ok(nothing) = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        for number in [0, 1] {
            // SAFETY: takes two integers. Whoever has these descriptors expects them to be anything.
            unsafe { libc::dup2(nothing.as_raw_fd(), number) };
        }
    }
}

/// Readable when a child has moved. `SIGCHLD` has to be blocked in all threads.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before it is used; signalfd only reads it, and the
    // descriptor that it returns is new and ours.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Has this process go by `name`, and by `line` where its arguments are shown. Allocates nothing.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn rename_process(name: &CStr, line: &[u8]) {
    // SAFETY: reads the name, which ends with a null.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    let Some((start, length)) = arguments() else {
        return;
    };
    let shown = line.len().min(length - 1);
    // SAFETY: the system says where the arguments are that this process was started with: they are
    // its own, can be written, and nobody reads them in a process that was forked and does nothing
    // but what is written here.
    unsafe {
        let area = ptr::with_exposed_provenance_mut::<u8>(start);
        ptr::copy_nonoverlapping(line.as_ptr(), area, shown);
        ptr::write_bytes(area.add(shown), 0, length - shown);
    }
}

/// Where the arguments of this process are in memory, and how long they are.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn arguments() -> Option<(usize, usize)> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(c"/proc/self/stat", OFlags::RDONLY, Mode::empty()).ok()?;
    let mut stat = [0; 2048];
    let read = rustix::io::read(&file, &mut stat).ok()?;
    let after_name = stat[..read].iter().rposition(|&byte| byte == b')')?;
    let rest = str::from_utf8(&stat[after_name + 1..read]).ok()?;
    // The 48th and 49th field, of which two are before.
    let mut fields = rest.split_ascii_whitespace().skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    (start > 0 && start < end).then(|| (start, end - start))
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
