//! The instructions of `drop(locker.lock()?)` compared with those of the two requests that it
//! sends, as callgrind counts them.
//!
//! ```text
//! cargo bench --bench instructions
//! ```
//!
//! The benchmark runs itself under callgrind with a few rounds and with many, and takes the
//! difference, so that starting and connecting do not count. All threads are counted, the kernel is
//! not. "timed" requests have a timeout, as the library's do.

mod support;

use std::env;
use std::process::{Command, Stdio};

use azmutex::{AzureMutex, Locker, MutexOptions};

use support::{CONTAINER, ROLE, Raw, Result, Server, TIMEOUT, role, verdict};

const ROUNDS: [u32; 2] = [100, 600];
const TARGET: f64 = 1.3;
const CONNECTION: &str = "AZMUTEX_BENCH_CONNECTION";

fn main() -> Result<()> {
    if let Some(role) = role()? {
        return client(&role);
    }
    let valgrind = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !valgrind.is_ok_and(|status| status.success()) {
        println!("not measured: valgrind is not installed");
        return Ok(());
    }
    let server = Server::start()?;
    let options = MutexOptions::from_connection_string(&server.connection_string, CONTAINER)?;
    drop(Locker::new(AzureMutex::new(options)?, "bench")?.lock()?); // creates the blob

    let lock = per_round(&server, "lock")?;
    println!("lock and release: {lock:.0} instructions");
    for which in ["timed", "untimed"] {
        let raw = per_round(&server, which)?;
        let ratio = lock / raw;
        println!("{which} requests: {raw:.0} instructions");
        println!(
            "instruction ratio to {which} requests: {ratio:.3} (target: at most {TARGET}: {})",
            verdict(ratio <= TARGET)
        );
    }
    Ok(())
}

fn per_round(server: &Server, which: &str) -> Result<f64> {
    let [few, many] = ROUNDS;
    let difference = collected(server, which, many)? - collected(server, which, few)?;
    Ok(difference / f64::from(many - few))
}

fn collected(server: &Server, which: &str, rounds: u32) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .env(ROLE, format!("{which} {rounds}"))
        .env(CONNECTION, &server.connection_string)
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .map(|(_, count)| count.trim().parse());
    match count {
        Some(count) if output.status.success() => Ok(count?),
        _ => Err(format!("valgrind failed: {text}").into()),
    }
}

/// The process whose instructions are counted.
fn client(role: &str) -> Result<()> {
    let (which, rounds) = role.split_once(' ').ok_or("not a role")?;
    let connection = env::var(CONNECTION)?;
    let timeout = TIMEOUT.filter(|_| which == "timed");
    let raw = Raw::new(&connection, "bench", timeout)?;
    let options = MutexOptions::from_connection_string(&connection, CONTAINER)?;
    let locker = Locker::new(AzureMutex::new(options)?, "bench")?;
    for _ in 0..rounds.parse()? {
        match which {
            "lock" => drop(locker.lock()?),
            _ => raw.pair()?,
        }
    }
    Ok(())
}
