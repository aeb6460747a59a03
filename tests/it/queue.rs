//! The line of those in one process who want the same lock.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use azmutex::emulator::{Clock, Emulator};
use azmutex::{
    AzureMutex, Error, ErrorKind, Event, LeaseGuard, LeaseState, Locker, LockerBuilder, LossReason,
    Previous, StopToken, TryLockError,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, FaultProxy, server_busy};
use crate::support::{Events, LONG, on_each_service};

on_each_service! {
    waiter_gets_the_lease_itself_and_the_former_guard_has_none
    lease_whose_id_got_out_gets_another_before_the_next_guard_has_it
    fencing_tokens_grow_from_guard_to_guard_and_the_guard_before_counts_as_released
    lease_that_was_handed_over_can_be_written_renewed_and_released
    lockers_that_ask_for_other_leases_wait_in_one_line_and_hand_nothing_over
}

const KEY: &str = "nightly/report";
const SEC: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A locker of a client of its own.
fn builder(backend: &Backend) -> LockerBuilder {
    Locker::builder(backend.mutex(), KEY)
}

#[track_caller]
fn build(builder: LockerBuilder) -> Locker {
    builder.build().expect("the settings are sound")
}

/// One that asks the service for itself, as another process does.
fn elsewhere(backend: &Backend) -> Locker {
    build(builder(backend).hand_over_for(Duration::ZERO))
}

fn frozen() -> Backend {
    Backend::emulator_by(Clock::frozen())
}

fn requests(backend: &Backend) -> u64 {
    backend.embedded().expect("an emulator").requests()
}

/// A thread that waits for the lock and tells when it has it.
struct Waiter(JoinHandle<Result<LeaseGuard, TryLockError>>);

impl Waiter {
    fn start(
        locker: &Locker,
        lock: impl FnOnce(&Locker) -> Result<LeaseGuard, TryLockError> + Send + 'static,
    ) -> Self {
        let locker = locker.clone();
        Self(thread::spawn(move || lock(&locker)))
    }

    fn forever(locker: &Locker) -> Self {
        Self::start(locker, |locker| locker.lock().map_err(TryLockError::from))
    }

    fn end(self) -> Result<LeaseGuard, TryLockError> {
        self.0.join().expect("no panic")
    }

    #[track_caller]
    fn guard(self) -> LeaseGuard {
        self.end().expect("it is given the lock")
    }
}

/// A waiter of `builder` that is in line: the first of those that are not, if it is not told.
fn in_line(builder: LockerBuilder) -> (Waiter, Events) {
    let (observer, events) = Events::new();
    let waiter = Waiter::forever(&build(builder.observer(observer)));
    events.wait(|event| matches!(event, Event::Waiting { attempt: 0, .. }));
    (waiter, events)
}

#[track_caller]
fn is_released(check: Result<(), Error>) {
    let error = check.expect_err("it is another's now");
    assert_eq!(error.loss_reason(), Some(LossReason::Released), "{error}");
}

fn waiter_gets_the_lease_itself_and_the_former_guard_has_none(backend: &Backend) {
    let guard = build(builder(backend)).lock().expect("it is free");
    let watch = guard.watch();
    let (waiter, events) = in_line(builder(backend));
    let before = backend.embedded().map(Emulator::requests);
    guard.release().expect("it was held until then");
    let next = waiter.guard();
    is_released(watch.check());
    assert_eq!(watch.loss_reason(), Some(LossReason::Released));
    assert_eq!(watch.remaining(), Duration::ZERO);
    next.check().expect("it is held");
    assert_eq!(backend.embedded().map(Emulator::requests), before);
    assert_eq!(
        events.count(|event| matches!(event, Event::Acquired { .. })),
        1
    );

    let lease = |id| azmutex::Lease::new(KEY, id).expect("a key");
    let mutex = backend.mutex();
    mutex
        .renew(&lease(next.lease_id()))
        .expect("it is its lease");
    let error = mutex.renew(&lease(watch.lease_id()));
    let error = error.expect_err("nobody may learn the ID from a guard that is gone");
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    next.release().expect("it is held");
    let status = mutex.status(KEY).expect("the blob exists");
    assert_eq!(status.state(), LeaseState::Available);
}

fn lease_whose_id_got_out_gets_another_before_the_next_guard_has_it(backend: &Backend) {
    type GetOut = fn(&LeaseGuard);
    let ways: [GetOut; 5] = [
        |guard| _ = guard.lease_id(),
        |guard| _ = guard.watch().lease_id(),
        |guard| guard.write(b"value").expect("it is held"),
        |guard| _ = guard.read().expect("it is held"),
        |guard| _ = format!("{guard:?}"),
    ];
    for get_out in ways {
        let guard = build(builder(backend)).lock().expect("it is free");
        get_out(&guard);
        let watch = guard.watch();
        let (waiter, _events) = in_line(builder(backend));
        let before = backend.embedded().map(Emulator::requests);
        guard.release().expect("it was held until then");
        let next = waiter.guard();
        let after = backend.embedded().map(Emulator::requests);
        assert_eq!(
            after,
            before.map(|requests| requests + 1),
            "the change alone"
        );
        is_released(watch.check());
        assert_ne!(next.lease_id(), watch.lease_id());
        let stale = azmutex::Lease::new(KEY, watch.lease_id()).expect("a key");
        let error = backend
            .mutex()
            .renew(&stale)
            .expect_err("it has another ID");
        assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
        next.release().expect("it is held");
    }
}

fn fencing_tokens_grow_from_guard_to_guard_and_the_guard_before_counts_as_released(
    backend: &Backend,
) {
    let fenced = |owner: &str| builder(backend).fencing(true).owner(owner);
    let mut guard = build(fenced("first")).lock().expect("it is free");
    for (owner, before) in [("second", "first"), ("third", "second")] {
        let (id, token) = (guard.lease_id(), guard.fencing_token());
        let (waiter, events) = in_line(fenced(owner));
        drop(guard);
        guard = waiter.guard();
        assert!(guard.fencing_token() > token);
        assert_ne!(guard.lease_id(), id);
        match guard.previous() {
            Previous::Released(holder) => assert_eq!(holder.owner(), Some(before)),
            other => panic!("{other:?}"),
        }
        drop(events);
    }
    guard.write(b"value").expect("it is held");
    guard.release().expect("it is held");
    let last = elsewhere_fenced(backend);
    match last.previous() {
        Previous::Released(holder) => assert_eq!(holder.owner(), Some("third")),
        other => panic!("{other:?}"),
    }
}

fn elsewhere_fenced(backend: &Backend) -> LeaseGuard {
    let locker = build(builder(backend).hand_over_for(Duration::ZERO).fencing(true));
    locker.lock().expect("it is free")
}

fn lease_that_was_handed_over_can_be_written_renewed_and_released(backend: &Backend) {
    let short = || {
        builder(backend)
            .lease_duration(15 * SEC)
            .renewal_interval(SEC)
    };
    let guard = build(short().owner("first")).lock().expect("it is free");
    let (waiter, events) = in_line(short().owner("second").holder_delay(SEC / 4));
    drop(guard);
    let next = waiter.guard();
    next.write(b"value").expect("it is held");
    assert_eq!(next.read().expect("it is held"), b"value");
    for _ in 0..2 {
        backend.pass(SEC);
        events.wait(|event| matches!(event, Event::Renewed));
    }
    let status = backend.mutex().status(KEY).expect("the blob exists");
    let holder = status.holder().expect("it was written");
    assert_eq!(holder.owner(), Some("second"));
    next.release().expect("it is held");
    drop(elsewhere(backend).try_lock().expect("it is free"));
}

fn lockers_that_ask_for_other_leases_wait_in_one_line_and_hand_nothing_over(backend: &Backend) {
    type Set = fn(LockerBuilder) -> LockerBuilder;
    let differences: [Set; 2] = [
        |builder| builder.lease_duration(30 * SEC),
        |builder| builder.fencing(true),
    ];
    for differ in differences {
        let (observer, heard) = Events::new();
        let guard = build(builder(backend).observer(observer)).lock();
        let guard = guard.expect("it is free");
        let (waiter, events) = in_line(differ(builder(backend)));
        let id = guard.lease_id();
        guard.release().expect("it is held");
        let next = waiter.guard();
        assert_ne!(next.lease_id(), id);
        assert_eq!(heard.count(|event| matches!(event, Event::Released)), 1);
        assert!(
            next.remaining()
                <= if next.fencing_token().is_some() {
                    55 * SEC
                } else {
                    28 * SEC
                }
        );
        next.release().expect("it is held");
        drop(events);
    }
}

#[test]
fn threads_get_the_lock_in_the_order_in_which_they_came_and_ask_nothing() {
    const THREADS: usize = 64;
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let (place, places) = mpsc::channel();
    let (served, order) = mpsc::channel();
    let waiters: Vec<_> = (0..THREADS)
        .map(|number| {
            let place = place.clone();
            let locker = builder(&backend).observer(move |event| {
                if let Event::Waiting { ahead, .. } = event {
                    place.send((*ahead, number)).expect("somebody listens");
                }
            });
            let (locker, served) = (build(locker), served.clone());
            thread::spawn(move || {
                let guard = locker.lock().expect("it is given the lock");
                served.send(number).expect("somebody listens");
                drop(guard);
            })
        })
        .collect();
    // Each is told after a second.
    let places: BTreeMap<_, _> = places.iter().take(THREADS).collect();
    assert!(places.keys().copied().eq(1..=THREADS), "{places:?}");
    let before = requests(&backend);
    guard.release().expect("it is held");
    for waiter in waiters {
        waiter.join().expect("no panic");
    }
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(order, places.into_values().collect::<Vec<_>>());
    let asked = requests(&backend) - before;
    assert_eq!(asked, 1, "the last of them releases the lease");
}

#[test]
fn events_tell_of_the_hand_over() {
    let backend = frozen();
    let (observer, heard) = Events::new();
    let guard = build(builder(&backend).observer(observer)).lock();
    let guard = guard.expect("it is free");
    backend.pass(2 * SEC);
    let (waiter, events) = in_line(builder(&backend));
    guard.release().expect("it is held");
    let next = waiter.guard();
    let handed_over = |event: &Event| match event {
        Event::HandedOver {
            hand_overs, held, ..
        } => Some((*hand_overs, *held)),
        _ => None,
    };
    let told = heard.heard().iter().find_map(handed_over);
    assert_eq!(told, Some((1, 2 * SEC)));
    assert_eq!(heard.count(|event| matches!(event, Event::Released)), 0);
    next.release().expect("it is held");
    events.wait(|event| matches!(event, Event::Released));
    assert_eq!(events.heard().iter().find_map(handed_over), None);
}

#[test]
fn try_lock_asks_nothing_while_the_lock_is_held_in_the_process() {
    let backend = frozen();
    let _guard = build(builder(&backend)).lock().expect("it is free");
    let before = requests(&backend);
    let tried = build(builder(&backend)).try_lock();
    assert!(matches!(tried, Err(TryLockError::WouldBlock)), "{tried:?}");
    assert_eq!(requests(&backend), before);
    let tried = elsewhere(&backend).try_lock();
    assert!(matches!(tried, Err(TryLockError::WouldBlock)), "{tried:?}");
    assert_eq!(requests(&backend), before + 1, "that one asks for itself");
}

#[test]
fn wait_in_line_ends_with_its_time_and_the_next_one_is_served() {
    let backend = frozen();
    let guard = build(builder(&backend).holder_info(false))
        .lock()
        .expect("it is free");
    let (observer, events) = Events::new();
    let locker = build(builder(&backend).observer(observer));
    let late = Waiter::start(&locker, |locker| locker.try_lock_for(12 * SEC));
    events.wait(|event| matches!(event, Event::Waiting { ahead: 1, .. }));
    let (waiter, _events) = in_line(builder(&backend));
    // Less than it takes until a renewal is due.
    let before = requests(&backend);
    backend.pass(12 * SEC);
    let ended = late.end();
    assert!(matches!(ended, Err(TryLockError::WouldBlock)), "{ended:?}");
    assert_eq!(
        requests(&backend),
        before,
        "nothing was asked of the service"
    );
    guard.release().expect("it is held");
    waiter.guard().release().expect("it is held");
}

#[test]
fn stop_token_ends_a_wait_in_line_and_the_next_one_is_served() {
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let stop = StopToken::new();
    let (stopped, _heard) = in_line(builder(&backend).stop_token(&stop));
    let (waiter, _events) = in_line(builder(&backend));
    let before = requests(&backend);
    stop.stop();
    let error = Error::from(stopped.end().expect_err("it is stopped"));
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    guard.release().expect("it is held");
    let next = waiter.guard();
    assert_eq!(requests(&backend), before);
    next.release().expect("it is held");
}

#[test]
fn panic_under_the_guard_releases_the_lease_instead_of_handing_it_over() {
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let (waiter, events) = in_line(builder(&backend));
    let before = requests(&backend);
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _guard = guard;
        std::panic::resume_unwind(Box::new("the work failed"));
    }));
    assert!(result.is_err());
    let next = waiter.guard();
    assert_eq!(requests(&backend), before + 2, "released and acquired");
    drop((next, events));
}

#[test]
fn process_stands_back_once_it_has_had_the_lock_for_its_time() {
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let (second, heard) = in_line(builder(&backend));
    let (third, events) = in_line(builder(&backend));
    backend.pass(12 * SEC);
    drop(guard);
    let guard = second.guard();
    assert_eq!(
        heard.count(|event| matches!(event, Event::Acquired { .. })),
        1
    );
    backend.pass(3 * SEC);
    let watch = guard.watch();
    let released = Instant::now();
    guard.release().expect("it is held");
    is_released(watch.check());
    assert_eq!(heard.count(|event| matches!(event, Event::Released)), 1);
    third.guard().release().expect("it is held");
    assert!(
        released.elapsed() >= 750 * MILLI,
        "{:?}",
        released.elapsed()
    );
    drop(events);
}

#[test]
fn waiter_elsewhere_gets_the_lock_when_the_time_of_a_busy_process_is_over() {
    let backend = Backend::emulator();
    let stop = StopToken::new();
    let locker = build(builder(&backend).hand_over_for(SEC).stop_token(&stop));
    thread::scope(|scope| {
        let (started, is_started) = mpsc::channel();
        for _ in 0..4 {
            let (locker, started): (_, Sender<()>) = (locker.clone(), started.clone());
            scope.spawn(move || {
                while let Ok(guard) = locker.lock() {
                    let _ = started.send(());
                    drop(guard);
                }
            });
        }
        (0..8).for_each(|_| is_started.recv().expect("they go on"));
        let before = Instant::now();
        let other = elsewhere(&backend);
        let guard = loop {
            match other.try_lock() {
                Ok(guard) => break guard,
                Err(TryLockError::WouldBlock) => thread::yield_now(),
                Err(TryLockError::Error(error)) => panic!("{error}"),
            }
        };
        let waited = before.elapsed();
        stop.stop();
        guard.release().expect("it is held");
        assert!(waited < 3 * SEC, "{waited:?}");
    });
}

#[test]
fn thread_that_tries_all_the_time_keeps_nobody_elsewhere_out_when_the_time_is_over() {
    let backend = Backend::emulator();
    let stop = StopToken::new();
    let locker = build(
        builder(&backend)
            .hand_over_for(SEC / 2)
            .stop_token(&stop)
            .holder_info(false),
    );
    thread::scope(|scope| {
        let (started, is_started) = mpsc::channel();
        for number in 0..4 {
            let (locker, stop, started): (_, _, Sender<()>) =
                (locker.clone(), stop.clone(), started.clone());
            scope.spawn(move || {
                while !stop.is_stopped() {
                    let guard = match number {
                        0 => locker.try_lock(),
                        1 => locker.try_lock_for(MILLI),
                        _ => locker.lock().map_err(TryLockError::from),
                    };
                    thread::sleep(MILLI);
                    if guard.is_ok() {
                        let _ = started.send(());
                    }
                }
            });
        }
        (0..8).for_each(|_| is_started.recv().expect("they go on"));
        let before = Instant::now();
        let waits = (0..4).map(|_| elsewhere(&backend).try_lock_for(15 * SEC).map(drop));
        let waits: Result<Vec<()>, _> = waits.collect();
        let waited = before.elapsed();
        stop.stop();
        waits.expect("it is let in");
        // The time, a delay between two attempts, and what the machine takes.
        assert!(waited < 4 * 3 * SEC, "{waited:?}");
    });
}

/// A service whose clock stands still, and a client of it through a proxy.
fn behind_proxy(backend: &Backend) -> (FaultProxy, AzureMutex) {
    backend.through_proxy().expect("a local service")
}

fn actions(proxy: &FaultProxy, action: &str) -> usize {
    let seen = proxy.seen();
    seen.iter()
        .filter(|seen| seen.lease_action() == Some(action))
        .count()
}

fn of(mutex: &AzureMutex) -> LockerBuilder {
    Locker::builder(mutex.clone(), KEY).holder_info(false)
}

fn on(action: &'static str) -> impl Fn(&crate::support::proxy::RequestHead) -> bool + Send {
    move |request| request.lease_action() == Some(action)
}

#[test]
fn lease_that_nobody_can_vouch_for_is_not_handed_over_and_the_service_is_asked() {
    let backend = frozen();
    let (proxy, mutex) = behind_proxy(&backend);
    let guard = build(of(&mutex)).lock().expect("it is free");
    let (waiter, events) = in_line(of(&mutex));
    let locker = build(of(&mutex));
    proxy.always_when(on("renew"), Fault::Answer(server_busy(None)));
    let acquires = actions(&proxy, "acquire");
    backend.pass(54 * SEC);
    assert_eq!(actions(&proxy, "acquire"), acquires, "it is held");
    backend.pass(SEC);
    events.wait(|event| matches!(event, Event::Waiting { attempt: 1, .. }));
    let tried = locker.try_lock();
    assert!(matches!(tried, Err(TryLockError::WouldBlock)), "{tried:?}");
    assert_eq!(
        guard.check().expect_err("nobody knows").kind(),
        ErrorKind::LeaseUnproven
    );
    backend.pass(5 * SEC);
    let next = waiter.guard();
    next.check().expect("it is held");
    let error = guard.release().expect_err("it was not held any more");
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    next.check().expect("it is held still");
}

#[test]
fn lease_that_is_known_to_be_lost_is_not_handed_over() {
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let (waiter, _events) = in_line(builder(&backend));
    backend
        .mutex()
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    backend.pass(20 * SEC);
    // The guard is still there.
    let next = waiter.guard();
    let error = guard.release().expect_err("it is lost");
    assert_eq!(error.loss_reason(), Some(LossReason::Broken), "{error}");
    next.check().expect("it is held");
}

#[test]
fn lease_that_ends_soon_is_renewed_before_the_next_guard_has_it() {
    let backend = frozen();
    let (proxy, mutex) = behind_proxy(&backend);
    let guard = build(of(&mutex).hand_over_for(60 * SEC)).lock();
    let guard = guard.expect("it is free");
    let (waiter, _events) = in_line(of(&mutex));
    proxy.always_when(on("renew"), Fault::Answer(server_busy(None)));
    backend.pass(45 * SEC);
    assert!(guard.remaining() < 15 * SEC);
    proxy.clear();
    let (renewals, acquires) = (actions(&proxy, "renew"), actions(&proxy, "acquire"));
    guard.release().expect("it is held");
    let next = waiter.guard();
    assert!(next.remaining() > 50 * SEC, "{:?}", next.remaining());
    assert_eq!(actions(&proxy, "renew"), renewals + 1);
    assert_eq!(actions(&proxy, "acquire"), acquires);
}

#[test]
fn change_without_an_answer_is_sent_again() {
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        let backend = frozen();
        let (proxy, mutex) = behind_proxy(&backend);
        let guard = build(of(&mutex)).lock().expect("it is free");
        let (waiter, _events) = in_line(of(&mutex));
        let id = guard.lease_id();
        let acquires = actions(&proxy, "acquire");
        proxy.when(on("change"), fault);
        guard.release().expect("it is held");
        let next = waiter.guard();
        assert_ne!(next.lease_id(), id);
        assert_eq!(actions(&proxy, "change"), 2);
        next.write(b"value").expect("it has the ID that it says");
        assert_eq!(actions(&proxy, "acquire"), acquires);
    }
}

#[test]
fn lease_whose_change_fails_for_good_is_released_under_both_ids_and_asked_for_anew() {
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        let backend = frozen();
        let (proxy, mutex) = behind_proxy(&backend);
        let guard = build(of(&mutex)).lock().expect("it is free");
        let (waiter, _events) = in_line(of(&mutex).fault_wait(SEC));
        let id = guard.lease_id();
        let acquires = actions(&proxy, "acquire");
        proxy.always_when(on("change"), fault);
        guard.release().expect("it is held");
        let next = waiter.guard();
        next.check().expect("it is held");
        let seen = proxy.seen();
        let released: BTreeSet<_> = seen
            .iter()
            .filter(|seen| seen.lease_action() == Some("release"))
            .filter_map(|seen| seen.header("x-ms-lease-id"))
            .collect();
        assert!(released.contains(id.to_string().as_str()), "{released:?}");
        assert_eq!(actions(&proxy, "acquire"), acquires + 1);
        next.write(b"value").expect("it is held");
    }
}

#[test]
fn wait_that_ends_while_the_lease_is_on_its_way_leaves_none_behind() {
    let backend = Backend::emulator();
    let (proxy, mutex) = behind_proxy(&backend);
    let guard = build(of(&mutex)).lock().expect("it is free");
    let id = guard.lease_id();
    let (observer, events) = Events::new();
    let locker = build(of(&mutex).observer(observer));
    let waiter = Waiter::start(&locker, |locker| locker.try_lock_for(2 * SEC));
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    proxy.always_when(on("change"), Fault::HangAfter);
    guard.release().expect("it is held");
    let ended = waiter.end();
    assert!(ended.is_err(), "{ended:?}");
    proxy.clear();
    proxy.release_hung();
    assert!(locker.settle(LONG));
    let next = elsewhere(&backend).try_lock().expect("nothing is left");
    assert_ne!(next.lease_id(), id);
}

#[test]
fn those_who_wait_behind_one_who_asks_in_vain_fail_with_it() {
    let backend = Backend::emulator();
    let (proxy, mutex) = behind_proxy(&backend);
    drop(build(of(&mutex)).lock().expect("it is free"));
    proxy.always(Some(Fault::Answer(server_busy(None))));
    let (observer, events) = Events::new();
    let first = Waiter::forever(&build(of(&mutex).fault_wait(4 * SEC).observer(observer)));
    events.wait(|event| matches!(event, Event::AcquireFailed { .. }));
    let (same, heard) = in_line(of(&mutex).fault_wait(4 * SEC));
    let patient = Waiter::forever(&build(of(&mutex)));
    for waiter in [first, same] {
        let error = Error::from(waiter.end().expect_err("it is in vain"));
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    }
    let asked = |event: &Event| matches!(event, Event::AcquireFailed { .. });
    assert_eq!(heard.count(asked), 0, "it did not ask");
    proxy.clear();
    drop(patient.guard());
}

#[test]
fn max_hold_bounds_each_guard_and_not_the_lease() {
    let backend = frozen();
    let bounded = || builder(&backend).max_hold(30 * SEC).hand_over_for(60 * SEC);
    let guard = build(bounded()).lock().expect("it is free");
    let (waiter, events) = in_line(bounded());
    backend.pass(20 * SEC);
    backend.pass(9 * SEC);
    guard.release().expect("it is held");
    let next = waiter.guard();
    for _ in 0..2 {
        backend.pass(14 * SEC);
    }
    events.wait(|event| matches!(event, Event::Renewed));
    // The last renewal was at 43, and renewals end at 59.
    backend.pass(40 * SEC);
    next.check().expect("the time counts from the hand-over");
    backend.pass(30 * SEC);
    assert_eq!(next.loss_reason(), Some(LossReason::MaxHold));
}

#[test]
fn lease_that_a_guard_is_turned_into_is_not_handed_over() {
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let (waiter, events) = in_line(builder(&backend));
    let lease = guard.into_lease().expect("it is held");
    events.wait(|event| matches!(event, Event::Waiting { attempt: 1, .. }));
    backend.mutex().release(&lease).expect("it is held");
    drop(waiter.guard());
}

#[test]
fn guard_that_is_dropped_in_its_observer_is_released_for_the_next() {
    let backend = frozen();
    let slot = std::sync::Arc::new(parking_lot::Mutex::new(None::<LeaseGuard>));
    let taken = std::sync::Arc::clone(&slot);
    let locker = builder(&backend).observer(move |event| {
        if matches!(event, Event::Renewed) {
            let guard = taken.lock().take();
            drop(guard);
        }
    });
    let guard = build(locker.hand_over_for(60 * SEC)).lock();
    *slot.lock() = Some(guard.expect("it is free"));
    let (waiter, events) = in_line(builder(&backend));
    let before = requests(&backend);
    backend.pass(20 * SEC);
    let next = waiter.guard();
    assert_eq!(
        requests(&backend),
        before + 3,
        "renewed, released and acquired"
    );
    backend.pass(20 * SEC);
    events.wait(|event| matches!(event, Event::Renewed));
    next.release().expect("it is held");
}

#[test]
fn observer_that_blocks_holds_up_no_other_guard() {
    type Matches = fn(&Event) -> bool;
    let cases: [Matches; 2] = [
        |event| matches!(event, Event::Renewed),
        |event| matches!(event, Event::HandedOver { .. }),
    ];
    for (blocks, matches) in cases.into_iter().enumerate() {
        let backend = Backend::emulator();
        // A token takes requests, which are the thread's.
        let fenced = || {
            builder(&backend)
                .lease_duration(15 * SEC)
                .renewal_interval(SEC)
                .fencing(true)
        };
        let (unblock, blocked) = mpsc::channel::<()>();
        let blocked = parking_lot::Mutex::new(blocked);
        let (reached, is_there) = mpsc::channel();
        let locker = build(fenced().observer(move |event| {
            if matches(event) {
                let _ = reached.send(());
                let _ = blocked.lock().recv();
            }
        }));
        let guard = locker.lock().expect("it is free");
        let (waiter, _events) = in_line(fenced());
        if blocks == 0 {
            is_there.recv_timeout(LONG).expect("it is renewed");
        }
        let dropping = thread::spawn(move || drop(guard));
        let (served, guards) = mpsc::channel();
        let waiting = thread::spawn(move || served.send(waiter.guard()).map_err(drop));
        let next = guards.recv_timeout(5 * SEC);
        let watch = next.as_ref().map(LeaseGuard::watch);
        drop(unblock);
        watch
            .expect("nobody is in its way")
            .check()
            .expect("it is held");
        drop(next);
        dropping.join().expect("no panic");
        waiting.join().expect("no panic").expect("somebody listens");
    }
}

#[test]
fn waiter_behind_another_hears_whom_both_wait_for() {
    let backend = frozen();
    let holder = builder(&backend)
        .hand_over_for(Duration::ZERO)
        .holder_delay(Duration::ZERO)
        .owner("ci@build-07");
    let held = build(holder).lock().expect("it is free");
    let known = |event: &Event| {
        matches!(event, Event::Waiting { holder: Some(holder), .. }
            if holder.owner() == Some("ci@build-07"))
    };
    let (observer, asked) = Events::new();
    let first = Waiter::forever(&build(builder(&backend).observer(observer)));
    asked.wait(known);
    let (second, events) = in_line(builder(&backend));
    assert!(events.heard().iter().any(known), "{:?}", events.heard());
    drop(held);
    drop(first.guard());
    drop(second.guard());
}

/// It cannot be given to whoever asks for it after it was handed over.
#[test]
fn id_that_is_asked_for_late_is_nobodys() {
    let backend = frozen();
    let guard = build(builder(&backend)).lock().expect("it is free");
    let watch = guard.watch();
    let (waiter, _events) = in_line(builder(&backend));
    drop(guard);
    let next = waiter.guard();
    let late = watch.lease_id();
    assert_ne!(late, next.lease_id());
    assert_eq!(late, watch.lease_id());
}

#[test]
fn observer_that_hears_of_the_release_may_lock_the_same_lock() {
    let backend = frozen();
    let again = build(builder(&backend));
    let (guards, relocked) = mpsc::channel();
    let locker = builder(&backend).observer(move |event| {
        if matches!(event, Event::Released) {
            let _ = guards.send(again.lock());
        }
    });
    let guard = build(locker).lock().expect("it is free");
    let dropping = thread::spawn(move || drop(guard));
    let next = relocked
        .recv_timeout(LONG)
        .expect("it does not wait for itself");
    dropping.join().expect("no panic");
    next.expect("it is free").release().expect("it is held");
}
