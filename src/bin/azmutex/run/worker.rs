//! Threads for what waits for the network: the supervisor gives them work, and reads its reports.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use super::channel::{Message, Sender};

type Work = Box<dyn FnOnce() -> Message + Send>;

/// Does things on a thread, and on another one if that is held up.
pub(super) struct Worker {
    sender: Sender,
    thread: Option<Thread>,
}

struct Thread {
    queue: mpsc::Sender<Work>,
    busy: Arc<AtomicBool>,
}

impl Worker {
    /// One without a thread yet, which reports through `sender`.
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            sender,
            thread: None,
        }
    }

    /// Starts `work` at once. What it returns is reported.
    pub(super) fn start(
        &mut self,
        work: impl FnOnce() -> Message + Send + 'static,
    ) -> io::Result<()> {
        let mut work: Work = Box::new(work);
        if let Some(thread) = &self.thread
            && !thread.busy.swap(true, Ordering::AcqRel)
        {
            match thread.queue.send(work) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(back)) => work = back,
            }
        }
        let (queue, more) = mpsc::channel::<Work>();
        let busy = Arc::new(AtomicBool::new(true));
        let (sender, idle) = (self.sender.clone(), Arc::clone(&busy));
        thread::Builder::new()
            .name("azmutex:work".to_owned())
            .spawn(move || {
                let mut next = Some(work);
                while let Some(work) = next {
                    let message = work();
                    // Before the message, which may bring the next work.
                    idle.store(false, Ordering::Release);
                    sender.send(message);
                    next = more.recv().ok();
                }
            })?;
        self.thread = Some(Thread { queue, busy });
        Ok(())
    }
}
