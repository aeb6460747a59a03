//! Takes a lock and releases it, as often as the argument says, and prints its peak memory.

use std::{env, error::Error, fs};

use azmutex::Locker;

fn main() -> Result<(), Box<dyn Error>> {
    let count: u32 = env::args().nth(1).ok_or("no count")?.parse()?;
    let locker = Locker::from_env("locks", "peers")?;
    for _ in 0..count {
        locker.lock()?.release()?;
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    println!("{}", peak.ok_or("no VmHWM")?);
    Ok(())
}
