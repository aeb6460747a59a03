//! `azmutex acquire`: a lease for a script that renews and releases it by its ID.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use azmutex::{Event, Holder, Lease, LeaseDuration, Locker, StopToken, TryLockError};

use super::Outcome;
use crate::args::{AcquireArgs, Format, Global, Identity};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, try_print, warn};
use crate::signals;
use crate::waiting::{self, Since, WaitDisplay};

/// How long to wait for the release of a lease that may have been granted.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn acquire(args: &AcquireArgs, global: &Global) -> Outcome {
    let lock = Config::load(global)?.lock(&args.lock, args.waiting.create)?;
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
    let lease = wait(args, &lock, &display).inspect_err(|_| display.clear())?;
    let waited = started.elapsed();
    display.acquired(waited, global.verbose > 0);

    // Without this, the previous holder would seem to hold the lock. The lock is held either way.
    let fence = match lock.mutex.write_holder(&lease, holder(args)) {
        Ok(fence) => Some(fence),
        Err(error) => {
            warn(global, &format!("others cannot see who holds it: {error}"));
            None
        }
    };
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

/// Waits for the lease as long as the limits allow. A signal ends the wait at once.
fn wait(args: &AcquireArgs, lock: &Lock, display: &Arc<WaitDisplay>) -> Result<Lease, Failure> {
    let limit = args.waiting.limit();
    let stop = StopToken::new();
    let (sender, signals) = mpsc::channel();
    let token = stop.clone();
    signals::watch(move |signal| {
        let _ = sender.send(signal);
        token.stop();
    })
    .map_err(|error| Failure::new(Code::Bug, format!("cannot watch for signals: {error}")))?;
    let shown = Arc::clone(display);
    let locker = Locker::builder(lock.mutex.clone(), &lock.key)
        // An infinite lease is acquired as a finite one first, and then made infinite.
        .lease_duration(args.lease.as_duration().unwrap_or(Duration::from_secs(60)))
        .fault_wait(args.waiting.fault_wait)
        .holder_info(false)
        .stop_token(&stop)
        .observer(move |event| {
            if let Event::Waiting { elapsed, .. } = event {
                shown.waiting(*elapsed);
            }
        })
        .build()?;
    let result = match limit {
        Some(limit) => locker.try_lock_for(limit),
        None => locker.lock().map_err(TryLockError::from),
    };
    if let Ok(signal) = signals.try_recv() {
        display.clear();
        drop(result);
        let _ = locker.settle(SETTLE_TIMEOUT);
        signals::die(signal);
    }
    let lease = match result {
        Ok(guard) => guard.into_lease()?,
        Err(TryLockError::WouldBlock) => return Err(not_acquired(lock, display, limit)),
        Err(TryLockError::Error(error)) => {
            let _ = locker.settle(SETTLE_TIMEOUT);
            return Err(error.into());
        }
    };
    if args.lease == LeaseDuration::INFINITE {
        let endless = lock
            .mutex
            .acquire_with_id(&lock.key, args.lease, lease.id());
        return endless.map_err(Failure::from);
    }
    Ok(lease)
}

/// Somebody else holds the lock, and the wait for it is over.
pub(crate) fn not_acquired(lock: &Lock, display: &WaitDisplay, limit: Option<Duration>) -> Failure {
    let name = &lock.name;
    let holder = display.holder(Since::Span);
    Failure::new(
        Code::NotAcquired,
        waiting::not_acquired(name, &holder, limit),
    )
    .hint(format!(
        "azmutex status {name}; if the holder is gone: azmutex break {name}"
    ))
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
                quoted(&lock.key)
            );
            if let Some(fence) = fence {
                text.push_str(&format!("export AZMUTEX_FENCE={fence}\n"));
            }
            text
        }
        Format::Json => {
            let lease_s = args.lease.as_duration().map(|lease| lease.as_secs());
            let object = Object::schema()
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

/// Quoted as one word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
