//! How a command ended.

use std::ffi::c_int;

use rustix::process::WaitIdStatus;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Exited(i32),
    Killed { signal: c_int, dumped: bool },
}

impl Status {
    /// As the system says it; `None` of a process that has not ended.
    pub(super) fn of(status: &WaitIdStatus) -> Option<Self> {
        if let Some(code) = status.exit_status() {
            return Some(Self::Exited(code));
        }
        status.terminating_signal().map(|signal| Self::Killed {
            signal,
            dumped: status.dumped(),
        })
    }
}
