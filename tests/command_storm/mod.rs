//! Blows over runs, and the look at what they did.

mod journal;
mod kills;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, LeaseDuration, MutexOptions};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use self::journal::{Break, Journals};
use crate::support::addr_of;
use crate::support::proxy::{Fault, FaultProxy};
use crate::support::weather::{Random, Tally};

/// All runs use the shortest lease there is.
const LEASE: Duration = Duration::from_secs(15);
const CONTAINER: &str = "locks";
/// In the environment of everything that a storm starts.
const MARK: &str = "COMMAND_STORM";
/// How long a run may take to end once nothing blows any more: its wait, its work, its lease.
const END: Duration = Duration::from_secs(90);

/// The kinds of command, each a line for bash. `W` is the worker, and what it does is drawn.
const KINDS: &[(&str, &str)] = &[
    ("plain", "exec W count"),
    ("shell that waits", "W count; true"),
    ("timeout", "timeout 100 W count; true"),
    ("session", "setsid W live & W count; wait"),
    ("daemon", "(setsid W live &) ; W count; true"),
    ("orphan", "(W live &) ; W count; true"),
    (
        "chain",
        "setsid bash -c 'W live & setsid bash -c \"(W live &)\"; wait' & W count; wait",
    ),
    ("nested", "AZMUTEX run --lease 15s INNER -- W count; true"),
];

/// What happens to a run.
#[derive(Debug, Clone, Copy)]
enum Blow {
    None,
    Kill,
    KillGroup,
    KillGuardian,
    Term,
    Interrupt,
    HangUp,
    Stop,
    StopAndKill,
    CutOff,
    Break,
    BreakAtOnce,
}

impl Blow {
    fn draw(random: &mut Random) -> Self {
        let all = [
            (16, Self::None),
            (22, Self::Kill),
            (8, Self::KillGroup),
            (6, Self::KillGuardian),
            (10, Self::Term),
            (4, Self::Interrupt),
            (4, Self::HangUp),
            (12, Self::Stop),
            (6, Self::StopAndKill),
            (10, Self::CutOff),
            (6, Self::Break),
            (3, Self::BreakAtOnce),
        ];
        let weights: Vec<u64> = all.iter().map(|(weight, _)| *weight).collect();
        all[random.weighted(&weights)].1
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "left alone",
            Self::Kill => "killed",
            Self::KillGroup => "killed with its group",
            Self::KillGuardian => "guardian killed",
            Self::Term => "TERM",
            Self::Interrupt => "INT",
            Self::HangUp => "HUP",
            Self::Stop => "stopped",
            Self::StopAndKill => "stopped, then killed",
            Self::CutOff => "cut off",
            Self::Break => "broken, whole lease left",
            Self::BreakAtOnce => "broken at once",
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let (seconds, kills) = (number("STORM_SECONDS"), number("STORM_KILLS"));
    if seconds.is_none() && kills.is_none() {
        println!(
            "command storm: NOT RUN; it takes minutes: set STORM_SECONDS or STORM_KILLS to run it"
        );
        return ExitCode::SUCCESS;
    }
    let seed = number("STORM_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000_007)
    });
    let runners = number("STORM_RUNNERS").unwrap_or(12).max(2);
    let id = format!("{}-{seed}", std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("command-storm-{id}"));
    fs::create_dir_all(&dir).expect("a directory");
    println!(
        "command storm: STORM_SEED={seed}; {} kills, then {} s, {runners} runs at a time; {}",
        kills.unwrap_or(0),
        seconds.unwrap_or(0),
        dir.display()
    );
    let storm = Arc::new(Storm::new(seed, runners, id, dir.clone()));
    if let Some(count) = kills {
        let (spared, name) = storm.kills(count).unwrap_or_default();
        let spared = spared as f64 / 100.0;
        println!(
            "command storm: {count} kills; the last sign of life was {spared:.2} s before the end of \
             the lease at the latest: {name}"
        );
    }
    let wrong = storm.run(Duration::from_secs(seconds.unwrap_or(0)));
    for line in wrong.iter().take(30) {
        println!("command storm: WRONG: {line}");
    }
    if wrong.is_empty() {
        let _ = fs::remove_dir_all(&dir);
        println!("command storm: passed");
        return ExitCode::SUCCESS;
    }
    println!(
        "command storm: FAILED in {} points; again with STORM_SEED={seed}; journals in {}",
        wrong.len(),
        dir.display()
    );
    ExitCode::FAILURE
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok().filter(|text| !text.is_empty())?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number")))
}

struct Storm {
    seed: u64,
    runners: u64,
    locks: u64,
    id: String,
    dir: PathBuf,
    emulator: Emulator,
    mutex: AzureMutex,
    options: Vec<String>,
    runs: AtomicU32,
    tally: Tally,
    breaks: Mutex<Vec<Break>>,
    wrong: Mutex<Vec<String>>,
}

impl Storm {
    fn new(seed: u64, runners: u64, id: String, dir: PathBuf) -> Self {
        let emulator = Emulator::start().expect("an emulator");
        let connection = emulator.connection_string();
        let options = MutexOptions::from_connection_string(&connection, CONTAINER);
        let mutex = AzureMutex::new(options.expect("a connection string")).expect("valid options");
        let options = match env::var("STORM_MISTAKE").as_deref() {
            Ok("no-guardian") => vec!["--no-guardian".to_owned()],
            Ok(mistake) if !mistake.is_empty() => panic!("STORM_MISTAKE: what is {mistake}?"),
            _ => Vec::new(),
        };
        let locks = (runners * 2).div_ceil(3);
        fs::write(dir.join("worker.sh"), include_str!("worker.sh")).expect("a file");
        for lock in 0..locks {
            fs::write(dir.join(format!("counter-{lock}")), "0\n").expect("a file");
            let lease = mutex.acquire(&lock_name(lock), LeaseDuration::MIN);
            mutex
                .release(&lease.expect("a free lock"))
                .expect("it is held");
        }
        Self {
            seed,
            runners,
            locks,
            id,
            dir,
            emulator,
            mutex,
            options,
            runs: AtomicU32::new(0),
            tally: Tally::default(),
            breaks: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Returns what went wrong.
    fn run(self: Arc<Self>, lasts: Duration) -> Vec<String> {
        let end = Instant::now() + lasts;
        let runners: Vec<_> = (0..self.runners)
            .map(|runner| {
                let storm = Arc::clone(&self);
                thread::spawn(move || {
                    let mut random = Random::new(storm.seed, runner);
                    let proxy = FaultProxy::start(addr_of(&storm.emulator));
                    while Instant::now() < end {
                        storm.one(&mut random, &proxy);
                    }
                })
            })
            .collect();
        for runner in runners {
            if runner.join().is_err() {
                self.wrong("a runner panicked".to_owned());
            }
        }
        // Those whose azmutex was killed are gone when their leases are.
        let until = Instant::now() + LEASE + Duration::from_secs(2);
        let mut left = self.processes();
        while !left.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
            left = self.processes();
        }
        for (pid, line) in left {
            self.wrong(format!("process {pid} is left: {line}"));
            let _ = kill_process(Pid::from_raw(pid).expect("a number"), Signal::KILL);
        }
        let breaks = self.breaks.lock().unwrap_or_else(PoisonError::into_inner);
        let journals = Journals::read(&self.dir).expect("journals");
        let report = journals.check(&breaks);
        for (what, count) in self.tally.counts() {
            println!("command storm: {count:5} {what}");
        }
        println!("command storm: {}", report.summary());
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.extend(report.wrong);
        wrong.clone()
    }

    fn wrong(&self, text: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.push(text);
    }

    /// Runs one command, and has it blown over.
    fn one(&self, random: &mut Random, proxy: &FaultProxy) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let lock = random.below(self.locks);
        let (kind, line) = KINDS[random.below(KINDS.len() as u64) as usize];
        let blow = Blow::draw(random);
        let name = format!("{run}-{lock}-{}-{}", kind, blow.name()).replace([' ', ','], "_");
        let journal = self.dir.join(format!("{name}.journal"));
        let mut child = self.start(random, proxy, run, lock, line, &journal, &name);
        let has_started = self.wait_for(&mut child, Duration::from_secs(40), |child| {
            has_ended(child) || fs::metadata(&journal).is_ok_and(|file| file.len() > 0)
        });
        if has_started && !has_ended(&mut child) {
            thread::sleep(random.millis(0, 4000));
            self.tally.add(blow.name());
            self.blow(blow, random, &child, lock, proxy);
        } else {
            self.tally.add("not acquired in time");
        }
        proxy.clear();
        proxy.release_hung();
        if !self.wait_for(&mut child, END, has_ended) {
            self.wrong(format!("{name} does not end"));
            let _ = child.kill();
        }
        let _ = child.wait();
    }

    #[allow(clippy::too_many_arguments, reason = "all that a run is made of")]
    fn start(
        &self,
        random: &mut Random,
        proxy: &FaultProxy,
        run: u32,
        lock: u64,
        line: &str,
        journal: &Path,
        name: &str,
    ) -> Child {
        let seconds = match random.below(10) {
            0..5 => random.below(3) + 1,
            5..8 => random.below(8) + 2,
            _ => 25,
        };
        let how = ["heeds", "heeds", "rolls-back", "deaf"][random.below(4) as usize];
        // What is left of an ordinary end is covered, or else it would be no fault.
        let stragglers = ["wait", "kill"][random.below(2) as usize];
        let group = ["own", "shared", "session"][random.below(3) as usize];
        let worker = |what: &str| format!("{} {what} {how} {seconds}", self.worker());
        let line = line
            .replace("W count", &worker("count"))
            .replace("W live", &worker("live"))
            .replace("INNER", &format!("inner-{run}"))
            .replace("AZMUTEX", env!("CARGO_BIN_EXE_azmutex"));
        self.azmutex(&proxy.connection_string(), journal, name)
            .env("COUNTER", self.dir.join(format!("counter-{lock}")))
            .args(["-w", "30s", "--stragglers", stragglers])
            .args(["--process-group", group])
            .args([&*lock_name(lock), "--", "bash", "-c", &*line])
            .spawn()
            .expect("azmutex starts")
    }

    /// A worker, for a shell: to be told what it does.
    fn worker(&self) -> String {
        format!("bash {}", self.dir.join("worker.sh").display())
    }

    /// A run, to be told the lock and the command.
    fn azmutex(&self, connection: &str, journal: &Path, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_azmutex"));
        for (variable, _) in env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("AZMUTEX_") || name.starts_with("AZURE_STORAGE_") {
                command.env_remove(&variable);
            }
        }
        let log = File::create(self.dir.join(format!("{name}.log"))).expect("a file");
        command
            .env(MARK, &self.id)
            .env("AZURE_STORAGE_CONNECTION_STRING", connection)
            .env("JOURNAL", journal)
            .args(["run", "--lease", "15s", "--no-fencing"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .process_group(0);
        command
    }

    fn blow(&self, blow: Blow, random: &mut Random, child: &Child, lock: u64, proxy: &FaultProxy) {
        let pid = Pid::from_child(child);
        let send = |signal| {
            // It may have ended.
            let _ = kill_process(pid, signal);
        };
        match blow {
            Blow::None => {}
            Blow::Kill => send(Signal::KILL),
            Blow::KillGroup => {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            Blow::KillGuardian => {
                if let Some(guardian) = guardian(child) {
                    let _ = kill_process(guardian, Signal::KILL);
                }
            }
            Blow::Term => send(Signal::TERM),
            Blow::Interrupt => send(Signal::INT),
            Blow::HangUp => send(Signal::HUP),
            Blow::Stop => {
                send(Signal::STOP);
                thread::sleep(random.millis(100, 22_000));
                send(Signal::CONT);
            }
            Blow::StopAndKill => {
                send(Signal::STOP);
                thread::sleep(random.millis(100, 22_000));
                send(Signal::KILL);
            }
            Blow::CutOff => {
                proxy.always(Some(Fault::HangBefore));
                thread::sleep(random.millis(1000, 20_000));
            }
            Blow::Break => {
                let _ = self.mutex.break_lease(&lock_name(lock), Some(LEASE));
            }
            Blow::BreakAtOnce => {
                let mut breaks = self.breaks.lock().unwrap_or_else(PoisonError::into_inner);
                breaks.push(Break {
                    lock,
                    at: journal::now(),
                });
                drop(breaks);
                let _ = self
                    .mutex
                    .break_lease(&lock_name(lock), Some(Duration::ZERO));
            }
        }
    }

    fn wait_for(
        &self,
        child: &mut Child,
        at_most: Duration,
        holds: impl Fn(&mut Child) -> bool,
    ) -> bool {
        let end = Instant::now() + at_most;
        while !holds(child) {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// The processes that this storm has started and that have not ended, with their arguments.
    fn processes(&self) -> BTreeMap<i32, String> {
        self.processes_with(MARK, &self.id)
    }

    /// Those that have this in their environment.
    fn processes_with(&self, variable: &str, value: &str) -> BTreeMap<i32, String> {
        let mark = format!("{variable}={value}");
        let entries = fs::read_dir("/proc").expect("a list of processes");
        let of = |entry: fs::DirEntry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let is_ours = environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes());
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            is_ours.then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        };
        entries.flatten().filter_map(of).collect()
    }
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().expect("a child").is_some()
}

fn guardian(child: &Child) -> Option<Pid> {
    let id = child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let is_guardian = |pid: &&str| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "lease-guardian\n")
    };
    let guardian = children.split_whitespace().find(is_guardian)?;
    Pid::from_raw(guardian.parse().ok()?)
}

fn lock_name(lock: u64) -> String {
    format!("lock-{lock}")
}
