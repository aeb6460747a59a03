//! Fencing tokens, and what is known of the holder before.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use azmutex::emulator::{Clock, Emulator};
use azmutex::{
    AzureMutex, ErrorKind, Event, Holder, LeaseDuration, LeaseGuard, LeaseState, Locker,
    LockerBuilder, Previous, StopToken, TryLockError,
};

use crate::support::backend::Backend;
use crate::support::child::{self, Child};
use crate::support::proxy::{Fault, FaultProxy, error_reply, forbidden, internal_error};
use crate::support::{Events, LONG, eventually, on_each_service};

on_each_service! {
    tokens_grow_over_many_locks_by_several_lockers
    tokens_grow_over_many_processes_that_never_overlap
    token_is_none_when_that_is_off
    token_is_the_time_at_first
    token_grows_though_the_clock_runs_behind
    token_grows_after_the_blob_was_deleted
    token_that_is_the_greatest_there_is_ends_it
    token_survives_a_hold_of_the_same_locker_without_a_read
    token_that_cannot_be_stored_fails_the_lock_and_frees_it
    token_that_cannot_be_read_fails_the_lock_and_frees_it
    token_whose_answer_is_lost_is_neither_skipped_nor_repeated
    token_whose_request_is_lost_is_neither_skipped_nor_repeated
    token_that_arrives_late_changes_nothing
    token_refused_by_its_condition_fails_the_lock
    token_that_took_most_of_the_lease_is_followed_by_a_renewal
    token_that_comes_after_the_lease_is_followed_by_one_under_another_lease
    lease_broken_before_its_token_is_stored_is_waited_for_again
    token_that_cannot_be_stored_for_a_while_is_stored_later
    token_that_cannot_be_stored_keeps_a_limited_wait_no_longer
    token_that_cannot_be_stored_after_a_wait_is_what_the_error_tells
    token_that_hangs_is_left_when_waiting_is_stopped
    lock_and_unlock_take_five_requests_with_a_token_and_four_without_a_read
    previous_holder_is_unknown_at_first
    previous_holder_released_or_not
    previous_holder_whose_last_words_are_lost_counts_as_gone
    previous_holder_that_was_killed_left_without_releasing
}

const KEY: &str = "nightly/report";

fn builder(mutex: AzureMutex) -> LockerBuilder {
    Locker::builder(mutex, KEY)
        .lease_duration(Duration::from_secs(15))
        .poll_interval(Duration::from_millis(10))
        .owner("ci@build-07")
        .fencing(true)
}

fn locker(mutex: AzureMutex) -> Locker {
    builder(mutex).build().expect("the settings are sound")
}

#[track_caller]
fn lock(mutex: AzureMutex) -> LeaseGuard {
    locker(mutex).lock().expect("it is free")
}

#[track_caller]
fn token(guard: &LeaseGuard) -> i64 {
    guard.fencing_token().expect("it is on")
}

/// The token in the blob.
#[track_caller]
fn stored(backend: &Backend) -> Option<i64> {
    let status = backend.mutex().status(KEY).expect("the blob exists");
    status.fencing_token()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.expect("it is after 1970").as_millis();
    i64::try_from(millis).expect("it is long before then")
}

/// A time that no clock here shows, so that the next token follows from the last alone.
fn far_ahead() -> i64 {
    now() + 86_400_000
}

/// Makes `token` the last that was handed out.
fn hand_out(backend: &Backend, token: i64) {
    drop(lock(backend.mutex()));
    let token = token.to_string();
    let metadata = [("azmutexfence", token.as_str())];
    let written = backend
        .account()
        .write_metadata(&backend.path(KEY), None, &metadata);
    assert_eq!(written.status, 200);
}

fn owner(holder: Option<&Holder>) -> Option<&str> {
    holder.and_then(Holder::owner)
}

fn tokens_grow_over_many_locks_by_several_lockers(backend: &Backend) {
    let lockers = [0, 1, 2].map(|_| locker(backend.mutex()));
    let mut last = 0;
    for round in 0..30 {
        // Twice in a row and in turns, so that some know the last token and some must read it.
        let guard = lockers[round / 2 % 3].lock().expect("it is free");
        assert!(token(&guard) > last, "{} after {last}", token(&guard));
        last = token(&guard);
        assert_eq!(stored(backend), Some(last));
        drop(guard);
        assert_eq!(stored(backend), Some(last));
    }
}

fn tokens_grow_over_many_processes_that_never_overlap(backend: &Backend) {
    const PROCESSES: usize = 64;
    let log = Log::new(backend);
    // They begin together, once all are there.
    let start = lock(backend.mutex());
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| Child::contend(backend, KEY, &log.0))
        .collect();
    let mut last = token(&start);
    drop(start);
    children.into_iter().for_each(Child::finish);

    let text = fs::read_to_string(&log.0).expect("it is text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2 * PROCESSES * child::ROUNDS);
    for hold in lines.chunks(2) {
        let entered = hold[0].strip_prefix("enter ").expect("nobody is inside");
        assert_eq!(hold[1].strip_prefix("leave "), Some(entered));
        let token = entered.parse().expect("a number");
        assert!(token > last, "{token} after {last}");
        last = token;
    }
    assert_eq!(stored(backend), Some(last));
}

/// A file, gone at the end.
struct Log(PathBuf);

impl Log {
    fn new(backend: &Backend) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = directory.join(format!("{}.log", backend.container()));
        fs::write(&path, "").expect("it can be made");
        Self(path)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn token_is_none_when_that_is_off(backend: &Backend) {
    for _ in 0..2 {
        let locker = Locker::new(backend.mutex(), KEY).expect("the settings are sound");
        let guard = locker.lock().expect("it is free");
        assert_eq!(guard.fencing_token(), None);
        assert_eq!(*guard.previous(), Previous::Unknown);
        assert_eq!(stored(backend), None);
    }
}

fn token_is_the_time_at_first(backend: &Backend) {
    let before = now();
    let guard = lock(backend.mutex());
    // The system's clock may be set meanwhile, which the emulator's does not follow.
    let slack = 1000;
    assert!((before - slack..=now() + slack).contains(&token(&guard)));
    assert_eq!(stored(backend), guard.fencing_token());
}

fn token_grows_though_the_clock_runs_behind(backend: &Backend) {
    let ahead = far_ahead();
    hand_out(backend, ahead);
    for next in 1..=3 {
        assert_eq!(token(&lock(backend.mutex())), ahead + next);
    }
}

fn token_grows_after_the_blob_was_deleted(backend: &Backend) {
    let guard = lock(backend.mutex());
    let last = token(&guard);
    drop(guard);
    let deleted = backend.account().delete_blob(&backend.path(KEY), None);
    assert_eq!(deleted.status, 202);
    // From here on only the clock knows, which tells milliseconds.
    eventually(|| (now() > last).then_some(()));
    backend.pass(Duration::from_millis(1));
    let guard = lock(backend.mutex());
    assert!(token(&guard) > last);
    assert_eq!(*guard.previous(), Previous::Unknown);
}

fn token_that_is_the_greatest_there_is_ends_it(backend: &Backend) {
    hand_out(backend, i64::MAX - 1);
    assert_eq!(token(&lock(backend.mutex())), i64::MAX);
    let error = locker(backend.mutex()).lock().expect_err("none is left");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains("fencing token"), "{error}");
    assert_eq!(stored(backend), Some(i64::MAX));
    is_free(backend);
}

#[track_caller]
fn is_free(backend: &Backend) {
    let status = backend.mutex().status(KEY).expect("the blob exists");
    assert_eq!(status.state(), LeaseState::Available);
    let other = Locker::new(backend.mutex(), KEY).expect("the settings are sound");
    drop(other.try_lock().expect("it is free at once"));
}

/// The next token is stored with what the locker knows, and so must come after all it wrote.
fn token_survives_a_hold_of_the_same_locker_without_a_read(backend: &Backend) {
    let ahead = far_ahead();
    hand_out(backend, ahead);
    let locker = locker(backend.mutex());
    for next in 1..=3 {
        let guard = locker.lock().expect("it is free");
        assert_eq!(token(&guard), ahead + next);
        guard.write(b"value").expect("it is held");
        assert_eq!(stored(backend), Some(ahead + next));
    }
    // Another hands out a token meanwhile.
    assert_eq!(token(&lock(backend.mutex())), ahead + 4);
    let guard = locker.lock().expect("it is free");
    assert_eq!(token(&guard), ahead + 5);
}

/// Locks through a proxy that does `fault` to every such request, which fails.
fn fails_when(backend: &Backend, operation: &'static str, kinds: &[(Fault, ErrorKind)]) {
    let ahead = far_ahead();
    hand_out(backend, ahead);
    for (fault, kind) in kinds {
        let Some((proxy, mutex)) = backend.through_proxy_within(Duration::from_secs(1)) else {
            return;
        };
        proxy.always_when(
            move |request| request.operation() == operation,
            fault.clone(),
        );
        let locker = builder(mutex).fault_wait(Duration::from_secs(1));
        let locker = locker.build().expect("the settings are sound");
        let error = locker.lock().expect_err("there is no token");
        // Of a failure that is tried again, the last try may be cut short.
        let cut = *kind == ErrorKind::Service && error.kind() == ErrorKind::Transport;
        assert!(error.kind() == *kind || cut, "{fault:?}: {error}");
        assert!(locker.settle(LONG));
        assert_eq!(stored(backend), Some(ahead));
        is_free(backend);
        let found = proxy.seen().last().map(|seen| seen.operation().to_owned());
        assert_eq!(found.as_deref(), Some("release"));
        hand_out(backend, ahead);
    }
}

fn token_that_cannot_be_stored_fails_the_lock_and_frees_it(backend: &Backend) {
    let denied = forbidden("AuthorizationPermissionMismatch");
    let kinds = [
        (Fault::Answer(internal_error()), ErrorKind::Service),
        (Fault::Answer(denied), ErrorKind::Auth),
        (Fault::HangBefore, ErrorKind::Transport),
        (Fault::DropBefore, ErrorKind::Transport),
    ];
    fails_when(backend, "put metadata", &kinds);
}

fn token_that_cannot_be_read_fails_the_lock_and_frees_it(backend: &Backend) {
    let denied = forbidden("AuthorizationPermissionMismatch");
    let kinds = [
        (Fault::Answer(internal_error()), ErrorKind::Service),
        (Fault::Answer(denied), ErrorKind::Auth),
        (Fault::HangBefore, ErrorKind::Transport),
    ];
    fails_when(backend, "get properties", &kinds);
}

/// Locks through a proxy that does `fault` to the first write of a token, by a locker that has to
/// read the last one and by one that knows it.
fn token_comes_through(backend: &Backend, fault: &Fault) {
    let Some((proxy, mutex)) = backend.through_proxy_within(fault.patience()) else {
        return;
    };
    let ahead = far_ahead();
    hand_out(backend, ahead);
    // What is read is not what was written: it is cut, and to the second.
    let locker = builder(mutex)
        .owner("鍵".repeat(500))
        .reason(" a reason ")
        .build()
        .expect("sound");
    for next in 1..=2 {
        if next == 1 || !fault.hangs() {
            proxy.when(
                |request| request.operation() == "put metadata",
                fault.clone(),
            );
        }
        let guard = locker.lock();
        let guard = guard.unwrap_or_else(|error| panic!("{fault:?}: {error}, {:#?}", proxy.seen()));
        assert_eq!(token(&guard), ahead + next, "{fault:?}");
        assert_eq!(stored(backend), Some(ahead + next), "{fault:?}");
        guard.check().expect("it is held");
        drop(guard);
        assert_eq!(stored(backend), Some(ahead + next), "{fault:?}");
    }
    let guard = lock(backend.mutex());
    assert_eq!(token(&guard), ahead + 3);
    assert!(matches!(guard.previous(), Previous::Released(_)));
}

fn token_whose_answer_is_lost_is_neither_skipped_nor_repeated(backend: &Backend) {
    for fault in [
        Fault::DropAfter,
        Fault::ResetAfter,
        Fault::HangAfter,
        Fault::Truncate(30),
        Fault::AnswerAfter(internal_error()),
    ] {
        token_comes_through(backend, &fault);
    }
}

fn token_whose_request_is_lost_is_neither_skipped_nor_repeated(backend: &Backend) {
    for fault in [
        Fault::DropBefore,
        Fault::ResetBefore,
        Fault::HangBefore,
        Fault::Answer(internal_error()),
    ] {
        token_comes_through(backend, &fault);
    }
}

fn token_that_arrives_late_changes_nothing(backend: &Backend) {
    let Some((proxy, mutex)) = backend.through_proxy() else {
        return;
    };
    let ahead = far_ahead();
    hand_out(backend, ahead);
    proxy.when(
        |request| request.operation() == "put metadata",
        Fault::Defer,
    );
    let guard = lock(mutex);
    assert_eq!(token(&guard), ahead + 1);
    guard.write(b"value").expect("it is held");
    let etag = backend.mutex().status(KEY).expect("it exists");
    let answers: Vec<_> = proxy.deliver_late().iter().map(|a| a.status).collect();
    assert_eq!(answers, [412]);
    assert_eq!(backend.mutex().status(KEY).expect("it exists"), etag);
    guard.check().expect("it is held");
}

fn token_refused_by_its_condition_fails_the_lock(backend: &Backend) {
    let Some((proxy, mutex)) = backend.through_proxy() else {
        return;
    };
    let ahead = far_ahead();
    hand_out(backend, ahead);
    let refused = error_reply(412, "ConditionNotMet", "The condition is not met.", &[]);
    proxy.when(
        |request| request.operation() == "put metadata",
        Fault::Answer(refused),
    );
    let error = locker(mutex).lock().expect_err("somebody else wrote");
    assert_eq!(error.service_code(), Some("ConditionNotMet"), "{error}");
    assert_eq!(stored(backend), Some(ahead));
    is_free(backend);
}

/// Locks, and does something while the write of the token is held up.
fn held_up(backend: &Backend, meanwhile: impl FnOnce()) -> Option<(FaultProxy, LeaseGuard)> {
    drop(lock(backend.mutex()));
    let (proxy, mutex) = backend.through_proxy()?;
    proxy.when(|request| request.operation() == "put metadata", Fault::Hold);
    let guard = thread::scope(|scope| {
        let locking = scope.spawn(|| lock(mutex));
        proxy.wait_for(1, |seen| seen.operation() == "put metadata", LONG);
        meanwhile();
        proxy.release_held();
        locking.join().expect("no panic")
    });
    Some((proxy, guard))
}

fn operations(proxy: &FaultProxy) -> Vec<String> {
    let seen = proxy.seen();
    seen.iter()
        .map(|seen| seen.operation().to_owned())
        .collect()
}

fn token_that_took_most_of_the_lease_is_followed_by_a_renewal(backend: &Backend) {
    if !backend.can_pass() {
        return;
    }
    let pass = || backend.pass(Duration::from_secs(14));
    let Some((proxy, guard)) = held_up(backend, pass) else {
        return;
    };
    assert!(guard.is_held());
    assert!(guard.remaining() > Duration::from_secs(10));
    let wanted = ["acquire", "get properties", "put metadata", "renew"];
    assert_eq!(operations(&proxy), wanted);
}

fn token_that_comes_after_the_lease_is_followed_by_one_under_another_lease(backend: &Backend) {
    if !backend.can_pass() {
        return;
    }
    let (mut first, pass) = (None, || backend.pass(Duration::from_secs(15)));
    let Some((proxy, guard)) = held_up(backend, || {
        first = stored(backend);
        pass();
    }) else {
        return;
    };
    guard.check().expect("it is held");
    assert!(guard.fencing_token() > first);
    assert_eq!(stored(backend), guard.fencing_token());
    let acquires = operations(&proxy)
        .iter()
        .filter(|operation| *operation == "acquire")
        .count();
    assert_eq!(acquires, 2, "{:?}", operations(&proxy));
    guard.release().expect("it is held");
    is_free(backend);
}

/// Nobody had the lock yet, so nobody has lost it.
fn lease_broken_before_its_token_is_stored_is_waited_for_again(backend: &Backend) {
    let direct = backend.mutex();
    let meanwhile = || {
        let left = direct.break_lease(KEY, Some(Duration::ZERO));
        assert_eq!(left.expect("it is leased"), Duration::ZERO);
    };
    let Some((proxy, guard)) = held_up(backend, meanwhile) else {
        return;
    };
    guard.check().expect("it is held");
    assert_eq!(stored(backend), guard.fencing_token());
    let ids: BTreeSet<_> = proxy
        .seen()
        .iter()
        .filter_map(|seen| seen.header("x-ms-proposed-lease-id").map(str::to_owned))
        .collect();
    assert!(ids.contains(&guard.lease_id().to_string()));
    assert_eq!(ids.len(), 2, "an ID is used for one lease");
    guard.release().expect("it is held");
    is_free(backend);
}

/// As long as the lease is renewed meanwhile, and a limited wait has not ended.
fn token_that_cannot_be_stored_for_a_while_is_stored_later(backend: &Backend) {
    for operation in ["get properties", "put metadata"] {
        let ahead = far_ahead();
        hand_out(backend, ahead);
        let Some((proxy, mutex)) = backend.through_proxy_within(Duration::from_secs(1)) else {
            return;
        };
        proxy.always_when(
            move |request| request.operation() == operation,
            Fault::DropBefore,
        );
        let guard = thread::scope(|scope| {
            let locking = scope.spawn(|| lock(mutex));
            // More often than within the request timeout.
            proxy.wait_for(10, |seen| seen.operation() == operation, LONG);
            proxy.clear();
            locking.join().expect("no panic")
        });
        assert_eq!(token(&guard), ahead + 1);
    }
}

fn token_that_cannot_be_stored_keeps_a_limited_wait_no_longer(backend: &Backend) {
    let ahead = far_ahead();
    hand_out(backend, ahead);
    for fault in [
        Fault::HangBefore,
        Fault::DropBefore,
        Fault::Answer(internal_error()),
    ] {
        let Some((proxy, mutex)) = backend.through_proxy() else {
            return;
        };
        proxy.always_when(
            |request| request.operation() == "put metadata",
            fault.clone(),
        );
        let locker = locker(mutex);
        let before = Instant::now();
        let result = locker.try_lock_for(Duration::from_millis(500));
        let took = before.elapsed();
        let Err(TryLockError::Error(error)) = result else {
            panic!("{fault:?}: {result:?}");
        };
        assert!(took < Duration::from_secs(2), "{took:?} of {error}");
        proxy.clear();
        proxy.release_hung();
        assert!(locker.settle(LONG), "{fault:?}");
        is_free(backend);
    }
}

/// And not that another client holds the lock, as one did before.
fn token_that_cannot_be_stored_after_a_wait_is_what_the_error_tells(backend: &Backend) {
    hand_out(backend, far_ahead());
    for (fault, kind) in [
        (Fault::Answer(internal_error()), ErrorKind::Service),
        (Fault::HangBefore, ErrorKind::Transport),
    ] {
        let Some((proxy, mutex)) = backend.through_proxy() else {
            return;
        };
        proxy.always_when(
            |request| request.operation() == "put metadata",
            fault.clone(),
        );
        let (observer, events) = Events::new();
        let locker = builder(mutex).observer(observer).build().expect("sound");
        let direct = backend.mutex();
        let held = direct.acquire(KEY, LeaseDuration::MAX).expect("it is free");
        let result = thread::scope(|scope| {
            let waiting = scope.spawn(|| locker.try_lock_for(Duration::from_secs(1)));
            events.wait(|event| matches!(event, Event::Waiting { .. }));
            direct.release(&held).expect("it is held");
            waiting.join().expect("no panic")
        });
        let Err(TryLockError::Error(error)) = result else {
            panic!("{fault:?}: {result:?}");
        };
        assert_eq!(error.kind(), kind, "{error}");
        proxy.clear();
        proxy.release_hung();
        assert!(locker.settle(LONG), "{fault:?}");
    }
}

fn token_that_hangs_is_left_when_waiting_is_stopped(backend: &Backend) {
    drop(lock(backend.mutex()));
    let Some((proxy, mutex)) = backend.through_proxy_within(Duration::from_secs(1)) else {
        return;
    };
    proxy.always_when(
        |request| request.operation() == "put metadata",
        Fault::HangBefore,
    );
    let stop = StopToken::new();
    let locker = builder(mutex).stop_token(&stop).build().expect("sound");
    let error = thread::scope(|scope| {
        let locking = scope.spawn(|| locker.lock());
        proxy.wait_for(1, |seen| seen.operation() == "put metadata", LONG);
        stop.stop();
        locking
            .join()
            .expect("no panic")
            .expect_err("it is stopped")
    });
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    assert!(locker.settle(LONG));
    is_free(backend);
}

fn lock_and_unlock_take_five_requests_with_a_token_and_four_without_a_read(backend: &Backend) {
    let Some((proxy, mutex)) = backend.through_proxy() else {
        return;
    };
    drop(lock(backend.mutex()));
    let locker = locker(mutex);
    let mut done = 0;
    let mut operations = |of: &dyn Fn()| {
        of();
        let seen = proxy.seen();
        let new: Vec<_> = seen[done..]
            .iter()
            .map(|seen| seen.operation().to_owned())
            .collect();
        done = seen.len();
        new
    };
    let once = || drop(locker.lock().expect("it is free"));
    let read = [
        "acquire",
        "get properties",
        "put metadata",
        "put metadata",
        "release",
    ];
    let known = ["acquire", "put metadata", "put metadata", "release"];
    assert_eq!(operations(&once), read);
    assert_eq!(operations(&once), known);
    assert_eq!(operations(&once), known);
    drop(lock(backend.mutex()));
    assert_eq!(operations(&once), read);
    assert_eq!(operations(&once), known);
}

fn previous_holder_is_unknown_at_first(backend: &Backend) {
    let guard = lock(backend.mutex());
    assert_eq!(*guard.previous(), Previous::Unknown);
    assert_eq!(guard.previous().holder(), None);
    assert!(!guard.previous().is_abandoned());
}

fn previous_holder_released_or_not(backend: &Backend) {
    let known = locker(backend.mutex());
    for other in [locker(backend.mutex()), known.clone()] {
        drop(known.lock().expect("it is free"));
        let guard = other.lock().expect("it is free");
        assert!(
            matches!(guard.previous(), Previous::Released(_)),
            "{:?}",
            guard.previous()
        );
        assert_eq!(owner(guard.previous().holder()), Some("ci@build-07"));
        drop(guard);

        let broken = known.lock().expect("it is free");
        backend
            .mutex()
            .break_lease(KEY, Some(Duration::ZERO))
            .expect("it is leased");
        let guard = other.lock().expect("it is broken");
        assert!(guard.previous().is_abandoned(), "{:?}", guard.previous());
        assert_eq!(owner(guard.previous().holder()), Some("ci@build-07"));
        drop(broken);
        drop(guard);
    }
}

fn previous_holder_whose_last_words_are_lost_counts_as_gone(backend: &Backend) {
    let Some((proxy, mutex)) = backend.through_proxy() else {
        return;
    };
    let guard = lock(mutex);
    proxy.when(
        |request| request.operation() == "put metadata",
        Fault::Answer(internal_error()),
    );
    drop(guard);
    assert!(lock(backend.mutex()).previous().is_abandoned());
    assert!(!lock(backend.mutex()).previous().is_abandoned());
}

fn previous_holder_that_was_killed_left_without_releasing(backend: &Backend) {
    let child = Child::hold(backend, KEY);
    let (theirs, pid) = (child.token(), child.id());
    child.kill();
    if backend.can_pass() {
        backend.pass(Duration::from_secs(15));
    } else {
        // Instead of the wait for its end.
        backend
            .mutex()
            .break_lease(KEY, Some(Duration::ZERO))
            .expect("it is leased");
    }
    let guard = lock(backend.mutex());
    let previous = guard.previous();
    assert!(previous.is_abandoned(), "{previous:?}");
    assert_eq!(owner(previous.holder()), Some(child::OWNER));
    assert_eq!(previous.holder().and_then(Holder::pid), Some(pid));
    assert!(token(&guard) > theirs);
}

#[test]
fn token_that_stays_within_its_millisecond_takes_no_more_requests() {
    let emulator = Emulator::builder().clock(Clock::frozen()).start();
    let emulator = emulator.expect("the emulator starts");
    let options = emulator.options("locks").expect("a container name");
    let mutex = AzureMutex::new(options).expect("the options are well-formed");
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is made");
    mutex.release(&lease).expect("it is held");

    let locker = locker(mutex);
    let mut tokens = BTreeSet::new();
    for requests in [5, 4, 4] {
        let before = emulator.requests();
        let guard = locker.lock().expect("it is free");
        assert!(tokens.last() < Some(&token(&guard)));
        tokens.insert(token(&guard));
        drop(guard);
        assert_eq!(emulator.requests() - before, requests);
    }
    // One more each, since time stands still.
    assert_eq!(
        tokens.last().zip(tokens.first()).map(|(l, f)| l - f),
        Some(2)
    );
}
