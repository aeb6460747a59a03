//! Leases that nobody is to have: an attempt failed or was ended, and the service may have granted it.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{Lease, LeaseId, Locker};

/// How often it is looked whether the library has done it by itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Releases the lease with this ID, and waits for that, for at most `patience`.
///
/// The locker does so by itself too, but only once the request that it waits for has come to an end.
pub(crate) fn give_back(locker: &Locker, id: Option<LeaseId>, patience: Duration) {
    let end = Instant::now() + patience;
    let (sender, released) = mpsc::channel();
    let lease = id.and_then(|id| Lease::new(locker.key(), id).ok());
    let started = lease.is_some_and(|lease| {
        let mutex = locker.mutex().clone();
        let release = move || sender.send(mutex.release(&lease).is_ok());
        thread::Builder::new().spawn(release).is_ok()
    });
    while Instant::now() < end && !locker.settle(LOOK_EVERY) {
        // A lease that was not there to be released may still be granted.
        if started && released.try_recv() == Ok(true) {
            return;
        }
    }
}
