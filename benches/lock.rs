//! What `drop(locker.lock()?)` costs over the two requests that it sends, uncontended, to a blob
//! that exists.
//!
//! ```text
//! cargo bench --bench lock
//! ```
//!
//! Time is the ratio of blocks that take turns, so that a machine that is busy is so for all.
//! Exits with another code than 0 if a lock and its release are not 2 requests on 1 connection;
//! time depends on the machine, and is only reported.

mod support;

use std::time::{Duration, Instant};

use azmutex::{AzureMutex, Locker, MutexOptions};

use support::{CONTAINER, Raw, Result, Server, TIMEOUT, role, spread, verdict};

const TURNS: usize = 200;
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

    let timed = Raw::new(&server.connection_string, "bench", TIMEOUT)?;
    let untimed = Raw::new(&server.connection_string, "bench", None)?;
    let works: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("lock and release", &lock),
        ("requests with a timeout", &|| timed.pair()),
        ("requests without one", &|| untimed.pair()),
    ];
    let mut times = [const { Vec::new() }; 3];
    for turn in 0..=TURNS {
        // None is always the first.
        for which in (0..3).map(|which| (which + turn) % 3) {
            let time = block(works[which].1)?.as_secs_f64();
            // The first turn connects.
            if turn > 0 {
                times[which].push(time * 1e6 / f64::from(BLOCK));
            }
        }
    }
    let connections = server.counts()?.connections;
    for ((what, _), times) in works.iter().zip(&times) {
        let (min, median, max) = spread(times.clone());
        println!("{what}, µs: min {min:.1} median {median:.1} max {max:.1}");
    }
    for which in 1..3 {
        let pairs = times[0].iter().zip(&times[which]);
        let (min, median, max) = spread(pairs.map(|(lock, raw)| lock / raw).collect());
        println!(
            "time ratio to {}, {TURNS} pairs of {BLOCK}: min {min:.3} median {median:.3} \
             max {max:.3} (target: median at most {TARGET}: {})",
            works[which].0,
            verdict(median <= TARGET)
        );
    }
    // The other two are the raw clients'.
    if requests != 2.0 || after.connections != 1 || connections != 3 {
        return Err("a lock and its release are not 2 requests on 1 connection".into());
    }
    Ok(())
}

fn block(work: &dyn Fn() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..BLOCK {
        work()?;
    }
    Ok(start.elapsed())
}
