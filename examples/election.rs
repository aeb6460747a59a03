//! Candidates for one job: one of them leads at a time, and another one follows when it resigns or hangs.
//!
//! ```text
//! cargo run --example election
//! ```
//!
//! Runs on the embedded emulator, by a clock that is 20 times as fast, and ends by itself. The candidates
//! are threads here, and would be processes on several machines. Each leads three times. In her second
//! turn anna's work hangs: it gives no sign of life, so her lease is not renewed, and ben leads once it has
//! run out.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, Election, Leader, Locker, StopToken};

const TURNS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::builder().clock(Clock::with_rate(20)).start()?;
    let stop = StopToken::new();
    let candidate = |name: &str| -> Result<Election, azmutex::Error> {
        let mutex = AzureMutex::new(emulator.options("locks")?)?;
        Locker::builder(mutex, "scheduler")
            .owner(name)
            .lease_duration(Duration::from_secs(15))
            .health(Duration::from_secs(5))
            .poll_interval(Duration::from_millis(50))
            .hand_over_for(Duration::ZERO) // as if the other one were another process
            .stop_token(&stop)
            .build_election()
    };
    let (anna, ben, watcher) = (candidate("anna")?, candidate("ben")?, candidate("watcher")?);
    let (at_work, terms) = (AtomicBool::new(false), Mutex::new(Vec::new()));

    let work = |name: &str, turn: usize, leader: &Leader| {
        if at_work.swap(true, Ordering::SeqCst) {
            println!("{name:<8} is not alone");
        }
        terms.lock().unwrap().push(leader.term());
        println!("{name:<8} leads, in term {}", leader.term());
        for _job in 0..3 {
            if leader.check().is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(50)); // what no other leader may do too
            leader.alive();
        }
        if (name, turn) == ("anna", 2) {
            println!("{name:<8} hangs");
            let reason = leader.wait_lost(Duration::MAX);
            println!(
                "{name:<8} is replaced: {}",
                reason.map_or(String::new(), |r| r.to_string())
            );
        }
        // Work ends before the leader resigns, always.
        at_work.store(false, Ordering::SeqCst);
    };
    let lead = |name: &str, election: &Election| {
        let mut turn = 0;
        election.lead(|leader| {
            turn += 1;
            work(name, turn, leader);
            if turn == TURNS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    let changes = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let changes = watcher.observe(Duration::from_millis(20));
            let seen = changes
                .map_while(Result::ok)
                .inspect(|leader| match leader {
                    Some(leader) => println!("watcher  sees {leader}"),
                    None => println!("watcher  sees no leader"),
                });
            seen.count()
        });
        let candidates = [("anna", &anna), ("ben", &ben)];
        let lead = &lead;
        let candidates =
            candidates.map(|(name, election)| scope.spawn(move || lead(name, election)));
        let results = candidates.map(|candidate| candidate.join().expect("no panic"));
        stop.stop(); // ends the watching
        let changes = watching.join().expect("no panic");
        results
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map(|_| changes)
    })?;

    let terms = terms.into_inner()?;
    println!("{} terms, {changes} changes seen", terms.len());
    if terms.len() != 2 * TURNS || !terms.is_sorted_by(|a, b| a < b) {
        return Err(
            format!("these are not the terms of one leader after another: {terms:?}").into(),
        );
    }
    Ok(())
}
