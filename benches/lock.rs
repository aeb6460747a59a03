//! The cost of an uncontended `drop(locker.lock()?)` on a blob that exists, compared with the two
//! requests that it sends, with the service 0, 2 and 20 ms away.
//!
//! ```text
//! cargo bench --bench lock
//! ```
//!
//! Each turn takes every lock once and sends the raw requests once, so that other load affects all
//! alike. Fails if a lock and its release are not two requests on one connection. Times depend on
//! the machine, and are only reported.

mod support;

use std::time::{Duration, Instant};

use azmutex::{AzureMutex, Locker, LockerBuilder, MutexOptions, StopToken};

use support::{CONTAINER, Proxy, Raw, Result, Server, role, spread, verdict};

/// Round trip in milliseconds, how many turns, and how many of each in a turn.
const DISTANCES: [(u64, usize, u32); 3] = [(0, 200, 20), (2, 200, 1), (20, 50, 1)];
const COUNTED: u64 = 50;
/// The target for the median time ratio, with the service 2 ms away.
const TARGET: f64 = 1.08;

fn main() -> Result<()> {
    role()?;
    let mut server = Server::start()?;
    let stop = StopToken::new();
    let kinds: [(&str, &dyn Fn(LockerBuilder) -> LockerBuilder); 3] = [
        ("lock", &|locker| locker),
        ("lock with a stop token", &|locker| locker.stop_token(&stop)),
        ("lock with fencing", &|locker| locker.fencing(true)),
    ];
    let mut is_right = true;
    for (millis, turns, block) in DISTANCES {
        let proxy = Proxy::start(&server, Duration::from_millis(millis))?;
        let connections = server.counts()?.connections;
        let raw = Raw::new(&proxy.connection_string, "raw", None)?;
        let mut lockers = Vec::new();
        for (number, (_, set)) in kinds.iter().enumerate() {
            let options =
                MutexOptions::from_connection_string(&proxy.connection_string, CONTAINER)?;
            let locker = Locker::builder(AzureMutex::new(options)?, &format!("key-{number}"));
            lockers.push(set(locker).build()?);
        }
        for locker in &lockers {
            drop(locker.lock()?); // creates the blob, and connects
        }
        create(&proxy, "raw")?;
        raw.pair()?;
        let connections = server.counts()?.connections - connections;

        println!("service {millis} ms away");
        for (locker, (what, _)) in lockers.iter().zip(&kinds) {
            let before = server.counts()?.requests;
            for _ in 0..COUNTED {
                drop(locker.lock()?);
            }
            let requests = (server.counts()?.requests - before) as f64 / COUNTED as f64;
            println!("  {what} and release: {requests} requests");
            is_right &= requests == 2.0 || what.contains("fencing");
        }
        let works = lockers.len() + 1;
        let mut times = vec![Vec::new(); works];
        for turn in 0..turns {
            // The order changes, so that none is always the first.
            for which in (0..works).map(|which| (which + turn) % works) {
                let start = Instant::now();
                for _ in 0..block {
                    match lockers.get(which) {
                        Some(locker) => drop(locker.lock()?),
                        None => raw.pair()?,
                    }
                }
                times[which].push(start.elapsed().as_secs_f64() * 1e3 / f64::from(block));
            }
        }
        let raw = times.pop().unwrap_or_default();
        let (_, median, _) = spread(raw.clone());
        println!("  two raw requests: median {median:.3} ms");
        for ((what, _), times) in kinds.iter().zip(times) {
            let ratios = times.iter().zip(&raw).map(|(lock, raw)| lock / raw);
            let (min, ratio, max) = spread(ratios.collect());
            let (_, median, _) = spread(times);
            print!(
                "  {what} and release: median {median:.3} ms, ratio {ratio:.3} ({min:.3} to {max:.3})"
            );
            match (millis, what.contains("fencing")) {
                (2, false) => println!("; target: at most {TARGET}: {}", verdict(ratio <= TARGET)),
                _ => println!(),
            }
        }
        // Three lockers, the one that created a blob, and the raw client.
        println!("  connections: {connections} (must be 5)");
        is_right &= connections == 5;
    }
    if is_right {
        return Ok(());
    }
    Err("a lock and its release are not two requests on one connection".into())
}

fn create(proxy: &Proxy, key: &str) -> Result<()> {
    let options = MutexOptions::from_connection_string(&proxy.connection_string, CONTAINER)?;
    drop(Locker::new(AzureMutex::new(options)?, key)?.lock()?);
    Ok(())
}
