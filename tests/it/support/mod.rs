//! What the tests stand on: the services they run against and the faults put between.

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
pub(crate) mod proxy;

/// Makes each of the functions of a [`backend::Backend`] that it names a test for each service.
macro_rules! contract {
    ($($name:ident)*) => {
        mod emulator {
            use super::Backend;
            $(#[test] fn $name() { super::$name(&Backend::emulator()); })*
        }

        mod azurite {
            use super::Backend;
            $(#[test] fn $name() { Backend::azurite().iter().for_each(super::$name); })*
        }

        /// Passes without a look unless the environment names an account.
        mod real_account {
            use super::Backend;
            $(#[test] fn $name() { Backend::real().iter().for_each(super::$name); })*
        }
    };
}
pub(crate) use contract;

/// Bounds what does not happen in a test that fails.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The connection string of a real account to run against, if the environment names one.
pub(crate) fn real_account() -> Option<String> {
    std::env::var("AZMUTEX_TEST_CONNECTION_STRING")
        .ok()
        .filter(|value| !value.is_empty())
}

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

/// What an observer heard, for a test that waits for it.
pub(crate) struct Events(Receiver<Event>);

impl Events {
    /// An observer, and what it will have heard.
    pub(crate) fn new() -> (impl Fn(&Event) + Send + Sync + 'static, Self) {
        let (sender, receiver) = mpsc::channel();
        let observer = move |event: &Event| {
            let _ = sender.send(event.clone());
        };
        (observer, Self(receiver))
    }

    /// Waits for the next event that matches, and passes over others before it.
    #[track_caller]
    pub(crate) fn wait(&self, matches: impl Fn(&Event) -> bool) -> Event {
        let end = Instant::now() + LONG;
        let mut passed = Vec::new();
        loop {
            match self
                .0
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(event) if matches(&event) => return event,
                Ok(event) => passed.push(event),
                Err(error) => panic!("{error}, after {passed:#?}"),
            }
        }
    }

    /// What was heard since the last look.
    pub(crate) fn so_far(&self) -> Vec<Event> {
        self.0.try_iter().collect()
    }
}
