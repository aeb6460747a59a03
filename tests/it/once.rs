//! Work that is done once.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use azmutex::emulator::Clock;
use azmutex::{
    Error, ErrorKind, Event, LeaseDuration, LeaseState, Locker, LockerBuilder, Once, OnceError,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, RequestHead, internal_error, server_busy};
use crate::support::{Events, on_each_service};

on_each_service! {
    work_is_done_once_and_known_to_be_done
    work_that_fails_or_panics_is_due_again
    caller_that_waited_while_the_work_was_done_does_not_repeat_it
    work_whose_lock_was_lost_is_not_recorded
    work_is_due_again_once_that_it_was_done_is_forgotten
    record_outlives_holders_with_and_without_fencing
}

const KEY: &str = "migrations/0042";

fn builder(backend: &Backend) -> LockerBuilder {
    Locker::builder(backend.mutex(), KEY).owner("ci@build-07")
}

#[track_caller]
fn locker(backend: &Backend) -> Locker {
    builder(backend).build().expect("the settings are sound")
}

/// Does work that succeeds. Returns whether it ran.
#[track_caller]
fn do_once(locker: &Locker, every: Option<Duration>) -> bool {
    let done = locker.once(every, |guard| guard.check());
    match done.expect("nothing fails") {
        Once::Ran(()) => true,
        Once::AlreadyDone(_) => false,
    }
}

fn work_is_done_once_and_known_to_be_done(backend: &Backend) {
    let [here, elsewhere] = [(); 2].map(|()| locker(backend));
    assert_eq!(
        here.done(None)
            .expect("nothing is there, which is no error"),
        None
    );
    assert!(do_once(&here, None));
    for locker in [&here, &elsewhere] {
        let result = locker.once(None, |_| -> Result<(), Error> { panic!("it is done") });
        let Ok(Once::AlreadyDone(done)) = result else {
            panic!("it is done: {result:?}");
        };
        assert_eq!(done.by(), Some("ci@build-07"));
        let service = backend.mutex().service_time().expect("it has a clock");
        let age = service.duration_since(done.at()).unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
    let status = backend.mutex().status(KEY).expect("the blob exists");
    assert_eq!(status.state(), LeaseState::Available);
    assert_eq!(
        status.done(),
        elsewhere.done(None).expect("it exists").as_ref()
    );
}

fn work_that_fails_or_panics_is_due_again(backend: &Backend) {
    let locker = locker(backend);
    let failed = locker.once(None, |_| Err::<(), _>("no space"));
    let Err(OnceError::Work("no space")) = failed else {
        panic!("the work failed: {failed:?}");
    };
    let panics = || locker.once(None, |_| -> Result<(), Error> { panic!("deliberate") });
    catch_unwind(AssertUnwindSafe(panics)).expect_err("it panics");
    assert_eq!(locker.done(None).expect("the blob exists"), None);
    assert!(do_once(&locker, None));
}

fn caller_that_waited_while_the_work_was_done_does_not_repeat_it(backend: &Backend) {
    let here = locker(backend);
    let (observer, events) = Events::new();
    let elsewhere = builder(backend).hand_over_for(Duration::ZERO);
    let elsewhere = elsewhere.observer(observer).build().expect("sound");
    let waiter = here.once(None, |_| {
        let busy = elsewhere.try_once_for(Duration::ZERO, None, |_| Ok::<_, Error>(()));
        let Err(OnceError::Lock(error)) = busy else {
            panic!("the work is being done: {busy:?}");
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        let waiter = thread::spawn(move || do_once(&elsewhere, None));
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        Ok::<_, Error>(waiter)
    });
    let Ok(Once::Ran(waiter)) = waiter else {
        panic!("nothing fails: {waiter:?}");
    };
    assert!(!waiter.join().expect("no panic"));
}

fn work_whose_lock_was_lost_is_not_recorded(backend: &Backend) {
    let locker = locker(backend);
    let mutex = backend.mutex();
    let result = locker.once(None, |_| {
        mutex.break_lease(KEY, Some(Duration::ZERO))?;
        mutex.acquire(KEY, LeaseDuration::MAX)
    });
    let Err(OnceError::Unrecorded(other, error)) = result else {
        panic!("the lock was lost: {result:?}");
    };
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert_eq!(locker.done(None).expect("the blob exists"), None);
    mutex.release(&other).expect("it is held");
    assert!(do_once(&locker, None));
}

fn work_is_due_again_once_that_it_was_done_is_forgotten(backend: &Backend) {
    let locker = locker(backend);
    locker
        .forget_done()
        .expect("nothing is there, which is no error");
    assert!(do_once(&locker, None));
    let guard = locker.lock().expect("it is free");
    let error = locker.forget_done().expect_err("somebody may be at work");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    drop(guard);
    locker.forget_done().expect("nobody holds it");
    locker.forget_done().expect("there is nothing to forget");
    assert!(do_once(&locker, None));
}

fn record_outlives_holders_with_and_without_fencing(backend: &Backend) {
    assert!(do_once(&locker(backend), None));
    let done = locker(backend).done(None).expect("the blob exists");
    for fencing in [true, false] {
        let builder = builder(backend)
            .fencing(fencing)
            .holder_delay(Duration::ZERO);
        let guard = builder.build().expect("sound").lock().expect("it is free");
        guard.write(b"content").expect("it is held");
        guard.release().expect("it is held");
        assert_eq!(locker(backend).done(None).expect("it exists"), done);
    }
}

#[test]
fn first_call_takes_five_requests_and_each_later_one_a_single_one() {
    let backend = Backend::emulator();
    drop(locker(&backend).lock().expect("it makes the blob"));
    let requests = || backend.embedded().expect("an emulator").requests();
    for (ran, expected) in [(true, 5), (false, 1), (false, 1)] {
        let before = requests();
        assert_eq!(do_once(&locker(&backend), None), ran);
        assert_eq!(requests() - before, expected);
    }
}

#[test]
fn work_is_due_again_after_its_period_by_the_service_s_clock() {
    let backend = Backend::emulator_by(Clock::frozen());
    let clock = backend.embedded().expect("an emulator").clock();
    let hour = Duration::from_secs(3600);
    assert!(do_once(&locker(&backend), Some(hour)));
    clock.advance(hour - Duration::from_secs(1));
    assert!(!do_once(&locker(&backend), Some(hour)));
    assert!(do_once(&locker(&backend), Some(hour / 2)));
    assert!(!do_once(&locker(&backend), Some(hour / 2)));
    clock.advance(hour);
    assert!(do_once(&locker(&backend), Some(hour)));
    assert!(!do_once(&locker(&backend), None));
}

#[test]
fn time_of_the_record_is_that_of_its_end_and_not_of_its_start() {
    let backend = Backend::emulator_by(Clock::frozen());
    let clock = backend.embedded().expect("an emulator").clock();
    let before = backend.mutex().service_time().expect("it has a clock");
    let locker = locker(&backend);
    let long = Duration::from_secs(10);
    let work = |_: &_| {
        clock.advance(long);
        Ok::<_, Error>(())
    };
    locker.once(None, work).expect("nothing fails");
    let done = locker.done(None).expect("it exists").expect("it is done");
    let passed = done.at().duration_since(before).expect("later");
    assert!(passed >= long && passed < long * 2, "{passed:?}");
}

#[test]
fn many_callers_at_once_do_it_once() {
    let backend = Backend::emulator();
    let runs = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            let elsewhere = builder(&backend)
                .hand_over_for(Duration::ZERO)
                .poll_interval(Duration::from_millis(20));
            let elsewhere = elsewhere.build().expect("sound");
            let runs = &runs;
            scope.spawn(move || {
                let work = |_: &_| Ok::<_, Error>(runs.fetch_add(1, Ordering::Relaxed));
                elsewhere.once(None, work).expect("nothing fails");
            });
        }
    });
    assert_eq!(runs.into_inner(), 1);
}

#[test]
fn record_and_removal_without_an_answer_are_sent_again() {
    let backend = Backend::emulator();
    let (proxy, mutex) = backend.through_proxy().expect("it speaks HTTP");
    let locker = Locker::new(mutex, KEY).expect("a key");
    for fault in [Fault::DropBefore, Fault::DropAfter, Fault::ResetAfter] {
        let mut fault = Some(fault);
        proxy.choose(move |head| match head.target.contains("comp=metadata") {
            true => fault.take().unwrap_or(Fault::Pass),
            false => Fault::Pass,
        });
        let runs = Cell::new(0);
        for _ in 0..2 {
            let work = |_: &_| {
                runs.set(runs.get() + 1);
                Ok::<_, Error>(())
            };
            locker.once(None, work).expect("it is sent again");
        }
        assert_eq!(runs.get(), 1);
        locker.forget_done().expect("nobody holds it");
    }
    assert!(do_once(&locker, None));
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        let mut fault = Some(fault);
        proxy.choose(move |head| match head.target.contains("comp=metadata") {
            true => fault.take().unwrap_or(Fault::Pass),
            false => Fault::Pass,
        });
        locker.forget_done().expect("it is sent again");
        assert_eq!(locker.done(None).expect("it exists"), None);
        proxy.choose(|_| Fault::Pass);
        assert!(do_once(&locker, None));
    }
}

#[test]
fn work_does_not_begin_if_the_lock_ran_out_since_it_was_acquired() {
    let backend = Backend::emulator_by(Clock::frozen());
    let clock = backend.embedded().expect("an emulator").clock();
    drop(locker(&backend).lock().expect("it makes the blob"));
    let (proxy, mutex) = backend.through_proxy().expect("it speaks HTTP");
    proxy.choose(move |head| match head.lease_action() {
        // The last look, under the lease, takes long.
        None if head.header("x-ms-lease-id").is_some() => {
            clock.advance(Duration::from_secs(56));
            Fault::Pass
        }
        Some("renew") => Fault::Answer(server_busy(None)),
        _ => Fault::Pass,
    });
    let locker = Locker::new(mutex, KEY).expect("a key");
    let result = locker.once(None, |_| -> Result<(), Error> { panic!("it is not held") });
    let Err(OnceError::Lock(error)) = result else {
        panic!("the lock ran out: {result:?}");
    };
    assert_eq!(error.kind(), ErrorKind::LeaseUnproven, "{error}");
    assert!(do_once(&self::locker(&backend), None));
}

#[test]
fn service_that_fails_at_the_first_look_is_asked_again_as_for_the_lock() {
    let backend = Backend::emulator();
    let within = Duration::from_secs(1);
    let (proxy, mutex) = backend.through_proxy_within(within).expect("HTTP");
    // Only the first look, for as long as a request may take.
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    proxy.choose(move |head| {
        if head.lease_action() == Some("acquire") {
            fails.store(false, Ordering::SeqCst);
        }
        match fails.load(Ordering::SeqCst) {
            true => Fault::Answer(internal_error()),
            false => Fault::Pass,
        }
    });
    let migration = Locker::new(mutex, KEY).expect("a key");
    assert!(do_once(&migration, None));
    assert!(!do_once(&migration, None));
    assert!(!failing.load(Ordering::SeqCst));
}

#[test]
fn record_whose_answer_was_lost_outlives_the_release() {
    let backend = Backend::emulator();
    let within = Duration::from_secs(1);
    let (proxy, mutex) = backend.through_proxy_within(within).expect("HTTP");
    let migration = Locker::builder(mutex, KEY).fencing(true);
    let migration = migration.build().expect("a key");
    // It arrives, and nothing is heard of it.
    let is_record = |head: &RequestHead| head.header("x-ms-meta-azmutexdone").is_some();
    proxy.always_when(is_record, Fault::HangAfter);
    let done = migration.once(None, |_| Ok::<_, Error>(()));
    assert!(
        matches!(done, Err(OnceError::Unrecorded((), _))),
        "{done:?}"
    );
    assert!(!do_once(&locker(&backend), None));
    proxy.release_hung();
}
