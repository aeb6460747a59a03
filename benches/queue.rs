//! Threads of one process that want the same lock: how soon it goes from one to the next, in which
//! order, what it asks of the service, and how long somebody elsewhere waits for it.
//!
//! ```text
//! cargo bench --bench queue
//! ```
//!
//! Fails if the order is not that in which the threads came, or if a hand-over takes a request. Times
//! depend on the machine, and are only reported.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{AzureMutex, Event, Locker, LockerBuilder, MutexOptions};

use support::{CONTAINER, Result, Server, role, spread, verdict};

const THREADS: usize = 64;
const ROUNDS: usize = 5;
const HAND_OVER: f64 = 20.0;

const WORKERS: u32 = 16;
const WORK: Duration = Duration::from_millis(100);
const TOGETHER: f64 = 1.65;

const QUANTUM: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_millis(5);
const WAITS: usize = 30;

fn main() -> Result<()> {
    role()?;
    let mut server = Server::start()?;
    let in_order = hand_overs(&mut server)?;
    together(&server)?;
    elsewhere(&server)?;
    if in_order {
        return Ok(());
    }
    Err("a hand-over took a request, or the threads were not served in order".into())
}

fn builder(server: &Server, key: &str) -> Result<LockerBuilder> {
    let options = MutexOptions::from_connection_string(&server.connection_string, CONTAINER)?;
    Ok(Locker::builder(AzureMutex::new(options)?, key).holder_info(false))
}

/// All wait, and each gives the lock to the next at once.
fn hand_overs(server: &mut Server) -> Result<bool> {
    let (mut times, mut asked, mut in_order) = (Vec::new(), 0, true);
    for _ in 0..ROUNDS {
        let guard = builder(server, "hand-over")?.build()?.lock()?;
        let (place, places) = mpsc::channel();
        let (served, order) = mpsc::channel();
        let dropped = Arc::new(Mutex::new(Instant::now()));
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let place = place.clone();
            let locker = builder(server, "hand-over")?
                .observer(move |event| {
                    if let Event::Waiting { ahead, .. } = event {
                        let _ = place.send((*ahead, number));
                    }
                })
                .build()?;
            let (dropped, served) = (Arc::clone(&dropped), served.clone());
            threads.push(thread::spawn(move || {
                let guard = locker.lock();
                let mut before = dropped.lock().unwrap_or_else(|p| p.into_inner());
                let _ = served.send((number, before.elapsed()));
                *before = Instant::now();
                drop(before);
                guard.map(drop)
            }));
        }
        // Each is told its place after a second.
        let mut places: Vec<_> = places.iter().take(THREADS).collect();
        places.sort_unstable();
        let before = server.counts()?.requests;
        *dropped.lock().unwrap_or_else(|p| p.into_inner()) = Instant::now();
        drop(guard);
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        // The last of them releases the lease.
        asked += server.counts()?.requests - before - 1;
        let order: Vec<_> = order.try_iter().collect();
        in_order &= order
            .iter()
            .map(|(number, _)| *number)
            .eq(places.iter().map(|(_, number)| *number));
        times.extend(order.iter().map(|(_, time)| time.as_secs_f64() * 1e6));
    }
    let (min, median, max) = spread(parked()?);
    println!("threads that unpark each other: median {median:.1} µs ({min:.1} to {max:.1})");
    let (min, median, max) = spread(times);
    println!(
        "hand-over between {THREADS} threads: median {median:.1} µs ({min:.1} to {max:.1}), {asked} \
         requests, in order: {in_order} (target: at most {HAND_OVER} µs, 0 requests, in order: {})",
        verdict(median <= HAND_OVER && asked == 0 && in_order)
    );
    Ok(in_order && asked == 0)
}

/// What the system takes to wake one thread after the other.
fn parked() -> Result<Vec<f64>> {
    let dropped = Arc::new(Mutex::new(Instant::now()));
    let (served, times) = mpsc::channel();
    for _ in 0..ROUNDS {
        let mut threads: Vec<thread::JoinHandle<()>> = Vec::new();
        for _ in 0..THREADS {
            let (dropped, served) = (Arc::clone(&dropped), served.clone());
            let next = threads.last().map(|thread| thread.thread().clone());
            threads.push(thread::spawn(move || {
                thread::park();
                let mut before = dropped.lock().unwrap_or_else(|p| p.into_inner());
                let _ = served.send(before.elapsed().as_secs_f64() * 1e6);
                *before = Instant::now();
                drop(before);
                next.iter().for_each(thread::Thread::unpark);
            }));
        }
        thread::sleep(Duration::from_millis(100));
        *dropped.lock().unwrap_or_else(|p| p.into_inner()) = Instant::now();
        threads.last().ok_or("no threads")?.thread().unpark();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")?;
        }
    }
    Ok(times.try_iter().collect())
}

/// All want the lock at the same time, and work under it for a while, once.
fn together(server: &Server) -> Result<()> {
    let locker = builder(server, "together")?.build()?;
    drop(locker.lock()?);
    let start = Arc::new(Barrier::new(WORKERS as usize + 1));
    let threads: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (locker, start) = (locker.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                let guard = locker.lock();
                thread::sleep(WORK);
                guard.map(drop)
            })
        })
        .collect();
    start.wait();
    let started = Instant::now();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    let took = started.elapsed().as_secs_f64();
    let ideal = (WORK * WORKERS).as_secs_f64();
    println!(
        "{WORKERS} threads, {WORK:?} each: {took:.3} s, ideal {ideal:.3} (target: at most {TOGETHER}: \
         {})",
        verdict(took <= TOGETHER)
    );
    Ok(())
}

/// One who asks for itself, against threads that want the lock all the time.
fn elsewhere(server: &Server) -> Result<()> {
    let busy = builder(server, "elsewhere")?
        .hand_over_for(QUANTUM)
        .build()?;
    let other = builder(server, "elsewhere")?
        .hand_over_for(Duration::ZERO)
        .build()?;
    let ended = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (busy, ended) = (busy.clone(), Arc::clone(&ended));
            thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let Ok(_guard) = busy.lock() else { break };
                    thread::sleep(HOLD);
                }
            })
        })
        .collect();
    let mut waits = Vec::new();
    for _ in 0..WAITS {
        thread::sleep(QUANTUM / 3);
        let start = Instant::now();
        drop(other.lock()?);
        waits.push(start.elapsed().as_secs_f64());
    }
    ended.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")?;
    }
    let target = QUANTUM.as_secs_f64() + 1.0;
    let (min, median, max) = spread(waits);
    println!(
        "1 elsewhere against {THREADS} threads that take turns for {QUANTUM:?}: waits median \
         {median:.2} s ({min:.2} to {max:.2}) (target: at most {target} s: {})",
        verdict(max <= target)
    );
    Ok(())
}
