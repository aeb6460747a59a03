//! PURE: giving a lease back.

use std::time::Duration;

use super::step::{Answer, Request};
use crate::error::{Error, LossReason};
use crate::time::retry::Retry;
use crate::time::tick::{Moment, Tick};

/// The release of one lease, all of it within a time limit.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(super) started: Tick,
    pub(super) timeout: Duration,
    /// Until when the lease is held for certain. In the past if it is not.
    pub(super) held_until: Tick,
    /// Why it had been lost before. Then there may still be something to release, but no success.
    pub(super) lost: Option<LossReason>,
    /// Whether to write first that the holder released.
    pub(super) write: bool,
    /// Whether the lease may still have the ID that its user before had.
    pub(super) former: bool,
    /// When the next request is due, by the system's clock.
    pub(super) due: Tick,
    pub(super) retry: Retry,
    /// A release was sent that may have been done.
    pub(super) unanswered: bool,
}

impl Release {
    pub(crate) fn new(
        timeout: Duration,
        held_until: Tick,
        lost: Option<LossReason>,
        write: bool,
        now: Moment,
    ) -> Self {
        Self {
            started: now.real,
            timeout,
            held_until,
            lost,
            write,
            former: false,
            due: now.real,
            retry: Retry::started(timeout, now.real),
            unanswered: false,
        }
    }

    /// The lease may still have the ID that its user before had. That is released first, since a late
    /// copy of the change could otherwise come in between.
    pub(crate) fn with_former(self, former: bool) -> Self {
        Self { former, ..self }
    }

    /// What to send at `now`, and for how long to wait for the answer; or when to look again.
    pub(crate) fn step(&mut self, now: Moment) -> Result<(Request, Duration), Moment> {
        if self.write {
            let left = self.timeout.saturating_sub(now.real.since(self.started));
            return Ok((Request::WriteReleased, left / 2));
        }
        if now.real < self.due {
            return Err(Moment {
                real: self.due,
                ..Moment::NEVER
            });
        }
        let timeout = self.retry.attempt(now.real, self.timeout / 2);
        let request = if self.former {
            Request::ReleaseFormer
        } else {
            Request::Release
        };
        Ok((request, timeout))
    }

    /// Takes in an answer. Returns what became of the release once it is over.
    pub(crate) fn answered(
        &mut self,
        request: &Request,
        now: Moment,
        result: Result<Answer, Error>,
        random: u64,
    ) -> Option<Result<(), Error>> {
        if *request == Request::WriteReleased {
            self.write = false;
            return None;
        }
        let error = match (result, self.lost) {
            (Ok(_), None) => return Some(Ok(())),
            (Ok(_), Some(reason)) => return Some(Err(Error::lost(reason))),
            (Err(error), _) => error,
        };
        if error.loss_reason().is_some() && *request == Request::ReleaseFormer {
            self.former = false;
            return None;
        }
        if error.loss_reason().is_some() {
            // While the lease was held for certain, it can only be an earlier attempt that ended it.
            let released = self.unanswered && self.lost.is_none() && now.lease < self.held_until;
            return Some(match self.lost {
                Some(reason) => Err(Error::lost(reason)),
                None if released => Ok(()),
                None => Err(error),
            });
        }
        self.unanswered |= error.is_ambiguous();
        let (delivery, asked) = (error.delivery(), error.retry_after());
        match self.retry.failed(now.real, delivery, true, asked, random) {
            Some(due) => {
                self.due = due;
                None
            }
            None => Some(Err(match self.lost {
                Some(reason) => Error::lost(reason),
                None => error.spent(self.retry.attempts(), self.retry.elapsed(now.real)),
            })),
        }
    }
}
