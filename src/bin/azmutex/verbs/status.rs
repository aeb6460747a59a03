//! `azmutex status`: who holds locks.

use azmutex::{Done, ErrorKind, Holder, Lease, LeaseState, LeaseStatus};

use super::Outcome;
use crate::args::{Check, Create, Global, StatusArgs};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, clean, holder_object, print_line};
use crate::times::rfc3339;
use crate::wait_display::{HeldBy, Since};

pub(crate) fn status(args: &StatusArgs, global: &Global) -> Outcome {
    if args.check == Some(Check::Mine) && args.lease_id.is_none() {
        return Err(Failure::usage(
            "--check mine needs a lease ID: pass --lease-id or set AZMUTEX_LEASE_ID",
        )
        .hint("azmutex status --help"));
    }
    let config = Config::load(global)?;
    let locks: Vec<Lock> = args
        .locks
        .iter()
        .map(|text| config.lock(text, Create::Never))
        .collect::<Result<_, _>>()?;
    let locks = if args.slots {
        with_slots(locks)?
    } else {
        locks.into_iter().map(|lock| (lock, false)).collect()
    };
    let mut code = Code::Done;
    for (lock, is_permit) in &locks {
        let one = match (args.check, lock.status()?) {
            (Some(check), status) => answer(check, args, lock, status.as_ref(), global)?,
            (None, None) => show_missing(lock, *is_permit, global),
            (None, Some(status)) => show(lock, &status, global),
        };
        if code == Code::Done {
            code = one;
        }
    }
    Ok(code)
}

/// Each lock, followed by its permits. With each, whether it is a permit.
fn with_slots(locks: Vec<Lock>) -> Result<Vec<(Lock, bool)>, Failure> {
    let mut all = Vec::new();
    for lock in locks {
        let permits = lock.status()?.and_then(|status| status.permits());
        let slots: Vec<_> = (0..permits.unwrap_or(0))
            .map(|slot| (lock.slot(slot), true))
            .collect();
        all.push((lock, false));
        all.extend(slots);
    }
    Ok(all)
}

fn answer(
    check: Check,
    args: &StatusArgs,
    lock: &Lock,
    status: Option<&LeaseStatus>,
    global: &Global,
) -> Outcome {
    let Some(status) = status else {
        if global.json {
            print_line(&missing(lock).to_string());
        }
        return Ok(Code::NoSuchLock);
    };
    if global.json {
        print_line(&object(status, &lock.url).to_string());
    }
    let holds = match (check, args.lease_id) {
        (Check::Held, _) => !status.state().is_free(),
        (Check::Free, _) => status.state().is_free(),
        (Check::Mine, None) => false,
        (Check::Mine, Some(id)) => match lock.mutex.verify(&Lease::new(&lock.key, id)?) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::LeaseLost => false,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(if holds { Code::Done } else { Code::False })
}

/// Shows that there is no blob for a lock, or for a permit, whose first use creates it.
fn show_missing(lock: &Lock, is_permit: bool, global: &Global) -> Code {
    let (state, code) = if is_permit {
        ("free (never used)", Code::Done)
    } else {
        (
            "no such lock (never used, or its blob was deleted)",
            Code::NoSuchLock,
        )
    };
    if global.json {
        print_line(&missing(lock).to_string());
    } else {
        print_line(&format!("{}: {state}", lock.name));
    }
    code
}

fn show(lock: &Lock, status: &LeaseStatus, global: &Global) -> Code {
    if global.json {
        print_line(&object(status, &lock.url).to_string());
        return Code::Done;
    }
    let done = status.done().map_or(String::new(), |done| {
        let by = done
            .by()
            .map_or(String::new(), |by| format!(" by {}", clean(by)));
        format!("; done{by} at {}", rfc3339(done.at()))
    });
    let state = match status.permits() {
        Some(count) => {
            let held = if status.state().is_free() {
                String::new()
            } else {
                format!("; as a lock, {}", describe(status))
            };
            format!("a semaphore with {}{held}", permits(count))
        }
        None => describe(status),
    };
    print_line(&format!("{}: {state}{done}", lock.name));
    if global.verbose > 0 {
        print_line(&format!("  url            {}", lock.url));
        print_line(&format!("  lease          {}", status.state()));
        if let Some(token) = status.fencing_token() {
            print_line(&format!("  fencing token  {token}"));
        }
        print_line(&format!("  etag           {}", clean(status.etag())));
        if let Some(at) = status.last_modified() {
            print_line(&format!("  last written   {}", rfc3339(at)));
        }
    }
    Code::Done
}

/// A number of permits, in words.
pub(crate) fn permits(count: u32) -> String {
    match count {
        1 => "1 permit".to_owned(),
        count => format!("{count} permits"),
    }
}

/// The state in a sentence.
fn describe(status: &LeaseStatus) -> String {
    match status.state() {
        LeaseState::Leased => format!("held by {}", holder(status)),
        LeaseState::Breaking => format!(
            "breaking: held by {} until its break period is over; the service does not tell when \
             that is",
            holder(status)
        ),
        // A holder that notices that its lease was broken releases it all the same.
        LeaseState::Available if status.last_holder().is_some_and(Holder::released) => {
            "free (released)".to_owned()
        }
        LeaseState::Available => format!("free{}", last_recorded(status)),
        LeaseState::Expired => format!(
            "free: the last holder's lease ran out{}",
            last_recorded(status)
        ),
        LeaseState::Broken => format!("free: the lease was broken{}", last_recorded(status)),
        state => format!("in a state that this version of azmutex does not know ({state})"),
    }
}

/// The last holder that wrote who it was. The lease that ended may have been another's.
fn last_recorded(status: &LeaseStatus) -> String {
    let Some(last) = status.last_holder() else {
        return String::new();
    };
    let who = clean(&last.to_string());
    match last.since() {
        Some(since) => format!(" (last recorded: {who} since {})", rfc3339(since)),
        None => format!(" (last recorded: {who})"),
    }
}

/// Who holds it, and for how long.
pub(crate) fn holder(status: &LeaseStatus) -> String {
    HeldBy::of(Some(status), Since::Span).to_string()
}

/// A lock as an object, with the same members in every state.
pub(crate) fn object(status: &LeaseStatus, url: &str) -> Object {
    let held = !status.state().is_free();
    let duration = match status.state() {
        LeaseState::Leased if status.is_infinite() => Some("infinite"),
        LeaseState::Leased => Some("fixed"),
        _ => None,
    };
    let last = status
        .last_holder()
        .filter(|_| status.holder().is_none())
        .map(|last| holder_object(last).bool("released", last.released()));
    Object::event("status")
        .exact("lock", status.key())
        .exact("url", url)
        .text("state", &status.state().to_string())
        .bool("held", held)
        .maybe("duration", duration)
        .maybe_object("holder", status.holder().map(holder_object))
        .maybe_object("last_holder", last)
        .maybe_number("fence", status.fencing_token())
        .maybe_number("permits", status.permits())
        .time("done_at", status.done().map(Done::at))
        .maybe("done_by", status.done().and_then(Done::by))
        .maybe("etag", Some(status.etag()))
        .time("last_modified", status.last_modified())
}

fn missing(lock: &Lock) -> Object {
    Object::event("status")
        .exact("lock", &lock.key)
        .exact("url", &lock.url)
        .text("state", "missing")
        .bool("held", false)
        .maybe("duration", None)
        .maybe_object("holder", None)
        .maybe_object("last_holder", None)
        .maybe_number("fence", None::<i64>)
        .maybe_number("permits", None::<u32>)
        .time("done_at", None)
        .maybe("done_by", None)
        .maybe("etag", None)
        .time("last_modified", None)
}
