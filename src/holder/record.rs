//! PURE: what a holder writes into the lock blob's metadata: who it is, and its fencing token.
//!
//! None of this is needed to acquire, break or release a lock. Metadata that others wrote is kept,
//! if it fits.

use std::collections::BTreeMap;
use std::fmt;
use std::process;
use std::time::{Duration, SystemTime};

use super::identity::default_owner;
use super::text::{decode, encode};
use crate::lease::ids::LeaseDuration;
use crate::text::escaped;
use crate::time::dates;

/// The most metadata that the service accepts for a blob: names and values together, in bytes.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources>
const MAX_METADATA: usize = 8 * 1024;

/// The most pairs. A reply with more than 128 headers could not be read; this leaves room for 32
/// others. In a request, the metadata then takes less than 10 KiB of the 16 KiB of headers that
/// servers commonly accept.
const MAX_PAIRS: usize = 96;

const OWNER: &str = "azmutexowner";
const PID: &str = "azmutexpid";
const SINCE: &str = "azmutexsince";
const REASON: &str = "azmutexreason";
const LEASE: &str = "azmutexlease";
const VERSION: &str = "azmutexversion";
const STATE: &str = "azmutexstate";
const FENCE: &str = "azmutexfence";
const DONE: &str = "azmutexdone";
const DONE_BY: &str = "azmutexdoneby";

/// What the blob with a semaphore's key says of the number of its permits.
pub(crate) const PERMITS: &str = "azmutexpermits";

/// Who holds a lock, or held it last, as the holder wrote it into the lock blob's metadata.
///
/// This is information for people, and nothing depends on it: anyone who may write to the blob can
/// write anything there. A holder that keeps the lock for less than
/// [`holder_delay`](crate::LockerBuilder::holder_delay) writes nothing. Texts are returned without
/// control characters and other invisible ones.
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
    /// A holder about which nothing is known.
    pub(crate) fn unknown() -> Self {
        Self {
            owner: None,
            pid: None,
            since: None,
            reason: None,
            lease: None,
            version: None,
            released: false,
        }
    }

    /// This process as a holder, for [`AzureMutex::write_holder`](crate::AzureMutex::write_holder):
    /// `user@host`, its process ID, the lease duration and, when it is written, the time.
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

    /// Sets an owner other than `user@host`.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// Sets the process that the lock is held for, instead of this one.
    #[must_use]
    pub fn with_pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// Says why the lock is held. Everyone who can read the container can read it.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Who it is: `user@host`, unless [`owner`](crate::LockerBuilder::owner) was set.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// Its process ID on the machine that the owner names.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// When it took the lock, by its own clock, to the second.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Why it holds the lock, as set by [`reason`](crate::LockerBuilder::reason).
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The duration of its lease: how soon the lock is free again if the holder is gone. `None` if the
    /// lease is infinite.
    #[must_use]
    pub fn lease_duration(&self) -> Option<Duration> {
        self.lease
    }

    /// The version of this crate that it uses. `None` for other programs.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether it recorded that it released the lock.
    ///
    /// Only holders with [`fencing`](crate::LockerBuilder::fencing) on record that, and those that
    /// call [`write_released`](crate::AzureMutex::write_released). For any holder,
    /// [`LeaseStatus::state`](crate::LeaseStatus::state) tells whether the last lease was released,
    /// ran out or was broken.
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

/// How the previous holder of a lock left it. See
/// [`LeaseGuard::previous`](crate::LeaseGuard::previous).
///
/// A holder without [`fencing`](crate::LockerBuilder::fencing) does not record its release, so it
/// counts as abandoned. Turn fencing on for all lockers of a lock, or for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Previous {
    /// No earlier holder is recorded, or fencing is off.
    #[default]
    Unknown,
    /// It released the lock.
    Released(Holder),
    /// It did not release the lock: it was killed or cut off, or its lease was broken. Its work may
    /// be half done.
    Abandoned(Holder),
}

impl Previous {
    /// Whether the previous holder did not release the lock: the distributed counterpart of a poisoned
    /// mutex.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        matches!(self, Self::Abandoned(_))
    }

    /// The previous holder, if it is recorded.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Unknown => None,
            Self::Released(holder) | Self::Abandoned(holder) => Some(holder),
        }
    }
}

/// That work which is to be done once was done. See [`Locker::once`](crate::Locker::once).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub(crate) at: SystemTime,
    pub(crate) by: Option<String>,
}

impl Done {
    /// When it was recorded, by the service's clock, to the second.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Who did it: `user@host`, unless [`owner`](crate::LockerBuilder::owner) was set.
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }
}

/// All metadata of a lock blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) holder: Option<Holder>,
    /// The last fencing token that was handed out. Signed, as integers in databases are.
    pub(crate) fence: Option<i64>,
    pub(crate) done: Option<Done>,
    /// What others wrote, by name in lower case.
    others: BTreeMap<String, String>,
}

impl Record {
    /// Reads metadata. Names may come in any case of letters, which the service does not distinguish.
    pub(crate) fn read<'a>(metadata: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut record = Self::default();
        let mut holder = Holder::unknown();
        let mut known = false;
        let mut done_by = None;
        for (name, value) in metadata {
            let name = name.to_ascii_lowercase();
            known |= name == STATE;
            match name.as_str() {
                OWNER => holder.owner = decode(value),
                PID => holder.pid = value.parse().ok(),
                SINCE => holder.since = read_since(value),
                REASON => holder.reason = decode(value),
                LEASE => holder.lease = value.parse().ok().map(Duration::from_secs),
                VERSION => holder.version = decode(value),
                STATE => holder.released = value == "released",
                DONE => record.done = read_since(value).map(|at| Done { at, by: None }),
                DONE_BY => done_by = decode(value),
                FENCE => record.fence = value.parse().ok().filter(|token| *token >= 0),
                _ => {
                    record.others.insert(name, value.to_owned());
                }
            }
        }
        if let Some(done) = &mut record.done {
            done.by = done_by;
        }
        record.holder = known.then_some(holder);
        record
    }

    /// What others wrote under this name. `name` is in lower case.
    pub(crate) fn other(&self, name: &str) -> Option<&str> {
        self.others.get(name).map(String::as_str)
    }

    /// The same record with something under another name.
    pub(crate) fn with_other(mut self, name: &str, value: String) -> Self {
        self.others.insert(name.to_owned(), value);
        self
    }

    /// The metadata to write, without the header's prefix, as [`fitted`](Self::fitted) cuts it
    /// down.
    pub(crate) fn metadata(&self) -> Vec<(String, String)> {
        let (record, _) = self.clone().fitted();
        let ours = record.essentials().into_iter().chain(record.details());
        let ours = ours.map(|(name, value)| (name.to_owned(), value));
        let mut out: Vec<_> = ours.filter(|(_, value)| !value.is_empty()).collect();
        out.extend(record.others);
        out
    }

    /// The record, cut down to what the service accepts, and what was left out.
    ///
    /// State, lease and fencing token always fit. What others wrote comes next, the shortest first,
    /// and then the rest of this holder's description. What others wrote is also left out if it
    /// cannot be sent: if the name is not an identifier, or the value is not ASCII.
    pub(crate) fn fitted(mut self) -> (Self, Dropped) {
        let mut room = Room::default();
        let mut dropped = Dropped::default();
        for (name, value) in self.essentials() {
            room.take(name, &value);
        }
        let mut others: Vec<_> = self.others.into_iter().collect();
        others.sort_by_key(|(name, value)| name.len() + value.len());
        let (kept, left_out): (BTreeMap<_, _>, BTreeMap<_, _>) = others
            .into_iter()
            .partition(|(name, value)| can_be_sent(name, value) && room.take(name, value));
        self.others = kept;
        dropped.others = left_out.into_keys().collect();
        for (name, value) in self.details() {
            if !room.take(name, &value) {
                dropped.ours.push(name);
            }
        }
        for name in &dropped.ours {
            match (*name, &mut self.holder, &mut self.done) {
                (DONE_BY, _, Some(done)) => done.by = None,
                (OWNER, Some(holder), _) => holder.owner = None,
                (SINCE, Some(holder), _) => holder.since = None,
                (PID, Some(holder), _) => holder.pid = None,
                (REASON, Some(holder), _) => holder.reason = None,
                (VERSION, Some(holder), _) => holder.version = None,
                _ => {}
            }
        }
        (self, dropped)
    }

    /// What a record must have: whether the lock is held, with which lease, and the token.
    fn essentials(&self) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        if let Some(holder) = &self.holder {
            let state = if holder.released { "released" } else { "held" };
            out.push((STATE, state.to_owned()));
            out.extend(
                holder
                    .lease
                    .map(|lease| (LEASE, lease.as_secs().to_string())),
            );
        }
        out.extend(self.fence.map(|token| (FENCE, token.to_string())));
        let done = self.done.as_ref();
        let done = done.and_then(|done| dates::from_system(done.at));
        out.extend(done.map(|at| (DONE, dates::utc(at))));
        out
    }

    /// The rest of what is described, the most useful first.
    fn details(&self) -> Vec<(&'static str, String)> {
        let holder = self.holder.as_ref();
        let text = |text: fn(&Holder) -> Option<&str>| holder.and_then(text).map(encode);
        let since = holder.and_then(|holder| holder.since);
        let since = since.and_then(dates::from_system);
        let done = self.done.as_ref();
        let details = [
            (OWNER, text(Holder::owner)),
            (SINCE, since.map(dates::utc)),
            (PID, holder.and_then(Holder::pid).map(|pid| pid.to_string())),
            (DONE_BY, done.and_then(Done::by).map(encode)),
            (REASON, text(Holder::reason)),
            (VERSION, text(Holder::version)),
        ];
        let details = details.into_iter();
        let details = details.filter_map(|(name, value)| Some((name, value?)));
        details.filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The same record under a new holder: the fencing token and what others wrote stay.
    pub(crate) fn held_by(&self, holder: Holder) -> Self {
        Self {
            holder: Some(holder),
            ..self.clone()
        }
    }

    /// The same record with a new fencing token.
    pub(crate) fn with_token(mut self, token: i64) -> Self {
        self.fence = Some(token);
        self
    }

    /// The same record with when the work was done, and by whom.
    pub(crate) fn with_done(mut self, done: Option<Done>) -> Self {
        self.done = done;
        self
    }

    /// The same record once its holder released the lock.
    pub(crate) fn released(mut self) -> Self {
        if let Some(holder) = &mut self.holder {
            holder.released = true;
        }
        self
    }

    /// The holder in the record, as the next holder sees it.
    pub(crate) fn as_previous(&self) -> Previous {
        match &self.holder {
            None => Previous::Unknown,
            Some(holder) if holder.released => Previous::Released(holder.clone()),
            Some(holder) => Previous::Abandoned(holder.clone()),
        }
    }
}

/// What the metadata written so far takes of the blob's limits.
#[derive(Default)]
struct Room {
    pairs: usize,
    bytes: usize,
}

impl Room {
    /// Adds the pair if it still fits. Returns whether it does.
    fn take(&mut self, name: &str, value: &str) -> bool {
        let (pairs, bytes) = (self.pairs + 1, self.bytes + name.len() + value.len());
        let fits = pairs <= MAX_PAIRS && bytes <= MAX_METADATA;
        if fits {
            (self.pairs, self.bytes) = (pairs, bytes);
        }
        fits
    }
}

/// Metadata that was not written because it did not fit or could not be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// This holder's.
    ours: Vec<&'static str>,
    /// Other programs'.
    others: Vec<String>,
}

impl Dropped {
    /// Whether everything was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.others.is_empty()
    }
}

/// The names of what was left out, for a warning.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = self.ours.iter().copied();
        let names = ours.chain(self.others.iter().map(String::as_str));
        for (place, name) in names.take(8).enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}`{}`", escaped(name))?;
        }
        match (self.ours.len() + self.others.len()).saturating_sub(8) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Whether the service accepts a pair that somebody else wrote, and signs it unchanged.
fn can_be_sent(name: &str, value: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// Reads when a lock was taken. Nobody held one before 1970.
pub(super) fn read_since(text: &str) -> Option<SystemTime> {
    dates::parse_utc(text)
        .filter(|since| since.unix_timestamp() >= 0)
        .and_then(dates::to_system)
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

    fn read(metadata: &[(impl AsRef<str>, impl AsRef<str>)]) -> Record {
        let pairs = metadata.iter();
        Record::read(pairs.map(|(name, value)| (name.as_ref(), value.as_ref())))
    }

    fn round_trip(record: &Record) -> Record {
        let metadata = record.metadata();
        assert!(
            metadata
                .iter()
                .all(|(_, value)| value.bytes().all(|b| b.is_ascii_graphic()))
        );
        read(&metadata)
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
                done: Some(Done {
                    at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_780_131),
                    by: Some(owner.to_owned()),
                }),
                others: [("team".to_owned(), "platform".to_owned())].into(),
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
        assert!(size(&record.metadata()) < 4096);
        let read = round_trip(&record).holder.unwrap();
        assert_eq!(read.owner().unwrap(), "鍵".repeat(1024 / 9));
        assert_eq!(read.reason().unwrap(), " [2J  x-ms-evil: 1");
    }

    /// As the service counts.
    fn size(metadata: &[(String, String)]) -> usize {
        metadata.iter().map(|(n, v)| n.len() + v.len()).sum()
    }

    /// What others wrote, in pairs whose names and values have these lengths together.
    fn others(sizes: impl IntoIterator<Item = usize>) -> Record {
        let pairs = sizes.into_iter().enumerate();
        let pairs: Vec<_> = pairs
            .map(|(n, size)| (format!("x{n:03}"), "v".repeat(size - 4)))
            .collect();
        read(&pairs)
    }

    fn names(record: &Record) -> Vec<String> {
        record
            .metadata()
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn record_that_fits_is_written_whole() {
        let record = others([1000; 7]).held_by(holder("a", "b")).with_token(7);
        let (fitted, dropped) = record.clone().fitted();
        assert_eq!((fitted, dropped.is_empty()), (record, true));
    }

    #[test]
    fn record_that_is_too_large_loses_ours_by_value_and_then_theirs() {
        let (theirs, essential) = (["x000"], [STATE, LEASE, FENCE]);
        let rows: [(usize, &[&str], &[&str]); 7] = [
            (135, &[OWNER, SINCE, PID, REASON, VERSION], &theirs),
            (134, &[OWNER, SINCE, PID, REASON], &theirs),
            (115, &[OWNER, SINCE, PID], &theirs),
            (100, &[OWNER, SINCE], &theirs),
            (60, &[OWNER], &theirs),
            (43, &[], &theirs),
            // Theirs does not fit together with what a record needs, and so all of ours fits again.
            (42, &[OWNER, SINCE, PID, REASON, VERSION], &[]),
        ];
        for (left, details, theirs) in rows {
            let record = others([8192 - left])
                .held_by(holder("a", "b"))
                .with_token(7);
            let mut wanted: Vec<_> = [&essential, details, theirs].concat();
            let mut found = names(&record);
            wanted.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, wanted, "{left}");
            let (fitted, dropped) = record.fitted();
            assert!(size(&fitted.metadata()) <= 8192);
            assert_eq!(dropped.ours.len(), 5 - details.len(), "{dropped}");
            assert_eq!(dropped.others.len(), 1 - theirs.len(), "{dropped}");
            // What is remembered as written is what was written.
            assert_eq!(round_trip(&fitted), fitted);
            assert!(fitted.fitted().1.is_empty());
        }
    }

    #[test]
    fn record_that_is_too_large_loses_the_longest_of_theirs() {
        let record = others([5000, 100, 4000, 3000]).with_token(7);
        let (fitted, dropped) = record.fitted();
        assert_eq!(names(&fitted), [FENCE, "x001", "x002", "x003"]);
        assert_eq!(dropped.to_string(), "`x000`");
    }

    #[test]
    fn record_with_many_pairs_leaves_room_for_other_headers() {
        let record = others([6; 1000]).held_by(holder("a", "b")).with_token(7);
        let (fitted, dropped) = record.fitted();
        let metadata = fitted.metadata();
        assert!(metadata.len() <= 96, "{}", metadata.len());
        assert!(metadata.iter().any(|(name, _)| name == FENCE));
        assert!(dropped.to_string().ends_with(" more"), "{dropped}");
        let sizes = others([100; 80]).metadata().len();
        assert_eq!(sizes, 80);
    }

    #[test]
    fn metadata_that_cannot_be_sent_back_is_left_out() {
        let record = read(&[
            ("team", "a b"),
            ("Büro", "x"),
            ("a-b", "x"),
            ("1a", "x"),
            ("", "x"),
            ("a\r\nx", "x"),
            ("umlaut", "ü"),
            ("line", "a\r\nb"),
            ("tab", "a\tb"),
            ("empty", ""),
        ]);
        let (fitted, dropped) = record.with_token(7).fitted();
        assert_eq!(names(&fitted), [FENCE, "empty", "team"]);
        assert_eq!(dropped.others.len(), 8);
        assert!(!dropped.to_string().contains('\n'), "{dropped}");
    }

    #[test]
    fn next_holder_keeps_token_and_metadata_of_others() {
        let before = read(&[
            ("AzMutexState", "held"),
            ("AZMUTEXOWNER", "before"),
            ("AzMutexReason", "r"),
            ("AzMutexFence", "41"),
            ("Team", "platform"),
        ]);
        let mut next = holder("next", "");
        next.reason = None;
        let after = round_trip(&before.held_by(next));
        assert_eq!(
            (after.fence, after.other("team")),
            (Some(41), Some("platform"))
        );
        let holder = after.holder.unwrap();
        assert_eq!((holder.owner(), holder.reason()), (Some("next"), None));
    }

    #[test]
    fn token_that_is_negative_or_unreadable_is_none() {
        for (value, wanted) in [
            ("0", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("18446744073709551615", None),
            ("-1", None),
            ("0x17", None),
            ("", None),
        ] {
            assert_eq!(read(&[(FENCE, value)]).fence, wanted, "{value}");
        }
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
