//! Finds out that the previous holder was killed in the middle of its work, and finishes that work.
//!
//! ```text
//! cargo run --example abandoned
//! ```
//!
//! Runs on the embedded emulator, and starts a copy of itself as the process that dies. The work
//! has two steps, which are counted in the value that the lock guards.

use std::env;
use std::error::Error;
use std::process::{self, Command};
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, LeaseGuard, Locker, MutexOptions};

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).as_deref() == Some("die") {
        let guard = lock(MutexOptions::from_env("locks")?)?;
        guard.write(b"step 1 of 2")?;
        process::abort(); // no destructor runs: the lease stays, but nobody renews it
    }

    let emulator = Emulator::start()?;
    let ended = Command::new(env::current_exe()?)
        .arg("die")
        .env(
            "AZURE_STORAGE_CONNECTION_STRING",
            emulator.connection_string(),
        )
        .status()?;
    println!("the first holder: {ended}");
    emulator.clock().advance(Duration::from_secs(60)); // its lease runs out

    let guard = lock(emulator.options("locks")?)?;
    if !guard.previous().is_abandoned() {
        return Err("the previous holder released the lock".into());
    }
    if let Some(holder) = guard.previous().holder() {
        println!("{holder} did not release the lock");
    }
    println!("left off at: {}", String::from_utf8_lossy(&guard.read()?));
    guard.write(b"step 2 of 2")?; // the repair
    guard.release()?;

    let guard = lock(emulator.options("locks")?)?;
    if guard.previous().is_abandoned() {
        return Err("the previous holder did not release the lock".into());
    }
    println!("now at: {}", String::from_utf8_lossy(&guard.read()?));
    Ok(())
}

fn lock(options: MutexOptions) -> Result<LeaseGuard, azmutex::Error> {
    let locker = Locker::builder(AzureMutex::new(options)?, "migration")
        .reason("schema 42")
        .fencing(true)
        .build()?;
    locker.lock()
}
