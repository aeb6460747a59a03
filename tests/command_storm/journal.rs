//! PURE, but for reading: what the commands wrote down, and whether they were alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// A time since boot, in hundredths of a second, as the system tells it in `/proc/uptime`.
pub(super) type Time = u64;

/// A break that left the holder less time than it was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Break {
    pub(super) lock: u64,
    pub(super) at: Time,
}

/// How long after such a break its holder may be at work beside the next one.
const EXCUSED: Time = 1500;

pub(super) fn now() -> Time {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    uptime.split(' ').next().and_then(time).unwrap_or(0)
}

pub(super) fn time(text: &str) -> Option<Time> {
    let (seconds, hundredths) = text.split_once('.')?;
    Some(seconds.parse::<Time>().ok()? * 100 + hundredths.parse::<Time>().ok()?)
}

/// What one run's command did.
#[derive(Debug, Default)]
struct Run {
    name: String,
    lock: u64,
    /// The first and the last sign of life of any of its processes.
    first: Time,
    last: Time,
    steps: u64,
    /// Its guardian ended it, since azmutex was killed.
    was_orphaned: bool,
    /// What it made of the counter.
    values: Vec<u64>,
}

pub(super) struct Journals(Vec<Run>);

pub(super) struct Report {
    pub(super) wrong: Vec<String>,
    runs: usize,
    steps: u64,
    excused: usize,
    /// From the last sign of life of a run whose azmutex was killed to the next holder's first.
    gaps: Vec<Time>,
}

impl Report {
    pub(super) fn summary(&self) -> String {
        let seconds = |time: Option<&Time>| time.map_or(f64::NAN, |time| *time as f64 / 100.0);
        format!(
            "{} commands, {} steps, {} overlaps excused by a break; {} killed runs with a \
             successor, which began {:.2} s after the last sign of life at the earliest",
            self.runs,
            self.steps,
            self.excused,
            self.gaps.len(),
            seconds(self.gaps.iter().min())
        )
    }
}

impl Journals {
    /// Reads all journals of a directory, which are called `RUN-LOCK-...journal`.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "journal")
            {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let log = fs::read_to_string(path.with_extension("log"))?;
                let run = parse(&name, &fs::read_to_string(&path)?);
                runs.extend(run.map(|run| Run {
                    was_orphaned: log.contains(" was killed; its command was ended"),
                    ..run
                }));
            }
        }
        Ok(Self(runs))
    }

    pub(super) fn check(&self, breaks: &[Break]) -> Report {
        let mut report = Report {
            wrong: Vec::new(),
            runs: self.0.len(),
            steps: self.0.iter().map(|run| run.steps).sum(),
            excused: 0,
            gaps: Vec::new(),
        };
        let mut by_lock: BTreeMap<u64, Vec<&Run>> = BTreeMap::new();
        for run in &self.0 {
            by_lock.entry(run.lock).or_default().push(run);
        }
        for (lock, mut runs) in by_lock {
            runs.sort_by_key(|run| run.first);
            let excuses = |from: Time, to: Time| {
                let of_lock = breaks.iter().filter(|excuse| excuse.lock == lock);
                let mut spans = of_lock.map(|excuse| excuse.at..=excuse.at + EXCUSED);
                spans.any(|span| span.contains(&from) && span.contains(&to))
            };
            let mut excused = false;
            for (at, run) in runs.iter().enumerate() {
                for next in &runs[at + 1..] {
                    if next.first >= run.last {
                        break;
                    }
                    let to = run.last.min(next.last);
                    if excuses(next.first, to) {
                        report.excused += 1;
                        excused = true;
                        continue;
                    }
                    report.wrong.push(format!(
                        "{} and {} were at work at once, from {} to {to}",
                        run.name, next.name, next.first
                    ));
                }
                let next = runs.get(at + 1).filter(|_| run.was_orphaned);
                // An overlap is a fault, or excused.
                let gap = next.and_then(|next| next.first.checked_sub(run.last));
                report.gaps.extend(gap);
            }
            let mut writers: BTreeMap<u64, &str> = BTreeMap::new();
            let mut lost: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
            for run in &runs {
                for value in &run.values {
                    // What was made twice by one command was killed before it was stored.
                    if let Some(other) = writers.insert(*value, &run.name)
                        && other != run.name
                    {
                        lost.entry((other, &run.name)).or_default().push(*value);
                    }
                }
            }
            for ((one, other), values) in lost.into_iter().filter(|_| !excused) {
                report.wrong.push(format!(
                    "{one} and {other} both made {} of the counter, and {} other values",
                    values[0],
                    values.len() - 1
                ));
            }
        }
        report
    }
}

/// `None` of a run that did nothing.
fn parse(name: &str, text: &str) -> Option<Run> {
    let lock = name.split('-').nth(1)?.parse().ok()?;
    let mut run = Run {
        name: name.to_owned(),
        lock,
        first: Time::MAX,
        ..Run::default()
    };
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(at) = words.next().and_then(time) else {
            continue; // It was killed while it wrote.
        };
        run.first = run.first.min(at);
        run.last = run.last.max(at);
        run.steps += 1;
        run.values
            .extend(words.nth(1).and_then(|value| value.parse::<u64>().ok()));
    }
    (run.steps > 0).then_some(run)
}
