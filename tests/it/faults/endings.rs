//! How guards end: released, lost, dropped where it is awkward; and who hears of it.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::*;
use crate::support::{LONG, eventually};

fn is_released(event: &Event) -> bool {
    matches!(event, Event::Released)
}

#[test]
fn unproven_lock_that_another_client_has_is_lost_though_a_reply_to_its_release_was_lost() {
    for fault in [Fault::Pass, Fault::DropBefore, Fault::DropAfter] {
        let backend = frozen();
        let setup = Setup::before(&backend);
        let (guard, events) = setup.lock();
        setup.always_on("renew", Fault::DropBefore);
        backend.pass(60 * SEC);
        let other = backend.mutex().acquire(KEY, LeaseDuration::MAX);
        let other = other.expect("the lease has run out");
        fails(guard.check(), ErrorKind::LeaseUnproven);
        setup.once_on("release", fault.clone());
        is_lost(guard.release(), LossReason::Taken);
        assert_eq!(events.count(is_released), 0, "{fault:?}");
        backend.mutex().renew(&other).expect("it was not released");
    }
}

#[test]
fn release_after_a_loss_is_not_announced() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    // The one is there to be released, the other is not.
    for taken in [false, true] {
        let (guard, events) = setup.lock();
        let now = Some(Duration::ZERO);
        backend.mutex().break_lease(KEY, now).expect("it is leased");
        let other = taken.then(|| backend.mutex().acquire(KEY, LeaseDuration::MAX));
        backend.pass(20 * SEC);
        events.wait(is_loss);
        drop(guard);
        assert!(matches!(events.heard().last(), Some(Event::Lost { .. })));
        if let Some(other) = other {
            backend
                .mutex()
                .release(&other.expect("it was broken"))
                .expect("it is held");
        }
    }
}

#[test]
fn renewal_that_is_answered_during_the_release_is_not_announced() {
    let backend = frozen();
    let mut setup = Setup::before(&backend);
    setup.timeout = LONG;
    let (guard, events) = setup.lock_with(|locker| locker.release_timeout(LONG));
    setup.once_on("renew", Fault::HoldReply);
    backend.pass(20 * SEC);
    setup
        .proxy
        .wait_for(1, |seen| seen.upstream == Some(200), LONG);
    let watch = guard.watch();
    thread::scope(|scope| {
        let releasing = scope.spawn(|| guard.release());
        eventually(|| watch.loss_reason());
        setup.proxy.release_held();
        let released = within(LONG / 4, || releasing.join().expect("no panic"));
        released.expect("it was held until then");
    });
    events.wait(is_released);
    assert_eq!(events.count(is_renewed), 0, "{:?}", events.heard());
}

#[test]
fn release_that_waited_for_a_renewal_and_is_answered_late_is_a_success() {
    let backend = frozen();
    let mut setup = Setup::before(&backend);
    setup.timeout = LONG;
    let (guard, _) = setup.lock_with(|locker| locker.release_timeout(SEC));
    // Answered within the half of the release's time that a renewal gets, and the release after it.
    setup.once_on("renew", Fault::Delay(SEC / 4));
    setup.once_on("release", Fault::HoldReply);
    backend.pass(20 * SEC);
    setup
        .proxy
        .wait_for(1, |seen| seen.upstream == Some(200), LONG);
    guard.release().expect("it was held until then");
    setup.proxy.release_held();
}

#[test]
fn guard_dropped_by_its_observer_is_released_at_once() {
    let backend = frozen();
    let setup = Setup::before(&backend);
    let guards = Arc::new(Mutex::new(None::<LeaseGuard>));
    let inside = Arc::clone(&guards);
    let (observer, events) = Events::new();
    let locker = setup.builder().observer(move |event| {
        if is_renewed(event) {
            let guard = inside.lock().take();
            within(Duration::ZERO, || drop(guard));
        }
        observer(event);
    });
    let guard = locker.build().expect("sound").lock().expect("it is free");
    let watch = guard.watch();
    *guards.lock() = Some(guard);
    backend.pass(20 * SEC);
    events.wait(is_renewed);
    assert_eq!(watch.loss_reason(), Some(LossReason::Released));
    assert_eq!(setup.state(), LeaseState::Available);
}

#[test]
fn observer_may_use_much_of_the_stack() {
    #[inline(never)]
    fn large_frame() -> usize {
        let frame = black_box([1_u8; 600 * 1024]);
        frame.iter().map(|&byte| usize::from(byte)).sum()
    }
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let (observer, events) = Events::new();
    let locker = setup.builder().observer(move |event| {
        assert_eq!(large_frame(), 600 * 1024);
        observer(event);
    });
    let guard = locker.build().expect("sound").lock().expect("it is free");
    guard.release().expect("it is held");
    events.wait(is_released);
}

#[test]
fn many_guards_dropped_while_the_service_is_silent_wait_for_it_once() {
    let backend = Backend::emulator();
    let setup = Setup::before(&backend);
    let mutex = setup.mutex();
    let guards: Vec<_> = (0..50)
        .map(|number| {
            let locker = Locker::builder(mutex.clone(), &format!("lock-{number}"))
                .release_timeout(SEC)
                .build();
            locker.expect("sound").lock().expect("it is free")
        })
        .collect();
    setup.proxy.always(Some(Fault::HangBefore));
    within(2 * SEC, || drop(guards));
}

#[test]
fn wait_for_the_loss_ends_at_once_by_a_release_a_loss_and_the_deadline() {
    let backend = frozen();
    let mut setup = Setup::before(&backend);
    setup.timeout = LONG;
    // Ends the hold with what it gets, and returns the guard if it still has it.
    type End<'a> = &'a dyn Fn(LeaseGuard) -> Option<LeaseGuard>;
    let ended = |end: End<'_>| {
        let (guard, _events) = setup.lock();
        assert_eq!(guard.wait_lost(MILLI), None, "it is held");
        let watch = guard.watch();
        let waiting = thread::spawn(move || (watch.wait_lost(Duration::MAX), watch));
        let guard = end(guard);
        // The clock stands still, so that only a wake-up can end it.
        let (reason, watch) = within(Duration::ZERO, || waiting.join().expect("no panic"));
        let kind = watch.check().expect_err("it is over").kind();
        setup.proxy.clear();
        setup.proxy.release_hung();
        drop(guard);
        (reason, kind)
    };
    let lost = ErrorKind::LeaseLost;
    // Some may end before anyone waits.
    for _ in 0..5 {
        let released = ended(&|guard| {
            guard.release().expect("it is held");
            None
        });
        assert_eq!(released, (Some(LossReason::Released), lost));
        let dropped = ended(&|guard| {
            drop(guard);
            None
        });
        assert_eq!(dropped, (Some(LossReason::Released), lost));
        let broken = ended(&|guard| {
            let now = Some(Duration::ZERO);
            backend.mutex().break_lease(KEY, now).expect("it is leased");
            backend.pass(20 * SEC);
            Some(guard)
        });
        assert_eq!(broken, (Some(LossReason::Broken), lost));
        // The lease's own thread hangs, and can wake nobody.
        let unproven = ended(&|guard| {
            let before = setup.seen("renew").len();
            setup.always_on("renew", Fault::HangBefore);
            backend.pass(20 * SEC);
            let renewals = |seen: &Seen| seen.lease_action() == Some("renew");
            setup.proxy.wait_for(before + 1, renewals, LONG);
            backend.pass(35 * SEC);
            Some(guard)
        });
        assert_eq!(unproven, (None, ErrorKind::LeaseUnproven));
    }
}

/// The threads of this process that have this name, cut as the system cuts it.
#[cfg(target_os = "linux")]
fn threads_named(name: &str) -> usize {
    let cut: String = name.chars().take(15).collect();
    let threads = std::fs::read_dir("/proc/self/task").expect("this process has threads");
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.trim_end() == cut)
        .count()
}

#[cfg(target_os = "linux")]
#[test]
fn thread_of_a_lease_has_its_name_and_ends_with_it_at_once() {
    // By the system's clock, on which a thread that is not woken looks up every two seconds.
    let backend = Backend::emulator();
    let options = MutexOptions::from_connection_string(backend.connection_string(), "threads");
    let mutex = AzureMutex::new(options.expect("well-formed")).expect("sound");
    let locker = Locker::new(mutex, "7c1f9e").expect("sound");
    for _ in 0..3 {
        let guard = within(Duration::ZERO, || locker.lock()).expect("it is free");
        assert_eq!(threads_named("azmutex:7c1f9e"), 1);
        guard.release().expect("it is held");
        within(Duration::ZERO, || {
            eventually(|| (threads_named("azmutex:7c1f9e") == 0).then_some(()));
        });
        let waiting = locker.lock().expect("it is free");
        fails(locker.try_lock(), ErrorKind::WouldBlock);
        drop(waiting);
        within(Duration::ZERO, || {
            eventually(|| (threads_named("azmutex:7c1f9e") == 0).then_some(()));
        });
    }
}
