//! PURE: Shared Key signatures.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The headers that have a line of their own in the string-to-sign, in its order.
const STANDARD_HEADERS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// What the signature of a request covers: its verb, headers, path as sent, and query.
///
/// `headers` have lower-case names; `path` is percent-encoded as it goes on the wire, and `query`
/// holds decoded values.
pub(crate) fn string_to_sign<'a, H, Q>(
    account: &str,
    method: &str,
    path: &str,
    query: Q,
    headers: H,
) -> String
where
    H: Iterator<Item = (&'a str, &'a str)> + Clone,
    Q: Iterator<Item = (&'a str, &'a str)>,
{
    let mut out = String::with_capacity(512);
    out.push_str(method);
    for name in STANDARD_HEADERS {
        out.push('\n');
        let value = headers
            .clone()
            .find(|(n, _)| *n == name)
            .map_or("", |(_, value)| value);
        // A length of zero is left out since version 2015-02-21.
        if !(name == "content-length" && value == "0") {
            out.push_str(value);
        }
    }
    out.push('\n');
    canonicalize_headers(&mut out, headers);
    canonicalize_resource(&mut out, account, path, query);
    out
}

fn canonicalize_headers<'a>(out: &mut String, headers: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut ours: Vec<_> = headers
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    ours.sort_unstable_by_key(|(name, _)| *name);
    for (name, value) in ours {
        out.push_str(name);
        out.push(':');
        // Inner runs of white space stay as they are: the service signs what it received.
        out.push_str(value.trim());
        out.push('\n');
    }
}

fn canonicalize_resource<'a>(
    out: &mut String,
    account: &str,
    path: &str,
    query: impl Iterator<Item = (&'a str, &'a str)>,
) {
    out.push('/');
    out.push_str(account);
    out.push_str(path);
    let mut query: Vec<_> = query
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    query.sort_unstable();
    let mut last = None;
    for (name, value) in &query {
        // The values of a repeated name are sorted and joined with commas.
        if last == Some(name) {
            out.push(',');
        } else {
            out.push('\n');
            out.push_str(name);
            out.push(':');
        }
        out.push_str(value);
        last = Some(name);
    }
}

/// The base64 HMAC-SHA256 of `string_to_sign`. `key`: the account key, base64-decoded.
pub(crate) fn signature(key: &[u8], string_to_sign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(string_to_sign.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use serde_json::Value;

    use super::*;

    /// Requests, strings-to-sign and signatures as a public SDK made them, with made-up keys.
    #[test]
    fn recorded_signatures_are_made_again() {
        let vectors = include_str!("../../tests/vectors/shared_key.json");
        let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
        assert_eq!(vectors.len(), 106);
        for vector in &vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let (_, rest) = text("url").split_once("://").unwrap();
            let (_, rest) = rest.split_once('/').unwrap();
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let path = format!("/{path}");
            let query: Vec<_> = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name, percent_decode_str(value).decode_utf8().unwrap()))
                .collect();
            let headers: Vec<_> = vector["headers"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
                .collect();
            let signed = string_to_sign(
                text("account"),
                text("method"),
                &path,
                query.iter().map(|(name, value)| (*name, &**value)),
                headers.iter().copied(),
            );
            assert_eq!(signed, text("string_to_sign"));
            let key = STANDARD.decode(text("account_key")).unwrap();
            let signature = signature(&key, &signed);
            let account = text("account");
            assert_eq!(
                format!("SharedKey {account}:{signature}"),
                text("authorization")
            );
        }
    }

    #[test]
    fn content_length_zero_is_signed_as_empty() {
        let signed = |length: &str| {
            let headers = [("content-length", length)];
            string_to_sign("a", "PUT", "/c/b", [].into_iter(), headers.into_iter())
        };
        assert_eq!(signed("0"), "PUT\n\n\n\n\n\n\n\n\n\n\n\n/a/c/b");
        assert_eq!(signed("11"), "PUT\n\n\n11\n\n\n\n\n\n\n\n\n/a/c/b");
    }

    #[test]
    fn query_is_sorted_by_lower_case_name_and_joined() {
        let query = [
            ("restype", "container"),
            ("Comp", "list"),
            ("prefix", "b"),
            ("prefix", "a"),
        ];
        let signed = string_to_sign("a", "GET", "/c", query.into_iter(), [].into_iter());
        assert!(
            signed.ends_with("/a/c\ncomp:list\nprefix:a,b\nrestype:container"),
            "{signed}"
        );
    }
}
