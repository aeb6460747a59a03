//! Threads that serve one guard after the other.
//!
//! Starting and ending a thread takes about as long as the two requests of a short lock, so a
//! locker keeps one for its next guard, for a while. A guard is *offered* to a thread that lives,
//! and the thread need not be woken for it: it looks up by itself before there is anything to do
//! for the guard. Most guards are over before that, and are taken back.

use std::io;
use std::mem;
use std::process;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::lock::context::Context;
use crate::lock::keeper::{self, Shared};
use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// How long a thread without a guard stays.
const LINGER: Duration = Duration::from_secs(2);

/// Where a thread waits for a guard.
pub(crate) struct Seat {
    /// A forked child has a copy of the seat, but not the thread.
    process: u32,
    offer: Mutex<Offer>,
    offered: Condvar,
}

enum Offer {
    Nothing,
    Guard(Arc<Context>, Arc<Shared>),
    /// Nobody needs the thread any more.
    End,
}

impl Seat {
    /// Offers the guard to a thread of the locker that has none, or to a new one.
    pub(crate) fn find(context: &Arc<Context>, shared: &Arc<Shared>) -> io::Result<Arc<Self>> {
        let offer = Offer::Guard(Arc::clone(context), Arc::clone(shared));
        // Never waited for: in a forked child it may be locked by a thread that is not there.
        let spare = context
            .spare
            .try_lock()
            .and_then(|mut spare| spare.take_if(|seat| seat.is_here()));
        if let Some(seat) = spare {
            *seat.offer.lock() = offer;
            return Ok(seat);
        }
        let seat = Arc::new(Self {
            process: process::id(),
            offer: Mutex::new(offer),
            offered: Condvar::new(),
        });
        let (theirs, home) = (Arc::clone(&seat), Arc::downgrade(context));
        let look_up = context.look_up().min(context.clock().longest_sleep());
        thread::Builder::new()
            .name(format!("azmutex:{}", context.key))
            .stack_size(context.stack)
            .spawn(move || theirs.run(&home, look_up))?;
        Ok(seat)
    }

    /// Has the thread look up now.
    pub(crate) fn wake(&self) {
        // Whoever is about to wait has the lock, so the offer is either seen or waited for.
        let _offer = self.offer.lock();
        self.offered.notify_one();
    }

    /// Takes a guard back that the thread has not looked at. Returns whether it had not.
    pub(crate) fn take_back(self: &Arc<Self>, context: &Context, shared: &Arc<Shared>) -> bool {
        let mut offer = self.offer.lock();
        if !matches!(&*offer, Offer::Guard(_, offered) if Arc::ptr_eq(offered, shared)) {
            return false;
        }
        let _taken = mem::replace(&mut *offer, Offer::Nothing);
        drop(offer);
        if !self.stay(context) {
            self.end();
        }
        true
    }

    /// Ends the thread, which has no guard.
    pub(crate) fn end(&self) {
        if self.is_here() {
            *self.offer.lock() = Offer::End;
            self.offered.notify_one();
        }
    }

    /// Whether the thread is one of this process.
    fn is_here(&self) -> bool {
        self.process == process::id()
    }

    fn run(self: Arc<Self>, home: &Weak<Context>, look_up: Duration) {
        while let Some((context, shared)) = self.next(home, look_up) {
            keeper::serve(&context, &shared);
            // Before the guard hears of it: the next one may follow at once.
            let stays = self.stay(&context);
            shared.end();
            if !stays {
                return;
            }
        }
    }

    /// Waits for a guard. `None` when the thread is not needed any more.
    ///
    /// Meanwhile it keeps neither the locker nor what the locker holds.
    fn next(
        self: &Arc<Self>,
        home: &Weak<Context>,
        look_up: Duration,
    ) -> Option<(Arc<Context>, Arc<Shared>)> {
        let since = Instant::now();
        let mut offer = self.offer.lock();
        loop {
            match mem::replace(&mut *offer, Offer::Nothing) {
                Offer::Guard(context, shared) => return Some((context, shared)),
                Offer::End => return None,
                Offer::Nothing => {}
            }
            if since.elapsed() >= LINGER && MutexGuard::unlocked(&mut offer, || self.leave(home)) {
                return None;
            }
            if matches!(*offer, Offer::Nothing) {
                self.offered.wait_for(&mut offer, look_up);
            }
        }
    }

    /// Becomes the locker's spare, unless it has one.
    fn stay(self: &Arc<Self>, context: &Context) -> bool {
        match context.spare.try_lock() {
            Some(spare) if spare.as_ref().is_some_and(|seat| seat.is_here()) => false,
            Some(mut spare) => {
                *spare = Some(Arc::clone(self));
                true
            }
            None => false,
        }
    }

    /// Whether the thread may end: nobody can offer it a guard, now that it is not the spare.
    fn leave(self: &Arc<Self>, home: &Weak<Context>) -> bool {
        let Some(context) = home.upgrade() else {
            return true;
        };
        let mut spare = context.spare.lock();
        let is_spare = spare.as_ref().is_some_and(|seat| Arc::ptr_eq(seat, self));
        if is_spare {
            *spare = None;
        }
        is_spare
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::emulator::Emulator;
    use crate::{AzureMutex, Event, Locker};

    fn locker(emulator: &Emulator, key: &str) -> Locker {
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        Locker::new(mutex, key).unwrap()
    }

    fn spare(locker: &Locker) -> Option<*const Seat> {
        locker.context().spare.lock().as_ref().map(Arc::as_ptr)
    }

    fn until(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !what() {
            assert!(Instant::now() < end, "it did not come to that");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn guards_one_after_the_other_share_a_thread() {
        let emulator = Emulator::start().unwrap();
        let locker = locker(&emulator, "key");
        drop(locker.lock().unwrap());
        let first = spare(&locker);
        assert!(first.is_some());

        let guard = locker.lock().unwrap();
        assert_eq!(spare(&locker), None, "a thread serves one guard at a time");
        drop(guard);
        assert_eq!(spare(&locker), first);
    }

    #[test]
    fn guard_of_a_shared_thread_is_renewed_each_time() {
        let emulator = Emulator::start().unwrap();
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        let renewed = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&renewed);
        let locker = Locker::builder(mutex, "key")
            .observer(move |event| {
                if matches!(event, Event::Renewed) {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            })
            .build()
            .unwrap();
        for guards in 1..=5 {
            let guard = locker.lock().unwrap();
            emulator.clock().advance(Duration::from_secs(20));
            until(|| renewed.load(Ordering::SeqCst) >= guards);
            assert!(guard.is_held());
        }
    }

    #[test]
    fn thread_without_a_guard_ends() {
        let emulator = Emulator::start().unwrap();
        let locker = locker(&emulator, "key");
        drop(locker.lock().unwrap());
        let seat = Arc::downgrade(locker.context().spare.lock().as_ref().unwrap());

        until(|| seat.strong_count() == 0);
        assert_eq!(spare(&locker), None);
        drop(locker.lock().unwrap());
    }

    #[test]
    fn thread_ends_with_the_locker() {
        let emulator = Emulator::start().unwrap();
        let locker = locker(&emulator, "key");
        drop(locker.lock().unwrap());
        let seat = Arc::downgrade(locker.context().spare.lock().as_ref().unwrap());

        drop(locker);
        let dropped = Instant::now();
        until(|| seat.strong_count() == 0);
        assert!(dropped.elapsed() < LINGER);
    }

    #[test]
    fn thread_does_not_keep_what_the_locker_holds() {
        let emulator = Emulator::start().unwrap();
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        let held = Arc::new(());
        let observers = Arc::clone(&held);
        let locker = Locker::builder(mutex, "key")
            .observer(move |_| {
                let _ = &observers;
            })
            .build()
            .unwrap();
        drop(locker.lock().unwrap());
        drop(locker);
        until(|| Arc::strong_count(&held) == 1);
    }

    #[test]
    fn only_one_thread_stays() {
        let emulator = Emulator::start().unwrap();
        let locker = locker(&emulator, "key");
        let guard = locker.lock().unwrap();
        // This one's guard is refused, and has a thread all the same.
        assert!(locker.try_lock().is_err());
        // Each thread has a weak share of its locker.
        assert_eq!(Arc::weak_count(locker.context()), 2);

        drop(guard);
        until(|| Arc::weak_count(locker.context()) == 1);
        assert!(spare(&locker).is_some());
    }

    #[test]
    fn thread_of_a_process_that_forked_is_not_used() {
        let emulator = Emulator::start().unwrap();
        let locker = locker(&emulator, "key");
        drop(locker.lock().unwrap());
        *locker.context().spare.lock() = Some(Arc::new(Seat {
            process: process::id().wrapping_add(1),
            offer: Mutex::new(Offer::Nothing),
            offered: Condvar::new(),
        }));

        let guard = locker.lock().unwrap();
        emulator.clock().advance(Duration::from_secs(30));
        until(|| guard.remaining() > Duration::from_secs(40));
        drop(guard);
    }
}
