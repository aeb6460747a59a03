//! Runs a migration on one machine at a time.
//!
//! ```text
//! AZURE_STORAGE_CONNECTION_STRING=… cargo run --example migration
//! ```
//!
//! Without an account in the environment, it uses the embedded emulator.

use std::env;
use std::error::Error;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Locker, MutexOptions};

const STEPS: [&str; 3] = ["add the column", "fill it", "drop the old one"];

fn main() -> Result<(), Box<dyn Error>> {
    let variables = ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"];
    if variables.iter().any(|name| env::var_os(name).is_some()) {
        return migrate(MutexOptions::from_env("locks")?);
    }
    eprintln!("no storage account in the environment: this is the embedded emulator");
    let emulator = Emulator::start()?; // stops when it is dropped
    migrate(emulator.options("locks")?)
}

fn migrate(options: MutexOptions) -> Result<(), Box<dyn Error>> {
    let locker = Locker::new(AzureMutex::new(options)?, "migration")?;
    let guard = locker.lock()?; // waits while another machine migrates
    for step in STEPS {
        guard.check()?; // fails once the lock may no longer be held
        println!("{step}");
    }
    guard.release()?; // `Drop` would release it too, but would only log a failure
    Ok(())
}
