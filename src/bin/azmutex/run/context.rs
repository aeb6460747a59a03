//! What all phases of a run share.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use super::channel::{Message, Receiver};
use super::held::Held;
use super::reporter::Reporter;
use super::signals::Signals;
use super::timer::{self, Timer};
use super::worker::Worker;
use crate::args::{Global, RunArgs};
use crate::config::Lock;
use crate::output::Object;
use crate::wait_display::Style;

/// What a run shares between its phases. It waits for nothing but these.
pub(super) struct Context<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) global: &'a Global,
    pub(super) lock: &'a Lock,
    /// What is held, safe to show: the lock's name, or the names of all.
    pub(super) name: &'a str,
    pub(super) reporter: Reporter,
    pub(super) style: Style,
    pub(super) signals: Signals,
    pub(super) channel: Receiver,
    pub(super) worker: Worker,
    pub(super) timer: Timer,
    /// Readable when the command's guardian has news.
    pub(super) guardian: Option<OwnedFd>,
}

impl<'a> Context<'a> {
    /// What is held, safe to show.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// The lock's exact name.
    pub(super) fn key(&self) -> &'a str {
        &self.lock.key
    }

    /// Waits for a signal, a message, or until `wait` is over.
    pub(super) fn sleep(&self, wait: Option<Duration>) {
        let guardian = self.guardian.iter().map(AsFd::as_fd);
        let own = [self.channel.fd()].into_iter().chain(guardian);
        let fds: Vec<_> = self.signals.fds().chain(own).collect();
        self.timer.wait(&fds, wait);
    }

    pub(super) fn event(&mut self, object: &Object) {
        self.reporter.event(object);
    }

    /// Releases in the background; a message follows. If no thread can be started, returns what is held:
    /// dropping it would wait for the network.
    #[must_use]
    pub(super) fn release(&mut self, held: Held) -> Option<Held> {
        self.in_background(held, |held| Message::Released(held.release()))
    }

    /// Has `work` done with what is held in the background; its message follows. If no thread can be
    /// started, returns what is held.
    #[must_use]
    pub(super) fn in_background(
        &mut self,
        held: Held,
        work: impl FnOnce(Held) -> Message + Send + 'static,
    ) -> Option<Held> {
        let (hand, take) = mpsc::channel::<Held>();
        let work = move || match take.recv() {
            Ok(held) => work(held),
            Err(_) => unreachable!("it is handed over"),
        };
        match self.worker.start(work) {
            Ok(()) => hand.send(held).err().map(|mpsc::SendError(held)| held),
            Err(_) => Some(held),
        }
    }

    /// Waits for a message that `pick` takes, for at most `limit`. Signals do not cut that short.
    pub(super) fn message<T>(
        &mut self,
        limit: Duration,
        mut pick: impl FnMut(Message) -> Option<T>,
    ) -> Option<T> {
        let end = timer::now() + limit;
        loop {
            while let Some(message) = self.channel.take() {
                if let Some(picked) = pick(message) {
                    return Some(picked);
                }
            }
            let left = end.saturating_sub(timer::now());
            if left.is_zero() {
                return None;
            }
            self.sleep(Some(left));
            drop(self.signals.take());
        }
    }
}
