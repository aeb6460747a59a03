//! Writes who holds the lock, and the fencing token, into the lock blob under its lease.

use std::process;
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;

use crate::azure::client::Client;
use crate::error::{Error, ErrorKind};
use crate::holder::identity::default_owner;
use crate::holder::record::{Holder, Previous, Record};
use crate::lease::ids::LeaseId;
use crate::lock::acquire::until_answered;
use crate::sync::Mutex;

/// What a locker writes about its holders.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) owner: Option<String>,
    pub(crate) reason: Option<String>,
    /// `None` if it has no end.
    pub(crate) lease: Option<Duration>,
    /// `None` is this process, whichever that is then.
    pub(crate) pid: Option<u32>,
    /// Whether holders say who they are.
    pub(crate) named: bool,
    pub(crate) fencing: bool,
    /// How long a lock is held before its holder writes who it is.
    pub(crate) delay: Duration,
    /// What this locker wrote last. As long as the blob has that ETag, nobody else wrote to it.
    pub(crate) last: Mutex<Option<Written>>,
}

/// Metadata that was written, and the ETag that it gave the blob.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) etag: String,
    pub(crate) record: Record,
}

/// The blob that a recorder writes to, and the lease that it writes under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Under<'a> {
    pub(crate) client: &'a Client,
    pub(crate) key: &'a str,
    pub(crate) id: LeaseId,
}

impl Recorder {
    /// Hands out the next fencing token: stores it, and who holds the lock, before anyone sees it.
    ///
    /// `etag`: the blob's when the lease was acquired.
    pub(crate) fn fence(
        &self,
        under: Under<'_>,
        etag: &str,
        timeout: Duration,
    ) -> Result<(Written, Previous), Error> {
        let end = Instant::now() + timeout;
        let Written {
            etag,
            record: before,
        } = match self.known(etag) {
            Some(written) => written,
            None => until_answered(timeout, |timeout, _| under.read(timeout))?,
        };
        let wall = under.client.clock().wall();
        let Some(token) = before.next_fence(wall) else {
            let text = "the lock's fencing token is the greatest there is";
            return Err(Error::new(ErrorKind::Protocol, text)
                .during("fence", &under.client.target(under.key)));
        };
        let mut record = before.held_by(self.holder(wall));
        record.fence = Some(token);
        let left = end.saturating_duration_since(Instant::now());
        let written = until_answered(left, |timeout, _| {
            match under.write(&record, Some(&etag), timeout) {
                // Under our lease nobody else can write, so it was an earlier attempt of ours
                // whose answer is missing; if the blob has the token, that attempt succeeded.
                // The rest of the record may read otherwise than it was written: it is capped.
                Err(error) if error.service_code() == Some("ConditionNotMet") => {
                    let found = under.read(timeout)?;
                    if found.record.fence == Some(token) {
                        Ok(found)
                    } else {
                        Err(error)
                    }
                }
                result => result,
            }
        })?;
        self.remember(&written);
        Ok((written, before.as_previous()))
    }

    /// Writes who holds the lock. One attempt.
    pub(crate) fn name_holder(
        &self,
        under: Under<'_>,
        etag: &str,
        timeout: Duration,
    ) -> Result<Written, Error> {
        let before = self
            .known(etag)
            .map(|written| written.record)
            .unwrap_or_default();
        let record = before.held_by(self.holder(under.client.clock().wall()));
        let written = under.write(&record, None, timeout)?;
        self.remember(&written);
        Ok(written)
    }

    /// Writes that the holder released. One attempt.
    pub(crate) fn mark_released(
        &self,
        under: Under<'_>,
        record: Record,
        timeout: Duration,
    ) -> Result<(), Error> {
        let written = under.write(&record.released(), None, timeout)?;
        self.remember(&written);
        Ok(())
    }

    /// Replaces the blob's content, and keeps its metadata.
    ///
    /// `written`: what this hold wrote, if it did.
    pub(crate) fn write_content(
        &self,
        under: Under<'_>,
        written: Option<Written>,
        content: &[u8],
        timeout: Duration,
    ) -> Result<Written, Error> {
        let end = Instant::now() + timeout;
        let left = || end.saturating_duration_since(Instant::now());
        let Written { mut etag, record } = match written {
            Some(written) => written,
            None => {
                let mut found = until_answered(timeout, |timeout, _| under.read(timeout))?;
                if self.named {
                    let holder = self.holder(under.client.clock().wall());
                    found.record = found.record.held_by(holder);
                }
                found
            }
        };
        // Only over what is known to be there: so a copy of this request that arrives late undoes
        // no later write, and a blob that was deleted is not made again without its lease.
        let etag = until_answered(left(), |timeout, _| {
            loop {
                let timeout = timeout.min(left());
                let result = under
                    .client
                    .write_content(under.key, under.id, &record, content, &etag, timeout);
                match result {
                    // Written under this lease since: by an earlier attempt, by the renewal
                    // thread, or by whoever else was given the lease ID.
                    Err(error)
                        if error.service_code() == Some("ConditionNotMet") && !left().is_zero() =>
                    {
                        etag = under.read(timeout.min(left()))?.etag;
                    }
                    result => return result,
                }
            }
        })?;
        let written = Written { etag, record };
        self.remember(&written);
        Ok(written)
    }

    /// Whether a hold writes anything of itself.
    pub(crate) fn records(&self) -> bool {
        self.named || self.fencing
    }

    /// Whether a hold says who it is some time after it began.
    pub(crate) fn names_later(&self) -> bool {
        self.named && !self.fencing && !self.delay.is_zero()
    }

    /// Whether a hold says who it is before `lock` returns, without a token.
    pub(crate) fn names_first(&self) -> bool {
        self.named && !self.fencing && self.delay.is_zero()
    }

    /// What the holder says of itself.
    pub(crate) fn holder(&self, now: OffsetDateTime) -> Holder {
        let named = self.named;
        Holder {
            owner: self.owner.clone().or_else(default_owner).filter(|_| named),
            pid: named.then(|| self.pid.unwrap_or_else(process::id)),
            since: Some(SystemTime::from(now)),
            reason: self.reason.clone().filter(|_| named),
            lease: self.lease,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            released: false,
        }
    }

    /// What the blob holds, if it is what this locker wrote last.
    fn known(&self, etag: &str) -> Option<Written> {
        self.last
            .lock()
            .clone()
            .filter(|written| !etag.is_empty() && written.etag == etag)
    }

    fn remember(&self, written: &Written) {
        *self.last.lock() = Some(written.clone());
    }
}

impl Under<'_> {
    fn read(self, timeout: Duration) -> Result<Written, Error> {
        let (etag, record) = self.client.read_record(self.key, self.id, timeout)?;
        Ok(Written { etag, record })
    }

    fn write(
        self,
        record: &Record,
        if_match: Option<&str>,
        timeout: Duration,
    ) -> Result<Written, Error> {
        let etag = self
            .client
            .write_record(self.key, self.id, record, if_match, timeout)?;
        Ok(Written {
            etag,
            record: record.clone(),
        })
    }
}

/// Stores the next fencing token together with `holder`, in place of who held the lock before.
pub(crate) fn introduce(under: Under<'_>, holder: Holder, timeout: Duration) -> Result<u64, Error> {
    let recorder = Recorder {
        owner: holder.owner,
        reason: holder.reason,
        lease: holder.lease,
        pid: holder.pid,
        named: true,
        fencing: true,
        delay: Duration::ZERO,
        last: Mutex::new(None),
    };
    let (written, _) = recorder.fence(under, "", timeout)?;
    Ok(written.record.fence.unwrap_or_default())
}

/// Marks the holder that the blob names as one that released, if it names one.
pub(crate) fn sign_off(under: Under<'_>, timeout: Duration) -> Result<(), Error> {
    let found = until_answered(timeout, |timeout, _| under.read(timeout))?;
    match &found.record.holder {
        Some(holder) if !holder.released => {
            let record = found.record.released();
            until_answered(timeout, |timeout, _| under.write(&record, None, timeout)).map(drop)
        }
        _ => Ok(()),
    }
}
