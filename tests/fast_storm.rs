//! The storm of `tests/storm.rs` in one process and a hundred times as fast: threads for
//! processes, the embedded emulator, and clocks on which a lease of 15 seconds lasts 150 ms.
//!
//! A process cannot be killed or stopped here. Instead clients are cut off while they hold locks,
//! stand still between a check and its effect, and go by clocks that are up to 4 % too slow or too
//! fast. A binary of its own, so that other tests do not slow it down. `STORM_SEED=7` runs the
//! schedule of an earlier run again, as nearly as threads allow.

#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the integration tests use the rest"
)]
#[path = "it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::env;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::emulator::{Clock, Emulator};
use azmutex::{AzureMutex, ErrorKind, Event, LeaseDuration, LeaseGuard, Locker};

use support::history::{Break, Finals, History, Hold, Increment, Read, Write};
use support::proxy::FaultProxy;
use support::weather::{Cut, Pump, Random, Tally, Weather};

/// How much faster than real time the service's clock is.
const RATE: u32 = 100;
/// The rates of the clients' clocks.
const RATES: [u32; 5] = [100, 96, 104, 98, 102];
const CLIENTS: usize = 12;
const LOCKS: usize = 6;
const LEASE: Duration = Duration::from_secs(15);
/// What is left of the default margin of 1.25 s to a client whose clock is 4 % too slow.
const MARGIN: Duration = Duration::from_millis(650);
/// On the service's clock.
const PATIENCE: Duration = Duration::from_secs(25);
const ENOUGH: usize = 5000;
const LONGEST: Duration = Duration::from_secs(25);
/// What also a busy machine gets done.
const LEAST: usize = 300;

#[test]
fn no_lock_is_shared_in_a_storm() {
    let seed = env::var("STORM_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    println!("STORM_SEED={seed}");
    let panics = count_panics();
    let threads_before = threads();

    let (history, held, tally) = Storm::new(seed).run();
    let margin = MARGIN.as_nanos().try_into().expect("less than an age");
    let (totals, wrong) = history.check(margin);
    println!("{totals:?}; {held:?}; {:?}", tally.counts());
    assert!(wrong.is_empty(), "STORM_SEED={seed}: {wrong:#?}");
    assert!(totals.holds >= LEAST, "only {} holds", totals.holds);
    assert_eq!(panics.load(Ordering::SeqCst), 0, "a thread panicked");
    support::eventually(|| (threads() <= threads_before).then_some(()));
}

fn count_panics() -> Arc<AtomicU64> {
    let panics = Arc::new(AtomicU64::new(0));
    let (count, hook) = (Arc::clone(&panics), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        count.fetch_add(1, Ordering::SeqCst);
        hook(info);
    }));
    panics
}

/// How many threads this process has; zero if the system does not tell.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

struct Storm {
    seed: u64,
    shared: Shared,
    proxies: Vec<FaultProxy>,
    cuts: Vec<Cut>,
    pumps: Vec<Pump>,
    tally: Tally,
    emulator: Emulator,
}

struct Shared {
    clock: Clock,
    /// Read and written in two steps.
    counters: [AtomicU64; LOCKS],
    holds: AtomicU64,
    is_over: AtomicBool,
}

/// Ends the storm, also if what drives it panics: the clients would go on for ever.
struct EndsWith<'a>(&'a Shared);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    /// On the service's clock, which is the one that all times of the history are on.
    fn now(&self) -> u64 {
        let elapsed = self.clock.elapsed().as_nanos();
        elapsed.try_into().expect("less than an age")
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

fn lock_name(lock: usize) -> String {
    format!("lock-{lock}")
}

/// A time on the service's clock as a real one.
fn real(time: Duration) -> Duration {
    time / RATE
}

impl Storm {
    fn new(seed: u64) -> Self {
        let clock = Clock::with_rate(RATE);
        let emulator = Emulator::builder().clock(clock.clone()).start().unwrap();
        let tally = Tally::default();
        let addr = support::addr_of(&emulator);
        let proxies: Vec<_> = (0..CLIENTS).map(|_| FaultProxy::start(addr)).collect();
        let cuts = (0..).zip(&proxies).map(|(user, proxy)| {
            let weather = Weather::new(seed, user, RATE, &tally);
            weather.over(proxy)
        });
        Self {
            seed,
            cuts: cuts.collect(),
            pumps: (0..CLIENTS as u64)
                .map(|user| Pump::new(seed, user, RATE))
                .collect(),
            shared: Shared {
                clock,
                counters: Default::default(),
                holds: AtomicU64::new(0),
                is_over: AtomicBool::new(false),
            },
            proxies,
            tally,
            emulator,
        }
    }

    /// Returns what happened, and how often something was done to the clients.
    fn run(mut self) -> (History, BTreeMap<&'static str, u64>, Tally) {
        let direct = self.emulator.options("storm").unwrap();
        let direct = AzureMutex::new(direct).unwrap();
        for lock in 0..LOCKS {
            let lease = direct
                .acquire(&lock_name(lock), LeaseDuration::MIN)
                .unwrap();
            direct.release(&lease).unwrap();
        }
        let mut history = History::default();
        let (shared, emulator, proxies) = (&self.shared, &self.emulator, &self.proxies);
        let (seed, cuts, pumps) = (self.seed, &self.cuts, &mut self.pumps);
        let mut done = BTreeMap::new();
        thread::scope(|scope| {
            let clients: Vec<_> = proxies
                .iter()
                .enumerate()
                .map(|(number, proxy)| {
                    scope.spawn(move || Client::new(number, seed, shared, emulator, proxy).run())
                })
                .collect();
            let end = EndsWith(shared);
            let mut random = Random::new(seed, 0);
            let started = Instant::now();
            let mut next = started;
            while (shared.holds.load(Ordering::SeqCst) as usize) < ENOUGH
                && started.elapsed() < LONGEST
            {
                for (pump, proxy) in pumps.iter_mut().zip(proxies) {
                    pump.work(proxy);
                }
                if Instant::now() >= next {
                    let what = strike(shared, &direct, cuts, &mut random, &mut history.breaks);
                    *done.entry(what).or_default() += 1;
                    next += real(random.millis(1000, 9000));
                }
                thread::sleep(Duration::from_millis(1));
            }
            drop(end);
            // What is hung or held has to go on for the clients to end.
            while !clients.iter().all(|client| client.is_finished()) {
                for (pump, proxy) in pumps.iter_mut().zip(proxies) {
                    pump.work(proxy);
                }
                thread::sleep(Duration::from_millis(1));
            }
            for client in clients {
                let own = client.join().expect("no panic");
                history.append(own);
            }
        });
        for proxy in proxies {
            proxy.clear();
            Pump::let_go(proxy);
        }
        for lock in 0..LOCKS {
            let locker = Locker::builder(direct.clone(), &lock_name(lock))
                .poll_interval(Duration::from_millis(10))
                .build()
                .unwrap();
            // A lease, and half a second of real time for a busy machine.
            let guard = locker
                .try_lock_for(LEASE + Duration::from_secs(50))
                .unwrap();
            let value = parse_value(&guard.read().unwrap());
            guard.release().unwrap();
            let counter = shared.counters[lock].load(Ordering::SeqCst);
            history.finals.insert(lock, Finals { counter, value });
        }
        (history, done, self.tally)
    }
}

/// Does one thing to a client or a lock.
fn strike(
    shared: &Shared,
    direct: &AzureMutex,
    cuts: &[Cut],
    random: &mut Random,
    breaks: &mut Vec<Break>,
) -> &'static str {
    let lock = random.below(LOCKS as u64) as usize;
    let client = random.below(cuts.len() as u64) as usize;
    let (what, period) = match random.weighted(&[30, 15, 5, 5]) {
        0 => {
            cuts[client].off(real(random.millis(16_000, 25_000)));
            return "cut off for longer than a lease";
        }
        1 => ("broken without a period", None),
        2 => ("broken at once", Some(Duration::ZERO)),
        _ => {
            let period = Duration::from_secs(random.below(14) + 1);
            ("broken with a period", Some(period))
        }
    };
    let sent = shared.now();
    match direct.break_lease(&lock_name(lock), period) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return "nothing to break",
        Err(error) => panic!("{error}"),
    }
    if period.is_some() {
        let answered = shared.now();
        breaks.push(Break {
            lock,
            sent,
            answered,
        });
    }
    what
}

/// One client, with a clock of its own.
struct Client<'a> {
    shared: &'a Shared,
    name: String,
    lockers: Vec<Locker>,
    random: Random,
    /// When the service last refused the lock, and the time before that.
    refused: Arc<[AtomicU64; 2]>,
    history: History,
}

impl<'a> Client<'a> {
    fn new(
        number: usize,
        seed: u64,
        shared: &'a Shared,
        emulator: &Emulator,
        proxy: &FaultProxy,
    ) -> Self {
        let refused = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let clock = match RATES[number % RATES.len()] {
            RATE => shared.clock.clone(),
            rate => Clock::with_rate(rate),
        };
        let options = emulator.options("storm").unwrap();
        let options = options.endpoint(&proxy.endpoint()).unwrap().clock(clock);
        let mutex = AzureMutex::new(options.request_timeout(Duration::from_millis(50))).unwrap();
        let locker = |lock| {
            let (refused, clock) = (Arc::clone(&refused), shared.clock.clone());
            Locker::builder(mutex.clone(), &lock_name(lock))
                .lease_duration(Duration::from_secs(15))
                .release_timeout(Duration::from_millis(60))
                .fault_wait(Duration::from_millis(300))
                .poll_interval(Duration::from_millis(10))
                .fencing(true)
                .observer(move |event| {
                    if matches!(event, Event::Waiting { .. }) {
                        let now = clock.elapsed().as_nanos() as u64;
                        let last = refused[0].swap(now, Ordering::SeqCst);
                        refused[1].store(last, Ordering::SeqCst);
                    }
                })
                .build()
                .unwrap()
        };
        Self {
            shared,
            name: format!("c{number}"),
            lockers: (0..LOCKS).map(locker).collect(),
            random: Random::new(seed, number as u64 + 1),
            refused,
            history: History::default(),
        }
    }

    fn run(mut self) -> History {
        while !self.shared.is_over() {
            let lock = self.random.below(LOCKS as u64) as usize;
            let locker = self.lockers[lock].clone();
            let called = self.shared.now();
            for refused in &*self.refused {
                refused.store(called, Ordering::SeqCst);
            }
            let result = match self.random.below(4) {
                0 => locker.try_lock(),
                _ => locker.try_lock_for(self.random.millis(1000, 30_000)),
            };
            match result {
                Ok(guard) => self.hold(lock, guard),
                Err(_) => thread::sleep(self.random.millis(0, 4)),
            }
        }
        for locker in &self.lockers {
            assert!(locker.settle(support::LONG), "something was left behind");
        }
        self.history
    }

    fn hold(&mut self, lock: usize, guard: LeaseGuard) {
        let asked = self.refused[1].load(Ordering::SeqCst);
        if guard.check().is_err() {
            return; // It took too long to get here.
        }
        let start = self.shared.now();
        self.history.holds.push(Hold {
            name: format!("{}.{}", self.name, self.history.holds.len()),
            lock,
            token: guard.fencing_token().expect("fencing is on"),
            asked,
            start,
            end: start,
        });
        self.shared.holds.fetch_add(1, Ordering::SeqCst);
        let lasts = match self.random.weighted(&[70, 22, 6, 2]) {
            0 => self.random.millis(0, 50),
            1 => self.random.millis(50, 500),
            2 => self.random.millis(500, 4000),
            _ => self.random.millis(8000, 30_000),
        };
        let until = start + lasts.as_nanos() as u64;
        let at_most = until + PATIENCE.as_nanos() as u64;
        let mut value = None;
        let mut no_write_before = 0;
        // Some holders do not let go before they know that they could, however long it takes.
        let stubborn = self.random.chance(60);
        let is_cut_off =
            |now: u64, no_write_before| now < no_write_before || guard.remaining() < LEASE / 2;
        loop {
            let now = self.shared.now();
            let goes_on =
                now < until || stubborn && now < at_most && is_cut_off(now, no_write_before);
            if self.shared.is_over() || !goes_on {
                break;
            }
            match guard.check() {
                Ok(()) => {
                    self.held(now);
                    match self.random.below(4) {
                        0 => self.count(lock, &guard),
                        1 if now >= no_write_before => {
                            self.write(lock, &guard, &mut value);
                            if value.is_none() {
                                no_write_before = self.shared.now() + LEASE.as_nanos() as u64;
                            }
                        }
                        _ => thread::sleep(real(lasts / 50).min(Duration::from_micros(500))),
                    }
                }
                Err(error) if error.kind() == ErrorKind::LeaseUnproven => {
                    // The service is to refuse it if the lease is gone.
                    if self.random.chance(5) {
                        self.write(lock, &guard, &mut value);
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                Err(_) => {
                    self.write(lock, &guard, &mut value);
                    break;
                }
            }
        }
        if self.random.chance(70) {
            let _ = guard.release();
        }
    }

    fn held(&mut self, at: u64) {
        self.history.holds.last_mut().expect("a hold").end = at;
    }

    /// Adds one to what every thread could write to.
    fn count(&mut self, lock: usize, guard: &LeaseGuard) {
        let start = self.shared.now();
        if guard.check().is_err() {
            return;
        }
        self.held(start);
        let counter = &self.shared.counters[lock];
        let found = counter.load(Ordering::SeqCst);
        if self.random.chance(30) {
            // Gives others a chance to come in between, which they must not.
            thread::sleep(real(self.random.millis(0, 300)));
        } else if self.random.chance(1) {
            // As if the process were stopped, for longer than the lease may last.
            thread::sleep(real(self.random.millis(1000, 20_000)));
        }
        // Who stood still for so long must not be expected to write in time.
        counter.store(found + 1, Ordering::SeqCst);
        self.history.increments.push(Increment {
            hold: self.history.holds.len() - 1,
            start,
            end: Some(self.shared.now()),
            died: None,
            found,
        });
    }

    /// Adds one to the value that the service guards. `value`: what this hold knows it to be.
    fn write(&mut self, lock: usize, guard: &LeaseGuard, value: &mut Option<u64>) {
        let known = match *value {
            Some(known) => known,
            None => {
                let start = self.shared.now();
                let Ok(content) = guard.read() else { return };
                let known = parse_value(&content);
                self.history.reads.push(Read {
                    lock,
                    value: known,
                    start,
                    end: self.shared.now(),
                });
                known
            }
        };
        let start = self.shared.now();
        let content = format!("{} {}", known + 1, self.name);
        *value = guard.write(content.as_bytes()).ok().map(|()| known + 1);
        self.history.writes.push(Write {
            lock,
            value: known + 1,
            start,
            confirmed: value.map(|_| self.shared.now()),
        });
    }
}

/// The number that the content of a lock blob begins with.
fn parse_value(content: &[u8]) -> u64 {
    let text = str::from_utf8(content).expect("text");
    let number = text.split(' ').next().unwrap_or_default();
    if number.is_empty() {
        return 0; // Nothing was written yet.
    }
    number.parse().expect("a number")
}
