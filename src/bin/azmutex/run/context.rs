//! What all phases of a run share.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use super::channel::{Message, Receiver};
use super::held::Held;
use super::reporter::Reporter;
use super::signals::Signals;
use super::timer::Timer;
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

    /// Releases in the background; a message follows. If no thread can be started, returns the
    /// guard: dropping it would wait for the network.
    #[must_use]
    pub(super) fn release(&mut self, guard: Held) -> Option<Held> {
        let (hand, take) = mpsc::channel::<Held>();
        let release = move || match take.recv() {
            Ok(held) => Message::Released(held.release()),
            Err(_) => unreachable!("it is handed over"),
        };
        match self.worker.start(release) {
            Ok(()) => hand.send(guard).err().map(|mpsc::SendError(guard)| guard),
            Err(_) => Some(guard),
        }
    }
}
