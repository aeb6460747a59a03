//! PURE: the events as objects.

use std::time::Duration;

use azmutex::{Done, LeaseStatus};

use super::held::Held;
use super::status::Status;
use crate::config::Lock;
use crate::output::{Object, waiting_event};

/// The beginning of every event.
fn event(name: &str, lock: &str) -> Object {
    Object::event(name).exact("lock", lock)
}

/// Somebody else holds the lock.
pub(super) fn waiting(lock: &str, status: Option<&LeaseStatus>, waited: Duration) -> Object {
    waiting_event(lock, status, waited)
}

/// The service failed or did not answer; it is asked again.
pub(super) fn acquire_failed(lock: &str, error: &azmutex::Error, attempt: u32) -> Object {
    event("acquire_failed", lock)
        .text("error", &error.to_string())
        .number("attempt", attempt)
}

/// The lock is held.
pub(super) fn acquired(lock: &Lock, held: &Held, waited: Duration) -> Object {
    event("acquired", &lock.key)
        .exact("url", &held.url(lock))
        .maybe_number("fence", held.fencing_token())
        .maybe_number("slot", held.slot)
        .bool("previous_abandoned", held.abandoned().is_some())
        .seconds("waited_s", waited)
}

/// The work was done before.
pub(super) fn already_done(lock: &str, done: &Done) -> Object {
    event("already_done", lock)
        .time("done_at", Some(done.at()))
        .maybe("done_by", done.by())
}

/// It is recorded that the work is done.
pub(super) fn recorded(lock: &str, error: Option<&str>) -> Object {
    event("recorded", lock)
        .bool("ok", error.is_none())
        .maybe("error", error)
}

/// The command runs.
pub(super) fn started(lock: &str, pid: i32) -> Object {
    event("started", lock).number("pid", pid.unsigned_abs())
}

/// A renewal failed; it is tried again.
pub(super) fn renewal_failed(lock: &str, error: &azmutex::Error, remaining: Duration) -> Object {
    event("renewal_failed", lock)
        .text("error", &error.to_string())
        .seconds("remaining_s", remaining)
}

/// An event that needs no more than its name.
pub(super) fn plain(name: &str, lock: &str) -> Object {
    event(name, lock)
}

/// The lock is lost, or can no longer be proven to be held.
pub(super) fn lost(lock: &str, reason: &str) -> Object {
    event("lost", lock).text("reason", reason)
}

/// The command was sent a signal because of the lock.
pub(super) fn terminating(lock: &str, signal: &str, kill_in: Option<Duration>) -> Object {
    let object = event("terminating", lock).text("signal", signal);
    match kill_in {
        Some(kill_in) => object.seconds("kill_in_s", kill_in),
        None => object.maybe("kill_in_s", None),
    }
}

/// How the run ended.
pub(super) struct Exit<'a> {
    pub(super) outcome: &'a str,
    /// The exit code of azmutex, unless it ends by a signal.
    pub(super) exit: Option<u8>,
    pub(super) status: Option<Status>,
    pub(super) fence: Option<i64>,
    pub(super) held: Option<Duration>,
    pub(super) waited: Duration,
    pub(super) released: bool,
}

impl Exit<'_> {
    pub(super) fn object(&self, lock: &str) -> Object {
        let (code, signal) = match self.status {
            Some(Status::Exited(code)) => (u64::try_from(code).ok(), None),
            Some(Status::Killed { signal, .. }) => (None, u64::try_from(signal).ok()),
            None => (None, None),
        };
        let object = event("exit", lock)
            .text("outcome", self.outcome)
            .maybe_number("exit", self.exit)
            .maybe_number("code", code)
            .maybe_number("signal", signal)
            .maybe_number("fence", self.fence);
        let object = match self.held {
            Some(held) => object.seconds("held_s", held),
            None => object.maybe("held_s", None),
        };
        object
            .seconds("waited_s", self.waited)
            .bool("released", self.released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_says_what_became_of_the_command() {
        let exit = Exit {
            outcome: "child_exited",
            exit: Some(3),
            status: Some(Status::Exited(3)),
            fence: Some(812),
            held: Some(Duration::from_millis(61_400)),
            waited: Duration::from_secs(47),
            released: true,
        };
        let text = exit.object("prod/deploy").to_string();
        let (_, text) = text.split_once(r#","event""#).unwrap();
        assert_eq!(
            text,
            r#":"exit","lock":"prod/deploy","outcome":"child_exited","exit":3,"code":3,"signal":null,"fence":812,"held_s":61.400,"waited_s":47.000,"released":true}"#
        );
    }
}
