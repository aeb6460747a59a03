//! What holders write into the lock blob's metadata.

use std::process;
use std::time::Duration;

use time::OffsetDateTime;

use crate::holder::identity::default_owner;
use crate::holder::record::{Holder, Record};
use crate::sync::Mutex;
use crate::time::dates;

/// What a locker writes about its holders.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) owner: Option<String>,
    pub(crate) reason: Option<String>,
    /// `None` if the lease is infinite.
    pub(crate) lease: Option<Duration>,
    /// `None` for the current process.
    pub(crate) pid: Option<u32>,
    /// Whether holders write who they are.
    pub(crate) holder_info: bool,
    /// What was written last. As long as the blob has that ETag, nobody else has written to it.
    last: Mutex<Option<StoredRecord>>,
}

/// The metadata that a blob has while it has this ETag.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecord {
    pub(crate) etag: String,
    pub(crate) record: Record,
}

impl Recorder {
    /// Writes for this process.
    pub(crate) fn new(
        owner: Option<String>,
        reason: Option<String>,
        lease: Duration,
        holder_info: bool,
    ) -> Self {
        Self {
            owner,
            reason,
            lease: Some(lease),
            pid: None,
            holder_info,
            last: Mutex::default(),
        }
    }

    /// Writes for a holder that describes itself.
    pub(crate) fn of(holder: Holder) -> Self {
        Self {
            owner: holder.owner,
            reason: holder.reason,
            lease: holder.lease,
            pid: holder.pid,
            holder_info: true,
            last: Mutex::default(),
        }
    }

    /// The holder's description of itself.
    pub(crate) fn holder(&self, now: OffsetDateTime) -> Holder {
        let holder_info = self.holder_info;
        Holder {
            owner: self
                .owner
                .clone()
                .or_else(default_owner)
                .filter(|_| holder_info),
            pid: holder_info.then(|| self.pid.unwrap_or_else(process::id)),
            since: dates::to_system(now),
            reason: self.reason.clone().filter(|_| holder_info),
            lease: self.lease,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            released: false,
        }
    }

    /// The blob's record, if nobody else has written since.
    pub(crate) fn known(&self, etag: &str) -> Option<StoredRecord> {
        let last = self.last.lock().clone();
        last.filter(|stored| !etag.is_empty() && stored.etag == etag)
    }

    pub(crate) fn remember(&self, stored: &StoredRecord) {
        *self.last.lock() = Some(stored.clone());
    }
}
