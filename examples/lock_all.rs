//! Two threads move money between two accounts, in opposite directions: each takes both locks or none,
//! so they never wait for each other for ever, and no money gets lost.
//!
//! ```text
//! cargo run --example lock_all --features emulator
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Locker, lock_all};

const ROUNDS: usize = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start()?;
    let accounts = [AtomicI64::new(1000), AtomicI64::new(1000)];
    thread::scope(|scope| {
        let there = scope.spawn(|| transfer(&emulator, &accounts, [0, 1], 7));
        let back = scope.spawn(|| transfer(&emulator, &accounts, [1, 0], 3));
        there.join().expect("no panic")?;
        back.join().expect("no panic")
    })?;
    let [one, other] = accounts.map(AtomicI64::into_inner);
    println!(
        "{ROUNDS} transfers in each direction: {one} + {other} = {}",
        one + other
    );
    assert_eq!((one, other), (900, 1100));

    let three = ["a", "b", "c"].map(|key| locker(&emulator, key));
    let three = three.into_iter().collect::<Result<Vec<_>, _>>()?;
    lock_all(&three)?.release()?;
    let before = emulator.requests();
    lock_all(&three)?.release()?;
    println!(
        "three free locks: {} requests",
        emulator.requests() - before
    );
    Ok(())
}

fn locker(emulator: &Emulator, key: &str) -> Result<Locker, azmutex::Error> {
    let mutex = AzureMutex::new(emulator.options("locks")?)?;
    let locker = Locker::builder(mutex, key);
    locker.poll_interval(Duration::from_millis(10)).build()
}

/// Moves an amount from one account to another, again and again.
fn transfer(
    emulator: &Emulator,
    accounts: &[AtomicI64; 2],
    [from, to]: [usize; 2],
    amount: i64,
) -> Result<(), azmutex::Error> {
    let lockers = [
        locker(emulator, &format!("accounts/{from}"))?,
        locker(emulator, &format!("accounts/{to}"))?,
    ];
    for _ in 0..ROUNDS {
        let guards = lock_all(&lockers)?;
        // Nobody else does this now, so reading and writing apart loses nothing.
        let (left, right) = (
            accounts[from].load(Ordering::SeqCst),
            accounts[to].load(Ordering::SeqCst),
        );
        thread::sleep(Duration::from_millis(1));
        guards.check()?;
        accounts[from].store(left - amount, Ordering::SeqCst);
        accounts[to].store(right + amount, Ordering::SeqCst);
        guards.release()?;
    }
    Ok(())
}
