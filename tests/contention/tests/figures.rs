//! What waiting costs, and what it is worth, next to DistributedLock's way of waiting in the same
//! weather.

use std::thread;
use std::time::Duration;

use azmutex_contention::{Figures, Policy, Rival, Scene, cell, chart};

const SEC: Duration = Duration::from_secs(1);
const SHIPPED: Policy = Policy::Shipped(Duration::from_millis(625));
const DISTRIBUTED_LOCK: Policy = Policy::Rival(Rival::DistributedLock);

fn ratio(ours: Duration, theirs: Duration) -> f64 {
    ours.as_secs_f64() / theirs.as_secs_f64()
}

#[test]
fn one_or_two_waiters_cost_as_much_as_with_distributed_lock_and_are_served_sooner() {
    // In milliseconds. At a steady pace, holds of one and the same length beat against the polls, so
    // that a median is a little too high or too low; over all lengths it is not.
    const HOLDS: [u32; 9] = [1000, 1250, 1500, 2000, 3000, 4000, 10_000, 30_000, 60_000];
    for waiters in [1, 2] {
        let measured = thread::scope(|scope| {
            let threads = HOLDS.map(|millis| {
                scope.spawn(move || {
                    [SHIPPED, DISTRIBUTED_LOCK].map(|policy| {
                        let scene = Scene {
                            hand_overs: 10_000,
                            requests: u64::MAX,
                            ..cell(policy, waiters, Duration::from_millis(millis.into()))
                        };
                        scene.run()
                    })
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let mut medians = 0.0;
        for (hold, [ours, theirs]) in HOLDS.iter().zip(&measured) {
            let requests = ours.rate() / theirs.rate();
            let median = ratio(ours.latency(50), theirs.latency(50));
            let late = ratio(ours.latency(99), theirs.latency(99));
            println!(
                "{waiters} waiting, {hold} ms: requests {requests:.3}, median {median:.3}, p99 \
                 {late:.3}"
            );
            assert!((0.98..1.02).contains(&requests), "{requests}");
            assert!(median < 1.12, "{median}");
            assert!(late < 0.9, "{late}");
            medians += median / HOLDS.len() as f64;
        }
        println!("{waiters} waiting, over all: median {medians:.3}");
        assert!(medians < 1.01, "{medians}");
    }
}

fn an_hour(policy: Policy, waiters: usize, arrivals: Duration) -> Figures {
    let scene = Scene {
        arrivals,
        hand_overs: usize::MAX,
        time: 3600 * SEC,
        requests: u64::MAX,
        ..cell(policy, waiters, 60 * SEC)
    };
    let figures = scene.run();
    println!(
        "{waiters} waiting for an hour: {:.1} % refused, {} lost, {} failed",
        figures.refusals() * 100.0,
        figures.lost,
        figures.failed
    );
    figures
}

#[test]
fn ten_thousand_who_begin_at_once_do_not_take_the_lock_from_its_holder() {
    let figures = an_hour(SHIPPED, 10_000, Duration::ZERO);
    assert!(figures.refusals() <= 0.10, "{}", figures.refusals());
    assert_eq!(figures.lost, 0);
    // Those who never got an answer in the first minute, in which there is room for 30,000.
    assert!(figures.failed <= 100, "{}", figures.failed);
    // So they did.
    let scene = cell(Policy::Rival(Rival::Before), 10_000, 60 * SEC);
    assert!(scene.run().refusals() > 0.85);
}

#[test]
fn hundred_thousand_do_not_take_the_lock_from_its_holder() {
    let figures = an_hour(SHIPPED, 100_000, 600 * SEC);
    assert!(figures.refusals() <= 0.5, "{}", figures.refusals());
    assert_eq!(figures.lost, 0);
}

#[test]
fn nobody_waits_much_longer_than_others() {
    let mut unfairness: Vec<_> = (1..=9)
        .map(|seed| {
            let scene = Scene {
                seed,
                ..cell(SHIPPED, 10, SEC)
            };
            scene.run().unfairness()
        })
        .collect();
    unfairness.sort_by(f64::total_cmp);
    println!("longest over median wait, in nine runs: {unfairness:.1?}");
    assert!(unfairness[4] <= 13.0, "{unfairness:?}");
}

#[test]
fn chart_has_every_policy() {
    let chart = chart();
    for name in [
        "azmutex, 0.625 s",
        "DistributedLock",
        "Terraform",
        "Go",
        "0.1.0",
    ] {
        assert!(chart.contains(name), "{name}");
    }
    assert!(!chart.contains("NaN") && !chart.contains("inf"));
}
