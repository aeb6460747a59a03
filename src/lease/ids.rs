//! PURE: the ID of a lease, and how long it lasts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, ErrorKind};
use crate::text::quoted;

/// The ID of a lease: a GUID, chosen by the client that acquires.
///
/// Whoever knows it and may write to the blob can renew, change or release the lease; it is not a
/// credential by itself. It is *not* a fencing token: lease IDs have no order.
///
/// # Examples
///
/// ```
/// use azmutex::LeaseId;
///
/// let id: LeaseId = "6B1F3A60-9F0D-4C8E-8A55-3C1D2E4F5A6B".parse()?;
/// assert_eq!(id.to_string(), "6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b");
/// # Ok::<_, azmutex::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(Uuid);

impl LeaseId {
    /// A new random ID, as every acquisition uses one of its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] if the system has no random numbers to give.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            let text = "no random lease ID: the system gives no random numbers";
            Error::new(ErrorKind::System, text).with_source(error)
        })?;
        Ok(Self(uuid::Builder::from_random_bytes(bytes).into_uuid()))
    }

    /// Another ID, which no lease has.
    pub(crate) fn unused(self) -> Self {
        Self(Uuid::from_u128(self.0.as_u128() ^ 1))
    }

    /// Half of it, as a number that differs from ID to ID.
    pub(crate) fn bits(self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl Error {
    /// The ID of a lease that the service may have granted although the operation failed: no reply
    /// said so, and its release was not confirmed.
    ///
    /// A lease with an end runs out by itself. An infinite one is released with
    /// [`AzureMutex::release`](crate::AzureMutex::release) and this ID.
    #[must_use]
    pub fn lease_id(&self) -> Option<LeaseId> {
        self.lease().map(Uuid::from_u128).map(LeaseId)
    }

    pub(crate) fn with_lease_id(self, id: LeaseId) -> Self {
        self.with_lease(id.0.as_u128())
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for LeaseId {
    type Err = Error;

    /// Reads a GUID in any of its usual forms.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `text` is not a GUID.
    fn from_str(text: &str) -> Result<Self, Error> {
        // Azure's own SDKs also print GUIDs in braces and in parentheses.
        let bare = text
            .strip_prefix('(')
            .and_then(|t| t.strip_suffix(')'))
            .unwrap_or(text);
        Uuid::parse_str(bare).map(Self).map_err(|_| {
            Error::config(format!(
                "invalid lease ID {}: use a GUID such as 6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b",
                quoted(text)
            ))
        })
    }
}

/// How long the service keeps a lease that is not renewed: 15 to 60 seconds, or for ever.
///
/// Defaults to 60 seconds.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseDuration(Option<u8>);

impl LeaseDuration {
    /// A lease that ends only when it is released or broken.
    ///
    /// For [`AzureMutex::acquire`](crate::AzureMutex::acquire) alone; a
    /// [`Locker`](crate::Locker) refuses it, because after a crash it would stay for ever.
    pub const INFINITE: Self = Self(None);
    /// The shortest lease: 15 seconds.
    pub const MIN: Self = Self(Some(15));
    /// The longest lease that ends by itself: 60 seconds.
    pub const MAX: Self = Self(Some(60));

    /// A lease of `secs` seconds, 15 to 60.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) outside of that range.
    pub fn from_secs(secs: u64) -> Result<Self, Error> {
        match u8::try_from(secs) {
            Ok(secs @ 15..=60) => Ok(Self(Some(secs))),
            _ => Err(Error::config(format!(
                "invalid lease duration of {secs} s: the service takes 15 to 60 seconds, or infinite"
            ))),
        }
    }

    /// The duration, or `None` if the lease is infinite.
    #[must_use]
    pub fn as_duration(self) -> Option<Duration> {
        self.0.map(|secs| Duration::from_secs(secs.into()))
    }

    /// As the service takes it.
    pub(crate) fn to_header(self) -> String {
        self.0
            .map_or_else(|| "-1".to_owned(), |secs| secs.to_string())
    }
}

impl Default for LeaseDuration {
    /// 60 seconds.
    fn default() -> Self {
        Self::MAX
    }
}

impl TryFrom<Duration> for LeaseDuration {
    type Error = Error;

    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) unless it is 15 to 60 whole seconds.
    fn try_from(duration: Duration) -> Result<Self, Error> {
        if duration.subsec_nanos() != 0 {
            return Err(Error::config(format!(
                "invalid lease duration {duration:?}: the service counts whole seconds"
            )));
        }
        Self::from_secs(duration.as_secs())
    }
}

impl fmt::Display for LeaseDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(secs) => write!(f, "{secs} s"),
            None => f.write_str("infinite"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_ids_are_read_in_every_guid_form_and_shown_in_one() {
        let shown = "6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b";
        for form in [
            "6B1F3A60-9F0D-4C8E-8A55-3C1D2E4F5A6B",
            "6b1f3a609f0d4c8e8a553c1d2e4f5a6b",
            "{6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b}",
            "(6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b)",
        ] {
            assert_eq!(form.parse::<LeaseId>().unwrap().to_string(), shown);
        }
        for bad in ["", "abc", "6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6", "()"] {
            assert!(
                bad.parse::<LeaseId>()
                    .unwrap_err()
                    .to_string()
                    .contains("use a GUID")
            );
        }
    }

    #[test]
    fn lease_durations_follow_the_rule() {
        assert_eq!(LeaseDuration::from_secs(15).unwrap(), LeaseDuration::MIN);
        assert_eq!(
            LeaseDuration::try_from(Duration::from_secs(60)).unwrap(),
            LeaseDuration::MAX
        );
        for secs in [0, 1, 14, 61, 256 + 20, u64::MAX] {
            assert!(
                LeaseDuration::from_secs(secs)
                    .unwrap_err()
                    .to_string()
                    .contains("15 to 60")
            );
        }
        let fraction = LeaseDuration::try_from(Duration::from_millis(20_500)).unwrap_err();
        assert!(fraction.to_string().contains("whole seconds"));
        assert_eq!(LeaseDuration::INFINITE.to_header(), "-1");
        assert_eq!(LeaseDuration::MAX.to_header(), "60");
    }
}
