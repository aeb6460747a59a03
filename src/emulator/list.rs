//! PURE: List Blobs: its pages and markers, and the XML of its reply.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/list-blobs>

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::Failure;
use super::reply::element;
use super::request::Request;
use super::store::{Blob, Moment, Page};
use crate::time::dates;

/// The most blobs that a page holds.
const PAGE: usize = 5000;

/// The document after its XML declaration. `endpoint`: the account's, without a trailing slash.
pub(super) fn xml(
    endpoint: &str,
    container: &str,
    request: &Request<'_>,
    page: &Page<'_>,
    now: Moment,
) -> String {
    let mut includes = request.parameter("include").split(',');
    let form = Form {
        has_crc: request.is_since("2019-02-02"),
        has_or_metadata: request.is_since("2021-04-10"),
        has_metadata: includes.any(|part| part.eq_ignore_ascii_case("metadata")),
    };
    let mut out = String::with_capacity(512 + 768 * page.blobs.len());
    out.push_str("<EnumerationResults ServiceEndpoint=\"");
    out.push_str(endpoint);
    out.push_str("/\" ContainerName=\"");
    out.push_str(container);
    out.push_str("\">");
    for (name, parameter) in [
        ("Prefix", "prefix"),
        ("Marker", "marker"),
        ("MaxResults", "maxresults"),
    ] {
        let value = request.parameter(parameter);
        if !value.is_empty() {
            element(&mut out, name, value);
        }
    }
    if page.blobs.is_empty() {
        out.push_str("<Blobs />");
    } else {
        out.push_str("<Blobs>");
        for (name, blob) in &page.blobs {
            push_blob(&mut out, name, blob, &form, now);
        }
        out.push_str("</Blobs>");
    }
    element(
        &mut out,
        "NextMarker",
        &page.next.map(marker).unwrap_or_default(),
    );
    out.push_str("</EnumerationResults>");
    out
}

/// Which optional elements a blob has.
struct Form {
    has_crc: bool,
    has_or_metadata: bool,
    has_metadata: bool,
}

fn push_blob(out: &mut String, name: &str, blob: &Blob, form: &Form, now: Moment) {
    out.push_str("<Blob>");
    element(out, "Name", name);
    out.push_str("<Properties>");
    let created = dates::http(blob.created);
    let modified = dates::http(blob.stamp.modified);
    let etag = blob.stamp.bare_etag();
    let length = blob.data.content.len().to_string();
    let lease = blob.lease.state(now.tick);
    for (name, text) in [
        ("Creation-Time", created.as_str()),
        ("Last-Modified", &modified),
        ("Etag", &etag),
        ("Content-Length", &length),
        ("Content-Type", &blob.data.content_type),
        ("Content-Encoding", ""),
        ("Content-Language", ""),
        ("Content-CRC64", ""),
        ("Content-MD5", ""),
        ("Cache-Control", ""),
        ("Content-Disposition", ""),
        ("BlobType", blob.data.kind),
        ("AccessTier", "Hot"),
        ("AccessTierInferred", "true"),
        ("LeaseStatus", lease.status()),
        ("LeaseState", lease.name()),
    ] {
        if name != "Content-CRC64" || form.has_crc {
            element(out, name, text);
        }
    }
    if let Some(duration) = blob.lease.duration_name(now.tick) {
        element(out, "LeaseDuration", duration);
    }
    element(out, "ServerEncrypted", "true");
    out.push_str("</Properties>");
    if form.has_metadata {
        if blob.data.metadata.is_empty() {
            out.push_str("<Metadata />");
        } else {
            out.push_str("<Metadata>");
            for (name, value) in &blob.data.metadata {
                element(out, name, value);
            }
            out.push_str("</Metadata>");
        }
    }
    if form.has_or_metadata {
        out.push_str("<OrMetadata />");
    }
    out.push_str("</Blob>");
}

/// The number of blobs on a page: as many as the client asks for, and 5000 at most.
pub(super) fn page_size(text: &str) -> Result<usize, Failure> {
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
pub(super) fn first_name(marker: &str) -> Result<Cow<'static, str>, Failure> {
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
