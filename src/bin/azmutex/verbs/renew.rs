//! `azmutex renew` and `azmutex release`: by lease ID, for scripts.

use azmutex::{Error, ErrorKind, Lease, LossReason};

use super::Outcome;
use crate::args::{Create, Global, ReleaseArgs, RenewArgs};
use crate::config::{Config, Lock};
use crate::exit::Code;
use crate::output::{Failure, Object, print_line};

pub(crate) fn renew(args: &RenewArgs, global: &Global) -> Outcome {
    let lock = Config::load(global)?.lock(&args.lock, Create::Never)?;
    let lease = Lease::new(&lock.key, args.lease_id)?;
    lock.mutex
        .renew(&lease)
        .map_err(|error| lost(error, &lock))?;
    done(&lock, "renewed", global);
    Ok(Code::Done)
}

pub(crate) fn release(args: &ReleaseArgs, global: &Global) -> Outcome {
    let lock = Config::load(global)?.lock(&args.lock, Create::Never)?;
    let lease = Lease::new(&lock.key, args.lease_id)?;
    // Information for people only; the release below counts, and reports what is wrong.
    if let Err(error) = lock.mutex.write_released(&lease) {
        log::debug!("{error}");
    }
    match lock.mutex.release(&lease) {
        Ok(()) => {
            done(&lock, "released", global);
            Ok(Code::Done)
        }
        Err(error) if error.kind() != ErrorKind::LeaseLost => Err(error.into()),
        Err(_) if lock.status()?.is_none() => Err(missing(&lock)),
        Err(_) => Err(not_holder("release", &lock)),
    }
}

fn done(lock: &Lock, what: &str, global: &Global) {
    if global.json {
        let object = Object::event(what).exact("lock", &lock.key);
        print_line(&object.to_string());
    }
}

fn lost(error: Error, lock: &Lock) -> Failure {
    match (error.kind(), error.loss_reason()) {
        (ErrorKind::LeaseLost, Some(LossReason::Deleted)) => missing(lock),
        (ErrorKind::LeaseLost, _) => Failure {
            request_id: error.request_id().map(str::to_owned),
            service_code: error.service_code().map(str::to_owned),
            ..not_holder("renew", lock)
        },
        _ => error.into(),
    }
}

fn not_holder(verb: &str, lock: &Lock) -> Failure {
    Failure::new(
        Code::NotHolder,
        format!(
            "cannot {verb} {}: the lease ID does not hold it, or no longer does",
            lock.name
        ),
    )
    .hint(format!(
        "stop all work under the lock; to see who has it: azmutex status {}",
        lock.word
    ))
}

fn missing(lock: &Lock) -> Failure {
    Failure::new(
        Code::NoSuchLock,
        format!("{}: no such lock: its blob does not exist", lock.name),
    )
}
