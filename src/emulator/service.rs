//! PURE: which operation a request asks for, and the reply to it.
//!
//! Headers are checked before anything is looked up.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::auth::ACCOUNT;
use super::failure::{self, Failure};
use super::lease::{Lease, Term};
use super::list;
use super::reply::{Body, Reply};
use super::request::{Request, Target};
use super::store::{Access, Blob, Container, LeaseAction, LeaseOutcome, Metadata, Moment, NewBlob};
use super::store::{Stamp, Store};
use crate::time::dates;

/// Answers a request that is authorized.
pub(super) fn answer(
    store: &mut Store,
    request: &Request<'_>,
    body: &[u8],
    endpoint: &str,
    now: Moment,
) -> Result<Reply, Failure> {
    if let Some(version) = request.header("x-ms-version")
        && !is_version(version)
    {
        return Err(Failure::invalid_header("x-ms-version", version));
    }
    let target = Target::parse(request.path, ACCOUNT)?;
    let access = request.access()?;
    match target {
        Target::Service => Err(failure::NOT_IMPLEMENTED),
        Target::Container(name) => {
            let restype = request.parameter("restype");
            if !restype.eq_ignore_ascii_case("container") {
                return Err(Failure::invalid_query("restype", restype));
            }
            on_container(store, request, name, &access, endpoint, now)
        }
        Target::Blob(container, name) => {
            let on = OnBlob {
                store,
                request,
                container,
                name: &name,
                access,
                now,
            };
            on.answer(body)
        }
    }
}

fn on_container(
    store: &mut Store,
    request: &Request<'_>,
    name: &str,
    access: &Access<'_>,
    endpoint: &str,
    now: Moment,
) -> Result<Reply, Failure> {
    match (request.method, request.parameter("comp")) {
        ("PUT", "") => {
            let stamp = store.create_container(name, request.metadata()?, now)?;
            Ok(stamped(201, &stamp))
        }
        ("GET" | "HEAD", "" | "metadata") => {
            let container = store.container(name, access, now)?;
            Ok(container_properties(container, request, now))
        }
        ("PUT", "metadata") => {
            let metadata = request.metadata()?;
            let stamp = store.set_container_metadata(name, metadata, access, now)?;
            Ok(stamped(200, &stamp))
        }
        ("DELETE", "") => {
            store.delete_container(name, access, now)?;
            Ok(Reply::new(202))
        }
        ("PUT", "lease") => {
            let action = lease_action(request)?;
            let done = store.lease_container(name, action, access, now)?;
            Ok(leased(action, &done))
        }
        ("GET", "list") => {
            let delimiter = request.parameter("delimiter");
            if !delimiter.is_empty() {
                return Err(Failure::invalid_query("delimiter", delimiter));
            }
            let limit = list::page_size(request.parameter("maxresults"))?;
            let from = list::first_name(request.parameter("marker"))?;
            let page = store.list(name, request.parameter("prefix"), &from, limit)?;
            let xml = list::xml(endpoint, name, request, &page, now);
            let reply = Reply::new(200).entity("Content-Type", "application/xml");
            Ok(reply.body(Body::List(xml)))
        }
        (_, comp) => Err(unknown(request, comp)),
    }
}

struct OnBlob<'a> {
    store: &'a mut Store,
    request: &'a Request<'a>,
    container: &'a str,
    name: &'a str,
    access: Access<'a>,
    now: Moment,
}

impl OnBlob<'_> {
    fn answer(self, body: &[u8]) -> Result<Reply, Failure> {
        let Self {
            store,
            request,
            container,
            name,
            access,
            now,
        } = self;
        match (request.method, request.parameter("comp")) {
            ("PUT", "") => {
                let data = new_blob(request, body)?;
                let stamp = store.put_blob(container, name, data, &access, now)?;
                Ok(stamped(201, &stamp).extra("x-ms-request-server-encrypted", "true"))
            }
            ("GET" | "HEAD", "" | "metadata") => {
                let blob = store.blob(container, name, &access, now)?;
                blob_properties(blob, request, now)
            }
            ("PUT", "metadata") => {
                let metadata = request.metadata()?;
                let stamp = store.set_blob_metadata(container, name, metadata, &access, now)?;
                Ok(stamped(200, &stamp).extra("x-ms-request-server-encrypted", "true"))
            }
            ("DELETE", "") => {
                store.delete_blob(container, name, &access, now)?;
                let reply = Reply::new(202);
                Ok(if request.is_since("2020-10-02") {
                    reply.extra("x-ms-delete-type-permanent", "false")
                } else {
                    reply
                })
            }
            ("PUT", "lease") => {
                let action = lease_action(request)?;
                let done = store.lease_blob(container, name, action, &access, now)?;
                Ok(leased(action, &done))
            }
            (_, comp) => Err(unknown(request, comp)),
        }
    }
}

fn unknown(request: &Request<'_>, comp: &str) -> Failure {
    match (request.method, comp) {
        ("GET" | "HEAD" | "PUT" | "DELETE", "" | "lease" | "list" | "metadata") => {
            failure::UNSUPPORTED_HTTP_VERB
        }
        ("GET" | "HEAD" | "PUT" | "DELETE", comp) => Failure::invalid_query("comp", comp),
        _ => failure::UNSUPPORTED_HTTP_VERB,
    }
}

fn is_version(text: &str) -> bool {
    let is_dash = |at| at == 4 || at == 7;
    let mut bytes = text.bytes().enumerate();
    text.len() == 10
        && bytes.all(|(at, byte)| {
            if is_dash(at) {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        })
}

fn stamped(status: u16, stamp: &Stamp) -> Reply {
    Reply::new(status)
        .entity("Last-Modified", dates::http(stamp.modified))
        .entity("ETag", stamp.etag())
}

fn leased(action: LeaseAction, done: &LeaseOutcome) -> Reply {
    let status = match action {
        LeaseAction::Acquire { .. } => 201,
        LeaseAction::Break { .. } => 202,
        _ => 200,
    };
    let mut reply = stamped(status, &done.stamp);
    if let Some(id) = done.id {
        reply = reply.extra("x-ms-lease-id", id.to_string());
    }
    if let Some(time) = done.time {
        // Rounded down.
        reply = reply.extra("x-ms-lease-time", time.as_secs().to_string());
    }
    reply
}

fn lease_action(request: &Request<'_>) -> Result<LeaseAction, Failure> {
    const ACTION: &str = "x-ms-lease-action";
    const PERIOD: &str = "x-ms-lease-break-period";

    let required = |name| request.header(name).ok_or(Failure::missing_header(name));
    let id = || {
        let id = request.guid("x-ms-lease-id")?;
        id.ok_or(Failure::missing_header("x-ms-lease-id"))
    };
    let proposed = request.guid("x-ms-proposed-lease-id");
    let action = required(ACTION)?;
    Ok(match action.to_ascii_lowercase().as_str() {
        "acquire" => {
            let term = lease_term(required("x-ms-lease-duration")?)?;
            let id = proposed?.unwrap_or_else(Uuid::new_v4);
            LeaseAction::Acquire { id, term }
        }
        "renew" => LeaseAction::Renew { id: id()? },
        "change" => {
            let to = proposed?.ok_or(Failure::missing_header("x-ms-proposed-lease-id"))?;
            LeaseAction::Change { id: id()?, to }
        }
        "release" => LeaseAction::Release { id: id()? },
        "break" => {
            let Some(text) = request.header(PERIOD) else {
                return Ok(LeaseAction::Break { period: None });
            };
            let secs = text.parse().ok().filter(|secs| *secs <= 60);
            let secs = secs.ok_or_else(|| Failure::invalid_header(PERIOD, text))?;
            let period = Some(Duration::from_secs(secs));
            LeaseAction::Break { period }
        }
        _ => return Err(Failure::invalid_header(ACTION, action)),
    })
}

/// 15 to 60 seconds, or -1 for an infinite lease.
fn lease_term(text: &str) -> Result<Term, Failure> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(secs @ 15..=60) => Ok(Some(Duration::from_secs(secs.unsigned_abs()))),
        _ => Err(Failure::invalid_header("x-ms-lease-duration", text)),
    }
}

fn new_blob(request: &Request<'_>, body: &[u8]) -> Result<NewBlob, Failure> {
    const KIND: &str = "x-ms-blob-type";

    let kind = match request.header(KIND) {
        Some("BlockBlob") => "BlockBlob",
        Some("AppendBlob") if body.is_empty() => "AppendBlob",
        Some("AppendBlob" | "PageBlob") => return Err(failure::NOT_IMPLEMENTED),
        Some(other) => return Err(Failure::invalid_header(KIND, other)),
        None => return Err(Failure::missing_header(KIND)),
    };
    let content_type = request.header("x-ms-blob-content-type");
    let content_type = content_type.or(request.header("content-type"));
    Ok(NewBlob {
        kind,
        content: Arc::from(body),
        content_type: content_type
            .unwrap_or("application/octet-stream")
            .to_owned(),
        metadata: request.metadata()?,
    })
}

fn container_properties(container: &Container, request: &Request<'_>, now: Moment) -> Reply {
    let mut reply = stamped(200, &container.stamp);
    reply = with_lease(reply, &container.lease, now);
    if request.is_since("2019-02-02") {
        reply = reply
            .extra("x-ms-has-immutability-policy", "false")
            .extra("x-ms-has-legal-hold", "false");
        if request.is_since("2020-10-02") {
            reply = reply.extra("x-ms-immutable-storage-with-versioning-enabled", "false");
        }
        reply = reply
            .extra("x-ms-default-encryption-scope", "$account-encryption-key")
            .extra("x-ms-deny-encryption-scope-override", "false");
    }
    with_metadata(reply, &container.metadata)
}

fn blob_properties(blob: &Blob, request: &Request<'_>, now: Moment) -> Result<Reply, Failure> {
    let length = blob.data.content.len();
    let range = match request.header("x-ms-range").or(request.header("range")) {
        Some(text) if !request.is_head() => parse_range(text, length)?,
        _ => None,
    };
    let status = if range.is_some() { 206 } else { 200 };
    let mut reply = Reply::new(status).entity("Content-Type", &blob.data.content_type);
    if let Some(Range { start, end }) = range {
        let part = format!("bytes {start}-{}/{length}", end - 1);
        reply = reply.entity("Content-Range", part);
    }
    reply = reply
        .entity("Last-Modified", dates::http(blob.stamp.modified))
        .entity("Accept-Ranges", "bytes")
        .entity("ETag", blob.stamp.etag());
    if request.is_head() {
        reply = reply
            .extra("x-ms-access-tier", "Hot")
            .extra("x-ms-access-tier-inferred", "true");
    }
    reply = with_lease(reply, &blob.lease, now)
        .extra("x-ms-blob-type", blob.data.kind)
        .extra("x-ms-server-encrypted", "true")
        .extra("x-ms-creation-time", dates::http(blob.created));
    let content = Arc::clone(&blob.data.content);
    let body = Body::Content(content, range.unwrap_or(0..length));
    Ok(with_metadata(reply, &blob.data.metadata).body(body))
}

fn with_lease(reply: Reply, lease: &Lease, now: Moment) -> Reply {
    let state = lease.state(now.tick);
    let reply = reply
        .extra("x-ms-lease-status", state.status())
        .extra("x-ms-lease-state", state.name());
    match lease.duration_name(now.tick) {
        Some(name) => reply.extra("x-ms-lease-duration", name),
        None => reply,
    }
}

fn with_metadata(reply: Reply, metadata: &Metadata) -> Reply {
    let named = metadata.iter();
    named.fold(reply, |reply, (name, value)| {
        reply.extra(format!("x-ms-meta-{name}"), value.clone())
    })
}

/// The only form that clients of the service use: `bytes=first-[last]`. Others are ignored.
fn parse_range(text: &str, length: usize) -> Result<Option<Range<usize>>, Failure> {
    let parsed = || {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let first: usize = first.parse().ok()?;
        let last: usize = match last {
            "" => usize::MAX,
            last => last.parse().ok()?,
        };
        (first <= last).then_some((first, last))
    };
    match parsed() {
        Some((first, _)) if first >= length => Err(failure::INVALID_RANGE),
        Some((first, last)) => Ok(Some(first..last.saturating_add(1).min(length))),
        None => Ok(None),
    }
}
