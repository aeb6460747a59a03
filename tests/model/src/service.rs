//! The lease machine of the Blob service, with whole ticks for time.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/lease-blob>

use std::hash::{Hash, Hasher};

use crate::client::View;

/// How many ticks a lease lasts.
pub(crate) const DURATION: u8 = if cfg!(feature = "large") { 6 } else { 4 };

/// A lease ID. One client's have consecutive ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(u8);

impl Id {
    const PER_CLIENT: u8 = 16;
    /// Nobody's.
    pub(crate) const FRESH: Self = Self(63);

    pub(crate) fn first_of(client: u8) -> Self {
        Self(client * Self::PER_CLIENT)
    }

    pub(crate) fn client(self) -> u8 {
        self.0 / Self::PER_CLIENT
    }

    pub(crate) fn next(self) -> Self {
        let next = Self(self.0 + 1);
        assert_eq!(next.client(), self.client(), "it has used up its IDs");
        next
    }

    fn bit(self) -> u64 {
        1 << self.0
    }
}

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
    cut: u64,
    /// GHOST: the IDs whose lease was released by its holder's own request, nobody else having held
    /// since it was granted.
    freed: u64,
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
    /// The fencing token in the metadata.
    token: Option<i64>,
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
    /// From this ID to that of the request.
    Change {
        from: Id,
    },
    Release {
        /// GHOST: the tenure that the client was granted.
        tenure: u8,
    },
    /// With period 0.
    Break,
    Create,
    /// Get Blob Properties without an ID.
    Look,
    /// Get Blob Properties under the lease.
    Read,
    /// Set Blob Metadata under the lease.
    Store {
        if_match: Option<u8>,
        token: Option<i64>,
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
    /// 200, with the ID asked for, and as a GHOST the tenure.
    Changed {
        tenure: u8,
    },
    Done,
    Created {
        etag: u8,
    },
    Found {
        etag: u8,
        token: Option<i64>,
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
            token: None,
        };
        Self {
            blob: Some(blob),
            etags: 0,
            tenure: 0,
            last: None,
            cut: 0,
            freed: 0,
            revives,
            keeps_end,
        }
    }

    pub(crate) fn handle(&mut self, now: u8, id: Id, op: Op) -> Reply {
        if let Op::Create = op {
            if self.blob.is_some() {
                return Reply::Done;
            }
            self.etags += 1;
            let etag = self.etags;
            self.blob = Some(Blob {
                lease: None,
                etag,
                token: None,
            });
            return Reply::Created { etag };
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
            // It does not start the lease anew, and may be repeated.
            Op::Change { from } => match (&mut blob.lease, state) {
                (Some(lease), State::Leased) if lease.id == from || ours => {
                    lease.id = id;
                    self.changed(id)
                }
                _ => Reply::NotYours,
            },
            Op::Release { tenure } if ours => {
                blob.lease = None;
                if tenure == self.tenure {
                    self.freed |= id.bit();
                }
                Reply::Done
            }
            Op::Look => Reply::Found {
                etag: blob.etag,
                token: blob.token,
            },
            Op::Read if writable => Reply::Found {
                etag: blob.etag,
                token: blob.token,
            },
            Op::Store { if_match, .. } if writable && if_match.is_some_and(|e| e != blob.etag) => {
                Reply::ConditionNotMet
            }
            Op::Store { token, .. } if writable => {
                (blob.token, blob.etag) = (token, next_etag);
                self.etags = next_etag;
                Reply::Stored { etag: next_etag }
            }
            Op::Write { under: true, .. } if writable => {
                blob.etag = next_etag;
                self.etags = next_etag;
                Reply::Stored { etag: next_etag }
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
            self.cut |= id.bit();
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
        self.store_without_id(now, None)
    }

    pub(crate) fn store_without_id(&mut self, now: u8, token: Option<i64>) -> Reply {
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
                    token,
                };
                Reply::Stored { etag: self.etags }
            }
        }
    }

    /// The blob goes with its container, whether it is leased or not.
    pub(crate) fn delete(&mut self, now: u8) {
        if let Some(id) = self.holder(now) {
            self.cut |= id.bit();
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
        self.cut & id.bit() != 0
    }

    pub(crate) fn was_freed(&self, id: Id) -> bool {
        self.freed & id.bit() != 0
    }

    /// Whether `id` can renew: nobody has broken its lease.
    pub(crate) fn is_leased_to(&self, id: Id, now: u8) -> bool {
        let lease = self.blob.as_ref().and_then(|blob| blob.lease.as_ref());
        lease.is_some_and(|lease| lease.id == id && !lease.breaking && now < lease.until)
    }

    /// Whether the last lease is that of `id`, however it ended.
    pub(crate) fn knows(&self, id: Id) -> bool {
        let lease = self.blob.as_ref().and_then(|blob| blob.lease.as_ref());
        lease.is_some_and(|lease| lease.id == id)
    }

    /// Whether somebody who comes now is granted the lease before so many ticks are over.
    pub(crate) fn grants(&self, now: u8, ticks: u8) -> bool {
        let mut service = self.clone();
        (now..=now + ticks).any(|now| match service.handle(now, Id::FRESH, Op::Acquire) {
            Reply::Leased { .. } => true,
            Reply::NotFound => {
                service.handle(now, Id::FRESH, Op::Create);
                false
            }
            _ => false,
        })
    }

    pub(crate) fn token(&self) -> Option<i64> {
        self.blob.as_ref()?.token
    }

    /// The tokens, ETags and IDs that it knows of.
    pub(crate) fn known(&self, tokens: &mut Vec<i64>, etags: &mut Vec<u8>, ids: &mut Vec<Id>) {
        ids.extend(self.last);
        if let Some(blob) = &self.blob {
            tokens.extend(blob.token);
            etags.push(blob.etag);
            ids.extend(blob.lease.as_ref().map(|lease| lease.id));
        }
    }

    /// Tells this state from others, but for the time that it is: only differences matter.
    pub(crate) fn hash(&self, view: &View<'_>, state: &mut impl Hasher) {
        let Self {
            blob,
            etags: _, // What counts is which are the same.
            tenure,
            last,
            cut,
            freed,
            revives: _,
            keeps_end: _,
        } = self;
        let more_than_one = tenure.min(&2);
        (more_than_one, last.map(|id| view.id(id))).hash(state);
        for id in view.used() {
            ((cut & id.bit()) != 0, (freed & id.bit()) != 0).hash(state);
        }
        blob.is_some().hash(state);
        if let Some(Blob { lease, etag, token }) = blob {
            (view.etag(*etag), token.map(|token| view.token(token))).hash(state);
            lease
                .as_ref()
                .map(
                    |Lease {
                         id,
                         until,
                         breaking,
                     }| {
                        (view.id(*id), breaking, until.saturating_sub(view.now))
                    },
                )
                .hash(state);
        }
    }

    /// GHOST: the next user in a process has the lease with the same ID.
    pub(crate) fn hand_over(&mut self) -> u8 {
        self.tenure += 1;
        self.tenure
    }

    fn changed(&mut self, id: Id) -> Reply {
        if self.last != Some(id) {
            self.tenure += 1;
            self.last = Some(id);
        }
        let tenure = self.tenure;
        Reply::Changed { tenure }
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
