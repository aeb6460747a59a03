//! The options of all commands that acquire a lock.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Global;
use crate::times::since_start;
use crate::value;

/// Who holds the lock and why, as others see it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Identity {
    /// Who holds the lock, as shown to others [default: user@host]
    #[arg(long, value_name = "TEXT", env = "AZMUTEX_OWNER")]
    pub(crate) owner: Option<String>,
    /// Why the lock is held, as shown to others: not for secrets [default: the name of the command, if there is one]
    #[arg(long, value_name = "TEXT", env = "AZMUTEX_REASON")]
    pub(crate) reason: Option<String>,
}

/// How to wait for a lock.
#[derive(Debug, Clone, Args)]
pub(crate) struct Waiting {
    /// Fail at once if somebody holds the lock; the same as -w 0
    #[arg(short, long, overrides_with = "wait")]
    pub(crate) nonblock: bool,
    /// Give up after this time, such as 30s or 5m [default: wait forever]
    #[arg(
        short,
        long,
        value_name = "DURATION",
        env = "AZMUTEX_WAIT",
        value_parser = value::duration,
        overrides_with = "nonblock"
    )]
    pub(crate) wait: Option<Duration>,
    /// How long to wait between attempts while somebody holds the lock, on average
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_POLL",
        default_value = "625ms",
        value_parser = value::poll_interval
    )]
    pub(crate) poll: Duration,
    /// Whether to create a missing container and lock blob
    #[arg(
        long,
        value_name = "WHEN",
        env = "AZMUTEX_CREATE",
        value_enum,
        default_value_t = Create::Auto
    )]
    pub(crate) create: Create,
    /// How long to retry while the service fails or does not answer; a tenth of it, at least 5s, if
    /// a port of this machine has only refused connections
    #[arg(
        long,
        value_name = "DURATION",
        env = "AZMUTEX_FAULT_WAIT",
        default_value = "60s",
        value_parser = value::duration
    )]
    pub(crate) fault_wait: Duration,
}

impl Waiting {
    /// How long to wait for a holder; `None` means forever.
    pub(crate) fn limit(&self) -> Option<Duration> {
        if self.nonblock {
            Some(Duration::ZERO)
        } else {
            self.wait
        }
    }

    /// What is left of the limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        let limit = self.limit()?;
        Some(limit.saturating_sub(since_start()))
    }

    /// For how long failures in a row are retried: the library takes no zero.
    pub(crate) fn retry_time(&self) -> Duration {
        self.fault_wait.max(Duration::from_millis(1))
    }

    /// How long to wait for a named pipe that is given as a file.
    pub(crate) fn patience(&self, global: &Global) -> Duration {
        match self.left() {
            None => self.fault_wait,
            Some(_) if self.limit() == Some(Duration::ZERO) => {
                self.fault_wait.min(global.request_timeout)
            }
            Some(left) => self.fault_wait.min(left),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Create {
    /// On first use
    Auto,
    /// Fail if one of them is missing
    Never,
}
