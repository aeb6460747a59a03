//! Times and durations, for people and for JSON.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;

static START: OnceLock<Instant> = OnceLock::new();

/// How long this process has run, counted from the first call.
pub(crate) fn since_start() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Writes a time such as `2026-01-07T10:02:11.042Z` over `to`, which is as long. Allocates nothing,
/// and writes nothing if the time is out of range.
#[cfg_attr(not(unix), allow(dead_code, reason = "for run"))]
pub(crate) fn overwrite_rfc3339_millis(mut to: &mut [u8], at: SystemTime) {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let secs = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    if let Ok(at) = OffsetDateTime::from_unix_timestamp(secs) {
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.to_hms();
        let (month, millis) = (u8::from(month), since.subsec_millis());
        let _ = write!(
            to,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        );
    }
}

/// A time such as `2026-01-07T10:02:11Z`.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let secs = match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    };
    let Ok(at) = OffsetDateTime::from_unix_timestamp(secs) else {
        return format!("{secs} seconds after 1970");
    };
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A time to the millisecond, such as `2026-01-07T10:02:11.042Z`.
pub(crate) fn rfc3339_millis(at: SystemTime) -> String {
    let text = rfc3339(at);
    match (
        at.duration_since(SystemTime::UNIX_EPOCH),
        text.strip_suffix('Z'),
    ) {
        (Ok(since), Some(text)) => format!("{text}.{:03}Z", since.subsec_millis()),
        _ => text,
    }
}

/// A duration for people: `47s`, `2m13s`, `5h02m`, `3d04h`.
pub(crate) fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600, secs / 60);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", secs % 60)
    } else {
        format!("{secs}s")
    }
}

/// `2.5s`, `10s`, `4m10s`, `5m`: to a tenth of a second where that matters.
pub(crate) fn short(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    if tenths < 100 && !tenths.is_multiple_of(10) {
        return format!("{}.{}s", tenths / 10, tenths % 10);
    }
    let whole = Duration::from_secs(u64::try_from((tenths + 5) / 10).unwrap_or(u64::MAX));
    let text = span(whole);
    match text.strip_suffix("m00s") {
        Some(minutes) => format!("{minutes}m"),
        None => text,
    }
}

/// How long ago, by this machine's clock.
pub(crate) fn ago(at: SystemTime) -> Duration {
    SystemTime::now().duration_since(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_rfc_3339() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_780_131, "2026-01-07T10:02:11Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            assert_eq!(rfc3339(at), text);
        }
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_780_131_042);
        assert_eq!(rfc3339_millis(at), "2026-01-07T10:02:11.042Z");
        let mut text = [b'x'; 24];
        overwrite_rfc3339_millis(&mut text, at);
        assert_eq!(text, *b"2026-01-07T10:02:11.042Z");
    }

    #[test]
    fn spans_are_short() {
        for (secs, text) in [
            (0, "0s"),
            (47, "47s"),
            (133, "2m13s"),
            (18_120, "5h02m"),
            (273_600, "3d04h"),
        ] {
            assert_eq!(span(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn spans_are_to_the_tenth_while_they_are_short() {
        for (millis, text) in [
            (2500, "2.5s"),
            (3000, "3s"),
            (9960, "10s"),
            (42_300, "42s"),
            (0, "0s"),
            (599_940, "10m"),
            (600_000, "10m"),
            (610_000, "10m10s"),
        ] {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }
}
