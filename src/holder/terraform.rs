//! PURE: who holds a lock of Terraform or one of its relatives. They take an infinite lease on the
//! state's blob and describe the lock in its metadata.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::record::{Holder, read_since};
use super::text::visible;

/// The name of the metadata value.
pub(crate) const NAME: &str = "terraformlockid";

/// The most metadata that a blob may have.
const MAX_LENGTH: usize = 8 * 1024;

/// Reads the metadata value: JSON in base64. `None` if it does not describe a lock.
pub(crate) fn read(value: &str) -> Option<Holder> {
    if value.len() > MAX_LENGTH {
        return None;
    }
    let json = STANDARD.decode(value.trim()).ok()?;
    let lock: Value = serde_json::from_slice(&json).ok()?;
    let text = |name| lock.get(name).and_then(Value::as_str).and_then(visible);
    let (who, operation) = (text("Who"), text("Operation"));
    if who.is_none() && operation.is_none() && text("ID").is_none() {
        return None;
    }
    let created = lock.get("Created").and_then(Value::as_str);
    Some(Holder {
        owner: who,
        since: created.and_then(read_since),
        reason: match (operation, text("Info")) {
            (Some(operation), Some(info)) => Some(format!("{operation}: {info}")),
            (operation, info) => operation.or(info),
        },
        ..Holder::unknown()
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn read_json(json: &str) -> Option<Holder> {
        read(&STANDARD.encode(json))
    }

    #[test]
    fn lock_is_read_as_its_holder() {
        let holder = read_json(
            r#"{"ID":"2b6a6738-5dd5-50d6-c0ae-f6352977666b","Operation":"OperationTypeApply",
            "Info":"","Who":"alice@build-07","Version":"1.9.5",
            "Created":"2026-01-07T10:02:11.123456789Z","Path":"tfstate/prod.tfstate"}"#,
        )
        .unwrap();
        assert_eq!(holder.owner(), Some("alice@build-07"));
        assert_eq!(holder.reason(), Some("OperationTypeApply"));
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_780_131);
        assert_eq!(holder.since(), Some(since));
        assert_eq!((holder.pid(), holder.lease_duration()), (None, None));
        assert_eq!((holder.version(), holder.released()), (None, false));
    }

    #[test]
    fn lock_with_parts_missing_has_the_rest() {
        let rows = [
            (r#"{"Who":"a"}"#, Some((Some("a"), None))),
            (r#"{"ID":"x"}"#, Some((None, None))),
            (
                r#"{"Operation":"o","Info":"i"}"#,
                Some((None, Some("o: i"))),
            ),
            (
                r#"{"Who":7,"Operation":"o","Created":"soon"}"#,
                Some((None, Some("o"))),
            ),
            (
                r#"{"Who":"a","Created":"0001-01-01T00:00:00Z"}"#,
                Some((Some("a"), None)),
            ),
            (r#"{"Path":"p"}"#, None),
            ("{}", None),
            ("[]", None),
            ("7", None),
            ("", None),
        ];
        for (json, wanted) in rows {
            let holder = read_json(json);
            let found = holder.as_ref().map(|h| (h.owner(), h.reason()));
            assert_eq!(found, wanted, "{json}");
            assert_eq!(holder.and_then(|h| h.since), None, "{json}");
        }
    }

    #[test]
    fn hostile_value_is_none_or_cleaned() {
        assert_eq!(read("not base64!"), None);
        assert_eq!(read(&STANDARD.encode([0xff, 0xfe])), None);
        assert_eq!(read_json(&"[".repeat(6000)), None);
        assert_eq!(read_json(&r#"{"Who":"#.repeat(700)), None);
        assert_eq!(
            read(&STANDARD.encode(format!(r#"{{"Who":"{}"}}"#, "x".repeat(10_000)))),
            None
        );
        let holder = read_json(r#"{"Who":"a\u001b[2J\u202e\u200bb\r\n","Operation":"\u061c"}"#);
        let holder = holder.unwrap();
        assert_eq!((holder.owner(), holder.reason()), (Some("a[2Jb"), None));
        let long = read_json(&format!(r#"{{"Who":"{}"}}"#, "x".repeat(5000))).unwrap();
        assert_eq!(long.owner().map(str::len), Some(1024));
    }
}
