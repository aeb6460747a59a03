//! The orders in which a guard's threads can get ahead of each other, tried at random.
//!
//! Requests go to the emulator, over a socket: each is one step for the scheduler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use azmutex::emulator::{Clock, Emulator};
use azmutex::{
    AzureMutex, ErrorKind, Event, LeaseGuard, LeaseState, Locker, LockerBuilder, LossReason,
    StopToken, TryLockError,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, MaxSteps, Runner, thread};

/// How many orders of a scene are tried, and of one in which threads wait for each other's lock, or
/// for a service that is silent, which takes real time.
const ORDERS: usize = 2000;
const ORDERS_WITH_PAUSES: usize = 600;
const ORDERS_IN_SILENCE: usize = 200;

/// One order of a scene, with a lock of its own.
struct Scene {
    emulator: Arc<Emulator>,
    mutex: AzureMutex,
    key: String,
}

impl Scene {
    /// Time stands still unless a scene moves it.
    fn service() -> Arc<Emulator> {
        let builder = Emulator::builder().clock(Clock::frozen());
        Arc::new(builder.start().unwrap())
    }

    fn new(emulator: Arc<Emulator>, key: String) -> Self {
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        Self {
            emulator,
            mutex,
            key,
        }
    }

    fn locker(&self) -> LockerBuilder {
        self.locker_of(&self.key)
    }

    fn locker_of(&self, key: &str) -> LockerBuilder {
        Locker::builder(self.mutex.clone(), key)
            .hand_over_for(Duration::from_secs(60))
            .poll_interval(Duration::from_millis(10))
    }

    /// Moves the clock. Whoever goes by it acts then, or later.
    fn advance(&self, by: Duration) {
        let clock = self.emulator.clock();
        thread::spawn(move || clock.advance(by));
        thread::yield_now();
    }

    /// The same, and returns once the clock shows it.
    fn advance_now(&self, by: Duration) {
        let clock = self.emulator.clock();
        let before = clock.elapsed();
        self.advance(by);
        while clock.elapsed() == before {
            thread::yield_now();
        }
    }

    /// Whether nobody's lease is left behind.
    fn is_free(&self) -> bool {
        match self.mutex.status(&self.key) {
            Ok(status) => !matches!(status.state(), LeaseState::Leased | LeaseState::Breaking),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }
}

/// In how many orders something came about: a scene that never shows what it is for shows nothing.
#[derive(Clone, Default)]
struct Reached(Arc<AtomicUsize>);

impl Reached {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    #[track_caller]
    fn assert(&self, what: &str) {
        let orders = self.0.load(Ordering::SeqCst);
        println!("    {what} in {orders} orders");
        assert!(orders > 0, "never reached: {what}");
    }
}

/// Lets the others go on for a while, or not.
fn dawdle() {
    for _ in 0..thread_rng().gen_range(0..40) {
        thread::yield_now();
    }
}

/// Plays `scene` in many orders. Each has to come to its end.
fn explore(name: &str, scene: impl Fn(&Scene) + Send + Sync + 'static) {
    explore_orders(ORDERS, name, scene);
}

fn explore_orders(count: usize, name: &str, scene: impl Fn(&Scene) + Send + Sync + 'static) {
    let started = Instant::now();
    let mut config = Config::new();
    config.max_steps = MaxSteps::ContinueAfter(20_000);
    config.stack_size = 1024 * 1024;
    let service = Scene::service();
    let (begun, ended) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&ended);
    let orders = Runner::new(RandomScheduler::new(count), config).run(move || {
        let number = AtomicUsize::fetch_add(&begun, 1, Ordering::SeqCst);
        scene(&Scene::new(
            Arc::clone(&service),
            format!("migration/{number}"),
        ));
        counted.fetch_add(1, Ordering::SeqCst);
    });
    println!("{name}: {orders} orders in {:.1?}", started.elapsed());
    assert_eq!(
        ended.load(Ordering::SeqCst),
        count,
        "some did not come to their end"
    );
}

#[test]
fn drop_releases_whatever_the_renewal_thread_does() {
    explore("drop", |scene| {
        let guard = scene.locker().build().unwrap().lock().unwrap();
        let watch = guard.watch();
        scene.advance(Duration::from_secs(20));
        let looker = thread::spawn({
            let watch = watch.clone();
            move || (0..3).for_each(|_| drop(watch.check()))
        });
        drop(guard);
        assert!(!watch.is_held());
        assert_eq!(watch.loss_reason(), Some(LossReason::Released));
        assert!(scene.is_free());
        looker.join().unwrap();
        assert!(
            !watch.is_held(),
            "a renewal that ends later changes nothing"
        );
    });
}

#[test]
fn release_while_a_renewal_is_in_flight_is_sent_once_and_succeeds() {
    let reached = Reached::default();
    let in_flight = reached.clone();
    explore("renewal in flight", move |scene| {
        let renewed = Arc::new(AtomicUsize::new(0));
        let heard = Arc::clone(&renewed);
        let observer = move |event: &Event| {
            if let Event::Renewed = event {
                heard.fetch_add(1, Ordering::SeqCst);
            }
        };
        let builder = scene.locker().holder_info(false);
        let locker = builder.observer(observer).build().unwrap();
        let guard = locker.lock().unwrap();
        let watch = guard.watch();
        let before = scene.emulator.requests();
        scene.advance(Duration::from_secs(20));
        guard.release().unwrap();
        assert_eq!(watch.loss_reason(), Some(LossReason::Released));
        assert!(scene.is_free());
        let told = renewed.load(Ordering::SeqCst);
        // The release, the look whether it is free, and a renewal or none.
        let renewals = scene.emulator.requests() - before - 2;
        assert!(renewals <= 1, "a release was sent twice");
        if renewals == 1 && told == 0 {
            in_flight.count();
        }
        dawdle();
        assert_eq!(
            renewed.load(Ordering::SeqCst),
            told,
            "told after the release"
        );
        assert!(!watch.is_held());
    });
    reached.assert("the renewal was in flight");
}

#[test]
fn guard_is_renewed_for_as_long_as_it_is_held() {
    explore("renewals", |scene| {
        let guard = scene.locker().build().unwrap().lock().unwrap();
        for _ in 0..5 {
            scene.advance_now(Duration::from_secs(20));
            // Whoever waits for a thread that has ended waits for ever, and does not come to its end.
            while guard.remaining() < Duration::from_secs(50) {
                assert!(guard.is_held());
                thread::yield_now();
            }
        }
        guard.release().unwrap();
    });
}

#[test]
fn thread_that_cannot_be_started_strands_no_lease_and_no_waiter() {
    explore("no thread", |scene| {
        let stop = StopToken::new();
        let builder = scene
            .locker_of(&format!("no-thread/{}", scene.key))
            .stop_token(&stop);
        let locker = builder.build().unwrap();
        let others = [(); 2].map(|()| {
            let locker = locker.clone();
            thread::spawn(move || match locker.try_lock() {
                Ok(guard) => guard.release().unwrap(),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => assert_eq!(error.kind(), ErrorKind::System),
            })
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        stop.stop();
        assert_eq!(locker.lock().unwrap_err().kind(), ErrorKind::Stopped);
        assert!(locker.settle(Duration::ZERO));
        match scene.mutex.status(locker.key()) {
            Ok(status) => assert_eq!(status.state(), LeaseState::Available),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
    });
}

#[test]
fn guards_dropped_while_the_service_is_silent_end_and_the_last_does_not_wait_again() {
    let reached = Reached::default();
    let abandoned = reached.clone();
    explore_orders(ORDERS_IN_SILENCE, "silence", move |_| {
        let scene = Scene::new(Scene::service(), "migration".to_owned());
        let lockers = ["first", "second", "third"].map(|key| {
            let builder = scene.locker_of(key);
            let builder = builder.release_timeout(Duration::from_millis(20));
            builder.build().unwrap()
        });
        let guards = lockers.each_ref().map(|locker| locker.lock().unwrap());
        let watches = guards.each_ref().map(LeaseGuard::watch);
        drop(scene); // The service is gone with it.
        let release = |guard: LeaseGuard| {
            let error = guard.release().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Transport);
            error
        };
        let [first, second, third] = guards;
        let releasing = [first, second].map(|guard| thread::spawn(move || release(guard)));
        for release in releasing {
            release.join().unwrap();
        }
        if release(third).lease_id().is_some() {
            abandoned.count();
        }
        for (locker, watch) in lockers.iter().zip(&watches) {
            assert_eq!(watch.loss_reason(), Some(LossReason::Released));
            while !locker.settle(Duration::from_secs(60)) {}
        }
    });
    reached.assert("the last was released in the background");
}

#[test]
fn panic_under_the_guard_releases() {
    explore("panic", |scene| {
        let guard = scene.locker().build().unwrap().lock().unwrap();
        scene.advance(Duration::from_secs(20));
        let result = catch_unwind(AssertUnwindSafe(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new("the work failed"));
        }));
        assert!(result.is_err());
        assert!(scene.is_free());
    });
}

#[test]
fn watch_never_claims_what_the_guard_released() {
    explore_orders(ORDERS_WITH_PAUSES, "watch", |scene| {
        let locker = scene.locker().build().unwrap();
        let guard = locker.lock().unwrap();
        let watch = guard.watch();
        let other = thread::spawn(move || locker.lock().unwrap().release().unwrap());
        let reader = thread::spawn(move || {
            let mut held = true;
            for _ in 0..5 {
                let now = watch.is_held();
                assert!(held || !now, "released, and held again");
                held = now;
            }
        });
        scene.advance(Duration::from_secs(20));
        guard.release().unwrap();
        reader.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn expired_lease_is_not_claimed_while_another_holds() {
    explore("expiry", |scene| {
        let first = scene.locker().build().unwrap().lock().unwrap();
        scene.advance_now(Duration::from_secs(61));
        // The renewal thread may be in time, or not.
        let second = scene.locker().build().unwrap().try_lock();
        assert!(!(first.is_held() && second.as_ref().is_ok_and(|guard| guard.is_held())));
        drop(first);
        drop(second);
        assert!(scene.is_free());
    });
}

#[test]
fn threads_of_one_locker_get_the_lock_in_turn() {
    explore_orders(ORDERS_WITH_PAUSES, "turns", |scene| {
        let locker = scene.locker().build().unwrap();
        let others = [(); 2].map(|()| {
            let locker = locker.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let guard = locker.lock().unwrap();
                    assert!(guard.is_held());
                }
            })
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(scene.is_free());
    });
}

#[test]
fn stopped_lock_ends_and_leaves_no_lease() {
    let reached = Reached::default();
    let in_flight = reached.clone();
    explore("stop", move |scene| {
        let stop = StopToken::new();
        let locker = scene.locker().stop_token(&stop).build().unwrap();
        drop(locker.lock().unwrap());
        let waiting = thread::spawn({
            let locker = locker.clone();
            move || locker.lock().map(drop)
        });
        dawdle();
        stop.stop();
        if let Err(error) = waiting.join().unwrap() {
            assert_eq!(error.kind(), ErrorKind::Stopped);
            if error.lease_id().is_some() {
                in_flight.count();
            }
        }
        while !locker.settle(Duration::from_secs(60)) {}
        assert!(scene.is_free());
    });
    reached.assert("the acquire was in flight");
}

#[test]
fn lock_that_nobody_stops_is_acquired() {
    explore_orders(ORDERS_WITH_PAUSES, "not stopped", |scene| {
        let stop = StopToken::new();
        let locker = scene.locker().stop_token(&stop).build().unwrap();
        let others = [(); 2].map(|()| {
            let locker = locker.clone();
            thread::spawn(move || (0..2).for_each(|_| drop(locker.lock().unwrap())))
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(scene.is_free());
    });
}

#[test]
fn guard_dropped_in_its_observer_ends_at_once() {
    explore("drop in the observer", |scene| {
        let slot = Arc::new(std::sync::Mutex::new(None::<LeaseGuard>));
        let taken = Arc::clone(&slot);
        let locker = scene
            .locker()
            .observer(move |event| {
                if matches!(event, Event::Renewed) {
                    let guard = taken.lock().unwrap().take();
                    drop(guard);
                }
            })
            .build()
            .unwrap();
        let guard = locker.lock().unwrap();
        let watch = guard.watch();
        *slot.lock().unwrap() = Some(guard);
        scene.advance(Duration::from_secs(20));
        while watch.is_held() {
            thread::yield_now();
        }
        assert_eq!(watch.loss_reason(), Some(LossReason::Released));
        while !scene.is_free() {
            thread::yield_now();
        }
    });
}

#[test]
fn wait_that_ends_while_the_acquire_is_in_flight_leaves_no_lease() {
    let reached = Reached::default();
    let in_flight = reached.clone();
    explore("time limit", move |scene| {
        let locker = scene.locker().build().unwrap();
        drop(locker.lock().unwrap());
        let waiting = thread::spawn({
            let locker = locker.clone();
            move || locker.try_lock_for(Duration::from_secs(1)).map(drop)
        });
        dawdle();
        scene.advance(Duration::from_secs(2));
        if let Err(TryLockError::Error(error)) = waiting.join().unwrap()
            && error.lease_id().is_some()
        {
            in_flight.count();
        }
        while !locker.settle(Duration::from_secs(60)) {}
        assert!(scene.is_free());
    });
    reached.assert("the acquire was in flight");
}

/// A waiter's guard, and what became of it.
fn hold(guard: &LeaseGuard) {
    assert!(guard.is_held());
    dawdle();
    assert!(guard.is_held());
}

/// Counts the leases that go from guard to guard.
fn counting(locker: LockerBuilder, handed_over: &Reached) -> LockerBuilder {
    let handed_over = handed_over.clone();
    locker.observer(move |event| {
        if matches!(event, Event::HandedOver { .. }) {
            handed_over.count();
        }
    })
}

#[test]
fn lease_goes_from_guard_to_guard_and_each_is_the_only_one() {
    let reached = Reached::default();
    let handed_over = reached.clone();
    explore("hand-over", move |scene| {
        let locker = || counting(scene.locker(), &handed_over).build().unwrap();
        let guard = locker().lock().unwrap();
        let watch = guard.watch();
        let others = [(); 2].map(|()| {
            // Each has a locker of its own, which is gone before its guard.
            let (locker, watch) = (locker(), watch.clone());
            thread::spawn(move || {
                let guard = locker.lock().unwrap();
                drop(locker);
                assert!(!watch.is_held(), "two have the lock");
                hold(&guard);
                guard.release().unwrap();
            })
        });
        dawdle();
        hold(&guard);
        guard.release().unwrap();
        assert_eq!(watch.loss_reason(), Some(LossReason::Released));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(scene.is_free());
    });
    reached.assert("handed over");
}

#[test]
fn lease_that_goes_on_with_another_id_is_renewed_by_its_thread() {
    let reached = Reached::default();
    let handed_over = reached.clone();
    explore("hand-over with a change", move |scene| {
        let locker = counting(scene.locker(), &handed_over).build().unwrap();
        let guard = locker.lock().unwrap();
        let id = guard.lease_id();
        let next = thread::spawn(move || locker.lock().unwrap());
        dawdle();
        scene.advance(Duration::from_secs(20));
        guard.release().unwrap();
        let next = next.join().unwrap();
        assert_ne!(next.lease_id(), id);
        for _ in 0..2 {
            scene.advance_now(Duration::from_secs(30));
        }
        while next.remaining() < Duration::from_secs(20) {
            thread::yield_now();
        }
        next.release().unwrap();
        assert!(scene.is_free());
    });
    reached.assert("handed over");
}

#[test]
fn waiter_that_is_stopped_while_it_is_given_the_lock_leaves_it_to_the_next() {
    let [given, stopped] = [(); 2].map(|()| Reached::default());
    let (gets, ends) = (given.clone(), stopped.clone());
    explore("stop in line", move |scene| {
        let stop = StopToken::new();
        let guard = scene.locker().build().unwrap().lock().unwrap();
        let locker = scene.locker().stop_token(&stop).build().unwrap();
        let (gets, ends) = (gets.clone(), ends.clone());
        let first = thread::spawn(move || match locker.lock() {
            Ok(guard) => {
                hold(&guard);
                gets.count();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Stopped);
                ends.count();
            }
        });
        let locker = scene.locker().build().unwrap();
        let second = thread::spawn(move || hold(&locker.lock().unwrap()));
        let stopper = thread::spawn(move || {
            dawdle();
            stop.stop();
        });
        dawdle();
        guard.release().unwrap();
        for thread in [first, second, stopper] {
            thread.join().unwrap();
        }
        assert!(scene.is_free());
    });
    given.assert("given the lock");
    stopped.assert("stopped");
}

#[test]
fn waiter_whose_time_is_up_while_it_is_given_the_lock_leaves_it_to_the_next() {
    let [given, late] = [(); 2].map(|()| Reached::default());
    let (gets, ends) = (given.clone(), late.clone());
    explore("time limit in line", move |scene| {
        let guard = scene.locker().build().unwrap().lock().unwrap();
        let (gets, ends) = (gets.clone(), ends.clone());
        let locker = scene.locker().build().unwrap();
        let first = thread::spawn(move || match locker.try_lock_for(Duration::from_secs(2)) {
            Ok(guard) => {
                hold(&guard);
                gets.count();
            }
            Err(TryLockError::WouldBlock) => ends.count(),
            Err(error) => panic!("{error}"),
        });
        let locker = scene.locker().build().unwrap();
        let second = thread::spawn(move || hold(&locker.lock().unwrap()));
        dawdle();
        scene.advance(Duration::from_secs(3));
        dawdle();
        guard.release().unwrap();
        first.join().unwrap();
        second.join().unwrap();
        assert!(scene.is_free());
    });
    given.assert("given the lock");
    late.assert("too late");
}

#[test]
fn first_in_line_whose_time_is_up_while_it_asks_leaves_that_to_the_next() {
    explore_orders(ORDERS_WITH_PAUSES, "time limit of the first", |scene| {
        let elsewhere = scene.locker().hand_over_for(Duration::ZERO);
        let guard = elsewhere.build().unwrap().lock().unwrap();
        let locker = scene.locker().build().unwrap();
        let first = thread::spawn({
            let locker = locker.clone();
            move || drop(locker.try_lock_for(Duration::from_secs(2)))
        });
        let second = thread::spawn({
            let locker = locker.clone();
            move || hold(&locker.lock().unwrap())
        });
        dawdle();
        scene.advance(Duration::from_secs(3));
        guard.release().unwrap();
        first.join().unwrap();
        second.join().unwrap();
        while !locker.settle(Duration::from_secs(60)) {}
        assert!(scene.is_free());
    });
}

#[test]
fn panic_under_the_guard_hands_nothing_over_and_the_next_one_is_served() {
    let handed_over = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handed_over);
    explore_orders(ORDERS_WITH_PAUSES, "panic with waiters", move |scene| {
        let counted = Arc::clone(&counted);
        let locker = scene.locker().observer(move |event| {
            if matches!(event, Event::HandedOver { .. }) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let guard = locker.build().unwrap().lock().unwrap();
        let locker = scene.locker().build().unwrap();
        let next = thread::spawn(move || hold(&locker.lock().unwrap()));
        dawdle();
        let result = catch_unwind(AssertUnwindSafe(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new("the work failed"));
        }));
        assert!(result.is_err());
        next.join().unwrap();
        assert!(scene.is_free());
    });
    assert_eq!(handed_over.load(Ordering::SeqCst), 0);
}

#[test]
fn lease_that_is_lost_wakes_the_next_in_line() {
    explore_orders(ORDERS_WITH_PAUSES, "loss with waiters", |scene| {
        let locker = scene.locker().build().unwrap();
        let guard = locker.lock().unwrap();
        let next = thread::spawn(move || hold(&locker.lock().unwrap()));
        dawdle();
        let broken = scene.mutex.break_lease(&scene.key, Some(Duration::ZERO));
        broken.unwrap();
        scene.advance(Duration::from_secs(20));
        // The guard is still there.
        next.join().unwrap();
        assert!(!guard.is_held());
        drop(guard);
        assert!(scene.is_free());
    });
}
