//! The orders in which those who use a token and the thread that replaces it can get ahead of each
//! other, tried at random.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use azmutex::emulator::{BearerToken, Clock, Emulator};
use azmutex::{AccessToken, AzureMutex, Credential, Locker, MutexOptions};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, MaxSteps, Runner, thread};

const ORDERS: usize = 600;
const LIFE: Duration = Duration::from_secs(600);

struct Scene {
    clock: Clock,
    emulator: Arc<Emulator>,
    mutex: AzureMutex,
    asked: Arc<AtomicUsize>,
}

/// Plays `scene` in many orders, with tokens that expire. Each has to come to its end.
fn explore(name: &str, scene: impl Fn(&Scene) + Send + Sync + 'static) {
    let started = Instant::now();
    let mut config = Config::new();
    config.max_steps = MaxSteps::ContinueAfter(20_000);
    config.stack_size = 1024 * 1024;
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let orders = Runner::new(RandomScheduler::new(ORDERS), config).run(move || {
        let clock = Clock::frozen();
        let emulator = Emulator::builder().clock(clock.clone()).start().unwrap();
        let emulator = Arc::new(emulator);
        let asked = Arc::new(AtomicUsize::new(0));
        let issuer = (Arc::clone(&emulator), Arc::clone(&asked), clock.clone());
        let credential = Credential::token_provider(move |_| {
            let (emulator, asked, clock) = &issuer;
            let number = asked.fetch_add(1, Ordering::SeqCst);
            let token = format!("token-{number}");
            emulator.expect_bearer(BearerToken::new(&*token).expires_in(LIFE));
            let expires = SystemTime::now() + clock.elapsed() + LIFE;
            Ok(AccessToken::new(token, expires)?)
        });
        let options = MutexOptions::with_credential(emulator.account(), credential, "locks");
        let options = options.unwrap().endpoint(&emulator.endpoint()).unwrap();
        let mutex = AzureMutex::new(options.clock(clock.clone())).unwrap();
        scene(&Scene {
            clock,
            emulator,
            mutex,
            asked,
        });
        counted.fetch_add(1, Ordering::SeqCst);
    });
    println!("{name}: {orders} orders in {:.1?}", started.elapsed());
    assert_eq!(
        ended.load(Ordering::SeqCst),
        ORDERS,
        "some did not come to their end"
    );
}

#[test]
fn those_who_wait_for_a_first_token_all_get_one() {
    explore("first token", |scene| {
        let others = [(); 3].map(|()| {
            let mutex = scene.mutex.clone();
            thread::spawn(move || mutex.token_identity().unwrap().unwrap())
        });
        others
            .into_iter()
            .for_each(|other| drop(other.join().unwrap()));
        assert_eq!(scene.asked.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn locks_are_taken_and_released_while_tokens_are_replaced() {
    explore("replaced", |scene| {
        let others = ["one", "two"].map(|key| {
            let locker = Locker::new(scene.mutex.clone(), key).unwrap();
            thread::spawn(move || {
                for _ in 0..2 {
                    locker.lock().unwrap().release().unwrap();
                }
            })
        });
        let clock = scene.clock.clone();
        let later = thread::spawn(move || clock.advance(LIFE / 2));
        others.into_iter().for_each(|other| other.join().unwrap());
        later.join().unwrap();
    });
}

#[test]
fn token_that_is_refused_is_replaced_for_all() {
    explore("refused", |scene| {
        let guard = Locker::new(scene.mutex.clone(), "key")
            .unwrap()
            .lock()
            .unwrap();
        scene.emulator.revoke_bearer("token-0");
        let others = [(); 2].map(|()| {
            let mutex = scene.mutex.clone();
            thread::spawn(move || drop(mutex.status("key").unwrap()))
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        guard.release().unwrap();
        assert_eq!(scene.asked.load(Ordering::SeqCst), 2);
    });
}
