use std::time::Duration;

use super::silence::Silence;
use crate::azure::client::Client;
use crate::error::Error;
use crate::sync::{Condvar, Mutex};
use crate::time::clock::Clock;
use crate::time::jitter::Jitter;
use crate::time::retry::Retry;

/// The operations of one container, each sent until it is answered or its time is up.
#[derive(Debug)]
pub(crate) struct Operations {
    pub(crate) client: Client,
    pub(crate) request_timeout: Duration,
    pub(crate) create_missing: bool,
    pub(crate) silence: Silence,
}

impl Operations {
    /// Sends a request that may be repeated without harm.
    pub(crate) fn until_answered<T>(
        &self,
        send: impl FnMut(Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.send_within(self.request_timeout, true, send)
    }

    /// Sends a request that must not be repeated if it may have been done.
    pub(crate) fn at_most_once<T>(
        &self,
        send: impl FnMut(Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.send_within(self.request_timeout, false, send)
    }

    /// Sends a request until it is answered or `timeout` has passed. `send` gets the time that the
    /// attempt may take.
    pub(crate) fn send_within<T>(
        &self,
        timeout: Duration,
        repeatable: bool,
        mut send: impl FnMut(Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let now = || Clock::System.now();
        let mut retry = Retry::new(timeout);
        let mut jitter = Jitter::new(now().as_nanos());
        let mut before = None;
        loop {
            let sent = now();
            let result = send(retry.attempt(sent, timeout / 2));
            if result.as_ref().map_or_else(Error::is_answer, |_| true) {
                self.silence.answered(sent);
            }
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (delivery, asked) = (error.delivery(), error.retry_after());
            let failed = now();
            match retry.failed(failed, delivery, repeatable, asked, jitter.next()) {
                Some(due) => sleep(due.since(failed)),
                None => return Err(retry.conclude(failed, error, before)),
            }
            before = Some(error);
        }
    }
}

pub(crate) fn sleep(delay: Duration) {
    let (lock, never) = (Mutex::new(()), Condvar::new());
    never.wait_for(&mut lock.lock(), delay);
}
