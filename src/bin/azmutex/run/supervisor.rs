//! The command's time under the lock. Runs on the main thread, and does nothing that waits for the
//! network, for a lock, or for somebody to read what it says.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::time::Duration;

use azmutex::{Event, Lease, LeaseGuard, LeaseWatch, Locker, LossReason, StopToken};
use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGWINCH,
};

use super::budget::Budget;
use super::context::Context;
use super::events;
use super::fence::{Act, Fence, OnLost, View};
use super::job::{Change, Job, Status};
use super::mail::Report;
use super::process;
use super::signals::{Arrived, Sender};
use super::terminal::Group;
use super::timer;
use super::waiting::{self, Waited};
use crate::args::{self, OnSuspend, Stragglers};
use crate::output::{clean, span};

/// A second interrupt within this time kills the command.
const TWICE: Duration = Duration::from_secs(2);

/// How often it is said again that the command is stopped.
const STOPPED_NOTE: Duration = Duration::from_secs(60);

/// How long after a failure the service is asked again whether the lease is still ours.
const VERIFY_AGAIN: Duration = Duration::from_secs(1);

/// How long a killed process may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// How often processes are looked at that this one is not told about when they end.
const LOOK: Duration = Duration::from_millis(20);

/// How the lock is acquired, for a second time after it was released for a suspended command.
pub(super) struct Acquisition<'a> {
    pub(super) locker: &'a Locker,
    pub(super) stop: &'a StopToken,
}

/// What the supervision came to.
pub(super) struct Ended {
    pub(super) status: Status,
    /// The lock was lost, or not proven to be held, before the command ended.
    pub(super) lost: bool,
    /// All of the command's processes that have to be gone are.
    pub(super) dead: bool,
    /// The guard, unless it was released and not acquired again.
    pub(super) guard: Option<LeaseGuard>,
}

/// Keeps watch over the command and the lock.
pub(super) struct Supervisor<'c, 'a> {
    context: &'c mut Context<'a>,
    acquisition: Acquisition<'c>,
    job: Job,
    budget: Budget,
    fence: Fence,
    /// Not dropped on a panic, which would release the lock while the command still runs.
    guard: Option<ManuallyDrop<LeaseGuard>>,
    watch: LeaseWatch,
    acquired: Duration,
    lost: bool,
    failures: Failures,
    interrupted: Option<Duration>,
    /// When a signal of the user's turns into `SIGKILL`.
    kill_at: Option<Duration>,
    killed: Option<Duration>,
    stopped_note: Option<Duration>,
    /// How far it is known that nobody else had the lock while this process was stopped.
    proof: Proof,
    leftovers: Leftovers,
    /// Somebody wants it to end: the lock is not kept any longer than needed.
    hurried: bool,
}

/// What is known after a suspension, until a renewal is confirmed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    Given,
    /// Asked for, on a thread.
    Awaited,
    /// To be asked for again.
    Due(Duration),
    /// The service said no.
    Refused(LossReason),
}

/// Renewals that failed in a row.
#[derive(Default)]
struct Failures {
    count: u32,
    said: Option<Duration>,
}

/// How far what the command left behind is dealt with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Unknown,
    Signalled { kill_at: Duration },
    Awaited,
    Done,
}

impl<'c, 'a> Supervisor<'c, 'a> {
    pub(super) fn new(
        context: &'c mut Context<'a>,
        acquisition: Acquisition<'c>,
        budget: Budget,
        guard: LeaseGuard,
        acquired: Duration,
        job: Job,
    ) -> Self {
        let on_lost = match context.args.on_lost {
            args::OnLost::Terminate => OnLost::Terminate,
            args::OnLost::Kill => OnLost::Kill,
            args::OnLost::Continue => OnLost::Continue,
        };
        Self {
            fence: Fence::new(on_lost, budget.grace, budget.lease, timer::now()),
            watch: guard.watch(),
            guard: Some(ManuallyDrop::new(guard)),
            acquired,
            context,
            acquisition,
            job,
            budget,
            lost: false,
            failures: Failures::default(),
            interrupted: None,
            kill_at: None,
            killed: None,
            stopped_note: None,
            proof: Proof::Given,
            leftovers: Leftovers::Unknown,
            hurried: false,
        }
    }

    /// Watches until the command is over, and what has to be over with it.
    pub(super) fn run(mut self) -> Ended {
        loop {
            // First, since this process may have slept.
            let mut wait = self.guard_lock();
            while let Some(change) = self.job.poll() {
                self.heed(change);
            }
            match self.finish() {
                Progress::Over { dead } => return self.over(dead),
                Progress::Look(at_latest) => wait = shorter(wait, at_latest),
            }
            wait = shorter(wait, self.keep_promises());
            self.context.sleep(wait);
            for arrived in self.context.signals.take() {
                self.receive(arrived);
            }
            while let Some(report) = self.context.mail.take() {
                match report {
                    Report::Event(event) => self.hear(&event),
                    Report::Verified(result) => self.verified(result),
                    _ => {}
                }
            }
        }
    }

    fn over(mut self, dead: bool) -> Ended {
        self.job.reap();
        self.job.take_terminal();
        let status = self.job.ended().unwrap_or(Status::Exited(0));
        Ended {
            status,
            lost: self.lost,
            dead,
            guard: self.guard.take().map(ManuallyDrop::into_inner),
        }
    }

    /// Does what the lock asks for. Returns how long that holds.
    fn guard_lock(&mut self) -> Option<Duration> {
        if self.killed.is_some() || self.leftovers == Leftovers::Done {
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
                self.kill();
                let text = format!("sent SIGKILL to {}", self.target());
                self.tell_loss(&text);
                let event = events::terminating(self.context.name(), "SIGKILL", None);
                self.context.event(&event);
            }
            Act::Freeze => {
                self.job.signal_all(SIGSTOP);
                self.context.voice.warn(&format!(
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
            Proof::Refused(reason) => Some(reason),
            _ => self.watch.loss_reason(),
        }
    }

    /// Asks the service whether the lease is still ours.
    fn verify(&mut self) {
        let mutex = self.context.lock.mutex.clone();
        let lease = Lease::new(&self.context.lock.key, self.watch.lease_id());
        let asking = self
            .context
            .worker
            .start(move || Report::Verified(lease.and_then(|lease| mutex.renew(&lease))));
        self.proof = match asking {
            Ok(()) => Proof::Awaited,
            Err(_) => Proof::Due(timer::now() + VERIFY_AGAIN),
        };
    }

    fn verified(&mut self, result: Result<(), azmutex::Error>) {
        if self.proof != Proof::Awaited {
            return;
        }
        self.proof = match result.map_err(|error| error.loss_reason()) {
            Ok(()) => Proof::Given,
            Err(Some(reason)) => Proof::Refused(reason),
            Err(None) => Proof::Due(timer::now() + VERIFY_AGAIN),
        };
    }

    fn terminate(&mut self, grace: Duration) {
        let signal = self.context.args.signal;
        self.job.signal_all(signal.0);
        // A stopped process takes no other signal before it goes on.
        self.job.signal_all(SIGCONT);
        let text = format!(
            "sent {signal} to {}, SIGKILL in {}",
            self.target(),
            short(grace)
        );
        self.tell_loss(&text);
        let name = signal.to_string();
        let event = events::terminating(self.context.name(), &name, Some(grace));
        self.context.event(&event);
    }

    fn kill(&mut self) {
        self.job.kill_all();
        self.killed.get_or_insert_with(timer::now);
    }

    /// Says why, and what is done about it.
    fn tell_loss(&mut self, done: &str) {
        let name = self.context.name();
        let stays = self.fence.has_struck();
        let (text, reason) = match self.loss_reason() {
            Some(reason) => (
                format!("lock {name} lost: {reason}; {done}"),
                reason.to_string(),
            ),
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
            self.context.voice.error(&text);
        } else {
            self.context.voice.warn(&text);
        }
        if !self.lost {
            let event = events::lost(name, &reason);
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

    /// What happened to the lock, as far as it is news for people.
    fn hear(&mut self, event: &Event) {
        let name = self.context.name();
        match event {
            Event::Renewed => self.failures = Failures::default(),
            Event::RenewalFailed {
                error, remaining, ..
            } => {
                let object = events::renewal_failed(name, error, *remaining);
                self.context.event(&object);
                self.failures.count += 1;
                let now = timer::now();
                let due = self
                    .failures
                    .said
                    .is_none_or(|said| now >= said + Duration::from_secs(5));
                if due && !self.fence.has_struck() && self.job.ended().is_none() {
                    self.failures.said = Some(now);
                    let stop = remaining.saturating_sub(self.budget.grace);
                    let text = format!(
                        "cannot renew {name}: {} (attempt {}); the command will be stopped in {} \
                         unless it is renewed",
                        clean(&with_cause(error)),
                        self.failures.count,
                        short(stop)
                    );
                    self.context.voice.warn(&text);
                }
            }
            Event::Unproven => {
                let object = events::plain("unproven", name);
                self.context.event(&object);
            }
            Event::HeldAgain => {
                let object = events::plain("held_again", name);
                self.context.event(&object);
            }
            _ => {}
        }
    }

    /// What the command did.
    fn heed(&mut self, change: Change) {
        match change {
            Change::Stopped(signal) => self.child_stopped(signal),
            Change::Continued => self.stopped_note = None,
            Change::Ended(_) => {
                self.stopped_note = None;
                // Whatever it did at the end, it did without the lock.
                if !self.lost && !self.watch.is_held() && self.guard.is_some() {
                    self.tell_loss("the command had just ended");
                }
            }
        }
    }

    fn child_stopped(&mut self, signal: c_int) {
        if self.fence.has_struck() || self.killed.is_some() {
            self.job.signal_all(SIGCONT);
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
            self.job.signal_all(SIGCONT);
            return;
        }
        if self.context.args.on_suspend == OnSuspend::IgnoreStop {
            self.job.take_terminal();
            self.note_stopped();
            return;
        }
        if process::is_orphaned(getpid().as_raw_nonzero().get()) {
            // Nobody could ever continue this process: as if there were no job control.
            if signal == SIGSTOP {
                self.note_stopped();
            } else {
                self.job.signal_all(SIGCONT);
            }
            return;
        }
        self.suspend();
    }

    fn note_stopped(&mut self) {
        let text = format!(
            "the command is stopped; {} is still held and renewed",
            self.context.name()
        );
        self.context.voice.warn(&text);
        self.stopped_note = Some(timer::now() + STOPPED_NOTE);
    }

    /// Stops with the command, as the shell expects of a job.
    fn suspend(&mut self) {
        self.fence.freeze(timer::now());
        self.job.take_terminal();
        let name = self.context.name();
        let event = events::plain("suspended", name);
        self.context.event(&event);
        if self.context.args.on_suspend == OnSuspend::Release {
            self.context
                .voice
                .note(&format!("suspended; {name} is released until it goes on"));
            self.release();
        } else {
            let left = short(self.watch.remaining());
            self.context.voice.note(&format!(
                "suspended; {name} runs out in {left} unless it goes on"
            ));
        }
        self.context.voice.flush();
        let _ = match self.job.group() {
            Group::Shared => kill_process(getpid(), Signal::STOP),
            // Whoever started this in the same group waits for the terminal too.
            Group::Own | Group::Session => kill_current_process_group(Signal::STOP),
        };
        // Here it goes on, a moment or a day later.
        self.fence.freeze(timer::now());
        if self.job.group() == Group::Shared {
            // The shell has continued the command as well, which is too early.
            self.job.signal_all(SIGSTOP);
        }
        if self.guard.is_none() {
            self.acquire_again();
        } else if self.context.args.on_lost != args::OnLost::Continue {
            self.verify();
        }
    }

    /// Releases the lock for a command that stands still.
    fn release(&mut self) {
        let Some(guard) = self.guard.take() else {
            return;
        };
        if self
            .context
            .release(ManuallyDrop::into_inner(guard))
            .is_ok()
        {
            let end = timer::now() + Duration::from_secs(5);
            while timer::now() < end {
                match self.context.mail.take() {
                    Some(Report::Released(_)) => return,
                    Some(_) => {}
                    None => self.context.sleep(Some(end.saturating_sub(timer::now()))),
                }
            }
        }
    }

    /// Waits for the lock again before the command goes on.
    fn acquire_again(&mut self) {
        self.job.signal_all(SIGSTOP);
        let Acquisition { locker, stop } = self.acquisition;
        let limit = wait_limit(self.context.args);
        match waiting::wait(self.context, locker, stop, limit) {
            Ok(Waited::Granted(guard)) => {
                self.watch = guard.watch();
                self.guard = Some(ManuallyDrop::new(*guard));
                self.fence.freeze(timer::now());
            }
            other => {
                if let Ok(Waited::Signalled(signal)) = other {
                    self.job.signal(signal);
                }
                self.tell_loss("it was not acquired again; killing the command");
                self.kill();
            }
        }
    }

    /// Lets a command go on that was stopped because of the lock, or with this process.
    fn resume(&mut self) {
        self.job.give_terminal();
        self.job.signal_all(SIGCONT);
        let event = events::plain("resumed", self.context.name());
        self.context.event(&event);
    }

    /// A signal to this process.
    fn receive(&mut self, arrived: Arrived) {
        let signal = arrived.signal;
        match signal {
            SIGCHLD => {
                self.job.child_moved();
                return;
            }
            SIGCONT if self.job.has_terminal() => {
                // `fg`, or `bg`. A frozen command goes on when the lock is known to be held.
                if !self.fence.is_frozen() {
                    self.job.give_terminal();
                    if self.job.is_stopped() {
                        self.job.signal_all(SIGCONT);
                    }
                }
                return;
            }
            _ => {}
        }
        if !self.forwards(arrived) {
            return;
        }
        if arrived.ends() {
            self.hurried = true;
        }
        let now = timer::now();
        if signal == SIGINT {
            if self.interrupted.is_some_and(|last| now <= last + TWICE) {
                self.kill();
                let text = format!("interrupted twice: sent SIGKILL to {}", self.target());
                self.context.voice.note(&text);
                return;
            }
            self.interrupted = Some(now);
        }
        if self.job.ended().is_some() {
            // What it left behind.
            if matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM) {
                self.job.signal_all(signal);
            }
            return;
        }
        self.job.signal(signal);
        if matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM) {
            // A stopped process takes no other signal before it goes on; one that is frozen
            // because of the lock does later.
            if self.job.is_stopped() && !self.fence.is_frozen() {
                self.job.signal_all(SIGCONT);
            }
            if let Some(after) = self.context.args.kill_after_signal {
                self.kill_at.get_or_insert(now + after);
            }
        }
    }

    /// Whether the command has not heard of a signal already.
    fn forwards(&self, arrived: Arrived) -> bool {
        let shared = self.job.group() == Group::Shared;
        match arrived.origin {
            Sender::Kernel => !shared,
            // Where the system does not say, keys on a terminal are the likely origin of these.
            Sender::Unknown => {
                let key = matches!(arrived.signal, SIGINT | SIGQUIT | SIGTSTP | SIGWINCH);
                !(shared && key && self.job.is_foreground())
            }
            Sender::Process(pid) => pid <= 0 || !self.job.contains(pid),
        }
    }

    /// Does what was announced for a time. Returns how long until the next of it.
    fn keep_promises(&mut self) -> Option<Duration> {
        let now = timer::now();
        if self.job.ended().is_some() {
            return None;
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            self.kill();
            let text = format!("sent SIGKILL to {} (--kill-after-signal)", self.target());
            self.context.voice.note(&text);
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

    /// Whether it is over, and if not, when to look again.
    fn finish(&mut self) -> Progress {
        let now = timer::now();
        if self.job.ended().is_none() {
            // A process that cannot be killed is in the system's hands.
            return match self.killed {
                Some(at) if now >= at + DEATH && self.lost => Progress::Over { dead: false },
                Some(at) => Progress::Look(Some((at + DEATH).saturating_sub(now))),
                None => Progress::Look(None),
            };
        }
        if self.leftovers != Leftovers::Done {
            if self.fence.has_struck() || self.killed.is_some() {
                if let Some(progress) = self.bury(now) {
                    return progress;
                }
            } else if let Some(progress) = self.clear_up(now) {
                return progress;
            }
            self.leftovers = Leftovers::Done;
        }
        let until = self.acquired + self.context.args.min_hold;
        let keeps = !self.hurried && !self.lost && self.watch.is_held();
        if keeps && now < until {
            return Progress::Look(Some((until - now).min(Duration::from_secs(1))));
        }
        Progress::Over { dead: true }
    }

    /// The rest of a command that was stopped because of the lock has to be gone.
    fn bury(&mut self, now: Duration) -> Option<Progress> {
        let left = self.job.left()?;
        let Some(killed) = self.killed else {
            return Some(Progress::Look(Some(LOOK)));
        };
        if now < killed + DEATH {
            // A process may have been forked while the signal went round.
            self.job.kill_all();
            return Some(Progress::Look(Some(LOOK)));
        }
        let text = format!("{} of the command cannot be killed", count(&left));
        self.context.voice.error(&text);
        Some(Progress::Over { dead: false })
    }

    /// What a command left behind when it ended by itself.
    fn clear_up(&mut self, now: Duration) -> Option<Progress> {
        let left = self.job.left()?;
        let policy = self.context.args.stragglers;
        match (policy, self.leftovers) {
            (Stragglers::Warn, _) => {
                let text = format!(
                    "the command left {} behind, which the lock does not cover any more \
                     (--stragglers=wait or kill)",
                    count(&left)
                );
                self.context.voice.warn(&text);
                None
            }
            (Stragglers::Wait, Leftovers::Awaited) => Some(Progress::Look(Some(LOOK * 5))),
            (Stragglers::Wait, _) => {
                let name = self.context.name();
                let text = format!("the command left {} behind; holding {name}", count(&left));
                self.context.voice.note(&text);
                self.leftovers = Leftovers::Awaited;
                Some(Progress::Look(Some(LOOK * 5)))
            }
            (Stragglers::Kill, Leftovers::Signalled { kill_at }) => {
                if now >= kill_at + DEATH {
                    let text = format!("{} cannot be killed", count(&left));
                    self.context.voice.error(&text);
                    return Some(Progress::Over { dead: false });
                }
                if now >= kill_at {
                    self.job.kill_all();
                }
                Some(Progress::Look(Some(LOOK)))
            }
            (Stragglers::Kill, _) => {
                self.job.signal_all(SIGTERM);
                self.job.signal_all(SIGCONT);
                let text = format!(
                    "sent SIGTERM to {} that the command left behind",
                    count(&left)
                );
                self.context.voice.note(&text);
                let kill_at = now + self.budget.grace;
                self.leftovers = Leftovers::Signalled { kill_at };
                Some(Progress::Look(Some(LOOK)))
            }
        }
    }
}

/// How far the end is.
enum Progress {
    Over { dead: bool },
    Look(Option<Duration>),
}

/// How long to wait for the lock, if there is a limit.
pub(super) fn wait_limit(args: &args::RunArgs) -> Option<Duration> {
    if args.nonblock {
        Some(Duration::ZERO)
    } else {
        args.wait
    }
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}

/// `2.5s`, `10s`, `4m10s`, `5m`: to a tenth of a second where that matters.
pub(super) fn short(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    if tenths < 100 && !tenths.is_multiple_of(10) {
        return format!("{}.{}s", tenths / 10, tenths % 10);
    }
    let whole = Duration::from_millis(u64::try_from(tenths * 100).unwrap_or(u64::MAX));
    let text = span(whole);
    match text.strip_suffix("m00s") {
        Some(minutes) => format!("{minutes}m"),
        None => text,
    }
}

/// `2 processes (4711, 4712)`.
fn count(pids: &[i32]) -> String {
    const SHOWN: usize = 8;
    let list: Vec<_> = pids.iter().take(SHOWN).map(i32::to_string).collect();
    let more = if pids.len() > SHOWN { ", ..." } else { "" };
    match pids.len() {
        0 => "processes".to_owned(),
        1 => format!("1 process ({})", list[0]),
        n => format!("{n} processes ({}{more})", list.join(", ")),
    }
}

/// An error with what caused it.
pub(super) fn with_cause(error: &azmutex::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_to_the_tenth_while_they_are_short() {
        for (millis, text) in [
            (2500, "2.5s"),
            (3000, "3s"),
            (9960, "10s"),
            (42_300, "42s"),
            (0, "0s"),
            (600_000, "10m"),
            (610_000, "10m10s"),
        ] {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn leftovers_are_counted_and_named() {
        assert_eq!(count(&[7]), "1 process (7)");
        assert_eq!(count(&[7, 8]), "2 processes (7, 8)");
        let many: Vec<i32> = (1..20).collect();
        assert!(
            count(&many).starts_with("19 processes (1, 2,") && count(&many).ends_with(", ...)")
        );
    }
}
