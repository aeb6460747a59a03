//! `azmutex acquire`: a lease for a script that renews and releases it by its ID.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use azmutex::{
    Error, Event, Holder, Lease, LeaseDuration, LeaseGuard, Locker, StopToken, TryLockError,
};

use super::Outcome;
use super::give_back::give_back;
use crate::args::{AcquireArgs, Format, Global, Identity};
use crate::chain;
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, try_print, warn};
use crate::signals;
use crate::text::is_invisible;
use crate::wait_display::{WaitDisplay, not_acquired};

/// How long to wait for the release of a lease that may have been granted: after a signal, and
/// after the time limit.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
pub(super) const SETTLE_LATE: Duration = Duration::from_secs(1);

/// How long writing the holder may take: at most, and if no time is left.
const NAMING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(500));

/// What a thread reports.
enum News {
    Signal(i32),
    /// The lease is infinite now.
    Endless(Result<Lease, Error>),
    /// Others can see who holds the lock.
    Named(Result<i64, Error>),
}

pub(crate) fn acquire(args: &AcquireArgs, global: &Global) -> Outcome {
    if stdout_is_closed() {
        return Err(
            Failure::usage("stdout is closed, so nobody would see the lease ID")
                .hint("capture it: ID=$(azmutex acquire LOCK)"),
        );
    }
    let config = Config::load_within(global, args.waiting.patience(global))?;
    let lock = config.lock(&args.lock, args.waiting.create)?;
    chain::refuse_held(&lock, None, &args.waiting)?;
    if args.lease == LeaseDuration::INFINITE {
        warn(
            global,
            &format!(
                "an infinite lease stays until it is released or broken, even after a crash; to \
                 free {} then: azmutex break",
                lock.name
            ),
        );
    }
    let started = Instant::now();
    let display = Arc::new(WaitDisplay::new(global, &lock, args.waiting.limit()));
    let (news, told) = mpsc::channel();
    let stop = StopToken::new();
    let locker = locker(args, global, &lock, &stop, &display)?;
    let (sender, token) = (news.clone(), stop);
    signals::watch(move |signal| {
        let _ = sender.send(News::Signal(signal));
        token.stop();
    })
    .map_err(|error| Failure::new(Code::Bug, format!("cannot watch for signals: {error}")))?;

    let guard = wait(args, &lock, &locker, &told, &display).inspect_err(|_| display.clear())?;
    let waited = started.elapsed();
    display.acquired(waited, global.verbose > 0);
    let (guard, fence) = finish(args, global, &lock, guard, (&news, &told))?;
    let lease = guard.into_lease()?;
    let text = written(args, global, &lock, &lease, fence, waited);
    // A lease whose ID nobody knows is of no use.
    try_print(&text).map_err(|error| {
        let _ = lock.mutex.write_released(&lease);
        let _ = lock.mutex.release(&lease);
        Failure::new(
            Code::Bug,
            format!("cannot print the lease ID: {error}; released {}", lock.name),
        )
    })?;
    Ok(Code::Done)
}

/// Whether this process was started without a stdout. Rust's runtime then opens /dev/null there,
/// for reading and writing; a shell that discards output opens it for writing only.
#[cfg(unix)]
fn stdout_is_closed() -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};

    let out = std::io::stdout();
    let both = fcntl_getfl(&out).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
    match (fstat(&out), stat("/dev/null")) {
        (Ok(out), Ok(null)) => both && out.st_rdev == null.st_rdev && out.st_ino == null.st_ino,
        (Err(_), _) => true,
        _ => false,
    }
}

#[cfg(not(unix))]
fn stdout_is_closed() -> bool {
    false
}

fn locker(
    args: &AcquireArgs,
    global: &Global,
    lock: &Lock,
    stop: &StopToken,
    display: &Arc<WaitDisplay>,
) -> Result<Locker, Failure> {
    let (shown, global) = (Arc::clone(display), global.clone());
    Ok(Locker::builder(lock.mutex.clone(), &lock.key)
        // An infinite lease is acquired as a finite one first, and then made infinite.
        .lease_duration(args.lease.as_duration().unwrap_or(Duration::from_secs(60)))
        .poll_interval(args.waiting.poll)
        .fault_wait(args.waiting.fault_wait.max(Duration::from_millis(1)))
        // The holder is written below. It is not this process, which is about to end.
        .holder_info(false)
        .fencing(true)
        .stop_token(stop)
        .observer(move |event| match event {
            Event::Waiting {
                elapsed, status, ..
            } => shown.waiting(*elapsed, status.as_deref()),
            Event::AcquireFailed { error, .. } if global.verbose > 0 => {
                warn(&global, &format!("{error}; trying again"));
            }
            _ => {}
        })
        .build()?)
}

/// Waits for the lease as long as the limits allow. A signal ends the wait at once.
fn wait(
    args: &AcquireArgs,
    lock: &Lock,
    locker: &Locker,
    told: &Receiver<News>,
    display: &Arc<WaitDisplay>,
) -> Result<LeaseGuard, Failure> {
    let result = match args.waiting.left() {
        Some(left) => locker.try_lock_for(left),
        None => locker.lock().map_err(TryLockError::from),
    };
    if let Ok(News::Signal(signal)) = told.try_recv() {
        display.clear();
        let id = match &result {
            Ok(guard) => Some(guard.lease_id()),
            Err(TryLockError::Error(error)) => error.lease_id(),
            Err(TryLockError::WouldBlock) => None,
        };
        drop(result);
        give_back(locker, id, SETTLE);
        signals::die(signal);
    }
    result.map_err(|error| match error {
        TryLockError::WouldBlock => {
            give_back(locker, None, SETTLE_LATE);
            not_acquired(lock, display.status().as_ref(), args.waiting.limit())
        }
        TryLockError::Error(error) => {
            give_back(locker, error.lease_id(), SETTLE_LATE);
            error.into()
        }
    })
}

/// Does the rest once the lease is held, also within the limits. Returns the fencing token.
fn finish(
    args: &AcquireArgs,
    global: &Global,
    lock: &Lock,
    guard: LeaseGuard,
    (news, told): (&Sender<News>, &Receiver<News>),
) -> Result<(LeaseGuard, Option<i64>), Failure> {
    let lease = Lease::new(&lock.key, guard.lease_id())?;
    let (mutex, holder) = (lock.mutex.clone(), holder(args));
    let (sender, duration) = (news.clone(), args.lease);
    thread::Builder::new()
        .name("azmutex-holder".to_owned())
        .spawn(move || {
            if duration == LeaseDuration::INFINITE {
                let endless = mutex.acquire_with_id(lease.key(), duration, lease.id());
                let failed = endless.is_err();
                let _ = sender.send(News::Endless(endless));
                if failed {
                    return;
                }
            }
            let _ = sender.send(News::Named(mutex.write_holder(&lease, holder)));
        })
        .map_err(|error| Failure::new(Code::Bug, format!("cannot start a thread: {error}")))?;

    let left = args.waiting.left();
    if duration == LeaseDuration::INFINITE {
        let patience = left.unwrap_or(args.waiting.fault_wait).max(SETTLE_LATE);
        let failure = match told.recv_timeout(patience) {
            Ok(News::Endless(Ok(_))) => None,
            Ok(News::Endless(Err(error))) => Some(error.into()),
            Ok(News::Signal(signal)) => end(guard, signal),
            _ => Some(Failure::new(
                Code::Unavailable,
                format!(
                    "cannot make the lease of {} infinite: no answer in time",
                    lock.name
                ),
            )),
        };
        if let Some(failure) = failure {
            drop(guard);
            return Err(failure);
        }
    }
    let left = args.waiting.left().unwrap_or(NAMING.0);
    let why = match told.recv_timeout(left.clamp(NAMING.1, NAMING.0)) {
        Ok(News::Named(Ok(fence))) => return Ok((guard, Some(fence))),
        Ok(News::Named(Err(error))) => error.to_string(),
        Ok(News::Signal(signal)) => end(guard, signal),
        Ok(News::Endless(_)) | Err(RecvTimeoutError::Disconnected) => "it ended".to_owned(),
        Err(RecvTimeoutError::Timeout) => "no answer in time".to_owned(),
    };
    // Without this, the previous holder would seem to hold the lock. The lock is held either way.
    let text = format!("others cannot see who holds {}: {why}", lock.name);
    warn(global, &text);
    let fence = guard.fencing_token();
    Ok((guard, fence))
}

/// Releases the lease, and ends this process by `signal`.
fn end(guard: LeaseGuard, signal: i32) -> ! {
    drop(guard);
    signals::die(signal)
}

fn holder(args: &AcquireArgs) -> Holder {
    let Identity { owner, reason } = &args.identity;
    let mut holder = Holder::current(args.lease);
    // This process is about to end; its parent has the lock.
    #[cfg(unix)]
    {
        holder = holder.with_pid(std::os::unix::process::parent_id());
    }
    if let Some(owner) = owner {
        holder = holder.with_owner(owner);
    }
    if let Some(reason) = reason {
        holder = holder.with_reason(reason);
    }
    holder
}

fn written(
    args: &AcquireArgs,
    global: &Global,
    lock: &Lock,
    lease: &Lease,
    fence: Option<i64>,
    waited: Duration,
) -> String {
    let id = lease.id();
    let format = if global.json {
        Format::Json
    } else {
        args.format
    };
    match format {
        Format::Id => format!("{id}\n"),
        Format::Shell => {
            let mut text = format!(
                "export AZMUTEX_NAME={}\nexport AZMUTEX_LEASE_ID={id}\n",
                quoted(&args.lock)
            );
            if let Some(fence) = fence {
                text.push_str(&format!("export AZMUTEX_FENCE={fence}\n"));
            }
            text
        }
        Format::Json => {
            let lease_s = args.lease.as_duration().map(|lease| lease.as_secs());
            let object = Object::event("acquired")
                .exact("lock", &lock.key)
                .exact("url", &lock.url)
                .text("lease_id", &id.to_string())
                .maybe_number("lease_s", lease_s)
                .maybe_number("fence", fence)
                .time("acquired_at", Some(SystemTime::now()))
                .seconds("waited_s", waited);
            format!("{object}\n")
        }
    }
}

/// Quoted as one word for any POSIX shell, so that a terminal shows all of it.
fn quoted(text: &str) -> String {
    if !text.chars().any(is_invisible) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let octal: String = text.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    format!("\"$(printf '{octal}')\"")
}
