//! PURE: what the service takes as a name, checked before anything is sent.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::error::Error;

/// What stays as it is in a blob's URL: the unreserved characters and the path's own slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// What stays as it is in a query value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(crate) fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

pub(crate) fn encode_query(value: &str) -> String {
    utf8_percent_encode(value, QUERY).to_string()
}

/// Shows a rejected value, shortened so that an error stays readable.
fn shown(value: &str) -> String {
    let mut out: String = value
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(64).is_some() {
        out.push('…');
    }
    format!("`{out}`")
}

/// An account name: 3 to 24 of `a-z0-9`.
pub(crate) fn check_account(name: &str) -> Result<(), Error> {
    let fits = (3..=24).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits {
        return Ok(());
    }
    Err(Error::config(format!(
        "invalid account name {}: use 3 to 24 lower-case letters and digits",
        shown(name)
    )))
}

/// A container name: 3 to 63 of `a-z0-9-`, or one of the service's own.
pub(crate) fn check_container(name: &str) -> Result<(), Error> {
    let letter_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = matches!(name, "$root" | "$web" | "$logs")
        || ((3..=63).contains(&name.len())
            && name.bytes().all(|b| letter_or_digit(b) || b == b'-')
            && name.bytes().next().is_some_and(letter_or_digit)
            && name.bytes().next_back().is_some_and(letter_or_digit)
            && !name.contains("--"));
    if fits {
        return Ok(());
    }
    Err(Error::config(format!(
        "invalid container name {}: use 3 to 63 lower-case letters, digits and single hyphens, \
         with a letter or digit at both ends",
        shown(name)
    )))
}

/// A key, which is the name of the lock's blob.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let wrong = |rule: &str| Err(Error::config(format!("invalid key {}: {rule}", shown(key))));
    if key.is_empty() {
        return wrong("a key is a blob name of 1 to 1024 characters");
    }
    if key.encode_utf16().count() > 1024 {
        return wrong("a blob name has at most 1024 characters");
    }
    if key.contains('\\') {
        return wrong("the service turns `\\` into `/`, so use `/`");
    }
    if key.chars().any(char::is_control) {
        return wrong("a blob name has no control characters");
    }
    if key.starts_with('/') || key.ends_with('/') {
        return wrong("a blob name neither starts nor ends with `/`");
    }
    if key.ends_with('.') {
        return wrong("a blob name does not end with `.`");
    }
    if key.split('/').count() > 254 {
        return wrong("a blob name has at most 254 path segments");
    }
    if key
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return wrong("`.` and `..` are not path segments of a blob name: they get lost in URLs");
    }
    Ok(())
}

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
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
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
                shown(text)
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

/// A break period as the service takes it.
pub(crate) fn break_period(period: Duration) -> Result<String, Error> {
    if period.subsec_nanos() != 0 || period.as_secs() > 60 {
        return Err(Error::config(format!(
            "invalid break period {period:?}: the service takes 0 to 60 whole seconds"
        )));
    }
    Ok(period.as_secs().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rejects(result: Result<(), Error>, rule: &str) {
        let error = result.expect_err("the name breaks a rule");
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
    }

    #[test]
    fn account_names_follow_the_rule() {
        for name in ["abc", "devstoreaccount1", "a23456789012345678901234"] {
            check_account(name).expect(name);
        }
        for name in [
            "",
            "ab",
            "a234567890123456789012345",
            "Upper",
            "da-sh",
            "ü23",
        ] {
            rejects(check_account(name), "3 to 24 lower-case letters and digits");
        }
    }

    #[test]
    fn container_names_follow_the_rule() {
        let longest = "a".repeat(63);
        for name in [
            "abc",
            "a-b-c",
            "0ab",
            "$root",
            "$web",
            "$logs",
            longest.as_str(),
        ] {
            check_container(name).expect(name);
        }
        let too_long = "a".repeat(64);
        for name in [
            "", "ab", "-ab", "ab-", "a--b", "Abc", "a_b", "$other", "a/b", &too_long,
        ] {
            rejects(check_container(name), "invalid container name");
        }
    }

    #[test]
    fn keys_follow_the_rule() {
        let longest = "k".repeat(1024);
        let deepest = ["s"; 254].join("/");
        for key in [
            "a",
            "migration",
            "a b/ü%#?.x",
            "a//b",
            ".hidden",
            "..a",
            &longest,
            &deepest,
        ] {
            check_key(key).expect(key);
        }
        let too_long = "k".repeat(1025);
        let too_deep = ["s"; 255].join("/");
        let rows: [(&str, &str); 11] = [
            ("", "1 to 1024"),
            (&too_long, "at most 1024"),
            (&too_deep, "at most 254 path segments"),
            ("a\\b", "use `/`"),
            ("a\nb", "control characters"),
            ("/a", "starts nor ends"),
            ("a/", "starts nor ends"),
            ("a.", "does not end with `.`"),
            ("a/../b", "not path segments"),
            ("./b", "not path segments"),
            ("..", "does not end with `.`"),
        ];
        for (key, rule) in rows {
            rejects(check_key(key), rule);
        }
    }

    #[test]
    fn rejected_values_are_shown_escaped_and_short() {
        let error = check_key(&format!("\u{1b}[2J{}", "x".repeat(2000)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("\\u{1b}[2J") && error.len() < 200, "{error}");
    }

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

    #[test]
    fn break_periods_follow_the_rule() {
        assert_eq!(break_period(Duration::ZERO).unwrap(), "0");
        assert_eq!(break_period(Duration::from_secs(60)).unwrap(), "60");
        for period in [Duration::from_secs(61), Duration::from_millis(500)] {
            assert!(
                break_period(period)
                    .unwrap_err()
                    .to_string()
                    .contains("0 to 60")
            );
        }
    }

    #[test]
    fn reserved_characters_are_encoded() {
        assert_eq!(encode_path("a b/ü%#?.x"), "a%20b/%C3%BC%25%23%3F.x");
        assert_eq!(encode_path("plus+and&amp=eq"), "plus%2Band%26amp%3Deq");
        assert_eq!(encode_query("a/b&c=d"), "a%2Fb%26c%3Dd");
    }
}
