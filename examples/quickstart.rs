//! Processes that contend for locks, on the embedded emulator.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! Starts copies of itself as the clients and shows, in less than 20 seconds:
//!
//! 1. Three workers want the lock `migration` five times each, and have it one at a time. Each
//!    creates a marker file while it holds the lock; a marker that is there already is an overlap.
//! 2. A process is killed while it holds the lock `backup`. It cannot release it, so the waiter
//!    gets the lock once the lease of 15 seconds has run out.
//! 3. An operator breaks the lease on `cleanup`. Its holder notices at its next renewal, stops, and
//!    fails.
//!
//! Exits with 0 only if all of that happened. If the environment names a storage account, as
//! [`MutexOptions::from_env`] reads it, it runs there instead, in the container
//! `azmutex-quickstart`.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, Event, Locker, MutexOptions};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CONTAINER: &str = "azmutex-quickstart";
const WORKERS: [&str; 3] = ["worker 1", "worker 2", "worker 3"];
const ROUNDS: usize = 5;
const LEASE: Duration = Duration::from_secs(15);
const RENEWAL_INTERVAL: Duration = Duration::from_secs(2);
/// The file that a worker creates while it holds the lock.
const MARKER: &str = "marker";
/// The last line of every client.
const GONE: &str = "is gone";
/// Far longer than anything here takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show(),
        ["work", key] => client(|mutex| work(mutex, key)),
        ["hold", key] => client(|mutex| hold(mutex, key)),
        _ => Err("this example takes no arguments".into()),
    }
}

// The clients. The process that started them shows what they print.

fn client(run: impl FnOnce(AzureMutex) -> Result<()>) -> Result<()> {
    // Ends this process when its parent ends, for whatever reason.
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(1);
    });
    run(AzureMutex::new(MutexOptions::from_env(CONTAINER)?)?)
}

/// A lock with a short lease, which prints what happens to it.
fn locker(mutex: AzureMutex, key: &str) -> Result<Locker> {
    let locker = Locker::builder(mutex, key)
        .lease_duration(LEASE)
        .renewal_interval(RENEWAL_INTERVAL)
        .poll_interval(Duration::from_millis(50))
        .observer(move |event| match event {
            Event::Waiting { attempt: 1, .. } => println!("waits"),
            Event::Lost { reason, .. } => println!("hears: {reason}"),
            _ => {}
        });
    Ok(locker.build()?)
}

/// Works in rounds, each under the lock, and checks that nobody else is working.
fn work(mutex: AzureMutex, key: &str) -> Result<()> {
    let locker = locker(mutex, key)?;
    for round in 1..=ROUNDS {
        let guard = locker.lock()?;
        let alone = match File::create_new(MARKER) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error.into()),
        };
        thread::sleep(Duration::from_millis(100)); // the work
        guard.check()?;
        if alone {
            fs::remove_file(MARKER)?;
            println!("worked alone, round {round} of {ROUNDS}");
        } else {
            println!("OVERLAP in round {round} of {ROUNDS}");
        }
        guard.release()?;
        thread::sleep(Duration::from_millis(100)); // gives the others a chance
    }
    Ok(())
}

/// Holds a lock until it is lost, or forever.
fn hold(mutex: AzureMutex, key: &str) -> Result<()> {
    let guard = locker(mutex, key)?.lock()?;
    println!("holds `{key}`");
    while guard.check().is_ok() {
        thread::sleep(Duration::from_millis(50)); // a step of the work
    }
    println!("stops");
    if let Err(error) = guard.release() {
        println!("{error}");
        process::exit(1); // work that lost its lock does not end as a success
    }
    Ok(())
}

// The process that starts the clients.

fn show() -> Result<()> {
    let variables = ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"];
    let emulator = if variables.iter().any(|name| env::var_os(name).is_some()) {
        None
    } else {
        Some(Emulator::start()?)
    };
    let connection = emulator.as_ref().map(Emulator::connection_string);
    let mutex = AzureMutex::new(match &connection {
        Some(text) => MutexOptions::from_connection_string(text, CONTAINER)?,
        None => MutexOptions::from_env(CONTAINER)?,
    })?;
    let mut stage = Stage::new(connection)?;
    match &emulator {
        Some(emulator) => stage.say(&format!("started an emulator, {}", emulator.endpoint())),
        None => stage.say("uses the account that the environment names"),
    };

    println!("\nThree workers, one lock");
    let workers = WORKERS.map(|name| stage.start(name, "work", "migration"));
    for worker in workers {
        stage.finish(worker?)?;
    }
    let (rounds, overlaps) = (stage.count("worked alone"), stage.count("OVERLAP"));

    println!("\nA holder is killed");
    let holder = stage.start("holder", "hold", "backup")?;
    stage.wait_for("holder", "holds")?;
    let _waiter = stage.start("waiter", "hold", "backup")?;
    stage.wait_for("waiter", "waits")?;
    let killed = stage.say("kills the holder");
    drop(holder);
    stage.wait_for("holder", GONE)?;

    println!("\nMeanwhile, a lease is broken");
    let cleaner = stage.start("cleaner", "hold", "cleanup")?;
    stage.wait_for("cleaner", "holds")?;
    stage.say("breaks the lease on `cleanup`");
    mutex.break_lease("cleanup", None)?;
    stage.wait_for("cleaner", "hears: the lease was broken")?;
    stage.wait_for("cleaner", "stops")?;
    if stage.finish(cleaner).is_ok() {
        return Err("the cleaner lost its lock, and did not fail".into());
    }

    println!("\nThe killed holder's lease runs out");
    let after = stage.wait_for("waiter", "holds")?.saturating_sub(killed);
    stage.say(&format!("the waiter has it {after:.1?} after the kill"));

    if after < LEASE / 2 {
        return Err("the waiter got the lock before the killed holder's lease ran out".into());
    }
    if rounds != WORKERS.len() * ROUNDS || overlaps > 0 {
        return Err(format!("exclusion FAILED: {rounds} rounds, {overlaps} overlaps").into());
    }
    println!("\nexclusion held: {rounds} rounds, {overlaps} overlaps");
    Ok(())
}

/// What the clients need, and what they have printed.
struct Stage {
    started: Instant,
    /// The emulator's connection string, if it is used.
    connection: Option<String>,
    /// Where the clients run and create their marker. Removed at the end.
    directory: PathBuf,
    sender: Sender<Line>,
    lines: Receiver<Line>,
    seen: Vec<Line>,
}

/// A line that a client printed.
struct Line {
    at: Duration,
    who: &'static str,
    what: String,
}

impl Stage {
    fn new(connection: Option<String>) -> Result<Self> {
        let directory = env::temp_dir().join(format!("{CONTAINER}-{}", process::id()));
        fs::create_dir(&directory)?;
        let (sender, lines) = mpsc::channel();
        Ok(Self {
            started: Instant::now(),
            connection,
            directory,
            sender,
            lines,
            seen: Vec::new(),
        })
    }

    /// Adds what the parent does to the timeline. Returns the time.
    fn say(&self, what: &str) -> Duration {
        let at = self.started.elapsed();
        print(at, "parent", what);
        at
    }

    fn count(&self, what: &str) -> usize {
        let lines = self.seen.iter();
        lines.filter(|line| line.what.starts_with(what)).count()
    }

    fn start(&self, who: &'static str, role: &str, key: &str) -> Result<Client> {
        let mut command = Command::new(env::current_exe()?);
        command.args([role, key]).current_dir(&self.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(connection) = &self.connection {
            command.env("AZURE_STORAGE_CONNECTION_STRING", connection);
        }
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or("no pipe to the client")?;
        let (sender, started) = (self.sender.clone(), self.started);
        thread::spawn(move || {
            let printed = BufReader::new(output).lines().map_while(io::Result::ok);
            for what in printed.chain([GONE.to_owned()]) {
                let at = started.elapsed();
                // Fails once nobody listens any more.
                let _ = sender.send(Line { at, who, what });
            }
        });
        Ok(Client { who, process })
    }

    /// Waits until `who` prints a line that begins with `what`. Returns when that was.
    fn wait_for(&mut self, who: &str, what: &str) -> Result<Duration> {
        let end = Instant::now() + LIMIT;
        let mut looked_at = 0;
        loop {
            for line in self.seen[looked_at..].iter().filter(|line| line.who == who) {
                if line.what.starts_with(what) {
                    return Ok(line.at);
                }
                if line.what == GONE {
                    return Err(format!("{who} ended before it printed: {what}").into());
                }
            }
            looked_at = self.seen.len();
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.map_err(|_| format!("{who} did not print in time: {what}"))?;
            print(line.at, line.who, &line.what);
            self.seen.push(line);
        }
    }

    /// Waits until `client` has ended, with success.
    fn finish(&mut self, mut client: Client) -> Result<()> {
        self.wait_for(client.who, GONE)?;
        let status = client.process.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("{} failed: {status}", client.who).into())
    }
}

fn print(at: Duration, who: &str, what: &str) {
    println!("{:>6.2} s  {who:<8}  {what}", at.as_secs_f64());
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A process, killed when it is dropped.
struct Client {
    who: &'static str,
    process: Child,
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
