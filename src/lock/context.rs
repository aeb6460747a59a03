//! What all guards of a locker have in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::callback::no_panic;
use crate::error::{Error, ErrorKind};
use crate::holder::record::Previous;
use crate::lease::hold::Terms;
use crate::lease::ids::{LeaseDuration, LeaseId};
use crate::lock::acquire::{Granted, Patience, Plan, Refused, Waiter};
use crate::lock::event::Event;
use crate::lock::recorder::{Recorder, Under, Written};
use crate::lock::seat::Seat;
use crate::lock::stop::StopToken;
use crate::mutex::azure_mutex::AzureMutex;
use crate::sync::{Condvar, Mutex};
use crate::time::clock::Clock;

/// A thread that looked up all the time would take a processor for itself.
const LEAST_LOOK_UP: Duration = Duration::from_millis(20);

/// Hears what happens to a lock.
pub(crate) type Observer = Box<dyn Fn(&Event) + Send + Sync>;

/// What all guards of a locker have in common.
pub(crate) struct Context {
    pub(crate) mutex: AzureMutex,
    pub(crate) key: String,
    pub(crate) duration: LeaseDuration,
    pub(crate) terms: Terms,
    pub(crate) poll: (Duration, Duration),
    pub(crate) fault_wait: Duration,
    pub(crate) release_timeout: Duration,
    pub(crate) recorder: Recorder,
    pub(crate) observer: Option<Observer>,
    pub(crate) stop: Option<StopToken>,
    pub(crate) stack: usize,
    /// A thread that waits for the next guard.
    pub(crate) spare: Mutex<Option<Arc<Seat>>>,
    /// How many given-up acquisitions are still being cleaned up.
    pub(crate) strays: Mutex<usize>,
    pub(crate) strays_changed: Condvar,
}

impl Context {
    /// Of a renewal thread. Enough for a TLS handshake in a debug build; only what is touched is
    /// memory.
    pub(crate) const STACK: usize = 512 * 1024;

    pub(crate) fn target(&self) -> String {
        self.mutex.client().target(&self.key)
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.mutex.client().clock()
    }

    fn plan(&self) -> Plan<'_> {
        Plan {
            client: self.mutex.client(),
            key: &self.key,
            duration: self.duration,
            usable: self.terms.usable(),
            request_timeout: self.mutex.request_timeout(),
            create_missing: self.mutex.create_missing(),
            poll: self.poll,
            fault_wait: self.fault_wait,
        }
    }

    /// How often a thread without a lease looks up whether it has one to keep.
    pub(crate) fn look_up(&self) -> Duration {
        let renewal = self.terms.renew_every / 2;
        if self.recorder.names_later() {
            renewal.min(self.recorder.delay.max(LEAST_LOOK_UP))
        } else {
            renewal
        }
    }

    pub(crate) fn under(&self, id: LeaseId) -> Under<'_> {
        Under {
            client: self.mutex.client(),
            key: &self.key,
            id,
        }
    }

    /// Acquires, and writes what has to be written before the lock counts as held.
    pub(crate) fn acquire(
        &self,
        patience: Patience,
        waiter: &dyn Waiter,
    ) -> Result<Acquired, Refused> {
        let granted = self.plan().run(patience, waiter)?;
        let id = granted.id;
        self.prepare(granted).map_err(|error| {
            self.mutex.take_back(&self.key, id, self.release_timeout);
            Refused { error, stray: None }
        })
    }

    fn prepare(&self, mut granted: Granted) -> Result<Acquired, Error> {
        let timeout = self.mutex.request_timeout();
        let under = self.under(granted.id);
        let (mut written, mut previous) = (None, Previous::Unknown);
        if self.recorder.fencing {
            let (fence, before) = self.recorder.fence(under, &granted.etag, timeout)?;
            (written, previous) = (Some(fence), before);
        } else if self.recorder.names_first() {
            match self.recorder.name_holder(under, &granted.etag, timeout / 2) {
                Ok(done) => written = Some(done),
                Err(error) if error.kind() == ErrorKind::LeaseLost => return Err(error),
                Err(error) => self.notice(&Event::RecordFailed { error }),
            }
        }
        // The writing may have taken so long that the lease has to be proven again, and so may that.
        while self.clock().now().since(granted.sent) >= self.terms.usable() {
            let sent = self.clock().now();
            under.client.renew(&self.key, granted.id, timeout / 2)?;
            granted.sent = sent;
        }
        Ok(Acquired {
            granted,
            written,
            previous,
        })
    }

    /// Logs `event` and tells the observer. Never with a lock held, and never panics.
    pub(crate) fn notice(&self, event: &Event) {
        let target = self.target();
        no_panic(|| match event {
            Event::Lost { reason } => log::warn!("lost the lock `{target}`: {reason}"),
            Event::Unproven => log::warn!("the lock `{target}` is unproven: not renewed in time"),
            Event::RecordFailed { error } => {
                log::warn!("{error}; the lock itself is not concerned")
            }
            Event::RenewalFailed { error, remaining } => {
                log::warn!("{error}; still held for {remaining:?} without a renewal");
            }
            event => log::debug!("`{target}`: {event:?}"),
        });
        if let Some(observer) = &self.observer
            && !no_panic(|| observer(event))
        {
            no_panic(|| log::error!("the observer of the lock `{target}` panicked"));
        }
    }

    /// A given-up acquisition may have left a lease behind, which is released in the background.
    pub(crate) fn add_stray(&self) {
        *self.strays.lock() += 1;
    }

    pub(crate) fn end_stray(&self) {
        *self.strays.lock() -= 1;
        self.strays_changed.notify_all();
    }

    /// Waits until there are no strays, for at most `timeout`. Returns whether there are none.
    pub(crate) fn settle(&self, timeout: Duration) -> bool {
        let end = Instant::now().checked_add(timeout);
        let mut strays = self.strays.lock();
        while *strays > 0 {
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if self.strays_changed.wait_for(&mut strays, left).timed_out() {
                break;
            }
        }
        *strays == 0
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(seat) = self.spare.get_mut().take() {
            seat.end();
        }
    }
}

/// A lease that is held, and what was written under it so far.
#[derive(Debug)]
pub(crate) struct Acquired {
    pub(crate) granted: Granted,
    pub(crate) written: Option<Written>,
    pub(crate) previous: Previous,
}

impl Acquired {
    pub(crate) fn fencing_token(&self) -> Option<u64> {
        self.written
            .as_ref()
            .and_then(|written| written.record.fence)
    }
}
