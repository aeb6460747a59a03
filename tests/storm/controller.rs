use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, ErrorKind, LeaseDuration, Locker, MutexOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::worker::parse_value;
use super::{
    ALL, CONTAINER, FIRST_PERMIT, LEASE, LOCKS, MARGIN_NANOS, PERMITS, journal, lock_name, now,
};
use crate::support::azurite::Azurite;
use crate::support::history::{Break, Finals, History, Permits};
use crate::support::proxy::FaultProxy;
use crate::support::weather::{Cut, Pump, Random, Tally, Weather};

/// How long a worker may take to end after it was told to, whatever the weather.
const END_TIMEOUT: Duration = Duration::from_secs(45);
/// From one look at the workers to the next.
const TICK: Duration = Duration::from_millis(10);
/// How much longer than a lease a lock may take to be free: for a loaded machine.
const SLACK: Duration = Duration::from_secs(3);

pub(super) fn run() -> ExitCode {
    let Some(lasts) = duration() else {
        println!("storm: NOT RUN; it takes minutes: set STORM_SECONDS or STORM_MINUTES to run it");
        return ExitCode::SUCCESS;
    };
    let seed = number("STORM_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000_007)
    });
    let workers = number("STORM_WORKERS").unwrap_or(10) as usize;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("storm-{}", process::id()));
    fs::create_dir_all(&dir).expect("a directory");
    println!(
        "storm: STORM_SEED={seed}; {} s, {workers} processes; {}",
        lasts.as_secs(),
        dir.display()
    );
    let wrong = Storm::new(seed, workers, dir.clone()).run(lasts);
    if wrong.is_empty() {
        if env::var_os("STORM_KEEP").is_none() {
            let _ = fs::remove_dir_all(&dir);
        }
        println!("storm: passed");
        return ExitCode::SUCCESS;
    }
    for line in wrong.iter().take(50) {
        println!("storm: WRONG: {line}");
    }
    println!(
        "storm: FAILED in {} points; again with STORM_SEED={seed}; histories in {}",
        wrong.len(),
        dir.display()
    );
    ExitCode::FAILURE
}

fn duration() -> Option<Duration> {
    let minutes = number("STORM_MINUTES").map(|minutes| minutes * 60);
    minutes
        .or_else(|| number("STORM_SECONDS"))
        .map(Duration::from_secs)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

/// A service and the clients of it that no fault stands in the way of.
struct Service {
    name: &'static str,
    proxied: std::net::SocketAddr,
    direct: MutexOptions,
}

struct Storm {
    seed: u64,
    dir: PathBuf,
    random: Random,
    tally: Tally,
    services: Vec<Service>,
    workers: Vec<Worker>,
    breaks: Vec<Break>,
    deaths: HashMap<String, u64>,
    events: BTreeMap<&'static str, u64>,
    peak: u64,
    wrong: Vec<String>,
    is_over: Arc<AtomicBool>,
    // Ended last.
    _emulator: Emulator,
    azurite: Option<Azurite>,
}

/// One worker: a process, and after its end the next one.
struct Worker {
    number: usize,
    /// Which of the services.
    service: usize,
    incarnation: u64,
    process: Option<Process>,
    proxy: Arc<FaultProxy>,
    cut: Cut,
}

struct Process {
    name: String,
    child: Child,
    state: State,
}

enum State {
    Running,
    Stopped {
        until: Instant,
    },
    /// Told to end, with so much time left to do so.
    Ending {
        left: Duration,
    },
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also one that is stopped. After an end that was waited for this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Storm {
    fn new(seed: u64, workers: usize, dir: PathBuf) -> Self {
        let emulator = Emulator::start().expect("an emulator");
        let azurite = Azurite::start_with(&[]);
        let mut services = vec![Service::new(
            "the emulator",
            &emulator.connection_string(),
            &emulator.endpoint(),
        )];
        if let Some(azurite) = &azurite {
            let service =
                Service::new("Azurite", &azurite.connection_string(), &azurite.endpoint());
            services.push(service);
        } else {
            println!("storm: Azurite cannot be had: all workers use the emulator");
        }
        let tally = Tally::default();
        let workers = (0..workers)
            .map(|number| Worker::new(number, number / 2 % services.len(), seed, &services, &tally))
            .collect();
        Self {
            seed,
            dir,
            random: Random::new(seed, 0),
            tally,
            services,
            workers,
            breaks: Vec::new(),
            deaths: HashMap::new(),
            events: BTreeMap::new(),
            peak: 0,
            wrong: Vec::new(),
            is_over: Arc::default(),
            _emulator: emulator,
            azurite,
        }
    }

    fn run(mut self, lasts: Duration) -> Vec<String> {
        self.prepare();
        let pumps = self.start_pumps();
        let started = Instant::now();
        let mut next_event = started + Duration::from_secs(1);
        let mut next_report = started + Duration::from_secs(60);
        while started.elapsed() < lasts {
            if let Some(end) = self.azurite.as_mut().and_then(Azurite::end) {
                self.wrong.push(format!("Azurite ended: {end}"));
                break;
            }
            if Instant::now() >= next_event {
                self.strike();
                next_event += self.random.millis(300, 4500);
            }
            if Instant::now() >= next_report {
                self.report(started.elapsed());
                next_report += Duration::from_secs(60);
            }
            self.tend(true);
            thread::sleep(TICK);
        }
        self.end_all();
        self.is_over.store(true, Ordering::SeqCst);
        for pump in pumps {
            if pump.join().is_err() {
                self.wrong
                    .push("late requests were not delivered".to_owned());
            }
        }
        self.let_go();
        self.judge(started.elapsed());
        self.wrong
    }

    /// Creates the counter files and the blobs, so that the storm is about locks alone.
    fn prepare(&self) {
        for (number, service) in self.services.iter().enumerate() {
            let mutex = service.mutex();
            for lock in 0..LOCKS {
                let file = format!("{}.count", lock_name(number * ALL + lock));
                fs::write(self.dir.join(file), format!("{:020}", 0)).expect("a counter file");
                let lease = mutex
                    .acquire(
                        &lock_name(lock),
                        LeaseDuration::from_secs(15).expect("15 s"),
                    )
                    .expect("a new lock");
                mutex.release(&lease).expect("it is held");
            }
        }
    }

    /// One thread for each service, so that one that is slow does not hold up the other.
    fn start_pumps(&self) -> Vec<JoinHandle<()>> {
        let start = |service| {
            let workers = self
                .workers
                .iter()
                .filter(move |worker| worker.service == service);
            let mut pumps: Vec<_> = workers
                .map(|worker| {
                    let pump = Pump::new(self.seed, worker.number as u64, 1);
                    (pump, Arc::clone(&worker.proxy))
                })
                .collect();
            let is_over = Arc::clone(&self.is_over);
            thread::spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    for (pump, proxy) in &mut pumps {
                        pump.work(proxy);
                    }
                    thread::sleep(TICK);
                }
            })
        };
        (0..self.services.len()).map(start).collect()
    }

    fn event(&mut self, name: &'static str) {
        *self.events.entry(name).or_default() += 1;
    }

    /// Starts what is not running, continues what was stopped for long enough, and looks after
    /// those that are to end.
    fn tend(&mut self, again: bool) {
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            let Some(process) = &mut worker.process else {
                if again {
                    self.start(at);
                }
                continue;
            };
            match process.state {
                State::Stopped { until } if Instant::now() >= until => {
                    process.signal(Signal::CONT);
                    process.state = State::Running;
                }
                State::Ending { left } if left.is_zero() => {
                    let name = process.name.clone();
                    self.wrong.push(format!("{name} did not end when told to"));
                    self.kill(at);
                }
                State::Ending { ref mut left } => {
                    // Only the time in which this process runs, too, counts on a busy machine.
                    *left = left.saturating_sub(TICK);
                    self.look_after(at);
                }
                State::Stopped { .. } => {}
                State::Running => self.look_after(at),
            }
        }
    }

    fn start(&mut self, at: usize) {
        let worker = &mut self.workers[at];

        worker.incarnation += 1;
        let name = format!("w{}.{}", worker.number, worker.incarnation);
        let stderr = File::create(self.dir.join(format!("{name}.stderr"))).expect("a file");
        let seed = self.seed ^ (worker.number as u64) << 32 ^ worker.incarnation << 16;
        let child = Command::new(env::current_exe().expect("this program"))
            .env("STORM_WORKER", &name)
            .env("STORM_DIR", &self.dir)
            .env("STORM_SEED", seed.to_string())
            .env("STORM_CONNECTION", worker.proxy.connection_string())
            .env("STORM_FIRST_LOCK", (worker.service * ALL).to_string())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("a worker");
        worker.process = Some(Process {
            name,
            child,
            state: State::Running,
        });
        self.event("started");
    }

    /// Takes in the end of a process, if it has ended.
    fn look_after(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        let Some(process) = &mut worker.process else {
            return;
        };
        let Ok(Some(status)) = process.child.try_wait() else {
            return;
        };
        let mut said = String::new();
        if let Some(mut stdout) = process.child.stdout.take() {
            let _ = stdout.read_to_string(&mut said);
        }
        let name = process.name.clone();
        if !status.success() || !matches!(process.state, State::Ending { .. }) {
            self.wrong.push(format!("{name} ended by itself: {status}"));
        }
        for line in said.lines() {
            match line.split_once(' ') {
                Some(("left", "0 0")) => {}
                Some(("left", left)) => self.wrong.push(format!(
                    "{name} left threads and descriptors behind: {left}"
                )),
                Some(("peak", peak)) => self.peak = self.peak.max(peak.parse().unwrap_or(0)),
                _ => self.wrong.push(format!("{name} said: {line}")),
            }
        }
        worker.process = None;
        self.deaths.insert(name, now());
        self.event("ended");
    }

    fn kill(&mut self, at: usize) {
        if let Some(process) = self.workers[at].process.take() {
            let name = process.name.clone();
            drop(process);
            self.deaths.insert(name, now());
        }
    }

    /// Does one thing to a worker or a lock.
    fn strike(&mut self) {
        let at = self.random.below(self.workers.len() as u64) as usize;
        let what = self.random.weighted(&[32, 9, 15, 9, 13, 6, 5, 11]);
        let short = self.random.millis(20, 3000);
        let long = self.random.millis(16_000, 22_000);
        let lock = self.random.below(LOCKS as u64) as usize;
        let service = self.random.below(self.services.len() as u64) as usize;
        let period = Duration::from_secs(self.random.below(14) + 1);
        match what {
            0 => self.stop(at, short),
            1 => self.stop(at, long),
            2 => {
                self.kill(at);
                self.event("killed");
            }
            3 => self.tell_to_end(at),
            4 => self.break_lease(service, lock, None),
            5 => self.break_lease(service, lock, Some(Duration::ZERO)),
            6 => self.break_lease(service, lock, Some(period)),
            _ => {
                self.workers[at].cut.off(long);
                self.event("cut off for longer than a lease");
            }
        }
    }

    fn stop(&mut self, at: usize, lasts: Duration) {
        let Some(process) = &mut self.workers[at].process else {
            return;
        };
        if matches!(process.state, State::Running) {
            process.signal(Signal::STOP);
            process.state = State::Stopped {
                until: Instant::now() + lasts,
            };
            self.event(if lasts > LEASE {
                "stopped for longer than a lease"
            } else {
                "stopped"
            });
        }
    }

    fn tell_to_end(&mut self, at: usize) {
        let Some(process) = &mut self.workers[at].process else {
            return;
        };
        if let State::Stopped { .. } = process.state {
            process.signal(Signal::CONT);
        }
        if !matches!(process.state, State::Ending { .. }) {
            process.child.stdin = None;
            process.state = State::Ending { left: END_TIMEOUT };
        }
    }

    fn break_lease(&mut self, service: usize, lock: usize, period: Option<Duration>) {
        let sent = now();
        let result = self.services[service]
            .mutex()
            .break_lease(&lock_name(lock), period);
        let mut answered = now();
        match result {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) if error.kind() == ErrorKind::Transport => {
                // A busy service may do it yet.
                self.event("broken perhaps");
                answered += (2 * LEASE).as_nanos() as u64;
            }
            Err(error) => self.wrong.push(format!("a break was refused: {error}")),
        }
        self.event(match period {
            None => "broken without a period",
            Some(Duration::ZERO) => "broken at once",
            Some(_) => "broken with a period",
        });
        if period.is_some() {
            self.breaks.push(Break {
                lock: service * ALL + lock,
                sent,
                answered,
            });
        }
    }

    /// Ends all workers while the storm goes on.
    fn end_all(&mut self) {
        for at in 0..self.workers.len() {
            self.tell_to_end(at);
        }
        while self.workers.iter().any(|worker| worker.process.is_some()) {
            self.tend(false);
            thread::sleep(TICK);
        }
    }

    /// Ends the storm: what is under way arrives now.
    fn let_go(&self) {
        for worker in &self.workers {
            worker.proxy.clear();
            Pump::let_go(&worker.proxy);
        }
    }

    /// Reads everything that was written down, and checks it.
    fn judge(&mut self, elapsed: Duration) {
        let since = Instant::now();
        let mut finals = BTreeMap::new();
        let mut slowest = Duration::ZERO;
        thread::scope(|scope| {
            let waiting: Vec<_> = (0..self.services.len() * LOCKS)
                .map(|lock| {
                    let service = &self.services[lock / LOCKS];
                    scope.spawn(move || service.take_over(lock % LOCKS))
                })
                .collect();
            for (lock, waiting) in waiting.into_iter().enumerate() {
                let (service, key) = (self.services[lock / LOCKS].name, lock_name(lock % LOCKS));
                match waiting.join().expect("no panic") {
                    Ok((value, free)) => {
                        slowest = slowest.max(free - since);
                        let lock = lock / LOCKS * ALL + lock % LOCKS;
                        let file = self.dir.join(format!("{}.count", lock_name(lock)));
                        let counter = fs::read_to_string(file).expect("a count");
                        let counter = counter.parse().expect("a number");
                        finals.insert(lock, Finals { counter, value });
                    }
                    Err(error) => self
                        .wrong
                        .push(format!("{key} of {service} is not free again: {error}")),
                }
            }
        });
        let services = self.services.len();
        let first_lock = |process: &str| {
            let number = process[1..].split('.').next().unwrap_or_default();
            number.parse::<usize>().expect("a number") / 2 % services * ALL
        };
        for service in &self.services {
            if let Err(error) = service.take_permits() {
                let name = service.name;
                self.wrong
                    .push(format!("not all permits of {name} are back: {error}"));
            }
        }
        let permits = |first| Permits {
            locks: first + FIRST_PERMIT..first + ALL,
            number: PERMITS as usize,
        };
        let history = History {
            semaphores: (0..services)
                .map(|service| permits(service * ALL))
                .collect(),
            breaks: std::mem::take(&mut self.breaks),
            finals,
            ..journal::read_all(&self.dir, first_lock, &self.deaths).expect("journals")
        };
        let (totals, wrong) = history.check(MARGIN_NANOS);
        self.wrong.extend(wrong);
        self.check_stderr();
        self.report(elapsed);
        println!("storm: {totals:?}");
        println!(
            "storm: every lock free after {:.1} s; workers used at most {} KiB",
            slowest.as_secs_f64(),
            self.peak
        );
    }

    fn check_stderr(&mut self) {
        for entry in fs::read_dir(&self.dir).expect("the directory") {
            let path = entry.expect("an entry").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "stderr")
            {
                let text = fs::read_to_string(&path).unwrap_or_default();
                if !text.is_empty() {
                    self.wrong.push(format!("{}: {text}", path.display()));
                }
            }
        }
    }

    fn report(&self, elapsed: Duration) {
        let secs = elapsed.as_secs();
        println!(
            "storm: {secs} s; {:?}; {:?}",
            self.events,
            self.tally.counts()
        );
    }
}

impl Service {
    fn new(name: &'static str, connection_string: &str, endpoint: &str) -> Self {
        let origin = endpoint.trim_start_matches("http://");
        let authority = origin.split('/').next().unwrap_or_default();
        let direct = MutexOptions::from_connection_string(connection_string, CONTAINER);
        Self {
            name,
            proxied: authority.parse().expect("an address"),
            direct: direct.expect("a connection string"),
        }
    }

    fn mutex(&self) -> AzureMutex {
        AzureMutex::new(self.direct.clone()).expect("valid options")
    }

    /// Waits for a lock, for a lease at most. Returns its value, and when it was free.
    fn take_over(&self, lock: usize) -> Result<(u64, Instant), azmutex::Error> {
        let locker = Locker::builder(self.mutex(), &lock_name(lock))
            .poll_interval(Duration::from_millis(20))
            .fencing(true)
            .build()?;
        let guard = locker.try_lock_for(LEASE + SLACK)?;
        let free = Instant::now();
        let value = parse_value(&guard.read()?);
        guard.release()?;
        Ok((value, free))
    }

    /// Waits for all permits, for a lease at most each.
    fn take_permits(&self) -> Result<(), azmutex::Error> {
        let builder = Locker::builder(self.mutex(), "permit").fencing(true);
        let semaphore = builder.build_semaphore(PERMITS)?;
        let permits = (0..PERMITS).map(|_| semaphore.try_acquire_for(LEASE + SLACK));
        let permits: Result<Vec<_>, _> = permits.collect();
        permits.map(drop).map_err(Into::into)
    }
}

impl Worker {
    fn new(number: usize, service: usize, seed: u64, services: &[Service], tally: &Tally) -> Self {
        let proxy = FaultProxy::start(services[service].proxied);
        let cut = Weather::new(seed, number as u64, 1, tally).over(&proxy);
        Self {
            number,
            service,
            incarnation: 0,
            process: None,
            proxy: Arc::new(proxy),
            cut,
        }
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself, which is seen later.
        let _ = kill_process(pid.expect("a process ID"), signal);
    }
}
