//! The guardian: a small process that ends the command if azmutex itself dies or stands still.
//!
//! It is forked when the lock is held, and does no network I/O. azmutex tells it through a pipe by
//! when all of the command has to be gone; the deadline moves with each renewal. When the pipe
//! ends without a goodbye, azmutex is gone: the guardian asks all of the command to end, and kills
//! at the deadline what is left. When the deadline passes and azmutex does nothing, since somebody
//! stopped it, the guardian stops the command until azmutex goes on.
//!
//! On Linux the guardian is the command's parent and adopts its orphans, so that whatever becomes
//! of azmutex, and however often the command forks and leaves its session, all of it stays the
//! guardian's. azmutex in turn adopts them if the guardian is killed. Elsewhere the guardian is a
//! process beside the command that knows the command's process group.

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

/// How far a deadline has to move for it to be told.
const STEP: Duration = Duration::from_millis(1);

/// How long a guardian may take to end when it is asked to.
const LEAVE: Duration = Duration::from_millis(200);

/// Whether a guardian is the command's parent, rather than a process beside it.
pub(super) const IS_PARENT: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What a guardian goes by.
#[derive(Debug, Clone)]
pub(super) struct Duty {
    /// When all of the command has to be gone: a time since boot.
    pub(super) deadline: Duration,
    /// How long after it azmutex may still act: less than what the lease lasts longer.
    pub(super) slack: Duration,
    /// What the guardian writes to stderr if azmutex died and it ended the command.
    pub(super) message: String,
}

/// Where a guardian and its command are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    /// The guardian does not leave the session: the command's group is of that, and without a
    /// parent there it would be an orphaned one, which cannot be stopped by a terminal.
    pub(super) stays_in_session: bool,
    /// The command has a process group of its own.
    pub(super) has_group: bool,
}

/// A guardian, as azmutex sees it.
pub(super) struct Guardian {
    pid: Pid,
    orders: PipeWriter,
    reports: PipeReader,
    /// The same, for whoever waits for a report.
    waited_for: Option<OwnedFd>,
    /// The deadline that it was told last.
    deadline: Duration,
    /// It is still to be told that the command may be reaped.
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

    /// Readable when there is a report, or when the guardian is gone. To be taken once.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.waited_for.take()
    }

    /// When all of the command has to be gone, as far as it was told.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Tells it when all of the command has to be gone, if that is news.
    pub(super) fn set_deadline(&mut self, deadline: Duration) {
        let moved = deadline.abs_diff(self.deadline) >= STEP;
        // If it cannot be told, since it is stopped, it is the next time.
        if moved && self.order(Order::Deadline(deadline)) {
            self.deadline = deadline;
        }
        if self.reap && self.order(Order::Reap) {
            self.reap = false;
        }
    }

    /// Tells it that the status and the number of the command's first process are needed no longer.
    /// It answers whether others are left.
    pub(super) fn reap(&mut self) {
        self.reap = !self.order(Order::Reap);
    }

    fn order(&self, order: Order) -> bool {
        write(&self.orders, &order.encode()) == Ok(LENGTH)
    }

    /// The next report, if there is one. Does not wait.
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

    /// Whether it has ended, which it does not by itself. One that is stopped goes on.
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

    /// Ends it: there is nothing to guard any more. What is left of the command lives on.
    pub(super) fn dismiss(self) {
        // What it has stopped goes on first. It may be stopped itself, and is not waited for then.
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
