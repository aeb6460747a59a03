//! How far this thread's request has got, for its error message.
//!
//! Most of ureq's errors do not say which step failed. It does all the work of a request on the
//! calling thread, so the resolver, the connector and the connection record their steps here.

use std::cell::RefCell;

use ureq::http::Uri;
use ureq::http::uri::Scheme;

use crate::error::Phase;

#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// The host and port of the step; empty for the endpoint's.
    pub(super) host: String,
    /// Whether that is the proxy.
    pub(super) is_proxy: bool,
    /// How many connections are being made: two while connecting to a proxy.
    connecting: u8,
}

thread_local! {
    static PROGRESS: RefCell<Progress> = const { RefCell::new(Progress::START) };
}

impl Progress {
    /// On an idle connection, sending is the first step.
    const START: Self = Self {
        phase: Phase::Send,
        host: String::new(),
        is_proxy: false,
        connecting: 0,
    };
}

pub(super) fn start() {
    PROGRESS.set(Progress::START);
}

pub(super) fn current() -> Progress {
    PROGRESS.with_borrow(Progress::clone)
}

/// Runs `resolve`, which looks up the host of `uri`.
pub(super) fn resolving<T, E>(uri: &Uri, resolve: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = current();
    reach(Phase::Resolve, uri, before.connecting > 0);
    let result = resolve();
    if result.is_ok() {
        PROGRESS.set(before);
    }
    result
}

/// Runs `connect`, which connects to the host of `uri`. Nested if that is a proxy's.
pub(super) fn connecting<T, E>(uri: &Uri, connect: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    reach(Phase::Connect, uri, current().connecting > 0);
    PROGRESS.with_borrow_mut(|progress| progress.connecting += 1);
    let result = connect();
    PROGRESS.with_borrow_mut(|progress| {
        progress.connecting -= 1;
        match progress.connecting {
            _ if result.is_err() => {}
            0 => *progress = Progress::START,
            // To a proxy, perhaps by TLS. The CONNECT request to it follows.
            _ => progress.phase = Phase::Connect,
        }
    });
    result
}

/// The TLS handshake with the host of `uri` begins.
pub(super) fn handshaking(uri: &Uri) {
    reach(Phase::Tls, uri, current().connecting > 1);
}

fn reach(phase: Phase, uri: &Uri, is_proxy: bool) {
    PROGRESS.with_borrow_mut(|progress| {
        progress.phase = phase;
        progress.host = host_of(uri);
        progress.is_proxy = is_proxy;
    });
}

/// Runs `send`, which sends a part of the request or, on a connection still being made, of the
/// setup.
pub(super) fn sending<T, E>(send: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    set_request_phase(Phase::Send);
    let result = send();
    if result.is_ok() {
        // It may have been the last part.
        set_request_phase(Phase::Reply);
    }
    result
}

fn set_request_phase(phase: Phase) {
    PROGRESS.with_borrow_mut(|progress| {
        if progress.connecting == 0 {
            progress.phase = phase;
        }
    });
}

/// The host and port, without the credentials that a proxy's URL may hold.
pub(super) fn host_of(uri: &Uri) -> String {
    let default = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        _ => 80,
    };
    let port = uri.port_u16().unwrap_or(default);
    format!("{}:{port}", uri.host().unwrap_or_default())
}
