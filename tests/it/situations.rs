//! What each operation of the client comes to, for every state of a lease and every answer that a
//! lock client can meet.

use std::time::Duration;

use azmutex::emulator::Clock;
use azmutex::{AzureMutex, Error, ErrorKind, Lease, LeaseDuration, LeaseId, Locker, LossReason};

use crate::support::backend::Backend;
use crate::support::on_local_services;
use crate::support::proxy::{Fault, FaultProxy, error_reply, internal_error, reply, service_reply};

on_local_services! {
    operations_come_to_what_the_state_of_the_lease_says
}

const KEY: &str = "lock";

/// What an operation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// A release that found nothing to release.
    Lost(LossReason),
    Failed(ErrorKind),
}

use ErrorKind::{Auth, NotFound, Protocol, Service, Throttled, Transport, WouldBlock};
use LossReason::{Broken, Deleted, Taken};
use Outcome::{Done, Failed, Lost};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Acquire,
    Renew,
    Change,
    Release,
    Break,
    BreakNow,
    Status,
    List,
}

use Operation::{Acquire, Break, BreakNow, Change, List, Release, Renew, Status};

impl Operation {
    fn run(self, mutex: &AzureMutex, lease: &Lease) -> (Outcome, Option<Error>) {
        let result = match self {
            Acquire => mutex.acquire(KEY, LeaseDuration::MAX).map(drop),
            Renew => mutex.renew(lease),
            Change => mutex
                .change(lease, LeaseId::random().expect("random numbers"))
                .map(drop),
            Release => mutex.release(lease),
            Break => mutex.break_lease(KEY, None).map(drop),
            BreakNow => mutex.break_lease(KEY, Some(Duration::ZERO)).map(drop),
            Status => mutex.status(KEY).map(drop),
            List => mutex.list("").try_for_each(|status| status.map(drop)),
        };
        match result {
            Ok(()) => (Done, None),
            Err(error) => match error.loss_reason() {
                Some(reason) => (Lost(reason), Some(error)),
                None => (Failed(error.kind()), Some(error)),
            },
        }
    }
}

/// How a lock got into the state that an operation meets it in. The lease is one of a minute.
#[derive(Debug, Clone, Copy)]
enum State {
    NeverLeased,
    Released,
    LeasedByAnother,
    Leased,
    Breaking,
    Broken,
    Expired,
    ExpiredAndWritten,
    BlobDeleted,
}

impl State {
    fn needs_time(self) -> bool {
        matches!(self, Self::Expired | Self::ExpiredAndWritten)
    }

    /// Brings about the state, and returns the lease of the one who asks next.
    fn bring_about(self, backend: &Backend, mutex: &AzureMutex) -> Lease {
        let path = backend.path(KEY);
        let account = backend.account();
        if matches!(self, Self::NeverLeased) {
            account.create_container(backend.container());
            account.write_blob(&path, None);
            return Lease::new(KEY, LeaseId::random().expect("random numbers"))
                .expect("the key is sound");
        }
        let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
        let id = lease.id().to_string();
        match self {
            Self::NeverLeased | Self::Leased => {}
            Self::Released => mutex.release(&lease).expect("it is held"),
            Self::LeasedByAnother => {
                mutex.release(&lease).expect("it is held");
                mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
            }
            Self::Breaking => drop(mutex.break_lease(KEY, None).expect("it is leased")),
            Self::Broken => {
                let now = Some(Duration::ZERO);
                mutex.break_lease(KEY, now).expect("it is leased");
            }
            Self::Expired => backend.pass(Duration::from_secs(60)),
            Self::ExpiredAndWritten => {
                backend.pass(Duration::from_secs(60));
                account.write_blob(&path, None);
            }
            Self::BlobDeleted => drop(account.delete_blob(&path, Some(&id))),
        }
        lease
    }
}

fn operations_come_to_what_the_state_of_the_lease_says(backend: &Backend) {
    const BUSY: Outcome = Failed(WouldBlock);
    const NONE: Outcome = Failed(NotFound);
    let operations = [Acquire, Renew, Change, Release, Break, BreakNow];
    #[rustfmt::skip]
    let rows = [
        (State::NeverLeased, [Done, Lost(Taken), Lost(Taken), Lost(Taken), NONE, NONE]),
        (State::Released, [Done, Lost(Taken), Lost(Taken), Lost(Taken), NONE, NONE]),
        (State::LeasedByAnother, [BUSY, Lost(Taken), Lost(Taken), Lost(Taken), Done, Done]),
        (State::Leased, [BUSY, Done, Done, Done, Done, Done]),
        (State::Breaking, [BUSY, Lost(Broken), Lost(Broken), Done, Done, Done]),
        (State::Broken, [Done, Lost(Broken), Lost(Taken), Done, Done, Done]),
        (State::Expired, [Done, Done, Lost(Taken), Done, Done, Done]),
        (State::ExpiredAndWritten, [Done, Lost(Taken), Lost(Taken), Lost(Taken), NONE, NONE]),
        (State::BlobDeleted, [Done, Lost(Deleted), Lost(Deleted), Lost(Deleted), NONE, NONE]),
    ];
    for (state, outcomes) in rows {
        if state.needs_time() && !backend.can_pass() {
            continue;
        }
        for (operation, wanted) in operations.into_iter().zip(outcomes) {
            // Another blob for each would do too, but for the operations that name the key alone.
            let fresh = backend.another();
            let mutex = fresh.mutex();
            let lease = state.bring_about(&fresh, &mutex);
            let (outcome, error) = operation.run(&mutex, &lease);
            assert_eq!(outcome, wanted, "{operation:?} when {state:?}: {error:?}");
        }
    }
}

/// Has what may pass reported at once, instead of when it was put up with for long enough.
const LATER: &[(&str, &str)] = &[("Retry-After", "3600")];

/// A client whose requests are all answered by the proxy, without a service behind it.
struct Scripted {
    proxy: FaultProxy,
    mutex: AzureMutex,
    lease: Lease,
}

impl Scripted {
    fn new() -> Self {
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        let proxy = FaultProxy::start(nobody);
        let options =
            azmutex::MutexOptions::from_connection_string(&proxy.connection_string(), "locks")
                .expect("well-formed")
                .request_timeout(Duration::from_millis(500))
                .create_missing(false);
        let mutex = AzureMutex::new(options).expect("sound");
        let lease =
            Lease::new(KEY, LeaseId::random().expect("random numbers")).expect("the key is sound");
        Self {
            proxy,
            mutex,
            lease,
        }
    }
}

#[test]
fn operations_come_to_what_the_answer_says() {
    use Operation as O;

    const LEASE: &[O] = &[Acquire, Renew, Change, Release, Break];
    const HELD: &[O] = &[Renew, Change];
    const ALL: &[O] = &[Acquire, Renew, Change, Release, Break, Status, List];
    let busy = Failed(WouldBlock);
    let missing = Failed(NotFound);
    #[rustfmt::skip]
    let rows: &[(&[O], u16, &str, Outcome)] = &[
        // The state of the lease.
        (&[Acquire], 409, "LeaseAlreadyPresent", busy),
        (&[Acquire], 409, "LeaseIsBreakingAndCannotBeAcquired", busy),
        (&[Acquire], 409, "LeaseIdMismatchWithLeaseOperation", busy),
        (HELD, 409, "LeaseIdMismatchWithLeaseOperation", Lost(Taken)),
        (HELD, 409, "LeaseNotPresentWithLeaseOperation", Lost(Taken)),
        (HELD, 412, "LeaseIdMismatchWithBlobOperation", Lost(Taken)),
        (HELD, 412, "LeaseNotPresentWithBlobOperation", Lost(Taken)),
        (HELD, 412, "LeaseLost", Lost(Taken)),
        (HELD, 409, "LeaseIsBrokenAndCannotBeRenewed", Lost(Broken)),
        (HELD, 409, "LeaseIsBreakingAndCannotBeChanged", Lost(Broken)),
        (&[Release], 409, "LeaseIdMismatchWithLeaseOperation", Lost(Taken)),
        (&[Release], 409, "LeaseNotPresentWithLeaseOperation", Lost(Taken)),
        (&[Release], 412, "LeaseLost", Lost(Taken)),
        (&[Break], 409, "LeaseNotPresentWithLeaseOperation", missing),
        (&[Break], 409, "LeaseAlreadyBroken", missing),
        // What there is not.
        (&[Acquire, Break, Status], 404, "BlobNotFound", missing),
        (&[Acquire, Break, Status, List], 404, "ContainerNotFound", missing),
        (&[Acquire, Break, Status, List], 409, "ContainerBeingDeleted", missing),
        (&[Status, List], 404, "ResourceNotFound", missing),
        (HELD, 404, "BlobNotFound", Lost(Deleted)),
        (HELD, 404, "ContainerNotFound", Lost(Deleted)),
        (HELD, 409, "ContainerBeingDeleted", Lost(Deleted)),
        (&[Release], 404, "BlobNotFound", Lost(Deleted)),
        (&[Release], 404, "ContainerNotFound", Lost(Deleted)),
        (&[Release], 409, "ContainerBeingDeleted", Lost(Deleted)),
        // Who may not.
        (ALL, 403, "AuthenticationFailed", Failed(Auth)),
        (ALL, 403, "AuthorizationFailure", Failed(Auth)),
        (ALL, 403, "AuthorizationPermissionMismatch", Failed(Auth)),
        (ALL, 403, "AuthorizationResourceTypeMismatch", Failed(Auth)),
        (ALL, 403, "AuthorizationProtocolMismatch", Failed(Auth)),
        (ALL, 403, "AuthorizationSourceIPMismatch", Failed(Auth)),
        (ALL, 403, "InsufficientAccountPermissions", Failed(Auth)),
        (ALL, 403, "KeyBasedAuthenticationNotPermitted", Failed(Auth)),
        (ALL, 403, "AccountIsDisabled", Failed(Auth)),
        (ALL, 403, "SomethingNew", Failed(Auth)),
        (ALL, 401, "NoAuthenticationInformation", Failed(Auth)),
        (ALL, 401, "InvalidAuthenticationInfo", Failed(Auth)),
        (ALL, 400, "InvalidAuthenticationInfo", Failed(Auth)),
        // What the service cannot do now.
        (ALL, 503, "ServerBusy", Failed(Throttled)),
        (ALL, 503, "SomethingNew", Failed(Throttled)),
        (ALL, 429, "TooManyRequests", Failed(Throttled)),
        (ALL, 500, "InternalError", Failed(Service)),
        (ALL, 500, "OperationTimedOut", Failed(Service)),
        (ALL, 408, "RequestTimeout", Failed(Service)),
        (ALL, 502, "SomethingNew", Failed(Service)),
        (ALL, 504, "SomethingNew", Failed(Service)),
        // What it never does to a client that works.
        (LEASE, 412, "ConditionNotMet", Failed(Protocol)),
        (LEASE, 412, "SomethingNew", Failed(Protocol)),
        (LEASE, 409, "SomethingNew", Failed(Protocol)),
        (ALL, 400, "InvalidHeaderValue", Failed(Protocol)),
        (ALL, 400, "MissingRequiredHeader", Failed(Protocol)),
        (ALL, 400, "InvalidResourceName", Failed(Protocol)),
        (ALL, 405, "UnsupportedHttpVerb", Failed(Protocol)),
    ];
    let scripted = Scripted::new();
    for &(operations, status, code, wanted) in rows {
        let answer = error_reply(status, code, "What the service says.", LATER);
        scripted.proxy.always(Some(Fault::Answer(answer)));
        for &operation in operations {
            let (outcome, error) = operation.run(&scripted.mutex, &scripted.lease);
            let row = format!("{operation:?} answered {status} {code}");
            assert_eq!(outcome, wanted, "{row}: {error:?}");
            if let Some(error) = error {
                assert_eq!(error.status(), Some(status), "{row}");
                assert_eq!(error.service_code(), Some(code), "{row}");
                let id = error.request_id().expect(&row);
                assert_eq!(id, "3781ceea-e01e-00b7-76a5-15d5a7000000", "{row}");
                // Each fact once, and none of them missing.
                let shown = error.to_string();
                assert_eq!(shown.matches(code).count(), 1, "{row}: {shown}");
                assert!(shown.contains("devstoreaccount1/locks/"), "{row}: {shown}");
            }
        }
    }
}

#[test]
fn answers_without_a_code_are_judged_by_their_status() {
    let scripted = Scripted::new();
    let operations = [Acquire, Renew, Change, Release, Break, Status, List];
    // A status alone never says that a lease is lost, taken or missing.
    for (status, wanted) in [
        (400, Protocol),
        (401, Protocol),
        (403, Protocol),
        (404, Protocol),
        (405, Protocol),
        (408, Service),
        (409, Protocol),
        (412, Protocol),
        (418, Protocol),
        (429, Throttled),
        (500, Service),
        (502, Service),
        (503, Throttled),
        (504, Service),
    ] {
        for body in [
            &b""[..],
            b"<html>Log in to the network</html>",
            b"\xff\xfe<Error",
        ] {
            let answer = reply(status, "No", LATER, body);
            scripted.proxy.always(Some(Fault::Answer(answer)));
            for operation in operations {
                let (outcome, error) = operation.run(&scripted.mutex, &scripted.lease);
                assert_eq!(
                    outcome,
                    Failed(wanted),
                    "{operation:?} answered {status}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn successes_are_judged_by_the_lease_that_they_name() {
    let scripted = Scripted::new();
    let (own, other) = (
        scripted.lease.id().to_string(),
        LeaseId::random().expect("random numbers").to_string(),
    );
    let named = |id: &str| service_reply(200, "OK", &[("x-ms-lease-id", id)], b"");
    let rows = [
        (Renew, named(&own), Done),
        (Renew, named(&other), Lost(Taken)),
        (Renew, named("nonsense"), Failed(Protocol)),
        (Renew, service_reply(200, "OK", &[], b""), Failed(Protocol)),
        (
            Renew,
            service_reply(202, "Accepted", &[("x-ms-lease-id", &own)], b""),
            Done,
        ),
        // The ID that was proposed is not known to the script.
        (Change, named(&own), Lost(Taken)),
        (Change, service_reply(200, "OK", &[], b""), Failed(Protocol)),
        (Acquire, named(&other), Failed(Protocol)),
        (
            Acquire,
            service_reply(201, "Created", &[], b""),
            Failed(Protocol),
        ),
        // These name none, whatever they come to.
        (Release, service_reply(200, "OK", &[], b""), Done),
        (Release, service_reply(204, "No Content", &[], b""), Done),
        (
            Break,
            service_reply(202, "Accepted", &[("x-ms-lease-time", "7")], b""),
            Done,
        ),
        (Status, service_reply(200, "OK", &[], b""), Done),
        (
            List,
            service_reply(200, "OK", &[], b"<EnumerationResults/>"),
            Done,
        ),
        (
            List,
            service_reply(200, "OK", &[], b"<Other/>"),
            Failed(Protocol),
        ),
        (List, service_reply(200, "OK", &[], b""), Failed(Protocol)),
        (
            List,
            service_reply(200, "OK", &[], b"\xff"),
            Failed(Protocol),
        ),
        (
            Status,
            service_reply(304, "Not Modified", &[], b""),
            Failed(Protocol),
        ),
        (
            Renew,
            b"HTTP/1.1 200 OK\r\n\r\n"[..12].to_vec(),
            Failed(Transport),
        ),
    ];
    for (operation, answer, wanted) in rows {
        let shown = String::from_utf8_lossy(&answer).into_owned();
        scripted.proxy.always(Some(Fault::Answer(answer)));
        let (outcome, error) = operation.run(&scripted.mutex, &scripted.lease);
        assert_eq!(
            outcome, wanted,
            "{operation:?} answered {shown:?}: {error:?}"
        );
    }
}

#[test]
fn refusal_of_a_release_after_a_lost_reply_means_released() {
    let scripted = Scripted::new();
    let code = "LeaseIdMismatchWithLeaseOperation";
    let refused = || Fault::Answer(error_reply(409, code, "It did not match.", &[]));
    let busy = || Fault::Answer(crate::support::proxy::server_busy(None));
    let release = || Release.run(&scripted.mutex, &scripted.lease).0;
    for first in [Fault::DropBefore, Fault::Answer(internal_error())] {
        scripted.proxy.push(first);
        scripted.proxy.push(refused());
        assert_eq!(release(), Done);
    }
    // Who was told to come back later knows that nothing was done.
    scripted.proxy.push(busy());
    scripted.proxy.push(refused());
    assert_eq!(release(), Lost(Taken));
}

#[test]
fn what_is_there_already_need_not_be_made() {
    let backend = Backend::emulator_by(Clock::frozen());
    let proxy = FaultProxy::start(backend.addr().expect("a local service"));
    let lock = || {
        let options = backend
            .options()
            .endpoint(&proxy.endpoint())
            .expect("well-formed");
        let mutex = AzureMutex::new(options)?;
        Locker::new(mutex, KEY)?.lock().map(drop)
    };
    lock().expect("it is made");
    let acquires = |code: &str| {
        let missing = Fault::Answer(error_reply(404, code, "It does not exist.", &[]));
        proxy.when(|request| request.lease_action() == Some("acquire"), missing);
    };
    // Somebody else makes it between the two requests.
    for (status, code) in [
        (409, "BlobAlreadyExists"),
        (412, "LeaseIdMissing"),
        (412, "ConditionNotMet"),
    ] {
        acquires("BlobNotFound");
        let there = error_reply(status, code, "It is there.", &[]);
        proxy.when(
            |request| request.header("x-ms-blob-type").is_some(),
            Fault::Answer(there),
        );
        lock().unwrap_or_else(|error| panic!("{code}: {error}"));
    }
    acquires("ContainerNotFound");
    lock().expect("the container is there: 409 ContainerAlreadyExists");
    for (status, code, kind) in [
        (409, "ContainerBeingDeleted", NotFound),
        (403, "AuthorizationPermissionMismatch", Auth),
        (403, "AuthorizationFailure", Auth),
        (400, "InvalidResourceName", Protocol),
    ] {
        acquires("ContainerNotFound");
        let refused = error_reply(status, code, "It cannot be made.", &[]);
        proxy.when(
            |request| request.target.contains("restype=container"),
            Fault::Answer(refused),
        );
        let error = lock().expect_err(code);
        assert_eq!(
            (error.kind(), error.service_code()),
            (kind, Some(code)),
            "{error}"
        );
    }
    // An existing blob is never overwritten: it is made on condition, and without a lease ID.
    for put in proxy
        .seen()
        .iter()
        .filter(|seen| seen.header("x-ms-blob-type").is_some())
    {
        assert_eq!(put.header("if-none-match"), Some("*"));
        assert_eq!(put.header("x-ms-lease-id"), None);
    }
}
