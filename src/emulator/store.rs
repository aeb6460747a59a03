//! PURE: containers and blobs, and the operations on them.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api>

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::failure::{self, Failure, Resource};
use super::lease::{Lease, Refusal, Term};
use crate::time::tick::Tick;

/// How long the name of a deleted container cannot be used again.
const DELETING: Duration = Duration::from_secs(30);
/// The ticks of 100 ns from year 1, where ETags count from, to 1970.
const ETAG_EPOCH: i128 = 621_355_968_000_000_000;

/// When a request is handled, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) tick: Tick,
    pub(super) wall: OffsetDateTime,
}

/// Which write last changed a resource, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    etag: u64,
    pub(super) modified: OffsetDateTime,
}

impl Stamp {
    /// The ETag without its quotes.
    pub(super) fn bare_etag(&self) -> String {
        format!("0x{:X}", self.etag)
    }

    pub(super) fn etag(&self) -> String {
        format!("\"0x{:X}\"", self.etag)
    }
}

/// Names, in the case they were sent in, and their values; sorted.
pub(super) type Metadata = Vec<(String, String)>;

/// The conditions under which a request is carried out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Access<'a> {
    pub(super) lease_id: Option<Uuid>,
    pub(super) if_match: Option<&'a str>,
    pub(super) if_none_match: Option<&'a str>,
    pub(super) if_modified_since: Option<OffsetDateTime>,
    pub(super) if_unmodified_since: Option<OffsetDateTime>,
    /// Whether it is refused if the blob is there.
    pub(super) never_overwrites: bool,
}

impl Access<'_> {
    fn check_conditions(&self, stamp: &Stamp, refusal: u16) -> Result<(), Failure> {
        let etag = stamp.etag();
        // Dates on the wire have no fractions of a second.
        let modified = stamp.modified.unix_timestamp();
        if self.if_match.is_some_and(|tag| tag != "*" && tag != etag)
            || (self.if_unmodified_since).is_some_and(|date| modified > date.unix_timestamp())
        {
            return Err(failure::CONDITION_NOT_MET);
        }
        if self
            .if_none_match
            .is_some_and(|tag| tag == "*" || tag == etag)
            || (self.if_modified_since).is_some_and(|date| modified <= date.unix_timestamp())
        {
            return Err(Failure {
                status: refusal,
                ..failure::CONDITION_NOT_MET
            });
        }
        Ok(())
    }

    fn check_read(&self, resource: Resource, lease: &Lease, stamp: &Stamp, now: Moment) -> Checked {
        let allowed = lease.check_read(self.lease_id, now.tick);
        allowed.map_err(|refusal| refusal.of(resource))?;
        self.check_conditions(stamp, 304)
    }

    /// The lease is checked before the conditions.
    fn check_write(
        &self,
        resource: Resource,
        lease: &Lease,
        stamp: &Stamp,
        now: Moment,
    ) -> Checked {
        let allowed = lease.check_write(self.lease_id, now.tick);
        allowed.map_err(|refusal| refusal.of(resource))?;
        self.check_conditions(stamp, 412)
    }
}

type Checked = Result<(), Failure>;

/// What a write makes of a block blob.
#[derive(Debug)]
pub(super) struct NewBlob {
    pub(super) content: Arc<[u8]>,
    /// The properties of the content, such as `Content-Type`.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) metadata: Metadata,
    /// The committed blocks, if the blob was made of such.
    pub(super) blocks: Vec<BlockSize>,
}

/// A block's ID, base64-encoded, and its size in bytes.
pub(super) type BlockSize = (String, usize);

/// Which of the blocks that have an ID a block list means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockSource {
    Committed,
    Uncommitted,
    Latest,
}

/// The blocks of a blob, and the blob if it is there.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    pub(super) blob: Option<&'a Blob>,
    pub(super) uncommitted: Vec<BlockSize>,
}

#[derive(Debug)]
pub(super) struct Blob {
    pub(super) data: NewBlob,
    pub(super) stamp: Stamp,
    pub(super) created: OffsetDateTime,
    pub(super) lease: Lease,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) metadata: Metadata,
    pub(super) stamp: Stamp,
    pub(super) lease: Lease,
    blobs: BTreeMap<String, Blob>,
    /// By the name of their blob, which need not be there.
    uncommitted: HashMap<String, BTreeMap<String, Arc<[u8]>>>,
    deleted: Option<Tick>,
}

/// One action of Lease Blob or Lease Container.
#[derive(Debug, Clone, Copy)]
pub(super) enum LeaseAction {
    Acquire { id: Uuid, term: Term },
    Renew { id: Uuid },
    Change { id: Uuid, to: Uuid },
    Release { id: Uuid },
    Break { period: Term },
}

/// The result of a lease action that succeeded.
#[derive(Debug)]
pub(super) struct LeaseOutcome {
    pub(super) stamp: Stamp,
    pub(super) id: Option<Uuid>,
    pub(super) time: Option<Duration>,
}

/// A page of a list: names with what they are, and the name after them.
#[derive(Debug)]
pub(super) struct Page<'a, T> {
    pub(super) entries: Vec<(&'a str, T)>,
    pub(super) next: Option<&'a str>,
}

/// Everything that the account holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    containers: BTreeMap<String, Container>,
    last_etag: u64,
}

impl Store {
    pub(super) fn create_container(
        &mut self,
        name: &str,
        metadata: Metadata,
        now: Moment,
    ) -> Result<Stamp, Failure> {
        match self.containers.get(name).map(|container| container.deleted) {
            Some(None) => return Err(failure::CONTAINER_ALREADY_EXISTS),
            Some(Some(deleted)) if now.tick < deleted + DELETING => {
                return Err(failure::CONTAINER_BEING_DELETED);
            }
            _ => {}
        }
        let stamp = self.stamp(now);
        let container = Container {
            metadata,
            stamp,
            lease: Lease::default(),
            blobs: BTreeMap::new(),
            uncommitted: HashMap::new(),
            deleted: None,
        };
        self.containers.insert(name.to_owned(), container);
        Ok(stamp)
    }

    /// The properties of a container.
    pub(super) fn container(
        &mut self,
        name: &str,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<&Container, Failure> {
        let container = self.live(name)?;
        access.check_read(Resource::Container, &container.lease, &container.stamp, now)?;
        Ok(container)
    }

    /// A container's lease protects it only from deletion, so this needs no lease ID.
    pub(super) fn set_container_metadata(
        &mut self,
        name: &str,
        metadata: Metadata,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<Stamp, Failure> {
        let stamp = self.stamp(now);
        let container = self.live(name)?;
        access.check_read(Resource::Container, &container.lease, &container.stamp, now)?;
        container.metadata = metadata;
        container.stamp = stamp;
        Ok(stamp)
    }

    /// Deleting it again while it is being deleted succeeds.
    pub(super) fn delete_container(
        &mut self,
        name: &str,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<(), Failure> {
        let container = self.containers.get_mut(name);
        let container = container.ok_or(failure::CONTAINER_NOT_FOUND)?;
        match container.deleted {
            Some(deleted) if now.tick < deleted + DELETING => Ok(()),
            Some(_) => Err(failure::CONTAINER_NOT_FOUND),
            None => {
                access.check_write(Resource::Container, &container.lease, &container.stamp, now)?;
                container.deleted = Some(now.tick);
                container.blobs.clear();
                container.uncommitted.clear();
                Ok(())
            }
        }
    }

    pub(super) fn lease_container(
        &mut self,
        name: &str,
        action: LeaseAction,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<LeaseOutcome, Failure> {
        let container = self.live(name)?;
        access.check_conditions(&container.stamp, 412)?;
        let done = lease(&mut container.lease, container.stamp, action, now.tick);
        done.map_err(|refusal| refusal.of(Resource::Container))
    }

    pub(super) fn put_blob(
        &mut self,
        container: &str,
        name: &str,
        data: NewBlob,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<Stamp, Failure> {
        let stamp = self.stamp(now);
        let container = self.live(container)?;
        let Some(old) = container.blobs.get_mut(name) else {
            if access.if_match.is_some() {
                return Err(failure::CONDITION_NOT_MET);
            }
            let blob = Blob {
                data,
                stamp,
                created: now.wall,
                lease: Lease::default(),
            };
            container.blobs.insert(name.to_owned(), blob);
            container.uncommitted.remove(name);
            return Ok(stamp);
        };
        let mut access = *access;
        if access.if_none_match == Some("*") {
            let allowed = old.lease.check_write(access.lease_id, now.tick);
            allowed.map_err(|refusal| refusal.of(Resource::Blob))?;
            if access.lease_id.is_none() {
                return Err(failure::BLOB_ALREADY_EXISTS);
            }
            // A client that names the current lease knows the blob: the service overwrites it.
            access.if_none_match = None;
        }
        access.check_write(Resource::Blob, &old.lease, &old.stamp, now)?;
        if access.never_overwrites {
            return Err(failure::UNAUTHORIZED_BLOB_OVERWRITE);
        }
        old.lease.written(now.tick);
        old.data = data;
        old.stamp = stamp;
        container.uncommitted.remove(name);
        Ok(stamp)
    }

    /// Keeps a block until a block list commits it, or another write drops it.
    ///
    /// `id`: base64-encoded.
    pub(super) fn put_block(
        &mut self,
        container: &str,
        name: &str,
        id: &str,
        content: &[u8],
        access: &Access<'_>,
        now: Moment,
    ) -> Result<(), Failure> {
        let container = self.live(container)?;
        let lease = container.blobs.get(name).map(|blob| blob.lease);
        let allowed = lease
            .unwrap_or_default()
            .check_write(access.lease_id, now.tick);
        allowed.map_err(|refusal| refusal.of(Resource::Blob))?;
        let blocks = container.uncommitted.entry(name.to_owned()).or_default();
        // All IDs of a blob have the same length.
        if blocks.keys().any(|other| other.len() != id.len()) {
            return Err(failure::INVALID_BLOB_OR_BLOCK);
        }
        blocks.insert(id.to_owned(), Arc::from(content));
        Ok(())
    }

    /// Puts the blob together from its blocks. `data`: all but its content and blocks.
    pub(super) fn put_block_list(
        &mut self,
        container: &str,
        name: &str,
        list: &[(BlockSource, String)],
        mut data: NewBlob,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<Stamp, Failure> {
        let found = self.live(container)?;
        let committed = found.blobs.get(name).map(Blob::blocks).unwrap_or_default();
        let uncommitted = found.uncommitted.get(name);
        let mut content = Vec::new();
        for (source, id) in list {
            let new = || Some(&**uncommitted?.get(id)?);
            let old = || committed.get(id.as_str()).copied();
            let bytes = match source {
                BlockSource::Committed => old(),
                BlockSource::Uncommitted => new(),
                BlockSource::Latest => new().or_else(old),
            };
            let bytes = bytes.ok_or(failure::INVALID_BLOCK_LIST)?;
            content.extend_from_slice(bytes);
            data.blocks.push((id.clone(), bytes.len()));
        }
        data.content = Arc::from(content);
        self.put_blob(container, name, data, access, now)
    }

    pub(super) fn block_list(
        &mut self,
        container: &str,
        name: &str,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<Blocks<'_>, Failure> {
        let container = self.live(container)?;
        let uncommitted = container.uncommitted.get(name);
        let blob = container.blobs.get(name);
        if blob.is_none() && uncommitted.is_none() {
            return Err(failure::BLOB_NOT_FOUND);
        }
        let lease = blob.map(|blob| blob.lease).unwrap_or_default();
        let allowed = lease.check_read(access.lease_id, now.tick);
        allowed.map_err(|refusal| refusal.of(Resource::Blob))?;
        let sizes = uncommitted.into_iter().flatten();
        Ok(Blocks {
            blob,
            uncommitted: sizes.map(|(id, bytes)| (id.clone(), bytes.len())).collect(),
        })
    }

    /// A blob that is to be read.
    pub(super) fn blob(
        &mut self,
        container: &str,
        name: &str,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<&Blob, Failure> {
        let blob = self.live(container)?.blob(name)?;
        access.check_read(Resource::Blob, &blob.lease, &blob.stamp, now)?;
        Ok(blob)
    }

    pub(super) fn set_blob_metadata(
        &mut self,
        container: &str,
        name: &str,
        metadata: Metadata,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<Stamp, Failure> {
        let stamp = self.stamp(now);
        let blob = self.live(container)?.blob(name)?;
        access.check_write(Resource::Blob, &blob.lease, &blob.stamp, now)?;
        blob.lease.written(now.tick);
        blob.data.metadata = metadata;
        blob.stamp = stamp;
        Ok(stamp)
    }

    pub(super) fn delete_blob(
        &mut self,
        container: &str,
        name: &str,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<(), Failure> {
        let container = self.live(container)?;
        let blob = container.blob(name)?;
        access.check_write(Resource::Blob, &blob.lease, &blob.stamp, now)?;
        container.blobs.remove(name);
        container.uncommitted.remove(name);
        Ok(())
    }

    pub(super) fn lease_blob(
        &mut self,
        container: &str,
        name: &str,
        action: LeaseAction,
        access: &Access<'_>,
        now: Moment,
    ) -> Result<LeaseOutcome, Failure> {
        let blob = self.live(container)?.blob(name)?;
        access.check_conditions(&blob.stamp, 412)?;
        let done = lease(&mut blob.lease, blob.stamp, action, now.tick);
        done.map_err(|refusal| refusal.of(Resource::Blob))
    }

    /// At most `limit` containers whose names begin with `prefix`, from the name `from` on.
    pub(super) fn list_containers<'a>(
        &'a self,
        prefix: &'a str,
        from: &str,
        limit: usize,
    ) -> Page<'a, &'a Container> {
        let named = range(&self.containers, prefix, from);
        page(
            named.filter(|(_, container)| container.deleted.is_none()),
            limit,
        )
    }

    /// At most `limit` blobs whose names begin with `prefix`, from the name `from` on. The names
    /// that are the same up to the first `delimiter` after the prefix are one entry without a blob.
    pub(super) fn list<'a>(
        &'a mut self,
        container: &str,
        prefix: &'a str,
        delimiter: &str,
        from: &str,
        limit: usize,
    ) -> Result<Page<'a, Option<&'a Blob>>, Failure> {
        let container = self.live(container)?;
        let mut last = "";
        let named = range(&container.blobs, prefix, from).filter_map(|(name, blob)| {
            let behind = &name[prefix.len()..];
            let common = match delimiter {
                "" => None,
                _ => behind.find(delimiter),
            };
            let Some(at) = common else {
                return Some((name, Some(blob)));
            };
            let common = &name[..prefix.len() + at + delimiter.len()];
            let is_new = last != common;
            last = common;
            is_new.then_some((common, None))
        });
        Ok(page(named, limit))
    }

    fn live(&mut self, name: &str) -> Result<&mut Container, Failure> {
        let container = self.containers.get_mut(name);
        container
            .filter(|container| container.deleted.is_none())
            .ok_or(failure::CONTAINER_NOT_FOUND)
    }

    /// A stamp that differs from all before, even if the clock stands still.
    fn stamp(&mut self, now: Moment) -> Stamp {
        let ticks = now.wall.unix_timestamp_nanos() / 100 + ETAG_EPOCH;
        self.last_etag = u64::try_from(ticks).unwrap_or(0).max(self.last_etag + 1);
        Stamp {
            etag: self.last_etag,
            modified: now.wall,
        }
    }
}

/// The entries whose names begin with `prefix`, from `from` on.
fn range<'a, T>(
    map: &'a BTreeMap<String, T>,
    prefix: &'a str,
    from: &str,
) -> impl Iterator<Item = (&'a str, &'a T)> {
    let start = Bound::Included(from.max(prefix));
    map.range::<str, _>((start, Bound::Unbounded))
        .take_while(move |(name, _)| name.starts_with(prefix))
        .map(|(name, value)| (name.as_str(), value))
}

fn page<'a, T>(mut named: impl Iterator<Item = (&'a str, T)>, limit: usize) -> Page<'a, T> {
    let entries = named.by_ref().take(limit).collect();
    let next = named.next().map(|(name, _)| name);
    Page { entries, next }
}

impl Blob {
    /// The committed blocks with their bytes.
    fn blocks(&self) -> HashMap<&str, &[u8]> {
        let mut rest = &*self.data.content;
        let blocks = self.data.blocks.iter().map(|(id, size)| {
            let (block, behind) = rest.split_at(*size);
            rest = behind;
            (id.as_str(), block)
        });
        blocks.collect()
    }
}

impl Container {
    fn blob(&mut self, name: &str) -> Result<&mut Blob, Failure> {
        self.blobs.get_mut(name).ok_or(failure::BLOB_NOT_FOUND)
    }
}

/// Lease actions leave the stamp as it is.
fn lease(
    lease: &mut Lease,
    stamp: Stamp,
    action: LeaseAction,
    now: Tick,
) -> Result<LeaseOutcome, Refusal> {
    let (mut shown, mut time) = (None, None);
    match action {
        LeaseAction::Acquire { id, term } => {
            lease.acquire(id, term, now)?;
            shown = Some(id);
        }
        LeaseAction::Renew { id } => {
            lease.renew(id, now)?;
            shown = Some(id);
        }
        LeaseAction::Change { id, to } => {
            lease.change(id, to, now)?;
            shown = Some(to);
        }
        LeaseAction::Release { id } => lease.release(id)?,
        LeaseAction::Break { period } => time = Some(lease.break_lease(period, now)?),
    }
    Ok(LeaseOutcome {
        stamp,
        id: shown,
        time,
    })
}

#[cfg(test)]
mod tests;
