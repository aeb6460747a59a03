//! What a guard claims while its renewals fail, by a clock that is stepped.

use std::sync::Arc;

use azmutex::Lease;
use parking_lot::Mutex;

use super::*;
use crate::support::LONG;
use crate::support::proxy::{error_reply, forbidden, internal_error, reply, server_busy};

/// What a renewal may meet without a word on whether the lease is still held.
fn unknowns() -> Vec<Fault> {
    let location = [("Location", "http://127.0.0.1:9/")];
    vec![
        Fault::DropBefore,
        Fault::ResetAfter,
        Fault::HangBefore,
        Fault::Truncate(30),
        Fault::Answer(internal_error()),
        Fault::Answer(error_reply(500, "OperationTimedOut", "Late.", &[])),
        Fault::Answer(server_busy(None)),
        Fault::Answer(server_busy(Some(3600))),
        Fault::Answer(reply(
            429,
            "Too Many Requests",
            &[("Retry-After", "3600")],
            b"",
        )),
        Fault::Answer(reply(408, "Request Timeout", &[], b"")),
        Fault::Answer(reply(502, "Bad Gateway", &[], b"<html>")),
        Fault::Answer(forbidden("AuthenticationFailed")),
        Fault::Answer(forbidden("AuthorizationFailure")),
        Fault::Answer(forbidden("AuthorizationPermissionMismatch")),
        Fault::Answer(error_reply(401, "NoAuthenticationInformation", "Who?", &[])),
        Fault::Answer(error_reply(400, "InvalidHeaderValue", "No.", &[])),
        Fault::Answer(error_reply(409, "SomethingNew", "No.", &[])),
        Fault::Answer(reply(404, "Not Found", &[], b"a captive portal")),
        Fault::Answer(reply(307, "Temporary Redirect", &location, b"")),
        Fault::Answer(reply(200, "OK", &[], b"no lease ID")),
        Fault::Answer(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        Fault::remove_header("x-ms-lease-id"),
        Fault::replace_header("x-ms-lease-id", "no GUID"),
        Fault::replace_header("x-ms-client-request-id", "another-request"),
    ]
}

#[test]
fn failing_renewals_leave_the_lock_held_until_the_deadline_and_no_longer() {
    for fault in unknowns() {
        let backend = frozen();
        let setup = Setup::before(&backend);
        let (guard, events) = setup.lock();
        setup.always_on("renew", fault.clone());
        backend.pass(20 * SEC);
        events.wait(is_renewal_failed);
        assert_eq!(guard.remaining(), 35 * SEC, "{fault:?}");
        backend.pass(35 * SEC - MILLI);
        guard
            .check()
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert!(guard.is_held(), "{fault:?}");
        assert_eq!(events.count(is_unproven), 0, "{fault:?}");
        backend.pass(MILLI);
        assert!(!guard.is_held(), "{fault:?}");
        let error = fails(guard.check(), ErrorKind::LeaseUnproven);
        assert!(
            error.to_string().contains("was confirmed for 55 s"),
            "{error}"
        );
        events.wait(is_unproven);

        setup.proxy.clear();
        setup.proxy.release_hung();
        // Past the service's own end of the lease, and still nobody came between.
        backend.pass(10 * SEC);
        let held_again = |event: &Event| matches!(event, Event::HeldAgain);
        events.wait_stepping(20 * MILLI, || backend.pass(5 * SEC), held_again);
        guard
            .check()
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(events.count(is_unproven), 1, "{fault:?}");
        assert_eq!(events.count(is_loss), 0, "{fault:?}");
        guard.release().expect("it is held");
    }
}

#[test]
fn failing_renewals_that_recover_before_the_deadline_are_never_seen_by_the_holder() {
    for fault in unknowns() {
        let backend = frozen();
        let setup = Setup::before(&backend);
        let (guard, events) = setup.lock();
        setup.always_on("renew", fault.clone());
        backend.pass(20 * SEC);
        let Event::RenewalFailed { remaining, .. } = events.wait(is_renewal_failed) else {
            unreachable!()
        };
        assert_eq!(remaining, 35 * SEC, "{fault:?}");
        guard
            .check()
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        setup.proxy.clear();
        setup.proxy.release_hung();
        // Whatever the service asked for, it is tried again in the first half of the time left.
        backend.pass(35 * SEC / 2 + MILLI);
        events.wait(is_renewed);
        assert_eq!(guard.remaining(), 55 * SEC, "{fault:?}");
        let heard = events.count(|event| is_unproven(event) || is_loss(event));
        assert_eq!(heard, 0, "{:?}", events.heard());
    }
}

#[test]
fn deadline_counts_from_before_the_send() {
    let backend = frozen();
    let mut setup = Setup::before(&backend);
    setup.timeout = LONG;
    // Ten seconds go by before an answer is had, to the acquire and then to the renew.
    setup.once_on("acquire", Fault::HoldReply);
    let guard = std::thread::scope(|scope| {
        let locking = scope.spawn(|| setup.lock());
        setup
            .proxy
            .wait_for(1, |seen| seen.upstream == Some(201), LONG);
        backend.pass(10 * SEC);
        setup.proxy.release_held();
        locking.join().expect("no panic")
    });
    let (guard, events) = guard;
    assert_eq!(guard.remaining(), 45 * SEC);
    setup.once_on("renew", Fault::HoldReply);
    backend.pass(10 * SEC);
    setup
        .proxy
        .wait_for(1, |seen| seen.upstream == Some(200), LONG);
    backend.pass(10 * SEC);
    setup.proxy.release_held();
    events.wait(is_renewed);
    assert_eq!(guard.remaining(), 45 * SEC);
}

#[test]
fn deadline_of_an_acquire_sent_again_counts_from_the_first_send() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    setup.once_on("acquire", Fault::HangAfter);
    let (guard, _events) = std::thread::scope(|scope| {
        let locking = scope.spawn(|| setup.lock());
        setup
            .proxy
            .wait_for(1, |seen| seen.upstream == Some(201), LONG);
        backend.pass(10 * SEC);
        locking.join().expect("no panic")
    });
    assert_eq!(setup.seen("acquire").len(), 2);
    assert_eq!(guard.remaining(), 45 * SEC);
}

#[test]
fn lease_granted_too_long_ago_is_asked_for_again() {
    let backend = frozen();
    let mut setup = Setup::before(&backend);
    setup.timeout = LONG;
    setup.once_on("acquire", Fault::HoldReply);
    let (guard, _events) = std::thread::scope(|scope| {
        let locking = scope.spawn(|| setup.lock());
        setup
            .proxy
            .wait_for(1, |seen| seen.upstream == Some(201), LONG);
        backend.pass(55 * SEC);
        setup.proxy.release_held();
        locking.join().expect("no panic")
    });
    assert_eq!(setup.seen("acquire").len(), 2);
    assert_eq!(guard.remaining(), 55 * SEC);
}

#[test]
fn lease_taken_over_after_expiry_is_lost() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    setup.proxy.always(Some(Fault::DropBefore));
    backend.pass(60 * SEC);
    let next = Locker::new(backend.mutex(), KEY).and_then(|locker| locker.lock());
    let next = next.expect("the lease has run out");
    fails(guard.check(), ErrorKind::LeaseUnproven);
    setup.proxy.clear();
    let lost = events.wait_stepping(20 * MILLI, || backend.pass(SEC), is_loss);
    assert!(
        matches!(
            lost,
            Event::Lost {
                reason: LossReason::Taken,
                ..
            }
        ),
        "{lost:?}"
    );
    is_lost(guard.check(), LossReason::Taken);
    assert_eq!(guard.watch().loss_reason(), Some(LossReason::Taken));
    is_lost(guard.release(), LossReason::Taken);
    next.check().expect("the lost guard took nothing away");
    next.release().expect("it is held");
}

#[test]
fn renewal_that_echoes_another_lease_is_lost() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    let other = LeaseId::random().expect("random numbers").to_string();
    setup.once_on("renew", Fault::replace_header("x-ms-lease-id", &other));
    backend.pass(20 * SEC);
    let lost = events.wait(is_loss);
    assert!(
        matches!(
            lost,
            Event::Lost {
                reason: LossReason::Taken,
                ..
            }
        ),
        "{lost:?}"
    );
    is_lost(guard.check(), LossReason::Taken);
    assert!(!guard.is_held());
    // Lost is final: no later renewal could make it held again.
    backend.pass(20 * SEC);
    assert_eq!(setup.seen("renew").len(), 1);
    is_lost(guard.check(), LossReason::Taken);
}

#[test]
fn renewal_in_other_letters_or_braces_is_the_same_lease() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    let id = guard.lease_id().to_string().to_uppercase();
    for (rounds, echo) in [id.clone(), format!("{{{id}}}")].iter().enumerate() {
        setup.once_on("renew", Fault::replace_header("x-ms-lease-id", echo));
        backend.pass(20 * SEC);
        events.wait(is_renewed);
        assert_eq!(events.count(is_renewed), rounds + 1);
    }
}

#[test]
fn lease_is_lost_when_its_container_is_deleted() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    let deleted = backend.account().delete_container(backend.container());
    assert_eq!(deleted.status, 202);
    backend.pass(20 * SEC);
    let lost = events.wait(is_loss);
    assert!(
        matches!(
            lost,
            Event::Lost {
                reason: LossReason::Deleted,
                ..
            }
        ),
        "{lost:?}"
    );
    is_lost(guard.check(), LossReason::Deleted);
    is_lost(guard.release(), LossReason::Deleted);
    // The service takes half a minute to delete it, and the error says so.
    let error = fails(setup.locker().try_lock(), ErrorKind::NotFound);
    assert_eq!(error.service_code(), Some("ContainerBeingDeleted"));
    assert!(
        error.to_string().contains("being deleted; wait a minute"),
        "{error}"
    );
    backend.pass(30 * SEC);
    drop(
        setup
            .locker()
            .lock()
            .expect("container and blob are made again"),
    );
}

#[test]
fn lease_broken_with_a_period_is_lost_before_another_client_gets_it() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    backend
        .mutex()
        .break_lease(KEY, None)
        .expect("it is leased");
    backend.pass(20 * SEC);
    events.wait(is_loss);
    is_lost(guard.check(), LossReason::Broken);
    fails(setup.locker().try_lock(), ErrorKind::WouldBlock);
    backend.pass(40 * SEC);
    drop(setup.locker().try_lock().expect("the break period is over"));
}

#[test]
fn guard_held_for_longer_than_max_hold_is_lost_when_its_lease_ends() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock_with(|locker| locker.max_hold(50 * SEC));
    for _ in 0..2 {
        backend.pass(20 * SEC);
        events.wait(is_renewed);
    }
    // Renewed at 40 seconds for the last time, so it is held until 95.
    backend.pass(55 * SEC - MILLI);
    guard.check().expect("the lease still runs");
    backend.pass(MILLI);
    let lost = events.wait(is_loss);
    assert!(
        matches!(
            lost,
            Event::Lost {
                reason: LossReason::MaxHold,
                ..
            }
        ),
        "{lost:?}"
    );
    is_lost(guard.check(), LossReason::MaxHold);
    assert_eq!(setup.seen("renew").len(), 2);
    // The service's own end is five seconds later, so there is something to release, but no success.
    is_lost(guard.release(), LossReason::MaxHold);
    assert_eq!(setup.state(), LeaseState::Available);
}

#[test]
fn guard_without_a_sign_of_life_is_lost_when_its_lease_ends() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock_with(|locker| locker.health(30 * SEC));
    for _ in 0..2 {
        backend.pass(20 * SEC);
        guard.alive();
        events.wait(is_renewed);
    }
    // The last sign of life is as old as it may be 70 seconds after the start.
    backend.pass(20 * SEC);
    events.wait(is_renewed);
    backend.pass(50 * SEC);
    guard.check().expect("the lease still runs");
    assert_eq!(setup.seen("renew").len(), 3);
    backend.pass(5 * SEC);
    let lost = events.wait(is_loss);
    assert!(
        matches!(
            lost,
            Event::Lost {
                reason: LossReason::Unhealthy,
                ..
            }
        ),
        "{lost:?}"
    );
    guard.alive();
    is_lost(guard.check(), LossReason::Unhealthy);
    is_lost(guard.release(), LossReason::Unhealthy);
    assert_eq!(setup.state(), LeaseState::Available);
}

#[test]
fn late_sign_of_life_has_the_lease_renewed_at_once() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock_with(|locker| locker.health(SEC));
    backend.pass(50 * SEC);
    assert_eq!(setup.seen("renew").len(), 0);
    guard.watch().alive();
    events.wait(is_renewed);
    backend.pass(50 * SEC);
    guard.check().expect("it was renewed");
    guard.release().expect("it is held");
}

#[test]
fn retry_after_is_honoured_by_a_renewal() {
    // The clock is fast, so that the proxy can note when a request came.
    let clock = Clock::with_rate(50);
    let backend = Backend::emulator_by(clock.clone());
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    let came = Arc::new(Mutex::new(Vec::new()));
    for fault in [Fault::Answer(server_busy(Some(15))), Fault::Pass] {
        let (came, clock) = (Arc::clone(&came), clock.clone());
        let note = move |request: &RequestHead| {
            let matches = on("renew")(request);
            if matches {
                came.lock().push(clock.elapsed());
            }
            matches
        };
        setup.proxy.when(note, fault);
    }
    events.wait(is_renewed);
    guard.check().expect("it is held");
    // Both rules look at a first request that the first takes, so it is noted once.
    let came = came.lock().clone();
    assert_eq!(came.len(), 2, "{came:?}");
    // Without being asked it would try again after a sixth of the 35 seconds left.
    let waited = came[1] - came[0];
    assert!((15 * SEC..35 * SEC).contains(&waited), "{waited:?}");
}

#[test]
fn retry_after_is_honoured_by_a_waiting_lock() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let busy = reply(429, "Too Many Requests", &[("Retry-After", "1")], b"");
    for answer in [server_busy(Some(1)), busy] {
        setup.once_on("acquire", Fault::Answer(answer));
        let before = Instant::now();
        let locker = setup.builder().fault_wait(5 * SEC).build().expect("sound");
        drop(within(2 * SEC, || locker.lock()).expect("it is free"));
        assert!(before.elapsed() >= SEC, "{:?}", before.elapsed());

        // However long it is asked to wait, it tries once more before it gives up.
        setup.once_on("acquire", Fault::Answer(server_busy(Some(3600))));
        let locker = setup.builder().fault_wait(2 * SEC).build().expect("sound");
        let before = Instant::now();
        drop(within(2 * SEC, || locker.lock()).expect("it is free"));
        assert!(before.elapsed() >= SEC - MILLI, "{:?}", before.elapsed());
        setup.always_on("acquire", Fault::Answer(server_busy(Some(3600))));
        let error = fails(within(2 * SEC, || locker.lock()), ErrorKind::Throttled);
        assert_eq!(
            (error.status(), error.service_code()),
            (Some(503), Some("ServerBusy"))
        );
        setup.proxy.clear();
    }
}

#[test]
fn lease_changed_by_its_id_is_lost_to_the_guard() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let (guard, events) = setup.lock();
    let lease = Lease::new(KEY, guard.lease_id()).expect("the key is sound");
    let changed = backend
        .mutex()
        .change(&lease, LeaseId::random().expect("random numbers"))
        .expect("it is held");
    backend.pass(20 * SEC);
    events.wait(is_loss);
    is_lost(guard.check(), LossReason::Taken);
    drop(guard);
    backend
        .mutex()
        .renew(&changed)
        .expect("the guard took nothing away");
}

#[test]
fn lease_that_ran_out_is_renewed_before_its_holder_writes_anything() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    // The holder is to write who it is after the lease ran out and before the next renewal.
    let (guard, events) = setup.lock_with(|locker| locker.holder_delay(61 * SEC));
    setup.proxy.always(Some(Fault::DropBefore));
    backend.pass(60 * SEC);
    events.wait(is_unproven);
    events.wait(is_renewal_failed);
    setup.proxy.clear();
    // To the service such a write is one under a lease that is lost, and a renewal is not. The
    // requests give the renewal thread the time to look at the clock.
    for _ in 0..30 {
        backend.pass(100 * MILLI);
        assert_eq!(guard.watch().loss_reason(), None);
        setup.state();
    }
    events.wait(|event| matches!(event, Event::HeldAgain));
    assert_eq!(events.count(is_loss), 0, "{:?}", events.heard());
    guard.check().expect("nobody came between");
}
