//! A lease's place in the line of its process.

use super::line::Next;
use super::state::LeaseThread;
use super::stop::Wake;
use crate::azure::status::LeaseStatus;
use crate::error::{Error, ErrorKind};
use crate::holder::record::Holder;
use crate::lease::terms::WaitLimit;
use crate::time::tick::{Moment, Tick};

impl LeaseThread {
    /// Joins the line, unless it does not wait. Returns false if it does not ask either, since others in
    /// this process have the lock or wait for it.
    pub(crate) fn join(&self, limit: WaitLimit) -> bool {
        let Some(queue) = &self.locker.queue else {
            return true;
        };
        if limit.does_not_wait() {
            let now = self.state.now();
            let quantum = self.locker.settings.hand_over_for;
            let mut line = queue.line();
            return line.try_turn(self, now, quantum, |lease| lease.is_held(now));
        }
        queue.line().join(self.clone());
        true
    }

    /// What comes next for one who waits in line until `end`, at `now`.
    pub(crate) fn look(&self, now: Moment, end: Tick) -> Next {
        let Some(queue) = &self.locker.queue else {
            return Next::Ask;
        };
        let mut line = queue.line();
        line.look(self, now, end, |lease| lease.is_held(now))
    }

    /// Stops to wait in line. Returns false if it is too late for that.
    pub(crate) fn leave(&self) -> bool {
        let queue = self.locker.queue.as_ref();
        queue.is_none_or(|queue| queue.line().leave(self))
    }

    /// This one's guard has the lock.
    pub(crate) fn begin_turn(&self) {
        let Some(queue) = &self.locker.queue else {
            return;
        };
        let now = self.state.now();
        queue.line().granted(self, now);
        if !self.is_held(now) {
            self.wake_first();
        }
    }

    /// A client elsewhere has the lock.
    pub(crate) fn wait_for_others(&self) {
        if let Some(queue) = &self.locker.queue {
            queue.line().taken_elsewhere(self);
        }
    }

    /// This one's guard is about to give the lock back.
    pub(crate) fn prepare_end(&self) {
        if let Some(queue) = &self.locker.queue {
            queue.line().ending(self);
        }
    }

    /// It is no longer this one's turn, if it was.
    pub(crate) fn end_turn(&self) {
        let Some(queue) = &self.locker.queue else {
            return;
        };
        let now = self.state.now();
        let quantum = self.locker.settings.hand_over_for;
        if queue.line().pass(self, now, quantum) {
            self.wake_first();
        }
    }

    /// This one has asked in vain, and fails with `error`. So do those who use the same client, would
    /// not retry failures for longer, and have waited for about as long: they would only fail one after
    /// the other.
    pub(crate) fn fail_others(&self, limit: WaitLimit, error: &Error) {
        let Some(queue) = &self.locker.queue else {
            return;
        };
        let may_pass = matches!(
            error.kind(),
            ErrorKind::Transport | ErrorKind::Service | ErrorKind::Throttled | ErrorKind::Protocol
        );
        let now = self.state.now();
        if !may_pass || now.lease >= limit.end() {
            return;
        }
        let asked_for = self.state.lock().lifecycle.fault_wait();
        let fails = |other: &Self| {
            let settings = &other.locker.settings;
            let fault_wait = settings.terms.fault_wait;
            let waited = now.real.since(other.state.started.real);
            settings.mutex.is_same(&self.locker.settings.mutex)
                && fault_wait <= asked_for
                && waited >= fault_wait / 4 * 3
        };
        let failed = queue.line().fail(self, fails);
        for other in failed {
            let mut shared = other.state.lock();
            shared.lifecycle.give_up(now);
            shared.handed = Some(Err(error.clone()));
            other.state.publish(&shared);
        }
    }

    /// Has the first who waits in line look what comes next.
    pub(crate) fn wake_first(&self) {
        let queue = self.locker.queue.as_ref();
        let first = queue.and_then(|queue| queue.line().first().cloned());
        if let Some(first) = first {
            first.state.wake();
        }
    }

    /// How many are served before this one, who waits in line, and who has the lock as far as is known
    /// here.
    pub(crate) fn before(&self) -> (usize, Option<Holder>) {
        let Some(queue) = &self.locker.queue else {
            return (0, None);
        };
        let line = queue.line();
        let ahead = line.ahead(self);
        let turn = line.turn().cloned();
        drop(line);
        let now = self.state.now();
        (ahead, turn.and_then(|lease| lease.holder(now)))
    }

    /// Who has the lock: this one, or the one that this one waits for.
    fn holder(&self, now: Moment) -> Option<Holder> {
        if !self.is_held(now) {
            let seen = self.state.seen.lock();
            return seen.status.as_ref().and_then(LeaseStatus::holder).cloned();
        }
        let settings = &self.locker.settings;
        let held = self.state.lock().lifecycle.held_for(now.lease);
        let since = settings.mutex.operations().client.clock().wall() - held;
        Some(settings.recorder.holder(since))
    }

    fn is_held(&self, now: Moment) -> bool {
        now.lease < self.state.deadline()
    }
}
