//! Several locks at once.

use std::thread;
use std::time::{Duration, Instant};

use azmutex::emulator::Clock;
use azmutex::{
    ErrorKind, Event, LeaseDuration, LeaseGuard, Locker, LockerBuilder, LossReason, StopToken,
    TryLockError, lock_all, try_lock_all, try_lock_all_for,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, server_busy};
use crate::support::{Events, LONG, on_each_service};

on_each_service! {
    all_locks_are_held_or_none
    lock_that_is_busy_is_waited_for_with_nothing_in_hand
    guards_are_in_the_order_of_the_lockers_also_after_a_wait
    loss_of_one_lock_is_one_of_all
}

const KEYS: [&str; 3] = ["accounts/12", "accounts/7", "fees"];

fn builder(backend: &Backend, key: &str) -> LockerBuilder {
    Locker::builder(backend.mutex(), key).hand_over_for(Duration::ZERO)
}

#[track_caller]
fn lockers<const N: usize>(backend: &Backend, keys: [&str; N]) -> [Locker; N] {
    keys.map(|key| builder(backend, key).build().expect("a key"))
}

fn requests(backend: &Backend) -> u64 {
    backend.embedded().expect("an emulator").requests()
}

fn all_locks_are_held_or_none(backend: &Backend) {
    let [one, two, three] = lockers(backend, KEYS);
    let both = lock_all(&[two.clone(), one.clone(), two.clone()]).expect("they are free");
    assert!(both.is_held() && both.remaining() > Duration::ZERO);
    both.check().expect("they are held");
    assert_eq!(both.guards().len(), 2);
    assert!(both.get(KEYS[0]).is_some() && both.get(KEYS[2]).is_none());
    for refused in [
        try_lock_all(&[three.clone(), two.clone()]),
        try_lock_all_for(&[three.clone(), one.clone()], Duration::from_millis(50)),
    ] {
        let refused = refused.expect_err("one of them is held");
        assert!(matches!(refused, TryLockError::WouldBlock), "{refused}");
    }
    let third = three.try_lock().expect("nobody has it any more");
    both.release().expect("they are held");
    drop(third);
    drop(try_lock_all(&[one, two, three]).expect("they are free"));
}

fn lock_that_is_busy_is_waited_for_with_nothing_in_hand(backend: &Backend) {
    let [one, _, three] = lockers(backend, KEYS);
    let held = three.lock().expect("it is free");
    let (observer, events) = Events::new();
    let waited = builder(backend, KEYS[2]).observer(observer);
    let wanted = [waited.build().expect("a key"), one.clone()];
    let waiter = thread::spawn(move || lock_all(&wanted));
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    drop(one.try_lock().expect("who waits for one has none"));
    held.release().expect("it is held");
    let both = waiter.join().expect("no panic").expect("they are free");
    both.check().expect("they are held");
}

fn guards_are_in_the_order_of_the_lockers_also_after_a_wait(backend: &Backend) {
    let [one, two, three] = lockers(backend, KEYS);
    let held = two.lock().expect("it is free");
    let (observer, events) = Events::new();
    let waited = builder(backend, KEYS[1]).observer(observer);
    let wanted = [three.clone(), one, waited.build().expect("a key"), three];
    let waiter = thread::spawn(move || lock_all(&wanted));
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    held.release().expect("it is held");
    let all = waiter.join().expect("no panic").expect("they are free");
    let keys: Vec<_> = all.guards().iter().map(LeaseGuard::key).collect();
    assert_eq!(keys, [KEYS[2], KEYS[0], KEYS[1]]);
}

fn loss_of_one_lock_is_one_of_all(backend: &Backend) {
    // Nobody asks for the lease of the lock that is lost before another client has it.
    let quiet = |key| builder(backend, key).holder_info(false).build();
    let quiet = KEYS.map(|key| quiet(key).expect("a key"));
    let guards = lock_all(&quiet).expect("they are free");
    let mutex = backend.mutex();
    mutex
        .break_lease(KEYS[1], Some(Duration::ZERO))
        .expect("it is held");
    let other = mutex
        .acquire(KEYS[1], LeaseDuration::MAX)
        .expect("it is free");
    let lost = guards.get(KEYS[1]).expect("it was asked for");
    lost.read().expect_err("another client holds it");
    assert!(!guards.is_held());
    assert_eq!(guards.remaining(), Duration::ZERO);
    let error = guards.check().expect_err("one is lost");
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    let error = guards.release().expect_err("one is lost");
    assert_eq!(error.loss_reason(), Some(LossReason::Taken), "{error}");
    mutex.release(&other).expect("it is held");
    drop(try_lock_all(&lockers(backend, KEYS)).expect("the others were released"));
}

#[test]
fn free_locks_take_a_request_each_and_one_to_release() {
    let backend = Backend::emulator();
    let all = lockers(&backend, KEYS);
    drop(lock_all(&all).expect("they are free"));
    let before = requests(&backend);
    drop(lock_all(&all).expect("they are free"));
    assert_eq!(requests(&backend) - before, 6);
}

#[test]
fn no_locks_and_too_many_are_refused() {
    let backend = Backend::emulator();
    let many: Vec<_> = (0..17)
        .map(|number| Locker::new(backend.mutex(), &number.to_string()).expect("a key"))
        .collect();
    for (lockers, rule) in [
        (&many[..0], "locks 0: it must be 1 to 16"),
        (&many, "locks 17"),
    ] {
        let error = lock_all(lockers).expect_err(rule);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(rule), "{error}");
    }
    assert_eq!(requests(&backend), 0);
    drop(lock_all(&many[1..]).expect("16 are not too many"));
}

#[test]
fn wait_ends_with_a_stop() {
    let backend = Backend::emulator();
    let [one, two, _] = lockers(&backend, KEYS);
    let _held = one.lock().expect("it is free");
    let stop = StopToken::new();
    let (observer, events) = Events::new();
    let builder = builder(&backend, KEYS[0]).stop_token(&stop);
    let wanted = [builder.observer(observer).build().expect("a key"), two];
    let waiter = thread::spawn(move || lock_all(&wanted));
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    stop.stop();
    let error = waiter.join().expect("no panic").expect_err("it is stopped");
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
}

#[test]
fn locks_of_several_accounts_and_settings_are_held_together() {
    let backends = [Backend::emulator(), Backend::emulator()];
    let [here, there] = &backends;
    let short = builder(there, KEYS[0]).lease_duration(Duration::from_secs(15));
    let wanted = [
        builder(here, KEYS[0]).build().expect("a key"),
        short.build().expect("a key"),
    ];
    let guards = lock_all(&wanted).expect("they are free");
    guards.check().expect("they are held");
    assert_eq!(guards.guards().len(), 2, "of one key, but not the same");
    assert!(guards.remaining() <= Duration::from_secs(15));
    for backend in &backends {
        let [refused] = lockers(backend, [KEYS[0]]);
        assert!(matches!(refused.try_lock(), Err(TryLockError::WouldBlock)));
    }
    guards.release().expect("they are held");
    for backend in &backends {
        drop(lockers(backend, [KEYS[0]])[0].try_lock().expect("free"));
    }
}

#[test]
fn wait_for_all_ends_with_its_limit_although_a_pause_would_be_longer() {
    let backend = Backend::emulator();
    let [one, two, _] = lockers(&backend, KEYS);
    let _held = two.lock().expect("it is free");
    let slow = |key| {
        let builder = builder(&backend, key).poll_interval(Duration::from_secs(10));
        builder.build().expect("a key")
    };
    let wanted = [slow(KEYS[0]), slow(KEYS[1])];
    for _ in 0..3 {
        let started = Instant::now();
        let refused = try_lock_all_for(&wanted, Duration::from_millis(300));
        let refused = refused.expect_err("one of them is held");
        assert!(matches!(refused, TryLockError::WouldBlock), "{refused}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    drop(one.try_lock().expect("nobody has it"));
}

#[test]
fn locks_are_handed_out_only_while_all_are_held() {
    let backend = Backend::emulator_by(Clock::frozen());
    let clock = backend.embedded().expect("an emulator").clock();
    drop(lock_all(&lockers(&backend, KEYS)).expect("they are free"));
    let (proxy, mutex) = backend.through_proxy().expect("it speaks HTTP");
    let mut last = Some(());
    proxy.choose(move |head| match head.lease_action() {
        // The first one runs out while the last one is acquired.
        Some("acquire") if head.target.contains(KEYS[2]) && last.take().is_some() => {
            clock.advance(Duration::from_secs(56));
            Fault::Pass
        }
        Some("renew") => Fault::Answer(server_busy(None)),
        _ => Fault::Pass,
    });
    let wanted = KEYS.map(|key| Locker::new(mutex.clone(), key).expect("a key"));
    let guards = lock_all(&wanted).expect("they are free");
    guards.check().expect("all are held");
}

#[test]
fn callers_with_opposite_orders_do_not_stand_still() {
    const ROUNDS: u32 = 100;
    let backend = Backend::emulator();
    let fast = |key| builder(&backend, key).poll_interval(Duration::from_millis(10));
    thread::scope(|scope| {
        for keys in [[0, 1], [1, 0], [1, 2]] {
            let all = keys.map(|key| fast(KEYS[key]).build().expect("a key"));
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let guards = try_lock_all_for(&all, LONG);
                    guards
                        .unwrap_or_else(|error| panic!("round {round}: {error}"))
                        .check()
                        .expect("they are held");
                }
            });
        }
    });
}
