//! The resident memory of a held lock: 1,000 guards in one process.
//!
//! ```text
//! cargo bench --bench memory
//! ```
//!
//! Linux only.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{AzureMutex, Event, Locker, MutexOptions};

use support::{CONTAINER, Result, Server, role, verdict};

const GUARDS: usize = 1000;
/// KiB for each guard.
const TARGET: f64 = 48.0;
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(40);

fn main() -> Result<()> {
    role()?;
    let mut server = Server::start()?;
    let options = MutexOptions::from_connection_string(&server.connection_string, CONTAINER)?;
    let mutex = AzureMutex::new(options)?;
    drop(Locker::new(mutex.clone(), "first")?.lock()?); // creates the container, and connects
    let Some(before) = resident_kib() else {
        println!("not measured: /proc/self/status does not say");
        return Ok(());
    };

    let mut guards = Vec::with_capacity(GUARDS);
    let mut renewals = Vec::with_capacity(GUARDS);
    for number in 0..GUARDS {
        let renewed = Arc::new(AtomicU32::new(0));
        renewals.push(Arc::clone(&renewed));
        let locker = Locker::builder(mutex.clone(), &format!("key-{number}"))
            .lease_duration(Duration::from_secs(15))
            .renewal_interval(RENEWAL_INTERVAL)
            .observer(move |event| {
                if let Event::Renewed = event {
                    renewed.fetch_add(1, Ordering::Relaxed);
                }
            });
        guards.push(locker.build()?.lock()?);
    }
    report("resident per guard, acquired", before)?;

    let end = Instant::now() + LIMIT;
    while renewals.iter().any(|n| n.load(Ordering::Relaxed) < 2) {
        if Instant::now() > end {
            return Err("some guards were not renewed in time".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    report("resident per guard, each renewed twice", before)?;
    let held = guards.iter().filter(|guard| guard.is_held()).count();
    println!("held: {held} of {GUARDS} (must be all)");
    println!("connections: {}", server.counts()?.connections);
    if held < GUARDS {
        return Err("guards were lost".into());
    }
    Ok(())
}

fn report(what: &str, before: f64) -> Result<()> {
    let now = resident_kib().ok_or("no VmRSS")?;
    let each = (now - before) / GUARDS as f64;
    println!(
        "{what}: {each:.1} KiB (target: at most {TARGET}: {}; process: {before:.0} to {now:.0} KiB)",
        verdict(each <= TARGET)
    );
    Ok(())
}

fn resident_kib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
