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

/// The blob of a Put Blob request.
#[derive(Debug)]
pub(super) struct NewBlob {
    pub(super) kind: &'static str,
    pub(super) content: Arc<[u8]>,
    pub(super) content_type: String,
    pub(super) metadata: Metadata,
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

/// A page of List Blobs.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) blobs: Vec<(&'a str, &'a Blob)>,
    pub(super) next: Option<&'a str>,
}

/// Everything that the account holds.
#[derive(Debug, Default)]
pub(super) struct Store {
    containers: HashMap<String, Container>,
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
        old.lease.written(now.tick);
        old.data = data;
        old.stamp = stamp;
        Ok(stamp)
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

    /// At most `limit` blobs whose names begin with `prefix`, from the name `from` on.
    pub(super) fn list(
        &mut self,
        container: &str,
        prefix: &str,
        from: &str,
        limit: usize,
    ) -> Result<Page<'_>, Failure> {
        let container = self.live(container)?;
        let start = Bound::Included(from.max(prefix));
        let mut named = (container.blobs)
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, blob)| (name.as_str(), blob));
        let blobs = named.by_ref().take(limit).collect();
        let next = named.next().map(|(name, _)| name);
        Ok(Page { blobs, next })
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
