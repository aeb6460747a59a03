//! PURE: what is written into the lock blob's metadata under a lease.

use std::time::Duration;

use super::step::{Answer, Metadata, Request};
use super::token::next_token;
use crate::error::{Error, ErrorKind};
use crate::time::retry::Retry;
use crate::time::tick::{Moment, Tick};

/// The fencing token and the holder, on their way into the metadata.
#[derive(Debug, Clone)]
pub(crate) struct Writing {
    pub(super) work: Option<Work>,
    pub(super) due: Moment,
    pub(super) retry: Retry,
    pub(super) metadata: Option<Metadata>,
    pub(super) token: Option<i64>,
    /// The token was to be written over another ETag: by an earlier attempt that was not answered?
    pub(super) recognizing: Option<Error>,
    /// The metadata may name this holder.
    pub(super) recorded: bool,
    /// The service confirmed that it does.
    pub(super) written: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Work {
    WriteToken,
    WriteHolder,
}

/// What became of an answer.
#[derive(Debug)]
pub(crate) enum Outcome {
    GoesOn,
    /// It failed in a way that may pass, and is tried again.
    Retried(Error),
    /// The holder could not be written, which the lock does not depend on.
    HolderFailed(Error),
    /// The token could not be written.
    Failed(Error),
    /// The service said that the lease is lost.
    Lost(Error),
}

impl Writing {
    /// Nothing to write yet. `metadata`: what the blob holds, if that is known.
    pub(crate) fn new(limit: Duration, metadata: Option<Metadata>) -> Self {
        Self {
            work: None,
            due: Moment::NEVER,
            retry: Retry::new(limit),
            metadata,
            token: None,
            recognizing: None,
            recorded: false,
            written: false,
        }
    }

    /// Has the next fencing token written, and the holder with it, from now on.
    pub(crate) fn write_token(&mut self, now: Moment) -> Outcome {
        self.work = Some(Work::WriteToken);
        self.due = now;
        self.draw_token()
    }

    /// Has the holder written, from `due` on.
    pub(crate) fn write_holder(&mut self, due: Moment) {
        self.work = Some(Work::WriteHolder);
        self.due = due;
    }

    /// Gives up what is not written yet.
    pub(crate) fn stop(&mut self) {
        self.work = None;
    }

    /// When the next request is due, when the first of both clocks shows it. `None` if nothing is
    /// left to write.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.work.map(|_| self.due)
    }

    /// The token that was drawn.
    pub(crate) fn token(&self) -> Option<i64> {
        self.token
    }

    /// What the blob holds, for the next user of the lease in this process.
    pub(crate) fn passed_on(&self) -> Option<Metadata> {
        self.metadata.clone().map(|metadata| Metadata {
            token: self.token.or(metadata.token),
            ..metadata
        })
    }

    /// Whether the metadata may name this holder.
    pub(crate) fn recorded(&self) -> bool {
        self.recorded
    }

    /// Whether the service confirmed that the metadata names this holder.
    pub(crate) fn written(&self) -> bool {
        self.written
    }

    /// The next request, and how long to wait for its answer.
    pub(crate) fn send(&mut self, now: Moment, longest: Duration) -> (Request, Duration) {
        let timeout = self.retry.attempt(now.real, longest);
        let request = match (self.work, &self.metadata) {
            (Some(Work::WriteToken), Some(metadata)) if self.recognizing.is_none() => {
                Request::WriteToken {
                    token: self.token.unwrap_or_default(),
                    if_match: metadata.etag.clone(),
                }
            }
            (Some(Work::WriteHolder), Some(metadata)) => Request::WriteHolder {
                if_match: metadata.etag.clone(),
            },
            _ => Request::ReadMetadata,
        };
        (request, timeout)
    }

    /// Takes in an answer. `pace`: when to try again to write a holder.
    pub(crate) fn answered(
        &mut self,
        request: &Request,
        now: Moment,
        pace: Duration,
        result: Result<Answer, Error>,
        random: u64,
    ) -> Outcome {
        match result {
            Ok(Answer::Metadata(metadata)) => {
                self.due = now;
                match self.recognizing.take() {
                    // The rest of it may read otherwise than it was written: it is cut to fit.
                    Some(_) if metadata.token == self.token => self.finish(),
                    Some(error) => return Outcome::Failed(error),
                    None => {}
                }
                self.metadata = Some(metadata);
                self.draw_token()
            }
            Ok(Answer::Written { etag }) => {
                if let Some(metadata) = &mut self.metadata {
                    metadata.etag = etag;
                }
                self.finish();
                Outcome::GoesOn
            }
            Ok(_) => Outcome::GoesOn,
            Err(error) if error.loss_reason().is_some() => Outcome::Lost(error),
            Err(error) => {
                let writes = *request != Request::ReadMetadata;
                self.recorded |= writes && error.is_ambiguous();
                if self.work == Some(Work::WriteToken) {
                    self.token_failed(error, writes, now, random)
                } else {
                    // It is for people to read, and nothing depends on it.
                    self.metadata = None;
                    self.retry.reset();
                    self.due = Moment {
                        lease: now.lease + pace,
                        ..Moment::NEVER
                    };
                    Outcome::HolderFailed(error)
                }
            }
        }
    }

    /// Somebody else wrote under the lease, and the holder with it. `etag`: the blob's now, if the
    /// service answered.
    pub(crate) fn written_elsewhere(&mut self, etag: Option<&str>) {
        self.recorded = true;
        match (etag, &mut self.metadata) {
            (Some(etag), metadata) => {
                if let Some(metadata) = metadata {
                    metadata.etag = etag.to_owned();
                }
                self.work = None;
            }
            (None, metadata) => *metadata = None,
        }
    }

    fn token_failed(&mut self, error: Error, writes: bool, now: Moment, random: u64) -> Outcome {
        if writes && error.service_code() == Some("ConditionNotMet") {
            self.recognizing = Some(error);
            self.due = now;
            return Outcome::GoesOn;
        }
        let (delivery, asked) = (error.delivery(), error.retry_after());
        match self.retry.failed(now.real, delivery, true, asked, random) {
            Some(real) => {
                self.due = Moment {
                    lease: Tick::NEVER,
                    real,
                };
                Outcome::Retried(error)
            }
            None => {
                let (attempts, elapsed) = (self.retry.attempts(), self.retry.elapsed(now.real));
                Outcome::Failed(error.spent(attempts, elapsed))
            }
        }
    }

    /// Whether the token has taken longer than failures are retried.
    pub(crate) fn is_overdue(&self, now: Moment) -> bool {
        self.work == Some(Work::WriteToken) && self.retry.is_over(now.real)
    }

    /// Draws the next token, once the last one is known.
    fn draw_token(&mut self) -> Outcome {
        if let (Some(Work::WriteToken), None, Some(metadata)) =
            (self.work, self.token, &self.metadata)
        {
            self.token = next_token(metadata.token, metadata.wall);
            if self.token.is_none() {
                let text = "the lock's fencing token is the greatest there is";
                return Outcome::Failed(Error::new(ErrorKind::Protocol, text));
            }
        }
        Outcome::GoesOn
    }

    fn finish(&mut self) {
        self.work = None;
        self.recorded = true;
        self.written = true;
        self.retry.reset();
    }
}
