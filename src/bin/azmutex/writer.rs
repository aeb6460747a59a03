//! Writing from a thread, since a terminal or pipe that nobody reads blocks the thread that writes
//! to it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many lines may wait to be written. Beyond that, the oldest are dropped.
const CAPACITY: usize = 256;

/// How long the process waits for the last lines before it ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// When lines that are still not written are given up.
pub(crate) fn soon() -> Instant {
    Instant::now() + FLUSH_TIMEOUT
}

/// A queue of lines for one destination. Adding a line never blocks.
pub(crate) struct Writer<T> {
    write: fn(T),
    state: Mutex<State<T>>,
    /// A line was added or written.
    changed: Condvar,
}

struct State<T> {
    lines: VecDeque<T>,
    has_thread: bool,
    is_writing: bool,
    /// A flush timed out, and nothing has been written since.
    is_stuck: bool,
}

impl<T: Send> Writer<T> {
    /// A writer that calls `write` with each line. Its thread starts with the first one.
    pub(crate) const fn new(write: fn(T)) -> Self {
        Self {
            write,
            state: Mutex::new(State {
                lines: VecDeque::new(),
                has_thread: false,
                is_writing: false,
                is_stuck: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn push(&'static self, line: T) {
        let mut state = self.state();
        if state.lines.len() >= CAPACITY {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
        if !state.has_thread {
            let thread = thread::Builder::new().name("azmutex:writer".to_owned());
            state.has_thread = thread.spawn(|| self.work()).is_ok();
        }
        self.changed.notify_all();
    }

    /// Waits until everything is written, or until `end`.
    pub(crate) fn flush(&self, end: Instant) {
        let mut state = self.state();
        if !state.has_thread {
            // The thread could not be started.
            state.lines.drain(..).for_each(self.write);
        }
        while state.has_thread && !state.is_stuck && (state.is_writing || !state.lines.is_empty()) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.is_stuck = true;
                return;
            }
            let result = self.changed.wait_timeout(state, left);
            state = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            while let Some(line) = state.lines.pop_front() {
                state.is_writing = true;
                drop(state);
                (self.write)(line);
                state = self.state();
                state.is_writing = false;
                state.is_stuck = false;
                self.changed.notify_all();
            }
            let result = self.changed.wait(state);
            state = result.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn lines_are_written_in_order_and_before_the_end() {
        static WRITTEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        static WRITER: Writer<usize> = Writer::new(|line| WRITTEN.lock().unwrap().push(line));
        for line in 0..CAPACITY {
            WRITER.push(line);
        }
        WRITER.flush(Instant::now() + LIMIT);
        assert_eq!(*WRITTEN.lock().unwrap(), Vec::from_iter(0..CAPACITY));
    }

    #[test]
    fn pushing_does_not_block_while_nothing_can_be_written() {
        static WRITTEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        static WRITER: Writer<usize> = Writer::new(|line| WRITTEN.lock().unwrap().push(line));
        let mut unread = WRITTEN.lock().unwrap();
        WRITER.push(0);
        while !WRITER.state().is_writing {
            thread::yield_now();
        }
        for line in 1..CAPACITY + 4 {
            WRITER.push(line);
        }
        WRITER.flush(Instant::now());
        // The first flush timed out, so this one does not wait.
        WRITER.flush(Instant::now() + LIMIT * 100);
        assert_eq!(unread.len(), 0);
        unread.push(usize::MAX);
        drop(unread);
        while WRITER.state().is_stuck {
            thread::yield_now();
        }
        WRITER.flush(Instant::now() + LIMIT);
        let kept = [usize::MAX, 0].into_iter().chain(4..CAPACITY + 4);
        assert_eq!(*WRITTEN.lock().unwrap(), Vec::from_iter(kept));
    }
}
