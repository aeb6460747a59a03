//! PURE: the service's rules for names, checked before anything is sent.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>

use std::time::Duration;

use crate::error::Error;
use crate::text::quoted;

/// An account name: 3 to 24 of `a-z0-9`.
pub(crate) fn check_account(name: &str) -> Result<(), Error> {
    let fits = (3..=24).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits {
        return Ok(());
    }
    let rule = if name.contains(['.', '/']) {
        "it is a host or URL; use the account alone, such as `acct` of acct.blob.core.windows.net"
    } else {
        "use 3 to 24 lower-case letters and digits"
    };
    Err(Error::config(format!(
        "invalid account name {}: {rule}",
        quoted(name)
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
        quoted(name)
    )))
}

/// A key, which is the name of the lock's blob.
pub(crate) fn check_key(key: &str) -> Result<(), Error> {
    let wrong = |rule: &str| {
        Err(Error::config(format!(
            "invalid key {}: {rule}",
            quoted(key)
        )))
    };
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
        return wrong("a blob name cannot contain control characters");
    }
    if key.starts_with('/') || key.ends_with('/') {
        return wrong("a blob name cannot start or end with `/`");
    }
    if key.ends_with('.') {
        return wrong("a blob name cannot end with `.`");
    }
    if key.split('/').count() > 254 {
        return wrong("a blob name has at most 254 path segments");
    }
    if key
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return wrong("a blob name cannot have `.` or `..` as a path segment: URLs drop them");
    }
    Ok(())
}

/// A break period as its header's value.
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
        for name in ["acct.blob.core.windows.net", "https://acct"] {
            rejects(check_account(name), "use the account alone");
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
            ("/a", "start or end"),
            ("a/", "start or end"),
            ("a.", "cannot end with `.`"),
            ("a/../b", "as a path segment"),
            ("./b", "as a path segment"),
            ("..", "cannot end with `.`"),
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
}
