//! PURE: what a holder writes into the lock blob's metadata: who it is, and its fencing token.
//!
//! Nothing here is needed to acquire, break or release a lock. What others wrote there is kept
//! where it is known, and passed over where it cannot be read.

use std::borrow::Cow;
use std::fmt;
use std::process;
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use time::OffsetDateTime;

use crate::holder::identity::default_owner;
use crate::lease::ids::LeaseDuration;
use crate::time::dates;

/// Metadata values are ASCII headers: everything else is percent-encoded, and so is the mark.
const VALUE: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

/// The longest encoded value; all of a blob's metadata together may have 8 KiB.
const MAX_VALUE: usize = 1024;

const OWNER: &str = "azmutexowner";
const PID: &str = "azmutexpid";
const SINCE: &str = "azmutexsince";
const REASON: &str = "azmutexreason";
const LEASE: &str = "azmutexlease";
const VERSION: &str = "azmutexversion";
const STATE: &str = "azmutexstate";
const FENCE: &str = "azmutexfence";

/// Who holds a lock, or held it last, as that process wrote it into the lock blob's metadata.
///
/// Information for people. Anyone who may write to the blob can write anything there, and a holder
/// that keeps the lock for less than
/// [`holder_delay`](crate::LockerBuilder::holder_delay) writes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub(crate) owner: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) reason: Option<String>,
    pub(crate) lease: Option<Duration>,
    pub(crate) version: Option<String>,
    pub(crate) released: bool,
}

impl Holder {
    /// What a holder says of itself in [`AzureMutex::write_holder`](crate::AzureMutex::write_holder):
    /// `user@host`, this process, since now.
    #[must_use]
    pub fn current(lease: LeaseDuration) -> Self {
        Self {
            owner: default_owner(),
            pid: Some(process::id()),
            since: None,
            reason: None,
            lease: lease.as_duration(),
            version: None,
            released: false,
        }
    }

    /// Another owner than `user@host`.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Another process than this one, on whose behalf it holds the lock.
    #[must_use]
    pub fn with_pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// What it holds the lock for. Everyone who can read the container can read it.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Who: `user@host`, unless [`owner`](crate::LockerBuilder::owner) was set.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Its process ID, on the machine that the owner names.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Since when, by the holder's clock, to the second.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// What for, as set by [`reason`](crate::LockerBuilder::reason).
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The duration of its lease: how soon the lock comes back if the holder is gone.
    #[must_use]
    pub fn lease_duration(&self) -> Option<Duration> {
        self.lease
    }

    /// The version of this crate that wrote it.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether it released the lock. If not, and the lock is free, it left without releasing.
    #[must_use]
    pub fn released(&self) -> bool {
        self.released
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.owner.as_deref().unwrap_or("an unnamed holder"))?;
        match (self.pid, &self.reason) {
            (Some(pid), Some(reason)) => write!(f, " (pid {pid}, reason: {reason})"),
            (Some(pid), None) => write!(f, " (pid {pid})"),
            (None, Some(reason)) => write!(f, " (reason: {reason})"),
            (None, None) => Ok(()),
        }
    }
}

/// What the one who held the lock before left behind. See
/// [`LeaseGuard::previous`](crate::LeaseGuard::previous).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Previous {
    /// Nobody wrote that they held it, or fencing is off.
    #[default]
    Unknown,
    /// It released the lock.
    Released(Holder),
    /// It left without releasing: it was killed or cut off, or its lease was broken. What it was
    /// doing may be half done.
    Abandoned(Holder),
}

impl Previous {
    /// Whether the previous holder left without releasing: the distributed counterpart of a
    /// poisoned mutex.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        matches!(self, Self::Abandoned(_))
    }

    /// The previous holder, if it is known.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Unknown => None,
            Self::Released(holder) | Self::Abandoned(holder) => Some(holder),
        }
    }
}

/// All metadata of a lock blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) holder: Option<Holder>,
    pub(crate) fence: Option<i64>,
    /// What others wrote, in the order of the names.
    others: Vec<(String, String)>,
}

impl Record {
    /// Reads metadata. Names may come in any case of letters; the service compares them so.
    pub(crate) fn read<'a>(metadata: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut record = Self::default();
        let mut holder = Holder {
            owner: None,
            pid: None,
            since: None,
            reason: None,
            lease: None,
            version: None,
            released: false,
        };
        let mut known = false;
        for (name, value) in metadata {
            let name = name.to_ascii_lowercase();
            known |= name == STATE;
            match name.as_str() {
                OWNER => holder.owner = decode(value),
                PID => holder.pid = value.parse().ok(),
                // Not every system can tell times long gone.
                SINCE => {
                    holder.since = dates::parse_utc(value)
                        .filter(|since| since.unix_timestamp() >= 0)
                        .map(SystemTime::from);
                }
                REASON => holder.reason = decode(value),
                LEASE => holder.lease = value.parse().ok().map(Duration::from_secs),
                VERSION => holder.version = decode(value),
                STATE => holder.released = value == "released",
                FENCE => record.fence = value.parse().ok(),
                _ => record.others.push((name, value.to_owned())),
            }
        }
        record.others.sort();
        record.holder = known.then_some(holder);
        record
    }

    /// The metadata to write, without the header's prefix.
    pub(crate) fn metadata(&self) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let mut out: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in &self.others {
            out.push((name.into(), value.into()));
        }
        if let Some(holder) = &self.holder {
            let mut add = |name: &'static str, value: Option<String>| {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    out.push((name.into(), value.into()));
                }
            };
            add(OWNER, holder.owner.as_deref().map(encode));
            add(PID, holder.pid.map(|pid| pid.to_string()));
            add(
                SINCE,
                holder
                    .since
                    .map(|since| dates::utc(OffsetDateTime::from(since))),
            );
            add(REASON, holder.reason.as_deref().map(encode));
            add(LEASE, holder.lease.map(|lease| lease.as_secs().to_string()));
            add(VERSION, holder.version.as_deref().map(encode));
            let state = if holder.released { "released" } else { "held" };
            add(STATE, Some(state.to_owned()));
        }
        if let Some(fence) = self.fence {
            out.push((FENCE.into(), fence.to_string().into()));
        }
        out
    }

    /// The same record under a new holder.
    pub(crate) fn held_by(&self, holder: Holder) -> Self {
        Self {
            holder: Some(holder),
            ..self.clone()
        }
    }

    /// The same record once its holder released.
    pub(crate) fn released(mut self) -> Self {
        if let Some(holder) = &mut self.holder {
            holder.released = true;
        }
        self
    }

    /// What this record says of the one who wrote it, to the next.
    pub(crate) fn as_previous(&self) -> Previous {
        match &self.holder {
            None => Previous::Unknown,
            Some(holder) if holder.released => Previous::Released(holder.clone()),
            Some(holder) => Previous::Abandoned(holder.clone()),
        }
    }
}

/// Any text as a header value, cut at a whole character where it would be too long.
fn encode(text: &str) -> String {
    let mut out = String::new();
    let mut one = [0; 4];
    for c in text.trim().chars() {
        // Control characters are no part of a name, and no screen should get them.
        let c = if c.is_control() { ' ' } else { c };
        let encoded = utf8_percent_encode(c.encode_utf8(&mut one), VALUE);
        let before = out.len();
        out.extend(encoded);
        if out.len() > MAX_VALUE {
            out.truncate(before);
            break;
        }
    }
    out
}

/// Whatever a value holds, as text that can be shown.
fn decode(value: &str) -> Option<String> {
    let text = percent_decode_str(value).decode_utf8_lossy();
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_VALUE)
        .collect();
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(owner: &str, reason: &str) -> Holder {
        Holder {
            owner: Some(owner.to_owned()),
            pid: Some(4123),
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_780_131)),
            reason: Some(reason.to_owned()),
            lease: Some(Duration::from_secs(60)),
            version: Some("0.1.0".to_owned()),
            released: false,
        }
    }

    fn round_trip(record: &Record) -> Record {
        let metadata = record.metadata();
        assert!(
            metadata
                .iter()
                .all(|(_, value)| value.bytes().all(|b| b.is_ascii_graphic()))
        );
        Record::read(metadata.iter().map(|(name, value)| (&**name, &**value)))
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        for (owner, reason) in [
            ("ci@build-07", "release 812"),
            ("Jürgen@büro", "schöne Grüße, 100 %"),
            ("鍵@ホスト", "🔒 a  b;c=d&e"),
            ("%41", "a%20b"),
        ] {
            let record = Record {
                holder: Some(holder(owner, reason)),
                fence: Some(1_767_780_131_000),
                others: vec![("team".to_owned(), "platform".to_owned())],
            };
            assert_eq!(round_trip(&record), record);
            let released = record.released();
            assert_eq!(round_trip(&released), released);
        }
    }

    #[test]
    fn since_is_written_in_rfc_3339() {
        let record = Record {
            holder: Some(holder("a", "b")),
            ..Record::default()
        };
        let metadata = record.metadata();
        let since = metadata.iter().find(|(name, _)| name == SINCE).unwrap();
        assert_eq!(since.1, "2026-01-07T10:02:11Z");
    }

    #[test]
    fn long_and_hostile_values_are_capped_and_cleaned() {
        let record = Record {
            holder: Some(holder(&"鍵".repeat(5000), "\u{1b}[2J\r\nx-ms-evil: 1")),
            ..Record::default()
        };
        let size: usize = record
            .metadata()
            .iter()
            .map(|(n, v)| n.len() + v.len())
            .sum();
        assert!(size < 4096, "{size}");
        let read = round_trip(&record).holder.unwrap();
        assert_eq!(read.owner().unwrap(), "鍵".repeat(MAX_VALUE / 9));
        assert_eq!(read.reason().unwrap(), " [2J  x-ms-evil: 1");
    }

    #[test]
    fn metadata_of_others_and_of_newer_versions_does_no_harm() {
        let read = Record::read(
            [
                ("AzMutexState", "held"),
                ("azmutexpid", "not a number"),
                ("azmutexsince", "yesterday"),
                ("azmutexowner", "%ff%1b[2Jx"),
                ("azmutexlease", "-1"),
                ("azmutexfence", "99999999999999999999999"),
                ("azmutexcolour", "blue"),
                ("number", "1"),
            ]
            .into_iter(),
        );
        let holder = read.holder.as_ref().unwrap();
        assert_eq!(holder.owner(), Some("\u{fffd}[2Jx"));
        assert_eq!(
            (holder.pid(), holder.since(), holder.lease_duration()),
            (None, None, None)
        );
        assert_eq!(read.fence, None);
        // What this version does not know stays where it is.
        assert!(
            read.metadata()
                .iter()
                .any(|(n, v)| n == "azmutexcolour" && v == "blue")
        );
        assert!(
            read.metadata()
                .iter()
                .any(|(n, v)| n == "number" && v == "1")
        );
    }

    #[test]
    fn blob_without_a_record_has_no_holder() {
        let read = Record::read([("azmutexowner", "x"), ("number", "1")].into_iter());
        assert_eq!(read.as_previous(), Previous::Unknown);
        assert_eq!(read.holder, None);
    }

    #[test]
    fn holder_that_did_not_release_is_abandoned() {
        let held = Record::default().held_by(holder("a", "b"));
        assert!(held.as_previous().is_abandoned());
        let released = held.released();
        assert!(!released.as_previous().is_abandoned());
        assert_eq!(released.as_previous().holder().unwrap().owner(), Some("a"));
    }

    #[test]
    fn holder_is_shown_in_one_line() {
        let mut holder = holder("ci@build-07", "release 812");
        assert_eq!(
            holder.to_string(),
            "ci@build-07 (pid 4123, reason: release 812)"
        );
        holder.reason = None;
        assert_eq!(holder.to_string(), "ci@build-07 (pid 4123)");
        holder.owner = None;
        assert_eq!(holder.to_string(), "an unnamed holder (pid 4123)");
    }
}
