//! A limited number of holders at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use azmutex::emulator::Clock;
use azmutex::{
    ErrorKind, Event, LeaseDuration, LeaseGuard, Locker, LockerBuilder, Semaphore, StopToken,
    TryLockError,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, server_busy};
use crate::support::{Events, LONG, on_each_service};

on_each_service! {
    there_are_as_many_holders_as_permits_and_no_more
    another_number_of_permits_is_refused_until_it_is_recorded
    plain_lock_with_the_semaphore_s_key_is_refused
    holder_of_a_permit_is_shown_and_one_of_a_free_permit_is_not
}

const KEY: &str = "deploy";

fn builder(backend: &Backend) -> LockerBuilder {
    Locker::builder(backend.mutex(), KEY)
}

/// A semaphore that asks the service for itself, as another process does.
#[track_caller]
fn semaphore(backend: &Backend, permits: u32) -> Semaphore {
    build(builder(backend), permits)
}

#[track_caller]
fn build(builder: LockerBuilder, permits: u32) -> Semaphore {
    let builder = builder.hand_over_for(Duration::ZERO);
    builder
        .build_semaphore(permits)
        .expect("the settings are sound")
}

fn frozen() -> Backend {
    Backend::emulator_by(Clock::frozen())
}

fn requests(backend: &Backend) -> u64 {
    backend.embedded().expect("an emulator").requests()
}

fn slots(semaphore: &Semaphore, permits: &[LeaseGuard]) -> BTreeSet<u32> {
    let slots = permits.iter().map(|permit| semaphore.slot(permit));
    slots.map(|slot| slot.expect("it is a permit")).collect()
}

fn there_are_as_many_holders_as_permits_and_no_more(backend: &Backend) {
    let [here, elsewhere] = [(); 2].map(|()| semaphore(backend, 3));
    let mut held = vec![
        here.acquire().expect("all are free"),
        elsewhere.try_acquire().expect("two are free"),
        here.try_acquire_for(LONG).expect("one is free"),
    ];
    assert_eq!(slots(&here, &held), BTreeSet::from([0, 1, 2]));
    for semaphore in [&here, &elsewhere] {
        let refused = semaphore.try_acquire().expect_err("all are taken");
        assert!(matches!(refused, TryLockError::WouldBlock), "{refused}");
    }
    let free = held.remove(1);
    let slot = here.slot(&free);
    free.release().expect("it is held");
    let again = elsewhere.acquire().expect("one is free");
    assert_eq!(elsewhere.slot(&again), slot);
    again.check().expect("it is held");
}

fn another_number_of_permits_is_refused_until_it_is_recorded(backend: &Backend) {
    let three = semaphore(backend, 3);
    let permit = three.acquire().expect("all are free");
    let five = semaphore(backend, 5);
    for _ in 0..2 {
        let error = five.acquire().expect_err("another number is recorded");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(
            error
                .to_string()
                .contains("it has 3 permits, and 5 are asked for"),
            "{error}"
        );
    }
    five.resize().expect("nobody leases the blob");
    let held: Vec<_> = (0..4)
        .map(|_| five.try_acquire().expect("4 are left"))
        .collect();
    assert!(!slots(&five, &held).contains(&three.slot(&permit).expect("a permit")));
    let error = semaphore(backend, 3)
        .try_acquire()
        .expect_err("it has 5 now");
    assert!(error.to_string().contains("it has 5 permits"), "{error}");
}

fn plain_lock_with_the_semaphore_s_key_is_refused(backend: &Backend) {
    let mutex = backend.mutex();
    let lock = mutex
        .acquire(KEY, LeaseDuration::MAX)
        .expect("nobody holds it");
    let semaphore = semaphore(backend, 2);
    let error = semaphore.acquire().expect_err("the key is a plain lock's");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("plain lock"), "{error}");
    mutex.release(&lock).expect("it is held");
    drop(semaphore.acquire().expect("it is nobody's"));
}

fn holder_of_a_permit_is_shown_and_one_of_a_free_permit_is_not(backend: &Backend) {
    let named = builder(backend)
        .owner("ci@build-07")
        .holder_delay(Duration::ZERO);
    let semaphore = build(named, 3);
    assert!(
        semaphore
            .holders()
            .expect_err("there is no container")
            .kind()
            == ErrorKind::NotFound
    );
    let permit = semaphore.acquire().expect("all are free");
    let holders = semaphore.holders().expect("the container exists");
    let [status] = &holders[..] else {
        panic!("one is held: {holders:?}");
    };
    assert_eq!(status.key(), permit.key());
    let holder = status.holder().expect("it wrote who it is");
    assert_eq!(holder.owner(), Some("ci@build-07"));
    permit.release().expect("it is held");
    assert_eq!(semaphore.holders().expect("the container exists"), []);
}

#[test]
fn settings_that_make_no_semaphore_are_refused_with_the_rule() {
    let backend = Backend::emulator();
    let long = "k".repeat(1020);
    for (key, permits, rule) in [
        (KEY, 0, "invalid number of permits 0: it must be 1 to 1000"),
        (
            KEY,
            1001,
            "invalid number of permits 1001: it must be 1 to 1000",
        ),
        ("", 3, "invalid key"),
        (&*long, 3, "invalid key"),
    ] {
        let error = Semaphore::new(backend.mutex(), key, permits).expect_err(rule);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
    }
    let guard = Locker::new(backend.mutex(), "another")
        .expect("a key")
        .lock()
        .expect("free");
    assert_eq!(semaphore(&backend, 3).slot(&guard), None);
    for other in ["deploy.slot3", "deploy.slot01", "deploy.slot+1"] {
        let locker = Locker::new(backend.mutex(), other).expect("a key");
        let guard = locker.lock().expect("it is free");
        assert_eq!(semaphore(&backend, 3).slot(&guard), None, "{other}");
    }
}

#[test]
fn free_permit_takes_one_request_and_one_to_give_back() {
    let backend = Backend::emulator();
    let semaphore = semaphore(&backend, 1);
    drop(semaphore.acquire().expect("it is free"));
    for _ in 0..3 {
        let before = requests(&backend);
        drop(semaphore.acquire().expect("it is free"));
        assert_eq!(requests(&backend) - before, 2);
    }
}

#[test]
fn each_permit_is_asked_for_once_if_nobody_waits() {
    let backend = Backend::emulator();
    let here = build(builder(&backend), 4);
    let _held: Vec<_> = (0..4)
        .map(|_| here.acquire().expect("4 are free"))
        .collect();
    let elsewhere = semaphore(&backend, 4);
    let before = requests(&backend);
    let error = elsewhere.try_acquire().expect_err("all are taken");
    assert!(matches!(error, TryLockError::WouldBlock), "{error}");
    assert_eq!(requests(&backend) - before, 1 + 4);

    // A permit that a guard here holds is not asked for.
    let semaphore = builder(&backend)
        .build_semaphore(1)
        .expect("it is refused later");
    semaphore.resize().expect("nobody leases the blob");
    drop(_held);
    let _held = semaphore.acquire().expect("it is free");
    let before = requests(&backend);
    let error = semaphore.try_acquire().expect_err("it is taken");
    assert!(matches!(error, TryLockError::WouldBlock), "{error}");
    assert_eq!(requests(&backend), before);
}

#[test]
fn waiter_gets_a_permit_that_is_given_back() {
    let backend = Backend::emulator();
    let here = semaphore(&backend, 2);
    let mut held = vec![
        here.acquire().expect("free"),
        here.acquire().expect("one is"),
    ];
    let (observer, events) = Events::new();
    let elsewhere = build(builder(&backend).observer(observer), 2);
    let waiter = thread::spawn(move || elsewhere.acquire());
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    held.pop().expect("two are held").release().expect("held");
    let permit = waiter.join().expect("no panic").expect("one is free");
    permit.check().expect("it is held");
    assert_ne!(permit.key(), held[0].key());
}

#[test]
fn waiters_of_one_process_are_served_in_order_and_one_of_them_asks() {
    let backend = Backend::emulator();
    let here = semaphore(&backend, 1);
    let held = here.acquire().expect("it is free");
    let (order, served) = mpsc::channel();
    let quick = builder(&backend).poll_interval(Duration::from_millis(10));
    let (observer, events) = Events::new();
    let elsewhere = build(quick.observer(observer), 1);
    let waiters: Vec<_> = (0..4)
        .map(|number| {
            let (elsewhere, order) = (elsewhere.clone(), order.clone());
            let waiter = thread::spawn(move || {
                let permit = elsewhere.acquire().expect("it gets free");
                order.send(number).expect("somebody listens");
                drop(permit);
            });
            // The first one asks; the others are told after a second that they are in line.
            events.wait(|event| match event {
                Event::Waiting { attempt, ahead, .. } => {
                    (*attempt > 0) == (number == 0) && *ahead == number
                }
                _ => false,
            });
            waiter
        })
        .collect();
    held.release().expect("it is held");
    for waiter in waiters {
        waiter.join().expect("no panic");
    }
    drop(order);
    assert_eq!(served.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn permit_that_is_given_back_here_is_had_at_once_by_who_waits_here() {
    let backend = Backend::emulator();
    let (observer, events) = Events::new();
    let slow = builder(&backend).poll_interval(LONG * 2);
    let here = slow
        .observer(move |event| {
            observer(event);
            assert!(!matches!(event, Event::Released), "deliberate");
        })
        .build_semaphore(2)
        .expect("sound");
    let held = [(); 2].map(|()| here.acquire().expect("two are free"));
    let waiter = {
        let here = here.clone();
        thread::spawn(move || here.acquire())
    };
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    let [one, other] = held;
    let before = requests(&backend);
    let slot = here.slot(&one);
    let released = Instant::now();
    one.release().expect("it is held");
    let permit = waiter.join().expect("no panic").expect("one is free");
    assert_eq!(here.slot(&permit), slot);
    assert_eq!(requests(&backend) - before, 2, "a release and an acquire");
    assert!(released.elapsed() < LONG);
    drop(other);
}

#[test]
fn others_elsewhere_get_a_permit_once_those_here_have_had_their_time() {
    let backend = frozen();
    let clock = backend.embedded().expect("an emulator").clock();
    let stop = StopToken::new();
    let (observer, events) = Events::new();
    let here = builder(&backend)
        .poll_interval(LONG * 2)
        .hand_over_for(Duration::from_secs(1))
        .stop_token(&stop)
        .observer(observer)
        .build_semaphore(1)
        .expect("the settings are sound");
    let elsewhere = semaphore(&backend, 1);
    let mut permit = here.acquire().expect("it is free");
    let wait = || {
        let here = here.clone();
        let waiter = thread::spawn(move || here.acquire());
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        waiter
    };
    for _ in 0..2 {
        let waiter = wait();
        permit.release().expect("it is held");
        permit = waiter.join().expect("no panic").expect("it is free");
    }
    let waiter = wait();
    clock.advance(Duration::from_secs(1));
    permit.release().expect("it is held");
    drop(elsewhere.try_acquire().expect("nobody here has asked"));
    stop.stop();
    let error = waiter.join().expect("no panic").expect_err("it is stopped");
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
}

#[test]
fn wait_ends_with_its_limit_and_with_a_stop() {
    let backend = Backend::emulator();
    let here = semaphore(&backend, 1);
    let _held = here.acquire().expect("it is free");
    let stop = StopToken::new();
    let (observer, events) = Events::new();
    let elsewhere = build(builder(&backend).stop_token(&stop).observer(observer), 1);
    let error = elsewhere
        .try_acquire_for(Duration::from_millis(300))
        .expect_err("it is taken");
    assert!(matches!(error, TryLockError::WouldBlock), "{error}");
    let waiters = [(); 2].map(|()| {
        let elsewhere = elsewhere.clone();
        thread::spawn(move || elsewhere.acquire())
    });
    events.wait(|event| matches!(event, Event::Waiting { ahead: 1, .. }));
    let behind = elsewhere.try_acquire_for(Duration::from_millis(10));
    assert!(matches!(
        behind.expect_err("others wait"),
        TryLockError::WouldBlock
    ));
    stop.stop();
    for waiter in waiters {
        let error = waiter.join().expect("no panic").expect_err("it is stopped");
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    }
    assert_eq!(
        elsewhere.acquire().expect_err("it stays stopped").kind(),
        ErrorKind::Stopped
    );
}

#[test]
fn permit_of_a_holder_that_is_gone_is_free_once_its_lease_is_over() {
    let backend = frozen();
    let clock = backend.embedded().expect("an emulator").clock();
    let here = semaphore(&backend, 1);
    drop(here.acquire().expect("it is free"));
    let mutex = backend.mutex();
    let gone = mutex
        .acquire("deploy.slot0", LeaseDuration::MAX)
        .expect("it is free");
    let (observer, events) = Events::new();
    let waiting = build(builder(&backend).observer(observer), 1);
    let waiter = thread::spawn(move || waiting.acquire());
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    clock.advance(Duration::from_secs(60));
    let permit = waiter.join().expect("no panic").expect("it is free");
    assert_eq!(permit.key(), gone.key());
}

#[test]
fn service_that_is_overloaded_or_silent_is_asked_again() {
    let backend = Backend::emulator();
    let (proxy, mutex) = backend.through_proxy().expect("it speaks HTTP");
    let builder = Locker::builder(mutex, KEY).hand_over_for(Duration::ZERO);
    let semaphore = builder.build_semaphore(2).expect("the settings are sound");
    let mut faults = vec![
        Fault::Answer(server_busy(None)),
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Answer(server_busy(None)),
        Fault::ResetAfter,
    ];
    faults.reverse();
    let faults = std::sync::Mutex::new(faults);
    proxy.choose(move |_| {
        faults
            .lock()
            .expect("no panic")
            .pop()
            .unwrap_or(Fault::Pass)
    });
    let permits = [(); 2].map(|()| semaphore.acquire().expect("they pass"));
    assert_eq!(slots(&semaphore, &permits), BTreeSet::from([0, 1]));
}

#[test]
fn refused_credential_ends_the_wait_at_once() {
    let backend = Backend::emulator();
    drop(
        semaphore(&backend, 2)
            .acquire()
            .expect("it makes the container"),
    );
    let mutex = backend.mutex_by_sas("sv=2024-11-04&sr=c&sp=r&sig=AAAA");
    let semaphore = Semaphore::new(mutex, KEY, 2).expect("the settings are sound");
    let error = semaphore.acquire().expect_err("the signature is wrong");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
}

#[test]
fn wait_ends_with_its_limit_however_many_permits_there_are() {
    const PERMITS: u32 = 100;
    let backend = Backend::emulator();
    let here = semaphore(&backend, PERMITS);
    drop(here.acquire().expect("they are free"));
    let mutex = backend.mutex();
    for slot in 0..PERMITS {
        let key = format!("{KEY}.slot{slot}");
        let lease = mutex.acquire(&key, LeaseDuration::MAX);
        lease.expect("nobody holds it");
    }
    let (proxy, mutex) = backend.through_proxy().expect("it speaks HTTP");
    proxy.choose(|_| Fault::Delay(Duration::from_millis(50)));
    let semaphore = Semaphore::new(mutex, KEY, PERMITS).expect("the settings are sound");
    let started = Instant::now();
    let refused = semaphore
        .try_acquire_for(Duration::from_millis(100))
        .expect_err("all are taken");
    assert!(matches!(refused, TryLockError::WouldBlock), "{refused}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn semaphores_of_one_key_in_one_process_share_its_permits() {
    let backend = Backend::emulator();
    let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..5 {
            let quick = builder(&backend).poll_interval(Duration::from_millis(10));
            let (held, most) = (&held, &most);
            scope.spawn(move || {
                let semaphore = quick.build_semaphore(2).expect("the settings are sound");
                for _ in 0..20 {
                    let permit = semaphore.acquire().expect("it gets free");
                    let number = held.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(number, Ordering::SeqCst);
                    thread::yield_now();
                    held.fetch_sub(1, Ordering::SeqCst);
                    permit.release().expect("it is held");
                }
            });
        }
    });
    assert!((1..=2).contains(&most.into_inner()));
}
