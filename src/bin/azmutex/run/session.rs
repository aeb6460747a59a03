//! One run from start to end: check, wait, start, supervise, release, exit as the command did.

mod dry_run;

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use azmutex::{
    Done, Error, ErrorKind, Event, LeaseStatus, Locker, LockerBuilder, Previous, StopToken,
    TryLockError,
};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::SIGTSTP;

use super::budget::Budget;
use super::channel::{Message, Receiver};
use super::context::Context;
use super::environment;
use super::events::{self, Exit};
use super::guardian::Duty;
use super::health::Health;
use super::held::{Held, Wanted, may_pass};
use super::job::{Job, Start};
use super::program::Program;
use super::reporter::Reporter;
use super::signals::{Arrived, Signals};
use super::status::Status;
use super::supervisor::{Acquisition, Ended, Supervisor};
use super::sys::{self, RealTimeSignals, SignalMask};
use super::terminal::Place;
use super::timer::{self, Timer};
use super::waiting::{self, Waited};
use super::worker::Worker;
use crate::args::{ElectArgs, Global, OnLost, OnSuspend, OnceArgs, Purpose, RunArgs};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, clean, with_cause};
use crate::times::{rfc3339, short};
use crate::wait_display::{Style, no_permit, not_acquired, not_all_acquired};
use crate::{chain, files};

/// How long to wait for the release before the lease is left to run out.
const RELEASE: Duration = Duration::from_secs(5);

/// The most locks that the library holds at once.
const MAX_LOCKS: usize = 16;

/// How long to wait for the holder's name when the lock was not acquired.
const NAME: Duration = Duration::from_secs(2);

pub(super) fn run(args: &RunArgs, purpose: Purpose<'_>, global: &Global) -> ExitCode {
    if global.verbose == 0 {
        // azmutex reports what the library warns of itself, in terms of the command.
        log::set_max_level(log::LevelFilter::Error);
    }
    // Before any thread is started, such as an emulator's, so that all of them inherit it.
    let mask = SignalMask::block_terminal_output();
    let result = RealTimeSignals::block()
        .map_err(cannot_start)
        .and_then(|real_time| Plan::new(args, purpose, global)?.carry_out(mask, real_time));
    match result {
        Ok(end) => end.exit(),
        Err(mut failure) => {
            in_run(&mut failure, args);
            failure.report(global);
            failure.exit().into()
        }
    }
}

/// Sets the exit code that the failure has in a run.
fn in_run(failure: &mut Failure, args: &RunArgs) {
    failure.code = failure.code.in_run();
    failure.exit = match failure.code {
        Code::NotAcquired => Some(args.conflict_exit_code),
        Code::Lost => Some(args.lost_exit_code),
        _ => None,
    };
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::new(Code::Bug, format!("cannot start: {error}"))
}

/// How this process ends.
enum End {
    Code(u8),
    /// Killed by this signal, if possible.
    Signal(i32),
}

impl End {
    fn exit(self) -> ExitCode {
        match self {
            Self::Code(code) => ExitCode::from(code),
            Self::Signal(signal) => {
                crate::output::flush(crate::writer::soon());
                if self.code().is_none() {
                    sys::raise_default(signal);
                }
                ExitCode::from(in_shells(signal))
            }
        }
    }

    /// The exit code, unless it ends by a signal.
    fn code(&self) -> Option<u8> {
        match *self {
            Self::Code(code) => Some(code),
            // Process 1 cannot be killed by a signal that it does not handle.
            Self::Signal(signal) => (std::process::id() == 1).then(|| in_shells(signal)),
        }
    }
}

/// The exit code by which a shell says that a signal killed a process.
fn in_shells(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// How one turn of holding the lock ends.
enum Turn {
    Over(End),
    /// The leadership was lost, and the command is gone.
    StandAgain,
}

/// How far a run has come.
struct Course {
    started: Duration,
    acquired: Option<Duration>,
    fence: Option<i64>,
}

impl Course {
    fn start() -> Self {
        Self {
            started: timer::now(),
            acquired: None,
            fence: None,
        }
    }
}

/// Everything that can be known before the lock is taken.
struct Plan<'a> {
    args: &'a RunArgs,
    once: Option<&'a OnceArgs>,
    /// The lock is an election.
    election: Option<&'a ElectArgs>,
    global: &'a Global,
    program: Program,
    budget: Budget,
    /// Kept alive, because an emulator in it ends with it.
    config: Config,
    lock: Lock,
    /// Those that are held besides.
    others: Vec<Lock>,
    /// The names of all, safe to show.
    name: String,
}

impl<'a> Plan<'a> {
    fn new(args: &'a RunArgs, purpose: Purpose<'a>, global: &'a Global) -> Result<Self, Failure> {
        let (once, election) = (purpose.once(), purpose.election());
        if election.is_some() {
            refuse_to_go_on(args)?;
        }
        let lease = args.lease.as_duration().unwrap_or(Duration::MAX);
        let budget =
            Budget::new(lease, args.renew_every, args.kill_after, args.margin).map_err(|rule| {
                Failure::usage(rule).hint(
                    "two renewals, the time for the command to end, and the margin have to fit \
                     into the lease",
                )
            })?;
        let program = Program::resolve(&args.command, args.shell.as_deref())?;
        let config = Config::load_within(global, args.waiting.patience(global))?;
        let lock = config.lock(&args.lock, args.waiting.create)?;
        if once.is_some() && (args.slots.is_some() || !args.also.is_empty()) {
            return Err(Failure::usage("--slots and --also are options of run"));
        }
        let slot = (args.slots == Some(1)).then_some(0);
        chain::refuse_held(&lock, slot, &args.waiting)?;
        let mut others: Vec<Lock> = Vec::new();
        for name in &args.also {
            let other = config.lock(name, args.waiting.create)?;
            chain::refuse_held(&other, None, &args.waiting)?;
            let is_new = others
                .iter()
                .chain([&lock])
                .all(|lock| lock.url != other.url);
            if is_new {
                others.push(other);
            }
        }
        let count = 1 + others.len();
        if count > MAX_LOCKS {
            return Err(Failure::usage(format!(
                "--also: {count} locks are named, and a run holds {MAX_LOCKS} at most"
            )));
        }
        let name = names(&lock, &others);
        Ok(Self {
            args,
            once,
            election,
            global,
            program,
            budget,
            config,
            lock,
            others,
            name,
        })
    }

    fn carry_out(&self, mask: SignalMask, real_time: RealTimeSignals) -> Result<End, Failure> {
        if self.args.dry_run {
            return self.describe();
        }
        let channel = Receiver::new().map_err(cannot_start)?;
        let mut context = Context {
            args: self.args,
            global: self.global,
            lock: &self.lock,
            name: &self.name,
            reporter: Reporter::new(self.open_events()?, self.global),
            style: Style::of(self.global),
            signals: Signals::install(real_time).map_err(cannot_start)?,
            worker: Worker::new(channel.sender()),
            channel,
            timer: Timer::new().map_err(cannot_start)?,
            guardian: None,
        };
        let stop = StopToken::new();
        let wanted = self.wanted(&stop, &context)?;
        let acquisition = Acquisition {
            wanted: &wanted,
            stop: &stop,
        };
        let mut limit = self.args.waiting.left();
        let mut before = 0;
        loop {
            match self.turn(&mut context, acquisition, limit, before, mask)? {
                Turn::Over(end) => return Ok(end),
                Turn::StandAgain => before += 1,
            }
            limit = self.args.waiting.limit();
            let text = format!("standing for election again: {}", context.name());
            context.reporter.note(&text);
            // So that others have their turn.
            let poll = self.args.waiting.poll;
            if let Some(signal) = pause(&mut context, poll.saturating_add(poll / 4)) {
                return Ok(self.interrupted(&mut context, &Course::start(), signal));
            }
        }
    }

    /// Whether to stand again for an election that was lost.
    fn stands_again(&self, stop: &StopToken) -> bool {
        self.election.is_some_and(|election| !election.once) && !stop.is_stopped()
    }

    /// Waits for the lock, and runs the command under it. `before`: how many turns there were.
    fn turn(
        &self,
        context: &mut Context<'a>,
        acquisition: Acquisition<'_>,
        limit: Option<Duration>,
        before: u32,
        mask: SignalMask,
    ) -> Result<Turn, Failure> {
        let Acquisition { wanted, stop } = acquisition;
        let mut course = Course::start();
        let heed = |arrived: Option<Arrived>| {
            // Before the first command, ^Z stops this process without its doing.
            if arrived.is_some_and(|arrived| arrived.signal == SIGTSTP) {
                stop_alone();
            }
            ControlFlow::Continue(())
        };
        let guard = match waiting::wait(context, wanted, stop, limit, heed).map_err(cannot_start)? {
            Waited::Granted(guard) => guard,
            Waited::Refused(TryLockError::Error(error))
                if before > 0 && self.stands_again(stop) && may_pass(&error) =>
            {
                return Ok(Turn::StandAgain);
            }
            Waited::Refused(error) => return Err(self.refused(context, wanted, error, &course)),
            Waited::Signalled(signal) => {
                return Ok(Turn::Over(self.interrupted(context, &course, signal)));
            }
            Waited::Done(done) => {
                return Ok(Turn::Over(self.already_done(context, &done, &course)));
            }
            Waited::Abandoned => unreachable!("nobody abandons it"),
        };
        let acquired = timer::now();
        course.acquired = Some(acquired);
        course.fence = guard.fencing_token();
        let event = events::acquired(&self.lock, &guard, acquired - course.started);
        context.event(&event);
        self.tell_previous(context, &guard);
        let slot = self.wanted_again(&guard, stop, context)?;
        let acquisition = Acquisition {
            wanted: slot.as_ref().unwrap_or(wanted),
            stop,
        };
        let (start, place) = self.prepare(context, &guard, mask, before == 0);
        let environment = start.environment.clone();
        let checked = timer::now();
        if let Err(error) = guard.check() {
            if self.stands_again(stop) {
                let event = events::lost(context.key(), &cause(&error));
                context.event(&event);
                release(context, *guard);
                return Ok(Turn::StandAgain);
            }
            return Err(self.too_late(context, *guard, &error, &course));
        }
        let mut job = match Job::start(start, place) {
            Ok(job) => job,
            Err(error) => {
                let released = release(context, *guard) == Release::Done;
                let failure = self.program.not_started(&error);
                return Err(self.failed(context, &course, "failed", failure, released));
            }
        };
        context.guardian = job.take_guardian_fd();
        let event = events::started(context.key(), job.pid());
        context.event(&event);
        let health = self.watch_health(context, &guard, &mut job, &environment);
        let supervisor = Supervisor::new(
            context,
            acquisition,
            self.budget,
            *guard,
            acquired,
            checked,
            job,
        );
        let ended = supervisor.with_health(self.health()).run();
        drop(health);
        Ok(self.finish(context, ended, course, stop))
    }

    /// How old the last success of the health command may be.
    fn health(&self) -> Option<Duration> {
        let election = self.election?;
        election
            .health_cmd
            .is_some()
            .then_some(election.health_within)
    }

    /// Starts the health command, if there is one.
    fn watch_health(
        &self,
        context: &mut Context<'_>,
        guard: &Held,
        job: &mut Job,
        environment: &[CString],
    ) -> Option<Health> {
        let command = self.election?.health_cmd.as_deref()?;
        let sender = context.channel.sender();
        match Health::start(command, self.health()?, environment, guard.sign(), sender) {
            Ok(health) => {
                job.leave_out(health.pid());
                Some(health)
            }
            Err(error) => {
                let text = format!("cannot run the health command: {error}");
                context.reporter.error(&text);
                None
            }
        }
    }

    /// Reports that a signal ended it while no command ran.
    fn interrupted(&self, context: &mut Context<'_>, course: &Course, signal: c_int) -> End {
        let end = End::Signal(signal);
        let status = Status::Killed {
            signal,
            dumped: false,
        };
        let code = end.code();
        self.conclude(context, course, "interrupted", code, Some(status), false);
        end
    }

    /// Reports that there is nothing to do.
    fn already_done(&self, context: &mut Context<'_>, done: &Done, course: &Course) -> End {
        let event = events::already_done(context.key(), done);
        context.event(&event);
        let text = format!(
            "{} was done {}; nothing to do",
            context.name(),
            by_and_at(done)
        );
        context.reporter.note(&text);
        let code = self.once.map_or(0, |once| once.done_exit_code);
        self.conclude(context, course, "already_done", Some(code), None, false);
        End::Code(code)
    }

    fn wanted(&self, stop: &StopToken, context: &Context<'_>) -> Result<Wanted, Failure> {
        let builder = |lock| self.builder(lock, stop, context);
        if let Some(slots) = self.args.slots {
            let semaphore = builder(&self.lock).build_semaphore(slots)?;
            let resize = self.args.resize;
            return Ok(Wanted::Permit { semaphore, resize });
        }
        let mut lockers = vec![builder(&self.lock).build()?];
        for other in &self.others {
            lockers.push(builder(other).build()?);
        }
        Ok(match <[Locker; 1]>::try_from(lockers) {
            Ok([locker]) => match self.once {
                Some(once) => Wanted::Once(locker, once.every),
                None => Wanted::Lock(locker),
            },
            Err(lockers) => Wanted::All(lockers),
        })
    }

    /// What to acquire after a suspension, if it is less than before. The command has been told the
    /// number of its permit, which therefore stays the same.
    fn wanted_again(
        &self,
        held: &Held,
        stop: &StopToken,
        context: &Context<'_>,
    ) -> Result<Option<Wanted>, Failure> {
        let Some(slot) = held.slot else {
            return Ok(None);
        };
        let locker = self.builder(&self.lock.slot(slot), stop, context).build()?;
        Ok(Some(Wanted::Slot(locker, slot)))
    }

    fn builder(&self, lock: &Lock, stop: &StopToken, context: &Context<'_>) -> LockerBuilder {
        let identity = &self.args.identity;
        let sender = context.channel.sender();
        // Of several locks or permits, people want to know which.
        let name = (lock.name != self.name).then(|| Arc::from(lock.name.as_str()));
        let reason = identity
            .reason
            .clone()
            .unwrap_or_else(|| self.program.name());
        let builder = Locker::builder(lock.mutex.clone(), &lock.key)
            .lease_duration(self.args.lease.as_duration().unwrap_or_default())
            .renewal_interval(self.budget.renew_every)
            .margin(self.budget.margin)
            .poll_interval(self.args.waiting.poll)
            .fault_wait(self.args.waiting.retry_time())
            .release_timeout(RELEASE)
            .fencing(self.election.is_some() || !self.args.no_fencing)
            .reason(reason)
            .observer(move |event: &Event| {
                sender.send(Message::Event(event.clone(), name.clone()));
            })
            .stop_token(stop);
        let builder = match self.health() {
            Some(within) => builder.health(within),
            None => builder,
        };
        match &identity.owner {
            Some(owner) => builder.owner(owner),
            None => builder,
        }
    }

    fn open_events(&self) -> Result<Option<File>, Failure> {
        let (file, flag, hint) = match (self.args.event_fd, &self.args.event_file) {
            (Some(fd), _) => (
                sys::inherited_file(i32::from(fd)),
                format!("--event-fd {fd}"),
                "open a descriptor for it in the shell, as in: --event-fd 3 3>events",
            ),
            (None, Some(path)) => {
                let patience = self.args.waiting.patience(self.global);
                let file = files::open_to_append(path, patience);
                (
                    file,
                    format!("--event-file {}", clean(&path.display().to_string())),
                    "name a file in a directory that is there, and that this user may write to",
                )
            }
            (None, None) => return Ok(None),
        };
        file.map(Some).map_err(|error| {
            Failure::usage(format!("{flag}: cannot write to it: {error}")).hint(hint)
        })
    }

    /// Mentions that the previous holder did not release the lock.
    fn tell_previous(&self, context: &mut Context<'_>, guard: &Held) {
        if let Some(holder) = guard.abandoned().and_then(Previous::holder) {
            let text = format!(
                "the previous holder of {} left without releasing it: {}",
                context.name(),
                clean(&holder.to_string())
            );
            if self.global.verbose > 0 {
                context.reporter.note(&text);
            }
        }
    }

    /// Prepares everything that the command's start needs besides the lock.
    fn prepare(
        &self,
        context: &mut Context<'_>,
        guard: &Held,
        mask: SignalMask,
        first: bool,
    ) -> (Start<'_>, Place) {
        // Until now ^Z stopped this process alone; from here on it stops along with the command.
        if first {
            let _ = context.signals.install_stop();
        }
        let start = Start {
            program: &self.program,
            environment: environment::of_child(
                self.args,
                &self.lock,
                &self.others,
                guard,
                &self.budget,
            ),
            mask,
            handled: context.signals.handled().to_vec(),
            dies_with_parent: !self.args.no_pdeathsig,
            guardian: self.guards().then(|| self.duty(context, guard)),
        };
        (start, Place::find(self.args.process_group))
    }

    /// Whether the command gets a guardian: not if it is meant to outlive azmutex or the lock.
    fn guards(&self) -> bool {
        let args = self.args;
        !args.no_guardian && !args.no_pdeathsig && args.on_lost != OnLost::Continue
    }

    /// What the guardian is told at the start.
    fn duty(&self, context: &Context<'_>, guard: &Held) -> Duty {
        let text = format!(
            "azmutex (pid {}) was killed; its command was ended before the lease of {} was over",
            std::process::id(),
            context.name()
        );
        Duty {
            deadline: timer::now() + guard.remaining(),
            slack: self.budget.margin / 2,
            message: context.reporter.error_line(&text),
        }
    }

    /// The lease ran out before the command was started, because this process or the machine was
    /// suspended.
    fn too_late(
        &self,
        context: &mut Context<'_>,
        guard: Held,
        error: &Error,
        course: &Course,
    ) -> Failure {
        let why = cause(error);
        let watch = guard.watch();
        let event = events::lost(context.key(), &why).exact("url", &watch.url(watch.weakest()));
        context.event(&event);
        let released = release(context, guard) == Release::Done;
        let failure = Failure::new(Code::Lost, format!("{why}; the command was not started"));
        self.failed(context, course, "lost", failure, released)
    }

    fn refused(
        &self,
        context: &mut Context<'_>,
        wanted: &Wanted,
        error: TryLockError,
        course: &Course,
    ) -> Failure {
        let waited = timer::now() - course.started;
        match error {
            TryLockError::WouldBlock => {
                let status = waiting::look_for(context, wanted, NAME);
                let limit = self.args.waiting.limit();
                let failure = self.not_acquired(status.as_deref(), limit);
                self.failed(context, course, "not_acquired", failure, false)
            }
            TryLockError::Error(error) => {
                let recorded = wanted.permits_recorded(&error);
                let is_barred = wanted.is_barred_by_a_lock(&error);
                let mut failure = Failure::from(error);
                failure.text = format!(
                    "cannot acquire {} (tried for {}): {}",
                    self.name,
                    short(waited),
                    failure.text
                );
                if let (Some(recorded), Some(slots), false) =
                    (recorded, self.args.slots, self.args.resize)
                {
                    failure = failure.hint(format!(
                        "--slots {recorded} is what others use; --slots {slots} --resize changes it \
                         for all"
                    ));
                } else if is_barred {
                    let word = &self.lock.word;
                    failure = failure.hint(format!("azmutex status {word} shows who holds it"));
                }
                self.failed(context, course, "failed", failure, false)
            }
        }
    }

    fn not_acquired(&self, status: Option<&LeaseStatus>, limit: Option<Duration>) -> Failure {
        if let Some(slots) = self.args.slots {
            return no_permit(&self.lock, slots, status, limit);
        }
        if self.others.is_empty() {
            return not_acquired(&self.lock, status, limit);
        }
        let busy = status.filter(|status| !status.state().is_free());
        let busy = busy.and_then(|status| {
            let mut all = [&self.lock].into_iter().chain(&self.others);
            Some((all.find(|lock| lock.key == status.key())?, status))
        });
        not_all_acquired(&self.name, busy, limit)
    }

    /// Reports the end of a run whose command was not started. Returns the failure.
    fn failed(
        &self,
        context: &mut Context<'_>,
        course: &Course,
        outcome: &str,
        mut failure: Failure,
        released: bool,
    ) -> Failure {
        in_run(&mut failure, self.args);
        self.conclude(
            context,
            course,
            outcome,
            Some(failure.exit()),
            None,
            released,
        );
        failure
    }

    /// Releases the lock, and reports how the run ended.
    fn finish(
        &self,
        context: &mut Context<'_>,
        ended: Ended,
        mut course: Course,
        stop: &StopToken,
    ) -> Turn {
        if let Some(guard) = &ended.guard {
            // A different one if the lock was acquired again.
            course.fence = guard.fencing_token();
        }
        let mut lost = ended.lost;
        let mut released = false;
        let mut guard = ended.guard;
        let is_done = self.once.is_some() && ended.status == Status::Exited(0);
        let mut unrecorded = is_done;
        if is_done && ended.dead && !lost {
            (guard, unrecorded) = self.record(context, guard);
        } else if is_done {
            let text = format!(
                "the command succeeded, and it is not recorded that {} is done: it will run again",
                context.name()
            );
            context.reporter.error(&text);
        }
        match guard {
            Some(guard) if ended.dead => match release(context, guard) {
                Release::Done => released = true,
                Release::Lost(why) => {
                    if !lost {
                        let text = format!(
                            "lock {} was lost before the command ended, and nobody noticed in time: \
                             {why}",
                            context.name()
                        );
                        context.reporter.error(&text);
                    }
                    lost = true;
                }
                Release::Failed(why) => {
                    let text = format!(
                        "cannot release {}: {why}; its lease runs out by itself within {}",
                        context.name(),
                        short(self.budget.lease)
                    );
                    context.reporter.warn(&text);
                }
            },
            Some(guard) => {
                let text = format!(
                    "{} is not released, since processes of the command may still be at work; its \
                     lease runs out within {}",
                    context.name(),
                    short(self.budget.lease)
                );
                context.reporter.error(&text);
                std::mem::forget(guard);
            }
            None => {}
        }
        let stopped = lost && self.args.on_lost != OnLost::Continue;
        if stopped && ended.dead && !ended.asked && self.stands_again(stop) {
            return Turn::StandAgain;
        }
        let outcome = match ended.status {
            _ if stopped => "lost",
            Status::Exited(_) => "child_exited",
            Status::Killed { .. } => "child_killed",
        };
        if let (
            Status::Killed {
                signal,
                dumped: true,
            },
            false,
        ) = (ended.status, stopped)
        {
            context.reporter.note(&format!(
                "the command was killed by signal {signal} (core dumped)"
            ));
        }
        let end = match ended.status {
            _ if unrecorded && !stopped => End::Code(Code::Failed as u8),
            _ if stopped => End::Code(self.args.lost_exit_code),
            Status::Exited(code) => End::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Status::Killed { signal, .. } => End::Signal(signal),
        };
        self.conclude(
            context,
            &course,
            outcome,
            end.code(),
            Some(ended.status),
            released,
        );
        Turn::Over(end)
    }

    /// Records that the work is done. Returns what is held, unless the service does not answer, and
    /// whether it is not recorded.
    fn record(&self, context: &mut Context<'_>, held: Option<Held>) -> (Option<Held>, bool) {
        let Some(held) = held else {
            return (None, true);
        };
        let record = |held: Held| {
            let result = held.record();
            Message::Recorded(Box::new(held), result)
        };
        let limit = self.global.request_timeout + Duration::from_millis(500);
        let recorded = |message| match message {
            Message::Recorded(held, result) => Some((*held, result)),
            _ => None,
        };
        // A signal does not cut it short: what is not recorded is done again.
        let (held, why) = match context.in_background(held, record) {
            Some(held) => (
                Some(held),
                Some("no thread can be started for it".to_owned()),
            ),
            None => match context.message(limit, recorded) {
                Some((held, result)) => (Some(held), result.err().map(|error| cause(&error))),
                None => (None, Some("the service does not answer".to_owned())),
            },
        };
        let event = events::recorded(context.key(), why.as_deref());
        context.event(&event);
        if let Some(why) = &why {
            let text = format!(
                "the command succeeded, but it cannot be recorded that {} is done: {why}; it may \
                 run again",
                context.name()
            );
            context.reporter.error(&text);
        }
        (held, why.is_some())
    }

    /// Writes the last event.
    fn conclude(
        &self,
        context: &mut Context<'_>,
        course: &Course,
        outcome: &str,
        exit: Option<u8>,
        status: Option<Status>,
        released: bool,
    ) {
        let now = timer::now();
        let exit = Exit {
            outcome,
            exit,
            status,
            fence: course.fence,
            held: course.acquired.map(|acquired| now - acquired),
            waited: course.acquired.unwrap_or(now) - course.started,
            released,
        };
        let event = exit.object(context.key());
        context.event(&event);
        context.reporter.flush();
    }
}

/// The names of all locks, safe to show.
fn names(first: &Lock, others: &[Lock]) -> String {
    let Some((last, others)) = others.split_last() else {
        return first.name.clone();
    };
    let mut names = first.name.clone();
    for other in others {
        names.push_str(", ");
        names.push_str(&other.name);
    }
    format!("{names} and {}", last.name)
}

/// Who did it, if that is known, and when.
fn by_and_at(done: &Done) -> String {
    let by = done
        .by()
        .map_or(String::new(), |by| format!("by {} ", clean(by)));
    format!("{by}at {}", rfc3339(done.at()))
}

/// Refuses to let the command of a leader go on when another one may have led, or with another term than
/// it was told.
fn refuse_to_go_on(args: &RunArgs) -> Result<(), Failure> {
    let option = if args.on_lost == OnLost::Continue {
        "--on-lost continue"
    } else if args.on_suspend == OnSuspend::Release {
        "--on-suspend release"
    } else {
        return Ok(());
    };
    let text = format!("{option}: the command of a leader does not go on without its term");
    Err(Failure::usage(text).hint("leave it out, or use: azmutex run"))
}

/// Stops this process, which nothing else does once it handles ^Z.
fn stop_alone() {
    let _ = kill_process(getpid(), Signal::STOP);
}

/// Waits for `time`. Returns the signal that ended it, if one did.
fn pause(context: &mut Context<'_>, time: Duration) -> Option<c_int> {
    let end = timer::now() + time;
    loop {
        let left = end.saturating_sub(timer::now());
        if left.is_zero() {
            return None;
        }
        context.sleep(Some(left));
        while context.channel.take().is_some() {}
        for arrived in context.signals.take() {
            if arrived.ends() {
                return Some(arrived.signal);
            }
            if arrived.signal == SIGTSTP {
                stop_alone();
            }
        }
    }
}

/// The result of a release.
#[derive(Debug, PartialEq, Eq)]
enum Release {
    Done,
    /// The lock, or one of them, had been lost before.
    Lost(String),
    Failed(String),
}

/// Releases on a thread, and waits for that for a limited time.
fn release(context: &mut Context<'_>, guard: Held) -> Release {
    if let Some(guard) = context.release(guard) {
        // This process is about to end, which ends the renewals.
        std::mem::forget(guard);
        return Release::Failed("no thread can be started for it".to_owned());
    }
    let released = |message| match message {
        Message::Released(result) => Some(result),
        _ => None,
    };
    // Signals do not cut it short: it takes little time, and without it others would have to wait for the
    // lease to run out.
    match context.message(RELEASE + Duration::from_millis(500), released) {
        None => Release::Failed("the service does not answer".to_owned()),
        Some(Ok(())) => Release::Done,
        Some(Err(error)) if error.kind() == ErrorKind::LeaseLost => Release::Lost(cause(&error)),
        Some(Err(error)) => Release::Failed(cause(&error)),
    }
}

fn cause(error: &Error) -> String {
    clean(&with_cause(error))
}
