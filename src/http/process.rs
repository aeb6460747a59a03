//! Values that a forked child must not share with its parent.

use std::mem;
use std::process;

use once_cell::race::OnceBox;

/// One value for each process that uses it.
///
/// A fork copies the parent's memory while the parent's other threads are at work, and the child
/// inherits its sockets. So the child gets its own value. It never waits for a lock in the parent's
/// value, since a thread that the child does not have may hold it. And it never drops that value,
/// since closing a connection could end it for the parent too.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    process: u32,
    /// Only taken out in `drop`.
    value: Option<T>,
    /// The child's value, in a forked child. Set without a lock.
    child: OnceBox<Self>,
}

impl<T> PerProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::of(process::id(), value)
    }

    fn of(process: u32, value: T) -> Self {
        Self {
            process,
            value: Some(value),
            child: OnceBox::new(),
        }
    }

    /// This process's value. Calls `make` if there is none yet.
    pub(crate) fn get(&self, make: impl Fn() -> T) -> &T {
        self.get_in(process::id(), make)
    }

    fn get_in(&self, process: u32, make: impl Fn() -> T) -> &T {
        let mut slot = self;
        loop {
            match &slot.value {
                Some(value) if slot.process == process => return value,
                _ => {
                    let child = || Box::new(Self::of(process, make()));
                    slot = slot.child.get_or_init(child);
                }
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if self.process != process::id() {
            mem::forget(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn each_process_has_a_value_of_its_own() {
        let made = AtomicU32::new(0);
        let make = || made.fetch_add(1, Ordering::SeqCst) + 1;
        let values = PerProcess::of(1000, 0);
        assert_eq!(*values.get_in(1000, make), 0);
        // A child, its child, and what they see again later.
        assert_eq!(*values.get_in(1001, make), 1);
        assert_eq!(*values.get_in(1002, make), 2);
        assert_eq!(*values.get_in(1001, make), 1);
        assert_eq!(*values.get_in(1002, make), 2);
    }

    #[test]
    fn value_of_another_process_is_not_dropped() {
        let own = Arc::new(());
        let values = PerProcess::of(0, Arc::clone(&own));
        values.get(|| Arc::clone(&own));
        assert_eq!(Arc::strong_count(&own), 3);
        drop(values);
        // The parent's is left alone; this process's own is gone.
        assert_eq!(Arc::strong_count(&own), 2);
    }
}
