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
/// What there is besides in a history of one service: work that is done once, and the permits of a
/// semaphore with one beyond, which nobody is to have.
const WORK: usize = LOCKS;
const FIRST_PERMIT: usize = WORK + 1;
const PERMITS: u32 = 2;
const ALL: usize = FIRST_PERMIT + PERMITS as usize + 1;
/// The work is due again after this by the service's clock, which a client may know late: a reply is up
/// to a second behind when it is sent, and up to a request's time and a stop older when it is read.
const PERIOD: Duration = Duration::from_secs(20);
const PERIOD_AT_LEAST: Duration = Duration::from_secs(12);

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
