//! What the threads tell the supervisor, which waits for it together with signals.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;

use azmutex::{Error, Event, LeaseStatus, TryLockError};

use super::held::{Got, Held};

/// A message.
#[derive(Debug)]
pub(super) enum Message {
    /// The waiting is over.
    Waited(Result<Box<Got>, TryLockError>),
    /// Something happened to the lock, or to the one with this name of several.
    Event(Event, Option<Arc<str>>),
    /// What the service says of the lock.
    Status(Result<Box<LeaseStatus>, Error>),
    /// Whether the lease is still ours, as the service says.
    Verified(Result<(), (usize, Error)>),
    /// What became of a run of the health command, or why it was no success.
    Health(Result<(), String>),
    /// It is recorded that the work is done, or is not.
    Recorded(Box<Held>, Result<(), Error>),
    /// The release is over.
    Released(Result<(), Error>),
}

/// A thread's end.
#[derive(Clone)]
pub(super) struct Sender {
    queue: mpsc::Sender<Message>,
    bell: Arc<UnixStream>,
}

impl Sender {
    /// Never blocks, and does nothing once nobody reads any more.
    pub(super) fn send(&self, message: Message) {
        if self.queue.send(message).is_ok() {
            // If it is full, it rings already.
            let _ = (&*self.bell).write(&[0]);
        }
    }
}

/// The supervisor's end.
pub(super) struct Receiver {
    queue: mpsc::Receiver<Message>,
    bell: UnixStream,
    sender: Sender,
}

impl Receiver {
    pub(super) fn new() -> io::Result<Self> {
        let (bell, ring) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ring.set_nonblocking(true)?;
        let (sender, queue) = mpsc::channel();
        let sender = Sender {
            queue: sender,
            bell: Arc::new(ring),
        };
        Ok(Self {
            queue,
            bell,
            sender,
        })
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Readable when there may be a message.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next message, if there is one. Never blocks.
    pub(super) fn take(&mut self) -> Option<Message> {
        // Silenced first: what is sent after the queue was found empty rings again.
        while matches!((&self.bell).read(&mut [0; 64]), Ok(64)) {}
        self.queue.try_recv().ok()
    }
}
