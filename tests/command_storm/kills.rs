//! azmutex is killed again and again: all of its command is gone before the lease is.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use azmutex::LeaseState;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::journal::{self, Time};
use super::{Storm, has_ended};
use crate::support::weather::Random;

/// The kinds of command. `LIVE` is a process that says every now and then that it is there, `CHAIN`
/// one that also starts its successor in a session of its own, and ends.
const KINDS: &[(&str, &str)] = &[
    ("plain", "exec LIVE"),
    ("shell that waits", "LIVE; true"),
    ("session", "setsid LIVE & LIVE; true"),
    ("double fork", "(LIVE &) ; LIVE; true"),
    (
        "daemon",
        "(setsid LIVE </dev/null >/dev/null 2>&1 &) ; LIVE; true",
    ),
    ("nohup", "nohup LIVE >/dev/null 2>&1 & LIVE; true"),
    ("timeout", "timeout 1000 LIVE; true"),
    ("stopped", "LIVE & pid=$!; sleep 0.3; kill -STOP $pid; wait"),
    (
        "stopped in sessions",
        "setsid LIVE & one=$!; setsid LIVE & two=$!; sleep 0.3; kill -STOP $one $two; LIVE; true",
    ),
    (
        "stopped orphans",
        "(setsid bash -c 'LIVE & LIVE & sleep 0.3; kill -STOP %1 %2 $$' &) ; LIVE; true",
    ),
    (
        "chain of sessions",
        "setsid bash -c 'LIVE & setsid bash -c \"(LIVE &)\"; wait' & wait",
    ),
    ("chain of forks", "CHAIN; LIVE; true"),
    ("chain of forks alone", "exec CHAIN"),
    (
        "nested",
        "AZMUTEX run --lease 15s INNER -- bash -c 'setsid LIVE & LIVE; true'; true",
    ),
];

impl Storm {
    /// Kills azmutex `count` times. Returns how long before the end of a lease the last sign of life
    /// of its command was, at the least, and of which.
    pub(super) fn kills(self: &Arc<Self>, count: u64) -> Option<(Time, String)> {
        let next = Arc::new(AtomicU64::new(0));
        let killers: Vec<_> = (0..self.runners.min(count))
            .map(|killer| {
                let (storm, next) = (Arc::clone(self), Arc::clone(&next));
                thread::spawn(move || {
                    let mut random = Random::new(storm.seed, 1000 + killer);
                    let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                    let numbers = numbers.take_while(|number| *number < count);
                    numbers
                        .filter_map(|number| storm.kill(number, &mut random))
                        .min()
                })
            })
            .collect();
        let spared = killers
            .into_iter()
            .filter_map(|killer| match killer.join() {
                Ok(spared) => spared,
                Err(_) => {
                    self.wrong("a killer panicked".to_owned());
                    None
                }
            });
        spared.min()
    }

    fn kill(&self, number: u64, random: &mut Random) -> Option<(Time, String)> {
        let (kind, line) = KINDS[number as usize % KINDS.len()];
        let how = ["heeds", "rolls-back", "deaf"][random.below(3) as usize];
        let group = ["own", "shared", "session"][random.below(3) as usize];
        let lock = format!("kill-{number}");
        let name = format!("kill-{number}-{kind}-{how}-{group}").replace(' ', "_");
        let journal = self.dir.join(format!("{name}.journal"));
        let worker = |what: &str| format!("{} {what} {how} 1000", self.worker());
        let line = line
            .replace("LIVE", &worker("live"))
            .replace("CHAIN", &worker("chain"))
            .replace("INNER", &format!("{lock}-inner"))
            .replace("AZMUTEX", env!("CARGO_BIN_EXE_azmutex"));
        let mut command = self.azmutex(&self.emulator.connection_string(), &journal, &name);
        let mut child = command
            .args(["--stragglers", "wait", "--process-group", group])
            .args([&*lock, "--", "bash", "-c", &*line])
            .spawn()
            .expect("azmutex starts");
        let is_at_work = || fs::metadata(&journal).is_ok_and(|file| file.len() > 0);
        let started = self.wait_for(&mut child, Duration::from_secs(40), |child| {
            has_ended(child) || is_at_work()
        });
        thread::sleep(random.millis(500, 6000));
        if !started || has_ended(&mut child) {
            self.wrong(format!("{name} did not stay at work"));
            return None;
        }
        self.tally.add(kind);
        let pid = Pid::from_child(&child);
        let _ = if random.below(4) == 0 {
            kill_process_group(pid, Signal::KILL)
        } else {
            kill_process(pid, Signal::KILL)
        };
        let _ = child.wait();
        // The service held the lease for this one at least until then.
        let mut held = journal::now();
        loop {
            let asked = journal::now();
            match self.mutex.status(&lock) {
                Ok(status) if status.state() == LeaseState::Leased => held = asked,
                Ok(_) => break,
                Err(_) => {}
            }
            thread::sleep(Duration::from_millis(20));
        }
        for (pid, line) in self.processes_with("JOURNAL", &journal.display().to_string()) {
            self.wrong(format!("{name}: process {pid} is left: {line}"));
            let _ = kill_process(Pid::from_raw(pid).expect("a number"), Signal::KILL);
        }
        let last = last_sign_of_life(&journal);
        if last > held {
            let late = (last - held) as f64 / 100.0;
            self.wrong(format!(
                "{name} was at work {late:.2} s after the end of its lease"
            ));
        }
        // Not a run of the storm.
        let _ = fs::rename(&journal, journal.with_extension("kill"));
        Some((held.saturating_sub(last), name))
    }
}

fn last_sign_of_life(journal: &Path) -> Time {
    let text = fs::read_to_string(journal).expect("a journal");
    let times = text
        .lines()
        .filter_map(|line| journal::time(line.split(' ').next()?));
    times.max().unwrap_or(0)
}
