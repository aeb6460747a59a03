//! The guardian: a small process that ends the command if azmutex itself dies or hangs.
//!
//! It is forked once the lock is held, and does no network I/O. Through a pipe azmutex tells it by
//! when the whole command must be gone; each renewal moves that deadline. When the pipe closes
//! without a goodbye, azmutex is gone: the guardian asks the whole command to end, and at the
//! deadline kills what is left. When the deadline passes and azmutex does nothing, for example
//! because it was stopped, the guardian stops the command until azmutex continues.
//!
//! On Linux the guardian is the command's parent and adopts its orphans. Whatever happens to
//! azmutex, and however often the command forks or leaves its session, every process of it remains
//! a descendant of the guardian. If the guardian is killed, azmutex adopts them. On other systems
//! the guardian is a sibling of the command, and knows only its process group.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod children;
mod plan;
mod records;
mod tree;
mod watch;

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid,
};

use self::plan::Plan;
pub(super) use self::records::Report;
use self::records::{LENGTH, Order};
use self::tree::Tree;
use self::watch::Watch;
use super::sys::{self, Launch};
use super::timer;

/// The smallest change of the deadline that is worth telling the guardian.
const STEP: Duration = Duration::from_millis(1);

/// How long to wait for a guardian to leave before it is killed.
const LEAVE: Duration = Duration::from_millis(200);

/// Whether a guardian is the command's parent rather than its sibling.
pub(super) const IS_PARENT: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What a guardian is told at the start.
#[derive(Debug, Clone)]
pub(super) struct Duty {
    /// By when the whole command must be gone: a time since boot.
    pub(super) deadline: Duration,
    /// How long after the deadline azmutex may still act. The lease lasts longer than that.
    pub(super) slack: Duration,
    /// What the guardian writes to stderr if azmutex died and it ended the command.
    pub(super) message: String,
}

/// The session and group of a guardian and its command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    /// The guardian does not leave the session. Otherwise the command's group would be an orphaned
    /// one, which a terminal cannot stop.
    pub(super) stays_in_session: bool,
    /// The command has a process group of its own.
    pub(super) has_group: bool,
}

/// A guardian, as azmutex sees it.
pub(super) struct Guardian {
    pid: Pid,
    orders: PipeWriter,
    reports: PipeReader,
    /// The same pipe, for whoever waits for a report.
    waited_for: Option<OwnedFd>,
    /// The latest deadline that it was told.
    deadline: Duration,
    /// It has yet to be told that the command may be reaped.
    reap: bool,
}

impl Guardian {
    /// Starts the command and its guardian. Returns the command's process ID too.
    pub(super) fn start(
        duty: Duty,
        launch: &Launch,
        surroundings: Surroundings,
    ) -> io::Result<(Self, Pid)> {
        let (their_orders, orders) = io::pipe()?;
        let (reports, their_reports) = io::pipe()?;
        ioctl_fionbio(&their_orders, true)?;
        ioctl_fionbio(&orders, true)?;
        ioctl_fionbio(&reports, true)?;
        ioctl_fionbio(&their_reports, true)?;
        let keep = [their_orders.as_raw_fd(), their_reports.as_raw_fd()];
        let waited_for = Some(reports.as_fd().try_clone_to_owned()?);
        let deadline = duty.deadline;
        let watch = Watch {
            plan: Plan::new(deadline, duty.slack),
            tree: Tree::new(surroundings.has_group),
            orders: their_orders,
            reports: their_reports,
            stays_in_session: surroundings.stays_in_session,
            line: format!("lease-guardian of {}", std::process::id()).into_bytes(),
            message: duty.message.into_bytes(),
        };
        let (pid, command) = sys::start_guarded(launch, keep, |command| watch.run(command))?;
        let this = Self {
            pid,
            orders,
            reports,
            waited_for,
            deadline,
            reap: false,
        };
        Ok((this, command))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Readable when there is a report, or when the guardian is gone. Can be taken once.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.waited_for.take()
    }

    /// The latest deadline that it was told.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Tells it by when the whole command must be gone, if that has changed.
    pub(super) fn set_deadline(&mut self, deadline: Duration) {
        let moved = deadline.abs_diff(self.deadline) >= STEP;
        // If the pipe is full because the guardian is stopped, it is told the next time.
        if moved && self.order(Order::Deadline(deadline)) {
            self.deadline = deadline;
        }
        if self.reap && self.order(Order::Reap) {
            self.reap = false;
        }
    }

    /// Tells it that the status and the ID of the command's first process are no longer needed. It
    /// answers whether other processes are left.
    pub(super) fn reap(&mut self) {
        self.reap = !self.order(Order::Reap);
    }

    fn order(&self, order: Order) -> bool {
        write(&self.orders, &order.encode()) == Ok(LENGTH)
    }

    /// The next report, if there is one. Does not block.
    pub(super) fn take_report(&mut self) -> Option<Report> {
        loop {
            let mut record = [0; LENGTH];
            match read(&self.reports, &mut record) {
                Ok(LENGTH) => {
                    if let Some(report) = Report::decode(&record) {
                        return Some(report);
                    }
                }
                Err(Errno::INTR) => {}
                _ => return None,
            }
        }
    }

    /// Whether it was killed: it does not end by itself. If it is stopped, continues it.
    pub(super) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        match waitid(WaitId::Pid(self.pid), options) {
            Ok(Some(status)) if status.stopped() => {
                let _ = kill_process(self.pid, Signal::CONT);
                false
            }
            Ok(status) => status.is_some(),
            Err(error) => error == Errno::CHILD,
        }
    }

    /// Ends it: there is nothing left to guard. What is left of the command lives on.
    pub(super) fn dismiss(self) {
        // It first continues what it has stopped. If it is stopped itself, do not wait for it.
        if !(self.order(Order::Leave) && self.ends_within(LEAVE)) {
            let _ = kill_process(self.pid, Signal::KILL);
        }
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }

    /// Waits until it ends, for at most `wait`.
    fn ends_within(&self, wait: Duration) -> bool {
        let end = timer::now() + wait;
        loop {
            match read(&self.reports, &mut [0; LENGTH]) {
                Ok(0) => return true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => {
                    let left = end.saturating_sub(timer::now());
                    let mut polled = [PollFd::new(&self.reports, PollFlags::IN)];
                    if left.is_zero() {
                        return false;
                    }
                    let _ = poll(&mut polled, Some(&timer::timespec(left)));
                }
            }
        }
    }
}
