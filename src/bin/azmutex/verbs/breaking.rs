//! `azmutex break`: ends the lease of a lock's holder.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{ErrorKind, Holder, LeaseState, LeaseStatus};

use super::{Outcome, status};
use crate::args::{BreakArgs, Create, Global};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, holder_object, note, print_line, warn};
use crate::text::shell_word;
use crate::times::{ago, short, span};

/// How often to ask the service whether a broken lease has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest finite lease.
const MAX_LEASE: Duration = Duration::from_secs(60);

/// The longest time between a loss and the end of `run`'s command, unless `--kill-after` is longer.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) fn break_lease(args: &BreakArgs, global: &Global) -> Outcome {
    let config = Config::load(global)?;
    let mut lock = config.lock(&args.lock, Create::Never)?;
    if let Some(slot) = args.slot {
        lock = lock.slot(slot);
    }
    let period = if args.now {
        Duration::ZERO
    } else {
        args.period
    };
    let Some(seen) = lock.status()? else {
        return Err(Failure::new(
            Code::NoSuchLock,
            format!("{}: no such lock, so nobody holds it", lock.name),
        )
        .hint("azmutex list shows the locks of the container"));
    };
    if seen.state().is_free() {
        if let Some(permits) = seen.permits() {
            let word = &lock.word;
            return Err(Failure::usage(format!(
                "{} is a semaphore with {}: say which",
                lock.name,
                status::permits(permits)
            ))
            .hint(format!(
                "azmutex status --slots {word}; then azmutex break --slot N {word}"
            )));
        }
        return Ok(report(&lock, None, None, global));
    }
    if let Some(limit) = args.if_stale {
        check_stale(&lock, &seen, limit, args.unknown_is_stale)?;
    }
    confirm(args, &lock, &seen, period, global)?;
    match lock
        .mutex
        .break_lease_if_match(&lock.key, Some(period), seen.etag())
    {
        Ok(mut left) => {
            if let (Some(limit), false) = (args.wait, left.is_zero()) {
                wait(&lock, left, limit, global)?;
                left = Duration::ZERO;
            }
            Ok(report(&lock, Some(left), Some(&seen), global))
        }
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
                .hint(format!("look again: azmutex status {}", lock.word))
            }),
            _ => Err(error.into()),
        },
    }
}

/// Waits until the lock can be acquired: once the period is over, or its holder releases it.
fn wait(lock: &Lock, left: Duration, limit: Duration, global: &Global) -> Result<(), Failure> {
    note(
        global,
        &format!(
            "lease broken; waiting until it ends, in {} or when its holder releases it",
            short(left)
        ),
    );
    let started = Instant::now();
    let failed = |text| Err(Failure::new(Code::NotAcquired, text));
    loop {
        let Some(status) = lock.status()? else {
            return Ok(());
        };
        if status.state().is_free() {
            return Ok(());
        }
        if status.state() != LeaseState::Breaking {
            return failed(format!(
                "{} was broken, and then another client acquired it: it is held by {}",
                lock.name,
                status::holder(&status)
            ));
        }
        let spent = started.elapsed();
        if spent >= limit {
            return failed(format!(
                "{} was broken, but its lease has not ended within {} (--wait)",
                lock.name,
                short(limit)
            ));
        }
        thread::sleep(LOOK_EVERY.min(limit - spent));
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
        let active = seen.and_then(may_be_active).map(|active| active.as_secs());
        let object = Object::event("break")
            .exact("lock", &lock.key)
            .exact("url", &lock.url)
            .bool("broken", left.is_some())
            .number("remaining_s", left.unwrap_or_default().as_secs())
            .maybe_number("holder_active_s", active)
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

/// How long the holder of a lease that is broken now may work on, going by its record: until its
/// next renewal, by default a third of its lease away, and then for the grace that `run` gives its
/// command. `None` if nothing renews the lease, so that its holder never notices.
fn may_be_active(seen: &LeaseStatus) -> Option<Duration> {
    if seen.is_infinite() {
        return None;
    }
    let lease = seen.holder().and_then(Holder::lease_duration);
    let lease = lease.unwrap_or(MAX_LEASE);
    Some(lease / 3 + (lease / 5).min(GRACE))
}

/// The same in words.
fn consequences(seen: &LeaseStatus, period: Duration) -> String {
    let Some(active) = may_be_active(seen) else {
        return "Such a lease is not renewed, so its holder will not notice: make sure that it is \
                gone."
            .to_owned();
    };
    let lease = seen.holder().and_then(Holder::lease_duration);
    let known = match lease {
        Some(lease) => format!("its lease of {}", short(lease)),
        None => format!(
            "a lease of {}, since its own is not known",
            short(MAX_LEASE)
        ),
    };
    let lease = lease.unwrap_or(MAX_LEASE);
    let mut text = format!(
        "Its holder may work on for up to {}, judging by {known}: it notices at its next renewal, \
         within {}, and azmutex run then ends the command within {}.",
        short(active),
        short(lease / 3),
        short((lease / 5).min(GRACE))
    );
    if period < active {
        text.push_str(&format!(
            " The break period of {} is shorter: two holders may be at work for {}.",
            short(period),
            short(active - period)
        ));
    }
    text
}

/// Refuses unless the holder is known to have held the lock for `limit`. Only its record tells
/// since when: acquiring a lease does not change when the blob was last written. A lock whose blob
/// was written to within `limit` is in use.
fn check_stale(
    lock: &Lock,
    seen: &LeaseStatus,
    limit: Duration,
    unknown_is_stale: bool,
) -> Result<(), Failure> {
    let refused = |why: String| {
        let text = format!("{} was not broken: {why}", lock.name);
        Failure::new(Code::False, text)
    };
    let since = seen.holder().and_then(Holder::since);
    if since.is_none() && !unknown_is_stale {
        return Err(refused(format!(
            "how long it has been held is not known (--if-stale), since it is held by {}",
            status::holder(seen)
        ))
        .hint("to break it all the same: --unknown-is-stale"));
    }
    let young = |age: Option<Duration>| age.filter(|age| *age < limit);
    let (what, age) = match (young(since.map(ago)), young(seen.last_modified().map(ago))) {
        (Some(age), _) => ("held", age),
        (None, Some(age)) => ("not written to", age),
        (None, None) => return Ok(()),
    };
    Err(refused(format!(
        "{what} for {}, which is less than {} (--if-stale)",
        span(age),
        span(limit)
    )))
}

fn confirm(
    args: &BreakArgs,
    lock: &Lock,
    seen: &LeaseStatus,
    period: Duration,
    global: &Global,
) -> Result<(), Failure> {
    let short = may_be_active(seen).is_some_and(|active| period < active);
    let confirmed = || {
        let text = consequences(seen, period);
        if short {
            warn(global, &text);
        } else {
            note(global, &text);
        }
        Ok(())
    };
    if args.yes {
        return confirmed();
    }
    let refused = |why: &str| {
        Err(Failure::new(
            Code::Unconfirmed,
            format!(
                "refusing to break {} without confirmation: {why}",
                lock.name
            ),
        )
        .hint(format!(
            "pass --yes, or --confirm{}{}",
            if lock.key.starts_with('-') { "=" } else { " " },
            shell_word(&lock.key)
        )))
    };
    if let Some(name) = &args.confirm {
        return if *name == lock.key || *name == args.lock {
            confirmed()
        } else {
            refused("--confirm has a different name")
        };
    }
    if global.no_input {
        return refused("--no-input");
    }
    if !io::stdin().is_terminal() {
        return refused("stdin is not a terminal");
    }
    let again = "Type the lock name again to break it anyway: ";
    if asked(&question(lock, seen, period), lock) && (!short || asked(again, lock)) {
        return Ok(());
    }
    Err(Failure::new(
        Code::Unconfirmed,
        format!("{} was not broken: the answer is not its name", lock.name),
    ))
}

/// Whether the answer to a question is the lock's name.
fn asked(question: &str, lock: &Lock) -> bool {
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question}");
    let _ = err.flush();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    let answer = answer.trim();
    read.is_ok() && (answer == lock.name || answer == lock.key)
}

fn question(lock: &Lock, seen: &LeaseStatus, period: Duration) -> String {
    let name = &lock.name;
    let alive = match seen.state() {
        LeaseState::Breaking => "its lease is already broken, and will end".to_owned(),
        _ if seen.is_infinite() => "its lease is infinite: the holder may be long gone".to_owned(),
        _ => {
            let lease = seen.holder().and_then(Holder::lease_duration);
            format!(
                "its lease was renewed within the last {}: the holder is alive, or was a moment \
                 ago",
                short(lease.unwrap_or(MAX_LEASE))
            )
        }
    };
    let effect = if period.is_zero() {
        "Breaking ends its lease NOW.".to_owned()
    } else {
        format!("Breaking ends its lease within {}s.", period.as_secs())
    };
    format!(
        "{name} is held by {};\n{alive}.\n{effect}\n{}\nType the lock name to confirm: ",
        status::holder(seen),
        consequences(seen, period)
    )
}
