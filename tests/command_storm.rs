//! A storm over `azmutex run`: whatever becomes of azmutex, no two of its commands are at work at
//! once, and none is left when it is over.
//!
//! Takes minutes, so `cargo test` runs it only if it is asked to:
//!
//! - `STORM_SECONDS=120` runs it for that long.
//! - `STORM_KILLS=50` kills azmutex so often first, with commands of every kind.
//! - `STORM_SEED=7` draws the same commands and blows again, as nearly as processes allow.
//! - `STORM_RUNNERS=12` is how many runs there are at a time, on two thirds as many locks.
//! - `STORM_MISTAKE=no-guardian` runs without guardians, which has to be noticed.
//!
//! The commands are shells that increment a counter, not atomically, and write down each step; some
//! start processes in sessions of their own, orphans and daemons, some heed no signal. azmutex is
//! killed, stopped for longer than a lease, sent signals, cut off from the service, its guardian is
//! killed, and its lease is broken. See `tests/README.md` for what is checked.

#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the integration tests use the rest"
)]
#[path = "it/support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
#[path = "command_storm/mod.rs"]
mod run;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("command storm: not run: this system does not tell which processes there are");
}
