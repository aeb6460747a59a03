//! Gives back leases that nobody wants: an attempt failed or was ended, but the service may have
//! granted it.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{Lease, LeaseId, Locker};

/// How often to check whether the library has released it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Releases the lease with this ID, and waits for that, for at most `limit`.
///
/// The locker does so too, but only once the request that it waits for has ended.
pub(crate) fn give_back(locker: &Locker, id: Option<LeaseId>, limit: Duration) {
    let end = Instant::now() + limit;
    let (sender, released) = mpsc::channel();
    let lease = id.and_then(|id| Lease::new(locker.key(), id).ok());
    let started = lease.is_some_and(|lease| {
        let mutex = locker.mutex().clone();
        let release = move || sender.send(mutex.release(&lease).is_ok());
        thread::Builder::new().spawn(release).is_ok()
    });
    while Instant::now() < end && !locker.settle(LOOK_EVERY) {
        // A lease that was not there to release may still be granted.
        if started && released.try_recv() == Ok(true) {
            return;
        }
    }
}
