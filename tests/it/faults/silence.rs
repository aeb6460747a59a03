//! A service that accepts requests and never answers, or never comes to an end.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use azmutex::{Lease, StopToken};

use super::*;
use crate::support::LONG;

/// Every operation, by name, and what it came to within its time.
fn all_calls(mutex: &AzureMutex) -> Vec<(&'static str, Duration, Result<(), Error>)> {
    type Call = fn(&AzureMutex) -> Result<(), Error>;
    let calls: [(&'static str, Call); 9] = [
        ("acquire", |mutex| {
            mutex.acquire(KEY, LeaseDuration::MIN).map(drop)
        }),
        ("renew", |mutex| mutex.renew(&some_lease())),
        ("change", |mutex| {
            mutex
                .change(&some_lease(), LeaseId::random().expect("random numbers"))
                .map(drop)
        }),
        ("release", |mutex| mutex.release(&some_lease()).map(drop)),
        ("break", |mutex| mutex.break_lease(KEY, None).map(drop)),
        ("status", |mutex| mutex.status(KEY).map(drop)),
        ("list", |mutex| {
            mutex
                .list("")
                .next()
                .expect("it tells of the failure")
                .map(drop)
        }),
        ("try_lock", |mutex| {
            let locker = Locker::new(mutex.clone(), KEY)?;
            Ok(locker.try_lock().map(drop)?)
        }),
        ("lock", |mutex| {
            let locker = Locker::builder(mutex.clone(), KEY)
                .fault_wait(TIMEOUT)
                .build()?;
            locker.lock().map(drop)
        }),
    ];
    thread::scope(|scope| {
        let calls = calls.map(|(name, call)| {
            scope.spawn(move || {
                let before = Instant::now();
                let result = call(mutex);
                (name, before.elapsed(), result)
            })
        });
        calls
            .into_iter()
            .map(|call| call.join().expect("no panic"))
            .collect()
    })
}

fn some_lease() -> Lease {
    Lease::new(KEY, LeaseId::random().expect("random numbers")).expect("the key is sound")
}

#[track_caller]
fn all_end_in_time(mutex: &AzureMutex) {
    for (name, took, result) in all_calls(mutex) {
        let error = result.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Transport, "{name}: {error}");
        assert!(took < TIMEOUT + SLACK / 2, "{name} took {took:?}");
    }
}

#[test]
fn wait_that_ends_at_once_ends_soon_when_the_service_hangs() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    setup.proxy.always(Some(Fault::HangBefore));
    let mutex = AzureMutex::new(setup.options().request_timeout(LONG));
    let locker = Locker::new(mutex.expect("the options are sound"), KEY);
    let locker = locker.expect("the key is sound");
    let before = Instant::now();
    let result = locker.try_lock_for(Duration::from_micros(10));
    fails(result, ErrorKind::Transport);
    let took = before.elapsed();
    assert!(took < SEC + SLACK / 2, "{took:?}");
}

#[test]
fn every_call_ends_by_its_timeout_when_the_service_hangs() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    setup.proxy.always(Some(Fault::HangBefore));
    all_end_in_time(&setup.mutex());
}

#[test]
fn every_call_ends_by_its_timeout_when_the_reply_does_not_end() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // A byte now and then keeps a connection from looking dead: before the head, within it, and
    // in the body.
    for (head, drop_by_drop) in [
        (&b""[..], &b"H"[..]),
        (b"HTTP/1.1 200 OK\r\na: ", b"b"),
        (HEAD, b"1\r\nx\r\n"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound listener's address");
        // It ends with its clients.
        thread::spawn(move || {
            for client in listener.incoming() {
                thread::spawn(move || -> std::io::Result<()> {
                    let mut client = client?;
                    client.read_exact(&mut [0; 64])?;
                    client.write_all(head)?;
                    loop {
                        thread::sleep(50 * MILLI);
                        client.write_all(drop_by_drop)?;
                    }
                });
            }
        });
        let options = MutexOptions::development("locks")
            .and_then(|options| options.endpoint(&format!("http://{addr}/devstoreaccount1")))
            .expect("well-formed")
            .request_timeout(TIMEOUT);
        let mutex = AzureMutex::new(options).expect("sound");
        for (name, took, result) in all_calls(&mutex) {
            // A HEAD request has its answer with the head.
            if name == "status" && head == HEAD {
                continue;
            }
            let error = result.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Transport, "{name}: {error}");
            assert!(took < TIMEOUT + SLACK / 2, "{name} took {took:?}");
        }
    }
}

#[test]
fn drop_returns_within_release_timeout_when_the_service_hangs() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    for renewing in [false, true] {
        let (guard, events) = setup.lock_with(|locker| locker.release_timeout(TIMEOUT));
        setup.proxy.always(Some(Fault::HangBefore));
        if renewing {
            // A renewal that hangs takes none of the time that the release has.
            let before = setup.seen("renew").len();
            backend.pass(20 * SEC);
            setup.proxy.wait_for(
                before + 1,
                |seen| seen.lease_action() == Some("renew"),
                LONG,
            );
        }
        let watch = guard.watch();
        within(TIMEOUT, || drop(guard));
        is_lost(watch.check(), LossReason::Released);
        assert_eq!(events.count(|event| matches!(event, Event::Released)), 0);
        setup.proxy.clear();
        backend.pass(60 * SEC);
    }
}

#[test]
fn release_that_is_not_answered_is_an_error_within_release_timeout() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    for fault in [Fault::HangBefore, Fault::HangAfter, Fault::DropBefore] {
        let (guard, _) = setup.lock_with(|locker| locker.release_timeout(TIMEOUT));
        setup.proxy.always(Some(fault));
        let error = fails(within(TIMEOUT, || guard.release()), ErrorKind::Transport);
        assert!(
            error.to_string().starts_with("failed to release lease on"),
            "{error}"
        );
        setup.proxy.clear();
        backend.pass(60 * SEC);
    }
}

#[test]
fn claims_are_answered_at_once_while_a_renewal_hangs() {
    let backend = frozen();
    let mut setup = Setup::before(&backend);
    setup.timeout = LONG;
    let (guard, events) = setup.lock();
    setup.always_on("renew", Fault::HangBefore);
    backend.pass(20 * SEC);
    setup
        .proxy
        .wait_for(1, |seen| seen.lease_action() == Some("renew"), LONG);
    let at_once = |ask: &dyn Fn()| {
        let before = Instant::now();
        ask();
        assert!(before.elapsed() < 200 * MILLI, "{:?}", before.elapsed());
    };
    at_once(&|| guard.check().expect("it is held until the deadline"));
    at_once(&|| assert_eq!(guard.remaining(), 35 * SEC));
    // The renewal is under way still, so nobody but the reader can tell that time has passed.
    backend.pass(35 * SEC);
    at_once(&|| assert!(!guard.is_held()));
    at_once(&|| drop(fails(guard.check(), ErrorKind::LeaseUnproven)));
    at_once(&|| assert_eq!(guard.wait_lost(LONG), None));
    assert_eq!(events.count(is_unproven), 0);
    setup.proxy.clear();
    setup.proxy.release_hung();
    events.wait(is_unproven);
    guard.release().expect("it answers");
}

#[test]
fn waiter_stopped_while_the_service_hangs_returns_at_once_and_leaves_no_lease() {
    let backend = Backend::emulator();
    // Whether the service has acted by then or acts when it is let go.
    for fault in [Fault::Hold, Fault::HoldReply] {
        let setup = Setup::before(&backend);
        let stop = StopToken::new();
        let options = setup.options().request_timeout(LONG);
        let mutex = AzureMutex::new(options).expect("sound");
        let locker = Locker::builder(mutex, KEY)
            .stop_token(&stop)
            .build()
            .expect("sound");
        setup.once_on("acquire", fault.clone());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| locker.lock());
            let is_there = |seen: &Seen| matches!(fault, Fault::Hold) || seen.upstream == Some(201);
            setup.proxy.wait_for(1, is_there, LONG);
            let before = Instant::now();
            stop.stop();
            fails(waiting.join().expect("no panic"), ErrorKind::Stopped);
            assert!(before.elapsed() < 200 * MILLI, "{:?}", before.elapsed());
        });
        assert!(!locker.settle(Duration::ZERO), "nobody has answered yet");
        setup.proxy.release_held();
        assert!(locker.settle(LONG));
        assert_eq!(setup.seen("release").len(), 1);
        assert_eq!(setup.state(), LeaseState::Available);
    }
}

#[test]
fn waiter_stopped_before_a_lost_reply_leaves_no_lease() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let stop = StopToken::new();
    let locker = setup.builder().stop_token(&stop).build().expect("sound");
    setup.always_on("acquire", Fault::HangAfter);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| locker.lock());
        setup
            .proxy
            .wait_for(1, |seen| seen.upstream == Some(201), LONG);
        stop.stop();
        fails(waiting.join().expect("no panic"), ErrorKind::Stopped);
    });
    assert!(locker.settle(LONG));
    assert_eq!(setup.state(), LeaseState::Available);
}
