//! Requests, as parsed by httparse, with their parameters, headers and metadata.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::failure::{self, Failure};
use super::store::{Access, Metadata};
use crate::time::dates::parse_http;

/// The largest size of all metadata, names and values together.
const METADATA_LIMIT: usize = 8 * 1024;

/// The properties of a blob's content, by the headers that show them.
const CONTENT: [&str; 6] = [
    "Content-Type",
    "Content-Encoding",
    "Content-Language",
    "Content-MD5",
    "Cache-Control",
    "Content-Disposition",
];

/// A request whose body is still to come.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// As sent, percent-encoding included.
    pub(super) path: &'a str,
    /// Decoded, in the order sent.
    query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    headers: Vec<Header<'a>>,
}

#[derive(Debug)]
struct Header<'a> {
    lower: String,
    name: &'a str,
    value: &'a str,
}

impl<'a> Request<'a> {
    /// `None` if a value is not text or the target is not a path.
    pub(super) fn new(
        method: &'a str,
        target: &'a str,
        headers: &[httparse::Header<'a>],
    ) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.starts_with('/') {
            return None;
        }
        let headers = headers.iter().map(|header| {
            Some(Header {
                lower: header.name.to_ascii_lowercase(),
                name: header.name,
                value: std::str::from_utf8(header.value).ok()?.trim(),
            })
        });
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        Some(Self {
            method,
            path,
            query: query.collect::<Option<_>>()?,
            headers: headers.collect::<Option<_>>()?,
        })
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }

    /// `lower`: the name in lower case.
    pub(super) fn header(&self, lower: &str) -> Option<&'a str> {
        let found = self.headers.iter().find(|header| header.lower == lower);
        found.map(|header| header.value)
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let headers = self.headers.iter();
        headers.map(|header| (header.lower.as_str(), header.value))
    }

    pub(super) fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.query.iter();
        pairs.map(|(name, value)| (&**name, &**value))
    }

    /// The first value of a query parameter; empty if it is missing.
    pub(super) fn parameter(&self, name: &str) -> &str {
        let found = self.query().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The version of the service that the header or a SAS asks for.
    pub(super) fn version(&self) -> Option<&str> {
        let signed = Some(self.parameter("sv")).filter(|version| !version.is_empty());
        self.header("x-ms-version").or(signed)
    }

    /// Whether this version of the service is asked for, or a later one.
    pub(super) fn is_since(&self, version: &str) -> bool {
        self.version().is_none_or(|asked| asked >= version)
    }

    /// A header that must be a GUID if it is there.
    pub(super) fn guid(&self, lower: &str) -> Result<Option<Uuid>, Failure> {
        let Some(value) = self.header(lower) else {
            return Ok(None);
        };
        let guid = parse_guid(value).ok_or_else(|| Failure::invalid_header(lower, value))?;
        Ok(Some(guid))
    }

    /// The lease ID and conditions of the request.
    pub(super) fn access(&self) -> Result<Access<'a>, Failure> {
        let date = |name| match self.header(name) {
            None => Ok(None),
            Some(text) => match parse_http(text) {
                None => Err(Failure::invalid_header(name, text)),
                date => Ok(date),
            },
        };
        let etag = |name| match self.header(name) {
            // A list of them is not implemented.
            Some(text) if text.contains(',') => Err(Failure::invalid_header(name, text)),
            etag => Ok(etag),
        };
        Ok(Access {
            lease_id: self.guid("x-ms-lease-id")?,
            if_match: etag("if-match")?,
            if_none_match: etag("if-none-match")?,
            if_modified_since: date("if-modified-since")?,
            if_unmodified_since: date("if-unmodified-since")?,
            never_overwrites: false,
        })
    }

    /// The properties of a blob's content, from `x-ms-blob-` headers; if `is_content` says that the
    /// body is that content, from the standard ones, too.
    pub(super) fn content(&self, is_content: bool) -> Vec<(&'static str, String)> {
        let value = |name: &str| {
            let standard = name.to_ascii_lowercase();
            let ours = self.header(&format!("x-ms-blob-{standard}"));
            let of_body = self.header(&standard).filter(|_| is_content);
            Some(ours.or(of_body)?.to_owned())
        };
        let named = CONTENT.iter().map(|name| Some((*name, value(name)?)));
        named.flatten().collect()
    }

    pub(super) fn metadata(&self) -> Result<Metadata, Failure> {
        let mut size = 0;
        let mut named: Vec<(&str, String, String)> = Vec::new();
        for header in &self.headers {
            let Some(lower) = header.lower.strip_prefix("x-ms-meta-") else {
                continue;
            };
            // Names are compared without regard to case, and must differ.
            if !is_identifier(lower)
                || !header.value.is_ascii()
                || named.iter().any(|(name, ..)| *name == lower)
            {
                return Err(failure::INVALID_METADATA);
            }
            size += lower.len() + header.value.len();
            let name = &header.name["x-ms-meta-".len()..];
            named.push((lower, name.to_owned(), header.value.to_owned()));
        }
        if size > METADATA_LIMIT {
            return Err(failure::METADATA_TOO_LARGE);
        }
        named.sort_unstable_by_key(|(lower, ..)| *lower);
        let named = named.into_iter();
        Ok(named.map(|(_, name, value)| (name, value)).collect())
    }
}

/// What the path names, after the account.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Service,
    Container(&'a str),
    Blob(&'a str, String),
}

impl<'a> Target<'a> {
    pub(super) fn parse(path: &'a str, account: &str) -> Result<Self, Failure> {
        let path = path.strip_prefix('/').ok_or(failure::INVALID_URI)?;
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if first != account {
            return Err(failure::RESOURCE_NOT_FOUND);
        }
        if rest.is_empty() {
            return Ok(Self::Service);
        }
        let (container, blob) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_container_name(container) {
            return Err(failure::INVALID_RESOURCE_NAME);
        }
        if blob.is_empty() {
            return Ok(Self::Container(container));
        }
        let blob = decode(blob).ok_or(failure::INVALID_URI)?;
        if !is_blob_name(&blob) {
            return Err(failure::INVALID_RESOURCE_NAME);
        }
        Ok(Self::Blob(container, blob.replace('\\', "/")))
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

/// The forms with and without dashes, bare or in braces or parentheses.
fn parse_guid(text: &str) -> Option<Uuid> {
    let inside = |open, close| text.strip_prefix(open)?.strip_suffix(close);
    let bare = inside('{', '}').or_else(|| inside('(', ')'));
    let guid = bare.unwrap_or(text);
    let has_form = matches!((guid.len(), bare.is_some()), (36, _) | (32, false));
    has_form.then(|| Uuid::try_parse(guid).ok())?
}

/// Whether it is a C# identifier, as the service requires. A header can only hold ASCII letters.
fn is_identifier(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_container_name(name: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    matches!(name, "$root" | "$web" | "$logs")
        || (3..=63).contains(&name.len())
            && name.starts_with(is_end)
            && name.ends_with(is_end)
            && !name.contains("--")
            && name.chars().all(|c| is_end(c) || c == '-')
}

fn is_blob_name(name: &str) -> bool {
    let segments = name.split(['/', '\\']).count();
    name.chars().count() <= 1024 && segments <= 254 && !name.ends_with(['.', '/', '\\'])
}
