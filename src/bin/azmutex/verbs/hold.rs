//! `azmutex hold`: keeps a lock for a script, until that ends.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{ErrorKind, Event, LeaseGuard, Locker, Released, StopToken, TryLockError};

use super::Outcome;
use super::acquire::not_acquired;
use crate::ancestors;
use crate::args::{Global, HoldArgs};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, never_wait_for_stderr, try_print, warn};
use crate::process::Process;
use crate::signals;
use crate::stdin::{self, Stdin};
use crate::waiting::WaitDisplay;

/// How long an attempt that was given up may take to be taken back.
const SETTLE: Duration = Duration::from_secs(2);

/// Why holding ends.
#[derive(Debug)]
enum End {
    Stdin,
    Process,
    Signal(i32),
    /// The lock is not, or no longer surely, held.
    Lost(String),
}

pub(crate) fn hold(args: &HoldArgs, global: &Global) -> Outcome {
    never_wait_for_stderr();
    let process = args.for_pid.map(Process::open).transpose()?;
    let stdin = Stdin::look();
    if stdin == Stdin::Null && process.is_none() {
        return Err(
            Failure::usage("stdin is /dev/null, which ends at once, and so would holding")
                .hint("give it a pipe or a terminal as stdin, or pass --for-pid PID"),
        );
    }
    let lock = Config::load(global)?.lock(&args.lock, args.waiting.create)?;
    let limit = args.waiting.limit();
    ancestors::check(&lock, limit)?;
    let display = Arc::new(WaitDisplay::new(global, &lock, limit));
    let stop = StopToken::new();
    let (ends, ended) = mpsc::channel();
    let locker = locker(args, &lock, &stop, &ends, &display)?;

    // In the background of a terminal, reading from it would stop this process.
    let reads = stdin == Stdin::Other || (stdin == Stdin::Terminal && process.is_none());
    watch(ends, &stop, process.as_ref(), reads)
        .map_err(|error| Failure::new(Code::Bug, format!("cannot watch for the end: {error}")))?;

    let started = Instant::now();
    let result = match limit {
        Some(limit) => locker.try_lock_for(limit),
        None => locker.lock().map_err(TryLockError::from),
    };
    display.clear();
    let guard = match result {
        Ok(guard) => guard,
        Err(TryLockError::WouldBlock) => return Err(not_acquired(&lock, &display, limit)),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Stopped => {
            return given_up(&lock, &locker, &ended);
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    };
    display.acquired(started.elapsed(), global.verbose > 0);
    if let Err(error) = ready(args, global, &lock, &guard) {
        release(&lock, guard, global);
        return Err(Failure::new(
            Code::Bug,
            format!("cannot write to stdout: {error}; released {}", lock.name),
        ));
    }

    match wait(&guard, &ended) {
        End::Lost(why) => Err(lost(args, &lock, guard, process.as_ref(), &why)),
        End::Signal(signal) => {
            release(&lock, guard, global);
            signals::die(signal)
        }
        End::Stdin | End::Process => {
            release(&lock, guard, global);
            Ok(Code::Done)
        }
    }
}

fn locker(
    args: &HoldArgs,
    lock: &Lock,
    stop: &StopToken,
    ends: &Sender<End>,
    display: &Arc<WaitDisplay>,
) -> Result<Locker, Failure> {
    let (lost, display) = (ends.clone(), Arc::clone(display));
    let mut builder = Locker::builder(lock.mutex.clone(), &lock.key)
        .lease_duration(args.lease)
        .fault_wait(args.waiting.fault_wait)
        .fencing(true)
        .stop_token(stop)
        .observer(move |event| match event {
            Event::Waiting { elapsed, .. } => display.waiting(*elapsed),
            Event::AcquireFailed { error, .. } => log::warn!("{error}; trying again"),
            Event::RenewalFailed {
                error, remaining, ..
            } => log::warn!("{error}; lost in {}s unless renewed", remaining.as_secs()),
            Event::Unproven => {
                let _ = lost.send(End::Lost("no renewal was confirmed in time".to_owned()));
            }
            Event::Lost { reason, .. } => {
                let _ = lost.send(End::Lost(reason.to_string()));
            }
            _ => {}
        });
    if let Some(interval) = args.renew_every {
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

/// Has everything that ends holding say so, and end the waiting for the lock too.
fn watch(
    ends: Sender<End>,
    stop: &StopToken,
    process: Option<&Process>,
    stdin: bool,
) -> io::Result<()> {
    let (sender, token) = (ends.clone(), stop.clone());
    signals::watch(move |signal| {
        let _ = sender.send(End::Signal(signal));
        token.stop();
    })?;
    if let Some(process) = process {
        let (process, sender, token) = (process.clone(), ends.clone(), stop.clone());
        thread::Builder::new()
            .name("azmutex-process".to_owned())
            .spawn(move || {
                process.wait();
                let _ = sender.send(End::Process);
                token.stop();
            })?;
    }
    if stdin {
        let token = stop.clone();
        thread::Builder::new()
            .name("azmutex-stdin".to_owned())
            .spawn(move || {
                stdin::drain();
                let _ = ends.send(End::Stdin);
                token.stop();
            })?;
    }
    Ok(())
}

/// Waits for the end. The deadline counts also when the thread that renews says nothing.
fn wait(guard: &LeaseGuard, ended: &Receiver<End>) -> End {
    loop {
        match ended.recv_timeout(guard.remaining()) {
            Ok(end) => return end,
            Err(RecvTimeoutError::Timeout) if guard.is_held() => {}
            Err(_) => return End::Lost("no renewal was confirmed in time".to_owned()),
        }
    }
}

fn ready(args: &HoldArgs, global: &Global, lock: &Lock, guard: &LeaseGuard) -> io::Result<()> {
    if global.json {
        let object = Object::schema()
            .text("event", "acquired")
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

/// The end came before the lock was acquired.
fn given_up(lock: &Lock, locker: &Locker, ended: &Receiver<End>) -> Outcome {
    let _ = locker.settle(SETTLE);
    match ended.try_recv() {
        Ok(End::Signal(signal)) => signals::die(signal),
        Ok(End::Process) => Err(Failure::new(
            Code::NotAcquired,
            format!(
                "cannot acquire {}: the process of --for-pid ended",
                lock.name
            ),
        )),
        _ => Err(Failure::new(
            Code::NotAcquired,
            format!("cannot acquire {}: stdin ended", lock.name),
        )),
    }
}

fn lost(
    args: &HoldArgs,
    lock: &Lock,
    guard: LeaseGuard,
    process: Option<&Process>,
    why: &str,
) -> Failure {
    // The script comes first. The lease is not released: until it runs out, nobody else gets in.
    let mut done = String::new();
    if let (Some(signal), Some(process)) = (args.on_lost_signal, process) {
        done = match process.signal(signal.0) {
            Ok(()) => format!("; sent {signal} to process {}", process.id()),
            Err(error) => format!(
                "; cannot send {signal} to process {}: {error}",
                process.id()
            ),
        };
    }
    std::mem::forget(guard);
    Failure::new(Code::Lost, format!("lock {} lost: {why}{done}", lock.name))
}

fn release(lock: &Lock, guard: LeaseGuard, global: &Global) {
    match guard.release() {
        Ok(Released::Released) => log::info!("released {}", lock.name),
        Ok(_) => warn(
            global,
            &format!("lock {} had been lost before its release", lock.name),
        ),
        Err(error) => warn(global, &format!("{error}; the lease runs out by itself")),
    }
}
