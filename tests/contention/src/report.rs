//! The table: how each policy does for so many waiters and holds of such a length.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::rivals::Rival;
use crate::world::{Figures, Policy, Scene};

pub const WAITERS: [usize; 7] = [1, 2, 10, 100, 1_000, 10_000, 100_000];

pub const HOLDS: [(&str, Duration); 7] = [
    ("10 ms", Duration::from_millis(10)),
    ("0.1 s", Duration::from_millis(100)),
    ("1 s", Duration::from_secs(1)),
    ("10 s", Duration::from_secs(10)),
    ("1 min", Duration::from_secs(60)),
    ("10 min", Duration::from_secs(600)),
    ("1 h", Duration::from_secs(3600)),
];

pub(crate) const POLICIES: [(&str, Policy); 5] = [
    ("**azmutex**", Policy::Shipped(Duration::from_millis(625))),
    ("0.1.0", Policy::Rival(Rival::Before)),
    ("DistributedLock", Policy::Rival(Rival::DistributedLock)),
    ("Go", Policy::Rival(Rival::Go)),
    ("Terraform", Policy::Rival(Rival::Terraform)),
];

/// One cell of the table. Of a long hold that many wait for only the last minutes are simulated: no
/// policy changes its ways after that.
pub fn cell(policy: Policy, waiters: usize, hold: Duration) -> Scene {
    let minutes = match waiters {
        0..=10 => 60,
        11..=100 => 10,
        101..=1_000 => 5,
        _ => 2,
    };
    Scene {
        policy,
        waiters,
        hold: hold.min(Duration::from_secs(60 * minutes)),
        arrivals: Duration::from_secs(if waiters > 10_000 { 600 } else { 0 }),
        round_trip: Duration::from_millis(10),
        hand_overs: 300,
        time: Duration::MAX,
        requests: if waiters < 10_000 { 600_000 } else { 2_000_000 },
        seed: 13,
    }
}

/// The whole table, in Markdown.
pub fn table() -> String {
    let mut rows = Vec::new();
    for waiters in WAITERS {
        for (name, policy) in POLICIES {
            let scenes = HOLDS.map(|(_, hold)| cell(policy, waiters, hold));
            rows.push((waiters, name, scenes));
        }
    }
    let scenes: Vec<_> = rows.iter().flat_map(|(_, _, scenes)| *scenes).collect();
    let mut figures = run(&scenes).into_iter();
    let mut text = String::from(
        "Each cell: median/p99 of the hand-over, requests per waiter-minute, longest over median \
         wait (share of requests refused; locks that were lost; leases that \
         ran out; waits that failed)\n",
    );
    let mut before = 0;
    for (waiters, name, scenes) in rows {
        if waiters != before {
            let holds = HOLDS.map(|(hold, _)| hold).join(" | ");
            let _ = write!(text, "\n{waiters} waiting:\n\n| | {holds} |\n");
            text.push_str(&format!("|{}\n", " --- |".repeat(HOLDS.len() + 1)));
            before = waiters;
        }
        let _ = write!(text, "| {name} |");
        for figures in figures.by_ref().take(scenes.len()) {
            let _ = write!(text, " {} |", shown(&figures));
        }
        text.push('\n');
    }
    text
}

/// What `benches/peers` compares: for each policy but the former one, a few figures in the median,
/// the least and the greatest of a few runs, one to a line, separated by tabs.
pub fn peers() -> String {
    const SEEDS: u64 = 7;
    type Measure = fn(&Figures) -> f64;
    const MEASURES: [(usize, &str, Measure); 4] = [
        (1, "requests a minute", Figures::rate),
        (1, "median delay, s", |figures| {
            figures.latency(50).as_secs_f64()
        }),
        (1, "99th percentile of the delay, s", |figures| {
            figures.latency(99).as_secs_f64()
        }),
        (1_000, "refused of 1,000 waiters' requests, %", |figures| {
            figures.refusals() * 100.0
        }),
    ];
    let policies = POLICIES.iter().filter(|(name, _)| *name != "0.1.0");
    let mut text = String::new();
    for (name, policy) in policies {
        for waiters in [1, 1_000] {
            let hold = Duration::from_secs(60);
            let scenes = (1..=SEEDS).map(|seed| Scene {
                seed,
                ..cell(*policy, waiters, hold)
            });
            let figures = run(&scenes.collect::<Vec<_>>());
            let measures = MEASURES.iter().filter(|(of, _, _)| *of == waiters);
            for (_, measure, value) in measures {
                let mut values: Vec<_> = figures.iter().map(value).collect();
                values.sort_by(f64::total_cmp);
                let (first, last) = (values[0], values[values.len() - 1]);
                let median = values[values.len() / 2];
                let name = name.trim_matches('*');
                let _ = writeln!(text, "{measure}\t{name}\t{median}\t{first}\t{last}");
            }
        }
    }
    text
}

/// Simulates all of them, on all processors.
pub(crate) fn run(scenes: &[Scene]) -> Vec<Figures> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<_> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            while let Some(scene) = scenes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let index = scenes.iter().position(|each| std::ptr::eq(each, scene));
                done.push((index, scene.run()));
            }
            done
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = threads.into_iter().map(|thread| thread.join());
        done.flat_map(|done| done.expect("a simulation does not panic"))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, figures)| figures).collect()
}

fn shown(figures: &Figures) -> String {
    let mut text = if figures.latencies.is_empty() {
        format!("- {:.0} -", figures.rate())
    } else {
        format!(
            "{}/{} {} {}",
            time(figures.latency(50)),
            time(figures.latency(99)),
            number(figures.rate()),
            number(figures.unfairness())
        )
    };
    let refused = (figures.refusals() * 100.0).round();
    let notes = [
        (refused >= 1.0).then(|| format!("{refused:.0} %")),
        (figures.lost > 0).then(|| format!("{} lost", figures.lost)),
        (figures.expired > 0).then(|| format!("{} ran out", figures.expired)),
        (figures.failed > 0).then(|| format!("{} failed", figures.failed)),
    ];
    let notes: Vec<_> = notes.into_iter().flatten().collect();
    if !notes.is_empty() {
        let _ = write!(text, " ({})", notes.join("; "));
    }
    text
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..10_000 => millis.to_string(),
        millis => format!("{}s", millis / 1000),
    }
}

fn number(number: f64) -> String {
    if number < 9.95 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}
