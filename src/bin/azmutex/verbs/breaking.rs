//! `azmutex break`: ends the lease of whoever holds a lock.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use azmutex::{ErrorKind, LeaseState, LeaseStatus};

use super::{Outcome, status};
use crate::args::{BreakArgs, Create, Global};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, holder_object, print_line};
use crate::times::{ago, span};

pub(crate) fn break_lease(args: &BreakArgs, global: &Global) -> Outcome {
    let lock = Config::load(global)?.lock(&args.lock, Create::Never)?;
    let period = if args.now {
        Duration::ZERO
    } else {
        args.period
    };
    let Some(seen) = status::read(&lock)? else {
        return Err(Failure::new(
            Code::NoSuchLock,
            format!("{}: no such lock, so nobody holds it", lock.name),
        )
        .hint("azmutex list shows the locks of the container"));
    };
    if seen.state().is_free() {
        return Ok(report(&lock, None, None, global));
    }
    if let Some(limit) = args.if_stale {
        check_stale(&lock, &seen, limit)?;
    }
    confirm(args, &lock, &seen, period, global)?;
    match lock
        .mutex
        .break_lease_if_match(&lock.key, Some(period), seen.etag())
    {
        Ok(left) => Ok(report(&lock, Some(left), Some(&seen), global)),
        Err(error) => match error.kind() {
            // Released in the meantime, or the blob is gone: free either way.
            ErrorKind::NotFound => Ok(report(&lock, None, None, global)),
            ErrorKind::WouldBlock => Err(Failure {
                request_id: error.request_id().map(str::to_owned),
                service_code: error.service_code().map(str::to_owned),
                ..Failure::new(
                    Code::NotAcquired,
                    format!(
                        "{} was not broken: another holder has taken it since",
                        lock.name
                    ),
                )
                .hint(format!("look again: azmutex status {}", lock.name))
            }),
            _ => Err(error.into()),
        },
    }
}

/// Reports the result. `left`: how long the lease still runs; `None` if there was nothing to break.
fn report(
    lock: &Lock,
    left: Option<Duration>,
    seen: Option<&LeaseStatus>,
    global: &Global,
) -> Code {
    if global.json {
        let holder = seen.and_then(LeaseStatus::holder);
        let object = Object::schema()
            .exact("lock", &lock.key)
            .exact("url", &lock.url)
            .bool("broken", left.is_some())
            .number("remaining_s", left.unwrap_or_default().as_secs())
            .maybe_object("holder", holder.map(holder_object));
        print_line(&object.to_string());
        return Code::Done;
    }
    print_line(&match left {
        None => format!("{} is free: there is nothing to break.", lock.name),
        Some(Duration::ZERO) => "Lease broken; acquirable now.".to_owned(),
        Some(left) => format!("Lease broken; acquirable in {}s.", left.as_secs()),
    });
    Code::Done
}

/// Refuses unless the holder is known to have held the lock for `limit`. Only its record tells
/// since when: acquiring a lease does not change when the blob was last written. A lock whose blob
/// was written to within `limit` is in use.
fn check_stale(lock: &Lock, seen: &LeaseStatus, limit: Duration) -> Result<(), Failure> {
    let Some(since) = seen.holder().and_then(azmutex::Holder::since) else {
        return Err(Failure::new(
            Code::False,
            format!(
                "{} was not broken: how long it has been held is not known (--if-stale), since it \
                 is held by {}",
                lock.name,
                status::holder(seen)
            ),
        ));
    };
    let age = ago(seen
        .last_modified()
        .map_or(since, |written| since.max(written)));
    if age >= limit {
        return Ok(());
    }
    Err(Failure::new(
        Code::False,
        format!(
            "{} was not broken: held for {}, which is less than {} (--if-stale)",
            lock.name,
            span(age),
            span(limit)
        ),
    ))
}

fn confirm(
    args: &BreakArgs,
    lock: &Lock,
    seen: &LeaseStatus,
    period: Duration,
    global: &Global,
) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(Failure::new(
            Code::Unconfirmed,
            format!(
                "refusing to break {} without confirmation: {why}",
                lock.name
            ),
        )
        .hint(format!("pass --yes, or --confirm {}", lock.name)))
    };
    if let Some(name) = &args.confirm {
        return if *name == lock.key || *name == args.lock {
            Ok(())
        } else {
            refused("--confirm has a different name")
        };
    }
    if global.no_input {
        return refused("--no-input");
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return refused("stdin is not a terminal");
    }
    let mut err = io::stderr().lock();
    let _ = write!(err, "{}", question(lock, seen, period));
    let _ = err.flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == lock.name {
        return Ok(());
    }
    Err(Failure::new(
        Code::Unconfirmed,
        format!("{} was not broken: the answer is not its name", lock.name),
    ))
}

fn question(lock: &Lock, seen: &LeaseStatus, period: Duration) -> String {
    let name = &lock.name;
    let alive = match seen.state() {
        LeaseState::Breaking => "its lease is already broken, and ends within 60s",
        _ if seen.is_infinite() => "its lease is infinite: the holder may be long gone",
        _ => "its lease was renewed within the last 60s: the holder is alive, or was a moment ago",
    };
    let effect = if period.is_zero() {
        "Breaking ends its lease NOW: the holder may work on for a while, at the same time as the \
         next one."
            .to_owned()
    } else {
        format!(
            "Breaking ends its lease within {}s; an azmutex holder stops its work by then.",
            period.as_secs()
        )
    };
    format!(
        "{name} is held by {};\n{alive}.\n{effect}\nType the lock name to confirm: ",
        status::holder(seen)
    )
}
