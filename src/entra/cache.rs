//! The token in hand, and the thread that replaces it ahead of time.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::identity::TokenIdentity;
use super::refresh::{Now, Refresh, Step};
use super::token::{AccessToken, Source, TokenRequest};
use crate::callback::no_panic;
use crate::error::{Error, ErrorKind};
use crate::http::process::PerProcess;
use crate::sync::{Condvar, Mutex, MutexGuard, thread};
use crate::time::clock::Clock;
use crate::time::dates;
use crate::time::jitter::Jitter;
use crate::time::tick::{Moment, Tick};

/// How long a source may take. A managed identity's endpoint that is being updated is back within 70
/// seconds.
const LONGEST_FETCH: Duration = Duration::from_secs(90);

/// How often a lasting failure is logged.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// The token of one source for one audience.
///
/// Sources are slow: one may take longer than a lease lasts. So they are only ever asked on a thread
/// of their own, which runs while a lease is held or wanted, or somebody waits for a token. Those
/// who have a lease to renew take the token in hand.
pub(crate) struct TokenCache {
    source: Arc<dyn Source>,
    audience: String,
    clock: Clock,
    /// A forked child has no thread, and no use for its parent's locks.
    shared: PerProcess<Shared>,
}

/// A token, and which one in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) access: Arc<AccessToken>,
    pub(crate) identity: Arc<TokenIdentity>,
    number: u64,
}

impl Token {
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Arc<Condvar>,
}

#[derive(Debug)]
struct State {
    refresh: Refresh,
    token: Option<Token>,
    /// What the service demanded of the next token.
    claims: Option<String>,
    /// Why the source gave no token when it was last asked.
    failure: Option<Error>,
    /// Why the last attempt of the source failed, which goes on.
    attempt: Arc<Mutex<Option<Error>>>,
    failures: u64,
    /// Failures since the last token.
    attempts: u32,
    reported: Option<Tick>,
    /// How many leases are held or wanted.
    leases: usize,
    waiters: usize,
    is_running: bool,
    jitter: Jitter,
}

impl TokenCache {
    pub(crate) fn new(source: Arc<dyn Source>, audience: String, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            source,
            audience,
            clock,
            shared: PerProcess::new(Shared::new()),
        })
    }

    /// The token in hand, for a renewal. Never waits for a source.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) fn in_hand(self: &Arc<Self>) -> Result<Token, Error> {
        let mut state = self.shared().state.lock();
        // As when there was no thread to be had the last time.
        let _ = self.start(&mut state);
        let now = self.now().moment;
        match state.token.clone() {
            Some(token) if state.refresh.is_valid(now) => Ok(token),
            _ => Err(self.none_yet(&state)),
        }
    }

    /// A token. Waits for one for up to `timeout` if there is none in hand, or if the service
    /// refused it and another may be had.
    ///
    /// # Errors
    ///
    /// Why there is none. The request that it was for has not been sent.
    pub(crate) fn wait(self: &Arc<Self>, timeout: Duration) -> Result<Token, Error> {
        let shared = self.shared();
        let mut state = shared.state.lock();
        let now = self.now().moment;
        if let Some(token) = state.usable(now) {
            return Ok(token);
        }
        state.waiters += 1;
        let result = match self.start(&mut state) {
            Ok(()) => self.wait_until(&mut state, now.real + timeout),
            Err(error) => Err(error),
        };
        state.waiters -= 1;
        shared.changed.notify_all();
        result
    }

    fn wait_until(&self, state: &mut MutexGuard<'_, State>, end: Tick) -> Result<Token, Error> {
        let changed = &self.shared().changed;
        let failures = state.failures;
        let until = Moment {
            lease: Tick::NEVER,
            real: end,
        };
        // The thread may be waiting for longer than it should, now that a token is awaited.
        changed.notify_all();
        loop {
            self.clock.wait(changed, state, until);
            let now = self.now().moment;
            if let Some(token) = state.usable(now) {
                return Ok(token);
            }
            if state.failures != failures || now.real >= end {
                return Err(self.none_yet(state));
            }
        }
    }

    /// The service refused `token`: it is replaced as soon as possible, by one with these claims if
    /// the service demanded any.
    pub(crate) fn refused(&self, token: &Token, claims: Option<String>) {
        let shared = self.shared();
        let mut state = shared.state.lock();
        if state
            .token
            .as_ref()
            .is_some_and(|latest| latest.is_same(token))
        {
            state.refresh.refuse(self.now().moment);
            state.claims = claims;
            shared.changed.notify_all();
        }
    }

    /// Replaces the token ahead of time for as long as the returned value exists: a lease is held or
    /// wanted.
    pub(crate) fn keep_fresh(self: &Arc<Self>) -> KeepFresh {
        let mut state = self.shared().state.lock();
        state.leases += 1;
        // Without a thread the first request says so.
        let _ = self.start(&mut state);
        KeepFresh(Arc::clone(self))
    }

    fn shared(&self) -> &Shared {
        self.shared.get(Shared::new)
    }

    fn now(&self) -> Now {
        Now {
            moment: self.clock.moment(),
            wall: dates::to_system(self.clock.wall()).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// Why there is no token, for a request that was not sent for want of one.
    fn none_yet(&self, state: &State) -> Error {
        let who = self.source.identity();
        let failed = || {
            let error = state.attempt.lock().clone()?;
            Some(error.during("get a token by", &who.to_string()))
        };
        let failure = state.failure.clone().or_else(failed).unwrap_or_else(|| {
            Error::new(
                ErrorKind::Transport,
                format!("no token by {who} yet: it has not answered"),
            )
        });
        failure.marked_unsent()
    }

    /// Starts the thread if somebody needs it.
    fn start(self: &Arc<Self>, state: &mut State) -> Result<(), Error> {
        if state.is_running || !state.is_needed() {
            return Ok(());
        }
        let cache = Arc::clone(self);
        thread::Builder::new()
            .name("azmutex:token".to_owned())
            .spawn(move || cache.run())
            .map_err(|error| {
                Error::new(ErrorKind::System, "no thread to get a token on")
                    .with_source(error)
                    .marked_unsent()
            })?;
        state.is_running = true;
        Ok(())
    }

    fn run(&self) {
        let _presence = self.clock.enter();
        let shared = self.shared();
        let mut state = shared.state.lock();
        while state.is_needed() {
            match state.refresh.step(self.now(), state.waiters > 0) {
                Step::Wait(until) => self.clock.wait(&shared.changed, &mut state, until),
                Step::Fetch => {
                    let claims = state.claims.clone();
                    let attempt = Arc::default();
                    state.attempt = Arc::clone(&attempt);
                    let result = MutexGuard::unlocked(&mut state, || self.fetch(claims, attempt));
                    let report = self.fetched(&mut state, result);
                    shared.changed.notify_all();
                    MutexGuard::unlocked(&mut state, || self.report(report));
                }
            }
        }
        state.is_running = false;
    }

    fn fetch(
        &self,
        claims: Option<String>,
        failure: Arc<Mutex<Option<Error>>>,
    ) -> Result<AccessToken, Error> {
        let request = TokenRequest {
            audience: self.audience.clone(),
            claims,
            deadline: self.clock.now() + LONGEST_FETCH,
            clock: self.clock.clone(),
            failure,
        };
        catch_unwind(AssertUnwindSafe(|| self.source.fetch(&request))).unwrap_or_else(|_| {
            let who = self.source.identity();
            let text = format!("cannot get a token by {who}: it panicked");
            Err(Error::new(ErrorKind::System, text))
        })
    }

    fn fetched(&self, state: &mut State, result: Result<AccessToken, Error>) -> Report {
        let now = self.now();
        let random = state.jitter.next();
        match result {
            Ok(access) => {
                let (expires, wanted) = (access.expires(), access.refresh_after());
                let is_doubtful = state.refresh.received(now, expires, wanted, random);
                let identity = self.source.identity();
                let identity = TokenIdentity::of(identity, &access, &self.audience);
                state.token = Some(Token {
                    identity: Arc::new(identity),
                    number: state.token.as_ref().map_or(0, |token| token.number + 1),
                    access: Arc::new(access),
                });
                state.claims = None;
                state.failure = None;
                state.attempts = 0;
                state.reported = None;
                if is_doubtful {
                    Report::Doubtful(expires)
                } else {
                    Report::Received(state.refresh.left(now.moment))
                }
            }
            Err(error) => {
                state.refresh.failed(now, error.retry_after(), random);
                state.failure = Some(error.clone());
                state.failures += 1;
                state.attempts += 1;
                let real = now.moment.real;
                let is_due = |last: Tick| real.since(last) >= REPORT_EVERY;
                // Whoever waits for a first token is told.
                if state.token.is_none() || !state.reported.is_none_or(is_due) {
                    return Report::Nothing;
                }
                state.reported = Some(real);
                Report::Failed {
                    error,
                    attempt: state.attempts,
                    left: state.refresh.left(now.moment),
                }
            }
        }
    }

    fn report(&self, report: Report) {
        let who = self.source.identity();
        no_panic(|| match report {
            Report::Nothing => {}
            Report::Received(life) => log::debug!(
                "got a token by {who} for {}; it is good for {}",
                self.audience,
                minutes(life)
            ),
            Report::Doubtful(expires) => log::warn!(
                "the token that came by {who} expired at {}, by this machine's clock; is the clock \
                 right?",
                dates::from_system(expires).map_or_else(String::new, dates::utc)
            ),
            Report::Failed {
                error,
                attempt,
                left,
            } => log::warn!(
                "cannot refresh the token: {error} (attempt {attempt}); the present one {}",
                if left.is_zero() {
                    "has expired, so no lease can be renewed".to_owned()
                } else {
                    format!("is good for {}", minutes(left))
                }
            ),
        });
    }
}

/// What to log about a fetch.
enum Report {
    Nothing,
    Received(Duration),
    Doubtful(SystemTime),
    Failed {
        error: Error,
        attempt: u32,
        left: Duration,
    },
}

impl Shared {
    fn new() -> Self {
        let seed = Clock::System.now().as_nanos() ^ u64::from(process::id());
        Self {
            state: Mutex::new(State {
                refresh: Refresh::new(),
                token: None,
                claims: None,
                failure: None,
                attempt: Arc::default(),
                failures: 0,
                attempts: 0,
                reported: None,
                leases: 0,
                waiters: 0,
                is_running: false,
                jitter: Jitter::new(seed),
            }),
            changed: Arc::new(Condvar::new()),
        }
    }
}

impl State {
    fn is_needed(&self) -> bool {
        self.leases + self.waiters > 0
    }

    /// The token in hand, unless it is worth waiting for another one.
    fn usable(&self, now: Moment) -> Option<Token> {
        let is_usable = self.refresh.is_valid(now) && !self.refresh.is_to_be_replaced(now);
        self.token.clone().filter(|_| is_usable)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("source", &self.source)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// See [`TokenCache::keep_fresh`].
#[derive(Debug)]
#[must_use = "the token is kept fresh until this is dropped"]
pub(crate) struct KeepFresh(Arc<TokenCache>);

impl Drop for KeepFresh {
    fn drop(&mut self) {
        let shared = self.0.shared();
        let mut state = shared.state.lock();
        state.leases = state.leases.saturating_sub(1);
        shared.changed.notify_all();
    }
}

/// A time in the largest units that say enough: `23h51m`, `41m`, `9s`.
fn minutes(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..60 => format!("{secs}s"),
        secs @ 60..3600 => format!("{}m", secs / 60),
        secs => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
    }
}

#[cfg(all(test, feature = "emulator"))]
#[path = "cache_tests.rs"]
mod tests;
