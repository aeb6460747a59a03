//! Replies that are not what the service sends.

use azmutex::Lease;

use super::*;
use crate::support::proxy::{error_reply, internal_error, reply, server_busy, service_reply};

/// A reply to a renewal that would be a success if it were not for its form.
fn renewed(lease: &Lease, header: (&str, &str), body: &[u8]) -> Vec<u8> {
    let id = lease.id().to_string();
    service_reply(200, "OK", &[("x-ms-lease-id", id.as_str()), header], body)
}

#[test]
fn replies_in_the_wrong_form_are_no_replies() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let options = setup.options().request_timeout(TIMEOUT / 2);
    let mutex = AzureMutex::new(options).expect("sound");
    let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    let big = vec![b'x'; 64 * 1024 + 1];
    let text = String::from_utf8(big.clone()).expect("it is ASCII");
    let id = lease.id();
    let chunked =
        format!("HTTP/1.1 200 OK\r\nx-ms-lease-id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let rows = [
        ("a large header", renewed(&lease, ("x-large", &text), b""), "headers are too large"),
        ("a large body", renewed(&lease, ("x-a", "b"), &big), "the reply is too large"),
        (
            "a large chunked body",
            format!("{chunked}10001\r\n{text}\r\n0\r\n\r\n").into_bytes(),
            "the reply is too large",
        ),
        ("a chunk that is none", format!("{chunked}zz\r\n").into_bytes(), "not HTTP"),
        (
            "a body that is cut short",
            format!("HTTP/1.1 200 OK\r\nx-ms-lease-id: {id}\r\nContent-Length: 9\r\nConnection: close\r\n\r\nx")
                .into_bytes(),
            "",
        ),
        ("nothing", Vec::new(), "closed before the reply"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), ""),
        ("bytes", vec![0xff; 300], ""),
        ("half a line", b"HTTP/1.1 2".to_vec(), ""),
        ("a status without sense", b"HTTP/1.1 999 OK\r\nx-ms-version: 1\r\nContent-Length: 0\r\n\r\n".to_vec(), ""),
    ];
    for (name, bytes, text) in rows {
        // Framed or not, the connection ends behind it, as far as the proxy knows.
        setup.once_on("renew", Fault::Answer(bytes.clone()));
        let before = setup.seen("renew").len();
        within(TIMEOUT, || mutex.renew(&lease)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            setup.seen("renew").len(),
            before + 2,
            "{name}: it is sent again"
        );
        setup.always_on("renew", Fault::Answer(bytes));
        let error = within(TIMEOUT, || mutex.renew(&lease)).expect_err(name);
        let kinds = [ErrorKind::Transport, ErrorKind::Protocol];
        assert!(kinds.contains(&error.kind()), "{name}: {error:?}");
        assert!(error.to_string().contains(text), "{name}: {error}");
        setup.proxy.clear();
    }
}

#[test]
fn replies_up_to_the_limits_are_read() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let mutex = setup.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    // A blob's metadata may have 8 KiB.
    let text = "x".repeat(15 * 1024);
    for answer in [
        renewed(&lease, ("x-large", &text), b""),
        renewed(&lease, ("x-a", "b"), &[b'x'; 64 * 1024]),
    ] {
        let before = setup.seen("renew").len();
        setup.once_on("renew", Fault::Answer(answer));
        mutex.renew(&lease).expect("it is within the limits");
        assert_eq!(setup.seen("renew").len(), before + 1);
    }
}

#[test]
fn acquire_that_echoes_another_lease_is_sent_again() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let other = LeaseId::random().expect("random numbers");
    setup.once_on(
        "acquire",
        Fault::replace_header("x-ms-lease-id", &other.to_string()),
    );
    let (guard, _) = within(SEC, || setup.lock());
    assert_ne!(guard.lease_id(), other);
    let ids: Vec<_> = setup
        .seen("acquire")
        .iter()
        .map(|s| proposed_id(s))
        .collect();
    let id = guard.lease_id().to_string();
    assert_eq!(ids, [id.clone(), id]);
    drop(guard);

    setup.always_on("acquire", Fault::remove_header("x-ms-lease-id"));
    let locker = setup.locker();
    fails(within(TIMEOUT, || locker.try_lock()), ErrorKind::Protocol);
    assert!(locker.settle(crate::support::LONG));
    assert_eq!(setup.state(), LeaseState::Available);
}

#[test]
fn reply_to_another_request_is_not_believed_and_its_connection_not_used_again() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let mutex = setup.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    assert_eq!(setup.proxy.connections(), 1);
    let another = Fault::replace_header("x-ms-client-request-id", "0123-4");
    setup.once_on("renew", another.clone());
    mutex.renew(&lease).expect("the second attempt is answered");
    assert_eq!(setup.seen("renew").len(), 2);
    assert_eq!(setup.proxy.connections(), 2);
    setup.always_on("renew", another);
    let error = fails(
        within(TIMEOUT, || mutex.renew(&lease)),
        ErrorKind::Transport,
    );
    assert!(
        error.to_string().contains("belongs to another request"),
        "{error}"
    );
    // Older versions of the service do not echo it at all.
    setup
        .proxy
        .always(Some(Fault::remove_header("x-ms-client-request-id")));
    mutex.renew(&lease).expect("no echo is no wrong echo");
}

#[test]
fn redirect_is_not_followed() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let elsewhere = FaultProxy::start(backend.addr().expect("a local service"));
    let location = format!("{}/{}", elsewhere.endpoint(), backend.path(KEY));
    for status in [301, 302, 303, 307, 308] {
        let redirect = reply(status, "Go", &[("Location", &location)], b"");
        setup.proxy.always(Some(Fault::Answer(redirect)));
        let before = setup.proxy.seen().len();
        let locker = setup.locker();
        let error = fails(within(TIMEOUT / 2, || locker.lock()), ErrorKind::Protocol);
        assert!(
            error
                .to_string()
                .contains("a redirect, which is not followed"),
            "{error}"
        );
        assert_eq!(
            setup.proxy.seen().len(),
            before + 1,
            "it is no use to ask again"
        );
        fails(setup.mutex().status(KEY), ErrorKind::Protocol);
        fails(
            setup.mutex().list("").collect::<Result<Vec<_>, _>>(),
            ErrorKind::Protocol,
        );
    }
    assert!(elsewhere.seen().is_empty(), "{:?}", elsewhere.seen());
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn codes_are_read_from_the_body_behind_a_byte_order_mark() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let held = backend
        .mutex()
        .acquire(KEY, LeaseDuration::MAX)
        .expect("it is free");
    setup
        .proxy
        .always(Some(Fault::remove_header("x-ms-error-code")));
    let mutex = setup.mutex();
    let error = fails(
        mutex.acquire(KEY, LeaseDuration::MAX),
        ErrorKind::WouldBlock,
    );
    assert_eq!(error.service_code(), Some("LeaseAlreadyPresent"));
    is_lost(
        mutex.renew(&Lease::new(KEY, LeaseId::random().expect("random numbers")).expect("sound")),
        LossReason::Taken,
    );
    let elsewhere = Lease::new("nowhere", held.id()).expect("the key is sound");
    is_lost(mutex.renew(&elsewhere), LossReason::Deleted);
    mutex
        .acquire("new", LeaseDuration::MAX)
        .expect("what is missing is made");
    // A HEAD reply has no body to read it from.
    let error = fails(mutex.status("nowhere"), ErrorKind::Protocol);
    assert_eq!((error.status(), error.service_code()), (Some(404), None));
}

#[test]
fn chunked_heads_and_empty_chunked_successes_leave_the_connection_usable() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let mutex = setup.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    let chunked = |status: &str, header: &str| {
        format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n{header}\r\n\r\n").into_bytes()
    };
    for _ in 0..3 {
        let missing = chunked(
            "404 The specified blob does not exist.",
            "x-ms-error-code: BlobNotFound",
        );
        setup.proxy.push(Fault::Answer(missing));
        let error = fails(mutex.status("nowhere"), ErrorKind::NotFound);
        assert_eq!(error.service_code(), Some("BlobNotFound"));
        let header = format!(
            "x-ms-version: 1\r\nETag: \"5\"\r\nx-ms-lease-id: {}",
            lease.id()
        );
        let mut empty = chunked("200 OK", &header);
        empty.extend_from_slice(b"0\r\n\r\n");
        setup.proxy.push(Fault::Answer(empty));
        mutex
            .renew(&lease)
            .expect("an empty chunked success is one");
        mutex.renew(&lease).expect("so is a usual one");
    }
    assert_eq!(setup.proxy.seen().len(), 10);
    assert_eq!(setup.proxy.connections(), 1);
    mutex.release(&lease).expect("it is held");
}

#[test]
fn list_follows_its_pages_to_the_end() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let page = |keys: &[&str], next: &str| {
        let blobs: String = keys
            .iter()
            .map(|key| {
                format!(
                    "<Blob><Name>{key}</Name><Properties><Etag>0x1</Etag>\
                     <LeaseState>leased</LeaseState></Properties></Blob>"
                )
            })
            .collect();
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults>\
             <Blobs>{blobs}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
        );
        Fault::Answer(service_reply(200, "OK", &[], body.as_bytes()))
    };
    // An empty page is not the last one.
    setup.proxy.push(page(&["a", "b"], "one&amp;1="));
    setup.proxy.push(page(&[], "two"));
    setup.proxy.push(page(&["c"], ""));
    let listed: Result<Vec<_>, _> = setup.mutex().list("x/").collect();
    let listed = listed.expect("all pages are had");
    let keys: Vec<_> = listed.iter().map(|status| status.key()).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let targets: Vec<_> = setup
        .proxy
        .seen()
        .iter()
        .map(|s| s.target.clone())
        .collect();
    assert!(
        targets.iter().all(|target| target.contains("prefix=x%2F")),
        "{targets:?}"
    );
    assert!(!targets[0].contains("marker"), "{targets:?}");
    assert!(targets[1].contains("marker=one%261%3D"), "{targets:?}");
    assert!(targets[2].contains("marker=two"), "{targets:?}");

    // A page that names itself as the next would have no end.
    setup.proxy.always(Some(page(&["a"], "same")));
    assert_eq!(setup.mutex().list("").take(10).count(), 2);
    setup.proxy.clear();
    // A failure ends it.
    setup.proxy.push(page(&["a"], "next"));
    setup.proxy.always(Some(Fault::Answer(service_reply(
        200,
        "OK",
        &[],
        b"no list",
    ))));
    let mut locks = setup.mutex().list("");
    locks
        .next()
        .expect("a lock")
        .expect("the first page is whole");
    fails(locks.next().expect("a failure"), ErrorKind::Protocol);
    assert!(locks.next().is_none());
}

#[test]
fn list_pages_may_be_larger_than_other_replies() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let filler = " ".repeat(8 * 1024 * 1024 - 200);
    let page = |filler: &str| {
        let body =
            format!("<EnumerationResults><Blobs />{filler}<NextMarker /></EnumerationResults>");
        Fault::Answer(service_reply(200, "OK", &[], body.as_bytes()))
    };
    let options = setup.options().request_timeout(2 * SEC);
    let mutex = AzureMutex::new(options).expect("sound");
    setup.proxy.always(Some(page(&filler)));
    assert_eq!(mutex.list("").count(), 0);
    setup.proxy.always(Some(page(&filler.repeat(2))));
    fails(
        mutex.list("").collect::<Result<Vec<_>, _>>(),
        ErrorKind::Transport,
    );
}

#[test]
fn blob_that_cannot_be_made_is_given_up() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    // Somebody deletes it as often as it is made.
    let missing = error_reply(
        404,
        "BlobNotFound",
        "The specified blob does not exist.",
        &[],
    );
    setup.always_on("acquire", Fault::Answer(missing));
    let error = fails(
        within(TIMEOUT, || setup.locker().lock()),
        ErrorKind::NotFound,
    );
    assert_eq!(error.service_code(), Some("BlobNotFound"));
    assert!(setup.seen("acquire").len() <= 5);
}

#[test]
fn failure_that_lasts_is_reported_and_not_the_end_of_the_time_for_it() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let lasting = [
        (server_busy(None), ErrorKind::Throttled),
        (internal_error(), ErrorKind::Service),
    ];
    // Answers take a while, so that a last attempt that is cut short has none.
    let slow = FaultProxy::start(setup.proxy.addr());
    slow.always(Some(Fault::Delay(30 * MILLI)));
    // The first attempt has half of the time, which is enough for a busy machine.
    let options = setup.options().request_timeout(3 * SEC);
    let options = options.endpoint(&slow.endpoint()).expect("well-formed");
    let mutex = AzureMutex::new(options).expect("sound");
    let locker = Locker::new(mutex.clone(), KEY).expect("sound");
    for (answer, kind) in lasting {
        setup.proxy.always(Some(Fault::Answer(answer)));
        // Many at once, since how the delays fall is up to chance.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| fails(within(3 * SEC, || mutex.status(KEY)), kind));
                scope.spawn(|| fails(within(3 * SEC, || locker.try_lock()), kind));
            }
        });
    }
}
