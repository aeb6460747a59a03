//! The clock that tests advance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, Event, Locker};

const THIRD: Duration = Duration::from_secs(20);

#[test]
fn advance_returns_when_the_renewals_it_caused_are_done() {
    let emulator = Emulator::builder().clock(Clock::frozen()).start();
    let emulator = emulator.expect("a free port");
    let mutex = AzureMutex::new(emulator.options("locks").expect("sound")).expect("sound");
    let guards: Vec<_> = ["one", "two", "three"]
        .map(|key| {
            let renewed = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&renewed);
            let locker = Locker::builder(mutex.clone(), key)
                .holder_info(false)
                .observer(move |event| {
                    if matches!(event, Event::Renewed) {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                })
                .build();
            let guard = locker.expect("sound").lock().expect("free");
            (guard, renewed)
        })
        .into();
    let renewed = || -> Vec<u32> {
        let counts = guards.iter();
        counts
            .map(|(_, count)| count.load(Ordering::SeqCst))
            .collect()
    };
    for times in 1..20 {
        emulator.clock().advance(THIRD);
        assert_eq!(renewed(), [times; 3]);
        assert!(guards.iter().all(|(guard, _)| guard.is_held()));
    }
}

#[test]
fn clock_shows_itself_by_its_public_name() {
    let clock = Clock::frozen();
    clock.advance(THIRD);
    assert!(format!("{clock:?}").starts_with("Clock { elapsed: 20s"));
}
