//! Five callers want a migration done: one of them does it, after another one has failed.
//!
//! ```text
//! cargo run --example once --features emulator
//! ```

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Locker, Once, OnceError};

/// How many started the migration.
static STARTED: AtomicUsize = AtomicUsize::new(0);

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start()?;
    thread::scope(|scope| {
        for caller in 1..=5 {
            let emulator = &emulator;
            scope.spawn(move || match call(caller, emulator) {
                Ok(Once::Ran(())) => println!("caller {caller}: did it"),
                Ok(Once::AlreadyDone(done)) => {
                    println!(
                        "caller {caller}: done by {}",
                        done.by().unwrap_or("another")
                    );
                }
                Err(error) => println!("caller {caller}: {error}"),
            });
        }
    });
    let started = STARTED.load(Ordering::SeqCst);
    println!("started {started} times: once in vain, and once for good");
    assert_eq!(started, 2);

    let before = emulator.requests();
    let _ = call(6, &emulator)?;
    println!("asked again: {} request", emulator.requests() - before);
    migration("caller 7", &emulator)?.forget_done()?;
    if let Once::Ran(()) = call(7, &emulator)? {
        println!("caller 7: did it again, since it was forgotten");
    }
    Ok(())
}

fn migration(caller: &str, emulator: &Emulator) -> Result<Locker, azmutex::Error> {
    let mutex = AzureMutex::new(emulator.options("locks")?)?;
    let migration = Locker::builder(mutex, "migrations/0042");
    migration
        .owner(caller)
        .poll_interval(Duration::from_millis(50))
        .build()
}

fn call(caller: u32, emulator: &Emulator) -> Result<Once<()>, OnceError<(), io::Error>> {
    let migration = migration(&format!("caller {caller}"), emulator).map_err(OnceError::Lock)?;
    migration.once(None, |guard| {
        guard.check().map_err(io::Error::other)?; // before each step
        thread::sleep(Duration::from_millis(200)); // the work
        if STARTED.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(io::Error::other("the disk is full"));
        }
        Ok(())
    })
}
