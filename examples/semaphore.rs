//! Ten workers, and three permits: never more than three are at work.
//!
//! ```text
//! cargo run --example semaphore --features emulator
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Locker, Semaphore};

const PERMITS: u32 = 3;
const WORKERS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start()?;
    let at_work = AtomicUsize::new(0);
    let most = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn({
                    let (emulator, at_work) = (&emulator, &at_work);
                    move || work(worker, &semaphore(emulator)?, at_work)
                })
            })
            .collect();
        let mut most = 0;
        for worker in workers {
            most = most.max(worker.join().expect("no worker panics")?);
        }
        Ok::<_, azmutex::Error>(most)
    })?;
    let requests = emulator.requests();
    println!("{WORKERS} workers, {PERMITS} permits: at most {most} at once, {requests} requests");
    assert!(most <= PERMITS as usize);

    let free = semaphore(&emulator)?;
    free.acquire()?.release()?;
    let before = emulator.requests();
    free.acquire()?.release()?;
    println!(
        "a permit nobody else wants: {} requests",
        emulator.requests() - before
    );
    Ok(())
}

/// As another process would make it: the workers share nothing but the service.
fn semaphore(emulator: &Emulator) -> Result<Semaphore, azmutex::Error> {
    let mutex = AzureMutex::new(emulator.options("locks")?)?;
    Locker::builder(mutex, "deploy")
        .poll_interval(Duration::from_millis(50))
        .build_semaphore(PERMITS)
}

/// Works with a permit. Returns how many were at work.
fn work(
    worker: usize,
    semaphore: &Semaphore,
    at_work: &AtomicUsize,
) -> Result<usize, azmutex::Error> {
    let permit = semaphore.acquire()?;
    let slot = semaphore.slot(&permit).unwrap_or_default();
    let now = at_work.fetch_add(1, Ordering::SeqCst) + 1;
    println!("worker {worker} has permit {slot}; at work: {now}");
    thread::sleep(Duration::from_millis(100)); // the work
    permit.check()?;
    at_work.fetch_sub(1, Ordering::SeqCst);
    permit.release()?;
    Ok(now)
}
