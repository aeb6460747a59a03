//! PURE: List Blobs and List Containers: their pages and markers, and the XML of their replies.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/list-blobs>

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::Failure;
use super::reply::element;
use super::request::Request;
use super::store::{Blob, Container, Metadata, Moment, Page};
use crate::time::dates;

/// The most entries that a page holds.
const PAGE: usize = 5000;

/// What a request for a list asks for.
pub(super) struct Query<'a> {
    request: &'a Request<'a>,
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
    /// The name that the page begins with.
    pub(super) from: Cow<'static, str>,
    /// The most entries on the page.
    pub(super) limit: usize,
    has_metadata: bool,
}

impl<'a> Query<'a> {
    pub(super) fn read(request: &'a Request<'a>) -> Result<Self, Failure> {
        let mut has_metadata = false;
        let include = request.parameter("include");
        for part in include.split(',').filter(|part| !part.is_empty()) {
            if !part.eq_ignore_ascii_case("metadata") {
                return Err(Failure::unsupported_query("include", part));
            }
            has_metadata = true;
        }
        Ok(Self {
            request,
            prefix: request.parameter("prefix"),
            delimiter: request.parameter("delimiter"),
            from: first_name(request.parameter("marker"))?,
            limit: page_size(request.parameter("maxresults"))?,
            has_metadata,
        })
    }

    /// What both documents begin with, after the XML declaration.
    ///
    /// `endpoint`: the account's, without a trailing slash.
    fn open(&self, endpoint: &str, container: Option<&str>, length: usize) -> String {
        let mut out = String::with_capacity(512 + 768 * length);
        for part in ["<EnumerationResults ServiceEndpoint=\"", endpoint, "/\""] {
            out.push_str(part);
        }
        if let Some(container) = container {
            for part in [" ContainerName=\"", container, "\""] {
                out.push_str(part);
            }
        }
        out.push('>');
        for (name, parameter) in [
            ("Prefix", "prefix"),
            ("Marker", "marker"),
            ("MaxResults", "maxresults"),
            ("Delimiter", "delimiter"),
        ] {
            let value = self.request.parameter(parameter);
            if !value.is_empty() {
                element(&mut out, name, value);
            }
        }
        out
    }

    fn push_metadata(&self, out: &mut String, metadata: &Metadata) {
        if self.has_metadata {
            enclose(out, "Metadata", metadata.is_empty(), |out| {
                for (name, value) in metadata {
                    element(out, name, value);
                }
            });
        }
    }
}

/// The document of List Blobs after its XML declaration.
pub(super) fn blobs(
    endpoint: &str,
    container: &str,
    query: &Query<'_>,
    page: &Page<'_, Option<&Blob>>,
    now: Moment,
) -> String {
    let mut out = query.open(endpoint, Some(container), page.entries.len());
    enclose(&mut out, "Blobs", page.entries.is_empty(), |out| {
        for (name, entry) in &page.entries {
            match entry {
                Some(blob) => push_blob(out, name, blob, query, now),
                None => enclose(out, "BlobPrefix", false, |out| element(out, "Name", name)),
            }
        }
    });
    close(&mut out, page.next);
    out
}

/// The document of List Containers after its XML declaration.
pub(super) fn containers(
    endpoint: &str,
    query: &Query<'_>,
    page: &Page<'_, &Container>,
    now: Moment,
) -> String {
    let mut out = query.open(endpoint, None, page.entries.len());
    enclose(&mut out, "Containers", page.entries.is_empty(), |out| {
        for (name, container) in &page.entries {
            push_container(out, name, container, query, now);
        }
    });
    close(&mut out, page.next);
    out
}

fn close(out: &mut String, next: Option<&str>) {
    element(out, "NextMarker", &next.map(marker).unwrap_or_default());
    out.push_str("</EnumerationResults>");
}

fn enclose(out: &mut String, name: &str, is_empty: bool, inside: impl FnOnce(&mut String)) {
    if is_empty {
        element(out, name, "");
    } else {
        for part in ["<", name, ">"] {
            out.push_str(part);
        }
        inside(out);
        for part in ["</", name, ">"] {
            out.push_str(part);
        }
    }
}

fn push_blob(out: &mut String, name: &str, blob: &Blob, query: &Query<'_>, now: Moment) {
    out.push_str("<Blob>");
    element(out, "Name", name);
    out.push_str("<Properties>");
    let created = dates::http(blob.created);
    let modified = dates::http(blob.stamp.modified);
    let etag = blob.stamp.bare_etag();
    let length = blob.data.content.len().to_string();
    let lease = blob.lease.state(now.tick);
    let header = |name| {
        let found = blob.data.headers.iter().find(|(n, _)| *n == name);
        found.map_or("", |(_, value)| value)
    };
    for (name, text) in [
        ("Creation-Time", created.as_str()),
        ("Last-Modified", &modified),
        ("Etag", &etag),
        ("Content-Length", &length),
        ("Content-Type", header("Content-Type")),
        ("Content-Encoding", header("Content-Encoding")),
        ("Content-Language", header("Content-Language")),
        ("Content-CRC64", ""),
        ("Content-MD5", header("Content-MD5")),
        ("Cache-Control", header("Cache-Control")),
        ("Content-Disposition", header("Content-Disposition")),
        ("BlobType", "BlockBlob"),
        ("AccessTier", "Hot"),
        ("AccessTierInferred", "true"),
        ("LeaseStatus", lease.status()),
        ("LeaseState", lease.name()),
    ] {
        if name != "Content-CRC64" || query.request.is_since("2019-02-02") {
            element(out, name, text);
        }
    }
    if let Some(duration) = blob.lease.duration_name(now.tick) {
        element(out, "LeaseDuration", duration);
    }
    element(out, "ServerEncrypted", "true");
    out.push_str("</Properties>");
    query.push_metadata(out, &blob.data.metadata);
    if query.request.is_since("2021-04-10") {
        out.push_str("<OrMetadata />");
    }
    out.push_str("</Blob>");
}

fn push_container(
    out: &mut String,
    name: &str,
    container: &Container,
    query: &Query<'_>,
    now: Moment,
) {
    out.push_str("<Container>");
    element(out, "Name", name);
    out.push_str("<Properties>");
    let lease = container.lease.state(now.tick);
    element(out, "Last-Modified", &dates::http(container.stamp.modified));
    element(out, "Etag", &container.stamp.etag());
    element(out, "LeaseStatus", lease.status());
    element(out, "LeaseState", lease.name());
    if let Some(duration) = container.lease.duration_name(now.tick) {
        element(out, "LeaseDuration", duration);
    }
    for (name, text) in [
        ("DefaultEncryptionScope", "$account-encryption-key"),
        ("DenyEncryptionScopeOverride", "false"),
        ("HasImmutabilityPolicy", "false"),
        ("HasLegalHold", "false"),
        ("ImmutableStorageWithVersioningEnabled", "false"),
    ] {
        element(out, name, text);
    }
    out.push_str("</Properties>");
    query.push_metadata(out, &container.metadata);
    out.push_str("</Container>");
}

/// The number of entries on a page: as many as the client asks for, and 5000 at most.
fn page_size(text: &str) -> Result<usize, Failure> {
    if text.is_empty() {
        return Ok(PAGE);
    }
    match text.parse() {
        Ok(size @ 1..) => Ok(PAGE.min(size)),
        _ => Err(Failure::invalid_query("maxresults", text)),
    }
}

/// The marker of a page that begins with `name`. Clients return it unchanged.
fn marker(name: &str) -> String {
    let name = STANDARD.encode(name);
    format!("2!{}!{name}", name.len())
}

/// The name that a page begins with, from the marker of the page before it.
fn first_name(marker: &str) -> Result<Cow<'static, str>, Failure> {
    if marker.is_empty() {
        return Ok(Cow::Borrowed(""));
    }
    let name = || {
        let (_, name) = marker.strip_prefix("2!")?.split_once('!')?;
        String::from_utf8(STANDARD.decode(name).ok()?).ok()
    };
    let name = name().ok_or_else(|| Failure::invalid_query("marker", marker))?;
    Ok(Cow::Owned(name))
}
