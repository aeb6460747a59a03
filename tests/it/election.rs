//! One leader at a time, and who it is.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::emulator::Clock;
use azmutex::{
    Election, ErrorKind, Event, LeaderInfo, LeaseDuration, Locker, LockerBuilder, LossReason,
    StopToken, TryLockError,
};

use crate::support::backend::Backend;
use crate::support::proxy::{Fault, server_busy};
use crate::support::{Events, LONG, on_each_service};

on_each_service! {
    there_is_one_leader_at_a_time_and_terms_grow
    leader_is_told_with_its_term_and_nobody_before_and_after_it
    observer_tells_who_leads_and_then_each_change
    leader_that_was_replaced_does_not_resign_with_success
}

const KEY: &str = "scheduler";
const SEC: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// As another process stands: no lease is handed over to it.
fn builder(backend: &Backend) -> LockerBuilder {
    Locker::builder(backend.mutex(), KEY).hand_over_for(Duration::ZERO)
}

#[track_caller]
fn build(builder: LockerBuilder) -> Election {
    builder.build_election().expect("the settings are sound")
}

fn election(backend: &Backend) -> Election {
    build(builder(backend))
}

fn requests(backend: &Backend) -> u64 {
    backend.embedded().expect("an emulator").requests()
}

fn there_is_one_leader_at_a_time_and_terms_grow(backend: &Backend) {
    let [here, elsewhere] = [(); 2].map(|()| election(backend));
    let mut last = 0;
    for _ in 0..2 {
        let leader = here.campaign().expect("nobody leads");
        assert!(leader.term() > last, "{} after {last}", leader.term());
        assert_eq!(leader.fencing_token(), Some(leader.term()));
        last = leader.term();
        let short = elsewhere.try_campaign_for(50 * MILLI);
        for refused in [elsewhere.try_campaign(), short] {
            let refused = refused.expect_err("somebody leads");
            assert!(matches!(refused, TryLockError::WouldBlock), "{refused}");
        }
        leader.resign().expect("it leads");
        let next = elsewhere
            .try_campaign_until(Instant::now() + LONG)
            .expect("nobody leads");
        assert!(next.term() > last, "{} after {last}", next.term());
        last = next.term();
    }
}

fn leader_is_told_with_its_term_and_nobody_before_and_after_it(backend: &Backend) {
    let election = build(builder(backend).owner("ci@build-07"));
    assert_eq!(election.leader().expect("there is no container"), None);
    let leader = election.campaign().expect("nobody leads");
    let told = election.leader().expect("it is answered");
    let told = told.expect("somebody leads");
    assert_eq!(told.term(), leader.term());
    let holder = told.holder().expect("it wrote who it is");
    assert_eq!(holder.owner(), Some("ci@build-07"));
    assert_eq!(
        told.to_string(),
        format!("{holder}, term {}", leader.term())
    );
    leader.resign().expect("it leads");
    assert_eq!(election.leader().expect("it is answered"), None);
    // Whoever has the lease leads once it has written its term.
    let mutex = backend.mutex();
    let lease = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
    assert_eq!(election.leader().expect("it is answered"), None);
    mutex.release(&lease).expect("it is held");
}

fn observer_tells_who_leads_and_then_each_change(backend: &Backend) {
    let [here, elsewhere] = [(); 2].map(|()| election(backend));
    let mut terms = elsewhere.observe(10 * MILLI).map(|leader| {
        let leader = leader.expect("it is answered");
        leader.as_ref().map(LeaderInfo::term)
    });
    assert_eq!(terms.next(), Some(None));
    for _ in 0..2 {
        let leader = here.campaign().expect("nobody leads");
        assert_eq!(terms.next(), Some(Some(leader.term())));
        leader.resign().expect("it leads");
        assert_eq!(terms.next(), Some(None));
    }
}

fn leader_that_was_replaced_does_not_resign_with_success(backend: &Backend) {
    let [here, elsewhere] = [(); 2].map(|()| election(backend));
    let mutex = backend.mutex();
    let leader = here.campaign().expect("nobody leads");
    mutex
        .break_lease(KEY, Some(Duration::ZERO))
        .expect("it is leased");
    let next = elsewhere.campaign().expect("the lease is broken");
    assert!(next.term() > leader.term());
    let error = leader.resign().expect_err("it was replaced");
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    next.check().expect("it leads");
}

#[test]
fn key_that_is_no_blob_name_is_refused() {
    let error = Election::new(Backend::emulator().mutex(), "").expect_err("it is empty");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn leader_has_a_term_whatever_was_said_of_fencing() {
    let backend = Backend::emulator();
    let leader = build(builder(&backend).fencing(false)).campaign();
    assert!(leader.expect("nobody leads").term() > 0);
}

#[test]
fn candidate_stands_again_until_its_work_breaks_and_no_two_lead_at_once() {
    const TURNS: u32 = 3;
    let backend = Backend::emulator();
    let (leaders, terms) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let quick = || builder(&backend).poll_interval(40 * MILLI);
    let elections = [(); 2].map(|()| build(quick()));
    thread::scope(|scope| {
        for (number, election) in elections.iter().enumerate() {
            let (leaders, terms) = (&leaders, &terms);
            scope.spawn(move || {
                let mut turns = 0;
                let result = election.lead(|leader| {
                    assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0);
                    terms
                        .lock()
                        .expect("no panic")
                        .push((leader.term(), number));
                    turns += 1;
                    assert_eq!(leaders.fetch_sub(1, Ordering::SeqCst), 1);
                    if turns == TURNS {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                result.expect("it leads to the end");
            });
        }
    });
    let terms = terms.into_inner().expect("no panic");
    assert_eq!(terms.len() as u32, 2 * TURNS);
    assert!(terms.is_sorted(), "{terms:?}");
}

#[test]
fn candidate_that_has_resigned_lets_another_one_lead_before_it_leads_again() {
    let backend = Backend::emulator();
    // A delay is 15 % longer at most, and a candidate that resigned waits for 25 % longer.
    let slow = || builder(&backend).poll_interval(2 * SEC);
    let (observer, events) = Events::new();
    let [here, elsewhere] = [build(slow()), build(slow().observer(observer))];
    let between = AtomicI64::new(0);
    thread::scope(|scope| {
        let mut first = None;
        let result = here.lead(|leader| match first {
            None => {
                first = Some(leader.term());
                scope.spawn(|| {
                    let next = elsewhere.campaign().expect("nobody leads");
                    between.store(next.term(), Ordering::SeqCst);
                });
                events.wait(|event| matches!(event, Event::Waiting { .. }));
                ControlFlow::Continue(())
            }
            Some(first) => {
                let between = between.load(Ordering::SeqCst);
                assert!(first < between && between < leader.term(), "{between}");
                ControlFlow::Break(())
            }
        });
        result.expect("it leads to the end");
    });
}

#[test]
fn candidate_that_lost_its_lease_stands_again_and_tells_of_a_loss_at_the_end() {
    let backend = Backend::emulator();
    let mutex = backend.mutex();
    let election = build(builder(&backend).poll_interval(10 * MILLI));
    let mut terms = Vec::new();
    let result = election.lead(|leader| {
        terms.push(leader.term());
        let is_last = terms.len() == 3;
        if terms.len() != 2 {
            mutex
                .break_lease(KEY, Some(Duration::ZERO))
                .expect("it is leased");
            let stranger = mutex.acquire(KEY, LeaseDuration::MIN).expect("it is free");
            let error = leader.read().expect_err("it was replaced");
            assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
            mutex.release(&stranger).expect("it is held");
        }
        if is_last {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let error = result.expect_err("it was replaced before the end");
    assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error}");
    assert_eq!(terms.len(), 3);
    assert!(terms.is_sorted());
}

#[test]
fn leader_that_resigns_is_replaced_within_a_poll() {
    let backend = Backend::emulator();
    let here = election(&backend);
    let mut waits = Vec::new();
    for _ in 0..5 {
        let leader = here.campaign().expect("nobody leads");
        let (observer, events) = Events::new();
        let elsewhere = build(builder(&backend).observer(observer));
        let next = thread::spawn(move || elsewhere.campaign().map(|next| (Instant::now(), next)));
        events.wait(|event| matches!(event, Event::Waiting { .. }));
        let resigned = Instant::now();
        leader.resign().expect("it leads");
        let (elected, _next) = next.join().expect("no panic").expect("nobody leads");
        waits.push(elected - resigned);
    }
    // The longest delay between two attempts, and what a busy machine may add.
    let longest = 719 * MILLI + SEC / 2;
    assert!(waits.iter().all(|wait| *wait < longest), "{waits:?}");
}

#[test]
fn leader_that_is_gone_is_replaced_once_its_lease_is_over() {
    let backend = Backend::emulator_by(Clock::frozen());
    let clock = backend.embedded().expect("an emulator").clock();
    drop(election(&backend).campaign().expect("nobody leads"));
    // A process that was killed renews no lease.
    let mutex = backend.mutex();
    mutex
        .acquire(KEY, LeaseDuration::MAX)
        .expect("nobody leads");
    let (observer, events) = Events::new();
    let waiting = build(builder(&backend).observer(observer));
    let next = thread::spawn(move || waiting.campaign());
    events.wait(|event| matches!(event, Event::Waiting { .. }));
    clock.advance(59 * SEC);
    assert!(!next.is_finished());
    clock.advance(SEC);
    let next = next.join().expect("no panic").expect("the lease is over");
    next.check().expect("it leads");
}

#[test]
fn work_without_a_sign_of_life_is_replaced_and_whoever_gives_one_is_not() {
    let backend = Backend::emulator_by(Clock::frozen());
    let (observer, heard) = Events::new();
    let here = build(builder(&backend).health(30 * SEC).observer(observer));
    let leader = here.campaign().expect("nobody leads");
    let (observer, events) = Events::new();
    let elsewhere = build(builder(&backend).observer(observer));
    let waiting = elsewhere.clone();
    let next = thread::spawn(move || waiting.campaign());
    events.wait(|event| matches!(event, Event::Waiting { .. }));

    // Ten minutes of work that gets on.
    for _ in 0..30 {
        leader.alive();
        backend.pass(20 * SEC);
        heard.wait(|event| matches!(event, Event::Renewed));
    }
    leader.watch().alive();
    leader.check().expect("it is alive");
    // It hangs: nobody renews it after 30 seconds, and its lease lasts for 60 more at most.
    for _ in 0..9 {
        backend.pass(10 * SEC);
    }
    let next = next.join().expect("no panic").expect("the lease is over");
    assert!(next.term() > leader.term());
    assert_eq!(leader.loss_reason(), Some(LossReason::Unhealthy));
    leader.alive();
    let error = leader.resign().expect_err("it was replaced");
    assert_eq!(error.loss_reason(), Some(LossReason::Unhealthy), "{error}");
    next.check().expect("it leads");
}

#[test]
fn stop_ends_the_wait_between_two_terms_and_the_watching() {
    let backend = Backend::emulator();
    let stop = StopToken::new();
    let slow = builder(&backend).poll_interval(LONG * 100);
    let election = build(slow.stop_token(&stop));
    let watching = thread::spawn({
        let mut observer = election.observe(LONG * 100);
        assert_eq!(observer.next().expect("the first").expect("answered"), None);
        move || observer.next().is_none()
    });
    let other = stop.clone();
    let leading = thread::spawn(move || {
        election.lead(|_| {
            // It is noticed after the work, which goes on.
            other.stop();
            ControlFlow::Continue(())
        })
    });
    let error = leading
        .join()
        .expect("no panic")
        .expect_err("it is stopped");
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
    assert!(
        watching.join().expect("no panic"),
        "it ends without an item"
    );
}

#[test]
fn watching_takes_one_request_in_each_interval_and_no_lease() {
    let backend = Backend::emulator();
    let here = election(&backend);
    let leader = here.campaign().expect("nobody leads");
    let (before, stop) = (requests(&backend), StopToken::new());
    let elsewhere = build(builder(&backend).stop_token(&stop));
    let watching = thread::spawn(move || elsewhere.observe(100 * MILLI).count());
    let begun = Instant::now();
    while requests(&backend) - before < 8 {
        thread::sleep(10 * MILLI);
    }
    // Seven delays of at least 85 milliseconds.
    assert!(begun.elapsed() > 7 * 85 * MILLI - 20 * MILLI);
    stop.stop();
    assert_eq!(watching.join().expect("no panic"), 1, "there was no change");
    leader.resign().expect("it leads");
}

#[test]
fn observer_survives_a_service_that_is_overloaded_or_silent() {
    let backend = Backend::emulator();
    let here = election(&backend);
    let leader = here.campaign().expect("nobody leads");
    let (proxy, mutex) = backend.through_proxy_within(SEC).expect("it speaks HTTP");
    let election = build(Locker::builder(mutex, KEY));
    let faults = [
        Fault::HangBefore,
        Fault::DropBefore,
        Fault::Answer(server_busy(None)),
        Fault::ResetAfter,
        Fault::DropAfter,
    ];
    for fault in faults.clone() {
        proxy.push(fault);
    }
    let mut observer = election.observe(10 * MILLI);
    let told = observer
        .next()
        .expect("it does not end")
        .expect("they pass");
    assert_eq!(told.map(|told| told.term()), Some(leader.term()));
    for fault in faults {
        proxy.push(fault);
    }
    leader.resign().expect("it leads");
    let told = observer
        .next()
        .expect("it does not end")
        .expect("they pass");
    assert_eq!(told, None);
}

#[test]
fn observer_tells_of_failures_that_last_and_goes_on() {
    let backend = Backend::emulator();
    drop(election(&backend).campaign().expect("nobody leads"));
    let (proxy, mutex) = backend.through_proxy_within(SEC).expect("it speaks HTTP");
    let election = build(Locker::builder(mutex, KEY).fault_wait(SEC));
    proxy.always(Some(Fault::DropBefore));
    let mut observer = election.observe(10 * MILLI);
    for _ in 0..2 {
        let error = observer.next().expect("it does not end");
        let error = error.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Transport, "{error}");
    }
    proxy.clear();
    assert_eq!(
        observer.next().expect("it goes on").expect("answered"),
        None
    );

    let refused = backend.mutex_by_sas("sv=2024-11-04&sr=c&sp=r&sig=AAAA");
    let mut observer = build(Locker::builder(refused, KEY)).observe(10 * MILLI);
    let error = observer.next().expect("an item").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
}

#[test]
fn candidate_survives_lost_replies_and_a_hang() {
    let backend = Backend::emulator();
    let here = election(&backend);
    let before = here.campaign().expect("nobody leads");
    let term = before.term();
    before.resign().expect("it leads");
    for fault in [Fault::DropAfter, Fault::ResetAfter, Fault::HangAfter] {
        let (proxy, mutex) = backend.through_proxy_within(SEC).expect("it speaks HTTP");
        let election = build(Locker::builder(mutex, KEY).hand_over_for(Duration::ZERO));
        // The reply to the acquire, and the one to the term.
        proxy.push(fault.clone());
        proxy.push(Fault::Pass);
        proxy.push(fault);
        let leader = election.campaign().expect("it is answered in the end");
        assert!(leader.term() > term);
        let told = here.leader().expect("it is answered");
        assert_eq!(told.map(|told| told.term()), Some(leader.term()));
        leader.resign().expect("it leads");
        proxy.release_hung();
    }
}
