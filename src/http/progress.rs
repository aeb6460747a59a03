//! How far the request of this thread has come, for the error that it may end in.
//!
//! ureq reports most failures without the step that failed. It does all work of a request on the
//! calling thread, so the resolver, the connector and the connection note their steps here.

use std::cell::RefCell;

use ureq::http::Uri;
use ureq::http::uri::Scheme;

use crate::error::Phase;

#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// The host and port that the step concerns, as errors show it. Empty: the endpoint's.
    pub(super) host: String,
    /// How many connections are being made: two while a proxy is being connected to.
    connecting: u8,
}

thread_local! {
    static PROGRESS: RefCell<Progress> = const { RefCell::new(Progress::START) };
}

impl Progress {
    /// With an idle connection at hand, sending is the first step.
    const START: Self = Self {
        phase: Phase::Send,
        host: String::new(),
        connecting: 0,
    };
}

pub(super) fn start() {
    PROGRESS.set(Progress::START);
}

pub(super) fn current() -> Progress {
    PROGRESS.with_borrow(Progress::clone)
}

/// Runs a lookup of the host of `uri`.
pub(super) fn resolving<T, E>(uri: &Uri, resolve: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = current();
    PROGRESS.with_borrow_mut(|progress| {
        progress.phase = Phase::Resolve;
        progress.host = shown(uri, progress.connecting > 0);
    });
    let result = resolve();
    if result.is_ok() {
        PROGRESS.set(before);
    }
    result
}

/// Runs what makes a connection to the host of `uri`, to a proxy's from within another.
pub(super) fn connecting<T, E>(uri: &Uri, connect: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    PROGRESS.with_borrow_mut(|progress| {
        progress.phase = Phase::Connect;
        progress.host = shown(uri, progress.connecting > 0);
        progress.connecting += 1;
    });
    let result = connect();
    PROGRESS.with_borrow_mut(|progress| {
        progress.connecting -= 1;
        // Behind a connection to a proxy comes the request to it to connect.
        if result.is_ok() && progress.connecting == 0 {
            *progress = Progress::START;
        }
    });
    result
}

/// The TLS handshake with the host of `uri` begins.
pub(super) fn handshaking(uri: &Uri) {
    PROGRESS.with_borrow_mut(|progress| {
        progress.phase = Phase::Tls;
        progress.host = shown(uri, progress.connecting > 1);
    });
}

/// Runs what sends a part of a request, or of what comes before it on a connection that is still
/// being made.
pub(super) fn sending<T, E>(send: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    set_phase_of_the_request(Phase::Send);
    let result = send();
    if result.is_ok() {
        // It may have been the last part.
        set_phase_of_the_request(Phase::Reply);
    }
    result
}

fn set_phase_of_the_request(phase: Phase) {
    PROGRESS.with_borrow_mut(|progress| {
        if progress.connecting == 0 {
            progress.phase = phase;
        }
    });
}

/// The host and port, without the credentials that a proxy's URL may hold.
fn shown(uri: &Uri, is_proxy: bool) -> String {
    let default = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        _ => 80,
    };
    let port = uri.port_u16().unwrap_or(default);
    let host = uri.host().unwrap_or_default();
    let proxy = if is_proxy { "proxy " } else { "" };
    format!("{proxy}{host}:{port}")
}

/// The host and port of `uri`.
pub(super) fn host_of(uri: &Uri) -> String {
    shown(uri, false)
}
