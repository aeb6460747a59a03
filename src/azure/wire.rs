//! PURE: what goes out on the wire, and what an answer means.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::date;
use super::names::{LeaseDuration, LeaseId, encode_path, encode_query};
use crate::error::{Error, ErrorKind};
use crate::lease::LossReason;
use crate::record::{Holder, Record};

/// The newest version whose answers are known from recordings. Every service that is up today
/// takes it, and so does every emulator since early 2022.
pub(crate) const VERSION: &str = "2021-08-06";

/// What the header of a metadata value begins with.
const METADATA: &str = "x-ms-meta-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Put,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
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
}

impl Request<'_> {
    fn new(method: Method, path: String) -> Self {
        let headers = vec![("x-ms-version".into(), VERSION.to_owned())];
        Self {
            method,
            path,
            query: Vec::new(),
            headers,
            body: &[],
            sas: None,
        }
    }

    fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn record(mut self, record: &Record) -> Self {
        for (name, value) in record.metadata() {
            self.headers
                .push((format!("{METADATA}{name}").into(), value.into_owned()));
        }
        self
    }

    /// The path and query as they are sent. Secret when there is a SAS in it.
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
            .filter(|(name, _)| *name != "authorization");
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("headers", &headers.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A reply, whole.
#[derive(Debug, Default)]
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
}

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

/// Break Lease. `period` is checked already.
pub(crate) fn break_lease(path: &str, period: Option<String>) -> Request<'static> {
    let request = lease(path, "break");
    match period {
        Some(period) => request.header("x-ms-lease-break-period", period),
        None => request,
    }
}

fn lease(path: &str, action: &'static str) -> Request<'static> {
    Request::new(Method::Put, path.to_owned())
        .query("comp", "lease")
        .header("x-ms-lease-action", action)
}

/// Create Container.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/create-container>
pub(crate) fn create_container(path: &str) -> Request<'static> {
    Request::new(Method::Put, path.to_owned()).query("restype", "container")
}

/// Put Blob, empty, unless there is one. Never with a lease ID: with the held one the service
/// overwrites in spite of the condition.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/put-blob>
pub(crate) fn create_blob(path: &str) -> Request<'static> {
    Request::new(Method::Put, path.to_owned())
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-type", "application/octet-stream")
        .header("if-none-match", "*")
}

/// Get Blob Properties. With a lease ID the service answers only its holder.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob-properties>
pub(crate) fn get_properties(path: &str, id: Option<LeaseId>) -> Request<'static> {
    let request = Request::new(Method::Head, path.to_owned());
    match id {
        Some(id) => request.header("x-ms-lease-id", id.to_string()),
        None => request,
    }
}

/// Set Blob Metadata, all of it, under a lease.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/set-blob-metadata>
pub(crate) fn set_metadata(
    path: &str,
    id: LeaseId,
    record: &Record,
    if_match: Option<&str>,
) -> Request<'static> {
    let request = Request::new(Method::Put, path.to_owned())
        .query("comp", "metadata")
        .header("x-ms-lease-id", id.to_string())
        .record(record);
    match if_match {
        Some(etag) => request.header("if-match", etag),
        None => request,
    }
}

/// Get Blob, under a lease.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/get-blob>
pub(crate) fn get_content(path: &str, id: LeaseId) -> Request<'static> {
    Request::new(Method::Get, path.to_owned()).header("x-ms-lease-id", id.to_string())
}

/// Put Blob, content and metadata, under a lease, which it keeps.
///
/// `if_match`: the ETag of what it replaces.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/put-blob>
pub(crate) fn put_content<'a>(
    path: &str,
    id: LeaseId,
    record: &Record,
    content: &'a [u8],
    if_match: &str,
) -> Request<'a> {
    let mut request: Request<'a> = Request::new(Method::Put, path.to_owned())
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-type", "application/octet-stream")
        .header("if-match", if_match)
        .header("x-ms-lease-id", id.to_string())
        .record(record);
    request.body = content;
    request
}

/// List Blobs, one page.
///
/// Source: <https://learn.microsoft.com/rest/api/storageservices/list-blobs>
pub(crate) fn list_blobs(path: &str, prefix: &str, marker: Option<&str>) -> Request<'static> {
    let mut request = Request::new(Method::Get, path.to_owned())
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

/// `base`: the endpoint's own path, empty or such as `/devstoreaccount1`.
pub(crate) fn blob_path(base: &str, container: &str, key: &str) -> String {
    format!("{base}/{container}/{}", encode_path(key))
}

/// The state of a lease, as the service tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseState {
    /// Nobody holds the lease, and nobody held it, or it was released.
    Available,
    /// Somebody holds the lease.
    Leased,
    /// The lease ran out without being released.
    Expired,
    /// The lease was broken and still runs until the end of its break period.
    Breaking,
    /// The lease was broken, and can be acquired.
    Broken,
    /// A state that this version does not know.
    Unknown,
}

impl LeaseState {
    fn parse(text: &str) -> Self {
        match text {
            "available" => Self::Available,
            "leased" => Self::Leased,
            "expired" => Self::Expired,
            "breaking" => Self::Breaking,
            "broken" => Self::Broken,
            _ => Self::Unknown,
        }
    }

    /// Whether the lease can be acquired by another client now.
    #[must_use]
    pub fn is_free(self) -> bool {
        matches!(self, Self::Available | Self::Expired | Self::Broken)
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Available => "available",
            Self::Leased => "leased",
            Self::Expired => "expired",
            Self::Breaking => "breaking",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        })
    }
}

/// What the service says of one lock blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    pub(crate) key: String,
    pub(crate) state: LeaseState,
    pub(crate) infinite: bool,
    pub(crate) etag: String,
    pub(crate) last_modified: Option<SystemTime>,
    pub(crate) record: Record,
}

impl LeaseStatus {
    /// The key: the blob's name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The state of its lease.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.state
    }

    /// Whether the lease is one without an end. Only told while it is leased.
    #[must_use]
    pub fn is_infinite(&self) -> bool {
        self.infinite
    }

    /// Who holds the lock, as far as that is known.
    ///
    /// `None` if it is free, and if its holder has not written who it is: it took the lock a moment
    /// ago, does not say, or is no program of this crate.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.last_holder()
            .filter(|holder| !self.state.is_free() && !holder.released)
    }

    /// Who held the lock last, or holds it, of those who wrote who they are.
    ///
    /// If the lock is free and that holder has not [`released`](Holder::released), it left without
    /// releasing.
    #[must_use]
    pub fn last_holder(&self) -> Option<&Holder> {
        self.record.holder.as_ref()
    }

    /// The last fencing token that was handed out for this lock.
    #[must_use]
    pub fn fencing_token(&self) -> Option<u64> {
        self.record.fence
    }

    /// The blob's entity tag, quoted as in a header. Lease operations do not change it.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// When the blob's content or metadata was last written, to the second. Lease operations do
    /// not change it.
    #[must_use]
    pub fn last_modified(&self) -> Option<SystemTime> {
        self.last_modified
    }
}

/// Reads the reply to Get Blob Properties.
pub(crate) fn read_status(key: &str, reply: &Reply) -> LeaseStatus {
    let header = |name| reply.header(name).unwrap_or_default();
    LeaseStatus {
        key: key.to_owned(),
        state: LeaseState::parse(header("x-ms-lease-state")),
        infinite: header("x-ms-lease-duration") == "infinite",
        etag: header("etag").to_owned(),
        last_modified: date::parse_http(header("last-modified")).map(SystemTime::from),
        record: read_record(reply),
    }
}

/// Reads the metadata out of a reply's headers.
pub(crate) fn read_record(reply: &Reply) -> Record {
    let names = reply.headers.iter();
    Record::read(names.filter_map(|(name, value)| Some((name.strip_prefix(METADATA)?, &**value))))
}

/// One page of List Blobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) blobs: Vec<LeaseStatus>,
    pub(crate) next: Option<String>,
}

/// Reads the reply to List Blobs.
pub(crate) fn read_page(body: &[u8]) -> Result<Page, Error> {
    let unreadable = |what: String| Error::new(ErrorKind::Protocol, what);
    let text = std::str::from_utf8(body)
        .map_err(|_| unreadable("the list of blobs is not UTF-8".to_owned()))?;
    let document = roxmltree::Document::parse(strip_bom(text)).map_err(|error| {
        unreadable("the list of blobs is not XML".to_owned()).with_source(error)
    })?;
    let root = document.root_element();
    if !root.has_tag_name("EnumerationResults") {
        return Err(unreadable(format!(
            "expected a list of blobs, got <{}>",
            root.tag_name().name()
        )));
    }
    let mut page = Page::default();
    for blob in elements(root, "Blobs").flat_map(|blobs| elements(blobs, "Blob")) {
        let properties = elements(blob, "Properties").next();
        let property = |name| properties.map(|p| text_of(p, name)).unwrap_or_default();
        let etag = property("Etag");
        page.blobs.push(LeaseStatus {
            key: text_of(blob, "Name").into_owned(),
            state: LeaseState::parse(&property("LeaseState")),
            infinite: property("LeaseDuration") == "infinite",
            // Here the tag comes without its quotes.
            etag: if etag.starts_with('"') {
                etag.into_owned()
            } else {
                format!("\"{etag}\"")
            },
            last_modified: date::parse_http(&property("Last-Modified")).map(SystemTime::from),
            record: read_listed_record(blob),
        });
    }
    page.next = Some(text_of(root, "NextMarker").into_owned()).filter(|next| !next.is_empty());
    Ok(page)
}

/// Reads the metadata out of an entry of a list.
fn read_listed_record(blob: roxmltree::Node<'_, '_>) -> Record {
    let values: Vec<_> = elements(blob, "Metadata")
        .flat_map(|metadata| metadata.children().filter(roxmltree::Node::is_element))
        .map(|value| (value.tag_name().name(), texts(value).collect::<String>()))
        .collect();
    Record::read(values.iter().map(|(name, value)| (*name, value.as_str())))
}

fn elements<'a, 'input: 'a>(
    node: roxmltree::Node<'a, 'input>,
    name: &'a str,
) -> impl Iterator<Item = roxmltree::Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.has_tag_name(name))
}

fn text_of<'a>(node: roxmltree::Node<'a, '_>, name: &'a str) -> Cow<'a, str> {
    node.children()
        .find(|child| child.has_tag_name(name))
        .map(|child| texts(child).collect::<Cow<'_, str>>())
        .unwrap_or_default()
}

/// All text below `node`; comments and the like may stand in between.
fn texts<'a>(node: roxmltree::Node<'a, '_>) -> impl Iterator<Item = &'a str> {
    node.descendants()
        .filter(roxmltree::Node::is_text)
        .filter_map(|text| text.text())
}

/// Checks that a reply to acquire, renew or change speaks of the lease that was asked for.
pub(crate) fn read_lease_id(reply: &Reply) -> Result<LeaseId, Error> {
    reply
        .header("x-ms-lease-id")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "the reply has no lease ID").with_reply(
                reply.status,
                None,
                reply.header("x-ms-request-id").map(str::to_owned),
                None,
            )
        })
}

/// Reads `x-ms-lease-time`, the seconds that a broken lease still runs.
pub(crate) fn read_lease_time(reply: &Reply) -> Duration {
    let secs = reply
        .header("x-ms-lease-time")
        .and_then(|secs| secs.parse().ok());
    Duration::from_secs(secs.unwrap_or(0))
}

/// The error that a reply with a status of 400 or more stands for.
///
/// `sent`: the wall clock when the request was sent, against which the reply's own date shows
/// whether the clock is off. `hint`: what to check if the credential was not accepted.
pub(crate) fn read_error(reply: &Reply, sent: OffsetDateTime, hint: &str) -> Error {
    // HEAD replies have no body, so the header is the code's only sure place.
    let code = match reply.header("x-ms-error-code") {
        Some(code) => Some(code.to_owned()).filter(is_code),
        None => in_error_body(&reply.body, "Code").filter(is_code),
    };
    let request_id = reply.header("x-ms-request-id").map(str::to_owned);
    let retry_after = reply
        .header("retry-after")
        .and_then(|text| retry_after(text, sent));
    let (kind, detail) = meaning(reply, code.as_deref(), sent, hint);
    let error = match loss(code.as_deref()) {
        Some(reason) if kind == ErrorKind::LeaseLost => Error::lost(reason),
        _ => Error::new(kind, detail),
    };
    error.with_reply(reply.status, code, request_id, retry_after)
}

/// What a code says about a lease that its holder asked about.
fn loss(code: Option<&str>) -> Option<LossReason> {
    match code? {
        "LeaseIsBrokenAndCannotBeRenewed"
        | "LeaseIsBreakingAndCannotBeChanged"
        | "LeaseAlreadyBroken" => Some(LossReason::Broken),
        "LeaseIdMismatchWithLeaseOperation"
        | "LeaseIdMismatchWithBlobOperation"
        | "LeaseNotPresentWithLeaseOperation"
        | "LeaseNotPresentWithBlobOperation"
        | "LeaseLost" => Some(LossReason::Taken),
        "BlobNotFound" | "ContainerNotFound" | "ContainerBeingDeleted" => Some(LossReason::Deleted),
        _ => None,
    }
}

/// The kind of error, and what to say besides the code. Branches on the code; the bare status
/// counts only where the code is unknown.
fn meaning(
    reply: &Reply,
    code: Option<&str>,
    sent: OffsetDateTime,
    hint: &str,
) -> (ErrorKind, Cow<'static, str>) {
    let text: &'static str = match code.unwrap_or_default() {
        "LeaseAlreadyPresent" => return (ErrorKind::WouldBlock, "another client holds it".into()),
        "LeaseIsBreakingAndCannotBeAcquired" => {
            return (
                ErrorKind::WouldBlock,
                "its lease was broken and has not ended yet".into(),
            );
        }
        "BlobNotFound" => return (ErrorKind::NotFound, "the blob does not exist".into()),
        "ContainerNotFound" => return (ErrorKind::NotFound, "the container does not exist".into()),
        "ResourceNotFound" => {
            return (
                ErrorKind::NotFound,
                "it does not exist, or anonymous access is off".into(),
            );
        }
        "ContainerBeingDeleted" => {
            let text = "the container is being deleted; wait a minute or use another";
            return (ErrorKind::NotFound, text.into());
        }
        "ServerBusy" => return (ErrorKind::Throttled, "the service is overloaded".into()),
        "OperationTimedOut" | "InternalError" => {
            return (ErrorKind::Service, "the service failed".into());
        }
        code if loss(Some(code)).is_some() => return (ErrorKind::LeaseLost, "".into()),
        "AuthenticationFailed" => {
            let text = clock_skew(reply, sent)
                .unwrap_or_else(|| format!("the service does not accept the credential; {hint}"));
            return (ErrorKind::Auth, text.into());
        }
        "AuthorizationFailure" => {
            "the account's network rules do not let this machine in, or the credential does not \
             allow this"
        }
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => {
            "the credential does not allow this; it needs to read and write blobs (the role \
             Storage Blob Data Contributor on the container, or a SAS with `rcw`)"
        }
        "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationSourceIPMismatch" => "the SAS does not cover this request",
        "KeyBasedAuthenticationNotPermitted" => "the account does not allow its key to be used",
        "AccountIsDisabled" => "the storage account is disabled",
        "NoAuthenticationInformation" | "InvalidAuthenticationInfo" => {
            let text = format!("the service does not accept the credential; {hint}");
            return (ErrorKind::Auth, text.into());
        }
        _ => {
            let said = message_in_body(&reply.body).unwrap_or_else(|| match code {
                Some(_) => String::new(),
                None => "the service gave no reason".to_owned(),
            });
            let kind = match reply.status {
                401 | 403 => ErrorKind::Auth,
                429 | 503 => ErrorKind::Throttled,
                408 | 500.. => ErrorKind::Service,
                _ => ErrorKind::Protocol,
            };
            return (kind, said.into());
        }
    };
    (ErrorKind::Auth, text.into())
}

/// Signed requests are refused when the clocks differ by more than 15 minutes.
fn clock_skew(reply: &Reply, sent: OffsetDateTime) -> Option<String> {
    let date = date::parse_http(reply.header("date")?)?;
    let skew = sent - date;
    let minutes = skew.whole_seconds().unsigned_abs() / 60;
    (skew.unsigned_abs() > Duration::from_secs(15 * 60)).then(|| {
        let direction = if skew.is_positive() {
            "ahead of"
        } else {
            "behind"
        };
        format!(
            "this machine's clock is {minutes} minutes {direction} the service's, and 15 are \
             allowed; set the clock"
        )
    })
}

/// Whether it is from a service, or from something else that answered in its place.
fn is_code(code: &String) -> bool {
    (1..=100).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The first line of the message; request ID and time are on the next ones. Other elements may
/// quote the signature, and are never shown.
fn message_in_body(body: &[u8]) -> Option<String> {
    let message = in_error_body(body, "Message")?;
    let line = message.lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    (!line.is_empty()).then_some(line)
}

/// Error bodies are XML with a `Code` and a `Message`, behind a byte order mark.
fn in_error_body(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let document = roxmltree::Document::parse(strip_bom(text)).ok()?;
    let root = document.root_element();
    if !root.has_tag_name("Error") {
        return None;
    }
    Some(text_of(root, name).into_owned()).filter(|text| !text.is_empty())
}

fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: OffsetDateTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => Some(
            (date::parse_http(text)? - now)
                .try_into()
                .unwrap_or(Duration::ZERO),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall() -> OffsetDateTime {
        date::parse_http("Fri, 25 Oct 2019 18:13:24 GMT").unwrap()
    }

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
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

    fn error(status: u16, code: &str) -> Error {
        read_error(
            &reply(status, &[("x-ms-error-code", code)], ""),
            wall(),
            "check it",
        )
    }

    /// An error body as the service writes it.
    fn body(code: &str, message: &str, more: &str) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code>\
             <Message>{message}\nRequestId:5c6c1d0c-001e-0014-555f-8b9b37000000\n\
             Time:2019-10-25T18:13:40.3556484Z</Message>{more}</Error>"
        )
    }

    /// What each code means to who wants, holds, or looks at a lease.
    #[test]
    fn codes_have_their_meaning() {
        use ErrorKind::*;
        use LossReason::*;

        let rows = [
            (409, "LeaseAlreadyPresent", WouldBlock, None),
            (409, "LeaseIsBreakingAndCannotBeAcquired", WouldBlock, None),
            (
                409,
                "LeaseIdMismatchWithLeaseOperation",
                LeaseLost,
                Some(Taken),
            ),
            (
                412,
                "LeaseIdMismatchWithBlobOperation",
                LeaseLost,
                Some(Taken),
            ),
            (
                409,
                "LeaseNotPresentWithLeaseOperation",
                LeaseLost,
                Some(Taken),
            ),
            (
                412,
                "LeaseNotPresentWithBlobOperation",
                LeaseLost,
                Some(Taken),
            ),
            (412, "LeaseLost", LeaseLost, Some(Taken)),
            (
                409,
                "LeaseIsBrokenAndCannotBeRenewed",
                LeaseLost,
                Some(Broken),
            ),
            (
                409,
                "LeaseIsBreakingAndCannotBeChanged",
                LeaseLost,
                Some(Broken),
            ),
            (404, "BlobNotFound", NotFound, None),
            (404, "ContainerNotFound", NotFound, None),
            (404, "ResourceNotFound", NotFound, None),
            (409, "ContainerBeingDeleted", NotFound, None),
            (403, "AuthenticationFailed", Auth, None),
            (403, "AuthorizationFailure", Auth, None),
            (403, "AuthorizationPermissionMismatch", Auth, None),
            (403, "InsufficientAccountPermissions", Auth, None),
            (401, "NoAuthenticationInformation", Auth, None),
            (400, "InvalidAuthenticationInfo", Auth, None),
            (403, "AccountIsDisabled", Auth, None),
            (403, "SomethingNew", Auth, None),
            (503, "ServerBusy", Throttled, None),
            (429, "TooManyRequests", Throttled, None),
            (500, "OperationTimedOut", Service, None),
            (500, "InternalError", Service, None),
            (502, "SomethingNew", Service, None),
            (408, "SomethingNew", Service, None),
            (400, "InvalidHeaderValue", Protocol, None),
            (400, "MissingRequiredHeader", Protocol, None),
            (412, "ConditionNotMet", Protocol, None),
            (409, "SomethingNew", Protocol, None),
        ];
        for (status, code, kind, loss) in rows {
            let error = error(status, code);
            assert_eq!((error.kind(), error.loss_reason()), (kind, loss), "{code}");
            assert_eq!(
                (error.service_code(), error.status()),
                (Some(code), Some(status))
            );
            let refused = matches!(kind, Throttled | Service | Transport);
            assert_eq!(error.is_transient(), refused, "{code}");
        }
    }

    #[test]
    fn code_is_read_from_the_body_when_the_header_is_missing() {
        let body = body(
            "LeaseAlreadyPresent",
            "There is already a lease present.",
            "",
        );
        let error = read_error(&reply(409, &[], &body), wall(), "");
        assert_eq!(error.service_code(), Some("LeaseAlreadyPresent"));
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn unknown_code_keeps_the_first_line_of_its_message() {
        let body = body(
            "SomethingNew",
            "It did not work.",
            "<HeaderName>x</HeaderName>",
        );
        let error = read_error(&reply(418, &[], &body), wall(), "");
        assert_eq!(error.to_string(), "SomethingNew (418): It did not work.");
    }

    #[test]
    fn signature_in_the_body_is_never_shown() {
        let more = "<AuthenticationErrorDetail>The MAC signature found in the HTTP request \
                    's3cret=' is not the same</AuthenticationErrorDetail>";
        let body = body(
            "AuthenticationFailed",
            "Server failed to authenticate.",
            more,
        );
        let error = read_error(
            &reply(403, &[], &body),
            wall(),
            "check the account name and key",
        );
        assert_eq!(
            error.to_string(),
            "AuthenticationFailed (403): the service does not accept the credential; check the \
             account name and key"
        );
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn body_of_something_else_is_not_taken_for_a_code() {
        for body in [
            "<html>no</html>",
            "<Error><Code>a b</Code></Error>",
            "\u{feff}",
            "<Error>",
        ] {
            let error = read_error(&reply(502, &[], body), wall(), "");
            assert_eq!(error.service_code(), None, "{body}");
            assert_eq!(error.kind(), ErrorKind::Service);
        }
        let error = read_error(&reply(502, &[], ""), wall(), "");
        assert_eq!(error.to_string(), "the service gave no reason (status 502)");
    }

    #[test]
    fn header_of_something_else_is_not_taken_for_a_code() {
        for code in ["", "Lease Lost", "<b>", "a\tb", &"a".repeat(101)] {
            let error = error(409, code);
            assert_eq!(
                (error.kind(), error.service_code()),
                (ErrorKind::Protocol, None)
            );
            assert!(
                !error.to_string().contains(code) || code.is_empty(),
                "{error}"
            );
        }
    }

    #[test]
    fn clock_skew_is_told_with_its_size_and_direction() {
        let at = |date| {
            let headers = [("x-ms-error-code", "AuthenticationFailed"), ("date", date)];
            read_error(&reply(403, &headers, ""), wall(), "check it").to_string()
        };
        let ahead = at("Fri, 25 Oct 2019 17:53:24 GMT");
        assert!(
            ahead.contains("clock is 20 minutes ahead of the service's"),
            "{ahead}"
        );
        let behind = at("Fri, 25 Oct 2019 18:28:25 GMT");
        assert!(
            behind.contains("clock is 15 minutes behind the service's"),
            "{behind}"
        );
        let near = at("Fri, 25 Oct 2019 18:28:24 GMT");
        assert!(near.ends_with("check it"), "{near}");
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let asked = |text| {
            let headers = [("x-ms-error-code", "ServerBusy"), ("retry-after", text)];
            read_error(&reply(503, &headers, ""), wall(), "").retry_after()
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            asked("Fri, 25 Oct 2019 18:13:34 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(asked("Fri, 25 Oct 2019 18:13:14 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn status_is_read_from_the_headers() {
        let rows = [
            ("leased", "fixed", LeaseState::Leased, false),
            ("leased", "infinite", LeaseState::Leased, true),
            ("breaking", "", LeaseState::Breaking, false),
            ("broken", "", LeaseState::Broken, false),
            ("expired", "", LeaseState::Expired, false),
            ("available", "", LeaseState::Available, false),
            ("frozen", "", LeaseState::Unknown, false),
        ];
        for (text, duration, state, infinite) in rows {
            let headers = [
                ("x-ms-lease-state", text),
                ("x-ms-lease-duration", duration),
                ("etag", "\"0x8\""),
            ];
            let status = read_status("k", &reply(200, &headers, ""));
            assert_eq!((status.state(), status.is_infinite()), (state, infinite));
            assert_eq!((status.key(), status.etag()), ("k", "\"0x8\""));
        }
    }

    #[test]
    fn page_of_a_list_is_read() {
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
            ServiceEndpoint=\"https://a/\" ContainerName=\"locks\"><Blobs><Blob>\
            <Name>a&amp;b/ü &lt;c&gt;</Name><Properties><Last-Modified>Fri, 25 Oct 2019 18:13:24 GMT\
            </Last-Modified><Etag>0x8D7</Etag><LeaseStatus>locked</LeaseStatus><LeaseState>leased\
            </LeaseState><LeaseDuration>infinite</LeaseDuration></Properties><Metadata>\
            <AzmutexState>held</AzmutexState><azmutexowner>a%20b</azmutexowner>\
            <azmutexfence>7</azmutexfence></Metadata><OrMetadata /></Blob>\
            <Blob><Name>z</Name><Properties><LeaseState>available</LeaseState></Properties></Blob>\
            </Blobs><NextMarker>2!76!m</NextMarker></EnumerationResults>";
        let page = read_page(body.as_bytes()).unwrap();
        let first = &page.blobs[0];
        assert_eq!((first.key(), first.etag()), ("a&b/ü <c>", "\"0x8D7\""));
        assert_eq!(
            (first.state(), first.is_infinite()),
            (LeaseState::Leased, true)
        );
        assert_eq!(first.last_modified(), Some(wall().into()));
        assert_eq!(first.holder().and_then(Holder::owner), Some("a b"));
        assert_eq!(first.fencing_token(), Some(7));
        assert_eq!(page.blobs[1].state(), LeaseState::Available);
        assert_eq!(page.blobs[1].last_holder(), None);
        assert_eq!(page.next.as_deref(), Some("2!76!m"));
    }

    #[test]
    fn empty_page_has_no_next() {
        let body = "<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
        assert_eq!(read_page(body.as_bytes()).unwrap(), Page::default());
    }

    #[test]
    fn list_that_is_none_is_an_error() {
        for (body, rule) in [
            ("", "not XML"),
            ("<html/>", "got <html>"),
            ("<a", "not XML"),
            ("\u{feff}", "not XML"),
        ] {
            let error = read_page(body.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(rule), "{error}");
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        assert!(
            read_page(&[0xff, 0xfe])
                .unwrap_err()
                .to_string()
                .contains("not UTF-8")
        );
    }

    #[test]
    fn reply_without_a_lease_id_is_no_confirmation() {
        for headers in [&[][..], &[("x-ms-lease-id", "not a GUID")]] {
            let error = read_lease_id(&reply(200, headers, "")).unwrap_err();
            assert!(error.is_transient() && error.is_ambiguous());
        }
    }

    #[test]
    fn debug_of_a_request_shows_no_secret() {
        let mut request = release("/c/k", LeaseId::random());
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
