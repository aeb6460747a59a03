//! Who holds a lock: written into its blob, and shown by status and list.

use std::process;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use azmutex::emulator::{Clock, Emulator};
use azmutex::{
    AzureMutex, Event, Holder, LeaseDuration, LeaseGuard, LeaseState, LeaseStatus, Locker,
    LockerBuilder, LossReason, Previous,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, Seen, forbidden, internal_error};
use crate::support::{Events, LONG, eventually, on_each_service};

on_each_service! {
    status_shows_the_holder_until_it_releases
    list_shows_what_status_shows
    holder_is_shown_in_every_state_that_is_not_free
    holder_of_a_moment_is_none_after_one_that_wrote_that_it_released
    state_tells_how_the_last_lease_ended
    record_that_contradicts_the_lease_is_not_its_holders
    lock_of_terraform_shows_who_holds_it
    metadata_of_others_that_fills_the_blob_fails_no_lock
    holder_before_is_shown_until_the_next_has_written
    holder_of_a_broken_lease_is_replaced_by_the_next
    holder_with_any_text_is_shown_as_it_was_set
    holder_with_long_texts_is_cut
    holder_is_not_written_when_that_is_off
    holder_that_says_nothing_does_not_speak_for_another
    metadata_of_others_does_no_harm
    hold_takes_three_requests_once_its_holder_is_written_and_one_more_to_read_what_others_wrote
    failed_write_leaves_a_lock_that_works
    failed_write_is_tried_again
    failed_write_holds_up_no_release
    write_that_hangs_keeps_no_limited_wait_from_the_lock
}

const KEY: &str = "nightly/report";
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A locker that writes who it is before `lock` returns.
fn builder(mutex: AzureMutex) -> LockerBuilder {
    Locker::builder(mutex, KEY)
        .lease_duration(Duration::from_secs(15))
        .poll_interval(Duration::from_millis(10))
        .holder_delay(Duration::ZERO)
        .owner("ci@build-07")
        .reason("release 812")
}

#[track_caller]
fn lock(builder: LockerBuilder) -> LeaseGuard {
    let locker = builder.build().expect("the settings are sound");
    locker.lock().expect("it is free")
}

#[track_caller]
fn status(mutex: &AzureMutex) -> LeaseStatus {
    mutex.status(KEY).expect("the blob exists")
}

fn owner(holder: Option<&Holder>) -> Option<&str> {
    holder.and_then(Holder::owner)
}

fn status_shows_the_holder_until_it_releases(backend: &Backend) {
    let mutex = backend.mutex();
    let before = SystemTime::now();
    // Before `lock` returns, so that there is nothing to wait for.
    let guard = lock(builder(backend.mutex()));
    let held = status(&mutex);
    assert_eq!(
        (held.state(), held.is_infinite()),
        (LeaseState::Leased, false)
    );
    let holder = held.holder().expect("it is written");
    assert_eq!(holder.owner(), Some("ci@build-07"));
    assert_eq!(holder.reason(), Some("release 812"));
    assert_eq!(holder.pid(), Some(process::id()));
    assert_eq!(holder.lease_duration(), Some(Duration::from_secs(15)));
    assert_eq!(holder.version(), Some(env!("CARGO_PKG_VERSION")));
    // To the second, and the system's clock may be set meanwhile.
    let since = holder.since().expect("it is written");
    let slack = Duration::from_secs(2);
    assert!(since + slack > before && since < SystemTime::now() + slack);
    assert!(!holder.released());
    assert_eq!(held.last_holder(), Some(holder));
    assert_eq!(held.fencing_token(), None);

    guard.release().expect("it is held");
    let free = status(&mutex);
    assert_eq!((free.state(), free.holder()), (LeaseState::Available, None));
    // The service says that it was released, so nothing is written for that.
    assert_eq!(free.last_holder(), Some(holder));
    assert_eq!(free.etag(), held.etag());
}

fn list_shows_what_status_shows(backend: &Backend) {
    let mutex = backend.mutex();
    let listed = || {
        let listed: Result<Vec<_>, _> = mutex.list("").collect();
        listed.expect("a page")
    };
    let guard = lock(builder(backend.mutex()).fencing(true));
    assert_eq!(listed(), [status(&mutex)]);
    assert_eq!(owner(listed()[0].holder()), Some("ci@build-07"));
    assert_eq!(listed()[0].fencing_token(), guard.fencing_token());
    drop(guard);
    assert_eq!(listed(), [status(&mutex)]);
    assert!(listed()[0].last_holder().is_some_and(Holder::released));
}

fn holder_is_shown_in_every_state_that_is_not_free(backend: &Backend) {
    let mutex = backend.mutex();
    let shown = |state, held: bool| {
        let status = status(&mutex);
        assert_eq!(status.state(), state);
        let holder = held.then_some("ci@build-07");
        assert_eq!(owner(status.holder()), holder, "{status:?}");
        assert_eq!(owner(status.last_holder()), Some("ci@build-07"));
        assert!(!status.last_holder().is_some_and(Holder::released));
    };
    let guard = lock(builder(backend.mutex()));
    shown(LeaseState::Leased, true);
    mutex.break_lease(KEY, None).expect("it is leased");
    shown(LeaseState::Breaking, true);
    mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is breaking");
    shown(LeaseState::Broken, false);
    drop(guard);

    if backend.can_pass() {
        let guard = lock(builder(backend.mutex()).max_hold(Duration::from_secs(1)));
        shown(LeaseState::Leased, true);
        backend.pass(Duration::from_secs(15));
        shown(LeaseState::Expired, false);
        drop(guard);
    }
}

/// Nothing is written before the holder is due, so that a short hold costs no extra request: until
/// then it cannot be told from the one before.
fn holder_before_is_shown_until_the_next_has_written(backend: &Backend) {
    let mutex = backend.mutex();
    drop(lock(builder(backend.mutex())));
    let guard = lock(builder(backend.mutex()).owner("next").holder_delay(NEVER));
    let held = status(&mutex);
    assert_eq!(held.state(), LeaseState::Leased);
    assert_eq!(owner(held.holder()), Some("ci@build-07"));
    drop(guard);
    let guard = lock(builder(backend.mutex()).owner("next"));
    assert_eq!(owner(status(&mutex).holder()), Some("next"));
    drop(guard);
    assert_eq!(owner(status(&mutex).last_holder()), Some("next"));
}

fn holder_of_a_moment_is_none_after_one_that_wrote_that_it_released(backend: &Backend) {
    let mutex = backend.mutex();
    drop(lock(builder(backend.mutex()).fencing(true)));
    let guard = lock(builder(backend.mutex()).owner("next").holder_delay(NEVER));
    let held = status(&mutex);
    assert_eq!((held.state(), held.holder()), (LeaseState::Leased, None));
    assert_eq!(owner(held.last_holder()), Some("ci@build-07"));
    drop(guard);
}

fn state_tells_how_the_last_lease_ended(backend: &Backend) {
    let mutex = backend.mutex();
    let ended = |state| {
        let free = status(&mutex);
        assert_eq!((free.state(), free.holder()), (state, None));
        assert_eq!(owner(free.last_holder()), Some("ci@build-07"));
        assert!(!free.last_holder().is_some_and(Holder::released));
    };
    drop(lock(builder(backend.mutex())));
    ended(LeaseState::Available);
    let broken = lock(builder(backend.mutex()));
    mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    ended(LeaseState::Broken);
    drop(broken);
    if backend.can_pass() {
        mutex
            .acquire(KEY, LeaseDuration::MIN)
            .expect("it is broken");
        backend.pass(Duration::from_secs(15));
        ended(LeaseState::Expired);
    }
}

fn record_that_contradicts_the_lease_is_not_its_holders(backend: &Backend) {
    let mutex = backend.mutex();
    drop(lock(builder(backend.mutex())));
    for (duration, holder) in [
        (LeaseDuration::INFINITE, None),
        (LeaseDuration::MIN, Some("ci@build-07")),
    ] {
        let lease = mutex.acquire(KEY, duration).expect("it is free");
        let held = status(&mutex);
        assert_eq!(owner(held.holder()), holder, "{duration:?}");
        assert_eq!(owner(held.last_holder()), Some("ci@build-07"));
        let listed: Result<Vec<_>, _> = mutex.list(KEY).collect();
        assert_eq!(listed.expect("a page"), [held]);
        mutex.release(&lease).expect("it is held");
    }
}

fn lock_of_terraform_shows_who_holds_it(backend: &Backend) {
    let (mutex, path) = (backend.mutex(), backend.path(KEY));
    let lease = mutex
        .acquire(KEY, LeaseDuration::INFINITE)
        .expect("it is new");
    let json = STANDARD.encode(
        r#"{"ID":"2b6a6738","Operation":"OperationTypeApply","Info":"","Who":"bob@ws",
        "Version":"1.9.5","Created":"2026-01-07T10:02:11.123456789Z","Path":"locks/nightly"}"#,
    );
    let theirs = [("terraformlockid", json.as_str())];
    let id = lease.id().to_string();
    let written = backend.account().write_metadata(&path, Some(&id), &theirs);
    assert_eq!(written.status, 200);
    let held = status(&mutex);
    let holder = held.holder().expect("it says who it is");
    assert_eq!(holder.to_string(), "bob@ws (reason: OperationTypeApply)");
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_780_131);
    assert_eq!(holder.since(), Some(since));
    let listed: Result<Vec<_>, _> = mutex.list(KEY).collect();
    assert_eq!(listed.expect("a page"), [held]);
    mutex.release(&lease).expect("it is held");
    assert_eq!(status(&mutex).holder(), None);
    // Whoever takes the lock meanwhile leaves it there.
    drop(lock(builder(backend.mutex())));
    let kept = backend.account().metadata(&path);
    assert_eq!(kept.get("terraformlockid"), Some(&json));
}

fn metadata_of_others_that_fills_the_blob_fails_no_lock(backend: &Backend) {
    let (mutex, path) = (backend.mutex(), backend.path(KEY));
    drop(lock(builder(backend.mutex()).fencing(true)));
    for sizes in [vec![8180], vec![8000], vec![100; 80], vec![1300; 6]] {
        let values: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| (format!("their{n:03}"), "x".repeat(size - 8)))
            .collect();
        let theirs: Vec<_> = values.iter().map(|(n, v)| (&**n, &**v)).collect();
        let account = backend.account();
        assert_eq!(account.write_metadata(&path, None, &theirs).status, 200);
        let mut last = None;
        for fencing in [true, false, true] {
            let (observer, events) = Events::new();
            let locker = builder(backend.mutex()).fencing(fencing).observer(observer);
            let guard = lock(locker);
            assert!(status(&mutex).holder().is_some(), "{sizes:?}");
            let token = status(&mutex).fencing_token();
            assert!(token.is_some() && token >= last, "{sizes:?}");
            last = token;
            guard.write(b"value").expect("it is held");
            guard.release().expect("it is held");
            let failed = |event: &Event| matches!(event, Event::RecordFailed { .. });
            assert!(!events.so_far().iter().any(failed), "{sizes:?}");
        }
        let kept = account.metadata(&path);
        let theirs = kept.keys().filter(|name| name.starts_with("their"));
        // Nothing of theirs is lost while there is something of ours to leave out.
        let lost = usize::from(sizes == [8180]);
        assert_eq!(theirs.count(), sizes.len() - lost, "{sizes:?}");
    }
}

fn holder_of_a_broken_lease_is_replaced_by_the_next(backend: &Backend) {
    let mutex = backend.mutex();
    for next in [
        builder(backend.mutex()).owner("next"),
        builder(backend.mutex())
            .owner("next")
            .holder_delay(NEVER)
            .fencing(true),
    ] {
        let guard = lock(builder(backend.mutex()));
        mutex
            .break_lease(KEY, Some(Duration::ZERO))
            .expect("it is leased");
        let next = lock(next);
        assert_eq!(owner(status(&mutex).holder()), Some("next"));
        // Who comes late does not mark the other's record.
        drop(guard);
        assert_eq!(owner(status(&mutex).holder()), Some("next"));
        drop(next);
    }
}

fn holder_with_any_text_is_shown_as_it_was_set(backend: &Backend) {
    let mutex = backend.mutex();
    for text in [
        "Jürgen@büro",
        "鍵@ホスト 🔒",
        "100 %, a%20b; c=d&e \"f\" <g>",
        "two  spaces",
        "العربية",
        "~",
    ] {
        let guard = lock(builder(backend.mutex()).owner(text).reason(text));
        let held = status(&mutex);
        let holder = held.holder().expect("it is written");
        assert_eq!((holder.owner(), holder.reason()), (Some(text), Some(text)));
        let listed: Result<Vec<_>, _> = mutex.list(KEY).collect();
        assert_eq!(listed.expect("a page"), [held]);
        drop(guard);
    }
    // Nothing that ends a header or steers a terminal comes through.
    let guard = lock(builder(backend.mutex()).owner("a\r\nx-ms-evil: 1\u{1b}[2J"));
    let shown = owner(status(&mutex).holder()).map(str::to_owned);
    assert_eq!(shown.as_deref(), Some("a  x-ms-evil: 1 [2J"));
    drop(guard);
}

fn holder_with_long_texts_is_cut(backend: &Backend) {
    let (observer, events) = Events::new();
    let locker = builder(backend.mutex())
        .owner("鍵".repeat(5000))
        .reason("x".repeat(100_000))
        .observer(observer);
    let guard = lock(locker);
    let held = status(&backend.mutex());
    let holder = held.holder().expect("it is written");
    let (shown, reason) = (holder.owner().expect("a part"), holder.reason());
    assert!(!shown.is_empty() && "鍵".repeat(5000).starts_with(shown));
    assert!(reason.is_some_and(|reason| (500..=1024).contains(&reason.len())));
    let failed = |event: &Event| matches!(event, Event::RecordFailed { .. });
    assert!(!events.so_far().iter().any(failed));
    drop(guard);
}

fn holder_is_not_written_when_that_is_off(backend: &Backend) {
    let mutex = backend.mutex();
    drop(lock(builder(backend.mutex()).holder_info(false)));
    assert_eq!(status(&mutex).last_holder(), None);

    // With a token what says how the hold ended is written, and no name.
    let guard = lock(builder(backend.mutex()).holder_info(false).fencing(true));
    let held = status(&mutex);
    let holder = held.holder().expect("that there is one is written");
    assert_eq!((holder.owner(), holder.reason()), (None, None));
    assert_eq!(holder.pid(), None);
    drop(guard);
    let next = lock(builder(backend.mutex()).holder_info(false).fencing(true));
    assert!(matches!(next.previous(), Previous::Released(_)));
}

fn holder_that_says_nothing_does_not_speak_for_another(backend: &Backend) {
    let mutex = backend.mutex();
    let broken = lock(builder(backend.mutex()));
    mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    let silent = lock(builder(backend.mutex()).holder_info(false));
    silent.write(b"value").expect("it is held");
    silent.release().expect("it is held");
    let last = status(&mutex);
    assert_eq!(owner(last.last_holder()), Some("ci@build-07"));
    assert!(!last.last_holder().is_some_and(Holder::released));
    drop(broken);
}

fn metadata_of_others_does_no_harm(backend: &Backend) {
    let (mutex, account) = (backend.mutex(), backend.account());
    drop(lock(builder(backend.mutex())));
    let theirs = [
        ("azmutexstate", "resting"),
        ("azmutexowner", "%ff%1b%5B2J%zz"),
        ("azmutexpid", "many"),
        ("azmutexsince", "soon"),
        ("azmutexlease", "-1"),
        ("azmutexversion", "99.0.0"),
        ("azmutexfence", "0x17"),
        ("azmutexcolour", "blue"),
        ("team", "platform"),
    ];
    let path = backend.path(KEY);
    assert_eq!(account.write_metadata(&path, None, &theirs).status, 200);

    let free = status(&mutex);
    let last = free.last_holder().expect("it has a state");
    assert_eq!(last.version(), Some("99.0.0"));
    assert_eq!((last.pid(), last.since()), (None, None));
    assert_eq!((last.lease_duration(), free.fencing_token()), (None, None));
    let listed: Result<Vec<_>, _> = mutex.list("").collect();
    assert_eq!(listed.expect("a page"), [free]);

    // Who reads before it writes keeps what it does not know.
    let guard = lock(builder(backend.mutex()).fencing(true));
    assert!(guard.previous().is_abandoned());
    assert_eq!(owner(status(&mutex).holder()), Some("ci@build-07"));
    drop(guard);
    let kept = account.metadata(&path);
    for name in ["azmutexcolour", "team"] {
        assert!(kept.contains_key(name), "{kept:?}");
    }
    // So does one without fencing, and it erases no token.
    let token = status(&mutex).fencing_token();
    drop(lock(builder(backend.mutex()).owner("next")));
    let free = status(&mutex);
    assert_eq!(owner(free.last_holder()), Some("next"));
    assert!(token.is_some() && free.fencing_token() == token);
    assert_eq!(account.metadata(&path)["team"], "platform");
}

fn hold_takes_three_requests_once_its_holder_is_written_and_one_more_to_read_what_others_wrote(
    backend: &Backend,
) {
    let Some((proxy, mutex)) = backend.through_proxy() else {
        return;
    };
    drop(lock(builder(backend.mutex()).holder_info(false)));
    let locker = builder(mutex).holder_delay(Duration::from_millis(1));
    let locker = locker.build().expect("the settings are sound");
    let hold = |seen: usize| {
        let guard = locker.lock().expect("it is free");
        let written = |seen: &Seen| seen.operation() == "put metadata" && seen.answered.is_some();
        proxy.wait_for(seen, written, LONG);
        drop(guard);
    };
    let read = ["acquire", "get properties", "put metadata", "release"];
    let known = ["acquire", "put metadata", "release"];
    hold(1);
    hold(2);
    // Somebody else's is read again.
    drop(lock(builder(backend.mutex())));
    hold(3);
    let operations: Vec<_> = proxy
        .seen()
        .iter()
        .map(|seen| seen.operation().to_owned())
        .collect();
    assert_eq!(operations, [&read[..], &known, &read].concat());
}

/// What a write of metadata can come to that is no success.
fn faults() -> [Fault; 6] {
    [
        Fault::Answer(internal_error()),
        Fault::Answer(forbidden("AuthorizationPermissionMismatch")),
        Fault::HangBefore,
        Fault::HangAfter,
        Fault::DropBefore,
        Fault::DropAfter,
    ]
}

fn failed_write_leaves_a_lock_that_works(backend: &Backend) {
    let direct = backend.mutex();
    for (delay, fault) in [Duration::ZERO, Duration::from_millis(1)]
        .iter()
        .flat_map(|delay| faults().map(|fault| (*delay, fault)))
    {
        let Some((proxy, mutex)) = backend.through_proxy_within(Duration::from_millis(400)) else {
            return;
        };
        proxy.always_when(
            |request| request.operation() == "put metadata",
            fault.clone(),
        );
        let (observer, events) = Events::new();
        let locker = builder(mutex)
            .holder_delay(delay)
            .release_timeout(Duration::from_millis(400))
            .observer(observer);
        let guard = lock(locker);
        events.wait(|event| matches!(event, Event::RecordFailed { .. }));
        guard.check().expect("the lock is not concerned");
        assert!(guard.is_held(), "{fault:?}");

        // Nobody needs metadata to break it.
        direct
            .break_lease(KEY, Some(Duration::ZERO))
            .expect("it is leased");
        drop(lock(builder(backend.mutex()).owner("next")));
        assert_eq!(owner(status(&direct).last_holder()), Some("next"));
        drop(guard);
    }
}

fn failed_write_is_tried_again(backend: &Backend) {
    for delay in [Duration::ZERO, Duration::from_millis(1)] {
        let Some((proxy, mutex)) = backend.through_proxy() else {
            return;
        };
        proxy.when(
            |request| request.operation() == "put metadata",
            Fault::Answer(internal_error()),
        );
        let (observer, events) = Events::new();
        let locker = builder(mutex)
            .holder_delay(delay)
            .renewal_interval(Duration::from_secs(1))
            .observer(observer);
        let guard = lock(locker);
        events.wait(|event| matches!(event, Event::RecordFailed { .. }));
        eventually(|| status(&backend.mutex()).holder().map(drop));
        guard.release().expect("it is held");
    }
}

fn failed_write_holds_up_no_release(backend: &Backend) {
    for fault in faults() {
        let Some((proxy, mutex)) = backend.through_proxy() else {
            return;
        };
        let (observer, events) = Events::new();
        // With fencing alone is something written before the release.
        let locker = builder(mutex)
            .fencing(true)
            .release_timeout(Duration::from_secs(2))
            .observer(observer);
        let guard = lock(locker);
        proxy.always_when(
            |request| request.operation() == "put metadata",
            fault.clone(),
        );
        let before = Instant::now();
        guard.release().expect("it is held");
        let took = before.elapsed();
        assert!(took < Duration::from_millis(2500), "{fault:?}: {took:?}");
        events.wait(|event| matches!(event, Event::RecordFailed { .. }));
        assert!(status(&backend.mutex()).state().is_free());
    }
}

fn write_that_hangs_keeps_no_limited_wait_from_the_lock(backend: &Backend) {
    for operation in ["get properties", "put metadata"] {
        let Some((proxy, mutex)) = backend.through_proxy() else {
            return;
        };
        drop(lock(builder(backend.mutex()).holder_info(false)));
        proxy.always_when(
            move |request| request.operation() == operation,
            Fault::HangBefore,
        );
        let locker = builder(mutex).build().expect("the settings are sound");
        let before = Instant::now();
        let guard = locker.try_lock_for(Duration::from_secs(1));
        let took = before.elapsed();
        let guard = guard.unwrap_or_else(|error| panic!("{operation}: {error}"));
        assert!(took < Duration::from_secs(2), "{operation}: {took:?}");
        guard.release().expect("it is held");
    }
}

// On the emulator alone, whose clock can stand still.

fn frozen() -> (Emulator, AzureMutex, Clock) {
    let emulator = Emulator::builder().clock(Clock::frozen()).start();
    let emulator = emulator.expect("the emulator starts");
    let options = emulator.options("locks").expect("a container name");
    let mutex = AzureMutex::new(options).expect("the options are well-formed");
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is made");
    mutex.release(&lease).expect("it is held");
    let clock = emulator.clock();
    (emulator, mutex, clock)
}

#[test]
fn holder_is_written_after_250_ms() {
    let (_emulator, mutex, clock) = frozen();
    let guard = lock(Locker::builder(mutex.clone(), KEY).owner("ci@build-07"));
    clock.advance(Duration::from_millis(249));
    for _ in 0..50 {
        assert_eq!(status(&mutex).holder(), None);
        thread::yield_now();
    }
    clock.advance(Duration::from_millis(1));
    eventually(|| status(&mutex).holder().map(drop));
    assert_eq!(owner(status(&mutex).holder()), Some("ci@build-07"));
    drop(guard);
}

#[test]
fn write_of_the_holder_that_finds_the_lease_broken_says_so() {
    let (_emulator, mutex, clock) = frozen();
    let (observer, events) = Events::new();
    let guard = lock(Locker::builder(mutex.clone(), KEY).observer(observer));
    let broken = mutex.break_lease(KEY, Some(Duration::ZERO));
    broken.expect("it is leased");
    clock.advance(Duration::from_millis(250));
    events.wait(|event| matches!(event, Event::Lost { .. }));
    assert_eq!(guard.loss_reason(), Some(LossReason::Broken));
}

#[test]
fn lock_and_unlock_take_two_requests_within_250_ms_and_three_or_four_after() {
    let (emulator, mutex, clock) = frozen();
    let locker = Locker::new(mutex, KEY).expect("the settings are sound");
    let hold = |time| {
        let before = emulator.requests();
        let guard = locker.lock().expect("it is free");
        clock.advance(Duration::from_millis(time));
        drop(guard);
        emulator.requests() - before
    };
    assert_eq!(hold(249), 2);
    // Whose blob it is has to be read first, and is known from then on.
    assert_eq!(hold(250), 4);
    assert_eq!(hold(250), 3);
    assert_eq!(hold(249), 2);
}

#[test]
fn holder_that_writes_first_takes_no_more_requests() {
    let (emulator, mutex, _clock) = frozen();
    let locker = builder(mutex).build().expect("the settings are sound");
    for requests in [4, 3] {
        let before = emulator.requests();
        drop(locker.lock().expect("it is free"));
        assert_eq!(emulator.requests() - before, requests);
    }
}

#[test]
fn owner_is_user_and_host_unless_set() {
    let (_emulator, mutex, _clock) = frozen();
    let locker = Locker::builder(mutex.clone(), KEY).holder_delay(Duration::ZERO);
    let guard = lock(locker);
    let held = status(&mutex);
    let holder = held.holder().expect("it is written");
    #[cfg(unix)]
    assert!(holder.owner().is_some(), "a machine has a name");
    assert_eq!(holder.reason(), None);
    drop(guard);
}
