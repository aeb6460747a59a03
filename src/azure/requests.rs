//! PURE: the requests of the Blob service.

use crate::holder::record::Record;
use crate::http::message::{Method, Request, encode_path};
use crate::lease::ids::{LeaseDuration, LeaseId};

/// The newest version whose answers are known for certain. The service accepts it everywhere today,
/// as has every emulator since early 2022.
pub(crate) const VERSION: &str = "2021-08-06";

/// The prefix of a metadata header.
pub(super) const METADATA: &str = "x-ms-meta-";

/// Acquire Lease.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>
pub(crate) fn acquire(path: &str, id: LeaseId, duration: LeaseDuration) -> Request<'static> {
    lease(path, "acquire")
        .header("x-ms-lease-duration", duration.to_header())
        .header("x-ms-proposed-lease-id", id.to_string())
}

/// Renew Lease.
pub(crate) fn renew(path: &str, id: LeaseId) -> Request<'static> {
    lease(path, "renew").header("x-ms-lease-id", id.to_string())
}

/// Change Lease.
pub(crate) fn change(path: &str, id: LeaseId, proposed: LeaseId) -> Request<'static> {
    lease(path, "change")
        .header("x-ms-lease-id", id.to_string())
        .header("x-ms-proposed-lease-id", proposed.to_string())
}

/// Release Lease.
pub(crate) fn release(path: &str, id: LeaseId) -> Request<'static> {
    lease(path, "release").header("x-ms-lease-id", id.to_string())
}

/// Break Lease; with `if_match`, only if the blob still has that ETag. `period` has been checked.
pub(crate) fn break_lease(
    path: &str,
    period: Option<String>,
    if_match: Option<&str>,
) -> Request<'static> {
    let mut request = lease(path, "break");
    request.needs_new_connection = true;
    if let Some(period) = period {
        request = request.header("x-ms-lease-break-period", period);
    }
    if let Some(etag) = if_match {
        request = request.header("if-match", etag);
    }
    request
}

fn lease(path: &str, action: &'static str) -> Request<'static> {
    request(Method::Put, path.to_owned())
        .query("comp", "lease")
        .header("x-ms-lease-action", action)
}

/// Create Container.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/create-container>
pub(crate) fn create_container(path: &str) -> Request<'static> {
    request(Method::Put, path.to_owned()).query("restype", "container")
}

/// Put Blob, empty, unless the blob exists. Never with a lease ID: given the current one, the
/// service overwrites the blob despite the condition.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/put-blob>
pub(crate) fn create_blob(path: &str) -> Request<'static> {
    request(Method::Put, path.to_owned())
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-type", "application/octet-stream")
        .header("if-none-match", "*")
}

/// Get Blob Properties. With a lease ID, only the lease's holder gets an answer.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>
pub(crate) fn get_properties(path: &str, id: Option<LeaseId>) -> Request<'static> {
    let request = request(Method::Head, path.to_owned());
    match id {
        Some(id) => request.header("x-ms-lease-id", id.to_string()),
        None => request,
    }
}

/// Set Blob Metadata, all of it. A blob that is leased takes it only with the lease's ID.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/set-blob-metadata>
pub(crate) fn set_metadata(
    path: &str,
    id: Option<LeaseId>,
    record: &Record,
    if_match: Option<&str>,
) -> Request<'static> {
    let mut request = request(Method::Put, path.to_owned()).query("comp", "metadata");
    if let Some(id) = id {
        request = request.header("x-ms-lease-id", id.to_string());
    }
    let request = with_record(request, record);
    match if_match {
        Some(etag) => request.header("if-match", etag),
        None => request,
    }
}

/// Get Blob, under a lease.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob>
pub(crate) fn get_content(path: &str, id: LeaseId) -> Request<'static> {
    request(Method::Get, path.to_owned()).header("x-ms-lease-id", id.to_string())
}

/// Put Blob, content and metadata, under a lease. The lease stays.
///
/// `if_match`: the ETag of the version it replaces.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/put-blob>
pub(crate) fn put_content<'a>(
    path: &str,
    id: LeaseId,
    record: &Record,
    content: &'a [u8],
    if_match: &str,
) -> Request<'a> {
    let request = request(Method::Put, path.to_owned())
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-type", "application/octet-stream")
        .header("if-match", if_match)
        .header("x-ms-lease-id", id.to_string());
    let mut request = with_record(request, record);
    request.body = content;
    request
}

/// List Blobs, one page.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/list-blobs>
pub(crate) fn list_blobs(path: &str, prefix: &str, marker: Option<&str>) -> Request<'static> {
    let mut request = request(Method::Get, path.to_owned())
        .query("restype", "container")
        .query("comp", "list")
        .query("include", "metadata");
    if !prefix.is_empty() {
        request = request.query("prefix", prefix);
    }
    if let Some(marker) = marker {
        request = request.query("marker", marker);
    }
    request
}

fn request<'a>(method: Method, path: String) -> Request<'a> {
    Request::new(method, path).header("x-ms-version", VERSION)
}

fn with_record<'a>(mut request: Request<'a>, record: &Record) -> Request<'a> {
    for (name, value) in record.metadata() {
        request = request.header(format!("{METADATA}{name}"), value);
    }
    request
}

/// `base`: the endpoint's own path, empty or such as `/devstoreaccount1`.
pub(crate) fn blob_path(base: &str, container: &str, key: &str) -> String {
    format!("{base}/{container}/{}", encode_path(key))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn debug_of_a_request_shows_no_secret() {
        let mut request = release("/c/k", LeaseId::random().expect("random numbers"));
        request
            .headers
            .push(("authorization".into(), "SharedKey a:s3cret".to_owned()));
        request.sas = Some(Zeroizing::new("sig=s3cret".to_owned()));
        let shown = format!("{request:?}");
        assert!(
            shown.contains("x-ms-lease-action") && !shown.contains("s3cret"),
            "{shown}"
        );
        assert_eq!(*request.target(), "/c/k?comp=lease&sig=s3cret");
    }
}
