//! PURE: what endpoints answer to a request for a token.

use std::time::Duration;

use serde_json::{Map, Value};
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};
use zeroize::Zeroize;

use super::token::AccessToken;
use crate::error::{Error, ErrorKind};
use crate::time::dates;

/// The longest reply that is read.
const MAX_LENGTH: usize = 64 * 1024;

/// The JSON object in a reply. Its texts are overwritten when it is dropped.
#[derive(Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    /// `None` if `body` is no JSON object, or too long to be a token's.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_LENGTH {
            return None;
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Some(Self(members)),
            _ => None,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// A number, or a text that is one: some endpoints send all numbers as texts.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => {
                let whole = number
                    .as_f64()
                    .filter(|number| (0.0..1e15).contains(number));
                number.as_u64().or(whole.map(|number| number as u64))
            }
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.0.values_mut().for_each(|value| {
            if let Value::String(text) = value {
                text.zeroize();
            }
        });
    }
}

/// Reads the reply to a request that was sent at `sent`.
pub(crate) fn read_token(body: &[u8], sent: OffsetDateTime) -> Result<AccessToken, Error> {
    let Some(object) = Object::read(body) else {
        return Err(unreadable("it is not a token's JSON"));
    };
    let Some(token) = object.text("access_token") else {
        return Err(unreadable("it has no `access_token`"));
    };
    let expires = expires(&object, sent)?;
    let token = token_until(token, expires)?;
    let refresh = object
        .number("refresh_in")
        .and_then(|secs| later(sent, secs));
    Ok(match refresh.and_then(dates::to_system) {
        Some(at) => token.with_refresh_after(at),
        None => token,
    })
}

/// A token that came from an endpoint or a program.
pub(crate) fn token_until(token: &str, expires: OffsetDateTime) -> Result<AccessToken, Error> {
    let expires = dates::to_system(expires).ok_or_else(|| unreadable("its expiry is no time"))?;
    AccessToken::new(token, expires)
        .map_err(|_| unreadable("its token has characters that no token has"))
}

/// A reply that makes no sense, and would not make more if it were asked for again.
pub(crate) fn unreadable(what: &str) -> Error {
    let text = format!("cannot read the reply: {what}; does something else answer here?");
    Error::new(ErrorKind::Protocol, text).permanent()
}

fn expires(object: &Object, sent: OffsetDateTime) -> Result<OffsetDateTime, Error> {
    let on = match object.get("expires_on") {
        Some(Value::String(text)) if text.trim().parse::<u64>().is_err() => read_date(text),
        _ => object.number("expires_on").and_then(from_epoch),
    };
    let after = object
        .number("expires_in")
        .and_then(|secs| later(sent, secs));
    match (on, after) {
        // By this machine's clock a token with a life ahead of it has expired: the clock is ahead.
        (Some(on), Some(after)) if on <= sent => Ok(after),
        (Some(on), _) if on <= sent => Err(unreadable(&format!(
            "its token expired at {}, and it is {} by this machine's clock",
            dates::utc(on),
            dates::utc(sent),
        ))),
        (Some(on), _) => Ok(on),
        (None, Some(after)) => Ok(after),
        (None, None) => Err(unreadable("it does not say when the token expires")),
    }
}

/// A time as seconds since 1970.
pub(crate) fn from_epoch(secs: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(secs).ok()?).ok()
}

fn later(at: OffsetDateTime, secs: u64) -> Option<OffsetDateTime> {
    at.checked_add(Duration::from_secs(secs).try_into().ok()?)
}

/// Reads `MM/dd/yyyy HH:mm:ss`, `yyyy-MM-dd HH:mm:ss` and RFC 3339, with an offset from UTC or
/// without, and with AM or PM or without.
pub(crate) fn read_date(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.split(['/', '-']).map(|part| part.parse::<u16>().ok());
    let parts = [parts.next()??, parts.next()??, parts.next()??];
    let [year, month, day] = match parts {
        [month, day, year] if date.contains('/') => [year, month, day],
        parts => parts,
    };
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    let clock_end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.'));
    let (clock, rest) = rest.split_at(clock_end.unwrap_or(rest.len()));
    let mut parts = clock.splitn(3, ':');
    let hour: u8 = parts.next()?.parse().ok()?;
    let minute = parts.next()?.parse().ok()?;
    let second = parts.next()?.split('.').next()?.parse().ok()?;
    let rest = rest.trim();
    let (hour, rest) = match (rest.strip_prefix("AM"), rest.strip_prefix("PM")) {
        (Some(rest), _) if hour <= 12 => (hour % 12, rest),
        (_, Some(rest)) if hour <= 12 => (hour % 12 + 12, rest),
        (None, None) => (hour, rest),
        _ => return None,
    };
    let at = date.with_time(Time::from_hms(hour, minute, second).ok()?);
    Some(at.assume_offset(read_offset(rest.trim())?))
}

fn read_offset(text: &str) -> Option<UtcOffset> {
    if matches!(text, "" | "Z" | "UTC" | "GMT") {
        return Some(UtcOffset::UTC);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let number = |text: &str| {
        text.parse::<i8>()
            .ok()
            .filter(|number| (0..60).contains(number))
    };
    UtcOffset::from_hms(sign * number(hours)?, sign * number(minutes)?, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_780_000;

    fn read(body: &str) -> Result<(u64, Option<u64>), Error> {
        let token = read_token(body.as_bytes(), from_epoch(NOW).unwrap())?;
        assert_eq!(token.secret(), "abc.def");
        let secs = |at: std::time::SystemTime| {
            at.duration_since(std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        Ok((secs(token.expires()), token.refresh_after().map(secs)))
    }

    #[test]
    fn expiry_is_read_in_every_form_that_endpoints_send() {
        let rows = [
            // Managed identity: texts.
            (
                r#""expires_on":"1767866400","expires_in":"86399","refresh_token":"""#,
                1_767_866_400,
                None,
            ),
            // Azure ML: a number.
            (r#""expires_on":1767866400"#, 1_767_866_400, None),
            // Entra: how long it lasts, counted from before the request.
            (
                r#""expires_in":3599,"ext_expires_in":3599"#,
                NOW + 3599,
                None,
            ),
            (r#""expires_in":"3599""#, NOW + 3599, None),
            (r#""expires_in":3599.0"#, NOW + 3599, None),
            (
                r#""expires_in":86399,"refresh_in":43199"#,
                NOW + 86_399,
                Some(NOW + 43_199),
            ),
            (
                r#""expires_in":86399,"refresh_in":"43199""#,
                NOW + 86_399,
                Some(NOW + 43_199),
            ),
            (r#""expires_in":86399,"refresh_in":-1"#, NOW + 86_399, None),
            // An unusable one beside a usable one.
            (r#""expires_on":"soon","expires_in":60"#, NOW + 60, None),
            (r#""expires_on":null,"expires_in":60"#, NOW + 60, None),
            // This machine's clock is ahead of the endpoint's by more than the token's life.
            (
                r#""expires_on":1767770000,"expires_in":3600"#,
                NOW + 3600,
                None,
            ),
            // Old App Service: dates.
            (
                r#""expires_on":"01/07/2026 12:00:00 +00:00""#,
                1_767_787_200,
                None,
            ),
            (
                r#""expires_on":"1/7/2026 12:00:00 PM +00:00""#,
                1_767_787_200,
                None,
            ),
            (r#""expires_on":"2026-01-07 12:00:00""#, 1_767_787_200, None),
            (
                r#""expires_on":"2026-01-07T12:00:00Z""#,
                1_767_787_200,
                None,
            ),
            (
                r#""expires_on":"2026-01-07T13:30:00.1234567+01:30""#,
                1_767_787_200,
                None,
            ),
        ];
        for (fields, expires, refresh) in rows {
            let body = format!(r#"{{"token_type":"Bearer","access_token":"abc.def",{fields}}}"#);
            assert_eq!(read(&body).expect(fields), (expires, refresh), "{fields}");
        }
    }

    #[test]
    fn reply_that_is_no_token_is_refused_for_good_and_not_shown() {
        let long = format!(
            r#"{{"access_token":"abc.def","expires_in":60,"a":"{}"}}"#,
            "x".repeat(MAX_LENGTH)
        );
        let deep = "[".repeat(10_000);
        let rows = [
            ("", "not a token's JSON"),
            ("<html>", "not a token's JSON"),
            ("[]", "not a token's JSON"),
            (&*long, "not a token's JSON"),
            (&*deep, "not a token's JSON"),
            (r#"{"access_token":"abc.def""#, "not a token's JSON"),
            (r#"{"error":"x"}"#, "no `access_token`"),
            (
                r#"{"access_token":"","expires_in":60}"#,
                "no `access_token`",
            ),
            (r#"{"access_token":7,"expires_in":60}"#, "no `access_token`"),
            (r#"{"access_token":"abc.def"}"#, "when the token expires"),
            (
                r#"{"access_token":"abc.def","expires_in":true}"#,
                "when the token expires",
            ),
            (
                r#"{"access_token":"abc.def","expires_in":-1}"#,
                "when the token expires",
            ),
            (
                r#"{"access_token":"abc.def","expires_in":1e300}"#,
                "when the token expires",
            ),
            (
                r#"{"access_token":"abc.def","expires_in":18446744073709551615}"#,
                "when the token expires",
            ),
            (
                r#"{"access_token":"abc.def","expires_on":"1767770000"}"#,
                "expired at 2026-01-07T07:13:20Z",
            ),
            (
                r#"{"access_token":"abc.def\ndef","expires_in":60}"#,
                "characters that no token has",
            ),
            (
                r#"{"access_token":"abc.d\u00e9f","expires_in":60}"#,
                "characters that no token has",
            ),
        ];
        for (body, rule) in rows {
            let error = read(body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(!error.is_transient(), "{error}");
            assert!(error.to_string().contains(rule), "{error}");
            assert!(!format!("{error:?}").contains("abc"), "{error:?}");
        }
    }

    #[test]
    fn escapes_in_a_reply_are_read() {
        let body = r#"{"access_token":"abc\u002edef","expires_in":60}"#;
        assert_eq!(read(body).unwrap().0, NOW + 60);
    }

    #[test]
    fn dates_that_are_none_are_refused() {
        for text in [
            "",
            "2026-01-07",
            "13/40/2026 12:00:00",
            "2026-01-07 25:00:00",
            "2026-01-07 13:00:00 PM",
            "2026-01-07 12:00:00 +0100",
            "2026-01-07 12:00:00 +99:00",
            "2026-01-07 12:00:00 é",
            "2026-01-07 12:00",
        ] {
            assert_eq!(read_date(text), None, "{text}");
        }
    }
}
