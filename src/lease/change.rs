//! PURE: changing the ID of a lease that goes to its next user in this process.

use std::time::Duration;

use crate::error::Error;
use crate::time::retry::Retry;
use crate::time::tick::{Moment, Tick};

/// A change that the service has not confirmed: the lease has one of two IDs.
///
/// It may be sent any number of times: one that was already done is confirmed again. It proves
/// nothing about how long the lease still runs.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// When to send it, by the system's clock.
    pub(super) due: Tick,
    pub(super) retry: Retry,
}

impl Change {
    /// Retries failures for `limit`.
    pub(crate) fn new(limit: Duration, now: Moment) -> Self {
        Self {
            due: now.real,
            retry: Retry::new(limit),
        }
    }

    /// For how long to wait for the answer to a change that is sent at `now`; or when to look again.
    pub(crate) fn step(&mut self, now: Moment, longest: Duration) -> Result<Duration, Tick> {
        if now.real < self.due {
            return Err(self.due);
        }
        Ok(self.retry.attempt(now.real, longest))
    }

    /// Takes in a failure that does not say that the lease is lost. Returns whether it is tried again.
    pub(crate) fn failed(&mut self, error: &Error, now: Moment, random: u64) -> bool {
        let (delivery, asked) = (error.delivery(), error.retry_after());
        let due = self.retry.failed(now.real, delivery, true, asked, random);
        self.due = due.unwrap_or(Tick::NEVER);
        due.is_some()
    }
}
