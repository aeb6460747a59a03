//! What the library promises of a lock, held against each service that it may run on.
//!
//! Each property is a function of the service, and shows as a test of its own for each.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{
    AzureMutex, Error, ErrorKind, Event, Lease, LeaseDuration, LeaseId, LeaseState, Locker,
    LockerBuilder, LossReason, StopToken, TryLockError,
};

use crate::support::backend::Backend;
use crate::support::proxy::FaultProxy;
use crate::support::{Events, LONG, on_each_service};

on_each_service! {
    acquire_gives_a_lease_that_nobody_else_gets
    acquire_of_a_free_lease_creates_container_and_blob
    acquire_creates_nothing_when_that_is_off
    expired_lease_is_taken_over_or_renewed_by_its_holder
    infinite_lease_ends_when_it_is_broken
    renew_succeeds_for_the_holder_alone
    renew_after_expiry_fails_once_somebody_wrote
    change_moves_the_lease_to_another_id
    release_tells_whether_the_lease_was_held
    break_ends_the_lease_of_another_after_the_period
    break_of_no_lease_is_not_found
    status_follows_the_lease_and_its_etag_does_not
    list_shows_every_lock_with_its_state
    list_of_a_prefix_shows_no_other_locks
    list_of_a_missing_container_fails_once
    keys_of_any_characters_are_the_same_lock_everywhere
    writes_to_a_leased_blob_need_the_lease_id
    lock_waits_until_holder_releases
    try_lock_would_block_while_another_holds
    try_lock_for_gets_a_lock_that_is_released_in_time
    try_lock_until_a_past_deadline_makes_one_attempt
    lock_is_not_reentrant
    threads_exclude_each_other
    guard_claims_its_lease_until_it_is_released
    guard_renews_in_the_background
    guard_hears_that_its_lease_was_broken
    guard_hears_that_its_blob_was_deleted
    drop_releases
    lock_and_unlock_take_two_requests_on_one_connection
    stop_token_ends_waiting_at_once
    account_sas_is_as_good_as_the_key
    service_sas_locks_in_a_container_that_exists
}

const KEY: &str = "nightly/report";

fn locker(backend: &Backend) -> Locker {
    builder(backend).build().expect("the settings are sound")
}

/// Asks often, so that tests are quick.
fn builder(backend: &Backend) -> LockerBuilder {
    Locker::builder(backend.mutex(), KEY)
        .lease_duration(Duration::from_secs(15))
        .poll_interval(Duration::from_millis(10))
}

/// One that asks the service for itself, as another process does.
fn elsewhere(backend: &Backend) -> LockerBuilder {
    builder(backend).hand_over_for(Duration::ZERO)
}

#[track_caller]
fn state(mutex: &AzureMutex) -> LeaseState {
    mutex.status(KEY).expect("the blob exists").state()
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, code: &str, status: u16) {
    let error = result.expect_err("the service refuses it");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.service_code(), Some(code), "{error}");
    assert_eq!(error.status(), Some(status), "{error}");
    assert!(error.request_id().is_some(), "{error}");
}

#[track_caller]
fn is_lost<T: std::fmt::Debug>(result: Result<T, Error>, reason: LossReason) {
    let error = result.expect_err("the lease is lost");
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert_eq!(error.loss_reason(), Some(reason), "{error}");
}

#[track_caller]
fn would_block<T: std::fmt::Debug>(result: Result<T, TryLockError>) {
    match result {
        Err(TryLockError::WouldBlock) => {}
        other => panic!("{other:?} instead of WouldBlock"),
    }
}

fn acquire_gives_a_lease_that_nobody_else_gets(backend: &Backend) {
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    assert_eq!(lease.key(), KEY);
    let again = mutex.acquire(KEY, LeaseDuration::MIN);
    fails(again, ErrorKind::WouldBlock, "LeaseAlreadyPresent", 409);
    mutex
        .acquire("another", LeaseDuration::MIN)
        .expect("another key is another lock");
}

fn acquire_of_a_free_lease_creates_container_and_blob(backend: &Backend) {
    let mutex = backend.mutex();
    let error = mutex.status(KEY).expect_err("there is no container");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    mutex.acquire(KEY, LeaseDuration::MIN).expect("it is made");
    assert_eq!(state(&mutex), LeaseState::Leased);
}

fn acquire_creates_nothing_when_that_is_off(backend: &Backend) {
    let options = backend.options().create_missing(false);
    let mutex = AzureMutex::new(options).expect("the options are sound");
    let acquired = mutex.acquire(KEY, LeaseDuration::MIN);
    fails(acquired, ErrorKind::NotFound, "ContainerNotFound", 404);
    backend.account().create_container(backend.container());
    let acquired = mutex.acquire(KEY, LeaseDuration::MIN);
    fails(acquired, ErrorKind::NotFound, "BlobNotFound", 404);
    backend.account().write_blob(&backend.path(KEY), None);
    mutex
        .acquire(KEY, LeaseDuration::MIN)
        .expect("now it is there");
}

/// The one test that takes a lease's time where the clock cannot be advanced.
fn expired_lease_is_taken_over_or_renewed_by_its_holder(backend: &Backend) {
    let mutex = backend.mutex();
    let before = Instant::now();
    let idle = mutex
        .acquire("idle", LeaseDuration::MIN)
        .expect("it is free");
    let abandoned = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    would_block(locker(backend).try_lock());
    backend.pass(Duration::from_secs(15));
    let guard = locker(backend)
        .try_lock_for(LONG)
        .expect("the lease runs out");
    if !backend.can_pass() {
        let waited = before.elapsed();
        assert!(waited > Duration::from_millis(14_500), "{waited:?}");
    }
    is_lost(mutex.renew(&abandoned), LossReason::Taken);
    assert_eq!(
        mutex.release(&abandoned).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    guard.check().expect("who came late took nothing away");

    // The other lease was acquired before, so it has run out too.
    let status = mutex.status("idle").expect("it exists");
    assert_eq!(status.state(), LeaseState::Expired);
    // Azurite accepts any ID here, revives the lease and answers with its true ID.
    let other =
        Lease::new("idle", LeaseId::random().expect("random numbers")).expect("the key is sound");
    is_lost(mutex.renew(&other), LossReason::Taken);
    mutex.renew(&idle).expect("nobody came between");
    let status = mutex.status("idle").expect("it exists");
    assert_eq!(status.state(), LeaseState::Leased);
}

fn infinite_lease_ends_when_it_is_broken(backend: &Backend) {
    let mutex = backend.mutex();
    mutex
        .acquire(KEY, LeaseDuration::INFINITE)
        .expect("it is free");
    assert!(mutex.status(KEY).expect("it exists").is_infinite());
    backend.pass(Duration::from_secs(600));
    assert_eq!(state(&mutex), LeaseState::Leased);
    let left = mutex.break_lease(KEY, None).expect("it is leased");
    assert_eq!(left, Duration::ZERO);
    assert_eq!(state(&mutex), LeaseState::Broken);
    mutex
        .acquire(KEY, LeaseDuration::MIN)
        .expect("it is broken");
    assert!(!mutex.status(KEY).expect("it exists").is_infinite());
}

fn renew_succeeds_for_the_holder_alone(backend: &Backend) {
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    mutex.renew(&lease).expect("it is held");
    let other =
        Lease::new(KEY, LeaseId::random().expect("random numbers")).expect("the key is sound");
    is_lost(mutex.renew(&other), LossReason::Taken);
    mutex.renew(&lease).expect("the other did no harm");
    let elsewhere = Lease::new("nowhere", lease.id()).expect("the key is sound");
    is_lost(mutex.renew(&elsewhere), LossReason::Deleted);
    mutex.release(&lease).expect("it is held");
    is_lost(mutex.renew(&lease), LossReason::Taken);
}

/// Only where the clock can be advanced, for the time that it would take.
fn renew_after_expiry_fails_once_somebody_wrote(backend: &Backend) {
    if !backend.can_pass() {
        return;
    }
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    backend.pass(Duration::from_secs(15));
    let written = backend.account().write_blob(&backend.path(KEY), None);
    assert_eq!(written.status, 201);
    is_lost(mutex.renew(&lease), LossReason::Taken);
}

fn change_moves_the_lease_to_another_id(backend: &Backend) {
    let mutex = backend.mutex();
    let old = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    let id = LeaseId::random().expect("random numbers");
    let new = mutex.change(&old, id).expect("it is held");
    assert_eq!((new.key(), new.id()), (KEY, id));
    mutex.renew(&new).expect("the new ID holds it");
    is_lost(mutex.renew(&old), LossReason::Taken);
    mutex
        .change(&old, id)
        .expect("a repetition changes nothing");
    is_lost(
        mutex.change(&old, LeaseId::random().expect("random numbers")),
        LossReason::Taken,
    );
    assert_eq!(
        mutex.release(&old).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    mutex.release(&new).expect("it is held");
    is_lost(
        mutex.change(&new, LeaseId::random().expect("random numbers")),
        LossReason::Taken,
    );
}

fn release_tells_whether_the_lease_was_held(backend: &Backend) {
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    mutex.release(&lease).expect("it is held");
    assert_eq!(state(&mutex), LeaseState::Available);
    assert_eq!(
        mutex.release(&lease).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    let next = mutex
        .acquire(KEY, LeaseDuration::MAX)
        .expect("it is free at once");
    assert_ne!(next.id(), lease.id());
    assert_eq!(
        mutex.release(&lease).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
    assert_eq!(state(&mutex), LeaseState::Leased);
    let elsewhere = Lease::new("nowhere", lease.id()).expect("the key is sound");
    assert_eq!(
        mutex.release(&elsewhere).unwrap_err().kind(),
        ErrorKind::LeaseLost
    );
}

fn break_ends_the_lease_of_another_after_the_period(backend: &Backend) {
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MAX).expect("it is free");
    let left = mutex.break_lease(KEY, None).expect("it is leased");
    // Azurite rounds up where the service rounds down.
    assert!((58..=60).contains(&left.as_secs()), "{left:?}");
    assert_eq!(state(&mutex), LeaseState::Breaking);
    is_lost(mutex.renew(&lease), LossReason::Broken);
    is_lost(
        mutex.change(&lease, LeaseId::random().expect("random numbers")),
        LossReason::Broken,
    );
    let acquired = mutex.acquire(KEY, LeaseDuration::MIN);
    fails(acquired, ErrorKind::WouldBlock, "LeaseAlreadyPresent", 409);
    let left = mutex
        .break_lease(KEY, Some(Duration::from_secs(20)))
        .expect("it can be shortened");
    assert!((19..=20).contains(&left.as_secs()), "{left:?}");
    let left = mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it can be shortened");
    assert_eq!(left, Duration::ZERO);
    assert_eq!(state(&mutex), LeaseState::Broken);
    is_lost(mutex.renew(&lease), LossReason::Broken);
    mutex
        .acquire(KEY, LeaseDuration::MIN)
        .expect("it is broken");
}

fn break_of_no_lease_is_not_found(backend: &Backend) {
    let mutex = backend.mutex();
    let broken = mutex.break_lease(KEY, None);
    fails(broken, ErrorKind::NotFound, "ContainerNotFound", 404);
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    fails(
        mutex.break_lease("nowhere", None),
        ErrorKind::NotFound,
        "BlobNotFound",
        404,
    );
    mutex.release(&lease).expect("it is held");
    let broken = mutex.break_lease(KEY, Some(Duration::ZERO));
    fails(
        broken,
        ErrorKind::NotFound,
        "LeaseNotPresentWithLeaseOperation",
        409,
    );
    let error = mutex
        .break_lease(KEY, Some(Duration::from_secs(61)))
        .expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::Config);
}

fn status_follows_the_lease_and_its_etag_does_not(backend: &Backend) {
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    let first = mutex.status(KEY).expect("it exists");
    assert_eq!(first.key(), KEY);
    assert_eq!(
        (first.state(), first.is_infinite()),
        (LeaseState::Leased, false)
    );
    assert!(
        first.etag().starts_with('"') && first.etag().ends_with('"'),
        "{first:?}"
    );
    mutex.renew(&lease).expect("it is held");
    mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    mutex.release(&lease).expect("it answers");
    let last = mutex.status(KEY).expect("it exists");
    assert_eq!(last.state(), LeaseState::Available);
    assert!(last.state().is_free() && !first.state().is_free());
    assert_eq!(last.etag(), first.etag());
    assert_eq!(last.last_modified(), first.last_modified());
    assert!(last.last_modified().is_some());
    backend.account().write_blob(&backend.path(KEY), None);
    assert_ne!(mutex.status(KEY).expect("it exists").etag(), first.etag());
}

fn list_shows_every_lock_with_its_state(backend: &Backend) {
    let mutex = backend.mutex();
    let leased = mutex
        .acquire("b", LeaseDuration::INFINITE)
        .expect("it is free");
    let released = mutex.acquire("a", LeaseDuration::MIN).expect("it is free");
    mutex.release(&released).expect("it is held");
    mutex.acquire("d", LeaseDuration::MAX).expect("it is free");
    mutex.break_lease("d", None).expect("it is leased");
    mutex
        .acquire("c/c", LeaseDuration::MAX)
        .expect("it is free");
    mutex
        .break_lease("c/c", Some(Duration::ZERO))
        .expect("it is leased");
    let listed: Vec<_> = mutex
        .list("")
        .map(|status| status.expect("a page"))
        .collect();
    let states: Vec<_> = listed
        .iter()
        .map(|status| (status.key(), status.state(), status.is_infinite()))
        .collect();
    let wanted = [
        ("a", LeaseState::Available, false),
        ("b", LeaseState::Leased, true),
        ("c/c", LeaseState::Broken, false),
        ("d", LeaseState::Breaking, false),
    ];
    assert_eq!(states, wanted);
    // A blob is described alike in both places.
    assert_eq!(listed[1], mutex.status(leased.key()).expect("it exists"));
}

fn list_of_a_prefix_shows_no_other_locks(backend: &Backend) {
    let mutex = backend.mutex();
    for key in ["jobs/a", "jobs/b", "jobs", "job", "x&y=z/1", "x"] {
        mutex.acquire(key, LeaseDuration::MIN).expect("it is free");
    }
    let keys = |prefix| -> Vec<_> {
        let listed = mutex.list(prefix).map(|status| status.expect("a page"));
        listed.map(|status| status.key().to_owned()).collect()
    };
    assert_eq!(keys("jobs/"), ["jobs/a", "jobs/b"]);
    assert_eq!(keys("x&y=z"), ["x&y=z/1"]);
    assert!(keys("nowhere").is_empty());
}

fn list_of_a_missing_container_fails_once(backend: &Backend) {
    let mutex = backend.mutex();
    let mut locks = mutex.list("");
    let first = locks.next().expect("it tells of the failure");
    fails(first, ErrorKind::NotFound, "ContainerNotFound", 404);
    assert!(locks.next().is_none());
}

fn keys_of_any_characters_are_the_same_lock_everywhere(backend: &Backend) {
    const KEYS: [&str; 12] = [
        "two words",
        "a+b",
        "100%",
        "50%25",
        "a%2Fb",
        "what?x=1&y#z",
        "[x]{y}(z)^|`",
        "a'b\"c<d>&e;f,g=h@i:j$k!l*m",
        "~.-_",
        "größe/straße",
        "日本語/ロック",
        "🔒",
    ];
    let mutex = backend.mutex();
    for key in KEYS {
        let lease = mutex.acquire(key, LeaseDuration::MAX).expect(key);
        let status = mutex.status(key).expect(key);
        assert_eq!((status.key(), status.state()), (key, LeaseState::Leased));
        let again = mutex.acquire(key, LeaseDuration::MAX).expect_err(key);
        assert_eq!(again.kind(), ErrorKind::WouldBlock, "{key}");
        mutex.renew(&lease).expect(key);
        let listed: Vec<_> = mutex.list(key).map(|status| status.expect(key)).collect();
        assert_eq!(listed, [status], "{key}");
    }
    let listed: BTreeSet<_> = mutex
        .list("")
        .map(|status| status.expect("a page").key().to_owned())
        .collect();
    assert_eq!(listed, KEYS.map(str::to_owned).into());
}

fn writes_to_a_leased_blob_need_the_lease_id(backend: &Backend) {
    let guard = locker(backend).lock().expect("it is free");
    let (account, path) = (backend.account(), backend.path(KEY));
    let refused = account.write_blob(&path, None);
    assert_eq!(refused.code.as_deref(), Some("LeaseIdMissing"));
    let id = guard.lease_id().to_string();
    assert_eq!(account.write_blob(&path, Some(&id)).status, 201);
    guard.check().expect("a write keeps the lease");
    let mutex = backend.mutex();
    mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    let refused = account.write_blob(&path, Some(&id));
    // Azurite has another code for it.
    let code = match backend.is_azurite() {
        true => "LeaseNotPresentWithBlobOperation",
        false => "LeaseLost",
    };
    assert_eq!((refused.status, refused.code.as_deref()), (412, Some(code)));
}

fn lock_waits_until_holder_releases(backend: &Backend) {
    let guard = locker(backend).lock().expect("it is free");
    let (observer, events) = Events::new();
    let waiter = elsewhere(backend).observer(observer);
    let waiter = waiter.build().expect("sound");
    thread::scope(|scope| {
        let waiting = scope.spawn(move || waiter.lock().map(|guard| guard.release()));
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        assert!(!waiting.is_finished());
        guard.release().expect("it is held");
        events.wait(|event| matches!(event, Event::Acquired { .. }));
        let released = waiting.join().expect("no panic").expect("it is free now");
        released.expect("it is held");
    });
}

fn try_lock_would_block_while_another_holds(backend: &Backend) {
    let guard = locker(backend).try_lock().expect("it is free");
    would_block(locker(backend).try_lock());
    would_block(locker(backend).try_lock_for(Duration::ZERO));
    let before = Instant::now();
    would_block(locker(backend).try_lock_for(Duration::from_millis(100)));
    assert!(before.elapsed() >= Duration::from_millis(100));
    assert!(before.elapsed() < LONG / 4);
    let before = Instant::now();
    would_block(locker(backend).try_lock_until(before + Duration::from_millis(100)));
    assert!(before.elapsed() >= Duration::from_millis(100));
    drop(guard);
    drop(locker(backend).try_lock().expect("it is free again"));
}

fn try_lock_for_gets_a_lock_that_is_released_in_time(backend: &Backend) {
    let guard = locker(backend).lock().expect("it is free");
    let (observer, events) = Events::new();
    let waiter = elsewhere(backend).observer(observer);
    let waiter = waiter.build().expect("sound");
    thread::scope(|scope| {
        let waiting = scope.spawn(move || waiter.try_lock_for(LONG).map(drop));
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        drop(guard);
        waiting
            .join()
            .expect("no panic")
            .expect("it is free in time");
    });
}

fn try_lock_until_a_past_deadline_makes_one_attempt(backend: &Backend) {
    let guard = locker(backend)
        .try_lock_until(Instant::now())
        .expect("it is free");
    would_block(locker(backend).try_lock_until(Instant::now()));
    drop(guard);
}

fn lock_is_not_reentrant(backend: &Backend) {
    let locker = locker(backend);
    let first = locker.lock().expect("it is free");
    would_block(locker.try_lock());
    drop(first);
    let next = locker
        .clone()
        .try_lock()
        .expect("a locker can be used again");
    drop(next);
}

fn threads_exclude_each_other(backend: &Backend) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 5;
    let mutex = backend.mutex();
    // Read and written in two steps, so that two at a time would lose one.
    let counter = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let locker = Locker::builder(mutex.clone(), KEY)
                .poll_interval(Duration::from_millis(10))
                .build()
                .expect("sound");
            let counter = &counter;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let guard = locker.lock().expect("it becomes free");
                    let before = counter.load(Ordering::Relaxed);
                    for _ in 0..20 {
                        thread::yield_now();
                    }
                    counter.store(before + 1, Ordering::Relaxed);
                    guard.release().expect("it is held");
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), THREADS * ROUNDS);
    assert_eq!(state(&mutex), LeaseState::Available);
}

fn guard_claims_its_lease_until_it_is_released(backend: &Backend) {
    let before = Instant::now();
    let guard = Locker::new(backend.mutex(), KEY)
        .and_then(|l| l.lock())
        .expect("it is free");
    let after = Instant::now();
    assert!(guard.is_held());
    guard.check().expect("it is held");
    // 60 seconds less the margin of 5, from before the acquire was sent.
    let usable = Duration::from_secs(55);
    assert!(guard.remaining() <= usable);
    assert!(guard.remaining() > usable - LONG);
    let slack = Duration::from_millis(50);
    let deadline = guard.deadline();
    assert!(deadline + slack >= before + usable && deadline <= after + usable + slack);
    let watch = guard.watch();
    assert_eq!(watch.lease_id(), guard.lease_id());
    assert!(watch.is_held() && watch.loss_reason().is_none());
    let lease = Lease::new(KEY, guard.lease_id()).expect("the key is sound");
    backend
        .mutex()
        .renew(&lease)
        .expect("the ID is that of the lease");

    guard.release().expect("it is held");
    assert!(!watch.is_held());
    is_lost(watch.check(), LossReason::Released);
    assert_eq!(watch.loss_reason(), Some(LossReason::Released));
    assert_eq!(watch.remaining(), Duration::ZERO);
    assert!(watch.deadline() <= Instant::now());
}

fn guard_renews_in_the_background(backend: &Backend) {
    let (observer, events) = Events::new();
    let locker = builder(backend)
        .renewal_interval(Duration::from_secs(1))
        .observer(observer)
        .build()
        .expect("sound");
    let guard = locker.lock().expect("it is free");
    let first = guard.deadline();
    for _ in 0..3 {
        events.wait(|event| matches!(event, Event::Renewed));
    }
    let gained = guard.deadline().saturating_duration_since(first);
    assert!(gained >= Duration::from_secs(2), "{gained:?}");
    drop(guard);
    events.wait(|event| matches!(event, Event::Released));
    let heard = events.heard();
    assert!(matches!(heard.last(), Some(Event::Released)), "{heard:?}");
}

fn guard_hears_that_its_lease_was_broken(backend: &Backend) {
    for period in [None, Some(Duration::from_secs(5)), Some(Duration::ZERO)] {
        let (guard, events) = renewing(backend);
        backend
            .mutex()
            .break_lease(KEY, period)
            .expect("it is leased");
        let lost = events.wait(|event| matches!(event, Event::Lost { .. }));
        assert!(
            matches!(
                lost,
                Event::Lost {
                    reason: LossReason::Broken,
                    ..
                }
            ),
            "{lost:?}"
        );
        is_lost(guard.check(), LossReason::Broken);
        assert!(!guard.is_held());
        is_lost(guard.release(), LossReason::Broken);
        // Nobody waits for the rest of the break period, which was this guard's.
        let next = locker(backend).try_lock().expect("it is free at once");
        next.release().expect("it is held");
    }
}

fn guard_hears_that_its_blob_was_deleted(backend: &Backend) {
    let (guard, events) = renewing(backend);
    let id = guard.lease_id().to_string();
    let deleted = backend.account().delete_blob(&backend.path(KEY), Some(&id));
    assert_eq!(deleted.status, 202);
    let lost = events.wait(|event| matches!(event, Event::Lost { .. }));
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
    drop(locker(backend).lock().expect("the blob is made again"));
}

/// A guard that is renewed every second and writes nothing, and what its observer hears.
fn renewing(backend: &Backend) -> (azmutex::LeaseGuard, Events) {
    let (observer, events) = Events::new();
    let locker = builder(backend)
        .holder_info(false)
        .renewal_interval(Duration::from_secs(1))
        .observer(observer)
        .build()
        .expect("sound");
    let guard = locker.lock().expect("it is free");
    (guard, events)
}

fn drop_releases(backend: &Backend) {
    let mutex = backend.mutex();
    let guard = locker(backend).lock().expect("it is free");
    assert_eq!(state(&mutex), LeaseState::Leased);
    let watch = guard.watch();
    drop(guard);
    assert_eq!(state(&mutex), LeaseState::Available);
    is_lost(watch.check(), LossReason::Released);
}

fn lock_and_unlock_take_two_requests_on_one_connection(backend: &Backend) {
    let Some(addr) = backend.addr() else {
        return;
    };
    let proxy = FaultProxy::start(addr);
    let mutex = backend
        .options()
        .endpoint(&proxy.endpoint())
        .and_then(AzureMutex::new)
        .expect("the options are sound");
    let direct = backend.mutex();
    let lease = direct.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    direct.release(&lease).expect("it is held");
    for _ in 0..3 {
        let guard = Locker::new(mutex.clone(), KEY)
            .and_then(|l| l.lock())
            .expect("it is free");
        drop(guard);
    }
    let actions: Vec<_> = proxy
        .seen()
        .iter()
        .map(|seen| seen.lease_action().map(str::to_owned))
        .collect();
    let each = [Some("acquire".to_owned()), Some("release".to_owned())];
    assert_eq!(actions, [&each[..]; 3].concat());
    assert_eq!(proxy.connections(), 1);

    let Some(emulator) = backend.embedded() else {
        return;
    };
    let mutex = backend.mutex();
    let (requests, connections) = (emulator.requests(), emulator.connections());
    drop(
        Locker::new(mutex, KEY)
            .and_then(|locker| locker.lock())
            .expect("it is free"),
    );
    assert_eq!(emulator.requests(), requests + 2);
    assert_eq!(emulator.connections(), connections + 1);
}

fn stop_token_ends_waiting_at_once(backend: &Backend) {
    let held = locker(backend).lock().expect("it is free");
    let stop = StopToken::new();
    let (observer, events) = Events::new();
    // The sleep between attempts is far longer than the test may take.
    let waiter = builder(backend)
        .poll_interval(LONG * 10)
        .stop_token(&stop)
        .observer(observer)
        .build()
        .expect("sound");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.lock());
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        let before = Instant::now();
        stop.stop();
        let error = waiting
            .join()
            .expect("no panic")
            .expect_err("it was stopped");
        assert!(
            before.elapsed() < Duration::from_millis(200),
            "{:?}",
            before.elapsed()
        );
        assert_eq!(error.kind(), ErrorKind::Stopped);
    });
    let error = waiter.lock().expect_err("it stays stopped");
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert!(waiter.settle(LONG));
    held.check().expect("a lock that is held is not concerned");
    drop(held);
    let free = locker(backend)
        .try_lock()
        .expect("the waiter left nothing behind");
    drop(free);
}

fn account_sas_is_as_good_as_the_key(backend: &Backend) {
    let mutex = backend.mutex_by_sas(backend.sas());
    let guard = Locker::new(mutex.clone(), KEY)
        .and_then(|l| l.lock())
        .expect("it is made");
    let lease = Lease::new(KEY, guard.lease_id()).expect("the key is sound");
    mutex.renew(&lease).expect("it is held");
    assert_eq!(state(&mutex), LeaseState::Leased);
    assert_eq!(mutex.list("").count(), 1);
    guard.release().expect("it is held");
}

fn service_sas_locks_in_a_container_that_exists(backend: &Backend) {
    let mutex = backend.mutex_by_sas(backend.sas_of_container());
    backend.account().create_container(backend.container());
    let guard = Locker::new(mutex.clone(), KEY)
        .and_then(|l| l.lock())
        .expect("it is made");
    let listed: Result<Vec<_>, _> = mutex.list("nightly/").collect();
    assert_eq!(listed.expect("it may list").len(), 1);
    guard.release().expect("it is held");
}
