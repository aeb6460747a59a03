//! A lease goes from a guard to the next who waits for it in this process, and its thread with it.

use std::sync::Arc;
use std::thread;

use super::state::{LeaseThread, Next};
use super::stop::Wake;
use crate::lease::ids::LeaseId;
use crate::lease::lifecycle::PassedLease;
use crate::mutex::leased_blob::Seen;
use crate::time::tick::Moment;

/// A lease on its way from one guard to the next.
struct Parcel {
    lease: PassedLease,
    id: LeaseId,
    /// Whether others may know the ID.
    exposed: bool,
    seen: Seen,
    thread: Next,
    now: Moment,
}

impl LeaseThread {
    /// Hands the lease over if somebody in this process waits for it, it is held for certain, and its
    /// thread is not held up by an observer. Returns whether it did. Sends nothing, but waits for the
    /// answer to a request that is under way, for at most half of the release timeout after `started`.
    ///
    /// Watches of this guard answer that the lock was released before the next one has it.
    pub(crate) fn hand_over(&self, started: Moment) -> bool {
        let Some((next, parcel)) = self.parcel(started) else {
            return false;
        };
        next.receive(parcel);
        // The lease's thread goes to the next one.
        self.state.wake();
        self.announce();
        true
    }

    /// Ends the hold, and returns who is to have the lease.
    fn parcel(&self, started: Moment) -> Option<(Self, Parcel)> {
        let queue = self.locker.queue.as_ref()?;
        // Work that panicked did not end its hold well, and that is for the next one to see.
        if thread::panicking() || queue.line().first().is_none() {
            return None;
        }
        let mut shared = self.state.lock();
        self.wait_for_answer(&mut shared, started);
        if shared.busy || shared.telling {
            return None;
        }
        let now = self.state.now();
        let lifecycle = &shared.lifecycle;
        let fits = |next: &Self| lifecycle.may_pass_on(&next.locker.settings.terms, now);
        let quantum = self.locker.settings.hand_over_for;
        let next = queue.line().hand_over(self, now, quantum, fits)?;
        let lease = shared.lifecycle.pass_on(&next.locker.settings.terms, now)?;
        // What is left to tell holds up nobody but the caller.
        shared.taken_over = true;
        *shared.next.lock() = Some(next.clone());
        self.state.publish_deadline(&shared);
        let parcel = Parcel {
            lease,
            id: shared.id,
            exposed: !self.state.conceal_id(),
            seen: std::mem::take(&mut *self.state.seen.lock()),
            thread: Arc::clone(&shared.next),
            now,
        };
        Some((next, parcel))
    }

    /// Takes the lease over, for its user who waits.
    fn receive(&self, parcel: Parcel) {
        let mut shared = self.state.lock();
        *self.state.seen.lock() = parcel.seen.passed_on(parcel.exposed);
        shared.next = parcel.thread;
        let needs_change = shared
            .lifecycle
            .take_over(parcel.lease, parcel.exposed, parcel.now);
        if needs_change {
            shared.former = Some(parcel.id);
        } else {
            shared.id = parcel.id;
        }
        self.state.publish(&shared);
    }
}
