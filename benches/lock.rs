//! What `drop(locker.lock()?)` costs over the two requests that it sends, uncontended, to a blob
//! that exists.
//!
//! ```text
//! cargo bench --bench lock
//! ```
//!
//! Time is the ratio of blocks that take turns, so that a machine that is busy is so for both.
//! Exits with another code than 0 if a lock and its release are not 2 requests on 1 connection;
//! time depends on the machine, and is only reported.

mod support;

use std::time::{Duration, Instant};

use azmutex::{AzureMutex, Locker, MutexOptions};

use support::{CONTAINER, Raw, Result, Server, role, spread, verdict};

const PAIRS: usize = 60;
const BLOCK: u32 = 50;
const TARGET: f64 = 1.25;

fn main() -> Result<()> {
    role()?;
    let mut server = Server::start()?;
    let options = MutexOptions::from_connection_string(&server.connection_string, CONTAINER)?;
    let locker = Locker::new(AzureMutex::new(options)?, "bench")?;
    let lock = || {
        drop(locker.lock()?);
        Ok(())
    };
    lock()?; // creates the blob

    let before = server.counts()?;
    let locks = u64::from(BLOCK);
    block(&lock)?;
    let after = server.counts()?;
    let requests = (after.requests - before.requests) as f64 / locks as f64;
    println!("requests per lock and release: {requests} (must be 2)");
    println!("connections: {} (must be 1)", after.connections);

    let raw = Raw::new(&server.connection_string, "bench")?;
    let pair = || raw.pair();
    block(&pair)?; // connects

    let mut ratios = Vec::new();
    let (mut raw_times, mut lock_times) = (Vec::new(), Vec::new());
    for turn in 0..PAIRS {
        // Neither is always the first.
        let (raw_time, lock_time) = if turn % 2 == 0 {
            let raw_time = block(&pair)?;
            (raw_time, block(&lock)?)
        } else {
            let lock_time = block(&lock)?;
            (block(&pair)?, lock_time)
        };
        ratios.push(lock_time.as_secs_f64() / raw_time.as_secs_f64());
        raw_times.push(raw_time.as_secs_f64() * 1e6 / f64::from(BLOCK));
        lock_times.push(lock_time.as_secs_f64() * 1e6 / f64::from(BLOCK));
    }
    let connections = server.counts()?.connections;
    for (what, times) in [("raw pair", raw_times), ("lock and release", lock_times)] {
        let (min, median, max) = spread(times);
        println!("{what}, µs: min {min:.1} median {median:.1} max {max:.1}");
    }
    let (min, median, max) = spread(ratios);
    println!(
        "time ratio over {PAIRS} pairs of {BLOCK}: min {min:.3} median {median:.3} max {max:.3} \
         (target: median at most {TARGET}: {})",
        verdict(median <= TARGET)
    );
    // The other connection is the raw client's.
    if requests != 2.0 || after.connections != 1 || connections != 2 {
        return Err("a lock and its release are not 2 requests on 1 connection".into());
    }
    Ok(())
}

fn block(work: &impl Fn() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..BLOCK {
        work()?;
    }
    Ok(start.elapsed())
}
