//! The lease machine of the Blob service, with whole ticks for time.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>

use std::hash::{Hash, Hasher};

use crate::client::View;

/// How many ticks a lease lasts.
pub(crate) const DURATION: u8 = if cfg!(feature = "large") { 6 } else { 4 };

/// A lease ID. One client's acquisitions have consecutive ones.
pub(crate) type Id = u8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// `None`: deleted.
    blob: Option<Blob>,
    /// ETags are never used twice.
    etags: u8,
    /// GHOST: how often the lease went to another ID than before, and the last one.
    tenure: u8,
    last: Option<Id>,
    /// GHOST: the IDs whose lease somebody ended before its time, as a set of bits.
    cut: u16,
    /// Whether renewing an expired lease with a wrong ID revives the right one, as in Azurite.
    revives: bool,
    /// Whether acquiring an active lease again leaves its end where it was. No service is known
    /// that does.
    keeps_end: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Blob {
    lease: Option<Lease>,
    etag: u8,
    stored: Option<Stored>,
}

/// A fencing token in the metadata, and who wrote it when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    pub(crate) token: u64,
    pub(crate) writer: u8,
    pub(crate) wall: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    id: Id,
    until: u8,
    breaking: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Available,
    Leased,
    Breaking,
    Broken,
    Expired,
}

/// What is asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Op {
    Acquire,
    Renew,
    Release,
    /// With period 0.
    Break,
    Create,
    /// Get Blob Properties under the lease.
    Read,
    /// Set Blob Metadata under the lease.
    Store {
        if_match: Option<u8>,
        token: u64,
        wall: u8,
    },
    /// A write to the content, under the lease or without.
    Write {
        under: bool,
        /// GHOST: the tenure that the client writes in.
        tenure: u8,
    },
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// 201 or 200, with the lease ID, the blob's ETag, and as a GHOST the tenure.
    Leased {
        id: Id,
        etag: u8,
        tenure: u8,
    },
    Done,
    Found {
        etag: u8,
        stored: Option<Stored>,
    },
    Stored {
        etag: u8,
    },
    /// 409 or 412: somebody else's lease, or none.
    NotYours,
    /// 409 `LeaseIsBrokenAndCannotBeRenewed`.
    Broken,
    /// 412 `ConditionNotMet`.
    ConditionNotMet,
    NotFound,
    /// 503: nothing was done.
    Busy,
}

impl Service {
    pub(crate) fn new(revives: bool, keeps_end: bool) -> Self {
        let blob = Blob {
            lease: None,
            etag: 0,
            stored: None,
        };
        Self {
            blob: Some(blob),
            etags: 0,
            tenure: 0,
            last: None,
            cut: 0,
            revives,
            keeps_end,
        }
    }

    pub(crate) fn handle(&mut self, now: u8, from: u8, id: Id, op: Op) -> Reply {
        if let Op::Create = op {
            if self.blob.is_none() {
                self.etags += 1;
                self.blob = Some(Blob {
                    lease: None,
                    etag: self.etags,
                    stored: None,
                });
            }
            return Reply::Done;
        }
        if let Op::Break = op {
            return self.break_lease(now, Some(0));
        }
        let (revives, keeps_end, next_etag) = (self.revives, self.keeps_end, self.etags + 1);
        let Some(blob) = &mut self.blob else {
            return Reply::NotFound;
        };
        let state = Lease::state(blob.lease.as_ref(), now);
        let ours = blob.lease.as_ref().is_some_and(|lease| lease.id == id);
        let writable = ours && matches!(state, State::Leased | State::Breaking);
        let new = Lease {
            id,
            until: now + DURATION,
            breaking: false,
        };
        match op {
            Op::Acquire => match state {
                State::Leased if !ours => Reply::NotYours,
                State::Breaking => Reply::NotYours,
                State::Leased if keeps_end => self.leased(id),
                _ => {
                    blob.lease = Some(new);
                    self.leased(id)
                }
            },
            Op::Renew => match state {
                State::Leased | State::Expired if ours => {
                    blob.lease = Some(new);
                    self.leased(id)
                }
                State::Breaking | State::Broken if ours => Reply::Broken,
                State::Expired if revives => {
                    let id = blob.lease.as_ref().map_or(id, |lease| lease.id);
                    blob.lease = Some(Lease { id, ..new });
                    self.leased(id)
                }
                _ => Reply::NotYours,
            },
            Op::Release if ours => {
                blob.lease = None;
                Reply::Done
            }
            Op::Read if writable => Reply::Found {
                etag: blob.etag,
                stored: blob.stored,
            },
            Op::Store { if_match, .. } if writable && if_match.is_some_and(|e| e != blob.etag) => {
                Reply::ConditionNotMet
            }
            Op::Store { token, wall, .. } if writable => {
                let writer = from;
                let stored = Stored {
                    token,
                    writer,
                    wall,
                };
                (blob.stored, blob.etag) = (Some(stored), next_etag);
                self.etags = next_etag;
                Reply::Stored { etag: next_etag }
            }
            Op::Write { under: true, .. } if writable => {
                blob.etag = next_etag;
                self.etags = next_etag;
                Reply::Done
            }
            Op::Write { under: false, .. } => self.write_without_id(now),
            _ => Reply::NotYours,
        }
    }

    /// An operator breaks whatever lease there is.
    pub(crate) fn interfere(&mut self, now: u8, period: Option<u8>) {
        let (holder, end) = (self.holder(now), self.end());
        self.break_lease(now, period);
        if let Some(id) = holder
            && self.end() < end
        {
            self.cut |= 1 << id;
        }
    }

    fn end(&self) -> Option<u8> {
        Some(self.blob.as_ref()?.lease.as_ref()?.until)
    }

    fn break_lease(&mut self, now: u8, period: Option<u8>) -> Reply {
        let Some(blob) = &mut self.blob else {
            return Reply::NotFound;
        };
        let state = Lease::state(blob.lease.as_ref(), now);
        let Some(lease) = &mut blob.lease else {
            return Reply::NotYours;
        };
        lease.breaking = true;
        if let (State::Leased | State::Breaking, Some(period)) = (state, period)
            && now + period < lease.until
        {
            lease.until = now + period;
        }
        Reply::Done
    }

    /// A write by somebody who has no lease ID, to a blob whose metadata it replaces.
    pub(crate) fn write_without_id(&mut self, now: u8) -> Reply {
        let Some(blob) = &mut self.blob else {
            return Reply::NotFound;
        };
        match Lease::state(blob.lease.as_ref(), now) {
            State::Leased | State::Breaking => Reply::NotYours,
            _ => {
                self.etags += 1;
                *blob = Blob {
                    lease: None,
                    etag: self.etags,
                    stored: None,
                };
                Reply::Done
            }
        }
    }

    /// The blob goes with its container, whether it is leased or not.
    pub(crate) fn delete(&mut self, now: u8) {
        if let Some(id) = self.holder(now) {
            self.cut |= 1 << id;
        }
        self.blob = None;
    }

    pub(crate) fn exists(&self) -> bool {
        self.blob.is_some()
    }

    /// Whose lease keeps others out.
    pub(crate) fn holder(&self, now: u8) -> Option<Id> {
        let lease = self.blob.as_ref()?.lease.as_ref()?;
        (now < lease.until).then_some(lease.id)
    }

    pub(crate) fn tenure(&self) -> u8 {
        self.tenure
    }

    pub(crate) fn was_cut(&self, id: Id) -> bool {
        self.cut & 1 << id != 0
    }

    pub(crate) fn stored(&self) -> Option<Stored> {
        self.blob.as_ref()?.stored
    }

    /// Tells this state from others, but for the time that it is: only differences matter.
    pub(crate) fn hash(&self, view: &View<'_>, state: &mut impl Hasher) {
        let more_than_one = self.tenure.min(2);
        (self.etags, more_than_one, self.last, self.cut).hash(state);
        self.blob.is_some().hash(state);
        if let Some(blob) = &self.blob {
            let stored = blob
                .stored
                .map(|stored| (view.token(stored.token), stored.writer));
            (blob.etag, stored).hash(state);
            let lease = blob.lease.as_ref();
            lease
                .map(|lease| {
                    (
                        lease.id,
                        lease.breaking,
                        lease.until.saturating_sub(view.now),
                    )
                })
                .hash(state);
        }
    }

    fn leased(&mut self, id: Id) -> Reply {
        if self.last != Some(id) {
            self.tenure += 1;
            self.last = Some(id);
        }
        let etag = self.blob.as_ref().map_or(0, |blob| blob.etag);
        Reply::Leased {
            id,
            etag,
            tenure: self.tenure,
        }
    }
}

impl Lease {
    fn state(lease: Option<&Self>, now: u8) -> State {
        match lease {
            None => State::Available,
            Some(lease) => match (lease.breaking, now < lease.until) {
                (false, true) => State::Leased,
                (false, false) => State::Expired,
                (true, true) => State::Breaking,
                (true, false) => State::Broken,
            },
        }
    }
}
