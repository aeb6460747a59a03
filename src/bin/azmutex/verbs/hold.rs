//! `azmutex hold`: keeps a lock for a script until the script ends.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{ErrorKind, Event, LeaseGuard, LeaseId, Locker, StopToken, TryLockError};

use super::Outcome;
use super::acquire::{SETTLE, SETTLE_LATE};
use super::give_back::give_back;
use crate::args::{Global, HoldArgs};
use crate::chain;
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, never_wait_for_stderr, try_print, warn};
use crate::process::Process;
use crate::run::budget::Budget;
use crate::run::fence::{Act, Fence, OnLost, View};
use crate::run::now;
use crate::script::Script;
use crate::signals;
use crate::stdin::{self, Stdin};
use crate::times::short;
use crate::value::Signal;
use crate::wait_display::{WaitDisplay, not_acquired};

use self::signal::{CONT, KILL, STOP};

/// How often the processes of the script are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long killed processes may take to be gone.
const LAST: Duration = Duration::from_secs(2);

/// What ends holding, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Stdin,
    Process,
    Signal(i32),
    /// Something happened to the lock.
    Lock,
}

pub(crate) fn hold(args: &HoldArgs, global: &Global) -> Outcome {
    never_wait_for_stderr();
    if global.verbose == 0 {
        // What the library warns of is said here, in terms of the script.
        log::set_max_level(log::LevelFilter::Error);
    }
    let process = args.for_pid.map(Process::open).transpose()?;
    let stdin = Stdin::look();
    if stdin == Stdin::Null && process.is_none() {
        return Err(Failure::usage(
            "stdin is /dev/null, which ends at once, so the lock would be released \
                            at once",
        )
        .hint("give it a pipe or a terminal as stdin, or pass --for-pid PID"));
    }
    let config = Config::load_within(global, args.waiting.patience(global))?;
    let lock = config.lock(&args.lock, args.waiting.create)?;
    chain::refuse_held(&lock, None, &args.waiting)?;
    let limit = args.waiting.limit();
    let display = Arc::new(WaitDisplay::new(global, &lock, limit));
    let stop = StopToken::new();
    let (news, told) = mpsc::channel();
    let budget = budget(args)?;
    let locker = locker(args, global, &lock, budget, &stop, &news, &display)?;

    // In the background, reading from the terminal would stop this process.
    let reads = stdin == Stdin::Other || (stdin == Stdin::Terminal && process.is_none());
    watch(news, &stop, process.as_ref(), reads)
        .map_err(|error| Failure::new(Code::Bug, format!("cannot watch for the end: {error}")))?;

    let started = Instant::now();
    let result = match args.waiting.left() {
        Some(left) => locker.try_lock_for(left),
        None => locker.lock().map_err(TryLockError::from),
    };
    display.clear();
    let guard = match result {
        Ok(guard) => guard,
        Err(TryLockError::WouldBlock) => {
            give_back(&locker, None, SETTLE_LATE);
            return Err(not_acquired(&lock, display.status().as_ref(), limit));
        }
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Stopped => {
            return given_up(&lock, &locker, error.lease_id(), &told);
        }
        Err(TryLockError::Error(error)) => {
            give_back(&locker, error.lease_id(), SETTLE_LATE);
            return Err(error.into());
        }
    };
    display.acquired(started.elapsed(), global.verbose > 0);
    // Before the script goes on.
    let script = process.map(Script::new);
    if let Err(error) = ready(args, global, &lock, &guard) {
        release(&lock, guard, global);
        return Err(Failure::new(
            Code::Bug,
            format!("cannot write to stdout: {error}; released {}", lock.name),
        ));
    }
    leave_stdout();
    let fence =
        budget.map(|budget| Fence::new(OnLost::Terminate, budget.grace, budget.lease, now()));
    let keeper = Keeper {
        args,
        global,
        lock: &lock,
        guard,
        script,
        fence,
        ending: None,
        killed: None,
    };
    keeper.keep(&told)
}

/// How the time of the lease is divided, where processes have to be ended before it is over.
fn budget(args: &HoldArgs) -> Result<Option<Budget>, Failure> {
    if args.on_lost_signal.is_none() {
        return Ok(None);
    }
    let lease = args.lease.as_duration().unwrap_or_default();
    match Budget::new(lease, args.renew_every, None, None) {
        Ok(budget) => Ok(Some(budget)),
        Err(_) => Err(Failure::usage(format!(
            "--renew-every {}: it leaves no time to end the script within a lease of {}",
            short(args.renew_every.unwrap_or_default()),
            short(lease)
        ))
        .hint("leave it out, or make it less than a third of --lease")),
    }
}

fn locker(
    args: &HoldArgs,
    global: &Global,
    lock: &Lock,
    budget: Option<Budget>,
    stop: &StopToken,
    news: &Sender<News>,
    display: &Arc<WaitDisplay>,
) -> Result<Locker, Failure> {
    let (news, display, global) = (news.clone(), Arc::clone(display), global.clone());
    // With -v the library says so itself.
    let quiet = global.verbose > 0;
    let mut builder = Locker::builder(lock.mutex.clone(), &lock.key)
        .lease_duration(args.lease.as_duration().unwrap_or_default())
        .poll_interval(args.waiting.poll)
        .fault_wait(args.waiting.fault_wait.max(Duration::from_millis(1)))
        .release_timeout(SETTLE)
        .fencing(true)
        .stop_token(stop)
        .observer(move |event| match event {
            Event::Waiting {
                elapsed, status, ..
            } => display.waiting(*elapsed, status.as_deref()),
            Event::AcquireFailed { error, .. } if !quiet => {
                warn(&global, &format!("{error}; trying again"));
            }
            Event::RenewalFailed {
                error, remaining, ..
            } if !quiet => {
                let left = short(*remaining);
                warn(&global, &format!("{error}; lost in {left} unless renewed"));
            }
            Event::Unproven | Event::Lost { .. } => {
                let _ = news.send(News::Lock);
            }
            _ => {}
        });
    if let Some(budget) = budget {
        builder = builder
            .renewal_interval(budget.renew_every)
            .margin(budget.margin);
    } else if let Some(interval) = args.renew_every {
        builder = builder.renewal_interval(interval);
    }
    if let Some(owner) = &args.identity.owner {
        builder = builder.owner(owner);
    }
    if let Some(reason) = &args.identity.reason {
        builder = builder.reason(reason);
    }
    builder
        .build()
        .map_err(|error| Failure::usage(error.to_string()).hint("--lease, --renew-every"))
}

/// Watches for everything that ends the hold. Each also ends a wait for the lock.
fn watch(
    news: Sender<News>,
    stop: &StopToken,
    process: Option<&Process>,
    stdin: bool,
) -> io::Result<()> {
    let (sender, token) = (news.clone(), stop.clone());
    signals::watch(move |signal| {
        let _ = sender.send(News::Signal(signal));
        token.stop();
    })?;
    if let Some(process) = process {
        let (process, sender, token) = (process.clone(), news.clone(), stop.clone());
        thread::Builder::new()
            .name("azmutex-process".to_owned())
            .spawn(move || {
                process.wait();
                let _ = sender.send(News::Process);
                token.stop();
            })?;
    }
    if stdin {
        let token = stop.clone();
        thread::Builder::new()
            .name("azmutex-stdin".to_owned())
            .spawn(move || {
                stdin::drain();
                let _ = news.send(News::Stdin);
                token.stop();
            })?;
    }
    Ok(())
}

fn ready(args: &HoldArgs, global: &Global, lock: &Lock, guard: &LeaseGuard) -> io::Result<()> {
    if global.json {
        let object = Object::event("acquired")
            .exact("lock", &lock.key)
            .exact("url", &lock.url)
            .text("lease_id", &guard.lease_id().to_string())
            .maybe_number("fence", guard.fencing_token());
        try_print(&format!("{object}\n"))
    } else if args.ready {
        try_print("READY\n")
    } else {
        Ok(())
    }
}

/// Nothing more is written to stdout: whoever reads it to its end need not wait for this process,
/// which may wait for that one.
fn leave_stdout() {
    #[cfg(unix)]
    {
        let nothing = std::fs::File::options().write(true).open("/dev/null");
        let _ = nothing.map(rustix::stdio::dup2_stdout);
    }
}

/// The end came before the lock was acquired.
fn given_up(lock: &Lock, locker: &Locker, id: Option<LeaseId>, told: &Receiver<News>) -> Outcome {
    give_back(locker, id, SETTLE);
    let why = match told.try_recv() {
        Ok(News::Signal(signal)) => signals::die(signal),
        Ok(News::Process) => "the process of --for-pid ended",
        _ => "stdin ended",
    };
    let text = format!("cannot acquire {}: {why}", lock.name);
    Err(Failure::new(Code::NotAcquired, text))
}

/// Keeps the lock until it is not needed any more, or lost.
struct Keeper<'a> {
    args: &'a HoldArgs,
    global: &'a Global,
    lock: &'a Lock,
    guard: LeaseGuard,
    script: Option<Script>,
    /// When the script is ended because the lock does not last, if it is.
    fence: Option<Fence>,
    /// What ended holding. The lock is kept until what was started before has ended.
    ending: Option<News>,
    /// Since when the script is killed.
    killed: Option<Duration>,
}

impl Keeper<'_> {
    fn keep(mut self, told: &Receiver<News>) -> Outcome {
        loop {
            if let Some(script) = &mut self.script {
                script.look();
            }
            let wait = match self.fence.take() {
                Some(mut fence) => {
                    let wait = self.guard_script(&mut fence);
                    let struck = fence.has_struck();
                    self.fence = Some(fence);
                    if struck && self.is_over() {
                        return Ok(self.lost());
                    }
                    wait
                }
                None if !self.guard.is_held() => {
                    let text = format!("lock {} lost: {}", self.lock.name, self.why());
                    std::mem::forget(self.guard);
                    return Err(Failure::new(Code::Lost, text));
                }
                None => None,
            };
            if self.ending.is_some() && self.running().is_empty() && !self.has_struck() {
                return self.done();
            }
            // The deadline counts also when the thread that renews says nothing.
            let wait = wait.unwrap_or(Duration::MAX).min(self.guard.remaining());
            let wait = match self.script {
                Some(_) => LOOK_EVERY.min(wait.max(Duration::from_millis(1))),
                None => wait,
            };
            match told.recv_timeout(wait) {
                Ok(News::Lock) | Err(RecvTimeoutError::Timeout) => {}
                Ok(news) => {
                    if self.ends(news) {
                        return self.done();
                    }
                }
                // Those who told are gone, but not the guard.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Heeds what ends holding. Returns whether it does so at once.
    fn ends(&mut self, news: News) -> bool {
        let first = self.ending.is_none();
        let again = matches!(self.ending, Some(News::Signal(_)));
        match (news, self.ending) {
            (News::Signal(_), _) | (_, None) => self.ending = Some(news),
            _ => {}
        }
        let Some(script) = &mut self.script else {
            return true;
        };
        if news == News::Process {
            script.look();
        } else {
            script.close();
        }
        let running = script.running();
        if running.is_empty() || (again && matches!(news, News::Signal(_))) {
            return !self.has_struck();
        }
        if !first {
            return false;
        }
        let pids: Vec<_> = running.iter().take(8).map(i32::to_string).collect();
        let more = if running.len() > 8 { ", ..." } else { "" };
        let text = format!(
            "{} is kept until what the script has started has ended too: {}{more}",
            self.lock.name,
            pids.join(", ")
        );
        warn(self.global, &text);
        false
    }

    fn running(&self) -> Vec<i32> {
        self.script
            .as_ref()
            .map(Script::running)
            .unwrap_or_default()
    }

    fn has_struck(&self) -> bool {
        self.fence.as_ref().is_some_and(Fence::has_struck)
    }

    fn why(&self) -> String {
        match self.guard.loss_reason() {
            Some(reason) => reason.to_string(),
            None => "no renewal was confirmed in time".to_owned(),
        }
    }

    /// Ends the script if the lock does not last. Returns how long that can wait.
    fn guard_script(&mut self, fence: &mut Fence) -> Option<Duration> {
        let (script, signal) = (self.script.as_ref()?, self.args.on_lost_signal?);
        let view = View {
            remaining: self.guard.remaining(),
            lost: self.guard.loss_reason().is_some(),
        };
        let struck = fence.has_struck();
        let (act, wait) = fence.step(now(), view);
        match act {
            Act::Terminate(grace) => {
                let sent = script.signal(signal.0);
                // A stopped process takes no other signal before it goes on.
                let _ = script.signal(CONT);
                self.say_lost(signal, sent, Some(grace));
            }
            Act::Kill => {
                let sent = script.signal(KILL);
                self.killed = Some(now());
                if !struck {
                    self.say_lost(Signal(KILL), sent, None);
                }
            }
            Act::Freeze => {
                let _ = script.signal(STOP);
            }
            Act::Thaw => {
                let _ = script.signal(CONT);
            }
            // What has started since.
            Act::Nothing | Act::Warn if self.killed.is_some() => {
                let _ = script.signal(KILL);
            }
            Act::Nothing | Act::Warn => {}
        }
        wait
    }

    fn say_lost(&self, signal: Signal, sent: io::Result<()>, kill: Option<Duration>) {
        let id = self.args.for_pid.unwrap_or_default();
        let others = match self.running().len() {
            0 => String::new(),
            1 => " and to one that it has started".to_owned(),
            n => format!(" and to {n} that it has started"),
        };
        let done = match sent {
            Ok(()) => format!("sent {signal} to process {id}{others}"),
            // It has ended already.
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_process(&error) => {
                format!(
                    "process {id} has ended; sent {signal} to {} that it had started",
                    self.running().len()
                )
            }
            Err(error) => format!("cannot send {signal} to process {id}: {error}"),
        };
        let then = kill.map_or(String::new(), |kill| {
            format!(", SIGKILL in {}", short(kill))
        });
        let text = format!("lock {} lost: {}; {done}{then}", self.lock.name, self.why());
        Failure::new(Code::Lost, text).report(self.global);
    }

    /// Whether all of the script is gone, or cannot be killed.
    fn is_over(&self) -> bool {
        let late = self.killed.is_some_and(|killed| now() >= killed + LAST);
        late || self.script.as_ref().is_none_or(Script::is_gone)
    }

    /// The script is ended. Until a lease that may be ours runs out, nobody else gets in.
    fn lost(self) -> Code {
        if let Some(script) = self.script.as_ref().filter(|script| !script.is_gone()) {
            let text = format!("what process {} has started cannot be killed", script.id());
            warn(self.global, &text);
        } else if self.guard.loss_reason().is_none() {
            let _ = self.guard.release();
            return Code::Lost;
        }
        std::mem::forget(self.guard);
        Code::Lost
    }

    /// The lock is not needed any more.
    fn done(self) -> Outcome {
        release(self.lock, self.guard, self.global);
        match self.ending {
            Some(News::Signal(signal)) => signals::die(signal),
            _ => Ok(Code::Done),
        }
    }
}

#[cfg(unix)]
mod signal {
    pub(super) use signal_hook::consts::{SIGCONT as CONT, SIGKILL as KILL, SIGSTOP as STOP};
}

/// There is no script to send one to.
#[cfg(not(unix))]
mod signal {
    pub(super) const CONT: i32 = 18;
    pub(super) const KILL: i32 = 9;
    pub(super) const STOP: i32 = 19;
}

fn is_no_process(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(3)
}

fn release(lock: &Lock, guard: LeaseGuard, global: &Global) {
    match guard.release() {
        Ok(()) => log::info!("released {}", lock.name),
        Err(error) if error.kind() == ErrorKind::LeaseLost => warn(
            global,
            &format!("lock {} was lost before its release", lock.name),
        ),
        Err(error) => warn(global, &format!("{error}; the lease will run out")),
    }
}
