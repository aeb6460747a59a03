//! Commands that are stopped and continued, and whether the lock is still held then.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::time::Duration;

use azmutex::LossReason;
use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use signal_hook::consts::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};

use super::{Acquisition, Supervisor};
use crate::args::{self, OnSuspend};
use crate::processes;
use crate::run::channel::Message;
use crate::run::events;
use crate::run::job::Job;
use crate::run::terminal::Group;
use crate::run::timer;
use crate::run::waiting::{self, Waited};
use crate::times::short;

/// How often to repeat that the command is stopped.
const STOPPED_NOTE: Duration = Duration::from_secs(60);

/// How long after a failure to ask the service again whether this process still has the lease.
const VERIFY_AGAIN: Duration = Duration::from_secs(1);

const NOT_AGAIN: &str = "it was not acquired again";

/// What is known after a suspension, until a renewal is confirmed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Given,
    /// Asked for, on a thread.
    Awaited,
    /// To be asked for again.
    Due(Duration),
    /// The service said no, of the lock in this place.
    Refused(LossReason, usize),
}

impl Supervisor<'_, '_> {
    pub(super) fn child_stopped(&mut self, signal: c_int) {
        if self.fence.has_struck() || self.killed.is_some() {
            self.job.thaw();
            return;
        }
        if self.fence.is_frozen() {
            return;
        }
        if !self.job.has_terminal() {
            self.note_stopped();
            return;
        }
        let wants_terminal = matches!(signal, SIGTTIN | SIGTTOU);
        if wants_terminal && self.job.group() == Group::Own && self.job.is_foreground() {
            self.job.give_terminal();
            let _ = self.job.signal_group(SIGCONT);
            return;
        }
        if self.context.args.on_suspend == OnSuspend::IgnoreStop {
            self.job.take_terminal();
            self.note_stopped();
            return;
        }
        if is_orphaned() {
            // As if there were no job control.
            if signal == SIGSTOP {
                self.note_stopped();
            } else {
                let _ = self.job.signal_group(SIGCONT);
            }
            return;
        }
        self.suspend();
    }

    pub(super) fn note_stopped(&mut self) {
        let text = format!(
            "the command is stopped; {} is still held and renewed",
            self.context.name()
        );
        self.context.reporter.warn(&text);
        self.stopped_note = Some(timer::now() + STOPPED_NOTE);
    }

    /// Stops along with the command, as the shell expects of a job.
    fn suspend(&mut self) {
        self.fence.freeze(timer::now());
        self.job.freeze_outside();
        self.job.take_terminal();
        let name = self.context.name();
        let event = events::plain("suspended", self.context.key());
        self.context.event(&event);
        if self.context.args.on_suspend == OnSuspend::Release {
            self.context
                .reporter
                .note(&format!("suspended; {name} is released until it goes on"));
            if let Some(signal) = self.release() {
                self.give_up(Some(signal), NOT_AGAIN);
                return;
            }
        } else {
            let left = short(self.watch.remaining());
            self.context.reporter.note(&format!(
                "suspended; {name} runs out in {left} unless it goes on"
            ));
        }
        self.context.reporter.flush();
        stop(&mut self.job);
        // It continues here, a moment or a day later.
        self.fence.freeze(timer::now());
        if self.guard.is_none() {
            self.acquire_again();
        } else if self.context.args.on_lost != args::OnLost::Continue {
            self.verify();
        }
    }

    /// Releases the lock while the command is stopped. Returns a signal that asked it to end in the
    /// meantime.
    fn release(&mut self) -> Option<c_int> {
        let guard = ManuallyDrop::into_inner(self.guard.take()?);
        if let Some(guard) = self.context.release(guard) {
            self.guard = Some(ManuallyDrop::new(guard));
            return None;
        }
        let end = timer::now() + Duration::from_secs(5);
        let mut asked = None;
        while timer::now() < end {
            while let Some(message) = self.context.channel.take() {
                if matches!(message, Message::Released(_)) {
                    return asked;
                }
            }
            self.context.sleep(Some(end.saturating_sub(timer::now())));
            for arrived in self.context.signals.take() {
                if arrived.ends() {
                    asked.get_or_insert(arrived.signal);
                } else if arrived.signal == SIGCHLD {
                    self.job.child_moved();
                }
            }
            // The result is looked at when this is over.
            let _ = is_over(&mut self.job);
        }
        asked
    }

    /// Acquires the lock again before the command continues.
    fn acquire_again(&mut self) {
        self.job.freeze();
        if is_over(&mut self.job).is_break() {
            return;
        }
        let Acquisition {
            wanted,
            stop: token,
        } = self.acquisition;
        let limit = self.context.args.waiting.limit();
        let started = timer::now();
        let job = &mut self.job;
        let waited = waiting::wait(self.context, wanted, token, limit, |arrived| {
            match arrived.map(|arrived| arrived.signal) {
                Some(SIGCHLD) => job.child_moved(),
                Some(SIGTSTP) if !is_orphaned() => stop(job),
                _ => {}
            }
            is_over(job)
        });
        match waited {
            Ok(Waited::Granted(guard)) => {
                let waited = timer::now() - started;
                let event = events::acquired(self.context.lock, &guard, waited);
                self.context.event(&event);
                self.watch = guard.watch();
                self.guard = Some(ManuallyDrop::new(*guard));
                self.fence.freeze(timer::now());
            }
            // It was killed while stopped, and did nothing without the lock.
            Ok(Waited::Abandoned) => {}
            Ok(Waited::Signalled(signal)) => self.give_up(Some(signal), NOT_AGAIN),
            Ok(Waited::Done(_)) => self.give_up(None, "it was done meanwhile"),
            Ok(Waited::Refused(_)) | Err(_) => self.give_up(None, NOT_AGAIN),
        }
    }

    /// Ends a stopped command that has no lock to continue under.
    fn give_up(&mut self, signal: Option<c_int>, why: &str) {
        if let Some(signal) = signal {
            self.job.signal(signal);
        }
        let done = self.kill();
        self.tell_loss(&format!("{why}; {done}"));
    }

    /// Continues a command that was stopped because of the lock, or along with this process.
    pub(super) fn resume(&mut self) {
        self.job.give_terminal();
        self.job.thaw();
        let event = events::plain("resumed", self.context.key());
        self.context.event(&event);
    }

    /// Asks the service whether this process still has the lease.
    pub(super) fn verify(&mut self) {
        let verify = self.watch.verification();
        let asking = self
            .context
            .worker
            .start(move || Message::Verified(verify()));
        self.proof = match asking {
            Ok(()) => Proof::Awaited,
            Err(_) => Proof::Due(timer::now() + VERIFY_AGAIN),
        };
    }

    pub(super) fn verified(&mut self, result: Result<(), (usize, azmutex::Error)>) {
        if self.proof != Proof::Awaited {
            return;
        }
        self.proof = match result.map_err(|(place, error)| (place, error.loss_reason())) {
            Ok(()) => Proof::Given,
            Err((place, Some(reason))) => Proof::Refused(reason, place),
            Err((_, None)) => Proof::Due(timer::now() + VERIFY_AGAIN),
        };
    }
}

/// Stops this process, along with a parent in the same group that waits for the terminal too.
fn stop(job: &mut Job) {
    let shared = job.group() == Group::Shared;
    let _ = if shared {
        kill_process(getpid(), Signal::STOP)
    } else {
        kill_current_process_group(Signal::STOP)
    };
    if shared {
        // The shell has continued the command too, which is too early.
        job.freeze();
    }
}

/// Whether nobody could ever continue this process.
fn is_orphaned() -> bool {
    processes::is_orphaned(getpid().as_raw_nonzero().get())
}

/// Takes note of what the command did. Breaks if it has ended.
fn is_over(job: &mut Job) -> ControlFlow<()> {
    while job.poll().is_some() {}
    match job.ended() {
        Some(_) => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    }
}
