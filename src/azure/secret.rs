//! PURE: what people paste or mount where a secret is expected, and what it is instead.
//!
//! No message quotes the text: it may be a secret in the wrong place.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The length of an account key.
const KEY_LENGTH: usize = 64;

/// What a text is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    AccountKey,
    Sas,
    ConnectionString,
}

/// The pairs of quotes that copying, shells and env files leave around a value.
const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’')];

/// Removes what is no part of any value: a byte order mark, white space and a pair of quotes
/// around it.
///
/// # Errors
///
/// The rule that it breaks, if a quote is left at one end.
pub(crate) fn trim(text: &str) -> Result<&str, &'static str> {
    let text = unquoted(text);
    if text.starts_with(is_quote) || text.ends_with(is_quote) {
        return Err("it has quotes at one end that are not part of it; remove the quotes");
    }
    Ok(text)
}

/// The same, whatever is left at its ends.
pub(crate) fn unquoted(text: &str) -> &str {
    let text = text.trim_matches(is_margin);
    let inner = QUOTES.iter().find_map(|(open, close)| {
        let inner = text.strip_prefix(*open)?;
        inner.strip_suffix(*close)
    });
    inner.map_or(text, |inner| inner.trim_matches(is_margin))
}

/// Whether it is a quote, straight or typographic.
pub(crate) fn is_quote(c: char) -> bool {
    QUOTES.iter().any(|(open, close)| c == *open || c == *close)
}

fn is_margin(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}')
}

/// What `text` is instead of what is expected, and what to do, if that can be told for certain.
/// `text` has been trimmed.
pub(crate) fn mistake(text: &str, expected: Expected) -> Option<&'static str> {
    if has_name_in_front(text) {
        return Some(
            "it has a variable's name in front of it, as a line of a script or a file does; pass \
             the value alone",
        );
    }
    if let Some(unfilled) = placeholder(text) {
        return Some(unfilled);
    }
    if text.contains('\0') {
        return Some("it has NUL characters, as text in UTF-16 does; save it as UTF-8");
    }
    if text.starts_with(['{', '[']) {
        return Some("it is JSON; pass only the value in it");
    }
    if text.starts_with("-----BEGIN") {
        return Some("it is a certificate or private key of another kind");
    }
    if text.starts_with("eyJ") && text.split('.').count() == 3 {
        return Some("it is a token of Microsoft Entra ID, not a secret of the storage account");
    }
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let is_signed = lower.contains("sig=");
    if expected != Expected::Sas && ["https://", "http://"].iter().any(|s| lower.starts_with(s)) {
        return Some(if is_signed {
            "it is a SAS URL; its part after `?` is the SAS token (AZURE_STORAGE_SAS_TOKEN)"
        } else {
            "it is a URL"
        });
    }
    match expected {
        Expected::ConnectionString if text.contains("\\;") => {
            Some("it has backslashes before `;` that are not part of it; remove them")
        }
        Expected::ConnectionString if !text.contains('=') && lower.contains("%3d") => {
            Some("it is percent-encoded; decode it once")
        }
        Expected::ConnectionString => {
            let names_sas = lower.contains("sharedaccesssignature=");
            if is_signed && !names_sas && !lower.contains(';') {
                return Some(
                    "it is a SAS token; use AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_SAS_TOKEN",
                );
            }
            other_service(&lower).or_else(|| match decode(text)? {
                inner if is_connection_string(&inner) => Some(ENCODED),
                _ => Some("it is an account key; use AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"),
            })
        }
        Expected::AccountKey | Expected::Sas if is_connection_string(&lower) => {
            Some("it is a connection string, or a part of one; use AZURE_STORAGE_CONNECTION_STRING")
        }
        Expected::AccountKey if is_signed => Some("it is a SAS token; use AZURE_STORAGE_SAS_TOKEN"),
        Expected::AccountKey => {
            let inner = decode(text)?;
            if is_connection_string(&inner) {
                return Some(ENCODED);
            }
            is_key(inner.trim()).then_some(ENCODED)
        }
        Expected::Sas if is_signed => None,
        Expected::Sas => is_key(text).then_some("it is an account key; use AZURE_STORAGE_KEY"),
    }
}

const ENCODED: &str = "it is encoded in base64 once more, as Kubernetes shows its secrets; decode it \
                       once (`base64 -d`), or use `stringData`";

fn is_key(text: &str) -> bool {
    let bytes = STANDARD.decode(text).map(Zeroizing::new);
    bytes.is_ok_and(|bytes| bytes.len() == KEY_LENGTH)
}

/// The text behind base64, or an empty one if it is not text.
fn decode(text: &str) -> Option<Zeroizing<String>> {
    if text.len() < 16 {
        return None;
    }
    // Wrapped lines are common.
    let joined: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
    let bytes = STANDARD
        .decode(joined.as_bytes())
        .map(Zeroizing::new)
        .ok()?;
    let inner = str::from_utf8(&bytes).unwrap_or_default();
    Some(Zeroizing::new(inner.to_owned()))
}

/// Whether some part of it has the name of a connection string's.
fn is_connection_string(text: &str) -> bool {
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let names = [
        "accountkey=",
        "accountname=",
        "defaultendpointsprotocol=",
        "sharedaccesssignature=",
        "blobendpoint=",
        "usedevelopmentstorage=",
    ];
    names.iter().any(|name| lower.contains(name))
}

/// Whether it is a line such as `export STORAGE_KEY=...`, `$env:STORAGE_KEY = ...` or `key: ...`.
/// The names in connection strings and SAS have no `_`.
fn has_name_in_front(text: &str) -> bool {
    let starts = ["export ", "set ", "$env:", "- "];
    let line = starts.iter().find_map(|start| text.strip_prefix(start));
    let line = line.unwrap_or(text);
    let Some(end) = line.find(['=', ':']) else {
        return false;
    };
    let (name, value) = (line[..end].trim_end(), &line[end + 1..]);
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_yaml = line[end..].starts_with(": ");
    // Base64 ends with `=`, too.
    let is_assignment =
        line[end..].starts_with('=') && name.contains('_') && !matches!(value.trim(), "" | "=");
    is_name && (is_yaml || is_assignment)
}

fn placeholder(text: &str) -> Option<&'static str> {
    if text.starts_with("@Microsoft.") {
        return Some(
            "it is a Key Vault reference that the platform did not resolve; check that the app's \
             identity may read the vault",
        );
    }
    let page = ["<html", "<!doctype"];
    if page.iter().any(|tag| {
        let start = text.get(..tag.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(tag))
    }) {
        return Some("it is an HTML page, such as one to sign in at");
    }
    let marks = [
        ("{{", "}}"),
        ("${", "}"),
        ("$(", ")"),
        ("#{", "}"),
        ("<", ">"),
    ];
    let is_between = |(open, close): (&str, &str)| {
        text.split_once(open)
            .is_some_and(|(_, rest)| rest.contains(close))
    };
    let is_variable = text.len() > 2 && text.starts_with('%') && text.ends_with('%');
    let is_reference = ["akvs://", "op://"].iter().any(|s| text.starts_with(s));
    if marks.into_iter().any(is_between) || text.starts_with('$') || is_variable || is_reference {
        return Some("it has a placeholder that was not replaced by its value");
    }
    text.contains("***")
        .then_some("it is masked with `*`; get the value itself")
}

/// The service whose connection string it is.
fn other_service(lower: &str) -> Option<&'static str> {
    let part = |name: &str| {
        lower
            .split(';')
            .any(|part| part.trim_start().starts_with(name))
    };
    let rows = [
        (
            part("endpoint=sb:"),
            "it is for Service Bus or Event Hubs, not for Azure Storage",
        ),
        (
            part("accountendpoint="),
            "it is for Cosmos DB, not for Azure Storage",
        ),
        (
            part("instrumentationkey="),
            "it is for Application Insights, not for Azure Storage",
        ),
        (
            part("server=") || part("data source="),
            "it is for a database, not for Azure Storage",
        ),
        (
            part("hostname="),
            "it is for IoT Hub, not for Azure Storage",
        ),
    ];
    rows.into_iter()
        .find_map(|(found, what)| found.then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copying_adds_is_removed() {
        for (text, wanted) in [
            ("a=b", "a=b"),
            ("\u{feff}a=b\r\n", "a=b"),
            (" \t\"a=b\"\r\n", "a=b"),
            ("'a=b\n'", "a=b"),
            ("\u{a0}“a=b”\u{200b}", "a=b"),
            ("\u{feff}\"\u{feff}a\"", "a"),
            ("\"\"", ""),
            ("a\"b", "a\"b"),
        ] {
            assert_eq!(trim(text), Ok(wanted), "{text:?}");
        }
        for text in ["\"a", "a\"", "'a\"", "\"\"a\"\"", "a’", "\""] {
            assert!(trim(text).unwrap_err().contains("quotes"), "{text:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        use Expected::{AccountKey, ConnectionString, Sas};

        let key = STANDARD.encode([7; KEY_LENGTH]);
        let connection = format!("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={key}");
        let wrapped = STANDARD.encode(&connection);
        let wrapped = format!("{}\n{}", &wrapped[..64], &wrapped[64..]);
        let all: &[Expected] = &[AccountKey, ConnectionString, Sas];
        let rows: [(&str, &[Expected], &str); 31] = [
            (
                "@Microsoft.KeyVault(SecretUri=https://v/x)",
                all,
                "Key Vault reference",
            ),
            (
                "@Microsoft.AppConfiguration(Endpoint=x)",
                all,
                "Key Vault reference",
            ),
            ("{{ .Values.key }}", all, "placeholder"),
            ("AccountName=a;AccountKey={{key}}", all, "placeholder"),
            ("$(StorageKey)", all, "placeholder"),
            ("${STORAGE_KEY}", all, "placeholder"),
            ("$STORAGE_KEY", all, "placeholder"),
            ("#{StorageKey}#", all, "placeholder"),
            ("<your-key>", all, "placeholder"),
            ("***", all, "masked"),
            (r#"{"key":"x"}"#, all, "JSON"),
            (r#"[{"keyName":"key1","value":"x"}]"#, all, "JSON"),
            ("-----BEGIN PRIVATE KEY-----", all, "certificate"),
            ("eyJh.eyJi.c", all, "token of Microsoft Entra ID"),
            ("a\0b\0", all, "UTF-16"),
            (
                "https://a/?sv=1&sig=x",
                &[AccountKey, ConnectionString],
                "SAS URL",
            ),
            ("HTTPS://a/", &[AccountKey, ConnectionString], "it is a URL"),
            ("?sv=1&sig=x", &[AccountKey, ConnectionString], "SAS token"),
            (&key, &[ConnectionString, Sas], "account key"),
            (&connection, &[AccountKey, Sas], "it is a connection string"),
            (
                "DefaultEndpointsProtocol=https",
                &[AccountKey, Sas],
                "a part of one",
            ),
            ("AccountKey=x", &[AccountKey, Sas], "a part of one"),
            (
                "SharedAccessSignature=sv=1&sig=x",
                &[AccountKey, Sas],
                "a part of one",
            ),
            (
                &STANDARD.encode(&connection),
                &[AccountKey, ConnectionString],
                "encoded in base64 once",
            ),
            (
                &wrapped,
                &[AccountKey, ConnectionString],
                "encoded in base64 once",
            ),
            (
                &STANDARD.encode(&key),
                &[AccountKey],
                "encoded in base64 once",
            ),
            (
                "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKey=x",
                &[ConnectionString],
                "Service Bus",
            ),
            (
                "AccountEndpoint=https://x.documents.azure.com;AccountKey=x",
                &[ConnectionString],
                "Cosmos DB",
            ),
            (
                "InstrumentationKey=x",
                &[ConnectionString],
                "Application Insights",
            ),
            ("Server=tcp:x;Database=d", &[ConnectionString], "database"),
            (
                "HostName=x.azure-devices.net;SharedAccessKey=x",
                &[ConnectionString],
                "IoT Hub",
            ),
        ];
        for (text, expected, what) in rows {
            for expected in expected {
                let found = mistake(text, *expected);
                assert!(
                    found.is_some_and(|found| found.contains(what)),
                    "{text} {expected:?}: {found:?}"
                );
            }
        }
        for line in [
            format!("AZURE_STORAGE_KEY={key}"),
            format!("export STORAGE_KEY='{key}'"),
            format!("set STORAGE_KEY={key}"),
            format!("$env:STORAGE_KEY = \"{key}\""),
            format!("key: {key}"),
            format!("- storage_key: {key}"),
        ] {
            let found = mistake(&line, AccountKey);
            let wanted = "a variable's name in front of it";
            assert!(
                found.is_some_and(|found| found.contains(wanted)),
                "{line}: {found:?}"
            );
        }
        for other in ["ab_c=", "ab_c==", "a-_b", "ab_c:d"] {
            assert_eq!(mistake(other, AccountKey), None, "{other}");
        }
        assert_eq!(mistake(&key, AccountKey), None);
        assert_eq!(mistake(&connection, ConnectionString), None);
        assert_eq!(mistake("sv=1&sig=x", Sas), None);
        assert_eq!(mistake("https://a/?sig=x", Sas), None);
        assert_eq!(mistake("bXkgc2VjcmV0IGtleQ==", AccountKey), None);
    }
}
