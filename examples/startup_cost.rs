//! What `azmutex run` costs besides its requests: its CPU time against that of a bare HTTP client
//! that sends the same two.
//!
//! ```text
//! cargo build --release --features cli
//! cargo run --release --features cli,emulator --example startup_cost target/release/azmutex
//! ```
//!
//! The figures include the start of each process. The bare client also starts `true`, so that both
//! do the same: acquire, run, release.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::Duration;

use azmutex::emulator::Emulator;
use azmutex::{AzureMutex, LeaseId};

/// The programs take turns, so that other load on the machine affects all of them.
const TURNS: u32 = 20;
const RUNS: u32 = 30;
/// The unit of times in /proc.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("bare"), Some(url)) => bare(&url),
        (Some(azmutex), None) => compare(azmutex),
        _ => Err("usage: startup_cost PATH-OF-AZMUTEX".into()),
    }
}

/// Acquires, runs `true` and releases, with nothing but an HTTP client.
fn bare(url: &str) -> Result<(), Box<dyn Error>> {
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .build()
        .new_agent();
    let id = LeaseId::random()?.to_string();
    let send = |action: &str, headers: &[(&str, &str)]| {
        let mut request = agent
            .put(url)
            .header("x-ms-version", "2021-04-10")
            .header("x-ms-lease-action", action);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send_empty()
    };
    let duration = ("x-ms-lease-duration", "60");
    send("acquire", &[duration, ("x-ms-proposed-lease-id", &id)])?;
    let status = Command::new("true").status()?;
    send("release", &[("x-ms-lease-id", &id)])?;
    std::process::exit(status.code().unwrap_or(1));
}

fn compare(azmutex: &str) -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start()?;
    let sas = emulator.sas(Duration::from_secs(3600));
    let mutex = AzureMutex::new(emulator.options("locks")?)?;
    let lease = mutex.acquire("x", azmutex::LeaseDuration::MAX)?;
    mutex.release(&lease)?;
    let url = format!("{}?comp=lease&{sas}", mutex.url("x"));

    let own = std::env::current_exe()?;
    let with = || {
        let mut command = Command::new(azmutex);
        command
            .args(["run", "--no-fencing", "x", "--", "true"])
            .env("AZURE_STORAGE_ACCOUNT", emulator.account())
            .env("AZMUTEX_ENDPOINT", emulator.endpoint())
            .env("AZURE_STORAGE_SAS_TOKEN", &sas);
        command
    };
    let without = || {
        let mut command = Command::new(&own);
        command.args(["bare", &url]);
        command
    };
    let child = || Command::new("true");
    let requests = emulator.requests();
    let [mut with_lock, mut bare, mut alone] = [0.0; 3];
    for _ in 0..TURNS {
        with_lock += measure(&with)?;
        bare += measure(&without)?;
        alone += measure(&child)?;
    }
    let requests = emulator.requests() - requests;
    assert_eq!(
        requests,
        u64::from(TURNS * RUNS) * 4,
        "two requests for each run"
    );
    let [with_lock, bare, alone] =
        [with_lock, bare, alone].map(|seconds| seconds * 1000.0 / f64::from(TURNS * RUNS));
    println!("azmutex run --no-fencing x -- true   {with_lock:.2} ms of CPU");
    println!("bare client, and true                {bare:.2} ms of CPU");
    println!("true                                 {alone:.2} ms of CPU");
    println!("{:.2} times", with_lock / bare);
    Ok(())
}

/// The CPU time of a turn in seconds, including that of grandchildren.
fn measure(command: &dyn Fn() -> Command) -> Result<f64, Box<dyn Error>> {
    let before = children()?;
    for _ in 0..RUNS {
        let status = command().stdin(Stdio::null()).status()?;
        if !status.success() {
            return Err(format!("it failed: {status}").into());
        }
    }
    Ok(children()? - before)
}

/// The CPU time of all children so far, in seconds.
fn children() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no process name")?;
    // The 16th and 17th field, of which two are before the parenthesis.
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks: f64 = fields[13].parse::<f64>()? + fields[14].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}
