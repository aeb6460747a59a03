use std::time::Duration;

use crate::error::Error;
use crate::error::LossReason;
use crate::lease::ids::LeaseId;

/// What happens to a lock, as an observer hears it.
///
/// See [`LockerBuilder::observer`](crate::LockerBuilder::observer) for when and on which thread.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// Another client holds the lock; the next attempt follows after a while.
    #[non_exhaustive]
    Waiting {
        /// How many attempts were made, from 1.
        attempt: u32,
        /// The time since the first.
        elapsed: Duration,
    },
    /// An attempt to acquire failed in a way that may pass; the next follows after a while.
    #[non_exhaustive]
    AcquireFailed {
        /// How many attempts were made, from 1.
        attempt: u32,
        /// Why.
        error: Error,
    },
    /// The lock is held.
    #[non_exhaustive]
    Acquired {
        /// The ID of its lease.
        lease_id: LeaseId,
        /// The time since the first attempt.
        elapsed: Duration,
    },
    /// The service confirmed a renewal.
    Renewed,
    /// A renewal failed, and the lease is neither renewed nor known to be lost. It is tried again.
    #[non_exhaustive]
    RenewalFailed {
        /// Why.
        error: Error,
        /// How long the lease can still be vouched for. Zero once it is unproven.
        remaining: Duration,
    },
    /// Holder information could not be written, or not that the lock is about to be released. The
    /// lock itself is not concerned.
    #[non_exhaustive]
    RecordFailed {
        /// Why.
        error: Error,
    },
    /// The deadline passed without a confirmed renewal: the lock is no longer claimed.
    Unproven,
    /// After it was unproven, a renewal was confirmed: nobody held the lock in between.
    HeldAgain,
    /// The lock is lost for good.
    #[non_exhaustive]
    Lost {
        /// Why.
        reason: LossReason,
    },
    /// The lock was released.
    Released,
}
