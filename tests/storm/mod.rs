mod controller;
mod journal;
mod worker;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// All workers use leases of this duration, the shortest there is.
const LEASE: Duration = Duration::from_secs(15);
/// What a locker keeps back of it by default: work that takes longer after its check than this
/// may be overtaken.
const MARGIN_NANOS: u64 = LEASE.as_secs() * 1_000_000_000 / 12;
const CONTAINER: &str = "storm";
/// The locks of one service.
const LOCKS: usize = 3;

pub(crate) fn main() -> ExitCode {
    match env::var("STORM_WORKER") {
        Ok(name) => worker::run(&name),
        Err(_) => controller::run(),
    }
}

fn lock_name(lock: usize) -> String {
    format!("lock-{lock}")
}

/// The clock that the library goes by, which is the same for all processes of a machine.
fn now() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
