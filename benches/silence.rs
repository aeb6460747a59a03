//! The cost of a service that does not answer: 1,000 guards are dropped one after the other.
//!
//! ```text
//! cargo bench --bench silence
//! ```

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{AzureMutex, Locker, MutexOptions};

use support::{CONTAINER, Proxy, Result, Server, role, verdict};

const GUARDS: usize = 1000;
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// In release timeouts.
const TARGET: f64 = 2.0;
/// When to stop measuring.
const LIMIT: u32 = 20;

fn main() -> Result<()> {
    role()?;
    let server = Server::start()?;
    let proxy = Proxy::start(&server, Duration::ZERO)?;
    let options = MutexOptions::from_connection_string(&proxy.connection_string, CONTAINER)?;
    let mutex = AzureMutex::new(options)?;
    let mut guards = Vec::with_capacity(GUARDS);
    for number in 0..GUARDS {
        let locker = Locker::builder(mutex.clone(), &format!("key-{number}"))
            .release_timeout(RELEASE_TIMEOUT);
        guards.push(locker.build()?.lock()?);
    }
    proxy.silence();

    let (sender, dropped) = mpsc::channel();
    let start = Instant::now();
    thread::spawn(move || {
        for guard in guards {
            drop(guard);
            let _ = sender.send(()); // Nobody listens once the limit is over.
        }
    });
    let mut count = 0;
    let left = || (LIMIT * RELEASE_TIMEOUT).saturating_sub(start.elapsed());
    while dropped.recv_timeout(left()).is_ok() {
        count += 1;
    }
    let ratio = start.elapsed().as_secs_f64() / RELEASE_TIMEOUT.as_secs_f64();
    println!(
        "{count} of {GUARDS} guards dropped in {ratio:.2} release timeouts (target: all in at most \
         {TARGET}: {})",
        verdict(count == GUARDS && ratio <= TARGET)
    );
    Ok(())
}
