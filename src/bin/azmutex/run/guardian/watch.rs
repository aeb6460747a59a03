//! What the guardian does. It was forked from a process with threads, so it only makes system calls
//! on memory that was prepared before the fork, and never allocates, locks or prints.

use std::ffi::c_int;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::process::Pid;

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::children::Children;
use super::plan::{Act, Plan};
use super::records::{LENGTH, Order};
use super::tree::Tree;
use crate::output::renew_time;
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::processes::GUARDIAN;
use crate::run::sys;
use crate::run::timer::{self, Timer};

/// How often to check whether the command is gone.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How soon to repeat a report that azmutex could not take.
#[cfg(any(target_os = "linux", target_os = "android"))]
const TELL_AGAIN: Duration = Duration::from_millis(100);

/// What a guardian needs, prepared before the fork.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(
        dead_code,
        reason = "the rest is for a guardian that is the command's parent"
    )
)]
pub(super) struct Watch {
    pub(super) plan: Plan,
    pub(super) tree: Tree,
    /// From azmutex. Closes when azmutex ends. Non-blocking.
    pub(super) orders: PipeReader,
    /// To azmutex, which learns from its closing that the guardian is gone. Non-blocking.
    pub(super) reports: PipeWriter,
    /// Whether it stays in the session of azmutex, and only leaves its process group.
    pub(super) stays_in_session: bool,
    /// Its name where arguments are shown, as in `ps`.
    pub(super) line: Vec<u8>,
    /// What it says if azmutex ended and the command had to be ended.
    pub(super) message: Vec<u8>,
}

impl Watch {
    /// Watches over `command`, a child of this process. Returns the exit code.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn run(mut self, command: Pid) -> c_int {
        self.leave();
        sys::rename_process(GUARDIAN, &self.line);
        let (Ok(signals), Ok(timer)) = (sys::child_signals(), Timer::new()) else {
            // azmutex notices that the guardian is gone.
            return 1;
        };
        self.tree.set_command(command);
        let mut children = Children::new(command, self.reports);
        let mut wait;
        loop {
            let act;
            (act, wait) = self.plan.step(timer::now());
            carry_out(&mut self.tree, act);
            children.look(self.plan.is_frozen());
            if self.plan.azmutex_is_gone() {
                if !children.any() {
                    break;
                }
            } else if !children.tell() {
                wait = Some(wait.map_or(TELL_AGAIN, |wait| wait.min(TELL_AGAIN)));
            }
            let fds = [signals.as_fd(), self.orders.as_fd()];
            let heard = if self.plan.azmutex_is_gone() { 1 } else { 2 };
            timer.wait(&fds[..heard], wait);
            while matches!(read(&signals, &mut [0; 1024]), Ok(1..)) {}
            match take_orders(&self.orders, &mut self.plan) {
                Orders::Reap => {
                    self.tree.forget_command();
                    children.reap_all();
                }
                Orders::Over => children.reap_all(),
                Orders::Leave => {
                    if self.plan.is_frozen() {
                        self.tree.thaw();
                    }
                    return 0;
                }
                Orders::None => {}
            }
        }
        renew_time(&mut self.message);
        say(&self.message);
        0
    }

    /// Watches over `command`, a child of azmutex. Returns the exit code.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn run(mut self, command: Pid) -> c_int {
        self.leave();
        self.tree.set_command(command);
        let Ok(timer) = Timer::new() else { return 1 };
        loop {
            let (act, wait) = self.plan.step(timer::now());
            carry_out(&mut self.tree, act);
            if self.plan.azmutex_is_gone() {
                if self.tree.is_gone() {
                    break;
                }
                // Nothing reports its end, and its ID may be reused after that.
                timer.wait(
                    &[],
                    Some(wait.map_or(LOOK_AGAIN, |wait| wait.min(LOOK_AGAIN))),
                );
                continue;
            }
            timer.wait(&[self.orders.as_fd()], wait);
            if take_orders(&self.orders, &mut self.plan) == Orders::Leave {
                if self.plan.is_frozen() {
                    self.tree.thaw();
                }
                return 0;
            }
        }
        renew_time(&mut self.message);
        say(&self.message);
        0
    }

    /// Leaves azmutex's process group, so that signals to that spare it, and closes stdin and
    /// stdout.
    fn leave(&self) {
        if self.stays_in_session || rustix::process::setsid().is_err() {
            let _ = rustix::process::setpgid(None, None);
        }
        // No reader of a pipe should wait because this process still has it open.
        sys::leave_input_and_output();
    }
}

fn carry_out(tree: &mut Tree, act: Act) {
    match act {
        Act::Nothing => {}
        Act::Freeze => tree.freeze(),
        Act::Thaw => tree.thaw(),
        Act::Terminate => tree.terminate(),
        Act::Kill => tree.kill(),
    }
}

/// What was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orders {
    None,
    Reap,
    Leave,
    /// There is nobody left to order anything.
    Over,
}

/// Reads what azmutex has written.
fn take_orders(orders: &PipeReader, plan: &mut Plan) -> Orders {
    let mut taken = Orders::None;
    if plan.azmutex_is_gone() {
        return taken;
    }
    loop {
        let mut record = [0; LENGTH];
        match read(orders, &mut record) {
            Ok(0) => {
                plan.azmutex_ended();
                return Orders::Over;
            }
            Ok(LENGTH) => match Order::decode(&record) {
                Some(Order::Deadline(at)) => plan.set_deadline(at),
                Some(Order::Reap) => taken = Orders::Reap,
                Some(Order::Leave) => return Orders::Leave,
                None => {}
            },
            Err(Errno::INTR) => {}
            _ => return taken,
        }
    }
}

/// Writes to stderr, unless that would block.
fn say(text: &[u8]) {
    let stderr = std::io::stderr();
    let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = poll(&mut polled, Some(&Timespec::default()));
    if at_once == Ok(1) && polled[0].revents().contains(PollFlags::OUT) {
        let _ = rustix::io::write(&stderr, text);
    }
}
