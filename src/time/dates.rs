//! PURE: the two date formats that the service uses.

use std::time::SystemTime;

use time::{Date, Duration, Month, OffsetDateTime, Time};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Reads an HTTP date, such as `Mon, 23 Nov 2026 04:54:48 GMT`.
pub(crate) fn parse_http(text: &str) -> Option<OffsetDateTime> {
    let (_, date) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut parts = date.splitn(4, ' ');
    let day = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = MONTHS
        .iter()
        .zip(1u8..)
        .find(|(name, _)| **name == month)?
        .1;
    let year = parts.next()?.parse().ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let mut parts = parts.next()?.splitn(3, ':').map(|part| part.parse().ok());
    let time = Time::from_hms(parts.next()??, parts.next()??, parts.next()??).ok()?;
    Some(date.with_time(time).assume_utc())
}

/// Writes an HTTP date, such as `Mon, 23 Nov 2026 04:54:48 GMT`.
pub(crate) fn http(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[usize::from(at.weekday().number_days_from_monday())],
        at.day(),
        MONTHS[usize::from(u8::from(at.month())) - 1],
        at.year(),
        at.hour(),
        at.minute(),
        at.second(),
    )
}

/// Writes a time in RFC 3339, such as `2026-01-31T12:00:00Z`.
pub(crate) fn utc(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{date}T{:02}:{:02}:{:02}Z",
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Reads the forms that the service accepts: `YYYY-MM-DD`, optionally with `Thh:mmZ`, `Thh:mm:ssZ`,
/// or a fraction of a second.
pub(crate) fn parse_utc(text: &str) -> Option<OffsetDateTime> {
    let number = |part: &str, digits: usize| {
        let fits = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| part.parse::<u16>().ok()).flatten()
    };
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00"),
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = Month::try_from(u8::try_from(number(parts.next()?, 2)?).ok()?).ok()?;
    let day = u8::try_from(number(parts.next()?, 2)?).ok()?;
    if parts.next().is_some() {
        return None;
    }
    let mut parts = time.split(':');
    let hour = u8::try_from(number(parts.next()?, 2)?).ok()?;
    let minute = u8::try_from(number(parts.next()?, 2)?).ok()?;
    let second = match parts.next() {
        Some(part) => u8::try_from(number(part.split('.').next()?, 2)?).ok()?,
        None => 0,
    };
    if parts.next().is_some() {
        return None;
    }
    let date = Date::from_calendar_date(i32::from(year), month, day).ok()?;
    Some(
        date.with_time(Time::from_hms(hour, minute, second).ok()?)
            .assume_utc(),
    )
}

/// The time as a `SystemTime`. `None` if the system cannot represent it: on Windows, time begins in
/// 1601.
pub(crate) fn to_system(at: OffsetDateTime) -> Option<SystemTime> {
    let since = at - OffsetDateTime::UNIX_EPOCH;
    if since.is_negative() {
        SystemTime::UNIX_EPOCH.checked_sub(since.unsigned_abs())
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since.unsigned_abs())
    }
}

/// The time as a date. `None` if its year has more than four digits.
pub(crate) fn from_system(at: SystemTime) -> Option<OffsetDateTime> {
    let (span, sign) = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (since, 1),
        Err(before) => (before.duration(), -1),
    };
    let span = Duration::try_from(span).ok()?;
    OffsetDateTime::UNIX_EPOCH.checked_add(span * sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_converted_if_they_can_be_represented() {
        for secs in [0, 1_767_780_131, -1, -11_644_473_600, 253_402_300_799] {
            let at = OffsetDateTime::from_unix_timestamp(secs).unwrap();
            assert_eq!(to_system(at).and_then(from_system), Some(at));
        }
        for far in [1u64 << 50, i64::MAX as u64] {
            let far = std::time::Duration::from_secs(far);
            for at in [
                SystemTime::UNIX_EPOCH.checked_add(far),
                SystemTime::UNIX_EPOCH.checked_sub(far),
            ] {
                assert_eq!(at.and_then(from_system), None);
            }
        }
        let first = OffsetDateTime::from_unix_timestamp(-62_135_596_800).unwrap();
        // Windows cannot represent it.
        assert_eq!(to_system(first).is_none(), cfg!(windows));
    }

    #[test]
    fn http_dates_are_read_and_written() {
        for date in [
            "Mon, 23 Nov 2026 04:54:48 GMT",
            "Thu, 29 Feb 2024 23:59:59 GMT",
        ] {
            assert_eq!(http(parse_http(date).unwrap()), date);
        }
        for date in [
            "",
            "Mon, 23 Nov 2026",
            "Mon, 31 Feb 2026 04:54:48 GMT",
            "yesterday GMT",
        ] {
            assert_eq!(parse_http(date), None, "{date}");
        }
    }

    #[test]
    fn utc_times_are_read_in_all_forms() {
        let at = |text| parse_utc(text).map(utc);
        let rows = [
            ("2026-01-31", Some("2026-01-31T00:00:00Z")),
            ("2026-01-31T12:34Z", Some("2026-01-31T12:34:00Z")),
            ("2026-01-31T12:34:56Z", Some("2026-01-31T12:34:56Z")),
            ("2026-01-31T12:34:56.1234567Z", Some("2026-01-31T12:34:56Z")),
            ("2026-02-30", None),
            ("2026-01-31T12:34:56", None),
            ("2026-01-31T25:00Z", None),
            ("2026-1-31", None),
            ("+026-01-31", None),
            ("", None),
        ];
        for (text, wanted) in rows {
            assert_eq!(at(text).as_deref(), wanted, "{text}");
        }
    }
}
