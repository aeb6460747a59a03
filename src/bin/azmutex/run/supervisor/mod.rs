//! Supervises the command while the lock is held. Runs on the main thread, and never waits for the
//! network, a lock, or a reader of its output.

mod ending;
mod suspension;

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::io;
use std::mem::ManuallyDrop;
use std::time::Duration;

use azmutex::{Event, LossReason, StopToken};
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH,
};

use self::ending::{Leftovers, Progress};
use self::suspension::Proof;
use super::budget::Budget;
use super::channel::Message;
use super::context::Context;
use super::events;
use super::fence::{Act, Fence, OnLost, View};
use super::held::{Held, Wanted, Watch};
use super::job::{Change, Job};
use super::signals::{Arrived, Sender};
use super::status::Status;
use super::terminal::Group;
use super::timer;
use crate::args;
use crate::output::{clean, with_cause};
use crate::times::short;

/// A second interrupt within this time kills the command.
const TWICE: Duration = Duration::from_secs(2);

/// How to acquire the lock again, after it was released for a suspended command.
#[derive(Clone, Copy)]
pub(super) struct Acquisition<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) stop: &'a StopToken,
}

/// The result of supervision.
pub(super) struct Ended {
    pub(super) status: Status,
    /// The lock was lost, or not proven to be held, before the command ended.
    pub(super) lost: bool,
    /// Somebody has asked the command to end.
    pub(super) asked: bool,
    /// Every process of the command that must be gone is gone.
    pub(super) dead: bool,
    /// The guard, unless it was released and not acquired again.
    pub(super) guard: Option<Held>,
}

/// Watches the command and the lock.
pub(super) struct Supervisor<'c, 'a> {
    context: &'c mut Context<'a>,
    acquisition: Acquisition<'c>,
    job: Job,
    budget: Budget,
    fence: Fence,
    /// Not dropped on a panic: that would release the lock while the command still runs.
    guard: Option<ManuallyDrop<Held>>,
    watch: Watch,
    acquired: Duration,
    lost: bool,
    /// Of each lock, by its name.
    failures: BTreeMap<String, Failures>,
    interrupted: Option<Duration>,
    /// When the user's signal is followed by `SIGKILL`.
    kill_at: Option<Duration>,
    killed: Option<Duration>,
    stopped_note: Option<Duration>,
    /// Whether it is known that nobody else had the lock while this process was stopped.
    proof: Proof,
    leftovers: Leftovers,
    /// The run was asked to end: the lock is kept no longer than needed.
    hurried: bool,
    /// How old the last success of the health command may be, if there is one.
    health: Option<Duration>,
    /// When the health command succeeded last, or the command was started.
    healthy: Duration,
    /// It has failed since.
    fails: bool,
    /// The signal that asked the command to end. The lock is kept until all of it has ended.
    asked_to_end: Option<c_int>,
}

/// Renewals that failed in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    said: Option<Duration>,
}

impl<'c, 'a> Supervisor<'c, 'a> {
    /// `checked`: when the lock was known to be held, before the command was started.
    pub(super) fn new(
        context: &'c mut Context<'a>,
        acquisition: Acquisition<'c>,
        budget: Budget,
        guard: Held,
        acquired: Duration,
        checked: Duration,
        job: Job,
    ) -> Self {
        let on_lost = match context.args.on_lost {
            args::OnLost::Terminate => OnLost::Terminate,
            args::OnLost::Kill => OnLost::Kill,
            args::OnLost::Continue => OnLost::Continue,
        };
        Self {
            fence: Fence::new(on_lost, budget.grace, budget.lease, checked),
            watch: guard.watch(),
            guard: Some(ManuallyDrop::new(guard)),
            acquired,
            context,
            acquisition,
            job,
            budget,
            lost: false,
            failures: BTreeMap::new(),
            interrupted: None,
            kill_at: None,
            killed: None,
            stopped_note: None,
            proof: Proof::Given,
            leftovers: Leftovers::Unknown,
            hurried: false,
            health: None,
            healthy: acquired,
            fails: false,
            asked_to_end: None,
        }
    }

    /// Reports what a health command says, whose last success may be as old as `within`.
    pub(super) fn with_health(self, within: Option<Duration>) -> Self {
        Self {
            health: within,
            ..self
        }
    }

    /// Supervises until the command has ended, with everything that must end with it.
    pub(super) fn run(mut self) -> Ended {
        loop {
            // First, since this process may have been suspended.
            let mut wait = self.guard_lock();
            self.tell_guardian();
            if self.listen() {
                wait = self.guard_lock();
                self.tell_guardian();
            }
            while let Some(change) = self.job.poll() {
                self.heed(change);
            }
            if self.job.lost_guardian() {
                self.guardian_ended();
            }
            match self.finish() {
                Progress::Over { dead } => return self.over(dead),
                Progress::Look(at_latest) => wait = shorter(wait, at_latest),
            }
            wait = shorter(wait, self.keep_promises());
            self.context.sleep(wait);
        }
    }

    /// Handles the signals and messages that have arrived. Returns whether there were any.
    fn listen(&mut self) -> bool {
        let mut heard = false;
        for arrived in self.context.signals.take() {
            heard = true;
            self.receive(arrived);
        }
        while let Some(message) = self.context.channel.take() {
            heard = true;
            match message {
                Message::Event(event, name) => self.hear(&event, name.as_deref()),
                Message::Verified(result) => self.verified(result),
                Message::Health(result) => self.hear_health(result),
                _ => {}
            }
        }
        heard
    }

    /// Tells the guardian until when the command may be at work.
    fn tell_guardian(&mut self) {
        // A stopped command continues only when the lock is known to be held.
        if self.fence.is_frozen() {
            return;
        }
        let deadline = timer::now() + self.view().remaining;
        if self.fence.has_struck() {
            // Only ever sooner: what the guardian has stopped must not continue without the lock.
            let deadline = self.fence.kill_at().unwrap_or(deadline);
            self.job.bring_deadline_forward(deadline);
        } else {
            self.job.set_deadline(deadline);
        }
    }

    /// Dismisses the guardian: nothing is left to guard.
    fn end_guard(&mut self) {
        self.context.guardian = None;
        self.job.dismiss_guardian();
    }

    /// Ends the command: without a guardian it would outlive this process if that were killed too.
    fn guardian_ended(&mut self) {
        self.context.guardian = None;
        if self.fence.has_struck() || self.killed.is_some() {
            return;
        }
        let done = if self.fence.is_frozen() {
            self.kill()
        } else {
            let asked = self.job.end(SIGTERM);
            self.asked_to_end.get_or_insert(SIGTERM);
            self.hurried = true;
            let kill_at = timer::now() + self.budget.grace;
            self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
            let grace = short(self.budget.grace);
            format!(
                "{}, SIGKILL in {grace}",
                sent("SIGTERM", &self.target(), asked)
            )
        };
        let text = format!(
            "the guardian of the command was killed, and without it the command could outlive \
             azmutex and the lock; {done}"
        );
        self.context.reporter.error(&text);
    }

    fn over(mut self, dead: bool) -> Ended {
        self.job.reap();
        self.job.take_terminal();
        if dead {
            self.end_guard();
        }
        let killed = Status::Killed {
            signal: SIGKILL,
            dumped: false,
        };
        Ended {
            status: self.job.ended().unwrap_or(killed),
            lost: self.lost,
            asked: self.asked_to_end.is_some(),
            dead,
            guard: self.guard.take().map(ManuallyDrop::into_inner),
        }
    }

    /// Does what the state of the lock requires. Returns how long until it has to be called again.
    fn guard_lock(&mut self) -> Option<Duration> {
        let is_over = self.leftovers == Leftovers::Done || self.job.awaits_answer();
        if self.killed.is_some() || is_over {
            return None;
        }
        let view = self.view();
        let (act, wait) = self.fence.step(timer::now(), view);
        match act {
            Act::Nothing => {}
            Act::Warn => {
                self.tell_loss("the command goes on without it (--on-lost=continue)");
            }
            Act::Terminate(grace) => self.terminate(grace),
            Act::Kill => {
                let done = self.kill();
                self.tell_loss(&done);
                let event = events::terminating(self.context.key(), "SIGKILL", None);
                self.context.event(&event);
            }
            Act::Freeze => {
                self.job.freeze();
                self.context.reporter.warn(&format!(
                    "azmutex was not running until after its deadline; stopped {} until {} is \
                     renewed",
                    self.target(),
                    self.context.name()
                ));
            }
            Act::Thaw => self.resume(),
        }
        wait
    }

    fn view(&self) -> View {
        let remaining = match self.proof {
            Proof::Given => self.watch.remaining(),
            _ => Duration::ZERO,
        };
        View {
            remaining,
            lost: remaining.is_zero() && self.loss_reason().is_some(),
        }
    }

    fn loss_reason(&self) -> Option<LossReason> {
        match self.proof {
            Proof::Refused(reason, _) => Some(reason),
            _ => self.watch.loss_reason(),
        }
    }

    fn terminate(&mut self, grace: Duration) {
        let signal = self.context.args.signal;
        let asked = self.job.end(signal.0);
        let name = signal.to_string();
        let done = sent(&name, &self.target(), asked);
        self.tell_loss(&format!("{done}, SIGKILL in {}", short(grace)));
        let event = events::terminating(self.context.key(), &name, Some(grace));
        self.context.event(&event);
    }

    /// Kills the whole command. Returns what was done, in words.
    fn kill(&mut self) -> String {
        let killed = self.job.kill_all();
        self.killed.get_or_insert_with(timer::now);
        sent("SIGKILL", &self.target(), killed)
    }

    /// Reports the loss: why, and what was done about it.
    fn tell_loss(&mut self, done: &str) {
        let place = match self.proof {
            Proof::Refused(_, place) => place,
            _ => self.watch.weakest(),
        };
        // What was released was not lost one by one.
        let name = self.guard.as_ref().and_then(|_| self.watch.name(place));
        let name = name.as_deref().unwrap_or(self.context.name());
        let stays = self.fence.has_struck();
        let (text, reason) = match self.loss_reason() {
            Some(reason) => (
                format!("lock {name} lost: {reason}; {done}"),
                reason.to_string(),
            ),
            None if self.is_unhealthy() => {
                let why = format!(
                    "the health command has not succeeded for {}",
                    short(timer::now() - self.healthy)
                );
                (
                    format!("lock {name} is not renewed any more: {why}; {done}"),
                    why,
                )
            }
            None => {
                let left = self.watch.remaining();
                let since = self
                    .budget
                    .lease
                    .saturating_sub(self.budget.margin)
                    .saturating_sub(left);
                let why = format!("no renewal was confirmed for {}", short(since));
                (
                    format!("lock {name} is not safe any more: {why}; {done}"),
                    why,
                )
            }
        };
        if stays {
            self.context.reporter.error(&text);
        } else {
            self.context.reporter.warn(&text);
        }
        if !self.lost {
            let event = events::lost(self.context.key(), &reason);
            let event = event.exact("url", &self.watch.url(place));
            self.context.event(&event);
        }
        self.lost = true;
    }

    fn target(&self) -> String {
        let pid = self.job.pid();
        match self.job.group() {
            Group::Own => format!("process group {pid}"),
            Group::Session => format!("session {pid}"),
            Group::Shared => format!("process {pid} and its descendants"),
        }
    }

    /// Reports an event of the lock, if people should know about it.
    fn hear(&mut self, event: &Event, name: Option<&str>) {
        let (name, key) = (name.unwrap_or(self.context.name()), self.context.key());
        match event {
            Event::Renewed => drop(self.failures.remove(name)),
            Event::RenewalFailed {
                error, remaining, ..
            } => {
                let object = events::renewal_failed(key, error, *remaining);
                self.context.event(&object);
                let failures = self.failures.entry(name.to_owned()).or_default();
                failures.count += 1;
                let now = timer::now();
                let due = failures
                    .said
                    .is_none_or(|said| now >= said + Duration::from_secs(5));
                if due && !self.fence.has_struck() && self.job.ended().is_none() {
                    failures.said = Some(now);
                    let stop = remaining.saturating_sub(self.budget.grace);
                    let text = format!(
                        "cannot renew {name}: {} (attempt {}); the command will be stopped in {} \
                         unless it is renewed",
                        clean(&with_cause(error)),
                        failures.count,
                        short(stop)
                    );
                    self.context.reporter.warn(&text);
                }
            }
            Event::Unproven => {
                let object = events::plain("unproven", key);
                self.context.event(&object);
            }
            Event::HeldAgain => {
                let object = events::plain("held_again", key);
                self.context.event(&object);
            }
            _ => {}
        }
    }

    /// Whether the lease is not renewed because the health command has not succeeded for too long.
    fn is_unhealthy(&self) -> bool {
        let since = timer::now().saturating_sub(self.healthy);
        self.health.is_some_and(|within| since >= within)
    }

    /// Reports what became of a run of the health command, if people should know about it. The lease's
    /// own thread goes by it, not this one.
    fn hear_health(&mut self, result: Result<(), String>) {
        let now = timer::now();
        let Err(why) = result else {
            self.healthy = now;
            if std::mem::take(&mut self.fails) {
                self.context
                    .reporter
                    .note("the health command succeeds again");
            }
            return;
        };
        if std::mem::replace(&mut self.fails, true) || self.fence.has_struck() {
            return;
        }
        let within = self.health.unwrap_or_default();
        let left = within.saturating_sub(now.saturating_sub(self.healthy));
        let text = format!(
            "the health command failed: {}; {} is no longer renewed unless it succeeds within {}",
            clean(&why),
            self.context.name(),
            short(left)
        );
        self.context.reporter.warn(&text);
    }

    /// Handles what the command did.
    fn heed(&mut self, change: Change) {
        match change {
            Change::Stopped(signal) => self.child_stopped(signal),
            Change::Continued => self.stopped_note = None,
            Change::Ended(_) => {
                self.stopped_note = None;
                // What it did last, it did without the lock.
                if !self.lost && !self.watch.is_held() && self.guard.is_some() {
                    self.tell_loss("the command had just ended");
                }
            }
        }
    }

    /// Handles a signal to this process.
    fn receive(&mut self, arrived: Arrived) {
        let signal = arrived.signal;
        match signal {
            SIGCHLD => {
                self.job.child_moved();
                return;
            }
            SIGCONT if self.job.has_terminal() => {
                // From `fg` or `bg`. A frozen command continues once the lock is known to be held.
                if !self.fence.is_frozen() {
                    self.job.give_terminal();
                    if self.job.is_stopped() {
                        let _ = self.job.signal_group(SIGCONT);
                    }
                }
                return;
            }
            // It continues once the lock is known to be held.
            SIGCONT if self.fence.is_frozen() => return,
            _ => {}
        }
        let asks_to_end = matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM);
        if asks_to_end && !self.is_of_the_command(arrived) {
            self.asked_to_end = Some(signal);
        }
        if !self.forwards(arrived) {
            if asks_to_end {
                self.job.told_by_system();
            }
            return;
        }
        if arrived.ends() {
            self.hurried = true;
        }
        if self.leftovers == Leftovers::Done {
            // Its process IDs may belong to others by now.
            return;
        }
        let now = timer::now();
        if signal == SIGINT {
            if self.interrupted.is_some_and(|last| now <= last + TWICE) {
                let done = self.kill();
                self.context
                    .reporter
                    .note(&format!("interrupted twice: {done}"));
                return;
            }
            self.interrupted = Some(now);
        }
        if self.job.ended().is_some() {
            // For what it left behind.
            if asks_to_end {
                let _ = self.job.end(signal);
                self.promise_kill(now);
            }
            return;
        }
        self.job.signal(signal);
        if asks_to_end {
            // A stopped process handles no other signal until it is continued. One that is frozen
            // because of the lock is continued later.
            if self.job.is_stopped() && !self.fence.is_frozen() {
                let _ = self.job.signal_group(SIGCONT);
            }
            self.promise_kill(now);
        }
    }

    fn promise_kill(&mut self, now: Duration) {
        if let Some(after) = self.context.args.kill_after_signal {
            self.kill_at.get_or_insert(now + after);
        }
    }

    /// Whether the command itself sent the signal.
    fn is_of_the_command(&self, arrived: Arrived) -> bool {
        matches!(arrived.origin, Sender::Process(pid) if pid > 0 && self.job.contains(pid))
    }

    /// Whether to forward the signal: not if the command has received it already.
    fn forwards(&self, arrived: Arrived) -> bool {
        let shared = self.job.group() == Group::Shared;
        match arrived.origin {
            // These go to the whole group, except a hang-up, which goes to the session's leader.
            Sender::Kernel => match arrived.signal {
                SIGINT | SIGQUIT | SIGTSTP | SIGWINCH | SIGCONT => !shared,
                SIGHUP => !shared || leads_session(),
                _ => true,
            },
            // The system does not say, so assume that these come from keys on a terminal.
            Sender::Unknown => {
                let key = matches!(arrived.signal, SIGINT | SIGQUIT | SIGTSTP | SIGWINCH);
                !(shared && key && self.job.is_foreground())
            }
            Sender::Process(_) => !self.is_of_the_command(arrived),
        }
    }

    /// Does what is due by now. Returns how long until the next.
    fn keep_promises(&mut self) -> Option<Duration> {
        let now = timer::now();
        if self.leftovers == Leftovers::Done {
            return None;
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            let done = self.kill();
            // Not if it was its guardian's end that set the time.
            let why = match self.context.args.kill_after_signal {
                Some(_) => " (--kill-after-signal)",
                None => "",
            };
            self.context.reporter.note(&format!("{done}{why}"));
        }
        if self.job.ended().is_some() {
            return self.kill_at.map(|at| at.saturating_sub(now));
        }
        if self.stopped_note.is_some_and(|at| now >= at) {
            self.note_stopped();
        }
        if matches!(self.proof, Proof::Due(at) if now >= at) {
            self.verify();
        }
        let again = match self.proof {
            Proof::Due(at) => Some(at),
            _ => None,
        };
        let next = [self.kill_at, self.stopped_note, again]
            .into_iter()
            .flatten()
            .min();
        next.map(|at| at.saturating_sub(now))
    }
}

/// Whether a signal to the command was sent, in words.
fn sent(signal: &str, target: &str, result: io::Result<()>) -> String {
    match result {
        Ok(()) => format!("sent {signal} to {target}"),
        Err(error) => format!("cannot send {signal} to {target}: {error}"),
    }
}

fn leads_session() -> bool {
    rustix::process::getsid(None) == Ok(rustix::process::getpid())
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}
