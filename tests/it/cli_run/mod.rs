//! `azmutex run`, as whoever types it meets it: the real command, real processes, real signals.

mod also;
mod clean_up;
mod concurrency;
mod election;
mod exit_status;
#[cfg(target_os = "linux")]
mod guardian;
mod loss;
mod once;
mod signals;
mod slots;
pub(crate) mod support;
#[cfg(target_os = "linux")]
mod terminal;
mod waiting;
