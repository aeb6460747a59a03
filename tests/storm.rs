//! A storm of faults over processes that share locks, and the proof that no lock was shared.
//!
//! Takes minutes, so `cargo test` runs it only if it is asked to:
//!
//! - `STORM_SECONDS=120` or `STORM_MINUTES=60` runs it for that long.
//! - `STORM_SEED=7` runs the schedule of an earlier storm again, as nearly as processes allow.
//! - `STORM_WORKERS=10` is how many processes there are, in pairs.
//! - `STORM_KEEP=1` keeps the histories; those of a storm that failed are kept anyway.
//!
//! Half of the workers share locks in Azurite, half in the embedded emulator, each through a
//! proxy of its own. See `tests/README.md` for what is checked, and what is not promised.

#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the integration tests use the rest"
)]
#[path = "it/support/mod.rs"]
mod support;

#[cfg(unix)]
#[path = "storm/mod.rs"]
mod run;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(unix))]
fn main() {
    println!("storm: not run: there is no SIGSTOP on this system");
}
