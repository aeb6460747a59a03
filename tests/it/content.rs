//! The value that a lock guards: the content of its blob.

use std::time::{Duration, Instant};

use azmutex::{
    AzureMutex, Error, ErrorKind, Event, Holder, LeaseGuard, LeaseState, Locker, LockerBuilder,
    LossReason,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, internal_error};
use crate::support::{Events, on_each_service};
#[cfg(unix)]
use crate::support::{
    LONG,
    child::{self, Child},
};

on_each_service! {
    value_is_read_by_the_next_holder
    value_of_any_bytes_survives
    value_of_4_mib_is_written_and_a_larger_one_refused
    value_larger_than_4_mib_is_not_read
    write_keeps_holder_and_token
    write_names_a_holder_that_was_not_named_yet
    write_keeps_the_metadata_of_others
    write_whose_answer_is_lost_is_done_once_to_all_who_look
    write_that_arrives_late_undoes_no_later_one
    write_by_the_lease_id_does_not_stand_in_the_way
    write_takes_one_request_once_it_is_known_what_is_there
    write_without_an_answer_is_an_error_and_the_lock_is_held
    write_after_a_break_is_refused_and_the_guard_lost_at_once
    write_after_the_blob_was_deleted_makes_no_other
    read_after_a_break_is_refused_and_the_guard_lost_at_once
    holder_that_was_stopped_past_its_lease_writes_nothing
}

const KEY: &str = "nightly/report";
const MAX: usize = 4 * 1024 * 1024;

/// A locker whose thread does nothing while a test runs: no renewal tells what a write should, and
/// nothing but writes says who holds the lock.
fn builder(mutex: AzureMutex) -> LockerBuilder {
    Locker::builder(mutex, KEY)
        .holder_delay(Duration::from_secs(24 * 60 * 60))
        .poll_interval(Duration::from_millis(10))
        .owner("ci@build-07")
}

/// One that asks the service for itself, as another process does.
fn elsewhere(backend: &Backend) -> LockerBuilder {
    builder(backend.mutex()).hand_over_for(Duration::ZERO)
}

#[track_caller]
fn lock(builder: LockerBuilder) -> LeaseGuard {
    let locker = builder.build().expect("the settings are sound");
    locker.lock().expect("it is free")
}

#[track_caller]
fn read(backend: &Backend) -> Vec<u8> {
    let guard = lock(builder(backend.mutex()).holder_info(false));
    guard.read().expect("it is held")
}

fn value_is_read_by_the_next_holder(backend: &Backend) {
    let guard = lock(builder(backend.mutex()));
    assert_eq!(guard.read().expect("it is held"), b"");
    guard.write(b"first").expect("it is held");
    assert_eq!(guard.read().expect("it is held"), b"first");
    guard.write(b"second").expect("it is held");
    drop(guard);
    let guard = lock(builder(backend.mutex()));
    assert_eq!(guard.read().expect("it is held"), b"second");
    guard.write(b"").expect("it is held");
    drop(guard);
    assert_eq!(read(backend), b"");
}

fn value_of_any_bytes_survives(backend: &Backend) {
    let value: Vec<u8> = (0..=255).chain(*b"\r\n\r\nHTTP/1.1 200 OK").collect();
    let guard = lock(builder(backend.mutex()));
    guard.write(&value).expect("it is held");
    assert_eq!(guard.read().expect("it is held"), value);
}

fn value_of_4_mib_is_written_and_a_larger_one_refused(backend: &Backend) {
    let mut value: Vec<u8> = (0..MAX).map(|n| (n % 251) as u8).collect();
    let guard = lock(builder(backend.mutex()));
    guard.write(&value).expect("it is held");
    drop(guard);
    let guard = lock(builder(backend.mutex()));
    assert!(guard.read().expect("it is held") == value);

    let etag = backend.mutex().status(KEY).expect("it exists");
    value.push(0);
    let error = guard.write(&value).expect_err("it is too large");
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("4194305") && text.contains("4 MiB"), "{text}");
    guard.check().expect("it is held");
    assert_eq!(backend.mutex().status(KEY).expect("it exists"), etag);
}

fn value_larger_than_4_mib_is_not_read(backend: &Backend) {
    let guard = lock(builder(backend.mutex()));
    let id = guard.lease_id().to_string();
    let written = backend
        .account()
        .write_content(&backend.path(KEY), Some(&id), &vec![0; MAX + 1]);
    assert_eq!(written.status, 201);
    let before = Instant::now();
    let error = guard.read().expect_err("it is too large");
    assert!(error.to_string().contains("too large"), "{error}");
    // Not tried again for as long as an operation may take.
    assert!(before.elapsed() < Duration::from_secs(5));
    guard.check().expect("it is held");
}

fn write_keeps_holder_and_token(backend: &Backend) {
    let mutex = backend.mutex();
    let guard = lock(builder(backend.mutex()).fencing(true).reason("release 812"));
    let before = mutex.status(KEY).expect("it exists");
    guard.write(b"value").expect("it is held");
    let after = mutex.status(KEY).expect("it exists");
    assert_eq!(after.state(), LeaseState::Leased);
    assert_eq!(after.holder(), before.holder());
    assert_eq!(after.fencing_token(), guard.fencing_token());
    assert_ne!(after.etag(), before.etag());
    let token = guard.fencing_token();
    drop(guard);
    let free = mutex.status(KEY).expect("it exists");
    assert!(free.last_holder().is_some_and(Holder::released));
    assert_eq!(free.fencing_token(), token);
    assert_eq!(read(backend), b"value");
}

fn write_names_a_holder_that_was_not_named_yet(backend: &Backend) {
    let mutex = backend.mutex();
    let mut before = None;
    for name in ["first", "other"] {
        let guard = lock(builder(backend.mutex()).owner(name));
        let held = mutex.status(KEY).expect("it exists");
        assert_eq!(held.holder().and_then(Holder::owner), before);
        guard.write(b"value").expect("it is held");
        let held = mutex.status(KEY).expect("it exists");
        assert_eq!(held.holder().and_then(Holder::owner), Some(name));
        guard.release().expect("it is held");
        let free = mutex.status(KEY).expect("it exists");
        assert_eq!((free.state(), free.holder()), (LeaseState::Available, None));
        assert_eq!(free.last_holder().and_then(Holder::owner), Some(name));
        before = Some(name);
    }
}

fn write_keeps_the_metadata_of_others(backend: &Backend) {
    let account = backend.account();
    drop(lock(builder(backend.mutex())));
    let theirs = [("team", "platform"), ("azmutexfence", "7")];
    account.write_metadata(&backend.path(KEY), None, &theirs);
    let guard = lock(builder(backend.mutex()).holder_info(false));
    guard.write(b"value").expect("it is held");
    drop(guard);
    let kept: Vec<_> = account.metadata(&backend.path(KEY)).into_iter().collect();
    let theirs = theirs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let [team, fence] = theirs;
    assert_eq!(kept, [fence, team]);
}

fn write_whose_answer_is_lost_is_done_once_to_all_who_look(backend: &Backend) {
    for fault in [
        Fault::DropAfter,
        Fault::ResetAfter,
        Fault::HangAfter,
        Fault::Truncate(30),
        Fault::AnswerAfter(internal_error()),
        Fault::DropBefore,
        Fault::HangBefore,
    ] {
        for fencing in [true, false]
            .into_iter()
            .take(if fault.hangs() { 1 } else { 2 })
        {
            let Some((proxy, mutex)) = backend.through_proxy_within(fault.patience()) else {
                return;
            };
            let guard = lock(builder(mutex).fencing(fencing));
            let token = guard.fencing_token();
            proxy.when(
                |request| request.operation() == "put content",
                fault.clone(),
            );
            guard.write(b"value").expect("it is tried again");
            assert_eq!(guard.read().expect("it is held"), b"value", "{fault:?}");
            let held = backend.mutex().status(KEY).expect("it exists");
            assert!(held.fencing_token() >= token, "{fault:?}");
            assert!(held.holder().is_some(), "{fault:?}");
            guard.check().expect("it is held");
            drop(guard);
            assert_eq!(read(backend), b"value", "{fault:?}");
        }
    }
}

fn write_that_arrives_late_undoes_no_later_one(backend: &Backend) {
    for fencing in [false, true] {
        for fault in [Fault::Defer, Fault::Duplicate] {
            let Some((proxy, mutex)) = backend.through_proxy() else {
                return;
            };
            let guard = lock(builder(mutex).fencing(fencing));
            proxy.when(|request| request.operation() == "put content", fault);
            guard.write(b"first").expect("it is tried again");
            guard.write(b"second").expect("it is held");
            let answers: Vec<_> = proxy.deliver_late().iter().map(|a| a.status).collect();
            assert_eq!(answers, [412]);
            assert_eq!(guard.read().expect("it is held"), b"second");
        }
    }
}

fn write_by_the_lease_id_does_not_stand_in_the_way(backend: &Backend) {
    let guard = lock(builder(backend.mutex()).fencing(true));
    guard.write(b"first").expect("it is held");
    let (account, path) = (backend.account(), backend.path(KEY));
    let id = guard.lease_id().to_string();
    assert_eq!(
        account.write_content(&path, Some(&id), b"theirs").status,
        201
    );
    assert_eq!(guard.read().expect("it is held"), b"theirs");
    guard.write(b"second").expect("it is held");
    assert_eq!(guard.read().expect("it is held"), b"second");
    // What the other wiped out is there again.
    let held = backend.mutex().status(KEY).expect("it exists");
    assert_eq!(held.fencing_token(), guard.fencing_token());
    assert!(held.holder().is_some());
}

fn write_takes_one_request_once_it_is_known_what_is_there(backend: &Backend) {
    drop(lock(builder(backend.mutex())));
    let named = ["acquire", "get properties", "put content", "put content"];
    let fenced = [&named[..2], &["put metadata"], &named[2..]].concat();
    let released = ["put metadata", "release"];
    for (fencing, first, last) in [
        (false, &named[..], &released[1..]),
        (true, &fenced, &released),
    ] {
        let Some((proxy, mutex)) = backend.through_proxy() else {
            return;
        };
        let guard = lock(builder(mutex).fencing(fencing));
        guard.write(b"first").expect("it is held");
        guard.write(b"second").expect("it is held");
        drop(guard);
        let seen = proxy.seen();
        let operations: Vec<_> = seen.iter().map(|seen| seen.operation()).collect();
        assert_eq!(operations, [first, last].concat());
    }
}

fn write_without_an_answer_is_an_error_and_the_lock_is_held(backend: &Backend) {
    let within = Duration::from_secs(1);
    let Some((proxy, mutex)) = backend.through_proxy_within(within) else {
        return;
    };
    let guard = lock(builder(mutex).fencing(true));
    guard.write(b"first").expect("it is held");
    proxy.always_when(
        |request| request.operation() == "put content",
        Fault::DropBefore,
    );
    let error = guard.write(b"second").expect_err("nobody answers");
    assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    guard.check().expect("it is held");
    proxy.clear();
    assert_eq!(guard.read().expect("it is held"), b"first");
    guard.write(b"third").expect("it is held");
    assert_eq!(guard.read().expect("it is held"), b"third");
}

/// A guard whose lease was broken, and what its observer hears from then on.
fn broken(backend: &Backend) -> (LeaseGuard, Events) {
    let (observer, events) = Events::new();
    let guard = lock(builder(backend.mutex()).fencing(true).observer(observer));
    guard.write(b"value").expect("it is held");
    events.wait(|event| matches!(event, Event::Acquired { .. }));
    backend
        .mutex()
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    assert!(guard.is_held(), "nobody told it yet");
    (guard, events)
}

#[track_caller]
fn is_lost(error: &Error, reason: LossReason, guard: &LeaseGuard, events: &Events) {
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert_eq!(error.loss_reason(), Some(reason), "{error}");
    assert!(!guard.is_held());
    assert_eq!(guard.remaining(), Duration::ZERO);
    let error = guard.check().expect_err("it is lost");
    assert_eq!(error.loss_reason(), Some(reason), "{error}");
    let lost = |event: &Event| matches!(event, Event::Lost { .. });
    events.wait(lost);
    assert_eq!(events.count(lost), 1, "{:?}", events.heard());
}

fn write_after_a_break_is_refused_and_the_guard_lost_at_once(backend: &Backend) {
    let (guard, events) = broken(backend);
    let next = lock(elsewhere(backend).fencing(true));
    next.write(b"the next").expect("it is held");
    let error = guard.write(b"too late").expect_err("it is lost");
    is_lost(&error, LossReason::Taken, &guard, &events);
    assert!(guard.fencing_token() < next.fencing_token());
    // Once more does not make it lost once more.
    guard.write(b"too late").expect_err("it is lost");
    assert!(events.so_far().is_empty());
    drop(guard);
    next.check().expect("the other did no harm");
    assert_eq!(next.read().expect("it is held"), b"the next");
}

fn write_after_the_blob_was_deleted_makes_no_other(backend: &Backend) {
    for written in [false, true] {
        let (observer, events) = Events::new();
        let guard = lock(builder(backend.mutex()).observer(observer));
        if written {
            guard.write(b"value").expect("it is held");
        }
        let id = guard.lease_id().to_string();
        let deleted = backend.account().delete_blob(&backend.path(KEY), Some(&id));
        assert_eq!(deleted.status, 202);
        let error = guard.write(b"too late").expect_err("it is lost");
        is_lost(&error, LossReason::Deleted, &guard, &events);
        let error = backend.mutex().status(KEY).expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

fn read_after_a_break_is_refused_and_the_guard_lost_at_once(backend: &Backend) {
    let (guard, events) = broken(backend);
    let next = lock(elsewhere(backend));
    let error = guard.read().expect_err("it is lost");
    is_lost(&error, LossReason::Taken, &guard, &events);
    next.check().expect("the other did no harm");
}

/// The pause that no client can see coming: what it does next, it does with a lock that it lost.
#[cfg(unix)]
fn holder_that_was_stopped_past_its_lease_writes_nothing(backend: &Backend) {
    let mut child = Child::hold(backend, KEY);
    let theirs = child.token();
    child.tell("write");
    assert_eq!(child.line(), "wrote");
    child.stop();

    backend.pass(Duration::from_secs(15));
    let locker = builder(backend.mutex())
        .lease_duration(Duration::from_secs(15))
        .fencing(true)
        .build()
        .expect("the settings are sound");
    let guard = locker.try_lock_for(LONG).expect("the lease runs out");
    assert!(guard.previous().is_abandoned());
    assert_eq!(
        guard.previous().holder().and_then(Holder::owner),
        Some(child::OWNER)
    );
    let ours = guard.fencing_token().expect("it is on");
    assert!(ours > theirs, "{ours} after {theirs}");
    assert_eq!(guard.read().expect("it is held"), child::VALUE);
    guard.write(b"the next").expect("it is held");

    // Waits for it on the pipe, so that it is the first thing that it does.
    child.tell("write");
    child.go_on();
    assert_eq!(child.line(), "LeaseLost, held: false");
    assert_eq!(child.line(), "heard of it");
    child.tell("release");
    assert_eq!(child.line(), "Err(LeaseLost)");
    child.finish();
    guard.check().expect("the other did no harm");
    assert_eq!(guard.read().expect("it is held"), b"the next");
    let status = backend.mutex().status(KEY).expect("it exists");
    assert_eq!(status.fencing_token(), Some(ours));
    drop(guard);
    assert_eq!(read(backend), b"the next");
}

#[cfg(not(unix))]
fn holder_that_was_stopped_past_its_lease_writes_nothing(_: &Backend) {}
