use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::{
    AzureMutex, ErrorKind, Event, LeaseGuard, Locker, LockerBuilder, MutexOptions, Once, Semaphore,
    StopToken, lock_all, try_lock_all_for,
};

use super::journal::Journal;
use super::{CONTAINER, FIRST_PERMIT, LEASE, LOCKS, PERIOD, PERMITS, WORK, lock_name, now};
use crate::support::weather::Random;

/// How long one operation may take, its retries included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// How much longer than planned a lock may be held.
const PATIENCE: Duration = Duration::from_secs(25);
/// Two that use locks, and one that uses what is made of locks.
const THREADS: usize = 3;

/// Uses locks until stdin ends, and says then what it leaves behind.
pub(super) fn run(name: &str) -> ExitCode {
    let (_, descriptors_before) = resources();
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
    let dir = PathBuf::from(variable("STORM_DIR"));
    let seed = variable("STORM_SEED").parse().expect("a number");
    let options = MutexOptions::from_connection_string(&variable("STORM_CONNECTION"), CONTAINER);
    let options = options.expect("a connection string");
    let mutex = AzureMutex::new(options.request_timeout(REQUEST_TIMEOUT)).expect("valid options");

    let stop = StopToken::new();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let worker = Worker::new(&mutex, name, number, seed, &dir, &stop);
            thread::spawn(move || worker.run())
        })
        .collect();
    drop(mutex);
    let _ = io::stdin().read_to_end(&mut Vec::new());
    stop.stop();
    let mut failed = false;
    for thread in threads {
        failed |= !matches!(thread.join(), Ok(true));
    }
    let deadline = Instant::now() + 2 * REQUEST_TIMEOUT;
    let (mut tasks, mut descriptors) = resources();
    while (tasks, descriptors) != (1, descriptors_before) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
        (tasks, descriptors) = resources();
    }
    println!("left {} {}", tasks - 1, descriptors - descriptors_before);
    println!("peak {}", peak_memory());
    ExitCode::from(u8::from(failed))
}

/// How many threads and open descriptors this process has.
fn resources() -> (i64, i64) {
    let entries = |path: &str| fs::read_dir(path).map_or(0, |dir| dir.count() as i64);
    if cfg!(target_os = "linux") {
        // The directory that is read is open, too, each time.
        (entries("/proc/self/task"), entries("/proc/self/fd"))
    } else {
        (1, 0)
    }
}

/// In KiB; zero if the system does not tell.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn builder(mutex: &AzureMutex, key: &str) -> LockerBuilder {
    Locker::builder(mutex.clone(), key)
        .lease_duration(LEASE)
        .release_timeout(RELEASE_TIMEOUT)
        .fault_wait(Duration::from_secs(10))
        .poll_interval(Duration::from_millis(20))
        .fencing(true)
}

struct Worker {
    lockers: Vec<Locker>,
    semaphore: Semaphore,
    work: Locker,
    counters: Vec<File>,
    journal: Journal,
    random: Random,
    name: String,
    stop: StopToken,
    /// When the service was last known to refuse the lock that is being acquired, and the time
    /// before that.
    refused: Arc<[AtomicU64; 2]>,
}

impl Worker {
    fn new(
        mutex: &AzureMutex,
        name: &str,
        number: usize,
        seed: u64,
        dir: &Path,
        stop: &StopToken,
    ) -> Self {
        let refused = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let locker = |lock| {
            let builder = builder(mutex, &lock_name(lock)).observer({
                let refused = Arc::clone(&refused);
                move |event| {
                    if matches!(event, Event::Waiting { .. }) {
                        let last = refused[0].swap(now(), Ordering::SeqCst);
                        refused[1].store(last, Ordering::SeqCst);
                    }
                }
            });
            // One that can be stopped acquires on a thread of its own.
            let builder = match number {
                0 | 2 => builder.stop_token(stop),
                _ => builder,
            };
            builder.build().expect("a locker")
        };
        let first = env::var("STORM_FIRST_LOCK").expect("it is set");
        let first: usize = first.parse().expect("a number");
        let counter = |lock| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(dir.join(format!("{}.count", lock_name(first + lock))))
                .expect("a counter file")
        };
        let name = format!("{name}-{number}");
        let besides = |key| builder(mutex, key).stop_token(stop);
        let semaphore = besides("permit").build_semaphore(PERMITS);
        Self {
            semaphore: semaphore.expect("a semaphore"),
            work: besides("work").build().expect("a locker"),
            lockers: (0..LOCKS).map(locker).collect(),
            counters: (0..LOCKS).map(counter).collect(),
            journal: Journal::create(dir, &name).expect("a journal"),
            random: Random::new(seed, number as u64),
            name,
            stop: stop.clone(),
            refused,
        }
    }

    /// Returns whether nothing was left behind.
    fn run(mut self) -> bool {
        while !self.stop.is_stopped() {
            if self.name.ends_with("-2") {
                self.use_several();
                continue;
            }
            let lock = self.random.below(LOCKS as u64) as usize;
            let locker = self.lockers[lock].clone();
            let called = now();
            for refused in &*self.refused {
                refused.store(called, Ordering::SeqCst);
            }
            let result = match self.random.below(4) {
                _ if self.name.ends_with("-0") => locker.lock().map_err(Into::into),
                0 => locker.try_lock(),
                _ => locker.try_lock_for(self.random.millis(100, 4000)),
            };
            match result {
                Ok(guard) => {
                    let asked = self.refused[1].load(Ordering::SeqCst);
                    self.hold(lock, guard, asked);
                }
                Err(_) => {
                    if self.random.chance(10) {
                        let _ = locker.mutex().status(locker.key());
                    }
                    thread::sleep(self.random.millis(5, 100));
                }
            }
        }
        let mut lockers = self.lockers.iter().chain([&self.work]);
        lockers.all(|locker| locker.settle(2 * RELEASE_TIMEOUT))
            && self.semaphore.settle(2 * RELEASE_TIMEOUT)
    }

    /// Has a permit, some of the locks, or the work done, for a while.
    fn use_several(&mut self) {
        let called = now();
        let wait = self.random.millis(100, 4000);
        match self.random.weighted(&[50, 25, 25]) {
            0 => {
                let permit = match self.random.chance(50) {
                    true => self.semaphore.acquire(),
                    false => self.semaphore.try_acquire_for(wait).map_err(Into::into),
                };
                if let Ok(permit) = permit {
                    let slot = self.semaphore.slot(&permit).expect("a permit");
                    self.hold_all(&[(FIRST_PERMIT + slot as usize, &permit)], called);
                }
            }
            1 => {
                let locks = [0, 1].map(|_| self.random.below(LOCKS as u64) as usize);
                let wanted = locks.map(|lock| self.lockers[lock].clone());
                let guards = match self.random.chance(50) {
                    true => lock_all(&wanted),
                    false => try_lock_all_for(&wanted, wait).map_err(Into::into),
                };
                if let Ok(guards) = guards {
                    let number = |guard: &LeaseGuard| {
                        let keys = self.lockers.iter().map(Locker::key);
                        keys.into_iter().position(|key| key == guard.key())
                    };
                    let guards = guards.guards().iter();
                    let held = guards.map(|guard| (number(guard).expect("a lock"), guard));
                    self.hold_all(&held.collect::<Vec<_>>(), called);
                }
            }
            _ => {
                let work = self.work.clone();
                let done = work.try_once_for(wait, Some(PERIOD), |guard| {
                    let is_held = self.hold_all(&[(WORK, guard)], called);
                    let is_held = is_held && guard.check().is_ok();
                    if is_held {
                        self.journal.worked();
                    }
                    is_held.then_some(()).ok_or("not held any more")
                });
                match done {
                    Ok(Once::Ran(())) => self.journal.recorded(),
                    _ => thread::sleep(self.random.millis(5, 1000)),
                }
            }
        }
    }

    /// Holds all of these for a while. Returns whether they were held until the end.
    fn hold_all(&mut self, guards: &[(usize, &LeaseGuard)], asked: u64) -> bool {
        let are_held = || guards.iter().all(|(_, guard)| guard.is_held());
        if !are_held() {
            return false; // It took too long to get here.
        }
        let mut held = now();
        for (place, (lock, guard)) in guards.iter().enumerate() {
            let token = guard.fencing_token().expect("fencing is on");
            if place == 0 {
                self.journal.hold(*lock, token, asked, held);
            } else {
                self.journal.hold_too(*lock, token, asked, held);
            }
        }
        self.journal.held(held);
        let lasts = match self.random.weighted(&[60, 30, 10]) {
            0 => self.random.millis(0, 50),
            1 => self.random.millis(50, 1000),
            _ => self.random.millis(1000, 20_000),
        };
        let started = Instant::now();
        let mut all = true;
        while all && !self.stop.is_stopped() && started.elapsed() < lasts {
            thread::sleep((lasts / 100).max(Duration::from_millis(1)));
            let at = now();
            all = are_held();
            if all {
                held = at;
                self.journal.held(held);
            }
        }
        self.journal.end(held);
        all
    }

    fn hold(&mut self, lock: usize, guard: LeaseGuard, asked: u64) {
        if guard.check().is_err() {
            return; // It took too long to get here.
        }
        let mut held = now();
        let token = guard.fencing_token().expect("fencing is on");
        self.journal.hold(lock, token, asked, held);
        self.journal.held(held);
        let lasts = match self.random.weighted(&[53, 28, 11, 8]) {
            0 => self.random.millis(0, 50),
            1 => self.random.millis(50, 500),
            2 => self.random.millis(500, 4000),
            // Long enough to be renewed several times, or to outlive the lease if it cannot be.
            _ => self.random.millis(8000, 30_000),
        };
        let pace = (lasts / 100).clamp(Duration::from_millis(1), Duration::from_millis(50));
        let started = Instant::now();
        let mut value = None;
        // A write that is not answered takes its time, in which nothing else is tried. Others are
        // kept apart for Azurite, which stops for minutes to collect what many of them leave.
        let mut no_write_before = started;
        let mut cut_off_until = started;
        // Some holders do not let go before they know that they could, however long it takes.
        let stubborn = self.random.chance(60);
        let is_cut_off = |cut_off_until: Instant| {
            Instant::now() < cut_off_until || guard.remaining() < LEASE / 2
        };
        while !self.stop.is_stopped()
            && (started.elapsed() < lasts
                || stubborn && is_cut_off(cut_off_until) && started.elapsed() < lasts + PATIENCE)
        {
            let at = now();
            match guard.check() {
                Ok(()) => {
                    held = at;
                    self.journal.held(held);
                    match self.random.below(4) {
                        0 => self.count(lock, &guard, &mut held),
                        1 if Instant::now() >= no_write_before => {
                            self.write(&guard, &mut value);
                            no_write_before = Instant::now() + 20 * pace;
                            if value.is_none() {
                                cut_off_until = Instant::now() + 4 * REQUEST_TIMEOUT;
                                no_write_before = cut_off_until;
                            }
                        }
                        _ => thread::sleep(pace),
                    }
                }
                Err(error) if error.kind() == ErrorKind::LeaseUnproven => {
                    // The service is to refuse it if the lease is gone.
                    if self.random.chance(5) {
                        self.write(&guard, &mut value);
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Err(_) => {
                    self.write(&guard, &mut value);
                    break;
                }
            }
        }
        self.journal.end(held);
        if self.random.chance(70) {
            let _ = guard.release();
        }
    }

    /// Adds one to the file that every process could write to.
    fn count(&mut self, lock: usize, guard: &LeaseGuard, held: &mut u64) {
        let start = now();
        if guard.check().is_err() {
            return;
        }
        *held = start;
        self.journal.held(start);
        let mut digits = [0; 20];
        let file = &self.counters[lock];
        file.read_exact_at(&mut digits, 0).expect("a count");
        let found: u64 = str::from_utf8(&digits)
            .expect("digits")
            .parse()
            .expect("a number");
        if self.random.chance(30) {
            // Gives others a chance to come in between, which they must not.
            thread::sleep(self.random.millis(0, 3));
        }
        self.journal.count(start, found);
        let digits = format!("{:020}", found + 1);
        file.write_all_at(digits.as_bytes(), 0).expect("a count");
        self.journal.counted();
    }

    /// Adds one to the value that the service guards. `value`: what this hold knows it to be.
    fn write(&mut self, guard: &LeaseGuard, value: &mut Option<u64>) {
        let known = match *value {
            Some(known) => known,
            None => {
                let start = now();
                let Ok(content) = guard.read() else { return };
                let known = parse_value(&content);
                self.journal.read(start, known);
                known
            }
        };
        self.journal.write(known + 1);
        let content = format!("{} {}", known + 1, self.name);
        *value = guard.write(content.as_bytes()).ok().map(|()| known + 1);
        if value.is_some() {
            self.journal.written();
        }
    }
}

/// The number that the content of a lock blob begins with.
pub(super) fn parse_value(content: &[u8]) -> u64 {
    let text = str::from_utf8(content).expect("text");
    let number = text.split(' ').next().unwrap_or_default();
    if number.is_empty() {
        return 0; // Nothing was written yet.
    }
    number.parse().expect("a number")
}
