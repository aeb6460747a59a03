//! One line for each lock blob in a process, whatever lockers it has.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

// Never held while another thread runs, and not the interleaving checker's: it outlives its runs.
use parking_lot as system;

use super::line::Line;
use crate::http::process::PerProcess;
use crate::sync::{Mutex, MutexGuard};

/// Those in this process who want the same lock. A forked child starts without any.
#[derive(Debug)]
pub(crate) struct Queue<T>(PerProcess<Mutex<Line<T>>>);

impl<T> Queue<T> {
    fn new() -> Self {
        Self(PerProcess::new(Mutex::new(Line::default())))
    }

    /// Never held while waiting for another lock.
    pub(crate) fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.0.get(|| Mutex::new(Line::default())).lock()
    }
}

/// A blob's URL, and the clock that leases on it go by, as [`Clock::id`](crate::time::clock::Clock::id).
type Key = (String, usize);

/// The queues of a process.
#[derive(Debug)]
pub(crate) struct Queues<T>(PerProcess<system::Mutex<HashMap<Key, Weak<Queue<T>>>>>);

impl<T> Queues<T> {
    pub(crate) fn new() -> Self {
        Self(PerProcess::new(system::Mutex::default()))
    }

    /// The queue for a blob. It lasts as long as somebody has it.
    pub(crate) fn of(&self, key: Key) -> Arc<Queue<T>> {
        let mut queues = self.0.get(system::Mutex::default).lock();
        if let Some(queue) = queues.get(&key).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Queue::new());
        queues.insert(key, Arc::downgrade(&queue));
        queue
    }
}
