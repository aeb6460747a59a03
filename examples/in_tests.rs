//! How to test a program that takes locks: on the embedded emulator, with a clock that the test
//! advances.
//!
//! ```text
//! cargo test --example in_tests
//! ```
//!
//! In the manifest of such a program:
//!
//! ```toml
//! [dev-dependencies]
//! azmutex = { version = "0.1", features = ["emulator"] }
//! ```

use azmutex::{AzureMutex, Error, Locker, MutexOptions, TryLockError};

/// The program: makes the nightly report, unless another machine is making it.
fn main() -> Result<(), Error> {
    let mutex = AzureMutex::new(MutexOptions::from_env("locks")?)?;
    match report(&mutex)? {
        true => println!("made the report"),
        false => println!("left the report to another machine"),
    }
    Ok(())
}

fn report(mutex: &AzureMutex) -> Result<bool, Error> {
    let guard = match Locker::new(mutex.clone(), "report")?.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    };
    // the work
    guard.release()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use azmutex::LeaseDuration;
    use azmutex::emulator::Emulator;

    use super::*;

    type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

    #[test]
    fn report_is_made_once_the_lease_of_a_dead_machine_has_run_out() -> Result<()> {
        let emulator = Emulator::start()?;
        let mutex = AzureMutex::new(emulator.options("locks")?)?;
        // Nobody renews this lease: its holder is gone.
        mutex.acquire("report", LeaseDuration::from_secs(60)?)?;

        assert!(!report(&mutex)?);
        emulator.clock().advance(Duration::from_secs(60));
        assert!(report(&mutex)?);
        Ok(())
    }

    #[test]
    fn report_is_left_to_a_machine_that_is_making_it() -> Result<()> {
        let emulator = Emulator::start()?;
        let mutex = AzureMutex::new(emulator.options("locks")?)?;
        let _guard = Locker::new(mutex.clone(), "report")?.lock()?;

        assert!(!report(&mutex)?);
        Ok(())
    }
}
