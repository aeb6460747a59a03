//! PURE: the values of options. Each error states the rule.

use std::fmt;
use std::time::Duration;

use azmutex::{LeaseDuration, LeaseId};

/// Reads `30s`, `1.5s`, `5m`, `1h30m`, `500ms`, `2d`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const RULE: &str = "use e.g. 90s, 10m, 1h";
    let wrong = || RULE.to_owned();
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong());
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            // Only a number without any unit is seconds: `1m30` would be ambiguous.
            "" if number == text => 1.0,
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part =
            Duration::try_from_secs_f64(number * scale).map_err(|_| "it is too long".to_owned())?;
        total = total
            .checked_add(part)
            .ok_or_else(|| "it is too long".to_owned())?;
        rest = tail;
    }
    // About a year: nobody means to wait longer.
    if total > Duration::from_secs(366 * 86_400) {
        return Err("it is more than a year".to_owned());
    }
    Ok(total)
}

/// Reads how long one request may take.
pub(crate) fn request_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout >= Duration::from_millis(100) => Ok(timeout),
        _ => Err("it must be at least 100ms".to_owned()),
    }
}

/// Reads how long to wait between attempts.
pub(crate) fn poll_interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval >= Duration::from_millis(10) => Ok(interval),
        _ => Err("it must be at least 10ms".to_owned()),
    }
}

/// Without the quotes and line ends that env files leave.
pub(crate) fn bare(value: &str) -> &str {
    value.trim_matches(|c: char| c.is_whitespace() || "\"'`".contains(c))
}

/// Reads the variable of a switch: only a clear answer counts, as the library reads
/// `AZMUTEX_ALLOW_INSECURE_HTTP`.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match bare(text).to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("use true or false, 1 or 0".to_owned()),
    }
}

/// Reads the duration of a lease, or `infinite`.
pub(crate) fn lease(text: &str) -> Result<LeaseDuration, String> {
    const RULE: &str = "a lease is 15s to 60s, in whole seconds";
    if text.trim().eq_ignore_ascii_case("infinite") {
        return Ok(LeaseDuration::INFINITE);
    }
    let duration = duration(text).map_err(|_| format!("{RULE}, or infinite"))?;
    LeaseDuration::try_from(duration).map_err(|_| format!("{RULE}, or infinite"))
}

/// Reads the duration of a lease that is renewed.
pub(crate) fn renewed_lease(text: &str) -> Result<LeaseDuration, String> {
    match lease(text) {
        Ok(LeaseDuration::INFINITE) => Err(
            "an infinite lease stays forever after a crash; this command renews, so use 15s \
             to 60s"
                .to_owned(),
        ),
        Ok(lease) => Ok(lease),
        Err(_) => Err("a lease is 15s to 60s, in whole seconds".to_owned()),
    }
}

/// Reads the interval at which a lease is renewed.
pub(crate) fn renewal_interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval >= Duration::from_secs(1) => Ok(interval),
        _ => Err("it must be at least 1s".to_owned()),
    }
}

/// Reads how long a broken lease may still run.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Ok(period) if period.subsec_nanos() == 0 && period.as_secs() <= 60 => Ok(period),
        _ => Err("a break period is 0s to 60s, in whole seconds".to_owned()),
    }
}

/// Reads an exit status.
pub(crate) fn exit_status(text: &str) -> Result<u8, String> {
    text.parse()
        .map_err(|_| "an exit code is 0 to 255".to_owned())
}

/// Reads a number of at least one.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("use a number from 1".to_owned()),
    }
}

/// Reads a process ID.
pub(crate) fn pid(text: &str) -> Result<i32, String> {
    match text.parse() {
        Ok(pid @ 1..) => Ok(pid),
        _ => Err("a process ID is a number from 1".to_owned()),
    }
}

/// Reads a lease ID.
pub(crate) fn lease_id(text: &str) -> Result<LeaseId, String> {
    text.parse()
        .map_err(|_| "use a GUID such as 6b1f3a60-9f0d-4c8e-8a55-3c1d2e4f5a6b".to_owned())
}

/// A signal, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(pub(crate) i32);

#[cfg(unix)]
mod signal_names {
    use signal_hook::consts::*;

    pub(super) const NAMES: &[(&str, i32)] = &[
        ("HUP", SIGHUP),
        ("INT", SIGINT),
        ("QUIT", SIGQUIT),
        ("KILL", SIGKILL),
        ("USR1", SIGUSR1),
        ("USR2", SIGUSR2),
        ("ALRM", SIGALRM),
        ("TERM", SIGTERM),
        ("CONT", SIGCONT),
        ("STOP", SIGSTOP),
        ("WINCH", SIGWINCH),
    ];
}

#[cfg(not(unix))]
mod signal_names {
    pub(super) const NAMES: &[(&str, i32)] = &[("INT", 2), ("TERM", 15), ("KILL", 9)];
}

impl Signal {
    /// Reads `TERM`, `SIGTERM` or `15`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = signal_names::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        match name.parse() {
            Ok(number @ 1..=64) => Ok(Self(number)),
            _ => Err("use a name such as TERM or INT, or a number from 1 to 64".to_owned()),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_names::NAMES
            .iter()
            .find(|(_, number)| *number == self.0)
        {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Reads a token as it stands in a header.
#[cfg(feature = "emulator")]
pub(crate) fn bearer_token(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("use ASCII characters without spaces".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_all_forms() {
        for (text, millis) in [
            ("0", 0),
            ("30", 30_000),
            ("1.5", 1500),
            ("30s", 30_000),
            ("250ms", 250),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            (" 5s ", 5000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn invalid_durations_are_refused() {
        for text in [
            "",
            " ",
            "s",
            "10min",
            "1m30",
            "-1",
            "1e3",
            "1.2.3s",
            "5 s",
            "inf",
            "nan",
            "1y",
            "9999999999h",
            "400d",
            "٣s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn leases_are_15_to_60_seconds_or_infinite() {
        assert_eq!(lease("60s"), Ok(LeaseDuration::MAX));
        assert_eq!(lease("infinite"), Ok(LeaseDuration::INFINITE));
        for text in ["14s", "61s", "15.5s", "-1", "forever"] {
            assert!(
                lease(text).is_err() && renewed_lease(text).is_err(),
                "{text}"
            );
        }
        assert!(renewed_lease("infinite").unwrap_err().contains("crash"));
    }

    #[test]
    fn exit_codes_that_do_not_fit_are_refused() {
        assert_eq!(exit_status("0"), Ok(0));
        assert_eq!(exit_status("255"), Ok(255));
        assert!(exit_status("600").is_err() && exit_status("-1").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "sigterm", "15", "SIGTERM"] {
            assert_eq!(Signal::parse(text), Ok(Signal(15)), "{text}");
        }
        assert_eq!(Signal(15).to_string(), "SIGTERM");
        assert_eq!(Signal(40).to_string(), "signal 40");
        for text in ["", "0", "65", "TERMINATE", "SIG"] {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
    }
}
