//! PURE: requests and replies, without how they are exchanged.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::time::dates;

/// Left unencoded in a blob's URL: the unreserved characters and the path's slashes.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Left unencoded in a query value.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// A request, without the host it goes to.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Percent-encoded, as it is sent and signed.
    pub(crate) path: String,
    /// Decoded, as it is signed.
    pub(crate) query: Vec<(&'static str, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(Cow<'static, str>, String)>,
    pub(crate) body: &'a [u8],
    /// Appended to the query as it is.
    pub(crate) sas: Option<Zeroizing<String>>,
    /// For a request that must not be repeated if it may have been done: it is sent on a new
    /// connection, so that it cannot fail because an idle one was closed in the meantime.
    pub(crate) needs_new_connection: bool,
    /// For a request that must not wait for an access token: it is sent with the one in hand, or not
    /// at all.
    pub(crate) with_token_in_hand: bool,
}

impl Request<'_> {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: &[],
            sas: None,
            needs_new_connection: false,
            with_token_in_hand: false,
        }
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(crate) fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The path and query as they are sent. Secret if they hold a SAS.
    pub(crate) fn target(&self) -> Zeroizing<String> {
        let mut target = self.path.clone();
        let mut mark = '?';
        for (name, value) in &self.query {
            target.push(mark);
            target.push_str(name);
            target.push('=');
            target.push_str(&encode_query(value));
            mark = '&';
        }
        if let Some(sas) = &self.sas {
            target.push(mark);
            target.push_str(sas);
        }
        Zeroizing::new(target)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| !matches!(&**name, "authorization" | "x-identity-header"));
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("headers", &headers.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A reply, whole.
#[derive(Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// How long the service asks the client to wait: seconds, or a date.
    pub(crate) fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        match text.parse() {
            Ok(secs) => Some(Duration::from_secs(secs)),
            Err(_) => Some(
                (dates::parse_http(text)? - now)
                    .try_into()
                    .unwrap_or(Duration::ZERO),
            ),
        }
    }
}

/// Without the body, which may be a token.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Reply {
            status,
            headers,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn debug_of_a_reply_shows_no_body() {
        let shown = format!("{:?}", reply(200, &[("a", "b")], "s3cret"));
        assert!(
            shown.contains(r#"("a", "b")"#) && shown.contains("body: 6"),
            "{shown}"
        );
        assert!(
            !shown.contains("s3cret") && !shown.contains("115"),
            "{shown}"
        );
    }

    #[test]
    fn reserved_characters_are_encoded() {
        assert_eq!(encode_path("a b/ü%#?.x"), "a%20b/%C3%BC%25%23%3F.x");
        assert_eq!(encode_path("plus+and&amp=eq"), "plus%2Band%26amp%3Deq");
        assert_eq!(encode_query("a/b&c=d"), "a%2Fb%26c%3Dd");
    }
}
