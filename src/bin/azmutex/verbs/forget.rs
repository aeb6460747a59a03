//! `azmutex once --forget`: it is due again.

use azmutex::{ErrorKind, Locker};

use super::Outcome;
use crate::args::{Create, Global, OnceArgs};
use crate::config::Config;
use crate::exit::Code;
use crate::output::{Failure, Object, note, print_line};

pub(crate) fn forget(args: &OnceArgs, global: &Global) -> Outcome {
    let lock = Config::load(global)?.lock(&args.run.lock, Create::Never)?;
    let locker = Locker::new(lock.mutex.clone(), &lock.key)?;
    match locker.forget_done() {
        Ok(()) => {
            if global.json {
                print_line(
                    &Object::event("forgotten")
                        .exact("lock", &lock.key)
                        .to_string(),
                );
            } else {
                note(global, &format!("{} is due", lock.name));
            }
            Ok(Code::Done)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            let text = format!("{}: somebody holds it, who may be at work", lock.name);
            let failure = Failure::new(Code::NotAcquired, text);
            Err(failure.hint(format!("azmutex status {}", lock.word)))
        }
        Err(error) => Err(error.into()),
    }
}
