//! What a wait for the lock survives, what ends it, and what it tells meanwhile.

use std::thread;

use azmutex::TryLockError;

use super::*;
use crate::support::LONG;
#[cfg(unix)]
use crate::support::child::Child;
use crate::support::proxy::{error_reply, forbidden};

#[test]
fn short_wait_gets_a_lock_that_is_released_early() {
    let backend = Backend::emulator();
    let (mut rounds, mut late) = (0, 0);
    while rounds < 10 {
        let mutex = backend.mutex();
        let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
        let (observer, events) = Events::new();
        let locker = Locker::builder(mutex.clone(), KEY).observer(observer);
        let locker = locker.build().expect("sound");
        let (released, result) = thread::scope(|scope| {
            let before = Instant::now();
            let waiting = scope.spawn(|| locker.try_lock_for(100 * MILLI));
            events.wait(|event| matches!(event, Event::Waiting { .. }));
            mutex.release(&lease).expect("it is held");
            (before.elapsed(), waiting.join().expect("no panic"))
        });
        // On a busy machine the release itself may come too late.
        if released > 20 * MILLI {
            late += 1;
            assert!(late < 200, "the machine is too busy for this test");
            continue;
        }
        let guard = result.unwrap_or_else(|error| panic!("{error}: {:#?}", events.heard()));
        guard.release().expect("it is held");
        rounds += 1;
    }
}

/// Two refusals in a wait, with what they come to if they are the first answer of all.
fn passing_refusals() -> [(Vec<u8>, ErrorKind); 2] {
    let deleting = error_reply(409, "ContainerBeingDeleted", "Wait.", &[]);
    [
        (forbidden("AuthorizationFailure"), ErrorKind::Auth),
        (deleting, ErrorKind::NotFound),
    ]
}

#[test]
fn refusal_after_the_service_accepted_the_credential_is_retried() {
    for (refusal, kind) in passing_refusals() {
        let backend = Backend::emulator();
        let setup = Setup::before(&backend);
        let held = || Fault::Answer(error_reply(409, "LeaseAlreadyPresent", "Held.", &[]));
        for fault in [held(), held(), Fault::Answer(refusal), held()] {
            setup.once_on("acquire", fault);
        }
        let (guard, events) = setup.lock();
        assert_eq!(setup.seen("acquire").len(), 5);
        let mut failures = events.heard();
        failures.retain(|event| matches!(event, Event::AcquireFailed { .. }));
        let [Event::AcquireFailed { attempt, error, .. }] = &failures[..] else {
            panic!("{:#?}", events.heard());
        };
        assert_eq!((*attempt, error.kind()), (3, kind));
        guard.release().expect("it is held");
    }
}

#[test]
fn refusal_that_lasts_ends_a_wait_as_other_failures_do() {
    for (refusal, kind) in passing_refusals() {
        let backend = Backend::emulator();
        let setup = Setup::before(&backend);
        let held = error_reply(409, "LeaseAlreadyPresent", "Held.", &[]);
        setup.once_on("acquire", Fault::Answer(held));
        setup.always_on("acquire", Fault::Answer(refusal));
        let locker = setup.builder().fault_wait(2 * SEC).build().expect("sound");
        let before = Instant::now();
        fails(within(2 * SEC, || locker.lock()), kind);
        assert!(before.elapsed() >= SEC, "{:?}", before.elapsed());
    }
}

#[test]
fn refusal_at_the_first_answer_fails_at_once() {
    for (refusal, kind) in passing_refusals() {
        let backend = Backend::emulator();
        let setup = Setup::before(&backend);
        setup.always_on("acquire", Fault::Answer(refusal));
        fails(setup.locker().lock(), kind);
        assert_eq!(setup.seen("acquire").len(), 1, "it is no use to ask again");
    }
}

#[test]
fn failure_at_the_end_of_a_wait_does_not_hide_that_the_lock_is_held() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let _held = backend.mutex().acquire(KEY, LeaseDuration::MIN);
    for fault in [Fault::HangBefore, Fault::DropBefore] {
        let (observer, events) = Events::new();
        let locker = setup.builder().observer(observer).build().expect("sound");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| locker.try_lock_for(500 * MILLI));
            events.wait(|event| matches!(event, Event::Waiting { .. }));
            setup.always_on("acquire", fault.clone());
            let result = within(500 * MILLI, || waiting.join().expect("no panic"));
            assert!(
                matches!(result, Err(TryLockError::WouldBlock)),
                "{fault:?}: {result:?}"
            );
        });
        setup.proxy.clear();
        setup.proxy.release_hung();
        assert!(locker.settle(LONG));
    }
}

#[test]
fn waiter_hears_who_holds_the_lock() {
    let backend = Backend::emulator();
    let holder = Locker::builder(backend.mutex(), KEY)
        .holder_delay(Duration::ZERO)
        .owner("ci@build-07")
        .build()
        .expect("sound");
    let held = holder.lock().expect("it is free");
    let (observer, events) = Events::new();
    let waiter = Locker::builder(backend.mutex(), KEY).observer(observer);
    let waiter = waiter.build().expect("sound");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.lock());
        let known = |event: &Event| {
            matches!(event, Event::Waiting { holder: Some(holder), .. }
                if holder.owner() == Some("ci@build-07"))
        };
        let event = events.wait(known);
        let shown = event.to_string();
        assert!(
            shown.starts_with("waiting: held by ci@build-07 (pid "),
            "{shown}"
        );
        held.release().expect("it is held");
        drop(waiting.join().expect("no panic").expect("it is free"));
    });
}

#[cfg(unix)]
#[test]
fn waiter_stopped_for_longer_than_failures_are_retried_asks_again() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    setup.once_on("acquire", Fault::HangBefore);
    let child = Child::hold_through(&backend, &setup.proxy, KEY, SEC);
    setup
        .proxy
        .wait_for(1, |seen| seen.lease_action() == Some("acquire"), LONG);
    child.stop();
    // The time that its failures have, and more.
    thread::sleep(1500 * MILLI);
    setup.proxy.release_hung();
    child.go_on();
    child.token();
    assert_eq!(setup.seen("acquire").len(), 2);
}

#[test]
fn time_that_is_spent_is_no_time_without_a_limit() {
    let backend = Backend::emulator();
    let mut setup = Setup::before(&backend);
    setup.proxy.always(Some(Fault::HangBefore));
    setup.timeout = Duration::from_nanos(1);
    let mutex = setup.mutex();
    fails(
        within(Duration::ZERO, || mutex.status(KEY)),
        ErrorKind::Transport,
    );
    let acquired = within(Duration::ZERO, || mutex.acquire(KEY, LeaseDuration::MIN));
    fails(acquired, ErrorKind::Transport);
}
