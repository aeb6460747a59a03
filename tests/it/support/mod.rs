//! What the tests stand on: the services they run against and the faults put between.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::Event;
use azmutex::emulator::Emulator;

pub(crate) mod account;
pub(crate) mod azurite;
pub(crate) mod backend;
pub(crate) mod child;
#[allow(dead_code, reason = "for the storms")]
pub(crate) mod history;
pub(crate) mod proxy;
pub(crate) mod tunnel;
#[allow(dead_code, reason = "for the storms")]
pub(crate) mod weather;

/// Bounds what does not happen in a test that fails.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Makes a test of each named function for each service: it takes a [`backend::Backend`].
macro_rules! on_each_service {
    ($($name:ident)*) => {
        $crate::support::on_local_services! { $($name)* }

        mod real_account {
            use $crate::support::backend::Backend;
            $(
                #[test]
                #[ignore = "needs a storage account, named in AZMUTEX_TEST_CONNECTION_STRING"]
                fn $name() { super::$name(&Backend::real()); }
            )*
        }
    };
}

/// As [`on_each_service`], for tests that need a proxy before the service.
macro_rules! on_local_services {
    ($($name:ident)*) => {
        mod emulator {
            use $crate::support::backend::Backend;
            $(#[test] fn $name() { super::$name(&Backend::emulator()); })*
        }

        mod azurite {
            use $crate::support::backend::Backend;
            $(#[test] fn $name() { Backend::azurite().iter().for_each(super::$name); })*
        }
    };
}

pub(crate) use {on_each_service, on_local_services};

/// Where an emulator listens.
pub(crate) fn addr_of(emulator: &Emulator) -> SocketAddr {
    let endpoint = emulator.endpoint();
    let (_, rest) = endpoint
        .split_once("://")
        .expect("an endpoint has a scheme");
    let (addr, _) = rest.split_once('/').expect("the account is in the path");
    addr.parse().expect("the emulator listens at an address")
}

/// Asks until the answer is some, for what tells nobody when it comes about.
#[track_caller]
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "it has not come about");
        thread::yield_now();
    }
}

/// Stops a process, all threads of it, and waits until it stands still: a signal that was sent has
/// not arrived yet.
#[cfg(unix)]
pub(crate) fn stop(process: &std::process::Child) {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    let pid = Pid::from_child(process);
    kill_process(pid, Signal::STOP).expect("it runs");
    let status = waitpid(Some(pid), WaitOptions::UNTRACED).expect("it is a child of this process");
    assert!(
        status.is_some_and(|(_, status)| status.stopped()),
        "it ended"
    );
}

/// Lets a stopped process go on.
#[cfg(unix)]
pub(crate) fn go_on(process: &std::process::Child) {
    use rustix::process::{Pid, Signal, kill_process};

    kill_process(Pid::from_child(process), Signal::CONT).expect("it has not ended");
}

/// The end of a pipe that takes no more.
#[cfg(unix)]
pub(crate) fn fill(pipe: std::io::PipeWriter) -> std::io::PipeWriter {
    use std::io::Write as _;

    rustix::io::ioctl_fionbio(&pipe, true).expect("a pipe");
    while (&pipe).write(&[b'\n'; 4096]).is_ok() {}
    // What is left is less than a page.
    while (&pipe).write(b"\n").is_ok() {}
    rustix::io::ioctl_fionbio(&pipe, false).expect("a pipe");
    pipe
}

/// What an observer heard, for a test that waits for it.
pub(crate) struct Events {
    receiver: Receiver<Event>,
    heard: RefCell<Vec<Event>>,
}

impl Events {
    /// An observer, and what it will have heard.
    pub(crate) fn new() -> (impl Fn(&Event) + Send + Sync + 'static, Self) {
        let (sender, receiver) = mpsc::channel();
        let observer = move |event: &Event| {
            let _ = sender.send(event.clone());
        };
        let heard = RefCell::default();
        (observer, Self { receiver, heard })
    }

    /// Waits for the next event that matches, and passes over others before it.
    #[track_caller]
    pub(crate) fn wait(&self, matches: impl Fn(&Event) -> bool) -> Event {
        self.wait_stepping(LONG, || (), matches)
    }

    /// As [`Events::wait`], and does something whenever nothing was heard for so long: steps a
    /// clock, for what comes at a time that is not known.
    #[track_caller]
    pub(crate) fn wait_stepping(
        &self,
        quiet: Duration,
        step: impl Fn(),
        matches: impl Fn(&Event) -> bool,
    ) -> Event {
        let end = Instant::now() + LONG;
        loop {
            match self.receiver.recv_timeout(quiet) {
                Ok(event) => {
                    self.heard.borrow_mut().push(event.clone());
                    if matches(&event) {
                        return event;
                    }
                }
                Err(_) if Instant::now() < end => step(),
                Err(_) => panic!("it did not come; heard: {:#?}", self.heard.borrow()),
            }
        }
    }

    /// All that was heard so far, what was waited for included.
    pub(crate) fn heard(&self) -> Vec<Event> {
        let mut heard = self.heard.borrow_mut();
        heard.extend(self.receiver.try_iter());
        heard.clone()
    }

    /// What was heard since this was last asked, and not waited for.
    pub(crate) fn so_far(&self) -> Vec<Event> {
        let new: Vec<_> = self.receiver.try_iter().collect();
        self.heard.borrow_mut().extend(new.iter().cloned());
        new
    }

    /// How many of the events heard so far match.
    pub(crate) fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.heard().iter().filter(|event| matches(event)).count()
    }
}
