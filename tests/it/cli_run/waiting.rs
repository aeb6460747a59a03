//! Waiting for the lock.

use std::time::{Duration, Instant};

use azmutex::{LeaseState, Locker};
use rustix::process::Signal;

use super::support::{
    PATIENCE, Running, Scratch, Service, events, eventually, is_ignored, names, unique,
};
use crate::support::proxy::{Fault, FaultProxy};

#[test]
fn command_runs_when_the_holder_is_done() {
    for service in Service::all() {
        let lock = unique("wait");
        let held = service.locker(&lock).lock().unwrap();
        let run = Running::start(&mut service.run(["-w", "1m", &lock, "echo", "ran"]));
        run.err.wait_for("waiting for ");
        drop(held);
        let done = run.finish();
        assert_eq!((done.code(), &*done.out), (0, "ran\n"), "{done:?}");
        assert!(done.err.contains("azmutex: acquired "), "{done:?}");
    }
}

#[test]
fn waiting_says_who_holds_the_lock() {
    let service = Service::emulator();
    let scratch = Scratch::new();
    let file = scratch.file("events");
    let lock = unique("holder");
    let locker = Locker::builder(service.mutex(), &lock)
        .owner("ci@build-07")
        .reason("release 812")
        .holder_delay(Duration::ZERO);
    let held = locker.build().unwrap().lock().unwrap();
    let mut run = service.run(["-w", "10m", "--event-file"]);
    let run = Running::start(run.arg(&file).args([&*lock, "true"]));
    let line = run.err.wait_for("(waited 0s, limit 10m)\n");
    let pid = std::process::id();
    let expected = format!(
        "azmutex: waiting for {lock}: held by ci@build-07 (pid {pid}, reason: release 812) since "
    );
    assert!(line.starts_with(&expected), "{line}");
    assert!(!line.contains('\r') && !line.contains('\x1b'), "{line:?}");
    drop(held);
    assert_eq!(run.finish().code(), 0);
    let events = events(&file);
    assert_eq!(names(&events), ["waiting", "acquired", "started", "exit"]);
    assert_eq!(events[0]["holder"]["owner"], "ci@build-07");
    assert_eq!(events[0]["holder"]["pid"], pid);
}

#[test]
fn lease_of_no_program_of_ours_has_an_unknown_holder() {
    let service = Service::emulator();
    let lock = unique("unknown");
    let lease = service
        .mutex()
        .acquire(&lock, azmutex::LeaseDuration::MAX)
        .unwrap();
    let run = Running::start(&mut service.run([&*lock, "true"]));
    run.err
        .wait_for("held by an unknown holder (leased, no azmutex metadata)");
    service.mutex().release(&lease).unwrap();
    assert_eq!(run.finish().code(), 0);
}

#[test]
fn term_while_waiting_ends_it_at_once_and_leaves_no_lease() {
    for service in Service::all() {
        for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2), (Signal::HUP, 1)] {
            if is_ignored(number) {
                continue; // It would be ignored here too.
            }
            let lock = unique("term");
            let held = service.locker(&lock).lock().unwrap();
            let run = Running::start(&mut service.run([&*lock, "echo", "ran"]));
            run.err.wait_for("waiting for ");
            let started = Instant::now();
            run.signal(signal);
            let done = run.finish();
            assert_eq!((done.signal(), &*done.out), (number, ""), "{done:?}");
            assert!(
                started.elapsed() < Duration::from_secs(3),
                "{:?}",
                started.elapsed()
            );
            drop(held);
            assert!(service.state(&lock).is_free());
        }
    }
}

#[test]
fn lease_that_was_granted_to_a_run_that_is_gone_is_released() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    let lock = unique("late");
    drop(service.locker(&lock).lock().unwrap());
    // The service grants it, and the answer is late.
    proxy.when(
        |request| request.lease_action() == Some("acquire"),
        Fault::HoldReply,
    );
    let run = Running::start(&mut through.run([&*lock, "echo", "ran"]));
    proxy.wait_for(1, |seen| seen.upstream.is_some(), PATIENCE);
    assert_eq!(service.state(&lock), LeaseState::Leased);
    run.signal(Signal::TERM);
    proxy.release_held();
    let done = run.finish();
    assert_eq!((done.signal(), &*done.out), (15, ""), "{done:?}");
    assert!(eventually(PATIENCE, || service.state(&lock).is_free()));
}

#[test]
fn term_ends_it_in_time_when_the_service_does_not_answer() {
    let service = Service::emulator();
    let proxy = FaultProxy::start(service.addr());
    let through = Service::at(proxy.connection_string());
    proxy.always(Some(Fault::HangBefore));
    let run = Running::start(&mut through.run([&*unique("hang"), "echo", "ran"]));
    proxy.wait_for(1, |_| true, PATIENCE);
    let started = Instant::now();
    run.signal(Signal::TERM);
    let done = run.finish();
    assert_eq!(done.signal(), 15, "{done:?}");
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    proxy.release_hung();
}
