//! The shipped core holds what it promises, in every state within the bounds.

use std::time::{Duration, Instant};

use azmutex_model::property::*;
use azmutex_model::{Bounds, World, check};

const PLAIN: Bounds = Bounds::PLAIN;
const LOSS: Bounds = Bounds { losses: 1, ..PLAIN };
const FENCED: Bounds = Bounds {
    fencing: true,
    ..PLAIN
};

/// The bounds that are not those of a plain run.
fn beyond_plain(bounds: Bounds) -> String {
    let (all, plain) = (format!("{bounds:?}"), format!("{PLAIN:?}"));
    let pairs = all.split(", ").zip(plain.split(", "));
    let beyond: Vec<_> = pairs.filter(|(a, b)| a != b).map(|(a, _)| a).collect();
    format!("2 clients, {}", beyond.join(", "))
}

/// Everything holds within the bounds but `except`, and all there is to reach is reached.
fn holds(name: &str, bounds: Bounds, except: &[&str]) -> (usize, Duration) {
    let report = check(World {
        bounds,
        mistake: None,
    });
    println!("{name}\n    {}\n    {report}", beyond_plain(bounds));
    assert_eq!(report.violated, except, "{name}");
    assert_eq!(report.unreached, [""; 0], "{name}");
    (report.states, report.took)
}

fn only() -> Option<usize> {
    std::env::var("ONLY").ok()?.parse().ok()
}

fn all(runs: &[(&str, Bounds, &[&str])]) {
    let started = Instant::now();
    let runs = runs
        .iter()
        .enumerate()
        .filter(|(i, _)| only().is_none_or(|o| o == *i))
        .map(|(_, (name, bounds, except))| holds(name, *bounds, except));
    let states: usize = runs.map(|(states, _)| states).sum();
    println!("{states} states in {:.1?}", started.elapsed());
}

#[test]
fn shipped_core_keeps_its_promises() {
    all(&[
        (
            "no faults, clocks at both ends of the margin",
            Bounds {
                fast: true,
                ..PLAIN
            },
            &[],
        ),
        ("a request or reply is lost", LOSS, &[]),
        (
            "a request arrives twice, in time",
            Bounds {
                duplicates: 1,
                lateness: Bounds::IN_TIME,
                ..PLAIN
            },
            &[],
        ),
        (
            "a request arrives after it was given up, at any time",
            Bounds {
                losses: 1,
                late: 1,
                ..PLAIN
            },
            &[UNINTERRUPTED, RELEASED_WAS_HELD, LOSS_IS_REPORTED],
        ),
        (
            "the service is busy, a process dies",
            Bounds {
                busy: 1,
                deaths: 1,
                ..PLAIN
            },
            &[],
        ),
        (
            "everyone asks twice, with a new ID",
            Bounds {
                acquisitions: 2,
                ..PLAIN
            },
            &[],
        ),
        (
            "the lease is broken without a period",
            Bounds { breaks: 1, ..PLAIN },
            &[],
        ),
        (
            "a stranger writes to the blob",
            Bounds {
                strangers: 1,
                ..PLAIN
            },
            &[],
        ),
        (
            "the lease is broken with a short period",
            Bounds {
                short_breaks: 1,
                ..PLAIN
            },
            &[],
        ),
        (
            "the blob is deleted",
            Bounds {
                deletions: 1,
                ..PLAIN
            },
            &[],
        ),
        (
            "a renewal of another ID is answered as Azurite does, and max_hold ends renewals",
            Bounds {
                revives: true,
                max_hold: Some(3),
                ..PLAIN
            },
            &[],
        ),
        ("fencing tokens", FENCED, &[]),
        (
            "writes under the lease arrive at any time",
            Bounds { writes: 1, ..PLAIN },
            &[],
        ),
    ]);
}

/// Minutes and gigabytes; hours with `--features large`.
#[test]
#[ignore = "takes long: what CI leaves out"]
fn shipped_core_keeps_its_promises_when_more_goes_wrong_at_once() {
    all(&[
        (
            "two requests or replies are lost, clocks at both ends of the margin",
            Bounds {
                losses: 2,
                fast: true,
                ..PLAIN
            },
            &[],
        ),
        (
            "a request arrives after it was given up, in time",
            Bounds {
                late: 1,
                lateness: Bounds::IN_TIME,
                ..LOSS
            },
            &[],
        ),
        (
            "fencing tokens, and a request or reply is lost",
            Bounds {
                losses: 1,
                ..FENCED
            },
            &[],
        ),
        (
            "fencing tokens, and a request arrives twice, in time",
            Bounds {
                duplicates: 1,
                lateness: Bounds::IN_TIME,
                ..FENCED
            },
            &[],
        ),
        (
            "fencing tokens, and the blob is deleted",
            Bounds {
                deletions: 1,
                ..FENCED
            },
            &[],
        ),
        (
            "fencing tokens, and a stranger replaces the metadata",
            Bounds {
                strangers: 1,
                ..FENCED
            },
            &[],
        ),
    ]);
}
