//! Shows who holds a lock.
//!
//! ```text
//! AZURE_STORAGE_CONNECTION_STRING=… cargo run --example status
//! ```
//!
//! Without an account in the environment, it uses the embedded emulator.

use std::env;
use std::error::Error;
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, LeaseStatus, Locker, MutexOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let variables = ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"];
    if variables.iter().any(|name| env::var_os(name).is_some()) {
        let options = || MutexOptions::from_env("locks");
        return show(AzureMutex::new(options()?)?, AzureMutex::new(options()?)?);
    }
    eprintln!("no storage account in the environment: this is the embedded emulator");
    let emulator = Emulator::start()?; // stops when it is dropped
    let options = || emulator.options("locks");
    show(AzureMutex::new(options()?)?, AzureMutex::new(options()?)?)
}

/// One client takes a lock, and the other shows who holds it.
fn show(one: AzureMutex, other: AzureMutex) -> Result<(), Box<dyn Error>> {
    let locker = Locker::builder(one, "nightly/report")
        .reason("release 812")
        .holder_delay(Duration::ZERO) // before `lock` returns, not a moment later
        .build()?;
    let guard = locker.lock()?;
    print(&other.status("nightly/report")?);

    guard.release()?;
    for lock in other.list("nightly/") {
        print(&lock?);
    }
    Ok(())
}

fn print(lock: &LeaseStatus) {
    let (key, state) = (lock.key(), lock.state());
    match (lock.holder(), lock.last_holder()) {
        (Some(holder), _) => println!("{key} is {state}, held by {holder}"),
        (None, Some(last)) => println!("{key} is {state}, last recorded: {last}"),
        (None, None) => println!("{key} is {state}"),
    }
}
