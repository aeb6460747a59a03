//! PURE: carries out a request that is authorized, and makes the reply to it.
//!
//! Headers are checked before anything is looked up.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use uuid::Uuid;

use super::block_list;
use super::failure::{self, Failure};
use super::lease::{Lease, Term};
use super::list::{self, Query};
use super::operation::{Operation, is_version};
use super::reply::{Body, Reply};
use super::request::{Request, Target};
use super::store::{Access, Blob, Blocks, Container, LeaseAction, LeaseOutcome, Metadata, Moment};
use super::store::{NewBlob, Stamp, Store};
use crate::time::dates;

/// A request that is authorized, and where and when it is carried out.
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    pub(super) request: &'a Request<'a>,
    pub(super) by_sas: bool,
    pub(super) may_overwrite: bool,
    pub(super) body: &'a [u8],
    /// The account's, without a trailing slash.
    pub(super) endpoint: &'a str,
    pub(super) now: Moment,
}

impl Call<'_> {
    pub(super) fn answer(&self, store: &mut Store, target: &Target<'_>) -> Result<Reply, Failure> {
        match self.request.version() {
            None => return Err(Failure::missing_header("x-ms-version")),
            Some(version) if !is_version(version) => {
                return Err(Failure::invalid_header("x-ms-version", version));
            }
            Some(_) => {}
        }
        self.operation.check_form(self.request, self.by_sas)?;
        let mut access = self.request.access()?;
        access.never_overwrites = !self.may_overwrite;
        match target {
            Target::Service => self.list_containers(store),
            Target::Container(name) => self.on_container(store, name, &access),
            Target::Blob(container, name) => self.on_blob(store, container, name, &access),
        }
    }

    fn list_containers(&self, store: &Store) -> Result<Reply, Failure> {
        let query = Query::read(self.request)?;
        let page = store.list_containers(query.prefix, &query.from, query.limit);
        let xml = list::containers(self.endpoint, &query, &page, self.now);
        Ok(document(xml))
    }

    fn on_container(
        &self,
        store: &mut Store,
        name: &str,
        access: &Access<'_>,
    ) -> Result<Reply, Failure> {
        let (request, now) = (self.request, self.now);
        match self.operation {
            Operation::CreateContainer => {
                let stamp = store.create_container(name, request.metadata()?, now)?;
                Ok(stamped(201, &stamp))
            }
            Operation::GetContainer => {
                let container = store.container(name, access, now)?;
                Ok(container_properties(container, request, now))
            }
            Operation::SetContainerMetadata => {
                let metadata = request.metadata()?;
                let stamp = store.set_container_metadata(name, metadata, access, now)?;
                Ok(stamped(200, &stamp))
            }
            Operation::DeleteContainer => {
                store.delete_container(name, access, now)?;
                Ok(Reply::new(202))
            }
            Operation::LeaseContainer => {
                let action = lease_action(request)?;
                let done = store.lease_container(name, action, access, now)?;
                Ok(leased(action, &done))
            }
            Operation::ListBlobs => {
                let query = Query::read(request)?;
                let (prefix, delimiter) = (query.prefix, query.delimiter);
                let page = store.list(name, prefix, delimiter, &query.from, query.limit)?;
                Ok(document(list::blobs(
                    self.endpoint,
                    name,
                    &query,
                    &page,
                    now,
                )))
            }
            _ => Err(failure::NOT_IMPLEMENTED),
        }
    }

    fn on_blob(
        &self,
        store: &mut Store,
        container: &str,
        name: &str,
        access: &Access<'_>,
    ) -> Result<Reply, Failure> {
        let (request, now) = (self.request, self.now);
        match self.operation {
            Operation::PutBlob => {
                let data = new_blob(request, self.body)?;
                let md5 = md5(self.body);
                let stamp = store.put_blob(container, name, data, access, now)?;
                Ok(written(201, &stamp, &md5))
            }
            Operation::PutBlock => {
                let md5 = check_md5(request.header("content-md5"), self.body)?;
                let id = block_id(request)?;
                store.put_block(container, name, id, self.body, access, now)?;
                let reply = Reply::new(201).entity("Content-MD5", md5);
                Ok(reply.extra("x-ms-request-server-encrypted", "true"))
            }
            Operation::PutBlockList => {
                let md5 = check_md5(request.header("content-md5"), self.body)?;
                let list = block_list::read(self.body)?;
                let data = NewBlob {
                    content: Arc::from([]),
                    headers: with_content_type(request.content(false)),
                    metadata: request.metadata()?,
                    blocks: Vec::new(),
                };
                let stamp = store.put_block_list(container, name, &list, data, access, now)?;
                Ok(written(201, &stamp, &md5))
            }
            Operation::GetBlockList => {
                let kind = BlockKind::read(request.parameter("blocklisttype"))?;
                Ok(blocks(
                    &store.block_list(container, name, access, now)?,
                    kind,
                ))
            }
            Operation::GetBlob => {
                let blob = store.blob(container, name, access, now)?;
                if request.parameter("comp") == "metadata" {
                    return Ok(with_metadata(
                        stamped(200, &blob.stamp),
                        &blob.data.metadata,
                    ));
                }
                blob_properties(blob, request, now)
            }
            Operation::SetBlobMetadata => {
                let metadata = request.metadata()?;
                let stamp = store.set_blob_metadata(container, name, metadata, access, now)?;
                Ok(stamped(200, &stamp).extra("x-ms-request-server-encrypted", "true"))
            }
            Operation::DeleteBlob => {
                // There are no snapshots, so that `only` them would delete nothing.
                if let Some(snapshots) = request.header("x-ms-delete-snapshots")
                    && !snapshots.eq_ignore_ascii_case("include")
                {
                    let header = "x-ms-delete-snapshots";
                    return Err(Failure::unsupported_header(header, snapshots));
                }
                store.delete_blob(container, name, access, now)?;
                let reply = Reply::new(202);
                Ok(if request.is_since("2020-10-02") {
                    reply.extra("x-ms-delete-type-permanent", "false")
                } else {
                    reply
                })
            }
            Operation::LeaseBlob => {
                let action = lease_action(request)?;
                let done = store.lease_blob(container, name, action, access, now)?;
                Ok(leased(action, &done))
            }
            _ => Err(failure::NOT_IMPLEMENTED),
        }
    }
}

fn document(xml: String) -> Reply {
    let reply = Reply::new(200).entity("Content-Type", "application/xml");
    reply.body(Body::List(xml))
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

    match request.header(KIND) {
        Some("BlockBlob") => {}
        Some(kind @ ("AppendBlob" | "PageBlob")) => {
            return Err(Failure::unsupported_header(KIND, kind));
        }
        Some(other) => return Err(Failure::invalid_header(KIND, other)),
        None => return Err(Failure::missing_header(KIND)),
    }
    for header in ["content-md5", "x-ms-blob-content-md5"] {
        check_md5(request.header(header), body)?;
    }
    let mut headers = with_content_type(request.content(true));
    if !headers.iter().any(|(name, _)| *name == "Content-MD5") {
        headers.insert(1, ("Content-MD5", md5(body)));
    }
    Ok(NewBlob {
        content: Arc::from(body),
        headers,
        metadata: request.metadata()?,
        blocks: Vec::new(),
    })
}

/// Every blob has a content type, and it comes first.
fn with_content_type(mut headers: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    if headers
        .first()
        .is_none_or(|(name, _)| *name != "Content-Type")
    {
        headers.insert(0, ("Content-Type", "application/octet-stream".to_owned()));
    }
    headers
}

/// The MD5 of the body, base64-encoded, if it is what the header says.
fn check_md5(header: Option<&str>, body: &[u8]) -> Result<String, Failure> {
    let md5 = md5(body);
    match header {
        Some(text) if STANDARD.decode(text).map_or(0, |bytes| bytes.len()) != 16 => {
            Err(failure::INVALID_MD5)
        }
        Some(text) if text != md5 => Err(failure::MD5_MISMATCH),
        _ => Ok(md5),
    }
}

fn md5(body: &[u8]) -> String {
    STANDARD.encode(Md5::digest(body))
}

/// The ID of a block: 1 to 64 bytes, base64-encoded.
fn block_id<'a>(request: &'a Request<'_>) -> Result<&'a str, Failure> {
    let id = request.parameter("blockid");
    match STANDARD.decode(id) {
        Ok(bytes) if (1..=64).contains(&bytes.len()) => Ok(id),
        _ => Err(failure::INVALID_BLOCK_ID),
    }
}

/// Which blocks a list shows.
#[derive(Clone, Copy)]
struct BlockKind {
    committed: bool,
    uncommitted: bool,
}

impl BlockKind {
    fn read(text: &str) -> Result<Self, Failure> {
        let (committed, uncommitted) = match text.to_ascii_lowercase().as_str() {
            "" | "committed" => (true, false),
            "uncommitted" => (false, true),
            "all" => (true, true),
            _ => return Err(Failure::invalid_query("blocklisttype", text)),
        };
        Ok(Self {
            committed,
            uncommitted,
        })
    }
}

fn blocks(blocks: &Blocks<'_>, kind: BlockKind) -> Reply {
    let committed = blocks.blob.map_or(&[][..], |blob| &blob.data.blocks);
    let xml = block_list::xml(
        kind.committed.then_some(committed),
        kind.uncommitted.then_some(&blocks.uncommitted),
    );
    let length = blocks.blob.map_or(0, |blob| blob.data.content.len());
    let reply = match blocks.blob {
        Some(blob) => stamped(200, &blob.stamp),
        None => Reply::new(200),
    };
    let reply = reply.entity("Content-Type", "application/xml");
    reply
        .extra("x-ms-blob-content-length", length.to_string())
        .body(Body::List(xml))
}

/// The reply to a write of content. `md5`: that of the body.
fn written(status: u16, stamp: &Stamp, md5: &str) -> Reply {
    Reply::new(status)
        .entity("Content-MD5", md5)
        .entity("Last-Modified", dates::http(stamp.modified))
        .entity("ETag", stamp.etag())
        .extra("x-ms-request-server-encrypted", "true")
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
        Some(text) => Some(parse_range(text, length)?),
        None => None,
    };
    let status = if range.is_some() { 206 } else { 200 };
    let mut reply = Reply::new(status);
    for (name, value) in &blob.data.headers {
        // The hash is that of the whole.
        if range.is_none() || *name != "Content-MD5" {
            reply = reply.entity(name, value);
        } else {
            reply = reply.extra("x-ms-blob-content-md5", value.clone());
        }
    }
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
        .extra("x-ms-blob-type", "BlockBlob")
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

/// `bytes=first-[last]`, the one form that the service documents. It ignores others; here they are
/// refused.
fn parse_range(text: &str, length: usize) -> Result<Range<usize>, Failure> {
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
        Some((first, last)) => Ok(first..last.saturating_add(1).min(length)),
        None => Err(Failure::invalid_header("Range", text)),
    }
}
