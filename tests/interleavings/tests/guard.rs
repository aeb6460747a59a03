//! The orders in which a guard's threads can get ahead of each other, tried at random.
//!
//! Requests go to the emulator, over a socket: each is one step for the scheduler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, ErrorKind, LeaseState, Locker, LockerBuilder, LossReason, StopToken};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, MaxSteps, Runner, thread};

/// How many orders of a scene are tried, and of one in which threads wait for each other's lock, which
/// takes real time.
const ORDERS: usize = 2000;
const ORDERS_WITH_PAUSES: usize = 600;

struct Scene {
    /// The emulator's, and all clients'.
    clock: Clock,
    mutex: AzureMutex,
}

impl Scene {
    fn locker(&self) -> LockerBuilder {
        Locker::builder(self.mutex.clone(), "migration")
            .poll_interval(Duration::from_millis(10))
    }

    /// Moves the clock. Whoever goes by it acts then, or later.
    fn advance(&self, by: Duration) {
        let clock = self.clock.clone();
        thread::spawn(move || clock.advance(by));
        thread::yield_now();
    }

    /// Whether nobody's lease is left behind. Time stands still unless a scene moves it.
    fn is_free(&self) -> bool {
        match self.mutex.status("migration") {
            Ok(status) => !matches!(status.state(), LeaseState::Leased | LeaseState::Breaking),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
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
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let orders = Runner::new(RandomScheduler::new(count), config).run(move || {
        // The clock knows the threads that go by it, so each order has its own.
        let clock = Clock::frozen();
        let emulator = Emulator::builder().clock(clock.clone()).start().unwrap();
        let mutex = AzureMutex::new(emulator.options("locks").unwrap()).unwrap();
        scene(&Scene { clock, mutex });
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
        let before = scene.clock.elapsed();
        scene.advance(Duration::from_secs(61));
        while scene.clock.elapsed() == before {
            thread::yield_now();
        }
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
    explore("stop", |scene| {
        let stop = StopToken::new();
        let locker = scene.locker().stop_token(&stop).build().unwrap();
        let waiting = thread::spawn({
            let locker = locker.clone();
            move || locker.lock().map(drop)
        });
        stop.stop();
        if let Err(error) = waiting.join().unwrap() {
            assert_eq!(error.kind(), ErrorKind::Stopped);
        }
        while !locker.settle(Duration::from_secs(60)) {}
        assert!(scene.is_free());
    });
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
        let slot = Arc::new(std::sync::Mutex::new(None::<azmutex::LeaseGuard>));
        let taken = Arc::clone(&slot);
        let locker = scene
            .locker()
            .observer(move |event| {
                if matches!(event, azmutex::Event::Renewed) {
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
fn wait_that_ends_while_a_request_is_under_way_leaves_no_lease() {
    explore("time limit", |scene| {
        let locker = scene.locker().build().unwrap();
        let waiting = thread::spawn({
            let locker = locker.clone();
            move || locker.try_lock_for(Duration::from_secs(1)).map(drop)
        });
        scene.advance(Duration::from_secs(2));
        let _ = waiting.join().unwrap();
        while !locker.settle(Duration::from_secs(60)) {}
        assert!(scene.is_free());
    });
}
