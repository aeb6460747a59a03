//! What the threads report to the supervisor, which waits for it together with signals.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;

use azmutex::{Error, Event, LeaseGuard, LeaseStatus, TryLockError};

/// A report.
#[derive(Debug)]
pub(super) enum Report {
    /// The waiting is over.
    Waited(Result<Box<LeaseGuard>, TryLockError>),
    /// Something happened to the lock.
    Event(Event),
    /// What the service says of the lock.
    Status(Result<Box<LeaseStatus>, Error>),
    /// Whether the lease is still ours, as the service says.
    Verified(Result<(), Error>),
    /// The release is over.
    Released(Result<(), Error>),
}

/// Where threads post.
#[derive(Clone)]
pub(super) struct Sender {
    queue: mpsc::Sender<Report>,
    bell: Arc<UnixStream>,
}

impl Sender {
    /// Never blocks, and does nothing once nobody reads any more.
    pub(super) fn post(&self, report: Report) {
        if self.queue.send(report).is_ok() {
            // If it is full, it rings already.
            let _ = (&*self.bell).write(&[0]);
        }
    }
}

/// Where the supervisor reads.
pub(super) struct Mailbox {
    queue: mpsc::Receiver<Report>,
    bell: UnixStream,
    sender: Sender,
}

impl Mailbox {
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

    /// Readable when there may be a report.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next report, if there is one. Never blocks.
    pub(super) fn take(&mut self) -> Option<Report> {
        // Silenced first: what is posted after the queue was found empty rings again.
        while matches!((&self.bell).read(&mut [0; 64]), Ok(64)) {}
        self.queue.try_recv().ok()
    }
}
