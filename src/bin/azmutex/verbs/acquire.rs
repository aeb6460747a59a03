//! `azmutex acquire`: a lease for a script that renews and releases it by its ID.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use azmutex::{Error, ErrorKind, Holder, Lease, LeaseDuration};
use log::Level;

use super::Outcome;
use crate::ancestors;
use crate::args::{AcquireArgs, Format, Global, Identity};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, try_print, warn};
use crate::signals;
use crate::waiting::{self, Since, WaitDisplay};

/// The pauses between attempts.
const POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

pub(crate) fn acquire(args: &AcquireArgs, global: &Global) -> Outcome {
    let lock = Config::load(global)?.lock(&args.lock, args.waiting.create)?;
    ancestors::check(&lock, args.waiting.limit())?;
    if args.lease == LeaseDuration::INFINITE {
        warn(
            global,
            &format!(
                "a lease without an end stays until it is released or broken, also after a crash; \
                 {} then needs: azmutex break",
                lock.name
            ),
        );
    }
    let (sender, signals) = mpsc::channel();
    signals::watch(move |signal| {
        let _ = sender.send(signal);
    })
    .map_err(|error| Failure::new(Code::Bug, format!("cannot watch for signals: {error}")))?;

    let started = Instant::now();
    let display = WaitDisplay::new(global, &lock, args.waiting.limit());
    let lease = wait(args, &lock, &display, started, &signals).inspect_err(|_| display.clear())?;
    let waited = started.elapsed();
    if let Ok(signal) = signals.try_recv() {
        let _ = lock.mutex.release(&lease);
        signals::die(signal);
    }
    display.acquired(waited, global.verbose > 0);

    // Without it the holder before would seem to be the one. The lock is held all the same.
    let fence = match lock.mutex.write_holder(&lease, holder(args)) {
        Ok(fence) => Some(fence),
        Err(error) => {
            warn(global, &format!("others cannot see who holds it: {error}"));
            None
        }
    };
    let text = written(args, global, &lock, &lease, fence, waited);
    // Nobody could use a lease whose ID nobody knows.
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

fn wait(
    args: &AcquireArgs,
    lock: &Lock,
    display: &WaitDisplay,
    started: Instant,
    signals: &mpsc::Receiver<i32>,
) -> Result<Lease, Failure> {
    let limit = args.waiting.limit();
    let mut pause = POLL.0;
    let mut failing: Option<Instant> = None;
    loop {
        let error = match lock.mutex.acquire(&lock.key, args.lease) {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        let waited = started.elapsed();
        let left = limit.map_or(Duration::MAX, |limit| limit.saturating_sub(waited));
        let over = left.is_zero();
        let sleep = pause.min(left);
        if error.kind() == ErrorKind::WouldBlock {
            failing = None;
            if over {
                return Err(not_acquired(lock, display, limit));
            }
            display.waiting(waited);
        } else {
            let first = failing.is_none();
            let since = *failing.get_or_insert_with(Instant::now);
            if over || !may_pass(&error) || since.elapsed() + pause > args.waiting.fault_wait {
                return Err(error.into());
            }
            let level = if first { Level::Warn } else { Level::Debug };
            log::log!(level, "{error}; trying again");
        }
        match signals.recv_timeout(sleep) {
            Ok(signal) => {
                display.clear();
                signals::die(signal);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(sleep),
        }
        pause = (pause * 3 / 2).min(POLL.1);
    }
}

fn may_pass(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Transport | ErrorKind::Service | ErrorKind::Throttled
    )
}

/// Somebody else holds the lock, and will not be waited for any longer.
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
    // This process is gone in a moment; the one that called it has the lock.
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
    fence: Option<u64>,
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

/// As a shell reads it as one word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
