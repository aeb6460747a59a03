//! Leases that nobody waits for any more, and that are still being released.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(crate) struct AbandonedLeases {
    count: Mutex<usize>,
    changed: Condvar,
}

impl AbandonedLeases {
    /// One more is released in the background.
    pub(crate) fn add(&self) {
        *self.count.lock() += 1;
    }

    /// One is done with.
    pub(crate) fn remove(&self) {
        *self.count.lock() -= 1;
        self.changed.notify_all();
    }

    /// Waits until there are none, for at most `timeout`. Returns whether there are none.
    pub(crate) fn settle(&self, timeout: Duration) -> bool {
        let end = Instant::now().checked_add(timeout);
        let mut count = self.count.lock();
        while *count > 0 {
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if self.changed.wait_for(&mut count, left).timed_out() {
                break;
            }
        }
        *count == 0
    }
}
