//! What waiting costs, and what it is worth, next to DistributedLock's way in the same weather.

use std::time::Duration;

use azmutex_contention::{Figures, Policy, Rival, Scene, cell};

const SEC: Duration = Duration::from_secs(1);
const SHIPPED: Policy = Policy::Shipped(Duration::from_millis(625));

#[test]
fn probe() {
    for waiters in [1, 2, 10] {
        for hold in [SEC / 10, SEC, 10 * SEC, 60 * SEC, 600 * SEC] {
            for policy in [SHIPPED, Policy::Rival(Rival::DistributedLock)] {
                let f = Scene { hand_overs: 4000, ..cell(policy, waiters, hold) }.run();
                println!("{waiters} {hold:?} {policy:?}: {:?} {:?} {:.1} {:.1} n={}", f.latency(50), f.latency(99), f.rate(), f.unfairness(), f.latencies.len());
            }
        }
    }
    for n in [1000, 10_000, 100_000] {
    let f = Scene { hand_overs: usize::MAX, time: 3600 * SEC, requests: u64::MAX, ..cell(SHIPPED, n, 60 * SEC) }.run();
    println!("{n}: refused {:.3} lost {} failed {} rate {:.2} n={} p50 {:?}", f.refusals(), f.lost, f.failed, f.rate(), f.latencies.len(), f.latency(50));
    }
    for seed in 1..6 {
        let f = Scene { seed, ..cell(SHIPPED, 10, SEC) }.run();
        println!("fair {:.1}", f.unfairness());
    }
}
