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
    /// `None` if the lease has no end.
    pub(crate) lease: Option<Duration>,
    /// `None` is this process, whichever that is then.
    pub(crate) pid: Option<u32>,
    /// Whether holders say who they are.
    pub(crate) named: bool,
    /// What was written last. As long as the blob has that ETag, nobody else wrote to it.
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
        named: bool,
    ) -> Self {
        Self {
            owner,
            reason,
            lease: Some(lease),
            pid: None,
            named,
            last: Mutex::default(),
        }
    }

    /// Writes for a holder who describes itself.
    pub(crate) fn of(holder: Holder) -> Self {
        Self {
            owner: holder.owner,
            reason: holder.reason,
            lease: holder.lease,
            pid: holder.pid,
            named: true,
            last: Mutex::default(),
        }
    }

    /// What the holder says of itself.
    pub(crate) fn holder(&self, now: OffsetDateTime) -> Holder {
        let named = self.named;
        Holder {
            owner: self.owner.clone().or_else(default_owner).filter(|_| named),
            pid: named.then(|| self.pid.unwrap_or_else(process::id)),
            since: dates::to_system(now),
            reason: self.reason.clone().filter(|_| named),
            lease: self.lease,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            released: false,
        }
    }

    /// What the blob holds, if it is what was written last.
    pub(crate) fn known(&self, etag: &str) -> Option<StoredRecord> {
        let last = self.last.lock().clone();
        last.filter(|stored| !etag.is_empty() && stored.etag == etag)
    }

    pub(crate) fn remember(&self, stored: &StoredRecord) {
        *self.last.lock() = Some(stored.clone());
    }
}
