//! Sends a lease's requests to the service.

use std::time::Duration;

use super::operations::Operations;
use super::recorder::{Recorder, StoredRecord};
use crate::azure::status::LeaseStatus;
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind};
use crate::holder::record::{Done, Holder, Previous, Record};
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::lease::step::{Answer, Metadata, Request};
use crate::sync::Mutex;
use crate::time::clock::Clock;
use crate::time::dates;

/// A lock blob, and the lease ID for requests to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeasedBlob<'a> {
    pub(crate) operations: &'a Operations,
    pub(crate) key: &'a str,
    pub(crate) id: LeaseId,
    /// The ID that the lease may have had before.
    pub(crate) former: Option<LeaseId>,
    pub(crate) duration: LeaseDuration,
    pub(crate) recorder: &'a Recorder,
    pub(crate) seen: &'a Mutex<Seen>,
}

/// What is known about the blob so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Its metadata, as last read or written under this lease.
    pub(crate) stored: Option<StoredRecord>,
    /// Whether it was written under this lease.
    pub(crate) written: bool,
    /// The holder before gave the lease to this one, which is as good as a release.
    pub(crate) passed_on: bool,
    /// The holder before this lease.
    pub(crate) previous: Previous,
    /// What the service last said of the lease, while waiting for it.
    pub(crate) status: Option<LeaseStatus>,
}

impl Seen {
    /// What the next holder in this process knows. `exposed`: somebody else may have written since.
    pub(crate) fn passed_on(self, exposed: bool) -> Self {
        Self {
            stored: self.stored.filter(|_| !exposed),
            passed_on: true,
            ..Self::default()
        }
    }
}

impl LeasedBlob<'_> {
    /// Sends one request.
    pub(crate) fn perform(&self, request: &Request, timeout: Duration) -> Result<Answer, Error> {
        let (client, key, id) = (&self.operations.client, self.key, self.id);
        let sent = client.clock().moment().real;
        let result = match request {
            Request::Acquire => client
                .acquire(key, id, self.duration, timeout)
                .map(|etag| self.granted(&etag)),
            Request::CreateContainer => client.create_container(timeout).map(|()| Answer::Done),
            Request::CreateBlob => client.create_blob(key, timeout).map(|etag| {
                if let Some(etag) = etag {
                    let record = Record::default();
                    self.recorder.remember(&StoredRecord { etag, record });
                }
                Answer::Done
            }),
            Request::ReadHolder => client.status(key, timeout).map(|status| {
                let held = !status.state().is_free();
                let before = self.seen.lock().status.replace(status.clone());
                let changed = before.is_none_or(|before| before.holder() != status.holder());
                Answer::Looked { held, changed }
            }),
            Request::ReadMetadata => self
                .read(timeout)
                .map(|stored| Answer::Metadata(self.metadata(&stored))),
            Request::WriteToken { token, if_match } => {
                let before = self.stored(timeout).map(|stored| stored.record);
                before.and_then(|before| {
                    let mut seen = self.seen.lock();
                    let before = if seen.passed_on {
                        before.released()
                    } else {
                        before
                    };
                    seen.previous = before.as_previous();
                    drop(seen);
                    let record = before.held_by(self.holder()).with_token(*token);
                    self.write(record, Some(if_match), timeout)
                })
            }
            Request::WriteHolder { if_match } => {
                let before = self.stored(timeout).map(|stored| stored.record);
                before.and_then(|before| {
                    let record = before.held_by(self.holder());
                    self.write(record, Some(if_match), timeout)
                })
            }
            Request::Change => match self.former {
                Some(former) => client
                    .change(key, former, id, timeout)
                    .map(|()| Answer::Done),
                None => Ok(Answer::Done),
            },
            Request::Renew => client.renew(key, id, true, timeout).map(|()| Answer::Done),
            Request::WriteReleased => {
                let before = self.stored(timeout / 2).map(|stored| stored.record);
                before.and_then(|before| self.write(before.released(), None, timeout))
            }
            Request::ReleaseFormer => {
                let former = self.former.unwrap_or(id);
                client.release(key, former, timeout).map(|()| Answer::Done)
            }
            Request::Release => client.release(key, id, timeout).map(|()| Answer::Done),
        };
        if result.as_ref().map_or_else(Error::is_answer, |_| true) {
            self.operations.silence.answered(sent);
        }
        result
    }

    /// Replaces the blob's content within `timeout`, and keeps its metadata. Returns the blob's
    /// ETag.
    pub(crate) fn write_content(&self, content: &[u8], timeout: Duration) -> Result<String, Error> {
        let (client, key, id) = (&self.operations.client, self.key, self.id);
        self.write_over(timeout, Ok, |record, etag, timeout| {
            client.write_content(key, id, record, content, etag, timeout)
        })
    }

    /// Writes within `timeout`, by the service's clock, that the work was done. Returns the blob's ETag.
    pub(crate) fn write_done(&self, timeout: Duration) -> Result<String, Error> {
        let (client, key, id) = (&self.operations.client, self.key, self.id);
        let done = |record: Record| {
            let at = client.service_now().and_then(dates::to_system);
            let text = "the service has not said what time it is";
            let at = at.ok_or_else(|| Error::new(ErrorKind::Protocol, text))?;
            let by = self.holder().owner;
            Ok(record.with_done(Some(Done { at, by })))
        };
        self.write_over(timeout, done, |record, etag, timeout| {
            client.write_record(key, id, record, Some(etag), timeout)
        })
    }

    /// Writes the blob within `timeout`, and the metadata with it as `change` says. Returns the blob's
    /// ETag.
    fn write_over(
        &self,
        timeout: Duration,
        change: impl Fn(Record) -> Result<Record, Error>,
        write: impl Fn(&Record, &str, Duration) -> Result<String, Error>,
    ) -> Result<String, Error> {
        let end = Clock::System.now() + timeout;
        let left = || end.since(Clock::System.now());
        let read = || self.operations.send_within(left(), true, |t| self.read(t));
        let seen = self.seen.lock().stored.clone();
        let StoredRecord { mut etag, record } = seen.map_or_else(read, Ok)?;
        let record = change(record)?;
        let record = if self.recorder.holder_info && !self.seen.lock().written {
            self.fitted(record.held_by(self.holder()))
        } else {
            self.fitted(record)
        };
        // Only over the version that is known: so a late copy of this request cannot undo a later
        // write, and a deleted blob is not created again without its lease.
        let etag = loop {
            let written = self
                .operations
                .send_within(left(), true, |timeout| write(&record, &etag, timeout));
            match written {
                // Written under this lease since: by an earlier attempt, by the renewal thread, or
                // by another process that has the lease ID.
                Err(error) if error.service_code() == Some("ConditionNotMet") => {
                    if left().is_zero() {
                        return Err(error);
                    }
                    etag = read()?.etag;
                }
                Err(error) if error.is_ambiguous() => {
                    // It may have been done, which a later write of metadata is not to undo.
                    self.seen.lock().stored = None;
                    return Err(error);
                }
                result => break result?,
            }
        };
        self.remember(StoredRecord {
            etag: etag.clone(),
            record,
        });
        Ok(etag)
    }

    fn granted(&self, etag: &str) -> Answer {
        let stored = self.recorder.known(etag);
        let metadata = stored.as_ref().map(|stored| self.metadata(stored));
        self.seen.lock().stored = stored;
        Answer::Granted { metadata }
    }

    fn metadata(&self, stored: &StoredRecord) -> Metadata {
        let wall = self.operations.client.clock().wall().unix_timestamp_nanos() / 1_000_000;
        Metadata {
            etag: stored.etag.clone(),
            token: stored.record.fence,
            wall: i64::try_from(wall).unwrap_or(0),
        }
    }

    fn holder(&self) -> Holder {
        let wall = self.operations.client.clock().wall();
        self.recorder.holder(wall)
    }

    /// The metadata as last seen, or else read now.
    fn stored(&self, timeout: Duration) -> Result<StoredRecord, Error> {
        let seen = self.seen.lock().stored.clone();
        seen.map_or_else(|| self.read(timeout), Ok)
    }

    /// The metadata, if the lease is still this one.
    pub(crate) fn read(&self, timeout: Duration) -> Result<StoredRecord, Error> {
        let client = &self.operations.client;
        let (etag, record) = client.read_record(self.key, self.id, timeout)?;
        let stored = StoredRecord { etag, record };
        self.seen.lock().stored = Some(stored.clone());
        Ok(stored)
    }

    fn write(
        &self,
        record: Record,
        if_match: Option<&str>,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let client = &self.operations.client;
        let record = self.fitted(record);
        let etag = client.write_record(self.key, self.id, &record, if_match, timeout)?;
        self.remember(StoredRecord {
            etag: etag.clone(),
            record,
        });
        Ok(Answer::Written { etag })
    }

    /// The record, cut down to what the service accepts, with a warning about what is left out.
    fn fitted(&self, record: Record) -> Record {
        let (record, dropped) = record.fitted();
        if !dropped.is_empty() {
            let target = self.operations.client.target(self.key);
            no_panic(|| {
                log::warn!(
                    "lock `{target}`: metadata that does not fit or cannot be sent is left out: \
                     {dropped}"
                );
            });
        }
        record
    }

    fn remember(&self, stored: StoredRecord) {
        self.recorder.remember(&stored);
        let mut seen = self.seen.lock();
        seen.stored = Some(stored);
        seen.written = true;
    }
}
