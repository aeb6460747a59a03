//! The faults that a lock survives, injected between client and service.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use azmutex::emulator::Clock;
use azmutex::{
    AzureMutex, Error, ErrorKind, Event, LeaseDuration, LeaseGuard, LeaseId, LeaseState, Locker,
    LockerBuilder, LossReason, MutexOptions,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, FaultProxy, RequestHead, Seen};
use crate::support::{Events, LONG};

mod access;
mod endings;
mod lost_replies;
mod processes;
mod renewals;
mod replies;
mod silence;
mod waiting;

const KEY: &str = "nightly/report";

/// The request timeout of clients unless a test sets another: short, so that tests are.
const TIMEOUT: Duration = SEC;

/// What a busy machine may add to a time.
const SLACK: Duration = SEC;

const SEC: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A service that has the lock's blob, and a proxy before it.
struct Setup<'a> {
    backend: &'a Backend,
    proxy: FaultProxy,
    /// The request timeout of its clients.
    timeout: Duration,
}

impl<'a> Setup<'a> {
    fn before(backend: &'a Backend) -> Self {
        let proxy = FaultProxy::start(backend.addr().expect("a local service"));
        let mutex = backend.mutex();
        let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
        mutex.release(&lease).expect("it is held");
        Self {
            backend,
            proxy,
            timeout: TIMEOUT,
        }
    }

    fn options(&self) -> MutexOptions {
        self.backend
            .options()
            .request_timeout(self.timeout)
            .endpoint(&self.proxy.endpoint())
            .expect("the endpoint is well-formed")
    }

    /// For requests that are all answered or cut off: a busy machine may take its time with them.
    fn patient_mutex(&self) -> AzureMutex {
        let options = self.options().request_timeout(LONG);
        AzureMutex::new(options).expect("the options are sound")
    }

    fn patient_locker(&self) -> Locker {
        Locker::new(self.patient_mutex(), KEY).expect("the settings are sound")
    }

    fn mutex(&self) -> AzureMutex {
        AzureMutex::new(self.options()).expect("the options are sound")
    }

    /// With the default lease of 60 seconds, of which 55 are claimed, and a renewal after 20.
    fn builder(&self) -> LockerBuilder {
        Locker::builder(self.mutex(), KEY).poll_interval(10 * MILLI)
    }

    fn locker(&self) -> Locker {
        self.builder().build().expect("the settings are sound")
    }

    /// A guard, and what its observer hears.
    fn lock(&self) -> (LeaseGuard, Events) {
        self.lock_with(|builder| builder)
    }

    fn lock_with(&self, set: impl FnOnce(LockerBuilder) -> LockerBuilder) -> (LeaseGuard, Events) {
        let (observer, events) = Events::new();
        let locker = set(self.builder()).observer(observer).build();
        let guard = locker.expect("the settings are sound").lock();
        let guard = guard.expect("it is free");
        events.wait(|event| matches!(event, Event::Acquired { .. }));
        (guard, events)
    }

    /// What the service says of the lock, past the proxy.
    #[track_caller]
    fn state(&self) -> LeaseState {
        let status = self.backend.mutex().status(KEY);
        status.expect("the blob exists").state()
    }

    /// The requests seen that ask for this lease operation.
    fn seen(&self, action: &'static str) -> Vec<Seen> {
        let mut seen = self.proxy.seen();
        seen.retain(|seen| seen.lease_action() == Some(action));
        seen
    }

    fn always_on(&self, action: &'static str, fault: Fault) {
        self.proxy.always_when(on(action), fault);
    }

    fn once_on(&self, action: &'static str, fault: Fault) {
        self.proxy.when(on(action), fault);
    }
}

fn frozen() -> Backend {
    Backend::emulator_by(Clock::frozen())
}

/// Requests for this lease operation.
fn on(action: &'static str) -> impl Fn(&RequestHead) -> bool + Send + 'static {
    move |request| request.lease_action() == Some(action)
}

fn proposed_id(request: &RequestHead) -> String {
    let id = request.header("x-ms-proposed-lease-id");
    id.expect("an acquire proposes an ID").to_owned()
}

/// Runs `call`, which has to end within `limit`.
#[track_caller]
fn within<T>(limit: Duration, call: impl FnOnce() -> T) -> T {
    let before = Instant::now();
    let result = call();
    let took = before.elapsed();
    assert!(took < limit + SLACK, "{took:?} instead of {limit:?}");
    result
}

#[track_caller]
fn fails<T: Debug>(result: Result<T, impl Into<Error>>, kind: ErrorKind) -> Error {
    let error = result.expect_err("it cannot succeed").into();
    assert_eq!(error.kind(), kind, "{error}");
    error
}

#[track_caller]
fn is_lost<T: Debug>(result: Result<T, Error>, reason: LossReason) {
    let error = fails(result, ErrorKind::LeaseLost);
    assert_eq!(error.loss_reason(), Some(reason), "{error}");
}

fn is_renewal_failed(event: &Event) -> bool {
    matches!(event, Event::RenewalFailed { .. })
}

fn is_renewed(event: &Event) -> bool {
    matches!(event, Event::Renewed)
}

fn is_unproven(event: &Event) -> bool {
    matches!(event, Event::Unproven)
}

fn is_loss(event: &Event) -> bool {
    matches!(event, Event::Lost { .. })
}
