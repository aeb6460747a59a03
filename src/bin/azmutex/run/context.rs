//! What all phases of a run share.

use std::io;
use std::thread;
use std::time::Duration;

use azmutex::LeaseGuard;

use super::mail::{Mailbox, Report};
use super::signals::Signals;
use super::timer::Timer;
use super::voice::Voice;
use super::waiting::Style;
use crate::args::{Global, RunArgs};
use crate::config::Lock;
use crate::output::Object;

/// The supervisor's surroundings: it waits for nothing but these.
pub(super) struct Context<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) global: &'a Global,
    pub(super) lock: &'a Lock,
    pub(super) voice: Voice,
    pub(super) style: Style,
    pub(super) signals: Signals,
    pub(super) mail: Mailbox,
    pub(super) timer: Timer,
}

impl<'a> Context<'a> {
    /// The lock's name, as it can be shown.
    pub(super) fn name(&self) -> &'a str {
        &self.lock.name
    }

    /// Waits for a signal, a report, or until `wait` is over.
    pub(super) fn sleep(&self, wait: Option<Duration>) {
        self.timer.wait(&[self.signals.fd(), self.mail.fd()], wait);
    }

    pub(super) fn event(&mut self, object: &Object) {
        self.voice.event(object);
    }

    /// Releases on a thread, which reports. Without a thread the lease runs out by itself.
    pub(super) fn release_on_thread(&self, guard: LeaseGuard) -> io::Result<()> {
        let post = self.mail.sender();
        thread::Builder::new()
            .name("azmutex:release".to_owned())
            .spawn(move || post.post(Report::Released(guard.release())))
            .map(drop)
    }
}
